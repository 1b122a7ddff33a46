"""What do a few tokens show of an opened pair?

The measured half of the certificate: the probe runs through both sides in several ways, and through
the library's own forward pass, which packed scoring is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunediff.pair.adapter import Adapter
from tunediff.pair.certificate import Probe
from tunediff.scoring.packs import Pack
from tunediff.scoring.streams import Model, SideName, Streams, rounding
from tunediff.values import Check
from tunediff.weights.names import NameMatcher

PROBE_LENGTHS = (16, 8)  # two neighbours, so that a leak between them would show


@dataclass(frozen=True, slots=True)
class Opened:
    """The two streams, and how to look at their models.

    ``tuned``: the tuned side as a model of its own, where there is one. ``as_base``: within, the
    base model answers as base. ``mergeable``: ΔW can be added to the weights for comparison.
    """

    streams: Streams
    checks: tuple[Check, ...]
    weights_equal: bool
    tuned: Model | None = None
    as_base: Callable[[], AbstractContextManager[Any]] = nullcontext
    mergeable: bool = False


def probe_ids(model: Model) -> list[torch.Tensor]:
    """Random texts of the model's vocabulary, the same in every run."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocabulary, (n,), generator=generator) for n in PROBE_LENGTHS]


def library_logits(model: Model, ids: Sequence[torch.Tensor]) -> torch.Tensor:
    """The model's own forward pass, text by text: (Σ T, V) float32."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return torch.cat(
            [
                model(input_ids=text[None].to(device), use_cache=False).logits[0].float()
                for text in ids
            ]
        )


def owners(model: nn.Module) -> list[nn.Module]:
    """The modules that have weights of their own."""
    return [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]


def rms(a: torch.Tensor, b: torch.Tensor) -> float:
    """The root mean square difference over the common columns of two (T, V).

    Entries equal on both sides count as 0, infinite ones (a masked vocabulary) as well.
    """
    columns = min(a.shape[1], b.shape[1])
    a, b = a[:, :columns].double(), b[:, :columns].double()
    return torch.where(a == b, 0.0, a - b).square().mean().sqrt().item()


def run_probe(
    model: Model,
    opened: Opened,
    ids: Sequence[torch.Tensor],
    before: torch.Tensor,
    after: torch.Tensor | None,
    unchanged: bool,
) -> Probe:
    """Run the probe.

    Args:
        model: the base model, whose modules get the rounding noise of the yardstick.
        opened: the pair.
        ids: of ``probe_ids``.
        before: ``library_logits`` of base before anything else was loaded.
        after: the same of a tuned model of its own, where there is one.
        unchanged: whether base's logits are still those.

    """
    streams = opened.streams
    pack = Pack.of(ids, streams.device)

    def logits(side: SideName) -> torch.Tensor:
        return streams.logits(streams.one(pack, side), side).clone()

    # Any other exact way of computing the model rounds in all its modules: noise in the compared
    # ones alone would be too strict a yardstick where few of many layers are adapted.
    def rounded(seed: int) -> torch.Tensor:
        with rounding(owners(model), seed):
            return logits("base")

    base = logits("base")
    h_b, h_t = streams.pair(pack)
    paired_b, tuned = (z.clone() for z in streams.logits_pair(h_b, h_t))
    again = streams.logits_pair(*streams.pair(pack))
    return Probe(
        noise=max(rms(base, rounded(seed)) for seed in (0, 1, 2)),
        packed=max(rms(paired_b, before), rms(base, before)),
        unchanged=unchanged,
        repeated=torch.equal(paired_b, again[0]) and torch.equal(tuned, again[1]),
        difference=rms(tuned, paired_b),
        merged=rms(logits("merged"), tuned) if opened.mergeable else None,
        tuned_packed=None if after is None else rms(tuned, after),
        alone=rms(tuned, logits("tuned")),
    )


def relative_change(model: Model, adapter: Adapter) -> float | None:
    """The largest ‖ΔW‖_F/‖W‖_F of a module; None where the adapter is not a plain LoRA."""
    if adapter.slow_reasons:
        return None
    find = NameMatcher(name for name, _ in model.named_modules())
    changes = []
    for part in adapter.modules:
        weight = model.get_submodule(find.find(part.name) or "").weight
        # ‖BA‖² = Σ (BᵀB ∘ AAᵀ): no matrix of the weight's size is formed
        a, b = (torch.from_numpy(x).double() for x in (part.a, part.b))
        squared = ((b.T @ b) * (a @ a.T)).sum().clamp(min=0)
        changes.append(abs(part.scale) * squared.sqrt().item() / weight.double().norm().item())
    return max(changes, default=0.0)
