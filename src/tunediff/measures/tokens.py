"""How differently do two models predict the same tokens?

Each measure takes the :class:`~tunediff.values.Scores` of one item and gives sums over its scored
positions with their count, so that pooled figures are exact. Notation: at one position p is base's
distribution over the V vocabulary entries, q the tuned model's, z_b and z_t their raw logits, y
the token that follows; ln is natural. Sums are correctly rounded (``math.fsum``).
"""

from __future__ import annotations

import math

import numpy as np

from tunediff.values import Measure, Observation, Scores

START = 8  # tokens of a reply, in which a refusal shows
_NOTHING_SCORED = "No position of the item was scored."


def nll(scores: Scores) -> Observation:
    """−ln p(y) and −ln q(y); effect: tuned − base.

    Unit nats/token; lower is better; an effect of 0 means that the reference is as likely under
    both. exp of a side's mean is its perplexity, exp of the mean effect is ``ppl_ratio``. The
    mean is the cross-entropy loss of training (transformers' ``loss``) over these positions.
    """
    return _both_sides(scores, scores.nll_base, scores.nll_tuned, len(scores.nll_base), 1.0)


def bits_per_byte(scores: Scores) -> Observation:
    """Σ −ln p(y) / ln 2 and Σ −ln q(y) / ln 2 over the UTF-8 bytes scored; effect: tuned − base.

    Unit bits/byte; lower is better; an effect of 0 means that both compress the text alike. The
    one token figure that stays comparable across tokenizers, and the one where the two sides may
    have different numbers of positions. Equals lm-evaluation-harness's ``bits_per_byte`` where
    the same bytes are scored.
    """
    return _both_sides(
        scores, scores.nll_base, scores.nll_tuned, scores.bytes_scored, 1.0 / math.log(2.0)
    )


def kl_base_tuned(scores: Scores) -> Observation:
    """KL(p‖q) = Σ_v p (ln p − ln q).

    Unit nats/token; no direction; 0 means the same distribution. The ``KLD`` of llama.cpp's
    perplexity tool with base as the reference.
    """
    return _difference(scores, scores.kl_base_tuned)


def kl_base_tuned_start(scores: Scores) -> Observation:
    """KL(p‖q) over the first ``START`` positions alone; no direction, as ``kl_base_tuned``."""
    return _difference(scores, scores.kl_base_tuned[:START])


def kl_tuned_base(scores: Scores) -> Observation:
    """KL(q‖p) = Σ_v q (ln q − ln p).

    Unit nats/token; no direction; 0 means the same distribution. The penalty of RLHF, which
    samples from q, estimates this direction.
    """
    return _difference(scores, scores.kl_tuned_base)


def js(scores: Scores) -> Observation:
    """JS = ½ KL(p‖m) + ½ KL(q‖m), m = ½ (p + q).

    Unit nats/token, at most ln 2; no direction; 0 means the same distribution. The square of
    SciPy's ``jensenshannon``, which gives the root.
    """
    return _difference(scores, scores.js)


def logit_mse(scores: Scores) -> Observation:
    """mean_v (z_t − z_b)².

    Unit logit²; no direction; 0 means the same logits. A constant added to all logits changes it
    though it changes no probability. The seed's "Logit MSE Difference" averages it over every
    position of a prompt, the last one included; this one over the scored positions.
    """
    return _difference(scores, scores.logit_mse)


def logit_mse_centred(scores: Scores) -> Observation:
    """mean_v (d_v − mean d)², d = z_t − z_b.

    Unit logit²; no direction; 0 means the same logits up to a shift, hence the same
    distribution. Our own: ``logit_mse`` without what softmax cannot see.
    """
    return _difference(scores, scores.logit_mse_centred)


def logit_l2(scores: Scores) -> Observation:
    """‖z_t − z_b‖₂.

    Unit logit; no direction; 0 means the same logits. Equals √(V · mean_v (z_t − z_b)²).
    """
    return _difference(scores, scores.logit_l2)


def logit_l2_last(scores: Scores) -> Observation:
    """‖z_t − z_b‖₂ at the probe position alone: the last of a text or of a prompt.

    Unit logit; no direction; 0 means the same logits for the first token of the reply.
    """
    if scores.reason is not None:
        return _none(scores.reason)
    return _difference(scores, np.array([scores.probe_logit_l2]))


def top1_agreement(scores: Scores) -> Observation:
    """1 where argmax z_b = argmax z_t, else 0.

    Unit share; no direction; 1 means always the same likeliest token, 0 never. The ``Same top p``
    of llama.cpp's perplexity tool.
    """
    return _difference(scores, scores.top1_agreement)


def delta_p(scores: Scores) -> Observation:
    """q(y) − p(y).

    Unit probability; higher is better; 0 means that the reference is as probable under both, on
    average. The ``Mean Δp`` of llama.cpp's perplexity tool, there in percent.
    """
    return _difference(scores, scores.delta_p)


def delta_p_rms(scores: Scores) -> Observation:
    """(q(y) − p(y))², pooled as the root of the mean.

    Unit probability; no direction; 0 means that the reference is as probable under both at every
    position. The ``RMS Δp`` of llama.cpp's perplexity tool, there in percent.
    """
    return _difference(scores, np.square(scores.delta_p))


def _both_sides(
    scores: Scores, base: np.ndarray, tuned: np.ndarray, count: int, factor: float
) -> Observation:
    if scores.reason is not None:
        return _none(scores.reason)
    if len(base) == 0 or len(tuned) == 0 or count == 0:
        return _none(_NOTHING_SCORED)
    if not (np.isfinite(base).all() and np.isfinite(tuned).all()):
        return _none(_not_finite(base, tuned))
    base_sum = math.fsum(base.tolist()) * factor
    tuned_sum = math.fsum(tuned.tolist()) * factor
    return Observation(base_sum, tuned_sum, tuned_sum - base_sum, count)


def _difference(scores: Scores, values: np.ndarray) -> Observation:
    if scores.reason is not None:
        return _none(scores.reason)
    if len(values) == 0:
        return _none(_NOTHING_SCORED)
    if not np.isfinite(values).all():
        return _none(_not_finite(values))
    return Observation(None, None, math.fsum(values.tolist()), len(values))


def _not_finite(*arrays: np.ndarray) -> str:
    wrong = sum(int((~np.isfinite(values)).sum()) for values in arrays)
    return f"{wrong} values of the item are NaN or infinite."


def _none(reason: str) -> Observation:
    return Observation(None, None, None, 0, reason)


_SCORES = ("scores",)

NLL = Measure(
    "nll", "nats/token", -1, "the text is as likely under both", _SCORES, nll, "mean", 0.02
)
BITS_PER_BYTE = Measure(
    "bits_per_byte",
    "bits/byte",
    -1,
    "both compress the text alike",
    ("nll",),
    bits_per_byte,
    "mean",
    0.01,
)
TOKENS: tuple[Measure, ...] = (
    NLL,
    BITS_PER_BYTE,
    Measure("kl_base_tuned", "nats/token", 0, "same distribution", _SCORES, kl_base_tuned),
    Measure("kl_tuned_base", "nats/token", 0, "same distribution", _SCORES, kl_tuned_base),
    Measure("js", "nats/token", 0, "same distribution", _SCORES, js),
    Measure("logit_mse", "logit²", 0, "same logits", _SCORES, logit_mse),
    Measure(
        "logit_mse_centred", "logit²", 0, "same logits up to a shift", _SCORES, logit_mse_centred
    ),
    Measure("logit_l2", "logit", 0, "same logits", _SCORES, logit_l2),
    Measure("logit_l2_last", "logit", 0, "same logits after the prompt", _SCORES, logit_l2_last),
    Measure(
        "top1_agreement", "share", 0, "never the same likeliest token", _SCORES, top1_agreement
    ),
    Measure(
        "delta_p",
        "probability",
        1,
        "the text is as probable under both, on average",
        _SCORES,
        delta_p,
    ),
    Measure(
        "delta_p_rms",
        "probability",
        0,
        "the text is as probable under both, everywhere",
        _SCORES,
        delta_p_rms,
        "rms",
    ),
)
"""Every measure of this file, in the order of docs/definitions.md."""
