"""Is the tuned model really tuned, and did it help? The verdict of ``tunediff check``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TypeVar

from tunediff.errors import NumericsError, RunError, UsageError
from tunediff.findings.intervals import FEWEST_EQUAL_GROUPS, FEWEST_GROUPS, NO_SPREAD, TOO_FEW
from tunediff.findings.planning import more_groups
from tunediff.values import Estimate, Verdict

VERDICTS = (
    "identical",
    "indistinguishable",
    "tuned",
    "diverged_without_gain",
    "unclear",
    "weights_differ",
)

FEWEST_TEXTS = FEWEST_GROUPS
"""Below it the seed's point rule decides, and the reason says how few observations that is."""

NO_GAIN = -0.01  # nats/token: a ΔNLL above it is no gain worth the name (DEFINITIONS.md)
ALPHA = 0.05

_Figure = TypeVar("_Figure")


@dataclass(frozen=True, slots=True)
class PointFigures:
    """What the point rule compares: one number a model, without any spread.

    ``logit_mse`` is ``seed.logit_mse`` for one prompt, else the pooled ``logit_mse``; the floors
    are the thresholds where none is given.
    """

    ppl_base: float
    ppl_tuned: float
    logit_mse: float
    ppl_floor: float
    logit_mse_floor: float


def refuse_thresholds(texts: int, mse_threshold: float | None, ppl_threshold: float | None) -> None:
    """Refuse thresholds where they mean nothing: with six texts or more, negative, or not finite.

    ``check_verdict`` calls it; a command may call it before it scores.

    Raises:
        UsageError: as above.

    """
    for name, value in (("mse", mse_threshold), ("ppl", ppl_threshold)):
        if value is None:
            continue
        if not (isfinite(value) and value >= 0):
            raise UsageError(
                f"--{name}-threshold {value} came; a finite number of at least 0 is needed."
            )
        if texts >= FEWEST_TEXTS:
            raise UsageError(
                f"--{name}-threshold came with {texts} texts; the thresholds belong to the point "
                f"rule, which decides only where fewer than {FEWEST_TEXTS} texts are given.",
                "Leave the threshold out: with this many texts an interval decides.",
            )


def check_verdict(
    *,
    weights_equal: bool,
    scored: bool,
    delta_nll: Estimate | None,
    kl: float | None,
    mse_centred: float | None,
    kl_floor: float | None,
    mse_centred_floor: float | None,
    texts: int,
    point: PointFigures | None,
    mse_threshold: float | None,
    ppl_threshold: float | None,
) -> Verdict:
    """Decide, by the table "The verdict of `check`" in DEFINITIONS.md.

    Equal weights are ``identical`` whatever else came; without texts the rest is
    ``weights_differ``. Fewer than six *texts* go by the point rule. From six texts on the interval
    of ΔNLL decides, over *groups*: six texts in fewer than six groups have no interval, and are
    ``unclear`` rather than put under a rule for a handful of prompts.

    Args:
        weights_equal: the certificate's.
        scored: whether any text was given and scored.
        delta_nll: nll_tuned − nll_base in nats/token, token-pooled over groups, signed.
        kl: pooled ``kl_base_tuned``, nats/token.
        mse_centred: pooled ``logit_mse_centred``, logit².
        kl_floor: noise floor of ``kl``.
        mse_centred_floor: noise floor of ``mse_centred``.
        texts: how many were scored.
        point: needed under six texts.
        mse_threshold: of the point rule; None: the floor.
        ppl_threshold: of the point rule; None: the floor.

    Raises:
        UsageError: thresholds with six texts or more, negative or not finite.
        RunError: texts were scored, but a figure that the rule needs did not come.
        NumericsError: a figure that is not finite.

    """
    refuse_thresholds(texts, mse_threshold, ppl_threshold)
    estimates = {} if delta_nll is None else {"delta_nll": delta_nll}
    if weights_equal:
        return Verdict(
            "identical",
            "Every weight of the tuned model equals base's, or the adapter adds exactly zero.",
            estimates,
        )
    if not scored:
        return Verdict(
            "weights_differ",
            "The weights differ; what that does is not known, since no text was given.",
        )
    if texts < FEWEST_TEXTS:
        code, reason = _by_points(
            _came(point, "point figures"), texts, mse_threshold, ppl_threshold
        )
        return Verdict(code, reason, estimates)

    kl, kl_floor = _number(kl, "KL"), _number(kl_floor, "floor of KL")
    mse = _number(mse_centred, "centred logit MSE")
    mse_floor = _number(mse_centred_floor, "floor of centred logit MSE")
    delta_nll = _came(delta_nll, "difference in NLL")
    seen = f"{texts} texts" + (f" in {delta_nll.groups} groups" * (delta_nll.groups != texts))
    if kl <= kl_floor and mse <= mse_floor:
        return Verdict(
            "indistinguishable",
            f"The weights differ, but on {seen} the outputs do not, beyond noise: "
            f"KL {kl:.3g} nats/token (floor {kl_floor:.3g}), "
            f"centred logit MSE {mse:.3g} (floor {mse_floor:.3g}).",
            estimates,
        )
    differs = f"KL {kl:.3g} nats/token, floor {kl_floor:.3g}"
    if kl <= kl_floor:
        differs = f"centred logit MSE {mse:.3g}, floor {mse_floor:.3g}"
    code, reason, decided = _by_interval(delta_nll, seen, differs)
    return Verdict(code, reason, {"delta_nll": decided})


def _by_interval(d: Estimate, seen: str, differs: str) -> tuple[str, str, Estimate]:
    """Code, reason, and the estimate with ``more_groups`` where the code is ``unclear``."""
    if d.low is None or d.high is None:
        missing = {
            TOO_FEW: f"too few for an interval: at least {FEWEST_GROUPS} groups are needed",
            NO_SPREAD: f"no spread seen: where all effects are equal, at least "
            f"{FEWEST_EQUAL_GROUPS} groups are needed",
        }.get(d.note, d.note)
        return (
            "unclear",
            f"The outputs differ ({differs}), but whether that is a gain is not clear: "
            f"NLL changed by {d.effect:+.4g} nats/token on {seen}, {missing}.",
            d,
        )
    p = _number(d.p, "sign-flip p")
    measured = (
        f"{d.effect:+.4g} nats/token (95 % interval {d.low:+.4g} to {d.high:+.4g}, "
        f"sign-flip p {p:.2g}, {seen})"
    )
    if d.high < 0 and p < ALPHA:
        return "tuned", f"The tuned model predicts the texts better: NLL {measured}; {differs}.", d
    if d.low > NO_GAIN:
        return (
            "diverged_without_gain",
            f"The outputs differ ({differs}) without a gain worth the name: NLL {measured}; "
            f"a gain of {-NO_GAIN} or more is ruled out.",
            d,
        )
    # Only a boundary that the effect lies beyond can come to be cleared; the farther is cheaper.
    gain, no_gain = -d.effect, d.effect - NO_GAIN
    boundary, question = (0.0, "it is a gain") if gain > no_gain else (NO_GAIN, "it is no gain")
    more = more_groups(d, boundary)
    if more is None:
        how_many = "this cannot be settled by more items"
    else:
        unit = "groups" if "groups" in seen else "texts"
        number = " to ".join(str(n) for n in sorted(set(more)))
        how_many = (
            f"about {number} fresh {unit}, judged on their own, would show whether {question}"
        )
    return (
        "unclear",
        f"The outputs differ ({differs}), but whether that is a gain is not clear: "
        f"NLL {measured}; {how_many}.",
        replace(d, more_groups=more),
    )


def _by_points(
    f: PointFigures, texts: int, mse_threshold: float | None, ppl_threshold: float | None
) -> tuple[str, str]:
    """The seed's rule: three comparisons of single numbers."""
    ppl_base, ppl_tuned = _number(f.ppl_base, "perplexity"), _number(f.ppl_tuned, "perplexity")
    mse = _number(f.logit_mse, "logit MSE")
    mse_limit = f.logit_mse_floor if mse_threshold is None else mse_threshold
    ppl_limit = f.ppl_floor if ppl_threshold is None else ppl_threshold
    mse_limit, ppl_limit = _number(mse_limit, "MSE floor"), _number(ppl_limit, "perplexity floor")
    few = (
        "one prompt is one observation" if texts == 1 else f"{texts} texts are {texts} observations"
    )
    figures = (
        f"perplexity {ppl_base:.6g} to {ppl_tuned:.6g} (threshold {ppl_limit:.3g}), "
        f"logit MSE {mse:.3g} (threshold {mse_limit:.3g})"
    )
    if mse <= mse_limit and abs(ppl_tuned - ppl_base) <= ppl_limit:
        return "indistinguishable", f"No difference beyond the thresholds: {figures}; {few}."
    if ppl_tuned < ppl_base - ppl_limit:
        return "tuned", f"Perplexity fell by more than the threshold: {figures}; {few}."
    return (
        "diverged_without_gain",
        f"The outputs differ, perplexity did not fall: {figures}; {few}.",
    )


def _came(figure: _Figure | None, name: str) -> _Figure:
    if figure is None:
        raise RunError(
            f"Texts were scored, but no {name} came for the verdict.",
            "Where every item failed, the rows say why.",
        )
    return figure


def _number(figure: float | None, name: str) -> float:
    value = _came(figure, name)
    if not isfinite(value):
        raise NumericsError(f"The {name} came as {value}; a finite number is needed.")
    return value
