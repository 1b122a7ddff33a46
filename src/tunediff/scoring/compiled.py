"""How are all token metrics taken from two rows of logits at memory speed, on a CPU?

A compiled counterpart of :mod:`tunediff.scoring.metrics`: the same formulas, one row pair at a
time, in blocks that stay in the first-level cache. Elementwise arithmetic is strict IEEE float32
(reassociation would fold the two halves of ln 2 into one and move the mean NLL); only the sums,
taken in float64, may be reordered, which is what lets the compiler use the whole vector width.
"""

from __future__ import annotations

import math

import numba
import numpy as np

_F = np.float32
_BLOCK = 512  # seven float32 scratch rows of this length fit a 32 KiB cache with their inputs

# Range reduction and minimax polynomial of the Cephes library's expf (S. L. Moshier): 2 ulp.
_LOG2_E = _F(1.44269504088896341)
_LN2_HIGH = _F(0.693359375)
_LN2_LOW = _F(-2.12194440e-4)
_LN2 = _F(math.log(2.0))
_SQUARE_LIMIT = 1e75  # no difference above 3e37, so that none of r overflows


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _exp(x):  # x <= 88; below -87 the result is about 1e-38, which no sum can feel
    x = max(x, _F(-87.0))
    n = np.rint(x * _LOG2_E)
    x = x - n * _LN2_HIGH
    x = x - n * _LN2_LOW
    y = _F(1.9875691500e-4)
    y = y * x + _F(1.3981999507e-3)
    y = y * x + _F(8.3334519073e-3)
    y = y * x + _F(4.1665795894e-2)
    y = y * x + _F(1.6666665459e-1)
    y = y * x + _F(5.0000001201e-1)
    y = y * x * x + x + _F(1.0)
    power = (np.int32(n) + np.int32(127)) << np.int32(23)
    return y * np.int32(power).view(np.float32)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _log1p_unit(u):  # ln(1 + u) for u in [0, 1], by 2 artanh(u / (2 + u))
    s = u / (_F(2.0) + u)
    w = s * s
    y = _F(1.0 / 13.0)
    y = y * w + _F(1.0 / 11.0)
    y = y * w + _F(1.0 / 9.0)
    y = y * w + _F(1.0 / 7.0)
    y = y * w + _F(1.0 / 5.0)
    y = y * w + _F(1.0 / 3.0)
    return _F(2.0) * s * (y * w + _F(1.0))


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _sum(values, n):
    total = 0.0
    for i in range(n):
        total += np.float64(values[i])
    return total


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _sum_differences(z_b, z_t):
    first = 0.0
    second = 0.0
    for i in range(z_b.size):
        d = np.float64(z_t[i]) - np.float64(z_b[i])
        first += d
        second += d * d
    return first, second


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _sum_centred(z_b, z_t, mean):
    total = 0.0
    for i in range(z_b.size):
        d = np.float64(z_t[i]) - np.float64(z_b[i]) - mean
        total += d * d
    return total


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _max(z, lanes):  # lanes side by side, since one running maximum cannot be vectorised
    width = lanes.size
    lanes[:] = z[0]
    whole = z.size - z.size % width
    for start in range(0, whole, width):
        for i in range(width):
            value = z[start + i]
            lanes[i] = value if value > lanes[i] else lanes[i]
    top = z[0]
    for i in range(width):
        top = max(top, lanes[i])
    for i in range(whole, z.size):
        top = max(top, z[i])
    return top


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _first(z, value):
    for i in range(z.size):
        if z[i] == value:
            return i
    return -1


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _log_sum_exp(z, top, scratch):
    total = 0.0
    for start in range(0, z.size, _BLOCK):
        n = min(_BLOCK, z.size - start)
        for i in range(n):
            scratch[i] = _exp(z[start + i] - top)
        total += _sum(scratch, n)
    return math.log(total) + np.float64(top)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _divergences(z_b, z_t, lse_b, lse_t, kl_bt, kl_tb, js):
    # r = ln q - ln p. Taking the logits' difference first keeps r exact to its own last place,
    # where a difference of two log-probabilities would keep it only to theirs.
    shift = _F(lse_t - lse_b)
    norm_b = _F(lse_b)
    norm_t = _F(lse_t)
    total_bt = 0.0
    total_tb = 0.0
    total_js = 0.0
    one = _F(1.0)
    half = _F(0.5)
    for start in range(0, z_b.size, _BLOCK):
        n = min(_BLOCK, z_b.size - start)
        block_b = z_b[start : start + n]
        block_t = z_t[start : start + n]
        for i in range(n):
            r = (block_t[i] - block_b[i]) - shift
            p = _exp(block_b[i] - norm_b)
            q = _exp(block_t[i] - norm_t)
            size = abs(r)
            near = _F(size <= one)  # 1 or 0: a blend instead of a branch keeps the loop vectorised
            # |r| <= 1: even and odd parts of exp(r) - 1 - r, and ln cosh(r / 2), as series
            c = min(max(r, -one), one)
            w = c * c
            even = _F(1 / 3628800)
            even = even * w + _F(1 / 40320)
            even = even * w + _F(1 / 720)
            even = even * w + _F(1 / 24)
            even = (even * w + half) * w
            odd = _F(1 / 39916800)
            odd = odd * w + _F(1 / 362880)
            odd = odd * w + _F(1 / 5040)
            odd = odd * w + _F(1 / 120)
            odd = (odd * w + _F(1 / 6)) * w * c
            v = w * _F(0.25)
            log_cosh = _F(-691 / 935550)
            log_cosh = log_cosh * v + _F(31 / 14175)
            log_cosh = log_cosh * v + _F(-17 / 2520)
            log_cosh = log_cosh * v + _F(1 / 45)
            log_cosh = log_cosh * v + _F(-1 / 12)
            log_cosh = (log_cosh * v + half) * v
            near_bt = p * (even + odd)
            near_tb = q * (even - odd)
            near_js = half * (p * (even + odd + c) * half * c - (p + q) * log_cosh)
            # |r| > 1: nothing cancels
            far_bt = (q - p) - p * r
            far_tb = (p - q) + q * r
            far_js = half * ((p + q) * (_LN2 - _log1p_unit(_exp(-size))) - min(p, q) * size)
            far = one - near
            kl_bt[i] = near * near_bt + far * far_bt
            kl_tb[i] = near * near_tb + far * far_tb
            js[i] = near * near_js + far * far_js
        total_bt += _sum(kl_bt, n)
        total_tb += _sum(kl_tb, n)
        total_js += _sum(js, n)
    return total_bt, total_tb, total_js


@numba.njit(nogil=True, cache=True, error_model="numpy")
def token_metrics(z_b, z_t, targets, out):
    """Fill ``out`` (C, 10) float64 from ``z_b``, ``z_t`` (C, V) float32 and ``targets`` (C,) int64.

    Columns in the order of ``values.TOKEN_METRICS``. A target of -1 leaves the two NLL and delta_p
    as NaN (a position without a next token). A row with a logit that is not finite, or with a
    difference near float32's end, is left NaN throughout: the caller looks at it again, with care.
    """
    vocabulary = z_b.shape[1]
    scratch = np.empty(_BLOCK, np.float32)
    kl_bt = np.empty(_BLOCK, np.float32)
    kl_tb = np.empty(_BLOCK, np.float32)
    for row in range(z_b.shape[0]):
        b = z_b[row]
        t = z_t[row]
        first, second = _sum_differences(b, t)
        out[row, :] = np.nan
        if not second < _SQUARE_LIMIT:
            continue
        top_b = _max(b, scratch)
        top_t = _max(t, scratch)
        lse_b = _log_sum_exp(b, top_b, scratch)
        lse_t = _log_sum_exp(t, top_t, scratch)
        if not (math.isfinite(lse_b) and math.isfinite(lse_t)):
            continue
        bt, tb, js = _divergences(b, t, lse_b, lse_t, kl_bt, kl_tb, scratch)
        centred = _sum_centred(b, t, first / vocabulary)
        target = targets[row]
        if target >= 0:
            out[row, 0] = lse_b - np.float64(b[target])
            out[row, 1] = lse_t - np.float64(t[target])
            out[row, 9] = math.exp(-out[row, 1]) - math.exp(-out[row, 0])
        out[row, 2] = bt
        out[row, 3] = tb
        out[row, 4] = js
        out[row, 5] = second / vocabulary
        out[row, 6] = centred / vocabulary
        out[row, 7] = math.sqrt(second)
        out[row, 8] = 1.0 if _first(b, top_b) == _first(t, top_t) else 0.0
