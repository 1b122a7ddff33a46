"""How do hidden states become token metrics without a text's logits ever being held?

Scored positions are selected first; then, a few dozen tokens at a time, one product of both
sides with the head goes into a reused buffer, and all metrics are taken from that buffer.
Jensen–Shannon needs both normalisers before its first term, so a chunk keeps whole vocabulary rows.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from tunediff.errors import NumericsError
from tunediff.scoring import metrics
from tunediff.scoring.streams import Streams
from tunediff.values import TOKEN_METRICS, Candidates, Encoded, Scores

TOP = 10  # candidates shown of either side

# From here on compiling (2 s, once per machine) costs less than plain torch's temporaries.
COMPILED_FROM = 4096

_MSE, _CENTRED, _L2 = (
    TOKEN_METRICS.index(name) for name in ("logit_mse", "logit_mse_centred", "logit_l2")
)

MetricsKernel = Literal["compiled", "fused", "torch"]
RowMetrics = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], np.ndarray]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows of the hidden states are looked at, for one item."""

    rows: np.ndarray  # positions in the item: the scored ones, and the probe
    targets: np.ndarray  # the token that follows, -1 at a probe that is not scored
    probe: int  # where the probe stands in rows

    @classmethod
    def of(cls, item: Encoded) -> Wanted:
        """The scored positions of an item and its probe position, in rising order."""
        rows = np.union1d(item.scored, [item.probe])
        targets = np.full(len(rows), -1)
        scored = np.isin(rows, item.scored)
        targets[scored] = item.ids[rows[scored] + 1]
        return cls(rows, targets, int(np.searchsorted(rows, item.probe)))


def metrics_kernel(device: torch.device, vocabulary: int) -> MetricsKernel:
    """What takes the metrics of chunks of this vocabulary: the fastest that the device has."""
    if device.type == "cpu" and vocabulary >= COMPILED_FROM:
        return "compiled"
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        return "fused"
    return "torch"


def row_metrics(device: torch.device, vocabulary: int) -> RowMetrics:
    """The function from two chunks of logits to their metrics that suits device and size."""
    kernel = metrics_kernel(device, vocabulary)
    if kernel != "compiled":
        if kernel == "fused":
            from tunediff.scoring.fused import token_metrics
        else:
            token_metrics = metrics.token_metrics
        return lambda z_b, z_t, targets: token_metrics(z_b, z_t, targets.to(z_b.device)).numpy()
    from tunediff.scoring import compiled

    def split(z_b: torch.Tensor, z_t: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        out = np.empty((len(targets), metrics.COLUMNS))
        z_b_, z_t_, targets_ = z_b.numpy(), z_t.numpy(), targets.numpy()
        threads = torch.get_num_threads()
        edges = np.linspace(0, len(targets), threads + 1).astype(int)
        parts = [slice(a, b) for a, b in itertools.pairwise(edges) if b > a]

        def work(part: slice) -> None:
            compiled.token_metrics(z_b_[part], z_t_[part], targets_[part], out[part])

        # the kernel lets go of the interpreter's lock, so threads are enough
        with ThreadPoolExecutor(max(1, len(parts))) as pool:
            list(pool.map(work, parts))
        return out

    return split


def score_items(
    streams: Streams,
    items: list[Encoded],
    wanted: list[Wanted],
    h_b: torch.Tensor,
    h_t: torch.Tensor,
    *,
    chunk: int,
    row_metrics: RowMetrics,
) -> Iterator[Scores]:
    """Scores of the items of one pack.

    ``h_b`` and ``h_t``: last hidden states of either side at the items' wanted rows, one item
    behind the other, (R, H).
    """
    targets = torch.from_numpy(np.concatenate([w.targets for w in wanted]))
    ends = np.cumsum([len(w.rows) for w in wanted])
    starts = ends - [len(w.rows) for w in wanted]
    probes = starts + [w.probe for w in wanted]

    table = np.empty((len(targets), metrics.COLUMNS))
    reasons: dict[int, str] = {}
    tops: dict[int, tuple[tuple[tuple[int, float], ...], ...]] = {}
    for start in range(0, len(targets), chunk):
        part = slice(start, min(start + chunk, len(targets)))
        z_b, z_t = streams.logits_pair(h_b[part], h_t[part])
        table[part], faults = careful(row_metrics, z_b, z_t, targets[part])
        for row, fault in faults.items():
            item = int(np.searchsorted(ends, start + row, side="right"))
            position = wanted[item].rows[start + row - starts[item]]
            reasons.setdefault(item, f"at position {position} {fault}")
        for item in np.flatnonzero((probes >= part.start) & (probes < part.stop)):
            row = int(probes[item]) - start
            tops[int(item)] = (top(z_b[row]), top(z_t[row]))

    for index, (item, w) in enumerate(zip(items, wanted, strict=True)):
        if index in reasons:
            yield failed(item, reasons[index])
            continue
        rows = table[starts[index] : ends[index]]
        scored = w.targets >= 0
        yield Scores(
            item_id=item.item_id,
            positions=w.rows[scored],
            targets=w.targets[scored],
            **_arrays(rows[scored]),
            bytes_scored=item.bytes_scored,
            probe_logit_mse=float(rows[w.probe, _MSE]),
            probe_logit_l2=float(rows[w.probe, _L2]),
            probe_position=item.probe,
            probe_top_base=tops[index][0],
            probe_top_tuned=tops[index][1],
        )


def candidates(
    streams: Streams,
    items: list[Encoded],
    wanted: list[Wanted],
    h_b: torch.Tensor,
    h_t: torch.Tensor,
    *,
    chunk: int,
    count: int,
) -> Iterator[Candidates]:
    """The likeliest next tokens at the scored positions of one pack; as :func:`score_items`."""
    found: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(h_b), chunk):
        part = slice(start, start + chunk)
        both = streams.logits_pair(h_b[part], h_t[part])
        found.append(tuple(array for z in both for array in _likeliest(z, count)))
    columns = [np.concatenate(arrays) for arrays in zip(*found, strict=True)]
    ends = np.cumsum([len(w.rows) for w in wanted])[:-1]
    own = zip(*(np.split(column, ends) for column in columns), strict=True)
    for item, w, arrays in zip(items, wanted, own, strict=True):
        scored = w.targets >= 0
        yield Candidates(item.item_id, w.rows[scored], *(array[scored] for array in arrays))


def _likeliest(z: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and probabilities, (C, count) each, of a chunk of logits (C, V)."""
    log_p = torch.log_softmax(z.float(), dim=1)
    values, ids = log_p.topk(min(count, z.shape[1]), dim=1)
    return ids.cpu().numpy(), values.double().exp().cpu().numpy()


def careful(
    row_metrics: RowMetrics, z_b: torch.Tensor, z_t: torch.Tensor, targets: torch.Tensor
) -> tuple[np.ndarray, dict[int, str]]:
    """The metrics of a chunk, masked vocabularies included, and the fault of each faulty row.

    Args:
        row_metrics: of :func:`row_metrics`.
        z_b: logits of base, (C, V) float32.
        z_t: logits of tuned.
        targets: the token that follows, (C,) int64; -1 where there is none.

    """
    table = row_metrics(z_b, z_t, targets)
    faults: dict[int, str] = {}
    for row in np.flatnonzero(np.isnan(table[:, _L2])).tolist():
        b, t = (z[row].float().cpu().numpy() for z in (z_b, z_t))
        try:
            table[row] = metrics.masked_row_metrics(b, t, int(targets[row]))
        except NumericsError as error:
            faults[row] = error.message
    return table, faults


def top(z: torch.Tensor) -> tuple[tuple[int, float], ...]:
    """The likeliest next tokens of one row of logits (V,), with their probabilities."""
    log_p = torch.log_softmax(z.float(), dim=0)
    values, ids = log_p.topk(min(TOP, len(z)))
    return tuple(zip(ids.tolist(), values.exp().tolist(), strict=True))


def _arrays(rows: np.ndarray) -> dict[str, Any]:
    return {name: rows[:, column] for column, name in enumerate(TOKEN_METRICS)}


def failed(item: Encoded, reason: str) -> Scores:
    """The scores of an item that has none."""
    empty = np.empty(0)
    none = Scores(
        item_id=item.item_id,
        positions=empty.astype(np.int64),
        targets=empty.astype(np.int64),
        **_arrays(np.empty((0, metrics.COLUMNS))),
        bytes_scored=0,
        probe_logit_mse=float("nan"),
        probe_logit_l2=float("nan"),
    )
    return replace(none, reason=reason)
