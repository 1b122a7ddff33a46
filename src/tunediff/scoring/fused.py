"""How are all token metrics taken from two rows of logits at memory speed, on an NVIDIA GPU?

The counterpart of :mod:`tunediff.scoring.compiled` in Triton: the same formulas, one program a
position, the vocabulary in blocks. Plain torch reads and writes each row some forty times; here two
passes read it: the first finds the normalisers and the moments of the difference, the second what
depends on them. Arithmetic is float32; the sum of a block is a tree of float32, and the sum of the
blocks is float64.
"""

# pyright: reportMissingImports=false
# Triton comes with PyTorch's CUDA builds, and with no other.
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from tunediff.scoring.metrics import columns

_BLOCK = 4096
_SUMS = 8


@triton.jit
def _remainder(c):  # exp(c) - 1 - c for |c| <= 1; its series where the subtraction loses digits
    y = 1.0 / 40320
    y = y * c + 1.0 / 5040
    y = y * c + 1.0 / 720
    y = y * c + 1.0 / 120
    y = y * c + 1.0 / 24
    y = y * c + 1.0 / 6
    y = y * c + 0.5
    return tl.where(tl.abs(c) < 0.5, y * c * c, tl.exp(c) - 1.0 - c)


@triton.jit
def _log_cosh_half(size):  # ln cosh(size / 2), size >= 0
    w = size * size * 0.25
    series = w * (0.5 + w * (-1.0 / 12 + w * (1.0 / 45 - w * (17.0 / 2520))))
    whole = 0.5 * size + tl.log(0.5 + 0.5 * tl.exp(-size))
    return tl.where(size < 0.5, series, whole)


@triton.jit
def _rows(z_b, z_t, out, stride_b, stride_t, size, BLOCK: tl.constexpr, SUMS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    z_b += row * stride_b
    z_t += row * stride_t
    at = tl.arange(0, BLOCK)

    top_b = tl.full((), float("-inf"), tl.float32)
    top_t = tl.full((), float("-inf"), tl.float32)
    best_b = tl.zeros((), tl.int32)
    best_t = tl.zeros((), tl.int32)
    sum_b = tl.zeros((), tl.float64)
    sum_t = tl.zeros((), tl.float64)
    first = tl.zeros((), tl.float64)
    second = tl.zeros((), tl.float64)
    for start in range(0, size, BLOCK):
        inside = start + at < size
        b = tl.load(z_b + start + at, mask=inside, other=float("-inf"))
        t = tl.load(z_t + start + at, mask=inside, other=float("-inf"))
        peak_b, index_b = tl.max(b, 0, return_indices=True)
        peak_t, index_t = tl.max(t, 0, return_indices=True)
        best_b = tl.where(peak_b > top_b, start + index_b, best_b)
        best_t = tl.where(peak_t > top_t, start + index_t, best_t)
        new_b = tl.maximum(top_b, peak_b)
        new_t = tl.maximum(top_t, peak_t)
        sum_b = sum_b * tl.exp(top_b - new_b) + tl.sum(tl.exp(b - new_b), 0).to(tl.float64)
        sum_t = sum_t * tl.exp(top_t - new_t) + tl.sum(tl.exp(t - new_t), 0).to(tl.float64)
        top_b = new_b
        top_t = new_t
        d = tl.where(inside, t - b, 0.0)
        first += tl.sum(d, 0).to(tl.float64)
        second += tl.sum(d * d, 0).to(tl.float64)
    lse_b = tl.log(sum_b) + top_b
    lse_t = tl.log(sum_t) + top_t
    mean = (first / size).to(tl.float32)
    shift = (lse_t - lse_b).to(tl.float32)
    # each logit less its top first, which is exact; the normaliser is then a small number
    low_b = (lse_b - top_b).to(tl.float32)
    low_t = (lse_t - top_t).to(tl.float32)

    kl_bt = tl.zeros((), tl.float64)
    kl_tb = tl.zeros((), tl.float64)
    js = tl.zeros((), tl.float64)
    centred = tl.zeros((), tl.float64)
    for start in range(0, size, BLOCK):
        inside = start + at < size
        b = tl.load(z_b + start + at, mask=inside, other=float("-inf"))
        t = tl.load(z_t + start + at, mask=inside, other=float("-inf"))
        d = tl.where(inside, t - b, 0.0)
        p = tl.exp(b - top_b - low_b)
        q = tl.exp(t - top_t - low_t)
        r = d - shift
        size_r = tl.abs(r)
        near = size_r <= 1.0
        c = tl.minimum(tl.maximum(r, -1.0), 1.0)
        rise = _remainder(c)
        kl_bt += tl.sum(tl.where(near, p * rise, (q - p) - p * r), 0).to(tl.float64)
        kl_tb += tl.sum(tl.where(near, q * _remainder(-c), (p - q) + q * r), 0).to(tl.float64)
        near_js = p * (c + rise) * (0.5 * c) - (p + q) * _log_cosh_half(tl.abs(c))
        fall = 0.6931471805599453 - tl.log(1.0 + tl.exp(-size_r))
        far_js = (p + q) * fall - tl.minimum(p, q) * size_r
        js += tl.sum(tl.where(near, near_js, far_js), 0).to(tl.float64)
        off = tl.where(inside, d - mean, 0.0)
        centred += tl.sum(off * off, 0).to(tl.float64)
    out += row * SUMS
    tl.store(out, lse_b)
    tl.store(out + 1, lse_t)
    tl.store(out + 2, kl_bt)
    tl.store(out + 3, kl_tb)
    tl.store(out + 4, 0.5 * js)
    tl.store(out + 5, second)
    tl.store(out + 6, centred)
    tl.store(out + 7, (best_b == best_t).to(tl.float64))


def token_metrics(z_b: torch.Tensor, z_t: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """All token metrics of C positions; arguments and result as ``metrics.token_metrics``."""
    count, size = z_b.shape
    sums = torch.empty(count, _SUMS, dtype=torch.float64, device=z_b.device)
    launch: Any = _rows[(count,)]  # pyright: ignore[reportIndexIssue]
    launch(
        z_b, z_t, sums, z_b.stride(0), z_t.stride(0), size, BLOCK=_BLOCK, SUMS=_SUMS, num_warps=8
    )
    lse_b, lse_t, kl_bt, kl_tb, js, second, centred, agree = sums.unbind(1)
    return columns(z_b, z_t, targets, lse_b, lse_t, kl_bt, kl_tb, js, second, centred, agree)
