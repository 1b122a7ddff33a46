"""Is what tunediff cannot compute refused by name, before a wrong number is printed?

Architectures whose attention it does not know, tokenizers of another model, and its own faults.
"""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

import factory
from command import command
from tunediff.errors import (
    CertificateError,
    InputError,
    NumericsError,
    PairError,
    UnsupportedError,
)
from tunediff.pair import hf_open
from tunediff.pair.adapter import WEIGHTS as ADAPTER
from tunediff.pair.hf import BytesPair, HfPair
from tunediff.pair.hf_load import context_length, has_tokenizer
from tunediff.pair.open import open_pair, resolve
from tunediff.scoring import streams as streams_of
from tunediff.scoring.packs import Pack
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


# --- texts beyond which packed neighbours would count


def test_a_rotary_table_that_grows_with_the_longest_text(tmp_path: Path) -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 32,
    }
    lengths = {"max_position_embeddings": 128, "original_max_position_embeddings": 32}
    base = model(tmp_path / "base", "phi3", **SMALL, **lengths, rope_parameters=rope)
    pair = opened(base, tuned(base, tmp_path / "tuned"))
    with pytest.raises(InputError, match="has 61 tokens; at most 32 fit"):
        pair.encode([Item("a", text="x" * 60)], None, False)
    # what is refused would be wrong: a long neighbour moves a short text's logits
    streams = pair.engine.streams
    short, long = torch.arange(20), torch.arange(60)

    def logits(*texts: torch.Tensor) -> torch.Tensor:
        pack = Pack.of(texts, streams.device)
        return streams.logits(streams.one(pack, "base"), "base")[:20].clone()

    assert (logits(short) - logits(short, long)).abs().max() > 1e-3
    assert (logits(short) - logits(short, long[:32])).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "default"}}, 64),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "dynamic"}}, 64),
        ({"n_positions": 32}, 32),
        ({"rope_parameters": None}, None),
        (
            {
                "max_position_embeddings": 64,
                "rope_parameters": {
                    "full_attention": {
                        "rope_type": "longrope",
                        "original_max_position_embeddings": 16,
                    },
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            16,
        ),
        (
            {
                "max_position_embeddings": 64,
                "original_max_position_embeddings": 8,
                "rope_parameters": {"rope_type": "longrope"},
            },
            8,
        ),
    ],
)
def test_the_longest_text(config: dict[str, Any], most: int | None) -> None:
    assert context_length(config) == most


# --- what the tuned side brings


def test_another_chat_template_is_said(tmp_path: Path) -> None:
    base = factory.tiny_model(tmp_path / "base")
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}")
    full = factory.full_finetune(tmp_path / "full", base)
    (full / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert opened(base, full).certificate.warnings == ()
    (full / "chat_template.jinja").write_text("{{ 1 }}")
    (warning,) = opened(base, full).certificate.warnings
    assert warning.startswith("The tuned side brings another chat template than base's")


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "vocab.txt", "spiece.model"])
def test_a_tokenizer_of_any_format_is_seen(tmp_path: Path, name: str) -> None:
    assert not has_tokenizer(tmp_path)
    (tmp_path / name).touch()
    assert has_tokenizer(tmp_path)


def test_every_file_of_a_tokenizer_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(_name: str, *, allow_patterns: list[str], **_: Any) -> str:
        asked.extend(allow_patterns)
        return "."

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    resolve("placeholder/model", download=True)
    files = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model")
    assert [f for f in files if not any(fnmatch(f, pattern) for pattern in asked)] == []


def test_an_adapter_with_a_tokenizer_of_its_own(tmp_path: Path) -> None:
    base = factory.tiny_model(tmp_path / "base")
    adapter = factory.lora_adapter(tmp_path / "adapter", base)
    factory.tiny_tokenizer(adapter, add_bos=False)
    with pytest.raises(PairError, match="another tokenizer than its base's") as error:
        opened(base, adapter, bits_per_byte_only=True)
    assert error.value.hint.startswith("Merge it into its base")


# --- what peft makes of an adapter's files


@pytest.mark.parametrize(
    "how", [{"dora": True}, {"modules_to_save": ["lm_head"]}, {"embeddings": True}], ids=str
)
def test_a_tensor_that_peft_did_not_load_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    base = factory.tiny_model(tmp_path / "base")
    adapter = factory.lora_adapter(tmp_path / "adapter", base, **how)
    (check,) = [c for c in opened(base, adapter).certificate.checks if c.name == "tensors_used"]
    assert f"all {len(load_file(adapter / ADAPTER))} tensors" in check.detail
    right = PeftModel.from_pretrained

    def spoiling(*args: Any, **kwargs: Any) -> Any:
        wrapped = right(*args, **kwargs)
        part = {"dora": "magnitude", "modules_to_save": "to_save", "embeddings": "embedding_B"}
        name = next(n for n, _ in wrapped.named_parameters() if part[next(iter(how))] in n)
        with torch.no_grad():
            wrapped.get_parameter(name).view(-1)[3] += 1e-3
        return wrapped

    monkeypatch.setattr(PeftModel, "from_pretrained", spoiling)
    with pytest.raises(
        CertificateError, match=r"1 of the adapter's .* not in the model as they li"
    ):
        opened(base, adapter)


# --- two unrelated models


@pytest.fixture
def unrelated(tmp_path: Path) -> tuple[Path, Path]:
    base = factory.tiny_model(tmp_path / "one")
    other = factory.tiny_model(tmp_path / "other", "mistral", hidden=64, add_bos=False)
    return base, other


def test_two_unrelated_models_are_proven_each(
    unrelated: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = opened(*unrelated, bits_per_byte_only=True)
    found = {check.name: check.passed for check in pair.certificate.checks}
    assert found == {"tokenizers_differ": None, "deterministic": True, "packed_equals_single": True}
    right = streams_of.run_backbone

    def leaking(model: Any, pack: Pack) -> torch.Tensor:
        leaks = model.config.model_type == "mistral"
        return right(model, replace(pack, bounds=((0, len(pack.ids)),)) if leaks else pack)

    monkeypatch.setattr(streams_of, "run_backbone", leaking)
    with pytest.raises(CertificateError, match="The tuned model's packed logits differ"):
        opened(*unrelated, bits_per_byte_only=True)


def test_dropout_left_on_in_one_of_two_unrelated_models(
    unrelated: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = hf_open.load_model

    def one_on(*args: Any) -> Any:
        model = load(*args)
        if model.config.model_type == "mistral":
            head = model.get_output_embeddings()
            head.register_forward_hook(lambda _m, _a, z: torch.dropout(z, 0.1, train=True))
        return model

    monkeypatch.setattr(hf_open, "load_model", one_on)
    with pytest.raises(CertificateError, match="Two identical passes gave different logits"):
        opened(*unrelated, bits_per_byte_only=True)


def test_the_speed_of_two_unrelated_models_is_of_each(unrelated: tuple[Path, Path]) -> None:
    pair = opened(*unrelated, bits_per_byte_only=True)
    assert isinstance(pair, BytesPair)
    seen: dict[str, list[int]] = {"base": [], "tuned": []}
    for name, side in zip(seen, pair._sides, strict=True):
        right = side.one
        side.one = lambda pack, *a, name=name, right=right: (  # type: ignore[method-assign]
            seen[name].append(len(pack.ids)) or right(pack, *a)
        )
    (item,) = pair.encode([Item("a", text="the quick brown fox")], None, False)
    assert item.tuned is not None
    found = pair.speed([item])
    assert all(value > 0 for value in found.values())
    assert seen == {"base": [len(item.ids)] * 2, "tuned": [len(item.tuned.ids)] * 2}


@pytest.mark.parametrize("most", [5, 0])
def test_two_unrelated_models_halve_their_chunks(
    unrelated: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    pair = opened(*unrelated, bits_per_byte_only=True)
    asked = pair.encode([Item("a", text="the quick brown fox")], None, False)
    (true,) = pair.score(asked)
    right = streams_of.SeparateStreams.logits

    def short(self: Any, h: torch.Tensor, *args: Any) -> torch.Tensor:
        if len(h) > most:
            raise torch.OutOfMemoryError("planted")
        return right(self, h, *args)

    monkeypatch.setattr(streams_of.SeparateStreams, "logits", short)
    if not most:
        with pytest.raises(NumericsError, match="Memory ran out on item 'a' of"):
            list(pair.score(asked))
        return
    (found,) = pair.score(asked)
    np.testing.assert_allclose(found.nll_base, true.nll_base, rtol=1e-5)
    np.testing.assert_allclose(found.nll_tuned, true.nll_tuned, rtol=1e-5)
    assert pair.engine.chunk <= most
