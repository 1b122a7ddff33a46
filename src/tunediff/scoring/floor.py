"""How large can a difference be that means nothing?

Base is compared with itself, computed in another way that is just as right: in another pack
shape, with another exact kernel or thread count, and with noise of rounding size on the output of
every compared module. The largest figure of each metric over these is its floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tunediff.errors import NumericsError
from tunediff.scoring import precision
from tunediff.scoring.engine import Engine
from tunediff.scoring.head import Wanted, careful
from tunediff.scoring.packs import Pack
from tunediff.values import TOKEN_METRICS, Encoded

MOST_TOKENS = 512  # scored tokens of the sample (DEFINITIONS, "The noise floor")
LEAST_TOKENS = 64
SHARE = 64  # of a long run's tokens, one in this many: the floor's passes cost six times as much
TEXTS = 4
CONTEXT = 64  # tokens kept before the first one scored
SEEDS = (0, 1, 2)


def sample(items: Sequence[Encoded]) -> list[Encoded]:
    """A few items, evenly over the run, each cut after its share of the scored tokens."""
    total = sum(len(item.scored) for item in items)
    tokens = min(MOST_TOKENS, max(LEAST_TOKENS, total // SHARE))
    usable = sorted((i for i in items if len(i.scored)), key=lambda i: (len(i.ids), i.item_id))
    count = min(TEXTS, len(usable))
    chosen = [usable[round(k * (len(usable) - 1) / max(1, count - 1))] for k in range(count)]
    return [_cut(item, max(1, tokens // max(1, count))) for item in chosen]


def _cut(item: Encoded, scored: int) -> Encoded:
    kept = item.scored[:scored]
    start = max(0, int(kept[0]) - CONTEXT)  # rounding does not depend on all of a long prompt
    stop = int(kept[-1]) + 2  # the token that the last kept position is scored on
    # Each scored token stands for its share of the bytes; the floor is a size, not a figure.
    share = round(item.bytes_scored * len(kept) / len(item.scored))
    return replace(
        item,
        ids=item.ids[start:stop],
        scored=kept - start,
        probe=int(kept[-1]) - start,
        bytes_scored=max(1, share),
    )


def noise_floor(engine: Engine, items: Sequence[Encoded]) -> dict[str, float]:
    """The floor of every pooled figure, by name; never 0.

    Raises:
        NumericsError: where base's own logits are not finite.

    """
    chosen = sample(items)
    device = engine.streams.device
    texts = [torch.from_numpy(item.ids) for item in chosen]
    together = Pack.of(texts, device)
    # another pack shape: the even texts and the odd ones apart, or a single text twice
    split = (texts[::2], texts[1::2]) if len(texts) > 1 else (texts * 2,)
    apart = [Pack.of(part, device) for part in split]
    # three draws of noise in one pass: signs are drawn row by row
    noisy = Pack.of(texts * len(SEEDS), device)

    streams = engine.streams
    with precision.use(engine.kernel), precision.threads(engine.threads):
        reference = streams.one(together, "base")
        joined = _together([streams.one(pack, "base") for pack in apart], apart)
        others = [_Other(joined[: len(together.ids)])]
        with _another_kernel(engine):
            others.append(_Other(streams.one(together, "base"), another_kernel=True))
        drawn = streams.one(noisy, "base", noise=SEEDS[0]).chunk(len(SEEDS))
        others += [_Other(h, seed) for h, seed in zip(drawn, SEEDS, strict=True)]
        tables = _tables(engine, chosen, together, reference, others)
    bytes_scored = sum(item.bytes_scored for item in chosen)
    probes = np.cumsum([len(Wanted.of(item).rows) for item in chosen]) - 1
    return _worst(tables, probes, bytes_scored)


@dataclass(frozen=True, slots=True)
class _Other:
    """Base computed in another way that is just as right: its last hidden states, (N, H)."""

    hidden: torch.Tensor
    noise: int | None = None
    another_kernel: bool = False  # for its logits too


def _together(hidden: Sequence[torch.Tensor], apart: Sequence[Pack]) -> torch.Tensor:
    """Hidden states of the even and the odd texts, back in the order of the texts."""
    texts = [[h[a:b] for a, b in pack.bounds] for h, pack in zip(hidden, apart, strict=True)]
    count = sum(len(part) for part in texts)
    return torch.cat([texts[k % len(texts)][k // len(texts)] for k in range(count)])


def _another_kernel(engine: Engine) -> AbstractContextManager[object]:
    if engine.streams.device.type != "cpu":
        return sdpa_kernel(SDPBackend.MATH)
    if engine.kernel != "highest":
        return precision.use("highest")
    return precision.threads(1 if engine.threads > 1 else 2)


def _tables(
    engine: Engine,
    items: Sequence[Encoded],
    pack: Pack,
    reference: torch.Tensor,
    others: Sequence[_Other],
) -> list[np.ndarray]:
    """The token metrics of reference against each other way, (rows, 10) each."""
    wanted = [Wanted.of(item) for item in items]
    starts = [start for start, _ in pack.bounds]
    at = np.concatenate([w.rows + start for w, start in zip(wanted, starts, strict=True)])
    targets = torch.from_numpy(np.concatenate([w.targets for w in wanted]))
    parts: list[list[np.ndarray]] = [[] for _ in others]
    for first in range(0, len(at), engine.chunk):
        part = slice(first, first + engine.chunk)
        rows = torch.from_numpy(at[part]).to(reference.device)
        # cloned: the next product may reuse the buffer
        z_b = engine.streams.logits(reference[rows], "base").clone()
        for other, tables in zip(others, parts, strict=True):
            with _another_kernel(engine) if other.another_kernel else nullcontext():
                z_v = engine.streams.logits(other.hidden[rows], "base", other.noise)
            tables.append(careful(engine.row_metrics, z_b, z_v, targets[part])[0])
    return [np.concatenate(tables) for tables in parts]


def _worst(tables: Sequence[np.ndarray], probes: np.ndarray, bytes_scored: int) -> dict[str, float]:
    """The largest of every pooled figure over the ways, and never 0."""
    worst: dict[str, float] = {}
    for table in tables:
        kept = table[np.isfinite(table).all(axis=1)]
        if not len(kept):
            raise NumericsError(
                "The base model's logits are not finite on any text.",
                "Try --dtype float32, and check the base model's weights.",
            )
        last = table[probes, TOKEN_METRICS.index("logit_l2")]
        figures = pooled(kept, bytes_scored) | {"logit_l2_last": float(np.nanmean(last))}
        for name, value in figures.items():
            worst[name] = max(worst.get(name, 0.0), value, _least(name, kept))
    return worst


def pooled(table: np.ndarray, bytes_scored: int) -> dict[str, float]:
    """How far base, computed twice, differs from itself: every figure of the token table.

    ``table``: (n, 10) as ``values.TOKEN_METRICS``, finite, "tuned" being base again. Of what has
    a sign, the mean of the absolute differences: the difference of the means is a random walk,
    which a few draws can find near 0 and the next one then exceeds.
    """
    columns = dict(zip(TOKEN_METRICS, table.T, strict=True))
    mean = {name: float(column.mean()) for name, column in columns.items()}
    difference = float(np.abs(columns["nll_tuned"] - columns["nll_base"]).mean())
    ppl = _ppl(mean["nll_base"]) * math.expm1(difference)
    bits = difference * len(table) / (math.log(2) * bytes_scored)
    return {
        "nll_base": difference,
        "nll_tuned": difference,
        "delta_nll": difference,
        "ppl_base": ppl,
        "ppl_tuned": ppl,
        "ppl_ratio": math.expm1(difference),
        "bits_per_byte_base": bits,
        "bits_per_byte_tuned": bits,
        **{name: mean[name] for name in TOKEN_METRICS if name.startswith(("kl", "js", "logit"))},
        "top1_agreement": 1 - mean["top1_agreement"],
        "delta_p": float(np.abs(columns["delta_p"]).mean()),
    }


def _ppl(nll: float) -> float:
    return math.exp(min(nll, 80.0))  # a perplexity beyond float32 has no use for a floor


def _least(name: str, table: np.ndarray) -> float:
    """What stands where 0 is measured: a float32 unit in the last place; for agreement 1/n."""
    if name == "top1_agreement":
        return 1 / len(table)
    nll = float(table[:, 0].mean())
    size = {
        "ppl_base": _ppl(nll),
        "ppl_tuned": _ppl(nll),
        "ppl_ratio": 1.0,
        "delta_p": float(np.exp(-table[:, 0]).mean()),
    }
    if name.startswith(("nll", "delta_nll", "bits")):
        size[name] = nll
    return float(np.spacing(np.float32(size.get(name, 0.0))))
