"""Does a comparison keep what both models said, every row right, killed or not?"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factory
from comparison import EMPTY, GENERATION, AnsweringPair, asked, rendered, small_comparison
from faults import Disk, Killed, contents
from tunediff.errors import InputError, RunError, UsageError
from tunediff.measures import CHOICES, REPLIES, SAMPLES, TOKENS
from tunediff.pair.open import open_pair
from tunediff.pair.toy import LEARNED, ToyPair
from tunediff.run.comparing import OF_REPLIES, compare
from tunediff.run.store import Run
from tunediff.studies.compare import measure_compare
from tunediff.values import Constraint, Encoded, Generation, Item, Reply, Row, Scores, Suite

SHORT = Generation(max_new_tokens=6)


def names(measures: Sequence[Any]) -> set[str]:
    return {m.name for m in measures}


def row(run: Run, measure: str, item: str, sample: int = 0) -> Row:
    (found,) = [r for r in run.rows() if (r.measure, r.item, r.sample) == (measure, item, sample)]
    return found


def sums(found: Row) -> tuple[Any, ...]:
    return found.base_sum, found.tuned_sum, found.effect_sum, found.count


def suite(*items: Item, name: str = "asked") -> Suite:
    return Suite(name, items, "h" * 64)


# rows of every way


def test_every_item_has_the_rows_of_its_ways(tmp_path: Path) -> None:
    run = small_comparison(tmp_path)
    found: dict[str, list[str]] = {}
    for r in run.rows():
        found.setdefault(r.item, []).append(r.measure)
    answered = names(REPLIES) | names(OF_REPLIES)
    wanted = {
        "s0": names(TOKENS) | answered,
        "c0": names(TOKENS) | names(CHOICES) | answered,
        "t0": names(TOKENS),
        "w0": answered,
    }
    for item, measures in wanted.items():
        assert sorted(found[item]) == sorted(measures)
    assert len(found) == 16
    assert {(r["suite"], r["item"], r["sample"]) for r in run.replies()} == {
        (s.name, i.id, 0) for s in asked() for i in s.items if i.text is None
    }
    assert {(r.suite, r.axis, r.group) for r in run.rows() if r.item == "c1"} == {
        ("posed", "general", "c1")
    }
    assert [i["id"] for i in run.items()] == [i.id for s in asked() for i in s.items]


def test_rows_of_the_toy_are_its_closed_forms(tmp_path: Path) -> None:
    strength = 0.7
    item = Item(
        "q", prompt="How many ships lie here?", reply=" nine", choices=(" nine", " XY", " Q."),
        answer=0,
    )  # fmt: skip
    run = compare(ToyPair(strength), [suite(item)], out=tmp_path, generation=SHORT)
    z = len(LEARNED) * math.exp(strength) + 256 - len(LEARNED)

    def log_p(text: str) -> tuple[float, float]:
        known = sum(b in LEARNED for b in text.encode())
        return -len(text) * math.log(256), strength * known - len(text) * math.log(z)

    base, tuned = log_p(" nine")
    assert sums(row(run, "nll", "q")) == pytest.approx((-base, -tuned, base - tuned, 5))
    assert sums(row(run, "choice_logprob", "q")) == pytest.approx((base, tuned, tuned - base, 5))
    # both like a short choice best, whatever its letters
    both = [log_p(choice) for choice in item.choices or ()]
    right = [float(max(side) == side[0]) for side in zip(*both, strict=True)]
    assert sums(row(run, "choice_accuracy", "q"))[:2] == tuple(right) == (0.0, 0.0)
    # a letter at a time the right choice is the likeliest
    assert sums(row(run, "choice_accuracy_normalised", "q"))[1] == 1.0
    p = [np.exp(np.array(side) - max(side)) for side in zip(*both, strict=True)]
    sure = [float(side.max() / side.sum()) for side in p]
    assert sums(row(run, "choice_confidence", "q"))[:2] == pytest.approx(tuple(sure))
    # replies: byte 0 from base, blanks from tuned
    (line,) = run.replies()
    assert (line["base"]["text"], line["tuned"]["text"]) == ("\0" * 6, " " * 6)
    assert (line["base"]["stop"], line["tuned"]["ids"]) == ("length", [32] * 6)
    assert sums(row(run, "words", "q")) == (1.0, 0.0, -1.0, 1)
    n, blank = 6, 6 * (math.log(z) - strength)
    nothing, spread = n * math.log(256), n * math.log(z)
    assert sums(row(run, "nll_of_base_reply", "q")) == pytest.approx(
        (nothing, spread, spread - nothing, n)
    )
    assert sums(row(run, "nll_of_tuned_reply", "q")) == pytest.approx(
        (nothing, blank, blank - nothing, n)
    )


TEMPLATE = (
    "{% for m in messages %}{{ '[' + m['role'] + ']\n' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    base = factory.tiny_model(root / "base", layers=2)
    (base / "chat_template.jinja").write_text(TEMPLATE)
    return base, factory.lora_adapter(root / "lora", base, scale=0.1)


class Alone:
    """Both models as transformers and peft have them, one text at a time."""

    def __init__(self, base: Path, tuned: Path) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        def load() -> Any:
            return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()

        self.models = (load(), PeftModel.from_pretrained(load(), tuned).eval())
        self.tokenizer = AutoTokenizer.from_pretrained(base)

    def ids(self, text: str, special: bool) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special)["input_ids"]

    def log_p(self, before: list[int], whole: list[int]) -> list[float]:
        """The ln p of what stands behind, by either model."""
        import torch

        assert whole[: len(before)] == before
        found = []
        for model in self.models:
            with torch.no_grad():
                z = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            found.append(sum(float(z[t - 1, whole[t]]) for t in range(len(before), len(whole))))
        return found

    def reply(self, side: int, prompt: list[int], most: int) -> list[int]:
        """Greedy, a token at a time."""
        import torch

        ids = list(prompt)
        for _ in range(most):
            with torch.no_grad():
                ids.append(int(self.models[side](torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == factory.EOS:
                return ids[len(prompt) : -1]
        return ids[len(prompt) :]


@pytest.mark.parametrize("form", ["raw", "chat"])
def test_rows_of_real_models_equal_the_libraries(
    folders: tuple[Path, Path], form: Any, tmp_path: Path
) -> None:
    """In the chat form too, where every choice is a conversation of its own."""
    prompt, choices = "the quick brown fox sees", (" nine", " two owls", " thunder")
    items = [
        Item("q", prompt=prompt, choices=choices, answer=1, reply=choices[1]),
        Item("r", prompt="over the river", choices=(" and", " on"), answer=0, reply=" and"),
    ]
    run = compare(open_pair(*folders), [suite(*items)], out=tmp_path, generation=SHORT, form=form)
    alone = Alone(*folders)

    def text(reply: str | None) -> str:
        if form == "raw":
            return prompt + (reply or "")
        before = f"[user]\n{prompt}\n[assistant]\n"
        return before if reply is None else f"{before}{reply.strip()}\n"

    before = alone.ids(text(None), special=form == "raw")
    wholes = [alone.ids(text(choice), special=form == "raw") for choice in choices]
    likely = np.array([alone.log_p(before, whole) for whole in wholes])  # (C, 2)
    assert np.ptp(likely[:, 0]) > 0.1  # the choices can be told apart
    count = len(wholes[1]) - len(before)
    base, tuned = likely[1]
    close = {"rel": 1e-4, "abs": 1e-4}
    assert sums(row(run, "nll", "q")) == pytest.approx(
        (-base, -tuned, base - tuned, count), **close
    )
    assert sums(row(run, "choice_logprob", "q")) == pytest.approx(
        (base, tuned, tuned - base, count), **close
    )
    p = np.exp(likely) / np.exp(likely).sum(axis=0)
    wanted = ((p - [[0], [1], [0]]) ** 2).sum(axis=0)
    assert sums(row(run, "choice_brier", "q"))[:2] == pytest.approx(tuple(wanted), **close)
    assert sums(row(run, "choice_accuracy", "q"))[:2] == tuple(
        (likely.argmax(axis=0) == 1).astype(float)
    )
    (line,) = [line for line in run.replies() if line["item"] == "q"]
    for k, side in enumerate(("base", "tuned")):
        ids = line[side]["ids"]
        assert ids == alone.reply(k, before, SHORT.max_new_tokens)
        assert line[side]["text"].strip() == alone.tokenizer.decode(ids).strip()
        of_reply = alone.log_p(before, before + ids)
        found = sums(row(run, f"nll_of_{side}_reply", "q"))
        assert found == pytest.approx(
            (-of_reply[0], -of_reply[1], of_reply[0] - of_reply[1], len(ids)), **close
        )


def test_measures_of_replies_see_the_item_and_what_was_said(tmp_path: Path) -> None:
    item = Item(
        "i", prompt="Say it without a comma.", reply=" 7",
        constraints=(Constraint("punctuation:no_comma"),),
    )  # fmt: skip

    class Saying(AnsweringPair):
        def generate(self, prompts: Any, *_: Any, **__: Any) -> Any:
            for _ in prompts:
                yield Reply("7, I say", (1, 2)), Reply("The answer is 7.", (3,))

    run = small_comparison(tmp_path, Saying(), suites=[suite(item)])
    assert sums(row(run, "exact_match", "i"))[1] == 1.0
    assert sums(row(run, "instruction_adherence", "i")) == (0.0, 1.0, 1.0, 1)
    assert sums(row(run, "words", "i")) == (3.0, 4.0, 1.0, 1)
    assert sums(row(run, "tokens", "i")) == (2.0, 1.0, -1.0, 1)
    assert run.items()[0]["constraints"] == [{"kind": "punctuation:no_comma", "details": {}}]


# the form of the prompt

TALK = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "First?"},
    {"role": "assistant", "content": "One."},
    {"role": "user", "content": "Second thing now?"},
    {"role": "assistant", "content": "Two."},
)


@pytest.mark.parametrize("form", ["raw", "chat"])
def test_a_conversation_is_asked_whole(form: Any, tmp_path: Path) -> None:
    """Its system message and earlier turns are part of the prompt, in either form."""
    item = Item("m", messages=TALK)
    seen: list[str] = []

    class Listening(AnsweringPair):
        def generate(self, prompts: Sequence[Encoded], *rest: Any, **more: Any) -> Any:
            seen.extend(bytes(p.ids.tolist()).decode() for p in prompts)
            for _ in prompts:
                yield Reply("brief", (1,)), Reply("a second thing", (1, 2, 3))

    run = small_comparison(tmp_path, Listening(), suites=[suite(item)], form=form)
    assert seen == [rendered(item, whole=False)]
    assert "Be brief." in seen[0]
    # the measures look at the last question alone: its words are the keywords
    assert sums(row(run, "keyword_coverage", "m")) == (0.0, 1.0, 1.0, 1)


def test_the_chat_form_renders_every_prompt_and_choice(tmp_path: Path) -> None:
    seen: list[str] = []

    class Listening(AnsweringPair):
        def _encode(self, item: Item, *rest: Any) -> Encoded:
            found = super()._encode(item, *rest)
            seen.append(bytes(found.ids.tolist()).decode())
            return found

    posed = asked()[1]
    run = small_comparison(tmp_path, Listening(), suites=[posed], form="chat")
    prompts = [i.prompt or "" for i in posed.items]
    choices = [c.strip() for c in posed.items[0].choices or ()]
    for prompt in prompts:
        for choice in choices:
            assert f"<user>{prompt}<assistant>{choice}" in seen
    assert run.record["identity"]["form"] == "chat"
    raw = small_comparison(tmp_path / "raw", suites=[posed])
    assert raw.record["identity"]["suites"] != run.record["identity"]["suites"]


# what is asked, in which order


def test_shuffled_items_give_the_same_bytes(tmp_path: Path) -> None:
    def promised(folder: Path) -> dict[str, bytes]:
        return {k: v for k, v in contents(folder).items() if k != "items.jsonl"}

    small_comparison(tmp_path / "first")
    first = promised(tmp_path / "first")
    for seed in range(3):
        mixed = []
        for s in asked():
            items = list(s.items)
            random.Random(seed).shuffle(items)
            mixed.append(replace(s, items=tuple(items)))
        run = small_comparison(tmp_path / f"{seed}", suites=mixed)
        assert promised(tmp_path / f"{seed}") == first
        assert sorted(i["id"] for i in run.items()) == sorted(
            i.id for s in asked() for i in s.items
        )


def test_what_does_not_fit_is_refused_or_left_out_with_its_reason(tmp_path: Path) -> None:
    long = "x" * 60
    items = suite(
        Item("long prompt", prompt=long, reply=" 1", source="f:1"),
        Item("long choice", prompt="Pick:", reply=" a", choices=(" a", " " + long), answer=0,
             source="f:2"),
        Item("fits", prompt="Say:", reply=" b", source="f:3"),
    )  # fmt: skip
    options: dict[str, Any] = {"suites": [items], "max_length": 40}
    with pytest.raises(InputError, match=r"f:1: 62 tokens, allowed are 40\."):
        small_comparison(tmp_path / "refused", **options)
    assert not (tmp_path / "refused").exists()

    run = small_comparison(tmp_path / "cut", allow_truncation=True, **options)
    null = {(r.item, r.measure): r.reason for r in run.rows() if r.effect_sum is None}
    assert null["long prompt", "nll"] == "f:1: nothing of its reply fits."
    assert null["long prompt", "exact_match"] == "f:1: the prompt does not fit."
    assert null["long choice", "choice_accuracy"] == "A choice does not fit whole."
    assert all(reason and reason.endswith(".") for reason in null.values())
    assert {r.count for r in run.rows() if r.effect_sum is None} == {0}
    assert row(run, "nll", "fits").effect_sum is not None
    assert [r["item"] for r in run.replies()] == ["fits", "long choice"]
    # nothing of a suite fits: still a run, and every row says why
    alone = {**options, "suites": [suite(items.items[0])]}
    run = small_comparison(tmp_path / "none", allow_truncation=True, **alone)
    assert {r.effect_sum for r in run.rows()} == {None}
    assert len(run.rows()) == len(TOKENS) + len(REPLIES)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (
            Item("mark", messages=({"role": "user", "content": "say </s>"}, TALK[2])),
            "special token",
        ),
        (Item("mark", prompt="", reply=""), "Item 'mark' has no scored position"),
    ],
)
def test_leave_to_cut_does_not_excuse_other_faults(
    folders: tuple[Path, Path], item: Item, says: str, tmp_path: Path
) -> None:
    items = suite(Item("long", prompt="fox " * 300, reply=" x"), item)
    with pytest.raises(InputError, match=says):
        compare(open_pair(*folders), [items], out=tmp_path / "run", generation=SHORT,
                allow_truncation=True)  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_an_id_may_hold_any_character(tmp_path: Path) -> None:
    odd = Item("a\x1fb\x1f0", prompt="Pick:", reply=" a", choices=(" a", " b"), answer=0)
    long = replace(odd, id="a\x1flong", choices=(" a", " b" * 60))
    over = replace(odd, id="a\x1fover", prompt="x" * 60)
    run = small_comparison(
        tmp_path, suites=[suite(odd, long, over)], max_length=40, allow_truncation=True
    )
    assert {r.item for r in run.rows()} == {"a\x1fb\x1f0", "a\x1flong", "a\x1fover"}
    assert row(run, "choice_accuracy", odd.id).effect_sum is not None
    assert row(run, "choice_accuracy", long.id).reason == "A choice does not fit whole."


@pytest.mark.parametrize(
    ("suites", "says"),
    [
        ([], "at least one is needed"),
        ([suite(Item("a", text="x y")), suite(Item("b", text="x y"))], "each name once"),
        ([suite()], "The suite 'asked' holds no item."),
        (
            [suite(Item("a", prompt="p", source="f:1"), Item("a", prompt="q", source="f:2"))],
            r"f:2: the id 'a' was given before \(f:1\)",
        ),
    ],
)
def test_suites_that_cannot_be_told_apart_are_refused(
    suites: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        small_comparison(tmp_path / "run", suites=suites)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"top_p": 1.5}, "top_p is 1.5"), ({"temperature": -1.0}, "temperature is -1.0"),
     ({"stop": ("",)}, "stop is")],
)  # fmt: skip
def test_settings_that_make_no_replies_write_nothing(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        small_comparison(tmp_path / "run", generation=replace(GENERATION, **changes))
    assert not (tmp_path / "run").exists()


def test_a_suite_that_this_pair_cannot_be_asked(tmp_path: Path) -> None:
    open_ended = [asked()[3]]
    with pytest.raises(InputError, match="Nothing of the suite 'open' can be asked"):
        small_comparison(tmp_path / "run", suites=open_ended, generation=None)
    assert not (tmp_path / "run").exists()


def test_without_generation_nothing_is_answered(tmp_path: Path) -> None:
    pair = AnsweringPair()
    run = small_comparison(tmp_path, pair, suites=asked()[:3], generation=None)
    assert pair.answered == []
    assert run.replies() == []
    assert names(TOKENS) | names(CHOICES) == {r.measure for r in run.rows()}


def test_a_failed_item_has_no_number(tmp_path: Path) -> None:
    run = small_comparison(tmp_path, AnsweringPair(bad="s1"))
    bad = {r.measure: r for r in run.rows() if r.item == "s1" and r.effect_sum is None}
    assert names(TOKENS) | names(OF_REPLIES) <= set(bad)
    assert {bad[m.name].reason for m in TOKENS} == {"Its logits are not finite."}


def test_a_failed_choice_fails_its_item(tmp_path: Path) -> None:
    run = small_comparison(tmp_path, AnsweringPair(bad="c1\x1f2"))
    found = row(run, "choice_accuracy", "c1")
    assert (found.effect_sum, found.reason) == (None, "Its logits are not finite.")
    assert row(run, "choice_accuracy", "c2").effect_sum is not None
    assert "\x1f" not in "".join(r.item for r in run.rows())


# replies


def replied(run: Run) -> dict[tuple[str, str, int], Reply]:
    return {
        (r["suite"], r["item"], r["sample"]): Reply(
            r["base"]["text"], tuple(r["base"]["ids"]), r["base"]["stop"]
        )
        for r in run.replies()
    }


def test_replies_that_are_known_are_not_asked_for_again(tmp_path: Path) -> None:
    first = AnsweringPair()
    run = small_comparison(tmp_path / "first", first, samples=2)
    assert {sides for *_, sides in first.answered} == {("base", "tuned")}
    again = AnsweringPair()
    other = small_comparison(tmp_path / "again", again, samples=2, known=replied(run))
    assert {sides for *_, sides in again.answered} == {("tuned",)}
    assert [a[:2] for a in again.answered] == [a[:2] for a in first.answered]
    assert contents(tmp_path / "again") == contents(tmp_path / "first")
    assert other.rows() == run.rows()
    # a reply that is not known: its part is asked of both
    known = replied(run)
    del known["sums", "s0", 1]
    partly = AnsweringPair()
    small_comparison(tmp_path / "partly", partly, samples=2, known=known)
    both = [a for a in partly.answered if a[2] == ("base", "tuned")]
    assert len(both) == 1
    assert ("s0" in both[0][0], both[0][1]) == (True, 1)
    assert contents(tmp_path / "partly") == contents(tmp_path / "first")


def with_end(folder: Path, base: Path, token: int) -> Path:
    """An adapter whose tokenizer ends texts with another token than base's."""
    from transformers import AutoTokenizer

    factory.lora_adapter(folder, base, scale=0.2, seed=1)
    factory.tiny_tokenizer(folder)
    word = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(token)
    factory.edit_json(folder / "tokenizer_config.json", eos_token=word)
    return folder


def test_base_answers_anew_where_other_tokens_end_replies(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """In whatever order: base's replies in a run are those of that run made alone."""
    base, plain = folders
    asked = [suite(*(Item(str(k), prompt=t) for k, t in enumerate(factory.texts(4, 7))))]

    def said(*tuned: Path) -> list[Any]:
        out = tmp_path / "-and-".join(t.name for t in tuned) / "run"
        runs = measure_compare(
            str(base), [str(t) for t in tuned], asked, out,
            generation=Generation(max_new_tokens=12), opening={"device": "cpu"},
        )  # fmt: skip
        return [[line["base"] for line in run.replies()] for run in runs]

    (usual,) = said(plain)
    token = next(i for reply in usual for i in reply["ids"][2:] if 2 <= i < 272)
    other = with_end(tmp_path / "models" / "other", base, token)
    (shorter,) = said(other)
    assert shorter != usual
    assert said(plain, other) == [usual, shorter]
    assert said(other, plain) == [shorter, usual]


def test_other_end_tokens_are_another_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base = shutil.copytree(folders[0], tmp_path / "base")
    items = [suite(Item("i", prompt="the fox"))]

    def run() -> Run:
        pair = open_pair(base, folders[1], device="cpu")
        return compare(pair, items, out=tmp_path / "run", generation=SHORT)

    assert run().record["identity"]["settings"]["ends"] == [factory.EOS]
    factory.edit_json(base / "generation_config.json", eos_token_id=[factory.EOS, 70])
    with pytest.raises(RunError, match=r"these differ: ends \(\[1\] there, \[1, 70\] here\)\."):
        run()


def test_running_out_of_memory_is_noted(tmp_path: Path) -> None:
    class Small(AnsweringPair):
        def generate(self, *rest: Any, **more: Any) -> Any:
            self.settings["halvings"] += 1
            return super().generate(*rest, **more)

    pair = Small()
    pair.settings["halvings"] = 0
    run = small_comparison(tmp_path, pair, suites=asked()[3:])
    assert [t["settings"]["halvings"] for t in run.timing() if "settings" in t] == [
        k + 1 for k in range(len(pair.answered))
    ]
    assert "halvings" not in run.record["identity"]["settings"]


def test_a_token_of_tuned_alone_leaves_a_reply_unscored(tmp_path: Path) -> None:
    class Added(AnsweringPair):
        def generate(self, prompts: Sequence[Encoded], *rest: Any, **more: Any) -> Any:
            for base, tuned in super().generate(prompts, *rest, **more):
                assert tuned is not None
                yield base, replace(tuned, ids=(*(tuned.ids or ()), 300))

        def continuation(self, prompt: Encoded, reply_ids: Sequence[int]) -> Encoded:
            if max(reply_ids) >= 300:
                raise InputError("The token id 300 is not known to both.", "A hint.")
            return super().continuation(prompt, reply_ids)

    run = small_comparison(tmp_path, Added(), suites=asked()[:1])
    for item in (i.id for i in asked()[0].items):
        found = row(run, "nll_of_tuned_reply", item)
        assert sums(found) == (None, None, None, 0)
        assert found.reason == "The token id 300 is not known to both."
        assert row(run, "nll_of_base_reply", item).effect_sum is not None
        assert row(run, "words", item).effect_sum is not None


def test_every_sample_has_its_rows(tmp_path: Path) -> None:
    pair = AnsweringPair()
    run = small_comparison(tmp_path, pair, samples=3, suites=asked()[:1])
    assert {sample for _, sample, _ in pair.answered} == {0, 1, 2}
    said = [r for r in run.replies() if r["item"] == "s2"]
    assert [r["sample"] for r in said] == [0, 1, 2]
    assert len({r["base"]["text"] for r in said}) > 1
    for r in said:
        words = [float(len(r[side]["text"].split())) for side in ("base", "tuned")]
        assert list(sums(row(run, "words", "s2", r["sample"]))[:2]) == words
        assert row(run, "nll_of_base_reply", "s2", r["sample"]).count == len(r["base"]["ids"])
    (alike,) = [r for r in run.rows() if (r.measure, r.item) == ("consistency", "s2")]
    (consistency,) = SAMPLES
    replies = [[Reply(r[side]["text"]) for r in said] for side in ("base", "tuned")]
    item = asked()[0].items[2]
    wanted = consistency.function(item, *replies)
    assert (alike.base_sum, alike.tuned_sum) == (wanted.base_sum, wanted.tuned_sum)
    assert len([r for r in run.rows() if (r.measure, r.item) == ("nll", "s2")]) == 1


def test_an_empty_reply_is_data_and_has_no_likelihood(tmp_path: Path) -> None:
    run = small_comparison(tmp_path, suites=asked()[3:])
    (line,) = [r for r in run.replies() if r["item"] == "w1"]
    assert (line["base"]["text"], line["tuned"]["ids"]) == ("", [])
    for m in OF_REPLIES:
        found = row(run, m.name, "w1")
        assert sums(found) == (None, None, None, 0)
        assert found.reason == "The reply is empty."
    assert sums(row(run, "words", "w1")) == (0.0, 0.0, 0.0, 1)
    assert EMPTY in next(i["prompt"] for i in run.items() if i["id"] == "w1")


# killed, continued, refused


def test_killed_after_every_operation_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    job: dict[str, Any] = {"suites": [asked(2)[0], asked(1)[1]], "part_tokens": 10**6}
    with Disk() as disk:
        small_comparison(tmp_path / "whole", **job)
    whole = contents(tmp_path / "whole")
    assert {Path(name).parts[0] for name in whole} == {
        *("run.json", "items.jsonl", "rows", "tokens", "texts", "probes", "replies", "candidates")
    }
    parts = len([name for name in whole if name.startswith("rows")])
    assert parts == 5  # two ways to ask the one suite, three to ask the other
    for k in range(1, len(disk.trace) + 1):
        folder = tmp_path / f"killed-{k}"
        with Disk(kill_at=k), pytest.raises(Killed):
            small_comparison(folder, **job)
        # another kernel, as a machine may find it this time: the run's own is taken
        again = AnsweringPair(kernel="fast" if (folder / "run.json").exists() else "exact")
        with Disk():
            small_comparison(folder, again, **job)
        assert contents(folder) == whole, f"killed after operation {k}, {disk.trace[k - 1]}"


def test_a_part_that_exists_is_not_asked_again(tmp_path: Path) -> None:
    small_comparison(tmp_path)
    last = sorted((tmp_path / "rows").iterdir())[-1]
    last.unlink()
    seen: list[tuple[int, int]] = []
    pair = AnsweringPair()
    small_comparison(tmp_path, pair, progress=lambda done, total: seen.append((done, total)))
    assert len(pair.answered) == 1
    assert seen[-1] == (1000, 1000)
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: {"form": "chat"}, r'form \("raw" there, "chat" here\)'),
        (lambda s: {"samples": 2}, r"samples \(1 there, 2 here\)"),
        (lambda s: {"generation": replace(GENERATION, seed=4)}, r"generation seed \(0 there, 4 he"),
        (lambda s: {"variant": "other"}, r'variant \("tuned" there, "other" here\)'),
        (lambda s: {"suites": s[:2]}, "the suite 'open'; the suite 'texts'"),
        # another right answer to the same prompt
        (
            lambda s: {"suites": [*s[:1], _answered(s[1], answer=2), *s[2:]]},
            r"these differ: the suite 'posed'\.",
        ),
        (
            lambda s: {"suites": [*s[:3], _answered(s[3], constraints=(Constraint("a:b"),))]},
            r"these differ: the suite 'open'\.",
        ),
    ],
)
def test_another_comparison_in_the_same_folder_is_refused(
    change: Callable[[Any], dict[str, Any]], says: str, tmp_path: Path
) -> None:
    small_comparison(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RunError, match=says):
        small_comparison(tmp_path, **change(asked()))
    assert contents(tmp_path) == before


def _answered(suite: Suite, **changes: Any) -> Suite:
    return replace(suite, items=(replace(suite.items[0], **changes), *suite.items[1:]))


def test_a_backend_that_mixes_up_items_is_an_error(tmp_path: Path) -> None:
    class Mixed(AnsweringPair):
        def score(self, items: Sequence[Encoded]) -> Any:
            scores: list[Scores] = list(super().score(items))
            yield from scores[::-1]

    from tunediff.errors import PairError

    with pytest.raises(PairError, match="was asked item"):
        small_comparison(tmp_path, Mixed())
    assert not list((tmp_path / "rows").iterdir())
