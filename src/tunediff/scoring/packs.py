"""Which texts share one forward pass?

Texts lie one behind the other in a single row without padding: a token that is not there costs
nothing and cannot be attended to by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from tunediff.values import Encoded


@dataclass(frozen=True, slots=True)
class Pack:
    """Several texts in one row: N tokens in all.

    ``ids`` and ``positions``: int64 (N,) on the device, positions starting at 0 in every text.
    ``bounds``: the (start, stop) of each text in the row.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    bounds: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, texts: Sequence[torch.Tensor], device: torch.device) -> Pack:
        """The row of the given texts, each int64 (T,)."""
        bounds, start = [], 0
        for ids in texts:
            bounds.append((start, start + len(ids)))
            start += len(ids)
        return cls(
            ids=torch.cat(list(texts)).to(device),
            positions=torch.cat([torch.arange(len(ids)) for ids in texts]).to(device),
            bounds=tuple(bounds),
        )


def plan(items: Sequence[Encoded], budget: Callable[[], int]) -> Iterator[Sequence[Encoded]]:
    """Consecutive items of together at most ``budget()`` tokens; a longer item goes alone.

    The budget is asked for anew before each pack: it shrinks where memory runs out.
    """
    first = 0
    while first < len(items):
        most, tokens, stop = budget(), len(items[first].ids), first + 1
        while stop < len(items) and tokens + len(items[stop].ids) <= most:
            tokens += len(items[stop].ids)
            stop += 1
        yield items[first:stop]
        first = stop
