"""What will a training cost, before a weight is loaded?

The model is built from its configuration alone, on torch's meta device, which holds shapes and no
numbers; the tokens are counted from the rows in the order in which the trainer will read them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from tunediff.pair.hf_load import HfTokens, context_length, full_config, quiet
from tunediff.pair.template import find_template
from tunediff.training.data import Read, batches, prepare, template_source
from tunediff.training.recipe import Recipe
from tunediff.training.train import lora_config
from tunediff.weights.checkpoint import Checkpoint


def training_flops(linear: int, adapter: int, tokens: int) -> int:
    """FLOPs of a LoRA training: ``(4·N + 6·P) · tokens``.

    With N the weights of the base's linear layers (``linear``, the head among them, embeddings not)
    and P those of the adapter: a product with a weight costs 2 a token. The frozen base takes part
    in the forward pass (2·N) and in the backward pass to its inputs (2·N), but has no gradient of
    its own; the adapter has all three (6·P). A full training costs 6·N by the same count. Left out:
    attention's products, which grow with a text's length; the optimizer. Counted although the
    trainer spares it: the backward pass below the first adapted layer, and the head at tokens that
    are not scored.

    Source: Kaplan et al., Scaling Laws for Neural Language Models (2020), arXiv:2001.08361, 2.1;
    LoRA's share of it follows from which gradients exist (Hu et al., arXiv:2106.09685).
    """
    return (4 * linear + 6 * adapter) * tokens


class Shapes:
    """A base's linear layers by shape."""

    def __init__(self, folder: Path) -> None:
        with quiet(), torch.device("meta"):
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            self.model: nn.Module = AutoModelForCausalLM.from_config(config)

    @property
    def linear(self) -> int:
        """N of :func:`training_flops`."""
        return sum(module.weight.numel() for _, module in self._linear())

    def adapter(self, recipe: Recipe) -> int:
        """P of :func:`training_flops`: r · (in + out) of each adapted module.

        Raises:
            UsageError: a target module that the model does not have.

        """
        chosen = set(lora_config(self.model, recipe, "").target_modules or ())
        return sum(
            recipe.rank * sum(module.weight.shape)
            for path, module in self._linear()
            if path.rpartition(".")[2] in chosen
        )

    def _linear(self) -> list[tuple[str, nn.Linear | Conv1D]]:
        return [
            (path, module)
            for path, module in self.model.named_modules()
            if isinstance(module, nn.Linear | Conv1D)
        ]


def tokens_read(folder: Path, read: Read, recipes: Sequence[Recipe]) -> list[int]:
    """How many tokens a training of each recipe reads, where it is not stopped early."""
    tokens, own = HfTokens(folder), find_template(folder)
    context = context_length(full_config(Checkpoint.open(folder)))
    found = []
    lengths: dict[tuple[object, ...], list[int]] = {}
    for recipe in recipes:
        limit = min(n for n in (recipe.max_length, context) if n is not None)
        # the rows held out depend on the seed
        key = (
            recipe.template,
            recipe.loss,
            limit,
            recipe.held_out,
            recipe.held_out and recipe.seed,
        )
        if key not in lengths:
            rows = prepare(
                read,
                tokens,
                template=template_source(recipe.template, own),
                chat=recipe.template != "raw",
                loss=recipe.loss,
                max_length=limit,
                held_out=recipe.held_out,
                seed=recipe.seed,
            )
            lengths[key] = [len(example.ids) for example in rows.examples]
        own_lengths = lengths[key]
        order = batches(len(own_lengths), recipe.batch_size, recipe.seed)
        steps = itertools.islice(order, recipe.steps * recipe.accumulation)
        found.append(sum(own_lengths[row] for batch in steps for row in batch))
    return found
