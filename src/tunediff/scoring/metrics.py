"""What do two rows of logits say of each other?

The definition of every token metric in plain torch, on any device; on a CPU with a large
vocabulary :mod:`tunediff.scoring.compiled` does the same faster. Both are tested against a
float64 oracle down to a true KL of 1e-8.

With r = ln q − ln p, taken as the difference of logits minus the difference of normalisers so that
no digit is lost, and p = softmax(z_b), q = softmax(z_t):

* KL(p‖q) = Σ p·(exp(r) − 1 − r): every term is ≥ 0, where the textbook's Σ p·(−r) goes negative in
  float32 below about 1e-6. For |r| > 1 a term is written (q − p) − p·r, which cannot overflow.
* JS = ½ Σ [(q − p)·r/2 − (p + q)·ln cosh(r/2)], which is the textbook's definition with the
  mixture's logarithm taken out; again nothing cancels for small r.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from tunediff.errors import NumericsError
from tunediff.values import TOKEN_METRICS

COLUMNS = len(TOKEN_METRICS)


def token_metrics(z_b: torch.Tensor, z_t: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """All token metrics of C positions.

    Args:
        z_b: logits of base, (C, V), float32.
        z_t: logits of tuned, (C, V), float32.
        targets: the token that follows, (C,), int64; -1 where there is none.

    Returns:
        (C, 10) float64, columns as ``values.TOKEN_METRICS``; NaN in the target's columns where the
        target is -1, and throughout a row that has a logit which is not finite.

    """
    # Elementwise work in float32 keeps a GPU fast; every sum over the vocabulary is float64.
    double = torch.float64
    if z_b.device.type == "mps":  # Metal has no float64; its sums are pairwise float32
        double = torch.float32
    lse_b = _log_sum_exp(z_b, double)
    lse_t = _log_sum_exp(z_t, double)
    d = z_t - z_b
    r = d - (lse_t - lse_b).to(z_b.dtype).unsqueeze(1)
    p = torch.exp(z_b - lse_b.to(z_b.dtype).unsqueeze(1))
    q = torch.exp(z_t - lse_t.to(z_b.dtype).unsqueeze(1))
    near = r.abs() <= 1
    c = r.clamp(-1, 1)
    rise = torch.expm1(c)
    # expm1(c) − c loses digits as c → 0; the series of four terms is exact to 1e-7 below 0.05
    tiny = c.abs() < 0.05
    remainder = torch.where(tiny, _exp_remainder(c), rise - c)
    remainder_back = torch.where(tiny, _exp_remainder(-c), torch.expm1(-c) + c)
    kl_bt = torch.where(near, p * remainder, (q - p) - p * r).sum(1, dtype=double)
    kl_tb = torch.where(near, q * remainder_back, (p - q) + q * r).sum(1, dtype=double)
    size = r.abs()
    half = 0.5 * c
    log_cosh = torch.where(
        tiny,
        0.5 * half**2 - half**4 / 12 + half**6 / 45,
        torch.log1p(2 * torch.sinh(0.5 * half) ** 2),
    )
    near_js = p * rise * half - (p + q) * log_cosh
    # the same with |r|/2 cancelled out of both parts, where rounding it would leave an error
    far_js = (p + q) * (math.log(2) - torch.log1p(torch.exp(-size))) - torch.minimum(p, q) * size
    js = 0.5 * torch.where(near, near_js, far_js).sum(1, dtype=double)

    wide = d.to(double)
    second = wide.square().sum(1)
    centred = (wide - wide.mean(1, keepdim=True)).square().sum(1)
    agree = (z_b.argmax(1) == z_t.argmax(1)).to(double)
    return columns(z_b, z_t, targets, lse_b, lse_t, kl_bt, kl_tb, js, second, centred, agree)


def columns(
    z_b: torch.Tensor,
    z_t: torch.Tensor,
    targets: torch.Tensor,
    lse_b: torch.Tensor,
    lse_t: torch.Tensor,
    kl_bt: torch.Tensor,
    kl_tb: torch.Tensor,
    js: torch.Tensor,
    second: torch.Tensor,
    centred: torch.Tensor,
    agree: torch.Tensor,
) -> torch.Tensor:
    """The table of :func:`token_metrics`, from the sums over the vocabulary, (C,) each.

    ``second`` and ``centred``: Σ d² and Σ (d − mean d)², d = z_t − z_b; ``agree``: 1.0 or 0.0.
    """
    double = lse_b.dtype
    scored = targets >= 0
    at = targets.clamp(min=0).unsqueeze(1)
    nll_b = lse_b - z_b.gather(1, at).squeeze(1).to(double)
    nll_t = lse_t - z_t.gather(1, at).squeeze(1).to(double)
    nan = torch.full_like(nll_b, math.nan)
    table = torch.stack(
        [
            torch.where(scored, nll_b, nan),
            torch.where(scored, nll_t, nan),
            kl_bt,
            kl_tb,
            js,
            second / z_b.shape[1],
            centred / z_b.shape[1],
            second.sqrt(),
            agree,
            torch.where(scored, torch.exp(-nll_t) - torch.exp(-nll_b), nan),
        ],
        dim=1,
    ).to("cpu", torch.float64)
    # a logit of ±inf or NaN shows in the squared difference of its row
    table[~torch.isfinite(second).cpu()] = math.nan
    return table


def _log_sum_exp(z: torch.Tensor, double: torch.dtype) -> torch.Tensor:
    top = z.amax(1, keepdim=True)
    return torch.exp(z - top).sum(1, dtype=double).log() + top.squeeze(1).to(double)


def _exp_remainder(c: torch.Tensor) -> torch.Tensor:
    """The series of exp(c) − 1 − c for small |c|."""
    return c.square() * (0.5 + c * (1 / 6 + c * (1 / 24 + c / 120)))


def masked_row_metrics(z_b: np.ndarray, z_t: np.ndarray, target: int) -> np.ndarray:
    """The metrics of one position whose logits are not all finite, (V,) each, with care.

    A logit of −inf on both sides (a masked vocabulary entry) contributes nothing; −inf on one side
    alone, +inf or NaN cannot be compared.

    Raises:
        NumericsError: naming what was found.

    """
    for side, z in (("base", z_b), ("tuned", z_t)):
        if np.isnan(z).any():
            raise NumericsError(f"the {side} model's logits hold NaN")
        if np.isposinf(z).any():
            raise NumericsError(f"the {side} model's logits hold +infinity")
    kept = ~np.isneginf(z_b)
    if not np.array_equal(kept, ~np.isneginf(z_t)):
        raise NumericsError("a logit is −infinity on one side only, so the divergence is infinite")
    if not kept.any():
        raise NumericsError("every logit is −infinity")
    if target >= 0 and not kept[target]:
        raise NumericsError("the token that follows has a logit of −infinity on both sides")
    place = int(kept[:target].sum()) if target >= 0 else -1
    row = token_metrics(
        torch.from_numpy(z_b[kept].astype(np.float64))[None],
        torch.from_numpy(z_t[kept].astype(np.float64))[None],
        torch.tensor([place]),
    )[0].numpy()
    for name in ("logit_mse", "logit_mse_centred"):  # a masked entry is a zero of the mean over V
        row[TOKEN_METRICS.index(name)] *= kept.mean()
    return row
