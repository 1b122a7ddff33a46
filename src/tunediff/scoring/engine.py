"""How are many items scored fast, in bounded memory, with the same numbers every time?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tunediff.errors import NumericsError
from tunediff.scoring import head, memory, packs, precision
from tunediff.scoring.head import RowMetrics, Wanted
from tunediff.scoring.states import BaseStates
from tunediff.scoring.streams import Streams
from tunediff.values import Encoded, Scores

# Tokens of one pack and logits rows of one chunk. On a CPU a few hundred rows already reach the
# product's full rate and small buffers stay near the cores; a GPU wants much larger ones.
BUDGET = {"cpu": 1024, "mps": 2048, "cuda": 8192}
CHUNK = {"cpu": 128, "mps": 128, "cuda": 512}


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
        self.chunk = self.chunk or CHUNK.get(device.type, 64)
        self.row_metrics = head.row_metrics(device, self.streams.vocabulary)

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        """Every token metric of every item, in the order given."""
        for pack in packs.plan(items, lambda: self.budget):
            yield from self._score(list(pack))

    def _score(self, items: list[Encoded]) -> list[Scores]:
        try:
            with precision.use(self.kernel), precision.threads(self.threads):
                return self._score_once(items)
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
            return self._score(items)
        self.budget = max(1, min(self.budget, sum(len(item.ids) for item in items)) // 2)
        smaller = packs.plan(items, lambda: self.budget)
        return [scores for pack in smaller for scores in self._score(list(pack))]

    def _score_once(self, items: list[Encoded]) -> list[Scores]:
        pack = packs.Pack.of([torch.from_numpy(i.ids) for i in items], self.streams.device)
        wanted = [Wanted.of(item) for item in items]
        at = [w.rows + start for w, (start, _) in zip(wanted, pack.bounds, strict=True)]
        h_b, h_t = self._hidden(pack, torch.from_numpy(np.concatenate(at)))
        return list(
            head.score_items(
                self.streams,
                items,
                wanted,
                h_b,
                h_t,
                chunk=self.chunk,
                row_metrics=self.row_metrics,
            )
        )

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
