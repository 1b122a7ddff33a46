"""What is the NLL of a batch, exactly, and without its logits ever being held?

The rows of a batch lie one behind the other in one packed row without padding, attention text by
text; where that is not exact for an architecture, they are padded to the longest. The last hidden
states are taken at the scored positions alone, and go through the head a few at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tunediff.errors import UnsupportedError
from tunediff.scoring import attention
from tunediff.scoring.packs import Pack
from tunediff.scoring.streams import Head, Model, backbone, run_backbone
from tunediff.training.data import IGNORED, Example

CHUNK_LOGITS = 1 << 22  # entries of the logits held at once: 16 MB
PROBED = 2  # rows that packing is tried on
# Nats/token, mean over the probe: float32 ways differ by 1e-6, a leak between rows by 0.1 and more.
EXACT = {torch.float32: 1e-5, torch.bfloat16: 1e-2}

Logits = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Packing:
    """Whether rows are packed, and why not where they are not; see :func:`try_packing`."""

    used: bool
    reason: str | None = None
    difference: float | None = None  # nats/token, packed against one by one


def logits_of(model: Model) -> Logits:
    """From last hidden states (C, H) to float32 logits (C, V), as the model itself would."""
    head = Head(model)

    def logits(h: torch.Tensor) -> torch.Tensor:
        z = head.module(h).float()
        if head.factor != 1.0:
            z = z * head.factor
        return z if head.softcap is None else head.softcap * torch.tanh(z / head.softcap)

    return logits


class _Nll(torch.autograd.Function):
    """Σ NLL with its gradient in one go: two products with the head, memory of one chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, logits: Logits, chunk: int
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        parts = []
        for h, y in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            with torch.enable_grad():
                leaf = h.detach().requires_grad_()
                loss = cross_entropy(logits(leaf), y, reduction="sum")
            parts.append(torch.autograd.grad(loss, leaf)[0])
            total += loss.detach().cpu().double()
        ctx.save_for_backward(torch.cat(parts) if parts else torch.zeros_like(hidden))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (slope,) = ctx.saved_tensors
        return slope * grads[0].to(slope.device, slope.dtype), None, None, None


def nll(
    hidden: torch.Tensor, targets: torch.Tensor, logits: Logits, vocabulary: int
) -> torch.Tensor:
    """Σ −ln p(target) in nats, float64 on the CPU, with a gradient for ``hidden``.

    Args:
        hidden: last hidden states at scored positions, (n, H).
        targets: the token that follows each, int64 (n,).
        logits: the frozen head.
        vocabulary: its columns.

    """
    chunk = max(1, CHUNK_LOGITS // vocabulary)
    if torch.is_grad_enabled():
        return _Nll.apply(hidden, targets, logits, chunk)  # type: ignore[return-value]
    total = torch.zeros((), dtype=torch.float64)
    for h, y in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        total += cross_entropy(logits(h), y, reduction="sum").cpu().double()
    return total


@dataclass(frozen=True)
class Forward:
    """A causal language model that yields the NLL of a batch.

    ``model``: the one with its head; its backbone may carry an adapter.
    """

    model: Model
    packed: bool

    def __post_init__(self) -> None:
        own = "sdpa" if self.model._supports_sdpa else "eager"
        self.model.set_attn_implementation(attention.NAME if self.packed else own)

    def nll(self, examples: Sequence[Example]) -> tuple[torch.Tensor, int]:
        """Σ NLL over the scored tokens of the examples, in nats, and how many they are."""
        device = next(self.model.parameters()).device
        rows = [torch.tensor(e.ids) for e in examples]
        labels = [torch.tensor(e.labels)[1:] for e in examples]  # of the token that follows
        if self.packed:
            pack = Pack.of(rows, device)
            hidden = run_backbone(self.model, pack)
            starts = [start for start, _ in pack.bounds]
        else:
            ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
            ones = [torch.ones_like(row) for row in rows]
            mask = nn.utils.rnn.pad_sequence(ones, batch_first=True).to(device)
            out = backbone(self.model)(input_ids=ids, attention_mask=mask, use_cache=False)
            hidden = out.last_hidden_state.flatten(0, 1)
            starts = [i * ids.shape[1] for i in range(len(rows))]
        at = [y.ne(IGNORED).nonzero()[:, 0] for y in labels]
        where = torch.cat([start + t for start, t in zip(starts, at, strict=True)]).to(device)
        targets = torch.cat([y[t] for y, t in zip(labels, at, strict=True)]).to(device)
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        return nll(hidden[where], targets, logits_of(self.model), vocabulary), len(targets)


@torch.no_grad()
def try_packing(model: Model, examples: Sequence[Example]) -> Packing:
    """Whether the longest rows have the same NLL packed as they have one by one.

    The model is left in eval mode.
    """
    model.eval()
    longest = sorted(examples, key=lambda e: -len(e.ids))[:PROBED]
    alone = Forward(model, packed=False)
    truth = [alone.nll([example]) for example in longest]
    try:
        found, count = Forward(model, packed=True).nll(longest)
    except UnsupportedError as error:
        return Packing(False, error.message)
    difference = abs(found.item() - sum(one.item() for one, _ in truth)) / count
    bound = EXACT[next(model.parameters()).dtype]
    if math.isfinite(difference) and difference <= bound:
        return Packing(True, difference=difference)
    reason = f"Packed rows differ by {difference:.3g} nats/token from single ones."
    return Packing(False, reason, difference if math.isfinite(difference) else None)
