"""Do the measures of a multiple choice equal their formulas, worked out in plain Python?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tunediff.measures import CHOICES
from tunediff.measures.choices import expected_calibration_error
from tunediff.values import Choices, Item

BY_NAME = {m.name: m for m in CHOICES}
ITEM = Item("a", prompt="Which?", choices=(" sun", " the moon", " sea"), answer=1)
BASE, TUNED = [-1.0, -2.0, -4.0], [-3.0, -1.5, -2.5]


def choices(base: list[float] = BASE, tuned: list[float] = TUNED) -> Choices:
    texts = [" sun", " the moon", " sea"]
    return Choices(
        "a",
        np.array(base),
        np.array(tuned),
        np.array([1, 2, 1]),
        np.array([len(text.encode()) for text in texts]),
    )


def test_the_names() -> None:
    assert list(BY_NAME) == [
        "choice_accuracy",
        "choice_accuracy_normalised",
        "choice_logprob",
        "choice_brier",
        "choice_confidence",
    ]


def by_hand(name: str, log_p: list[float]) -> float:
    bytes_scored = [4, 9, 4]
    total = sum(math.exp(x) for x in log_p)
    p = [math.exp(x) / total for x in log_p]
    return {
        "choice_accuracy": float(log_p.index(max(log_p)) == 1),
        "choice_accuracy_normalised": float(
            max(range(3), key=lambda c: log_p[c] / bytes_scored[c]) == 1
        ),
        "choice_logprob": log_p[1],
        "choice_brier": p[0] ** 2 + (p[1] - 1) ** 2 + p[2] ** 2,
        "choice_confidence": max(p),
    }[name]


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("seed", range(20))
def test_each_equals_its_formula(name: str, seed: int) -> None:
    base, tuned = (-np.random.default_rng(seed).exponential(5.0, (2, 3))).tolist()
    seen = BY_NAME[name].function(ITEM, choices(base, tuned))
    assert seen.base_sum is not None
    assert seen.tuned_sum is not None
    assert seen.base_sum == pytest.approx(by_hand(name, base))
    assert seen.tuned_sum == pytest.approx(by_hand(name, tuned))
    assert seen.effect_sum == seen.tuned_sum - seen.base_sum
    assert seen.count == (2 if name == "choice_logprob" else 1)


def test_length_decides_only_the_normalised_accuracy() -> None:
    # the long right choice has less probability, but more per byte
    seen = choices([-2.0, -3.0, -9.0], [-1.0, -9.0, -9.0])
    assert BY_NAME["choice_accuracy"].function(ITEM, seen).base_sum == 0.0
    assert BY_NAME["choice_accuracy_normalised"].function(ITEM, seen).base_sum == 1.0


@pytest.mark.parametrize(
    ("log_p", "share"),
    [([-1.0, -1.0, -2.0], 1 / 2), ([-1.0] * 3, 1 / 3), ([-1.0, -2.0, -1.0], 0.0)],
)
def test_ties_are_shared_and_no_position_is_favoured(log_p: list[float], share: float) -> None:
    assert BY_NAME["choice_accuracy"].function(ITEM, choices(log_p, log_p)).base_sum == share


def test_very_unlikely_choices_do_not_underflow() -> None:
    seen = choices([-5000.0, -5000.0 + math.log(3.0), -9000.0], [-1.0, -math.inf, -math.inf])
    assert BY_NAME["choice_confidence"].function(ITEM, seen).base_sum == pytest.approx(3 / 4)
    assert BY_NAME["choice_brier"].function(ITEM, seen).tuned_sum == pytest.approx(2.0)
    why = BY_NAME["choice_logprob"].function(ITEM, seen).reason
    assert why == "The right choice has no probability at all under one of the models."


@pytest.mark.parametrize("name", BY_NAME)
def test_what_cannot_be_measured_has_a_reason(name: str) -> None:
    function = BY_NAME[name].function
    empty = np.array([])
    failed = Choices("a", empty, empty, empty, empty, "The prompt is longer than the context.")
    for item, seen, says in (
        (ITEM, failed, "longer than the context"),
        (replace(ITEM, answer=None), choices(), "does not say which choice is right"),
        (replace(ITEM, answer=3), choices(), "number 3, of 3"),
        (ITEM, choices(base=[math.nan, -1.0, -1.0]), "not finite"),
        (ITEM, choices(tuned=[-math.inf] * 3), "not finite"),
        (ITEM, replace(choices(), tokens=np.array([0, 1, 1])), "no token of its own"),
    ):
        found = function(item, seen)
        assert (found.effect_sum, found.count) == (None, 0)
        assert says in str(found.reason)


# calibration error


def slow_error(confidence: list[float], correct: list[float], bins: int) -> float:
    total = 0.0
    for b in range(bins):
        inside = [
            i
            for i, c in enumerate(confidence)
            if (b / bins < c <= (b + 1) / bins) or (b == 0 and c == 0)
        ]
        if inside:
            mean_c = sum(confidence[i] for i in inside) / len(inside)
            mean_right = sum(correct[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(mean_right - mean_c)
    return total


@pytest.mark.parametrize("seed", range(20))
def test_calibration_error_equals_a_slow_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random(50)
    correct = (rng.random(50) < 0.6).astype(float)
    assert expected_calibration_error(confidence, correct, bins=8) == pytest.approx(
        slow_error(confidence.tolist(), correct.tolist(), 8)
    )


def test_calibration_error_by_hand() -> None:
    sure = np.array([1.0, 1.0, 0.0, 0.75])
    assert expected_calibration_error(sure, np.array([1.0, 1.0, 0.0, 1.0])) == 0.25 / 4
    assert expected_calibration_error(np.ones(4), np.zeros(4)) == 1.0
    # 0.1 is the upper edge of the first of ten bins, and shares it with 0.05
    edge = expected_calibration_error(np.array([0.1, 0.05]), np.array([1.0, 0.0]))
    assert edge == pytest.approx((1 - 0.15) / 2)
    assert expected_calibration_error(np.full(4, 0.5), np.array([1.0, 0, 1, 0])) == 0.0


@pytest.mark.parametrize(
    ("confidence", "correct"), [([], []), ([0.5], []), ([1.5], [1.0]), ([math.nan], [1.0])]
)
def test_calibration_error_refuses_what_has_none(
    confidence: list[float], correct: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"came|outside"):
        expected_calibration_error(np.array(confidence), np.array(correct))
