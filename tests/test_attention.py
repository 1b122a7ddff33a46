"""Do texts that a GPU attends to together see themselves alone, as each one by itself?"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tunediff.scoring import attention

CPU = torch.device("cpu")


def bounds_of(lengths: list[int]) -> tuple[tuple[int, int], ...]:
    return tuple(itertools.pairwise([0, *itertools.accumulate(lengths)]))


@pytest.mark.parametrize("lengths", [[1], [5], [1, 2, 3], [16, 17, 33, 64, 65, 300, 1, 31]])
def test_buckets_hold_every_token_once(lengths: list[int]) -> None:
    bounds = bounds_of(lengths)
    targets = torch.cat([target for _, _, target in attention._buckets(bounds, CPU)])
    assert sorted(targets.tolist()) == list(range(sum(lengths)))
    for places, kept, target in attention._buckets(bounds, CPU):
        assert places.flatten()[kept].tolist() == target.tolist()
        assert places.numel() < 2 * len(kept) + 1, "more padding than text"


@pytest.mark.parametrize("lengths", [[5], [1, 2, 3], [16, 17, 33, 64, 65, 300, 1, 31]])
def test_a_bucket_is_each_text_alone(lengths: list[int]) -> None:
    torch.manual_seed(0)
    bounds = bounds_of(lengths)
    q, k, v = (torch.randn(1, heads, sum(lengths), 8) for heads in (6, 2, 2))
    with attention.packed(bounds):
        alone, _ = attention._attend(torch.nn.Identity(), q, k, v, None)

    def together(spoil: int) -> torch.Tensor:
        out = torch.zeros_like(alone)
        for places, kept, target in attention._buckets(bounds, CPU):
            rows = (x[0][:, places].transpose(0, 1) for x in (q, k, v))
            found = scaled_dot_product_attention(*rows, is_causal=True, enable_gqa=True)
            out[0, target.roll(spoil)] = found.transpose(1, 2).flatten(0, 1)[kept]
        return out

    torch.testing.assert_close(together(0), alone, atol=2e-6, rtol=1e-5)
    if max(lengths) > 4:
        assert (together(1) - alone).abs().max() > 0.1, "a shift by one would not show"
