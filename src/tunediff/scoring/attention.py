"""How do texts in one row attend to themselves and to nothing else?

An attention function of our own, known to transformers under one name. It runs causal attention
text by text over the packed row, so no mask of N × N entries is ever made and no text can see its
neighbour. The bounds of the texts are handed over by the forward pass that is running. Where
replies are generated, a :class:`Memory` keeps what each text has been seen to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from tunediff.errors import UnsupportedError

NAME = "tunediff_packed"

# Up to this length blocks of our own beat PyTorch's fused kernel on a CPU, two to four times below
# 200 tokens (docs/performance.md); beyond it the fused kernel's smaller tiles stay in the cache.
BLOCKED_TO = 512
BLOCK = 64
_CAUSAL = torch.ones(BLOCK, BLOCK, dtype=torch.bool).tril()

_bounds: ContextVar[tuple[tuple[int, int], ...]] = ContextVar("bounds")
_memory: ContextVar[Memory | None] = ContextVar("memory", default=None)


@contextmanager
def packed(bounds: tuple[tuple[int, int], ...]) -> Iterator[None]:
    """Within: rows hold texts at these bounds, once (N tokens) or twice (2N: base, tuned)."""
    token = _bounds.set(bounds)
    try:
        yield
    finally:
        _bounds.reset(token)


class Memory:
    """The keys and values of R texts, each of at most ``capacity`` tokens, layer by layer.

    Texts are read into it by passes within :meth:`reading`; then, within :meth:`going_on`, each
    pass brings one further token of every text, which attends to its own text alone.
    ``lengths``: tokens remembered of each text, (R,).
    """

    def __init__(self, rows: int, capacity: int) -> None:
        self.lengths = [0] * rows
        self.stepping = False
        self._capacity = capacity
        self._kept: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
        self._first = 0  # the row of the first text of the pass under way
        self._ends = torch.empty(0)  # lengths before this step, on the device
        self._unseen: dict[int | None, torch.Tensor] = {}  # by window

    @contextmanager
    def reading(self, bounds: Sequence[tuple[int, int]], first: int) -> Iterator[None]:
        """Within: the texts of the pass at these bounds are remembered, from row ``first`` on."""
        self._first = first
        with self._in_use(stepping=False):
            yield
        self.lengths[first : first + len(bounds)] = [stop - start for start, stop in bounds]

    @contextmanager
    def going_on(self, device: torch.device) -> Iterator[None]:
        """Within: the pass holds the next token of every text, in their order."""
        self._ends = torch.tensor(self.lengths, device=device)
        self._unseen.clear()
        with self._in_use(stepping=True):
            yield
        self.lengths = [length + 1 for length in self.lengths]

    @contextmanager
    def _in_use(self, *, stepping: bool) -> Iterator[None]:
        self.stepping = stepping
        token = _memory.set(self)
        try:
            yield
        finally:
            _memory.reset(token)

    def select(self, rows: Sequence[int]) -> None:
        """Forget all texts but these."""
        self.lengths = [self.lengths[row] for row in rows]
        for module, (keys, values) in self._kept.items():
            at = torch.tensor(rows, device=keys.device)
            self._kept[module] = keys[at], values[at]

    def keep(self, module: torch.nn.Module, key: torch.Tensor, value: torch.Tensor) -> None:
        """Remember a layer's keys and values of a packed row, (1, key heads, N, d) each."""
        keys, values = self._of(module, key, value)
        for row, (start, stop) in enumerate(_bounds.get(), self._first):
            keys[row, :, : stop - start] = key[0, :, start:stop]
            values[row, :, : stop - start] = value[0, :, start:stop]

    def _of(
        self, module: torch.nn.Module, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if module not in self._kept:
            # zeros, since what lies beyond a text's end is multiplied by a weight of 0
            shapes = [
                (len(self.lengths), x.shape[1], self._capacity, x.shape[3]) for x in (key, value)
            ]
            self._kept[module] = key.new_zeros(shapes[0]), value.new_zeros(shapes[1])
        return self._kept[module]

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,  # (1, heads, R, d)
        key: torch.Tensor,  # (1, key heads, R, d)
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Each text's new token over its own text, itself included: (1, R, heads, d)."""
        keys, values = self._of(module, key, value)
        rows, length = len(self.lengths), max(self.lengths) + 1
        each = torch.arange(rows, device=key.device)
        keys[each, :, self._ends] = key[0].transpose(0, 1)
        values[each, :, self._ends] = value[0].transpose(0, 1)
        heads, key_heads, width = query.shape[1], key.shape[1], query.shape[3]
        # the heads that share a key head are rows of one product, so keys are never repeated
        q = query[0].transpose(0, 1).reshape(rows * key_heads, heads // key_heads, width)
        k, v = (x[:, :, :length].flatten(0, 1) for x in (keys, values))
        logits = torch.bmm(q * (scaling if scaling is not None else width**-0.5), k.transpose(1, 2))
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        logits.view(rows, -1, length).masked_fill_(self._hidden(window, length), float("-inf"))
        weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(v.dtype)
        return torch.bmm(weights, v).view(1, rows, heads, -1)

    def _hidden(self, window: int | None, length: int) -> torch.Tensor:
        """Which keys no query of this step may see: those after it or beyond its window."""
        if window not in self._unseen:
            place = torch.arange(length, device=self._ends.device)
            distance = self._ends[:, None, None] - place
            hidden = distance < 0
            self._unseen[window] = hidden if window is None else hidden | (distance >= window)
        return self._unseen[window]


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, heads, N or 2N, d)
    key: torch.Tensor,  # (1, key heads, N or 2N, d)
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    for name in ("s_aux", "head_mask", "position_bias"):
        if others.get(name) is not None:
            raise UnsupportedError(
                f"This architecture's attention needs '{name}', which tunediff does not compute.",
                "Compare recorded replies instead.",
            )
    if attention_mask is not None and sliding_window is None:
        raise UnsupportedError(
            "This architecture limits attention to a window or to chunks by a mask alone, which "
            "tunediff does not compute.",
            "Compare recorded replies instead.",
        )
    memory = _memory.get()
    if memory is not None and memory.stepping:
        return memory.attend(module, query, key, value, scaling, sliding_window, softcap), None
    if memory is not None:
        memory.keep(module, key, value)
    bounds = _bounds.get()
    once = bounds[-1][1]
    if query.shape[2] == 2 * once:
        bounds = (*bounds, *((start + once, stop + once) for start, stop in bounds))
    out = torch.empty(
        (1, query.shape[2], query.shape[1], value.shape[3]), dtype=value.dtype, device=value.device
    )
    longest = max(stop - start for start, stop in bounds)
    windowed = sliding_window is not None and longest > sliding_window
    if query.device.type != "cpu" and softcap is None and not windowed:
        for places, kept, target in _buckets(bounds, query.device):
            q, k, v = (x[0][:, places].transpose(0, 1) for x in (query, key, value))
            found = _causal(q, k, v, scaling, None, None).transpose(1, 2)  # (R, L, heads, d)
            out[0, target] = found.flatten(0, 1)[kept]
        return out, None
    for start, stop in bounds:
        q, k, v = (x[:, :, start:stop] for x in (query, key, value))
        out[:, start:stop] = _causal(q, k, v, scaling, sliding_window, softcap).transpose(1, 2)
    return out, None


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # what is kept may serve a training next
def _buckets(
    bounds: tuple[tuple[int, int], ...], device: torch.device
) -> tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], ...]:
    """Texts of about one length, to be attended to together: a GPU waits longer for a call than
    for a short text.

    Each bucket is ``places`` (R, L): a text a row, its last token repeated behind its end, where no
    token of its own can see it; ``kept``: which of the R·L places are texts; ``target``: where in
    the packed row those stand.
    """
    rows: dict[int, list[tuple[int, int]]] = {}
    for start, stop in bounds:
        rows.setdefault((stop - start - 1).bit_length(), []).append((start, stop))
    found = []
    for own in rows.values():
        starts, stops = torch.tensor(own).T[..., None]  # (R, 1) each
        every = starts + torch.arange(int((stops - starts).max()))
        inside = (every < stops).flatten()
        kept = inside.nonzero()[:, 0]
        parts = (torch.minimum(every, stops - 1), kept, every.flatten()[kept])
        found.append(tuple(part.to(device) for part in parts))
    return tuple(found)


def _causal(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    length = q.shape[2]
    mask = None
    if window is not None and length > window:
        mask = _within(window, length, q.device)
    if softcap is None and mask is None and length <= BLOCKED_TO and _is_plain(q):
        return _blocked(q, k, v, scaling if scaling is not None else q.shape[3] ** -0.5)
    repeats = q.shape[1] // k.shape[1]
    if softcap is None:
        shared = repeats > 1
        if shared and q.device.type == "cuda" and q.dtype == torch.float32:
            # CUDA's fused kernel for float32 knows no shared heads, and the plain one is slower
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
            shared = False
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=shared
        )
    # Gemma 2 bounds its attention logits, which the fused kernel cannot do.
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    logits = q @ k.transpose(2, 3) * (scaling if scaling is not None else q.shape[3] ** -0.5)
    unseen = ~(_within(length, length, q.device) if mask is None else mask)
    logits = (softcap * torch.tanh(logits / softcap)).masked_fill(unseen, float("-inf"))
    return torch.softmax(logits, dim=-1, dtype=torch.float32).to(v.dtype) @ v


def _within(window: int, length: int, device: torch.device) -> torch.Tensor:
    """Which keys a query sees: itself and those before it, ``window`` in all; (T, T) bool."""
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    return (distance >= 0) & (distance < window)


def _is_plain(q: torch.Tensor) -> bool:
    return q.device.type == "cpu" and q.dtype == torch.float32


def _blocked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Causal attention by blocks of queries, each against the keys that it may see.

    The heads that share a key head are rows of one product, so keys are never repeated.
    """
    heads, length, width = q.shape[1:]
    key_heads = k.shape[1]
    q = q[0].reshape(key_heads, heads // key_heads, length, width) * scale
    k, v = k[0].transpose(1, 2), v[0]
    out = torch.empty((*q.shape[:3], v.shape[2]))
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        queries = q[:, :, start:stop]
        logits = torch.bmm(queries.reshape(key_heads, -1, width), k[:, :, :stop])
        square = logits.view(*queries.shape[:3], stop)[..., start:]
        square.masked_fill_(~_CAUSAL[: stop - start, : stop - start], float("-inf"))
        weighted = torch.bmm(torch.softmax(logits, dim=-1), v[:, :stop])
        out[:, :, start:stop] = weighted.view(*queries.shape[:3], -1)
    return out.view(1, heads, length, -1)


def _no_mask(*_: Any, local_size: int | None = None, **__: Any) -> torch.Tensor | None:
    # a mark for ``_attend``: a layer that gets it and no window of its own would see too much
    return None if local_size is None else torch.ones((1, 1, 1, 1), dtype=torch.bool)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _no_mask)
