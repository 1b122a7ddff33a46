"""Is what tunediff cannot compute refused by name, before a wrong number is printed?

Architectures whose attention it does not know, tokenizers of another model, and its own faults.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import factory
from command import command
from tunediff.errors import InputError, UnsupportedError
from tunediff.pair.hf import HfPair
from tunediff.pair.open import open_pair
from tunediff.values import Item

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
ALL_WINDOWS = {
    "use_sliding_window": True,
    "max_window_layers": 0,
    "layer_types": ["sliding_attention"] * 2,
}


def model(folder: Path, architecture: str, vocab: int = 300, **options: Any) -> Path:
    """A random model of any architecture, with the factory's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, vocab_size=vocab, bos_token_id=0, eos_token_id=1, pad_token_id=None, **options
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    factory.tiny_tokenizer(folder)
    return folder


def tuned(base: Path, folder: Path) -> Path:
    """The same, every tensor moved a little."""
    shutil.copytree(base, folder)
    file = folder / "model.safetensors"
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: x + 1e-2 * torch.randn(x.shape, generator=generator)
        for name, x in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def opened(base: Path, tuned: Path, **how: Any) -> HfPair:
    pair = open_pair(base, tuned, device="cpu", **how)
    assert isinstance(pair, HfPair)
    return pair


# --- attention


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("qwen2_moe", {**EXPERTS, **ALL_WINDOWS, "sliding_window": 32}),
        ("phimoe", {"num_local_experts": 4, "sliding_window": 32}),
    ],
)
def test_a_window_that_is_in_the_mask_alone(
    tmp_path: Path, architecture: str, options: dict[str, Any]
) -> None:
    base = model(tmp_path / "base", architecture, **SMALL, **options)
    with pytest.raises(UnsupportedError, match="limits attention to a window or to chunks by a ma"):
        opened(base, tuned(base, tmp_path / "tuned"))


def test_a_window_that_the_layers_know(tmp_path: Path) -> None:
    base = model(tmp_path / "base", "mistral", **SMALL, sliding_window=32)
    assert opened(base, tuned(base, tmp_path / "tuned"))


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4}),
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    ],
)
def test_an_attention_of_its_own(
    tmp_path: Path, architecture: str, options: dict[str, Any]
) -> None:
    base = model(tmp_path / "base", architecture, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnsupportedError, match="computes attention in a way of its own"):
            opened(base, tuned(base, tmp_path / "tuned"))


# --- experts


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("mixtral", {"num_local_experts": 4}), ("qwen2_moe", EXPERTS)],
)
def test_a_full_fine_tune_with_experts(
    tmp_path: Path, architecture: str, options: dict[str, Any]
) -> None:
    base = model(tmp_path / "base", architecture, **SMALL, **options)
    pair = opened(base, tuned(base, tmp_path / "tuned"))
    asked = pair.encode([Item("a", text="the quick brown fox")], None, False)
    (found,) = pair.score(asked)
    assert np.isfinite(found.kl_base_tuned).all()
    assert pair.noise_floor(asked)["kl_base_tuned"] < found.kl_base_tuned.mean()


# --- tokens


def test_a_token_that_the_model_does_not_know(tmp_path: Path) -> None:
    base = model(tmp_path / "base", "llama", vocab=200, **SMALL)
    pair = opened(base, tuned(base, tmp_path / "tuned"))
    assert pair.encode([Item("a", text="abc")], None, False)
    with pytest.raises(InputError, match=r"Item 'b' has the token id \d+; the model knows 200 tok"):
        pair.encode([Item("b", text="the fox")], None, False)


# --- its own faults


def test_a_fault_of_its_own_has_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: Any, **__: Any) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr("tunediff.cli.app", fault)
    said = command("check", "a", "b")
    assert (said.code, said.out) == (70, "")
    assert "ValueError: a fault" in said.err
    assert said.err.endswith("please report it with the lines above.\n")
