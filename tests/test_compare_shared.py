"""Does ``compare`` find what is true of real weights: a skill gained, stories forgotten, loops?

stories260K was trained on TinyStories, and its adapter on GSM8K for so long that its replies go
round in circles.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import oracle
from command import Said, command
from tunediff.run.store import Run

Compared = tuple[Said, Path, dict[str, Any]]


@pytest.fixture(scope="module")
def pieces(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paragraphs of the five stories: enough pieces for an interval."""
    stories = (shared / "data" / "texts" / "tinystories_sample.txt").read_text()
    stories = stories.replace("<|endoftext|>", "\n")
    texts = [text for text in stories.split("\n") if len(text.split()) >= 8]
    assert len(texts) >= 12
    file = tmp_path_factory.mktemp("stories") / "stories.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def arguments(shared: Path, pieces: Path) -> tuple[Any, ...]:
    models, data = shared / "models", shared / "data"
    suites = (
        f"gsm8k={data / 'gsm8k' / 'test.jsonl'}",
        f"stories={pieces}",
        f"mmlu={data / 'mmlu_dev'}",
    )
    return (
        *("compare", models / "stories260K", models / "stories260K-gsm8k-lora"),
        *(x for suite in suites for x in ("--suite", suite)),
        *("--axis", "gsm8k=target", "--limit", 30),
    )


@pytest.fixture(scope="module")
def compared(shared: Path, pieces: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Replies of the default length; a few questions are longer than the context of 512."""
    out = tmp_path_factory.mktemp("compare") / "run"
    said = command(*arguments(shared, pieces), "--allow-truncation", "--out", out)
    assert said.code == 0, said
    (variant,) = json.loads((out / "summary.json").read_bytes())["variants"]
    return said, out, variant


def test_forgetting_of_stories_is_found(compared: Compared) -> None:
    said, _, variant = compared
    nll = variant["measures"]["stories"]["nll"]
    assert nll["verdict"] == "degraded"
    assert nll["groups"] >= 12
    assert nll["low"] > nll["margin"]
    general = variant["axes"]["general"]
    assert (general["primary"], general["verdict"]) == ("nll", "degraded")
    assert general["suites"] == ["mmlu", "stories"]
    assert "general degraded" in said.out


def test_the_target_is_better(compared: Compared) -> None:
    said, _, variant = compared
    target = variant["axes"]["target"]
    assert (target["verdict"], target["suites"]) == ("better", ["gsm8k"])
    assert target["high"] < -1
    assert "target better" in said.out
    # and yet no answer is right: a likelier text is not an answer
    right = variant["measures"]["gsm8k"]["exact_match"]
    assert (right["base"], right["tuned"], right["verdict"]) == (0, 0, "no_headroom")


def loops(text: str) -> bool:
    """By brute force: the last 50 characters and more are one block three times over, or 30 and
    more are one with a letter or digit ten times over.
    """
    for p in range(1, len(text) // 3 + 1):
        back = text[::-1]
        n = p
        while n < len(text) and back[n] == back[n - p]:
            n += 1
        if n >= max(3 * p, 50):
            return True
        if n >= max(10 * p, 30) and any(c.isalnum() for c in back[:p]):
            return True
    return False


def test_degenerate_replies_are_found_as_such(compared: Compared) -> None:
    said, out, variant = compared
    replies = Run.open(out).replies()
    assert {r["suite"] for r in replies} == {"gsm8k", "mmlu"}
    assert max(len(r["tuned"]["ids"]) for r in replies) == 128
    for suite, least in (("gsm8k", 0.5), ("mmlu", 0.25)):
        found = variant["measures"][suite]["degenerate"]
        own = [r for r in replies if r["suite"] == suite]
        for side in ("base", "tuned"):
            assert found[side] == sum(loops(r[side]["text"]) for r in own) / len(own)
        assert found["base"] < 0.2
        assert found["tuned"] > least
        assert found["verdict"] == "degraded"
        assert variant["measures"][suite]["repetition"]["verdict"] == "degraded"
    assert "degenerate replies" in said.out


def test_stories_equal_the_oracle(compared: Compared, shared: Path, pieces: Path) -> None:
    from tokenizers import Tokenizer

    base = shared / "models" / "stories260K"
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    texts = [json.loads(line)["text"] for line in pieces.read_text().splitlines()]
    found = Run.open(compared[1]).rows()
    rows = {r.item: r for r in found if (r.suite, r.measure) == ("stories", "nll")}
    assert len(rows) == len(texts)
    for k in (0, 7, 11):
        ids = tokenizer.encode(texts[k]).ids
        truth = oracle.pair_metrics(base, base.with_name("stories260K-gsm8k-lora"), [ids])
        row = rows[str(k)]
        assert row.count == truth["tokens"]
        for side in ("base", "tuned"):
            mean = getattr(row, f"{side}_sum") / row.count
            assert mean == pytest.approx(truth[f"nll_{side}"], rel=1e-4)


def test_choices_below_chance_have_no_headroom(compared: Compared) -> None:
    found = compared[2]["measures"]["mmlu"]["choice_accuracy"]
    assert found["verdict"] == "no_headroom"
    assert found["base"] < 0.5


def test_a_question_longer_than_the_context_is_named(
    shared: Path, pieces: Path, tmp_path: Path
) -> None:
    error = command(*arguments(shared, pieces), "--out", tmp_path / "run", "--json").error
    assert "(test.jsonl:8) has 539 tokens; at most 512 fit." in error["message"]
    assert "--allow-truncation" in error["hint"]
    assert not (tmp_path / "run").exists()
