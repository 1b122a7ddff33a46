"""Which of an item's choices does each model find likeliest, and how sure is it?

ln p of a choice is summed over its tokens after the prompt. A side's probabilities of the choices
are softmax(ln p) over them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from tunediff.measures.pairs import none
from tunediff.values import Choices, Item, Measure, Observation


def choice_accuracy(log_p: np.ndarray, choices: Choices, right: int) -> float:
    """1 where the right choice has the greatest ln p, else 0; 1/k where k choices share it.

    Unit share; higher is better; 0 means that both are right as often. lm-evaluation-harness's
    ``acc``, but for ties, which that gives to the first of the choices.
    """
    return _share_of_first(log_p, right)


def choice_accuracy_normalised(log_p: np.ndarray, choices: Choices, right: int) -> float:
    """The same by ln p / UTF-8 bytes of the choice, so that long choices are not at a loss.

    Unit share; higher is better; 0 means that both are right as often. lm-evaluation-harness's
    ``acc_bytes``, but for the blank before a choice, which counts here and not there; its
    ``acc_norm`` divides by characters, the same for ASCII.
    """
    return _share_of_first(log_p / choices.bytes_scored, right)


def choice_logprob(log_p: np.ndarray, choices: Choices, right: int) -> float:
    """Log-probability ln p of the right choice; pooled per token.

    Unit nats/token; higher is better; 0 means that the right choices are as likely under both.
    """
    return float(log_p[right])


def choice_brier(log_p: np.ndarray, choices: Choices, right: int) -> float:
    """Σ_c (p_c − [c is right])² over the choices; 0 to 2.

    Unit score; lower is better; 0 means that both score alike. Brier 1950.
    """
    p = probabilities(log_p)
    p[right] -= 1.0
    return float(p @ p)


def choice_confidence(log_p: np.ndarray, choices: Choices, right: int) -> float:
    """The greatest probability of a choice.

    Unit share; no direction, since it is good where the model is right and bad where it is wrong:
    with ``choice_accuracy`` it makes the calibration error. 0 means that both are as sure.
    """
    return float(probabilities(log_p).max())


def probabilities(log_p: np.ndarray) -> np.ndarray:
    """The softmax over the choices, (C,) float64; at least one ln p is finite."""
    p = np.exp(np.asarray(log_p, dtype=np.float64) - np.max(log_p))
    return p / p.sum()


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 10
) -> float:
    """Σ_b n_b/n · |mean correct − mean confidence| over bins of equal width; 0 to 1.

    A bin holds its upper edge; the first one holds 0 too. Unit share; 0 means that of the answers
    given with confidence c the share c is right. It shrinks with no sign and is biased upwards
    for few items. Naeini et al. 2015; Guo et al. 2017.

    Args:
        confidence: (n,) in [0, 1], one of each item: ``choice_confidence`` of one side.
        correct: (n,) in [0, 1]: ``choice_accuracy`` of that side.
        bins: how many.

    Raises:
        ValueError: no item, different lengths, or a value outside [0, 1].

    """
    c = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if c.ndim != 1 or c.shape != right.shape or not len(c):
        raise ValueError(f"{c.shape} confidences and {right.shape} outcomes came; n of each needed")
    if not (((c >= 0) & (c <= 1)).all() and ((right >= 0) & (right <= 1)).all()):
        raise ValueError("a confidence or an outcome lies outside [0, 1]")
    return float(np.abs(calibration_gaps(c, right, bins).sum(axis=0)).sum() / len(c))


def calibration_gaps(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> np.ndarray:
    """(n, bins): correct − confidence in the bin of the confidence, 0 in the others.

    What :func:`expected_calibration_error` adds up; apart, so that items can be weighted.
    """
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return np.where(np.arange(bins) == which[:, None], (correct - confidence)[:, None], 0.0)


def _share_of_first(score: np.ndarray, right: int) -> float:
    best = score == score.max()
    return float(best[right] / best.sum())


def _observe(
    of_one: Callable[[np.ndarray, Choices, int], float],
    by_token: bool,
    item: Item,
    choices: Choices,
) -> Observation:
    why = _unusable(item, choices)
    if why is not None or item.answer is None:
        return none(why or "")
    b, t = (
        of_one(np.asarray(log_p, dtype=np.float64), choices, item.answer)
        for log_p in (choices.base, choices.tuned)
    )
    if not (np.isfinite(b) and np.isfinite(t)):
        return none("The right choice has no probability at all under one of the models.")
    return Observation(b, t, t - b, int(choices.tokens[item.answer]) if by_token else 1)


def _unusable(item: Item, choices: Choices) -> str | None:
    if choices.reason is not None:
        return choices.reason
    if item.answer is None:
        return "The item does not say which choice is right."
    if not 0 <= item.answer < len(choices.base) == len(choices.tuned):
        return f"The right choice is number {item.answer}, of {len(choices.base)} that were scored."
    if np.any(choices.tokens < 1) or np.any(choices.bytes_scored < 1):
        return "A choice has no token of its own."
    for log_p in (choices.base, choices.tuned):
        if np.isnan(log_p).any() or not np.isfinite(np.max(log_p)):
            return "The log-probabilities of the choices are not finite."
    return None


def _measure(
    of_one: Callable[[np.ndarray, Choices, int], float],
    unit: str,
    direction: Literal[-1, 0, 1],
    zero: str,
    by_token: bool = False,
) -> Measure:
    function = partial(_observe, of_one, by_token)
    return Measure(of_one.__name__, unit, direction, zero, ("choices",), function, margin=0.02)


CHOICES: tuple[Measure, ...] = (
    _measure(choice_accuracy, "share", 1, "both are right as often"),
    _measure(choice_accuracy_normalised, "share", 1, "both are right as often"),
    _measure(
        choice_logprob, "nats/token", 1, "the right choices are as likely under both", by_token=True
    ),
    _measure(choice_brier, "score", -1, "both score alike"),
    _measure(choice_confidence, "share", 0, "both are as sure"),
)
