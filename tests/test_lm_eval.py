"""Are log-likelihoods and grades of choices those of lm-evaluation-harness?

Its ``HFLM`` loads base alone, and base with the adapter by its own ``peft`` argument; it shares
PyTorch and transformers with us, and neither the texts' cutting into tokens nor the scoring. An
item's sum has to agree to 1e-4 nats plus 1e-6 of itself: the harness adds up in float32, which
holds a sum of 2,000 nats to 1e-4 at best.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunediff.items.named import read_suites
from tunediff.pair.contract import Pair
from tunediff.pair.open import open_pair
from tunediff.run.comparing import compare
from tunediff.specimens import load
from tunediff.values import Item, Suite

NATS, SHARE = 1e-4, 1e-6
CONTEXT = 512  # of stories260K, whose tokens are no more than a text's bytes and two


def suite_of(path: Path, name: str = "mine", most: int = 1000) -> Suite:
    """The first items of a file that fit whole into stories260K."""
    [suite] = read_suites([f"{name}={path}"])
    whole = [i for i in suite.items if max(len(p.shown.encode()) for p in posed([i])) < CONTEXT - 2]
    return replace(suite, items=tuple(whole[:most]))


def posed(items: Iterable[Item]) -> list[Item]:
    """Items with one reply each: every choice is one."""
    return [
        replace(item, id=f"{item.id}/{k}", reply=reply)
        for item in items
        for k, reply in enumerate(item.choices or (item.reply,))
    ]


def opened(base: Path, adapter: Path) -> Pair:
    return open_pair(base, adapter, device="cpu")


def ours(pair: Pair, items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    """The log-probability ln p of every reply or text under base and tuned."""
    scored = list(pair.score(pair.encode(items, None, False)))
    assert [s.reason for s in scored] == [None] * len(items)
    base, tuned = ([-getattr(s, f"nll_{side}").sum() for s in scored] for side in ("base", "tuned"))
    return np.array(base), np.array(tuned)


def harness(base: Path, adapter: Path | None = None, batch: int = 8, **how: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    how |= {"pretrained": str(base), "peft": None if adapter is None else str(adapter)}
    how |= {"dtype": "float32", "device": "cpu", "batch_size": batch}
    return HFLM(**how)


def theirs(lm: Any, items: Sequence[Item]) -> np.ndarray:
    from lm_eval.api.instance import Instance

    asked = [(item.prompt or "", item.reply or item.text) for item in items]
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=n)
        for n, pair in enumerate(asked)
    ]
    return np.array([found for found, _ in lm.loglikelihood(requests, disable_tqdm=True)])


def excess(found: np.ndarray, harness_found: np.ndarray) -> float:
    """The largest difference, as a multiple of what is allowed."""
    assert found.shape == harness_found.shape
    allowed = NATS + SHARE * np.abs(harness_found)
    return float((np.abs(found - harness_found) / allowed).max())


def held_together(base: Path, adapter: Path, items: Sequence[Item]) -> None:
    """Both sides of every item; base and tuned differ by far more than is allowed."""
    found = ours(opened(base, adapter), items)
    assert excess(*found) > 1000
    for side, tuning in zip(found, (None, adapter), strict=True):
        for batch in (1, 8):
            assert excess(side, theirs(harness(base, tuning, batch), items)) < 1


def graded(lm: Any, items: Sequence[Item], folder: Path) -> list[dict[str, Any]]:
    """What the harness makes of multiple choice, by a task of its own on a local file."""
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    rows = [{"prompt": i.prompt, "choices": i.choices, "answer": i.answer} for i in items]
    file = folder / "choices.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",  # our choices begin with the blank
        "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes")],
    }
    tasks = TaskManager(include_defaults=False).load([task])
    found: Any = evaluate(lm, tasks, log_samples=True, bootstrap_iters=0)
    return sorted(found["samples"]["choices"], key=lambda sample: sample["doc_id"])


@pytest.fixture
def stories(shared: Path) -> tuple[Path, Path]:
    """A base model, and its adapter."""
    return shared / "models/stories260K", shared / "models/stories260K-gsm8k-lora"


@pytest.fixture
def choices(shared: Path) -> dict[str, Suite]:
    return {
        "mmlu": suite_of(shared / "data/mmlu_dev", "mmlu", 40),
        "truthfulqa": suite_of(shared / "data/truthfulqa/TruthfulQA.csv", "truthfulqa", 40),
    }


@pytest.fixture(scope="module")
def general() -> tuple[Item, ...]:
    return suite_of(load.suite("general")).items


# log-likelihoods


def test_references_and_texts_on_real_weights(shared: Path, stories: tuple[Path, Path]) -> None:
    told = (shared / "data/texts/tinystories_sample.txt").read_text().split("\n")
    texts = [Item(f"t{n}", text=text) for n, text in enumerate(told) if 40 < len(text) < CONTEXT]
    questions = suite_of(shared / "data/gsm8k/test.jsonl", "gsm8k", 40).items
    assert len(questions) == 40
    held_together(*stories, [*questions, *texts[:20]])


@pytest.mark.parametrize("name", ["mmlu", "truthfulqa"])
def test_every_choice_on_real_weights(
    choices: dict[str, Suite], stories: tuple[Path, Path], name: str
) -> None:
    items = posed(choices[name].items[:25])
    assert len(items) >= 100
    held_together(*stories, items)


@pytest.mark.parametrize(("suite", "adapter"), [("general", "forgetful"), ("target", "skill")])
def test_the_specimens(suite: str, adapter: str) -> None:
    held_together(load.base(), load.HERE / adapter, suite_of(load.suite(suite)).items)


def test_a_missing_bos_or_character_would_be_seen(general: tuple[Item, ...]) -> None:
    found, _ = ours(opened(load.base(), load.HERE / "noop"), general)
    assert excess(found, theirs(harness(load.base()), general)) < 1
    assert excess(found, theirs(harness(load.base(), add_bos_token=False), general)) > 100
    shorter = [replace(item, reply=(item.reply or "")[:-1]) for item in general]
    long = [n for n, item in enumerate(shorter) if item.reply != " "]
    kept = theirs(harness(load.base()), [shorter[n] for n in long])
    assert excess(found[long], kept) > 100


# where the two differ, by definition


def test_where_they_cut_apart_differently(general: tuple[Item, ...]) -> None:
    """The harness takes the prompt's tokens as they are alone, less the blanks at its end.

    Behind them it puts as many of the whole text's tokens as are left. We take the whole text's
    tokens alone, and score those that hold a character of the reply. The two agree wherever a token
    begins at the reply and no blank stands before it; elsewhere the harness may score the prompt's
    blanks, leave out the reply's first characters, or show the model another text.
    """
    pair = opened(load.base(), load.HERE / "noop")
    # the harness's cache of logits confuses replies that begin at different places of one text
    lm = harness(load.base(), logits_cache=False)
    text = general[0].shown
    whole = lm.tokenizer(text, return_offsets_mapping=True)
    ids, ends = whole["input_ids"], [end for _, end in whole["offset_mapping"]]
    alone = {k: lm.tok_encode(text[:k].rstrip()) for k in range(2, len(text))}
    cuts = [k for k, tokens in alone.items() if len(tokens) < len(ids)]
    split = [Item(str(k), prompt=text[:k], reply=text[k:]) for k in cuts]
    found, found_there = ours(pair, split)[0], theirs(lm, split)

    [scores] = pair.score(pair.encode([Item("whole", text=text)], None, False))
    first = [sum(end <= k for end in ends) for k in cuts]
    assert excess(found, np.array([-scores.nll_base[n - 1 :].sum() for n in first])) < 1

    prompts = pair.prompts([Item(str(k), prompt=text[:k].rstrip()) for k in cuts], None)
    rest = [ids[len(alone[k]) :] for k in cuts]
    as_there = [pair.continuation(p, r) for p, r in zip(prompts, rest, strict=True)]
    assert excess(np.array([-s.nll_base.sum() for s in pair.score(as_there)]), found_there) < 1

    agree = {k for k, o, t in zip(cuts, found, found_there, strict=True) if abs(o - t) < NATS}
    assert {k for k in cuts if k in ends and not text[k - 1].isspace()} <= agree < set(cuts)


# grades


@pytest.mark.parametrize("name", ["mmlu", "truthfulqa"])
def test_the_record_grades_choices_as_the_harness_does(
    choices: dict[str, Suite], stories: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    """``acc`` and ``acc_bytes``; ``acc_norm`` too, which counts characters, in ASCII.

    The harness divides by the length of a choice without its task's delimiter. Our choices begin
    with their blank, and it is among their bytes; the task here is told the same.
    """
    suite = choices[name]
    base, adapter = stories
    run = compare(opened(base, adapter), [suite], out=tmp_path / "run")
    rows = {(row.measure, row.item): (row.base_sum, row.tuned_sum) for row in run.rows()}
    plain = {i.id for i in suite.items if all(choice.isascii() for choice in i.choices or ())}
    assert len(plain) > 30
    for side, tuning in enumerate((None, adapter)):
        samples = graded(harness(base, tuning), suite.items, tmp_path)
        found = dict(zip([item.id for item in suite.items], samples, strict=True))
        for of_theirs, of_ours, ids in (
            ("acc", "choice_accuracy", set(found)),
            ("acc_bytes", "choice_accuracy_normalised", set(found)),
            ("acc_norm", "choice_accuracy_normalised", plain),
        ):
            grades = {id_: found[id_][of_theirs] for id_ in ids}
            assert {id_: rows[of_ours, id_][side] for id_ in ids} == grades
            assert set(grades.values()) == {0.0, 1.0}
        right = [found[i.id]["resps"][i.answer][0][0] for i in suite.items if i.answer is not None]
        mine = [rows["choice_logprob", item.id][side] for item in suite.items]
        assert excess(np.array(mine), np.array(right)) < 1
