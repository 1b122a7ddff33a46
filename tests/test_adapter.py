"""Does an adapter's file hold exactly what its configuration and base ask for?

Faults are planted one at a time in a sound adapter; each must be refused in words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from factory import (
    edit_json,
)
from tunediff.errors import AdapterError, TunediffError, UnsupportedError
from tunediff.pair import adapter as module_under_test
from tunediff.pair.adapter import read_adapter
from tunediff.pair.adapter_config import RANK_CAP, checked_config
from tunediff.pair.targets import full_matches
from tunediff.weights.checkpoint import Checkpoint

LAYERS, WIDTH, INNER, VOCAB, RANK = 2, 6, 10, 12, 3
SHAPES = {"self_attn.q_proj": (WIDTH, WIDTH), "mlp.down_proj": (WIDTH, INNER)}
PREFIX = "base_model.model."
FIRST = f"{PREFIX}model.layers.0.mlp.down_proj.lora_A.weight"


def base_folder(folder: Path, **changes: Any) -> Path:
    """Save a base of two layers whose names are Llama's."""
    rng = np.random.default_rng(0)
    weights = {"model.embed_tokens.weight": (VOCAB, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        weights[f"model.layers.{layer}.input_layernorm.weight"] = (WIDTH,)
        for name, shape in SHAPES.items():
            weights[f"model.layers.{layer}.{name}.weight"] = shape
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | changes))
    save_file(
        {n: rng.normal(size=s).astype(np.float32) for n, s in weights.items()},
        folder / "model.safetensors",
    )
    return folder


def sound_tensors(rank: int = RANK) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {}
    for layer in range(LAYERS):
        for name, (out, width) in SHAPES.items():
            key = f"{PREFIX}model.layers.{layer}.{name}"
            found[f"{key}.lora_A.weight"] = rng.normal(size=(rank, width)).astype(np.float32)
            found[f"{key}.lora_B.weight"] = rng.normal(size=(out, rank)).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(base_folder(tmp_path_factory.mktemp("base") / "base"))


def save(folder: Path, tensors: Any = None, **changes: Any) -> Path:
    """Save a sound adapter; ``changes`` go into its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "somewhere/base",
        "r": RANK,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "down_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    save_file(sound_tensors() if tensors is None else tensors, folder / WEIGHTS)
    return folder


WEIGHTS = "adapter_model.safetensors"


def refused(folder: Path, base: Checkpoint, error: type[TunediffError] = AdapterError) -> str:
    with pytest.raises(error) as caught:
        read_adapter(folder, base)
    return str(caught.value)


def test_a_sound_adapter_is_read(tmp_path: Path, base: Checkpoint) -> None:
    adapter = read_adapter(save(tmp_path), base)
    assert [m.name for m in adapter.modules] == [
        f"model.layers.{layer}.{name}" for layer in range(2) for name in sorted(SHAPES)
    ]
    sound = sound_tensors()
    for m in adapter.modules:
        np.testing.assert_array_equal(m.a, sound[f"{PREFIX}{m.name}.lora_A.weight"])
        np.testing.assert_array_equal(m.b, sound[f"{PREFIX}{m.name}.lora_B.weight"])
        assert (m.rank, m.alpha, m.scale) == (RANK, 6.0, 2.0)
        assert m.base_tensor == f"{m.name}.weight"
        assert not m.fan_in_fan_out
    assert adapter.slow_reasons == ()
    assert adapter.extra_tensors == {}
    assert adapter.warnings == ()
    assert not adapter.delta_is_zero
    assert set(adapter.file_hashes) == {"adapter_config.json", WEIGHTS}


def test_no_tensor_that_is_missing_renamed_or_extra_passes(
    tmp_path: Path, base: Checkpoint
) -> None:
    for number, key in enumerate(sound_tensors()):
        tensors = sound_tensors()
        value = tensors.pop(key)
        plain = key.removeprefix(PREFIX)
        message = refused(save(tmp_path / f"missing{number}", tensors), base)
        assert f"1 missing ({plain}), none not expected" in message
        message = refused(save(tmp_path / f"n{number}", tensors | {f"{key}x": value}), base)
        assert f"1 missing ({plain}), 1 not expected ({plain}x)" in message
    message = refused(save(tmp_path / "no_prefix", tensors | {plain: value}), base)
    assert f"1 not expected ({plain} (no {PREFIX}))" in message
    extra = sound_tensors() | {f"{PREFIX}model.layers.0.input_layernorm.weight": np.ones(6)}
    message = refused(save(tmp_path / "extra", extra), base)
    assert "none missing, 1 not expected (model.layers.0.input_layernorm.weight)" in message


def test_renamed_modules_are_refused(tmp_path: Path, base: Checkpoint) -> None:
    tensors = {k.replace("q_proj", "qq_proj"): v for k, v in sound_tensors().items()}
    message = refused(save(tmp_path / "a", tensors), base)
    assert "changes 2 modules that the base does not have: model.layers.0.self_attn.qq" in message
    assert "for another base, or its tensors were renamed" in message
    message = refused(save(tmp_path / "b", {}), base)
    assert "holds no tensor" in message


def test_an_adapter_for_another_base_is_refused(tmp_path: Path, base: Checkpoint) -> None:
    deeper = {k.replace("layers.1", "layers.7"): v for k, v in sound_tensors().items()}
    assert "is for another base" in refused(save(tmp_path / "deeper", deeper), base)
    wider = sound_tensors()
    wider[FIRST] = np.ones((RANK, INNER + 1), np.float32)
    message = refused(save(tmp_path / "wider", wider), base)
    assert "lora_A.weight is (3, 11), (3, 10) was needed" in message
    assert "the adapter is for another base" in message
    message = refused(save(tmp_path / "names", target_modules=["c_attn"]), base)
    assert "names no module" in message
    assert "for another base" in message


def test_a_rank_unlike_the_configuration_is_refused(tmp_path: Path, base: Checkpoint) -> None:
    message = refused(save(tmp_path, sound_tensors(4)), base)
    assert "8 tensors do not fit" in message
    assert "The rank differs from the configuration's" in message


def test_transposed_factors_are_refused(tmp_path: Path, base: Checkpoint) -> None:
    tensors = {k: np.ascontiguousarray(v.T) for k, v in sound_tensors().items()}
    assert "8 tensors do not fit" in refused(save(tmp_path, tensors), base)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_factors_must_be_finite(tmp_path: Path, base: Checkpoint, bad: float) -> None:
    tensors = sound_tensors()
    tensors[FIRST][1, 2] = bad
    message = refused(save(tmp_path / "a", tensors), base)
    assert "the tensor model.layers.0.mlp.down_proj.lora_A.weight holds NaN or infinity" in message
    tensors[FIRST] = np.full((RANK, INNER), 1e300)  # finite, but not in float32
    assert "holds NaN or infinity" in refused(save(tmp_path / "b", tensors), base)


def test_integers_are_no_factors(tmp_path: Path, base: Checkpoint) -> None:
    tensors = sound_tensors() | {FIRST: np.ones((RANK, INNER), np.int8)}
    assert "is of type I8, floating point was needed" in refused(save(tmp_path, tensors), base)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_pickled_weights_are_never_loaded(tmp_path: Path, base: Checkpoint, name: str) -> None:
    folder = save(tmp_path)
    (folder / name).write_bytes(b"anything")
    assert "also holds pickled files" in read_adapter(folder, base).warnings[0]
    (folder / WEIGHTS).unlink()
    message = refused(folder, base)
    assert f"only as {name}, a format that can run code" in message
    assert "convert it once" in message


def test_what_is_no_adapter_folder(tmp_path: Path, base: Checkpoint) -> None:
    assert "There is no such path" in refused(tmp_path / "nothing", base)
    (tmp_path / "empty").mkdir()
    assert "it has no adapter_config.json" in refused(tmp_path / "empty", base)
    folder = save(tmp_path / "a")
    (folder / WEIGHTS).unlink()
    assert f"has no {WEIGHTS}" in refused(folder, base)
    (folder / WEIGHTS).write_bytes(b"cut off")
    assert "is not a safetensors file" in refused(folder, base)
    (folder / "adapter_config.json").write_text("[1]")
    assert "holds a JSON list; an object was needed" in refused(folder, base)


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json", "tokenizer.json"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, base: Checkpoint, name: str) -> None:
    outside = save(tmp_path / "outside")
    (outside / "tokenizer.json").write_text("{}")
    folder = save(tmp_path / "inside")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside / name)
    assert f"{name} is a link that leaves its folder" in refused(folder, base)


def test_size_and_rank_are_capped_before_a_tensor_is_read(
    tmp_path: Path, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path)
    monkeypatch.setattr(module_under_test.Tensor, "read", lambda self: pytest.fail("was read"))
    monkeypatch.setattr(module_under_test, "FILE_BYTES_CAP", 100)
    assert "bytes; at most 100 are read" in refused(folder, base)
    monkeypatch.undo()
    edit_json(folder / "adapter_config.json", r=RANK_CAP + 1)
    assert "a rank of 4,097 is asked for; the cap is 4,096" in refused(folder, base)
    edit_json(folder / "adapter_config.json", r=RANK, rank_pattern={"q_proj": 10**9})
    assert "a rank of 1,000,000,000 is asked for" in refused(folder, base)


@pytest.mark.parametrize(
    ("field", "value", "needed"),
    [
        ("r", "8", "a positive integer"), ("r", True, "a positive integer"),
        ("r", 0, "a positive integer"), ("r", 2.0, "a positive integer"),
        ("lora_alpha", -1, "a number, zero or more"), ("lora_alpha", "16", "a number"),
        ("lora_alpha", True, "a number"), ("use_rslora", 1, "true or false"),
        ("use_dora", "no", "true or false"), ("target_modules", 3, "a string or a list"),
        ("target_modules", ["q_proj", 1], "a string or a list"),
        ("target_modules", {"q_proj": 1}, "a string or a list"),
        ("rank_pattern", {"q_proj": "3"}, "an object of positive integers"),
        ("rank_pattern", ["q_proj"], "an object of positive integers"),
        ("alpha_pattern", {"q_proj": -3}, "an object of numbers"),
        ("modules_to_save", "lm_head", "a list of strings or null"),
        ("layers_to_transform", "0", "an index"), ("layers_to_transform", [-1], "an index"),
        ("fan_in_fan_out", "false", "true or false"), ("peft_type", 1, "a string"),
        ("init_lora_weights", 1, "true, false or a string"), ("bias", False, "none"),
        ("trainable_token_indices", [1.5], "a list of token ids"),
        ("loftq_config", "x", "an object"), ("base_model_name_or_path", 5, "a string or null"),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_type_is_named(
    tmp_path: Path, base: Checkpoint, field: str, value: Any, needed: str
) -> None:
    message = refused(save(tmp_path, **{field: value}), base)
    assert f"{field} is {value!r}; " in message
    assert needed in message
    assert "was needed" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA is supported"),
        ({"peft_type": "ADALORA"}, "only LORA is supported"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'; only CAUSAL_LM"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base"),
        ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights is 'loftq'"),
        ({"init_lora_weights": "corda"}, "init_lora_weights is 'corda'"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights is 'lora_ga'"),
        ({"init_lora_weights": "mica"}, "init_lora_weights is 'mica'"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "mixtures of experts"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is set"),
        ({"alora_invocation_tokens": [1]}, "aLoRA"),
        ({"use_qalora": True}, "QALoRA"),
        ({"megatron_config": {"a": 1}}, "megatron_config is set"),
        ({"kasa_config": {"a": 1}}, "KaSA"),
        ({"use_bdlora": {"a": 1}}, "block-diagonal"),
        ({"arrow_config": {"a": 1}}, "Arrow"),
        ({"monteclora_config": {"a": 1}}, "MonteCLoRA"),
        ({"velora_config": {"a": 1}}, "VeLoRA"),
        ({"use_something_new": True}, "use_something_new is True, a field that is not known"),
        ({"lora_scale_factor": 2}, "lora_scale_factor is 2, a field that is not known"),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    tmp_path: Path, base: Checkpoint, changes: dict[str, Any], words: str
) -> None:
    assert words in refused(save(tmp_path, **changes), base, UnsupportedError)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": None}, "has no peft_type; LORA was needed"),
        ({"target_modules": None}, "target_modules is empty"),
        ({"target_modules": []}, "target_modules is empty"),
        ({"bias": "some"}, "bias is 'some'"),
        ({"target_modules": "(", "r": 3}, "is no regular expression"),
        ({"rank_pattern": {"(": 3}}, "is no regular expression"),
        ({"layers_pattern": "layers"}, "layers_to_transform is not"),
        ({"target_modules": ".*_proj", "layers_to_transform": 0}, "as a list, and it is a string"),
        ({"modules_to_save": ["classifier"]}, "modules_to_save names classifier"),
        ({"trainable_token_indices": [0, VOCAB]}, "different token ids below 12"),
        ({"trainable_token_indices": [1, 1]}, "different token ids below 12"),
        ({"trainable_token_indices": {"nowhere": [1]}}, "no one embedding 'nowhere'"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    tmp_path: Path, base: Checkpoint, changes: dict[str, Any], words: str
) -> None:
    assert words in refused(save(tmp_path, **changes), base)


def test_fields_that_change_nothing_are_let_through(tmp_path: Path, base: Checkpoint) -> None:
    adapter = read_adapter(
        save(
            tmp_path, task_type=None, use_something_new=False, new_config=None, new_list=[],
            lora_dropout=0.1, inference_mode=True, init_lora_weights="eva", eva_config={"rho": 2},
            bias="all", megatron_core="megatron.core", qalora_group_size=16,
        ),
        base,
    )  # fmt: skip
    assert adapter.slow_reasons == ()


def test_every_field_of_pefts_configuration_is_known(tmp_path: Path) -> None:
    """With all defaults written out, as peft saves them, nothing is unknown."""
    from peft import LoraConfig

    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    config.save_pretrained(tmp_path)
    checked_config(tmp_path, json.loads((tmp_path / "adapter_config.json").read_text()))
    known = set(module_rules())
    assert set(config.to_dict()) <= known


def module_rules() -> set[str]:
    from tunediff.pair import adapter_config

    return set(adapter_config._RULES) | set(adapter_config._REFUSED)


def test_a_pattern_that_runs_for_ever_is_stopped(tmp_path: Path, base: Checkpoint) -> None:
    with pytest.raises(AdapterError, match=r"took longer than 0.3 seconds.*plain list"):
        full_matches([r"(\w+\s?)+!"], ["a" * 60], seconds=0.3)


def test_the_order_of_target_modules_does_not_matter(tmp_path: Path, base: Checkpoint) -> None:
    first = read_adapter(save(tmp_path / "a"), base)
    turned = read_adapter(save(tmp_path / "b", target_modules=["down_proj", "q_proj"]), base)
    assert first.fingerprint == turned.fingerprint
    other = read_adapter(save(tmp_path / "c", lora_alpha=7), base)
    assert other.fingerprint != first.fingerprint
    moved = sound_tensors()
    moved[FIRST][0, 0] += 1
    assert read_adapter(save(tmp_path / "d", moved), base).fingerprint != first.fingerprint


def test_another_name_of_the_base_alone_is_a_warning(tmp_path: Path, base: Checkpoint) -> None:
    adapter = read_adapter(save(tmp_path, base_model_name_or_path="owner/other"), base)
    assert "names its base owner/other; the base given is base" in adapter.warnings[0]


def test_keys_may_carry_the_adapters_name(tmp_path: Path, base: Checkpoint) -> None:
    tensors = {k.replace(".weight", ".default.weight"): v for k, v in sound_tensors().items()}
    adapter = read_adapter(save(tmp_path / "a", tensors), base)
    assert len(adapter.modules) == 4
    assert "peft itself would not load them" in adapter.warnings[0]
    both = tensors | {FIRST: sound_tensors()[FIRST]}
    assert "twice, under two names" in refused(save(tmp_path / "b", both), base)


def test_scale_follows_rank_alpha_and_rslora(tmp_path: Path, base: Checkpoint) -> None:
    tensors = sound_tensors(4)
    for key, value in sound_tensors(2).items():
        if "layers.1.mlp" in key:
            tensors[key] = value
    folder = save(
        tmp_path, tensors, r=4, lora_alpha=8,
        rank_pattern={r"layers\.1\.mlp\..*": 2, "down_proj": 4},  # the first that fits counts
        alpha_pattern={"model.layers.0.self_attn.q_proj": 3},
    )  # fmt: skip
    by_name = {m.name.removeprefix("model.layers."): m for m in read_adapter(folder, base).modules}
    assert {n: (m.rank, m.scale) for n, m in by_name.items()} == {
        "0.mlp.down_proj": (4, 2.0), "0.self_attn.q_proj": (4, 0.75),
        "1.mlp.down_proj": (2, 4.0), "1.self_attn.q_proj": (4, 2.0),
    }  # fmt: skip
    edit_json(folder / "adapter_config.json", use_rslora=True)
    stable = read_adapter(folder, base).modules
    assert {m.rank: m.scale for m in stable if m.alpha == 8} == {2: 8 / 2**0.5, 4: 4.0}


@pytest.mark.parametrize("zero", ["lora_B", "lora_A", "alpha"])
def test_a_delta_of_exactly_zero_is_seen(tmp_path: Path, base: Checkpoint, zero: str) -> None:
    tensors = {k: v * (zero not in k) for k, v in sound_tensors().items()}
    adapter = read_adapter(save(tmp_path, tensors, lora_alpha=0 if zero == "alpha" else 6), base)
    assert adapter.delta_is_zero


def test_mixtures_of_experts_and_quantised_bases_are_refused_by_name(tmp_path: Path) -> None:
    folder = base_folder(tmp_path / "moe")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.experts.0.down_proj.weight"] = np.ones((2, 2), np.float32)
    save_file(weights, folder / "model.safetensors")
    message = refused(save(tmp_path / "a"), Checkpoint.open(folder), UnsupportedError)
    assert "changes experts of a mixture" in message
    stored = {"quant_method": "gptq", "bits": 4}
    packed = Checkpoint.open(base_folder(tmp_path / "q", quantization_config=stored))
    assert "stored quantised (gptq)" in refused(tmp_path / "a", packed, UnsupportedError)
