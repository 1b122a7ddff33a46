"""How are many items scored fast, in bounded memory, with the same numbers every time?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from tunediff.errors import NumericsError
from tunediff.scoring import head, memory, packs, precision
from tunediff.scoring.head import RowMetrics, Wanted
from tunediff.scoring.states import BaseStates
from tunediff.scoring.streams import Streams
from tunediff.values import Candidates, Encoded, Scores

_T = TypeVar("_T")
_Read = Callable[[list[Encoded], list[Wanted], torch.Tensor, torch.Tensor], Iterable[_T]]
"""What is taken from the last hidden states of base and tuned at a pack's wanted rows, (R, H).

It looks up the chunk anew each time: that is halved where memory runs out.
"""

# Tokens of one pack and logits rows of one chunk. On a CPU a few hundred rows already reach the
# product's full rate and small buffers stay near the cores; a GPU wants much larger ones, but no
# more logits at once than CUDA_LOGITS of either side (float32: 128 MB).
BUDGET = {"cpu": 1024, "mps": 2048, "cuda": 8192}
CHUNK = {"cpu": 128, "mps": 128, "cuda": 1024}
CUDA_LOGITS = 1 << 25


@dataclass(slots=True)
class Engine:
    """Scores packs of items on two streams.

    ``halvings`` counts how often memory ran out and the budgets were halved. ``states``: where
    base's last hidden states are kept for several tuned models; None: both sides share a pass.
    ``base``: which base it is whose states they are.
    """

    streams: Streams
    kernel: precision.Kernel
    threads: int
    budget: int = 0
    chunk: int = 0
    halvings: int = 0
    states: BaseStates | None = None
    base: str = ""
    row_metrics: RowMetrics = field(init=False)

    def __post_init__(self) -> None:
        device = self.streams.device
        if device.type == "cpu":
            memory.keep_freed_pages()
        self.budget = self.budget or BUDGET.get(device.type, 512)
        chunk = CHUNK.get(device.type, 64)
        if device.type == "cuda":
            chunk = max(64, min(chunk, CUDA_LOGITS // self.streams.vocabulary))
        self.chunk = self.chunk or chunk
        self.row_metrics = head.row_metrics(device, self.streams.vocabulary)

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        """Every token metric of every item, in the order given."""

        def read(*pack: Any) -> Iterator[Scores]:
            return head.score_items(
                self.streams, *pack, chunk=self.chunk, row_metrics=self.row_metrics
            )

        return self._packed(items, read)

    def candidates(self, items: Sequence[Encoded], count: int) -> Iterator[Candidates]:
        """The likeliest next tokens of both sides at every scored position, in the order given."""

        def read(*pack: Any) -> Iterator[Candidates]:
            return head.candidates(self.streams, *pack, chunk=self.chunk, count=count)

        return self._packed(items, read)

    def _packed(self, items: Sequence[Encoded], read: _Read[_T]) -> Iterator[_T]:
        for pack in packs.plan(items, lambda: self.budget):
            yield from self._read(list(pack), read)

    def _read(self, items: list[Encoded], read: _Read[_T]) -> list[_T]:
        try:
            with precision.use(self.kernel), precision.threads(self.threads):
                return self._read_once(items, read)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
        # Outside the except clause, so that the failed attempt's tensors are really gone.
        memory.release()
        if len(items) == 1 and self.chunk == 1:
            raise NumericsError(
                f"Memory ran out on item '{items[0].item_id}' of {len(items[0].ids)} tokens alone.",
                "Use --max-length with --allow-truncation, a smaller --dtype, or another device.",
            )
        self.halvings += 1
        if len(items) == 1:
            self.chunk = max(1, self.chunk // 2)
            return self._read(items, read)
        self.budget = max(1, min(self.budget, sum(len(item.ids) for item in items)) // 2)
        smaller = packs.plan(items, lambda: self.budget)
        return [found for pack in smaller for found in self._read(list(pack), read)]

    def _read_once(self, items: list[Encoded], read: _Read[_T]) -> list[_T]:
        pack = packs.Pack.of([torch.from_numpy(i.ids) for i in items], self.streams.device)
        wanted = [Wanted.of(item) for item in items]
        at = [w.rows + start for w, (start, _) in zip(wanted, pack.bounds, strict=True)]
        h_b, h_t = self._hidden(pack, torch.from_numpy(np.concatenate(at)))
        return list(read(items, wanted, h_b, h_t))

    def _hidden(self, pack: packs.Pack, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Last hidden states of both sides at these rows of a pack, (R, H) each."""
        at = rows.to(self.streams.device)
        if self.states is None:
            h_b, h_t = self.streams.pair(pack)
            return h_b[at], h_t[at]
        h_b = self.states.rows(
            (self.base, self.kernel, self.threads),
            pack,
            rows,
            lambda: self.streams.one(pack, "base")[at],
        )
        return h_b, self.streams.one(pack, "tuned")[at]
