"""Which data, recipes and plain loops do the tests of training share?"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from factory import texts, tiny_model
from tunediff.training.data import Example
from tunediff.training.recipe import Recipe
from tunediff.training.train import Training, train

QUICK = Recipe(rank=2, alpha=4, learning_rate=2e-2, steps=6, batch_size=2, seed=7)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts of many lengths, and replies."""
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", texts(11, words=(1, 20)))


@pytest.fixture(autouse=True)
def uncollected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers collect garbage at their start, which takes a second among so many modules."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


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
