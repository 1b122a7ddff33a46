"""Does the scorecard's object say what its rows say, in the keys that were promised?

The rows are made up, or those of a pair without a model; every figure is computed again here, by
plain loops or by scipy, statsmodels and pandas.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console
from scipy.stats import spearmanr
from statsmodels.stats.multitest import multipletests

from comparison import AnsweringPair, asked, small_comparison
from tunediff.findings.decide import CODES
from tunediff.findings.estimates import estimate_ratio
from tunediff.findings.exploring import CORRELATED
from tunediff.findings.proportions import estimate_outcomes
from tunediff.findings.scorecard import OUTCOMES, scorecard
from tunediff.findings.selection import choose, halves
from tunediff.measures import ALL
from tunediff.report.scorecard import draw
from tunediff.report.tables import write_tables
from tunediff.run.answering import OF_REPLIES
from tunediff.run.asking import definition
from tunediff.run.parts import item_line
from tunediff.run.store import Run
from tunediff.values import Item, Row, Suite

AXIS_KEYS = {"primary", "effect", "low", "high", "p", "verdict", "more_groups"}
MEASURE_KEYS = {"base", "tuned", "effect", "low", "high", "p", "verdict", "groups", "failed"}
BY_NAME = {m.name: m for m in (*ALL, *OF_REPLIES)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Suites of twelve items; ``posed`` has the ids of ``sums`` on the same axis."""
    sums, posed, texts, open_ended = asked(12)
    items = tuple(replace(i, id=f"s{k}", axis="target") for k, i in enumerate(posed.items))
    suites = (sums, Suite("posed", items, "h"), texts, open_ended)
    folder = tmp_path_factory.mktemp("runs") / "run"
    return small_comparison(folder, AnsweringPair(bad="s3"), suites=suites, part_tokens=10**6)


@pytest.fixture(scope="module")
def card(run: Run) -> dict[str, Any]:
    return scorecard([run])


def rows_of(run: Any, measure: str, **where: str) -> list[Row]:
    return [
        r for r in run.rows()
        if r.measure == measure and all(getattr(r, k) == v for k, v in where.items())
    ]  # fmt: skip


def with_effect(rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if r.effect_sum is not None]


def pooled(rows: Sequence[Row], column: str) -> float:
    return fsum(getattr(r, column) for r in rows) / sum(r.count for r in rows)


# the object


def test_the_object_has_the_promised_keys(card: dict[str, Any]) -> None:
    assert card["schema_version"] == 1
    assert card.keys() >= {"variants", "avg_len_delta", "avg_cov_delta", "template"}
    (variant,) = card["variants"]
    assert variant["name"] == "tuned"
    assert set(variant["axes"]) == {"target", "general", "fluency"}
    for found in variant["axes"].values():
        assert found.keys() >= AXIS_KEYS
        assert found["verdict"] in CODES
    assert set(variant["measures"]) == {"sums", "posed", "texts", "open"}
    for suite, own in variant["measures"].items():
        for name, found in own.items():
            assert found.keys() >= MEASURE_KEYS, (suite, name)
            flips = {"base_only", "tuned_only"} & found.keys()
            assert len(flips) == (2 if name in OUTCOMES else 0), (suite, name)
    assert (variant["failures"], variant["advice"]) == ([], [])
    assert (card["best"], card["template"]) == (None, {})


def test_the_object_is_strict_json_and_the_same_again(run: Run, card: dict[str, Any]) -> None:
    text = json.dumps(card, allow_nan=False)
    assert json.loads(text) == card
    assert json.dumps(scorecard([Run.open(run.folder)]), allow_nan=False) == text


def test_an_axis_is_its_primary_rows_pooled(run: Run, card: dict[str, Any]) -> None:
    axes = card["variants"][0]["axes"]
    assert [axes[a]["primary"] for a in ("target", "general", "fluency")] == [
        "nll", "nll", "repetition",
    ]  # fmt: skip
    level = 1 - 0.05 / 3
    raw = []
    for axis, found in axes.items():
        rows = with_effect(rows_of(run, found["primary"], axis=axis))
        assert found["base"] == pytest.approx(pooled(rows, "base_sum"))
        assert found["tuned"] == pytest.approx(pooled(rows, "tuned_sum"))
        assert found["effect"] == pytest.approx(pooled(rows, "effect_sum"))
        wanted = estimate_ratio(
            [r.suite + "/" + r.group for r in rows],
            [r.effect_sum or 0.0 for r in rows],
            [r.count for r in rows],
            signed=True, seed=0, level=level,
        )  # fmt: skip
        assert (found["low"], found["high"]) == (wanted.low, wanted.high)
        assert found["level"] == level
        assert found["failed"] == len(rows_of(run, found["primary"], axis=axis)) - len(rows)
        raw.append((found, wanted.p))
    adjusted = multipletests([p for _, p in raw], method="holm")[1]
    for (found, p), holm in zip(raw, adjusted, strict=True):
        assert found["p"] == p
        assert found["p_adjusted"] == pytest.approx(holm)


def test_equal_ids_of_two_suites_are_two_groups(run: Run, card: dict[str, Any]) -> None:
    target = card["variants"][0]["axes"]["target"]
    assert target["suites"] == ["posed", "sums"]
    ids = [r.item for r in rows_of(run, "nll", axis="target")]
    assert len(ids) == 2 * len(set(ids)) == 24
    assert (target["groups"], target["failed"]) == (22, 2)  # s3 fails in both


def test_a_measure_is_its_suites_rows(run: Run, card: dict[str, Any]) -> None:
    raw = []
    for suite, own in card["variants"][0]["measures"].items():
        for name, found in own.items():
            everything = rows_of(run, name, suite=suite)
            rows = with_effect(everything)
            assert found["failed"] == len({r.item for r in everything} - {r.item for r in rows})
            assert found["groups"] == len({r.group for r in rows})
            for key, column in (("effect", "effect_sum"), ("base", "base_sum")):
                if rows[0].base_sum is None and key == "base":
                    assert (found["base"], found["tuned"]) == (None, None)
                else:
                    assert found[key] == pytest.approx(pooled(rows, column), abs=1e-12)
            if found["p"] is not None:
                raw.append(found)
            assert found["low"] is None or found["low"] <= found["effect"] <= found["high"]
            assert _as_defined(found), (suite, name, found)
    adjusted = multipletests([found["p"] for found in raw], method="fdr_bh")[1]
    assert [found["p_adjusted"] for found in raw] == pytest.approx(list(adjusted))
    # what has two sides has a sign, and so a p; what applies to no item is left out
    measures = card["variants"][0]["measures"]
    assert measures["sums"]["words"]["p"] is not None
    assert measures["sums"]["kl_base_tuned"]["p"] is None
    assert "instruction_adherence" not in measures["texts"]
    assert "choice_accuracy" not in measures["sums"]


def _as_defined(found: dict[str, Any]) -> bool:
    """The verdict of the definitions, effects turned so that positive is better."""
    m, turn = found["margin"] or 0.0, found["direction"]
    divergence = not turn and found["base"] is None
    if found["low"] is None or divergence or found["verdict"] == "no_headroom":
        return found["verdict"] in ("unclear", "shifted", "no_headroom")
    low, high = sorted((found["low"] * (turn or 1), found["high"] * (turn or 1)))
    moved = abs(found["effect"]) > found.get("noise_floor", -1.0)
    sure = found["p_adjusted"] < 0.05 and moved
    lost = moved if found["margin"] is not None else sure
    for code, holds in (
        ("degraded", turn and high < -m and lost),
        ("same", (-m < low and high < m) or (m == 0 == low == high)),
        ("better", turn * found["effect"] > 0 and sure),
        ("preserved", turn and low > -m and (moved or m > 0)),
        ("shifted", not turn and (low > m or high < -m) and sure),
    ):
        if holds:
            return found["verdict"] == code
    return found["verdict"] == "unclear"


def test_flips_are_counted_in_both_directions(run: Run, card: dict[str, Any]) -> None:
    rows = with_effect(rows_of(run, "choice_accuracy", suite="posed"))
    found = card["variants"][0]["measures"]["posed"]["choice_accuracy"]
    lost = sum((r.base_sum or 0) > (r.tuned_sum or 0) for r in rows)
    won = sum((r.base_sum or 0) < (r.tuned_sum or 0) for r in rows)
    assert (found["base_only"], found["tuned_only"]) == (lost, won)
    assert lost + won > 0
    wanted = estimate_outcomes(
        [r.group for r in rows],
        [r.base_sum or 0.0 for r in rows],
        [r.tuned_sum or 0.0 for r in rows],
        [1] * len(rows),
        seed=0,
    )
    assert (found["low"], found["high"], found["p"]) == (wanted.low, wanted.high, wanted.p)


def test_the_seeds_figures_are_means_over_replies(run: Run, card: dict[str, Any]) -> None:
    said = run.replies()
    lengths = [len(r["tuned"]["text"].split()) - len(r["base"]["text"].split()) for r in said]
    assert card["avg_len_delta"] == pytest.approx(sum(lengths) / len(lengths))
    rows = with_effect(rows_of(run, "keyword_coverage"))
    assert card["avg_cov_delta"] == pytest.approx(
        sum(r.effect_sum or 0.0 for r in rows) / len(rows)
    )


def test_correlations_are_scipys(run: Run, card: dict[str, Any]) -> None:
    effects: dict[str, dict[tuple[str, str], float]] = {}
    for r in with_effect(run.rows()):
        effects.setdefault(r.measure, {})[r.suite, r.item] = (r.effect_sum or 0.0) / r.count
    found = card["variants"][0]["correlations"]
    assert len(found) >= 6
    for line in found:
        one, other = (effects[name] for name in line["measures"])
        common = sorted(one.keys() & other.keys())
        rho = spearmanr([one[k] for k in common], [other[k] for k in common]).statistic
        assert line["rho"] == pytest.approx(rho)
        assert line["items"] == len(common) >= 10
        assert set(line["measures"]) <= set(CORRELATED)


def test_the_worst_items_come_first(run: Run, card: dict[str, Any]) -> None:
    axes = card["variants"][0]["axes"]
    losses = sorted(
        (
            (r.effect_sum or 0.0) / r.count
            for axis, found in axes.items()
            for r in with_effect(rows_of(run, found["primary"], axis=axis))
        ),
        reverse=True,
    )  # lower is better in every primary measure here
    worst = card["variants"][0]["worst"]
    assert [w["loss"] for w in worst] == pytest.approx([v for v in losses if v > 0][:10])
    for w in worst:
        (r,) = rows_of(run, w["measure"], suite=w["suite"], item=w["item"])
        assert w["loss"] == pytest.approx((r.effect_sum or 0.0) / r.count)
        assert w["axis"] == r.axis


def test_categories_are_estimated_apart(run: Run, card: dict[str, Any]) -> None:
    category = {(i["suite"], i["id"]): i["category"] for i in run.items()}
    found = card["variants"][0]["categories"]
    assert {line["category"] for line in found} == {"kind 0", "kind 1"}
    for line in found:
        rows = [
            r for r in with_effect(rows_of(run, line["measure"], suite=line["suite"]))
            if category[r.suite, r.item] == line["category"]
        ]  # fmt: skip
        assert line["effect"] == pytest.approx(pooled(rows, "effect_sum"))
        assert line["groups"] == len(rows)
        assert line["exploratory"] is True


# made-up runs


@dataclass
class MadeUp:
    """What the findings and the report read of a run."""

    lines: list[Row]
    variant: str = "tuned"
    form: str = "raw"
    identical: bool = False
    samples: int = 1
    asked: list[dict[str, Any]] = field(default_factory=list)
    floors: dict[str, float] = field(default_factory=dict)
    said: list[dict[str, Any]] = field(default_factory=list)
    path: str = "models/tuned"
    folder: Path = Path("made-up")

    def rows(self) -> list[Row]:
        return self.lines

    def items(self) -> list[dict[str, Any]]:
        return self.asked

    def replies(self) -> list[dict[str, Any]]:
        return self.said

    def probes(self) -> list[dict[str, Any]]:
        return []

    def timing(self) -> list[dict[str, Any]]:
        return []

    def ratings(self) -> None:
        """Nobody was asked."""

    @property
    def record(self) -> dict[str, Any]:
        return {
            "identity": {
                "variant": self.variant,
                "form": self.form,
                "seed": 0,
                "samples": self.samples,
                "max_length": None,
                "generation": {"temperature": 0.0, "max_new_tokens": 8, "top_p": 1.0},
                "settings": {"backend": "hf"},
                "measures": {name: definition(m) for name, m in BY_NAME.items()},
                "base": {"fingerprint": "b" * 64},
                "tuned": {"fingerprint": "t" * 64, "kind": "lora"},
            },
            "found": {
                "paths": {"base": self.path, "tuned": self.path},
                "certificate": {"weights_equal": self.identical},
                "noise_floor": self.floors,
                "settings": {},
                "truncated": {"items": 0, "tokens": 0},
            },
        }


def nll_rows(
    effects: Sequence[float], axis: str = "target", suite: str = "s", base: float = 20.0
) -> list[Row]:
    return [
        Row("tuned", "nll", suite, axis, f"i{k}", f"i{k}", 0, base, base + e, e, 10, None)
        for k, e in enumerate(effects)
    ]


def reply_rows(
    measure: str,
    sides: Sequence[tuple[float, float]],
    axis: str = "target",
    suite: str = "s",
    reason: str | None = None,
) -> list[Row]:
    """One observation an item, (base, tuned); with a reason none of them has a figure."""
    return [
        Row("tuned", measure, suite, axis, f"i{k}", f"i{k}", 0, b, t, t - b, 1, None)
        if reason is None
        else Row("tuned", measure, suite, axis, f"i{k}", f"i{k}", 0, None, None, None, 0, reason)
        for k, (b, t) in enumerate(sides)
    ]


def item_lines(count: int, suite: str = "s", **given: Any) -> list[dict[str, Any]]:
    """Lines of ``items.jsonl``, as :func:`tunediff.run.parts.item_line` writes them."""
    line = item_line(suite, Item("", prompt="p"))
    return [{**line, "id": f"i{k}", **given} for k in range(count)]


def card_of(*runs: MadeUp) -> dict[str, Any]:
    return scorecard(runs)  # pyright: ignore[reportArgumentType]


def noise(count: int, seed: int, mean: float = 0.0, sd: float = 0.5) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, sd, count))


def test_identical_weights_are_the_same_on_every_axis() -> None:
    (variant,) = card_of(MadeUp(nll_rows([0.0] * 12), identical=True))["variants"]
    assert variant["axes"]["target"]["verdict"] == "same"
    assert variant["measures"]["s"]["nll"]["verdict"] == "same"
    # equal numbers of other weights prove nothing with so few
    (variant,) = card_of(MadeUp(nll_rows([0.0] * 12)))["variants"]
    assert variant["axes"]["target"]["verdict"] == "unclear"


def test_two_axes_are_judged_together() -> None:
    rows = [*nll_rows(noise(30, 1, -1)), *nll_rows(noise(30, 2, 1), "general", "g")]
    (variant,) = card_of(MadeUp(rows))["variants"]
    axes = variant["axes"]
    assert {a: axes[a]["verdict"] for a in axes} == {"target": "better", "general": "degraded"}
    assert {a: axes[a]["level"] for a in axes} == {"target": 0.975, "general": 0.975}
    assert axes["target"]["more_groups"] is None
    alone = card_of(MadeUp(rows[:30]))["variants"][0]["axes"]["target"]
    assert alone["level"] == 0.95
    assert alone["low"] > axes["target"]["low"]
    assert alone["high"] < axes["target"]["high"]


def test_what_is_unclear_says_how_many_more() -> None:
    (variant,) = card_of(MadeUp(nll_rows(noise(20, 3, 0.0, 1.0))))["variants"]
    target = variant["axes"]["target"]
    assert target["verdict"] == "unclear"
    low, high = target["more_groups"]
    assert 0 < low <= high


def test_comply_prompts_do_not_count_as_safety() -> None:
    rows = nll_rows([1.0] * 10 + [-1.0] * 10, "safety")
    labels = ["refuse"] * 10 + ["comply"] * 10
    items = [
        {"suite": "s", "id": f"i{k}", "label": label, "choices": None, "category": None}
        for k, label in enumerate(labels)
    ]
    (variant,) = card_of(MadeUp(rows, asked=items))["variants"]
    safety = variant["axes"]["safety"]
    assert (safety["groups"], safety["effect"]) == (10, pytest.approx(0.1))


def test_comply_prompts_count_nowhere_as_safety() -> None:
    # What is lost, or fails, on prompts to be complied with is no business of the axis safety.
    rows = nll_rows([0.1] * 40 + [9.0] * 40, "safety", "f")
    rows[40] = replace(rows[40], effect_sum=None, count=0, reason="No.")
    lines = item_lines(80, "f", category="c")
    asked = [{**line, "label": "refuse" if k < 40 else "comply"} for k, line in enumerate(lines)]
    made = MadeUp([*nll_rows(noise(80, 1, -3)), *rows], asked=asked)
    (variant,) = card_of(made)["variants"]
    assert variant["axes"]["safety"]["failed"] == 0
    lost = [w["loss"] for w in variant["worst"] if w["axis"] == "safety"]
    assert lost == pytest.approx([0.01] * len(lost))
    assert len(lost) >= 5
    assert [line["groups"] for line in variant["categories"]] == [40]
    best = choose([made, replace(made, variant="b")])  # pyright: ignore[reportArgumentType]
    assert best is not None
    assert best["name"] == "tuned"  # and no "loses more than the margin"


# the axes are there before any figure is


def test_an_axis_of_a_model_that_fell_silent_stays() -> None:
    why = "Tuned side: the reply has no words."
    silent = reply_rows("repetition", [(0.0, 0.0)] * 12, "fluency", "w", why)
    spoken = nll_rows(noise(30, 1, -1))
    made = MadeUp([*spoken, *silent])
    card = card_of(made, MadeUp([*spoken, *reply_rows("repetition", [(0, 0)] * 12, "fluency", "w")],
                                variant="b"))  # fmt: skip
    quiet, other = (v["axes"] for v in card["variants"])
    assert list(quiet) == list(other) == ["target", "fluency"]
    assert quiet["target"]["level"] == 0.975
    assert quiet["fluency"]["verdict"] == "unclear"
    assert why in quiet["fluency"]["reason"]
    assert (quiet["fluency"]["failed"], quiet["fluency"]["suites"]) == (12, ["w"])
    figures = ("base", "tuned", "effect", "low", "high", "p", "p_adjusted", "more_groups")
    assert {quiet["fluency"][key] for key in figures} == {None}
    assert card["variants"][0]["all_preserved"] is False
    assert "fluency" in drawn(card)
    text = drawn(card_of(made))
    assert "fluency unclear" in text
    assert "fluency: None of 12 rows has a figure" in text
    both = card_of(replace(made, variant="a-raw"), replace(made, variant="a-chat", form="chat"))
    assert both["template"]["a"]["fluency"]["template"] is None
    drawn(both)


def test_the_primary_measure_does_not_depend_on_what_came_out() -> None:
    rows = nll_rows([0.0] * 12)
    gone = {"base_sum": None, "tuned_sum": None, "effect_sum": None, "count": 0}
    rows = [replace(r, **gone, reason="Not finite.") for r in rows]
    answers = reply_rows("exact_match", [(1.0, 0.0)] * 12)
    target = card_of(MadeUp([*rows, *answers]))["variants"][0]["axes"]["target"]
    assert (target["primary"], target["verdict"]) == ("nll", "unclear")


def test_a_measure_that_cannot_apply_makes_no_axis_and_no_failure() -> None:
    why = "The item has no reference answer."
    nothing = reply_rows("exact_match", [(0.0, 0.0)] * 12, reason=why)
    (variant,) = card_of(MadeUp(nothing, asked=item_lines(12)))["variants"]
    assert (variant["axes"], variant["all_preserved"]) == ({}, None)
    # beside prompts that have one, these have not failed; a prompt without room has
    rows = [*nothing, *reply_rows("exact_match", [(1.0, 1.0)] * 12, suite="t")]
    rows[-1] = replace(rows[-1], effect_sum=None, count=0, reason="No room is left for a reply.")
    asked = [*item_lines(12), *item_lines(12, "t", reply="x")]
    (variant,) = card_of(MadeUp(rows, asked=asked))["variants"]
    target = variant["axes"]["target"]
    assert (target["groups"], target["failed"], target["suites"]) == (11, 1, ["t"])


def test_failed_counts_items_and_not_their_samples() -> None:
    rows = reply_rows("repetition", [(0.0, 0.0)] * 12, "fluency")
    rows += [replace(r, sample=1) for r in rows]
    gone = {"base_sum": None, "tuned_sum": None, "effect_sum": None, "count": 0, "reason": "No."}
    # one sample of the first has no figure, and none of the second has one
    rows = [replace(r, **gone) if (r.item, r.sample) == ("i0", 1) or r.item == "i1" else r
            for r in rows]  # fmt: skip
    (variant,) = card_of(MadeUp(rows, samples=2))["variants"]
    assert variant["axes"]["fluency"]["failed"] == 1
    assert variant["measures"]["s"]["repetition"]["failed"] == 1


# headroom, floors and corrections


@pytest.mark.parametrize(
    ("choices", "right", "verdict"),
    [
        (None, 0, "no_headroom"),  # never right: nothing can be seen to stay
        (None, 20, "same"),
        (("a", "b", "c", "d"), 50, "no_headroom"),  # right as often as a guess among four
        (("a", "b", "c", "d"), 80, "same"),
    ],
)
def test_an_axis_of_answers_needs_a_base_that_does_more_than_guess(
    choices: Any, right: int, verdict: str
) -> None:
    rows = reply_rows(
        "exact_match", [(float(k < right), float(k < right)) for k in range(200)], "general"
    )
    asked = item_lines(200, choices=choices, answer=0 if choices else None, reply="a")
    (variant,) = card_of(MadeUp(rows, asked=asked))["variants"]
    assert variant["axes"]["general"]["verdict"] == verdict
    assert variant["measures"]["s"]["exact_match"]["verdict"] == verdict
    assert variant["all_preserved"] is (verdict == "same")


def test_all_preserved_is_read_at_95_percent() -> None:
    # Silence of 200 leaves 1.8 points at 95 %, and 2.2 where two axes share it.
    rows = [
        *reply_rows("exact_match", [(1.0, 1.0)] * 200),
        *reply_rows("exact_match", [(1.0, 1.0)] * 200, "general", "g"),
    ]
    (variant,) = card_of(MadeUp(rows))["variants"]
    assert [a["verdict"] for a in variant["axes"].values()] == ["unclear", "unclear"]
    assert variant["all_preserved"] is True


def test_effects_under_the_noise_floor_have_not_moved() -> None:
    tiny = [1.5e-7 + e for e in noise(60, 1, 0, 1e-8)]  # over 10 tokens: 1.5e-8 a token
    names = ("nll_of_base_reply", "nll_of_tuned_reply", "delta_p")
    rows = [replace(r, measure=name) for name in names for r in nll_rows(tiny)]
    rows += nll_rows([2 * 10 * e for e in noise(60, 2, 0.05, 0.001)], suite="t")
    rows += [replace(r, measure="bits_per_byte") for r in rows if r.suite == "t"]
    floors = {"delta_nll": 2e-8, "nll_base": 1e-9, "delta_p": 2e-8, "bits_per_byte_base": 0.2}
    (variant,) = card_of(MadeUp(rows, floors=floors))["variants"]
    own = variant["measures"]["s"]
    assert {name: own[name]["verdict"] for name in names} == dict.fromkeys(names, "unclear")
    assert {own[name]["noise_floor"] for name in names} == {2e-8}
    assert all("ot above the noise floor of 2e-08" in own[name]["reason"] for name in names)
    assert variant["measures"]["t"]["nll"]["verdict"] == "degraded"
    assert variant["measures"]["t"]["bits_per_byte"]["verdict"] == "unclear"
    assert variant["axes"]["target"]["verdict"] == "degraded"
    # the same effects with a floor below them
    low = dict.fromkeys(floors, 1e-9)
    (variant,) = card_of(MadeUp(rows, floors=low))["variants"]
    found = {name: variant["measures"]["s"][name]["verdict"] for name in names}
    assert found == dict(zip(names, ("shifted", "shifted", "better"), strict=True))
    # an axis, too
    high = {"delta_nll": 0.5}
    target = card_of(MadeUp(rows, floors=high))["variants"][0]["axes"]["target"]
    assert (target["verdict"], target["noise_floor"]) == ("unclear", 0.5)
    assert "not above the noise floor of 0.5" in target["reason"]


def test_without_log_probabilities_the_answers_decide() -> None:
    rows = [
        Row("tuned", "exact_match", "s", "target", f"i{k}", f"i{k}", 0, 0.0, 1.0, 1.0, 1, None)
        for k in range(12)
    ]
    target = card_of(MadeUp(rows))["variants"][0]["axes"]["target"]
    assert (target["primary"], target["verdict"], target["unit"]) == (
        "exact_match", "better", "share",
    )  # fmt: skip


def test_no_primary_measure_no_axis() -> None:
    rows = [
        Row("tuned", "words", "s", "target", f"i{k}", f"i{k}", 0, 3.0, 4.0, 1.0, 1, None)
        for k in range(12)
    ]
    card = card_of(MadeUp(rows))
    assert card["variants"][0]["axes"] == {}
    assert card["variants"][0]["worst"] == []
    assert (card["avg_len_delta"], card["avg_cov_delta"]) == (1.0, None)
    assert "No axis" in drawn(card)


# several tuned models


def test_the_half_that_chooses_is_not_the_half_that_reports() -> None:
    rows = [*nll_rows(noise(200, 5)), *nll_rows(noise(200, 6), suite="other")]
    first, second = ([r for own in half.values() for r in own] for half in halves(rows))
    groups = [{(r.suite, r.group) for r in half} for half in (first, second)]
    assert groups[0].isdisjoint(groups[1])
    assert len(groups[0] | groups[1]) == len(first) + len(second) == 400
    assert 150 < len(first) < 250
    # more items move no group from its half
    more = halves([*nll_rows(noise(300, 7)), *rows])[0]["target"]
    assert {(r.suite, r.group) for r in more} >= groups[0]


def test_the_best_is_chosen_by_one_half_and_measured_on_the_other() -> None:
    runs = [MadeUp(nll_rows(noise(80, 10 + k)), variant=f"seed {k}") for k in range(4)]
    best = choose(runs)  # pyright: ignore[reportArgumentType]
    assert best is not None
    means = [pooled(halves(r.lines)[0]["target"], "effect_sum") for r in runs]
    winner = runs[int(np.argmin(means))]
    assert best["name"] == winner.variant
    rest = halves(winner.lines)[1]["target"]
    assert best["effect"] == pytest.approx(pooled(rest, "effect_sum"))
    assert best["groups"] == len(rest)
    # on the half that chose it, the best of four equal ones looks better than it is
    assert min(means) < np.mean(means)
    # what the other half says has no part in the choice
    spoilt = [
        replace(r, lines=[replace(x, effect_sum=9.0) if x in halves(r.lines)[1]["target"] else x
                          for x in r.lines])
        for r in runs
    ]  # fmt: skip
    chosen = choose(spoilt)  # pyright: ignore[reportArgumentType]
    assert chosen is not None
    assert (chosen["name"], chosen["effect"]) == (best["name"], pytest.approx(0.9))


def test_a_gain_that_costs_too_much_is_not_the_best() -> None:
    cheap = [*nll_rows(noise(40, 1, -1)), *nll_rows([0.0] * 40, "general", "g")]
    dear = [*nll_rows(noise(40, 2, -5)), *nll_rows([1.0] * 40, "general", "g")]
    card = card_of(MadeUp(cheap, variant="cheap"), MadeUp(dear, variant="dear"))
    assert card["best"]["name"] == "cheap"
    none = card_of(MadeUp(dear, variant="dear"), MadeUp(dear, variant="dearer"))["best"]
    assert (none["name"], none["reason"]) == (None, "every variant loses more than the margin")
    # what is not known to be kept is not kept
    lines = [
        replace(r, effect_sum=None, reason="It failed.") if r.axis == "general" else r for r in dear
    ]
    silent = MadeUp(lines, variant="silent")
    assert card_of(MadeUp(cheap, variant="cheap"), silent)["best"]["name"] == "cheap"
    none = card_of(silent, replace(silent, variant="mute"))["best"]
    assert none["name"] is None
    # nor is it by the items that are left, where the others failed
    worst = [
        replace(r, effect_sum=None, reason="It failed.")
        if r.axis == "general" and k % 2
        else replace(r, effect_sum=0.0) if r.axis == "general" else r
        for k, r in enumerate(dear)
    ]  # fmt: skip
    flattered = MadeUp(worst, variant="flattered")
    assert card_of(flattered, flattered)["best"]["name"] == "flattered"  # alone it would be
    assert card_of(MadeUp(cheap, variant="cheap"), flattered)["best"]["name"] == "cheap"
    assert none["reason"].endswith("or has no figure to tell it by")
    assert "Best: none" in drawn(card_of(MadeUp(dear), MadeUp(dear, variant="dearer")))


def test_one_item_that_failed_in_one_model_leaves_the_choice_to_the_others() -> None:
    def without(run: MadeUp, item: str) -> MadeUp:
        lines = [
            replace(r, effect_sum=None, reason="It failed.") if r.item == item else r
            for r in run.lines
        ]
        return replace(run, lines=lines)

    good = MadeUp(nll_rows(noise(40, 1, -5)), variant="good")
    fair = MadeUp(nll_rows(noise(40, 2, -1)), variant="fair")
    assert card_of(good, fair)["best"]["name"] == "good"
    assert card_of(without(good, "i3"), fair)["best"]["name"] == "fair"
    # as many items, but others: neither can be held against the other
    none = card_of(without(good, "i3"), without(fair, "i7"))["best"]
    assert (none["name"], none["reason"]) == (
        None, "no variant has a figure of every item that another has one of",
    )  # fmt: skip


def test_the_least_bad_of_several_losers_is_not_the_best() -> None:
    runs = [MadeUp(nll_rows(noise(40, k, 1.0 + k)), variant=f"{k}") for k in range(3)]
    none = card_of(*runs)["best"]
    assert (none["name"], none["reason"]) == (None, "no variant that keeps the rest beats base")
    assert "Best: none, no variant that keeps the rest beats base." in drawn(card_of(*runs))
    # a gain within the noise floor is none
    small = [MadeUp(nll_rows([-1e-7] * 40), variant=n, floors={"delta_nll": 2e-8}) for n in "ab"]
    assert card_of(*small)["best"]["name"] is None
    seen = [replace(r, floors={"delta_nll": 2e-9}) for r in small]
    assert card_of(*seen)["best"]["name"] == "a"


def test_a_target_that_cannot_be_halved_leaves_no_best() -> None:
    general = nll_rows(noise(60, 1, -3), "general", "g")
    for one in nll_rows([-1.0] * 8):  # either half
        runs = [MadeUp([one, *general], variant=n) for n in "ab"]
        assert card_of(*runs)["best"] is None
    failed = replace(nll_rows([-1.0])[0], effect_sum=None, count=0, reason="Not finite.")
    assert card_of(*(MadeUp([failed, *general], variant=n) for n in "ab"))["best"] is None
    assert card_of(*(MadeUp(general, variant=n) for n in "ab"))["best"]["axis"] == "general"


def test_too_few_items_for_two_halves_choose_nothing() -> None:
    card = card_of(MadeUp(nll_rows([1.0])), MadeUp(nll_rows([2.0]), variant="b"))
    assert card["best"] is None
    drawn(card)


# the template's share


def both_forms(name: str = "a") -> list[MadeUp]:
    return [
        MadeUp(nll_rows([-1.0] * 12, base=30.0), variant=f"{name}-raw", form="raw"),
        MadeUp(nll_rows([-4.0] * 12, base=25.0), variant=f"{name}-chat", form="chat"),
    ]


def test_the_templates_share_stands_beside_the_tunings() -> None:
    card = card_of(*both_forms())
    assert card["template"]["a"]["target"] == {
        "primary": "nll",
        "unit": "nats/token",
        **{"base_raw": 3.0, "base_chat": 2.5, "tuned_raw": 2.9, "tuned_chat": 2.1},
        "template": pytest.approx(-0.5),
        "tuning_raw": pytest.approx(-0.1),
        "tuning_chat": pytest.approx(-0.4),
    }
    assert card["best"] is None  # two forms of one model are no two models
    shown = drawn(card)
    assert "Template: base by chat − base raw" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("a ")]
    assert line.split() == ["a", "target", "-0.5", "-0.1", "-0.4"]
    several = card_of(*both_forms("a"), *both_forms("b"))
    assert list(several["template"]) == ["a", "b"]
    assert several["best"]["name"] in ("a-raw", "b-raw")


def test_one_form_has_no_share() -> None:
    models = [MadeUp(nll_rows([1.0] * 12), variant=n, form="chat") for n in ("a", "b-chat")]
    card = card_of(*models)
    assert card["template"] == {}
    assert "Template" not in drawn(card)


# what is drawn

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\r\n\u202e\x9b31m" + "読み書き" * 30 + "[bold]x[/bold]" + "y" * 200
)


def drawn(card: dict[str, Any], replies: Sequence[dict[str, Any]] = ()) -> str:
    console = Console(width=80, highlight=False, emoji=False, markup=False, color_system=None,
                      file=io.StringIO())  # fmt: skip
    text = draw(console, card, replies)
    for line in text.splitlines():
        assert cell_len(line) <= 80, line
    assert all(c.isprintable() or c == "\n" for c in text)
    return text


def hostile_runs(count: int) -> Iterator[MadeUp]:
    measures = ("nll", "exact_match", "words", "repetition", "degenerate", "choice_accuracy")
    for n in range(count):
        rows = [
            Row(HOSTILE, measure, HOSTILE, axis, f"{k}{HOSTILE}", f"{k}", 0, 0.0, 1.0, 1.0, 1, None)
            for k in range(12)
            for measure in measures
            for axis in ("target", "general", "safety", "fluency")
        ]
        rows += [replace(rows[0], item="f", effect_sum=None, base_sum=None, tuned_sum=None,
                         count=0, reason="It failed.")]  # fmt: skip
        said = [
            {"suite": HOSTILE, "item": f"{k}{HOSTILE}", "sample": 0,
             "base": {"text": HOSTILE}, "tuned": {"text": HOSTILE}}
            for k in range(12)
        ]  # fmt: skip
        yield MadeUp(rows, variant=f"{n}{HOSTILE}", path=HOSTILE, said=said)


@pytest.mark.parametrize("count", [1, 3])
def test_hostile_text_is_neutralised_and_fits_the_terminal(count: int) -> None:
    runs = list(hostile_runs(count))
    text = drawn(card_of(*runs), runs[0].replies())
    assert "[bold]" in text  # markup is text
    if count == 1:
        assert "Where base beats tuned" in text
        assert "target: 1 item could not be asked or scored." in text


def test_hostile_names_of_both_forms_fit(run: Run) -> None:
    raw, chat = hostile_runs(2)
    card = card_of(replace(raw, variant=HOSTILE + "-raw"),
                   replace(chat, variant=HOSTILE + "-chat", form="chat"))  # fmt: skip
    assert list(card["template"]) == [HOSTILE]
    drawn(card)


def test_ten_seconds_are_enough(run: Run, card: dict[str, Any]) -> None:
    lines = drawn(card, run.replies()).splitlines()
    assert lines[0] == "=== What changed ==="
    headline = next(line for line in lines if line.startswith("target "))
    for axis, found in card["variants"][0]["axes"].items():
        assert f"{axis} {found['verdict']}" in headline
    assert any(line.startswith("Judged by NLL of the references (target, general)") for line in
               lines)  # fmt: skip


# tables


def hostile_table_run() -> MadeUp:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", "a\rb", "a\r\nb\n", 'say "x", y', "",
             "\x00\x1b[2J", "読み", "fine", "-", "=HYPERLINK(1)\r\nx"]  # fmt: skip
    items = [
        {"suite": "s", "id": f"={k}", "prompt": text or "p", "messages": None, "text": None,
         "label": None, "choices": None, "category": None}
        for k, text in enumerate(texts)
    ]  # fmt: skip
    said = [
        {"suite": "s", "item": f"={k}", "sample": 0, "base": {"text": text},
         "tuned": {"text": texts[::-1][k]}}
        for k, text in enumerate(texts)
    ]  # fmt: skip
    rows = [
        Row("v", m, "s", "target", f"={k}", f"={k}", 0, base, 0.25, 0.25 - base, 1, None)
        for k in range(len(texts))
        for m, base in (("words", float(k)), ("keyword_coverage", 0.5))
    ]
    rows.append(Row("v", "kl_base_tuned", "s", "target", "=0", "=0", 0, None, None, 3.0, 4, None))
    rows.append(Row("v", "nll", "s", "target", "=1", "=1", 0, None, None, None, 0, "It failed."))
    return MadeUp(rows, variant="v", asked=items, said=said)


def test_tables_are_read_back_by_pandas(tmp_path: Path) -> None:
    made: Any = hostile_table_run()
    write_tables(tmp_path, [made], scorecard([made]))
    read = pd.read_csv(tmp_path / "outputs.csv", keep_default_na=False, dtype=str)
    assert list(read.columns)[:4] == ["id", "prompt", "base_output", "tuned_output"]
    assert len(read) == len(made.said)
    for k, line in read.iterrows():
        reply = made.said[k]
        for column, text in (
            ("id", reply["item"]),
            ("prompt", made.asked[k]["prompt"]),
            ("base_output", reply["base"]["text"]),
            ("tuned_output", reply["tuned"]["text"]),
        ):
            cell = line[column]
            assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
            assert cell.removeprefix("'") == text
            assert cell == text or text[:1] in tuple("=+-@\t\r")
    # the standard library reads the same
    with (tmp_path / "outputs.csv").open(newline="", encoding="utf-8") as file:
        assert [r["base_output"] for r in csv.DictReader(file)] == list(read["base_output"])


def test_metrics_have_the_seeds_columns_with_their_values(tmp_path: Path) -> None:
    made: Any = hostile_table_run()
    write_tables(tmp_path, [made], scorecard([made]))
    read = pd.read_csv(tmp_path / "metrics.csv")
    assert len(read) == len(made.said)
    for k, line in read.iterrows():
        assert line["base_len"] == line["words_base"] == float(k)  # pyright: ignore
        assert line["tuned_len"] == 0.25
        assert line["len_delta"] == 0.25 - float(k)  # pyright: ignore
        assert (line["base_keyword_coverage"], line["tuned_keyword_coverage"]) == (0.5, 0.25)
        assert line["coverage_delta"] == -0.25
    assert read["kl_base_tuned_effect"][0] == 0.75  # 3 over 4 positions
    assert read["kl_base_tuned_effect"][1:].isna().all()
    assert read["kl_base_tuned_base"].isna().all()
    assert not any(name.startswith("nll") for name in read.columns)  # it failed on every item
    assert (read["id"].str[:2] == "'=").all()


def test_tables_of_a_run_hold_every_row(run: Run, card: dict[str, Any], tmp_path: Path) -> None:
    write_tables(tmp_path, [run], card)
    read = pd.read_csv(tmp_path / "metrics.csv").set_index(["suite", "id"])
    for r in with_effect(run.rows()):
        value = read.loc[(r.suite, r.item), f"{r.measure}_effect"]
        assert value == pytest.approx((r.effect_sum or 0.0) / r.count, rel=1e-12)
    assert json.loads((tmp_path / "summary.json").read_bytes()) == card
    assert len(pd.read_csv(tmp_path / "outputs.csv")) == len(run.replies())


def test_a_conversations_prompt_is_its_messages(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    made: Any = hostile_table_run()
    made.asked[0] |= {"messages": [*talk, *talk], "prompt": None}
    write_tables(tmp_path, [made], {})
    read = pd.read_csv(tmp_path / "outputs.csv", keep_default_na=False)
    assert read["prompt"][0] == "one\ntwo\none"
