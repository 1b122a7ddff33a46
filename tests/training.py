"""Which recipe, rows and plain loop do the tests of training share?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunediff.training.data import Example
from tunediff.training.recipe import Recipe
from tunediff.training.train import Training, train

QUICK = Recipe(rank=2, alpha=4, learning_rate=2e-2, steps=6, batch_size=2, seed=7)


def write_rows(path: Path, prompts: Sequence[str]) -> Path:
    lines = [{"prompt": p, "response": f" {p[::-1][:12]}"} for p in prompts]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def trained(base: Path, rows: Path, out: Path, recipe: Recipe = QUICK, **more: Any) -> Training:
    return train(base, rows, out, recipe=recipe, device="cpu", **more)


def adapter_bytes(folder: Path) -> dict[str, bytes]:
    names = ("adapter_model.safetensors", "adapter_config.json", "recipe.toml")
    return {name: (folder / name).read_bytes() for name in names}


def plain_nll(model: Any, examples: Sequence[Example]) -> tuple[Any, int]:
    """Σ NLL over scored tokens, one row at a time by the library's own forward pass."""
    import torch

    total, count = torch.zeros((), dtype=torch.float64), 0
    for example in examples:
        ids = torch.tensor([example.ids])
        logits = model(input_ids=ids, use_cache=False).logits[0].double()
        for t, label in enumerate(example.labels[1:]):
            if label != -100:
                total = total - torch.log_softmax(logits[t], -1)[label]
                count += 1
    return total, count
