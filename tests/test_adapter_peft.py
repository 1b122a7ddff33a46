"""Is what is read from an adapter's files what peft itself loads?

The adapters here are made and saved by peft; its own ΔW is the oracle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from factory import (
    ARCHITECTURES,
    MORE_ARCHITECTURES,
    TARGETS,
    edit_json,
    lora_adapter,
    tiny_model,
)
from tunediff.errors import AdapterError, TunediffError, UnsupportedError
from tunediff.pair.adapter import Adapter, read_adapter
from tunediff.weights.checkpoint import Checkpoint

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"


def refused(folder: Path, base: Checkpoint, error: type[TunediffError] = AdapterError) -> str:
    with pytest.raises(error) as caught:
        read_adapter(folder, base)
    return str(caught.value)


def pefts_deltas(base: Path, folder: Path) -> dict[str, np.ndarray]:
    """Return the ΔW that peft adds, by the name of the base's tensor."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    return {
        name.removeprefix(PREFIX): module.get_delta_weight("default").detach().numpy()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def assert_equals_peft(adapter: Adapter, base: Path) -> None:
    expected = pefts_deltas(base, adapter.path)
    assert {m.name for m in adapter.modules} == set(expected)
    for m in adapter.modules:
        delta = m.scale * (m.b.astype(np.float64) @ m.a.astype(np.float64))
        delta = delta.T if m.fan_in_fan_out else delta
        assert delta.shape == Checkpoint.open(base).shape(m.base_tensor)
        np.testing.assert_allclose(delta, expected[m.name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES + MORE_ARCHITECTURES)
def test_deltas_equal_pefts(tmp_path: Path, architecture: str) -> None:
    base = tiny_model(tmp_path / "base", architecture, layers=2)
    folder = lora_adapter(tmp_path / "lora", base, rslora=architecture == "llama", rank=3)
    adapter = read_adapter(folder, Checkpoint.open(base))
    # GPT-2's c_proj names two modules of a layer
    per_layer = len(TARGETS[architecture]) + (architecture == "gpt2")
    assert len(adapter.modules) == 2 * per_layer
    assert adapter.slow_reasons == ()
    assert_equals_peft(adapter, base)


def test_selections_equal_pefts(tmp_path: Path) -> None:
    """Each way to say which modules are adapted names the same ones as in peft."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = tiny_model(tmp_path / "base", "llama", layers=3)
    ways: list[dict[str, Any]] = [
        {"target_modules": "all-linear"},
        {"target_modules": r".*layers\.[02]\..*(q|v)_proj"},
        {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [0, 2]},
        {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
        {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["layers.1.self_attn.q_proj"]},
        {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*\.2\..*"},
        {"target_modules": ["model.layers.0.self_attn.q_proj", "o_proj"]},
        {
            "target_modules": ["q_proj", "k_proj"],
            "rank_pattern": {"k_proj": 5, r"layers\.1\..*": 7},
            "alpha_pattern": {r"^model\.layers\.2\.self_attn\.q_proj": 3},
            "use_rslora": True,
        },
    ]
    for number, way in enumerate(ways):
        model = AutoModelForCausalLM.from_pretrained(base)
        config = LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **way)
        folder = tmp_path / f"way{number}"
        get_peft_model(model, config).save_pretrained(folder)
        assert_equals_peft(read_adapter(folder, Checkpoint.open(base)), base)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_what_the_fast_way_cannot_serve_says_why(tmp_path: Path, architecture: str) -> None:
    base = tiny_model(tmp_path / "base", architecture, layers=2, tie=True)
    checkpoint = Checkpoint.open(base)
    target = TARGETS[architecture][:1]
    norm, head = ("norm" if architecture == "llama" else "ln_f"), "lm_head"

    def reasons(name: str, **options: Any) -> tuple[str, ...]:
        folder = lora_adapter(tmp_path / name, base, targets=target, **options)
        adapter = read_adapter(folder, checkpoint)
        assert not adapter.delta_is_zero
        return adapter.slow_reasons

    assert reasons("plain") == ()
    assert reasons("dora", dora=True) == ("DoRA",)
    assert reasons("embedding", embeddings=True) == ("an adapted embedding",)
    assert reasons("saved", modules_to_save=[norm]) == ("modules_to_save",)
    assert reasons("head", modules_to_save=[head]) == ("modules_to_save",)


def test_tokens_biases_and_resized_vocabularies_say_why(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = tiny_model(tmp_path / "base", "llama", layers=2, tie=False)
    checkpoint = Checkpoint.open(base)

    def adapter(name: str, grow: int = 0, whole: bool = False, **options: Any) -> Adapter:
        model = AutoModelForCausalLM.from_pretrained(base)
        if grow:
            model.resize_token_embeddings(300 + grow, mean_resizing=False)
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **options)
        tuned = get_peft_model(model, config)
        tuned.save_pretrained(tmp_path / name, save_embedding_layers=whole)
        return read_adapter(tmp_path / name, checkpoint)

    assert adapter("untrained").delta_is_zero
    tokens = adapter("tokens", trainable_token_indices=[4, 9])
    assert tokens.slow_reasons == ("trainable_token_indices",)
    assert tokens.extra_tensors == {
        "model.embed_tokens.token_adapter.trainable_tokens_delta": (2, 48)
    }
    assert adapter("resized", grow=5, whole=True).slow_reasons == ("a resized vocabulary",)
    copied = adapter("copied", whole=True)  # the base's own embeddings again: nothing new
    assert copied.slow_reasons == ()
    tensors = load_file(copied.path / WEIGHTS)
    tensors[f"{PREFIX}lm_head.weight"] *= 2
    save_file(tensors, copied.path / WEIGHTS)
    changed = read_adapter(copied.path, checkpoint)
    assert changed.slow_reasons == ("whole embeddings stored beside the factors",)


def test_lora_bias_says_why_and_bias_is_refused(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", "gpt2", layers=2)
    folder = lora_adapter(tmp_path / "a", base, targets=["c_attn"])
    edit_json(folder / "adapter_config.json", bias="all")
    message = refused(folder, Checkpoint.open(base), UnsupportedError)
    assert "would change the base's own biases" in message
    edit_json(folder / "adapter_config.json", bias="none", lora_bias=True)
    tensors = load_file(folder / WEIGHTS)
    biases = {
        k.replace("B.weight", "B.bias"): np.ones(len(v), np.float32)
        for k, v in tensors.items()
        if "lora_B" in k
    }
    assert "2 missing" in refused(folder, Checkpoint.open(base))
    save_file(tensors | biases, folder / WEIGHTS)
    assert read_adapter(folder, Checkpoint.open(base)).slow_reasons == ("lora_bias",)


def test_a_base_whose_names_lack_the_models_prefix(tmp_path: Path) -> None:
    """GPT-2 on the hub says h.0.attn where the model says transformer.h.0.attn."""
    base = tiny_model(tmp_path / "base", "gpt2", layers=2)
    folder = lora_adapter(tmp_path / "a", base, modules_to_save=["ln_f"])
    weights = load_file(base / "model.safetensors")
    short = {k.removeprefix("transformer."): v for k, v in weights.items()}
    save_file(short, base / "model.safetensors")
    adapter = read_adapter(folder, Checkpoint.open(base))
    assert adapter.modules[0].name == "transformer.h.0.attn.c_attn"
    assert adapter.modules[0].base_tensor == "h.0.attn.c_attn.weight"
    assert adapter.slow_reasons == ("modules_to_save",)


def test_a_stored_base_tensor_that_differs_is_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = tiny_model(tmp_path / "base", "llama", layers=2, tie=False)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM")
    folder = tmp_path / "a"
    get_peft_model(model, config).save_pretrained(folder, save_embedding_layers=True)
    assert read_adapter(folder, Checkpoint.open(base)).slow_reasons == ("an adapted embedding",)
    tensors = load_file(folder / WEIGHTS)
    tensors[f"{PREFIX}model.embed_tokens.base_layer.weight"][0, 0] += 1
    save_file(tensors, folder / WEIGHTS)
    assert "differs from this base's" in refused(folder, Checkpoint.open(base))


@pytest.mark.shared
def test_real_adapters(shared: Path, tmp_path: Path) -> None:
    models = shared / "models"
    stories = Checkpoint.open(models / "stories260K")
    adapter = read_adapter(models / "stories260K-gsm8k-lora", stories)
    assert len(adapter.modules) == 35
    assert adapter.warnings == ()
    assert_equals_peft(adapter, models / "stories260K")
    other = Checkpoint.open(models / "aidreams260K")
    assert "is for another base" in refused(models / "stories260K-gsm8k-lora", other)


@pytest.mark.shared
def test_a_real_gpt2_adapter_on_a_base_of_that_shape(shared: Path, tmp_path: Path) -> None:
    base = tmp_path / "gpt2"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 768}))
    shapes = {"attn.c_attn": (768, 2304), "attn.c_proj": (768, 768), "mlp.c_proj": (3072, 768)}
    weights = {
        f"h.{layer}.{name}.weight": np.zeros(shape, np.float16)
        for layer in range(12)
        for name, shape in shapes.items()
    }
    save_file(weights | {"wte.weight": np.zeros((10, 768), np.float16)}, base / "model.safetensors")
    adapter = read_adapter(shared / "models" / "gpt2-tigrinya-lora", Checkpoint.open(base))
    assert len(adapter.modules) == 36
    assert all(m.fan_in_fan_out and m.scale == 4.0 for m in adapter.modules)
