"""Is the object of ``check --json`` a true and whole account of the run folder?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factory
from tunediff.errors import NumericsError
from tunediff.findings.summary import candidates, summarize
from tunediff.items.read import read
from tunediff.measures import BITS_PER_BYTE, BUILT_IN
from tunediff.pair.toy import ToyPair
from tunediff.run.measuring import measure
from tunediff.run.store import Run
from tunediff.scoring import head
from tunediff.values import Encoded, Item, Scores, Suite


class Odd(ToyPair):
    """A toy with a fault: items whose logits are not finite, or a NLL of any size."""

    def __init__(self, strength: float, bad: Sequence[str] = (), more_nll: float = 0.0) -> None:
        super().__init__(strength)
        self.bad, self.more_nll = bad, more_nll

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        for item, scores in zip(items, super().score(items), strict=True):
            if item.item_id in self.bad:
                yield head.failed(item, f"the logits of {item.item_id} are not finite")
            else:
                yield replace(
                    scores,
                    nll_base=scores.nll_base + self.more_nll,
                    nll_tuned=scores.nll_tuned + self.more_nll,
                )


def run_of(
    folder: Path, pair: ToyPair, texts: Sequence[str] = (), items: Sequence[Item] = (), **how: Any
) -> Run:
    suite = Suite("items", tuple(items), "h") if items else read(prompts=texts)
    return measure(pair, suite, out=folder / "run", **how)


def object_of(*arguments: Any, **how: Any) -> dict[str, Any]:
    found = summarize(run_of(*arguments, **how))
    json.dumps(found, allow_nan=False)
    return found


def test_figures_are_the_closed_forms(tmp_path: Path) -> None:
    texts = factory.texts(10)
    pair = ToyPair(0.7)
    found = object_of(tmp_path, pair, texts)
    metrics = found["metrics"]
    for name, value in pair.closed_forms().items():
        assert metrics[name]["value"] == pytest.approx(value, rel=1e-12), name
    scored = np.concatenate([np.frombuffer(t.encode(), np.uint8)[1:] for t in texts])
    z = 13 * math.exp(0.7) + 243
    nll = np.log(z) - 0.7 * np.isin(scored, np.frombuffer(b" etaoinshrdlu", np.uint8))
    assert metrics["nll_base"]["value"] == pytest.approx(math.log(256))
    assert metrics["nll_tuned"]["value"] == pytest.approx(nll.mean())
    assert metrics["ppl_tuned"]["value"] == pytest.approx(math.exp(nll.mean()))
    assert metrics["ppl_ratio"]["value"] == pytest.approx(math.exp(nll.mean()) / 256)
    assert metrics["bits_per_byte_base"]["value"] == pytest.approx(8)
    delta_p = np.exp(-nll) - 1 / 256
    assert metrics["delta_p"]["value"] == pytest.approx(delta_p.mean())
    assert metrics["delta_p"]["rms"] == pytest.approx((delta_p**2).mean() ** 0.5)
    assert metrics["delta_p"]["percentiles"]["max"] == pytest.approx(delta_p.max(), rel=1e-6)
    assert found["tokens"] == len(scored)
    assert found["texts"] == 10


def test_perplexity_has_the_ends_of_its_logarithm(tmp_path: Path) -> None:
    metrics = object_of(tmp_path, ToyPair(0.7), factory.texts(10))["metrics"]
    for power, log in (("ppl_tuned", "nll_tuned"), ("ppl_ratio", "delta_nll")):
        for end in ("value", "low", "high"):
            assert metrics[power][end] == pytest.approx(math.exp(metrics[log][end])), (power, end)


def test_summing_up_twice_is_the_same_and_needs_the_folder_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path, ToyPair(0.7), factory.texts(10))
    assert summarize(run) == summarize(Run.open(run.folder))


@pytest.mark.parametrize(
    ("strength", "texts", "verdict"),
    [
        (0.7, 10, "tuned"),
        (-0.7, 10, "diverged_without_gain"),
        (0.0, 10, "identical"),
        (0.0, 1, "identical"),
        (1e-30, 10, "indistinguishable"),
        (0.7, 5, "tuned"),
        (-0.7, 5, "diverged_without_gain"),
    ],
)
def test_verdicts(tmp_path: Path, strength: float, texts: int, verdict: str) -> None:
    found = object_of(tmp_path, ToyPair(strength), factory.texts(texts))
    assert found["verdict"] == verdict
    assert found["more_texts"] is None


def test_unclear_says_how_many_more(tmp_path: Path) -> None:
    # half of the texts gain about what the others lose
    texts = [("the hat " if i % 2 else "XYZQ,") * (6 + i) for i in range(10)]
    found = object_of(tmp_path, ToyPair(0.3), texts)
    assert found["verdict"] == "unclear"
    low, high = found["more_texts"]
    assert 0 < low <= high
    assert f"about {low} to {high} fresh texts" in found["reason"]


def test_failed_items_are_named_and_counted_apart(tmp_path: Path) -> None:
    texts = factory.texts(8)
    found = object_of(tmp_path, Odd(0.7, bad=("prompt-3", "prompt-8")), texts)
    assert found["texts"] == 6
    assert found["failed"] == [
        {"item": f"prompt-{k}", "reason": f"the logits of prompt-{k} are not finite"}
        for k in (3, 8)
    ]
    kept = [t for k, t in enumerate(texts, 1) if k not in (3, 8)]
    assert found["tokens"] == sum(len(t.encode()) - 1 for t in kept)
    assert found["verdict"] == "unclear"  # the survivors do not speak for those that failed
    assert found["reason"].startswith("2 of 8 texts could not be scored (first: 'prompt-3', ")
    assert "of the others alone: The tuned model predicts the texts better" in found["reason"]


def test_the_root_mean_square_has_an_interval(tmp_path: Path) -> None:
    found = object_of(tmp_path, ToyPair(0.7), factory.texts(12))["metrics"]["delta_p"]
    assert found["rms_low"] < found["rms"] < found["rms_high"]
    assert found["rms"] >= abs(found["value"])
    few = object_of(tmp_path / "few", ToyPair(0.7), ["hello"])["metrics"]["delta_p"]
    assert few["rms_low"] is few["rms_high"] is None


def test_nothing_scored_is_an_error(tmp_path: Path) -> None:
    run = run_of(tmp_path, Odd(0.7, bad=("prompt-1",)), ["hello"])
    with pytest.raises(NumericsError, match="None of the 1 texts could be scored: the logits of"):
        summarize(run)


def test_a_perplexity_beyond_a_float_is_null(tmp_path: Path) -> None:
    found = object_of(tmp_path, Odd(0.7, more_nll=800.0), factory.texts(8))
    assert found["base"]["ppl"] is None
    assert found["metrics"]["ppl_base"]["low"] is None
    assert found["base"]["nll"] == pytest.approx(800 + math.log(256))
    assert found["verdict"] == "tuned"  # it rests on the NLL


def test_the_point_rule_cannot_do_without_perplexity(tmp_path: Path) -> None:
    run = run_of(tmp_path, Odd(0.7, more_nll=800.0), ["hello"])
    with pytest.raises(NumericsError, match="ppl_base is beyond a float64: the NLL is 805"):
        summarize(run)


class TestSeed:
    """The three figures of the seed's script are for one plain prompt alone."""

    def test_of_one_text(self, tmp_path: Path) -> None:
        pair = ToyPair(0.7)
        found = object_of(tmp_path, pair, ["hello"])["seed"]
        assert found["ppl_base"] == pytest.approx(256)
        assert found["logit_mse"] == pytest.approx(pair.closed_forms()["logit_mse"])

    def test_the_last_position_counts(self, tmp_path: Path) -> None:
        class Last(ToyPair):
            def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
                for scores in super().score(items):
                    yield replace(scores, probe_logit_mse=100.0)

        mse = ToyPair(0.7).closed_forms()["logit_mse"]
        found = object_of(tmp_path, Last(0.7), ["hello"])["seed"]
        assert found["logit_mse"] == pytest.approx((4 * mse + 100) / 5)

    def test_not_of_two_texts(self, tmp_path: Path) -> None:
        assert object_of(tmp_path, ToyPair(0.7), ["hello", "there"])["seed"] is None

    def test_not_of_a_prompt_with_its_reply(self, tmp_path: Path) -> None:
        items = [Item("a", prompt="hello", reply=" there")]
        assert object_of(tmp_path, ToyPair(0.7), items=items)["seed"] is None

    def test_not_where_it_failed(self, tmp_path: Path) -> None:
        pair = Odd(0.7, bad=("prompt-2",))
        assert object_of(tmp_path, pair, ["hello", "there"])["seed"] is None


@pytest.mark.parametrize(("strength", "verdict"), [(0.7, "weights_differ"), (0.0, "identical")])
def test_bits_per_byte_alone(tmp_path: Path, strength: float, verdict: str) -> None:
    found = object_of(tmp_path, ToyPair(strength), factory.texts(8), measures=(BITS_PER_BYTE,))
    assert set(found["metrics"]) == {"bits_per_byte_base", "bits_per_byte_tuned"}
    assert found["verdict"] == verdict
    assert found["base"] == {**found["base"], "nll": None, "ppl": None}
    assert found["base"]["bits_per_byte"] == pytest.approx(8)
    if verdict == "weights_differ":
        assert "Bits per byte alone was compared: base 8.0000, tuned 7." in found["reason"]


def test_groups_are_what_is_resampled(tmp_path: Path) -> None:
    texts = factory.texts(12)
    items = [Item(f"{i}", text=t, group=f"g{i % 3}") for i, t in enumerate(texts)]
    found = object_of(tmp_path, ToyPair(0.7), items=items)
    assert found["metrics"]["delta_nll"]["low"] is None
    assert found["verdict"] == "unclear"
    assert "12 texts in 3 groups" in found["reason"]


def test_truncation_is_counted(tmp_path: Path) -> None:
    texts = ["hello", "a longer text than that"]
    found = object_of(tmp_path, ToyPair(0.7), texts, max_length=5, allow_truncation=True)
    assert found["truncated"] == {"items": 1, "tokens": len(texts[1]) - 5}
    assert found["settings"]["max_length"] == 5
    assert found["settings"]["allow_truncation"] is True


def test_candidates_are_shown_where_both_differ_most(tmp_path: Path) -> None:
    class Uneven(ToyPair):
        def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
            for scores in super().score(items):
                far = 9.0 if scores.item_id == "prompt-2" else 1.0
                yield replace(scores, probe_logit_l2=far)

    run = run_of(tmp_path, Uneven(0.7), ["hello", "over there", "again"])
    found = candidates(run)
    assert found is not None
    assert found["item"] == "prompt-2"
    assert [len(found[side]) for side in ("base", "tuned")] == [10, 10]
    assert found["tuned"][0]["text"] == " "
    tuned = [c["p"] for c in found["tuned"]]
    assert tuned == sorted(tuned, reverse=True)


def test_every_measure_reaches_the_object(tmp_path: Path) -> None:
    """Whatever is measured is told, under its own name or as a figure of each side."""
    metrics = object_of(tmp_path, ToyPair(0.7), factory.texts(8))["metrics"]
    for measure_ in BUILT_IN:
        told = {measure_.name, f"{measure_.name}_base", "delta_p"}
        assert told & set(metrics), measure_.name

    def test_not_of_a_prompt_with_a_reply_as_long(self, tmp_path: Path) -> None:
        # its probe stands where that of a plain text of as many scored positions would
        item = Item("one", prompt="hello", reply="abcd")
        (encoded,) = ToyPair(0.7).encode([item], None, False)
        assert encoded.probe == len(encoded.scored)
        run = measure(ToyPair(0.7), Suite("one", (item,), ""), out=tmp_path / "run")
        assert summarize(run)["seed"] is None
