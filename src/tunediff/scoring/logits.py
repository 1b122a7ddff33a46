"""How do last hidden states become logits, as the model itself would make them?"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Head:
    """From last hidden states to logits, as the model itself would, into a buffer."""

    def __init__(self, model: Any) -> None:
        self.module = model.get_output_embeddings()
        config = model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.factor = getattr(config, "logit_scale", None) or 1.0
        self.factor /= getattr(config, "logits_scaling", None) or 1.0

    @property
    def plain(self) -> bool:
        """Whether the head is a bare linear layer, whose product can go into a buffer."""
        return type(self.module) is nn.Linear and not self.module._forward_hooks

    def __call__(self, h: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """(C, H) to (C, V)."""
        if out is None or not self.plain:
            z = self.module(h)
        elif self.module.bias is None:
            z = torch.mm(h, self.module.weight.T, out=out)
        else:
            z = torch.addmm(self.module.bias, h, self.module.weight.T, out=out)
        if self.factor != 1.0:
            z.mul_(self.factor)
        if self.softcap is not None:
            z.div_(self.softcap).tanh_().mul_(self.softcap)
        return z


class Buffer:
    """Memory for one chunk of logits, taken once: fresh pages for each would cost as much time."""

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None

    def rows(self, count: int, like: torch.Tensor, columns: int) -> torch.Tensor:
        """(count, columns), contents undefined."""
        have = self._memory
        if have is None or have.shape[0] < count or have.dtype != like.dtype:
            self._memory = have = torch.empty(
                (count, columns), dtype=like.dtype, device=like.device
            )
        return have[:count]
