"""Do the files alone say what they can, and refuse what they cannot vouch for?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import factory
from tunediff.errors import ModelError, PairError
from tunediff.pair.from_files import certify_files, weigh
from tunediff.pair.open import open_pair

Edit = Callable[[dict[str, np.ndarray]], object]
WEIGHTS = "model.safetensors"
QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.tiny_model(tmp_path_factory.mktemp("base"), "llama", tie=False)


def edited(base: Path, folder: Path, change: Edit | None, **config: object) -> Path:
    """A copy of the base with its tensors changed in place, and its configuration."""
    shutil.copytree(base, folder)
    factory.edit_json(folder / "config.json", **config)
    if change is not None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rms_norm_eps", 0.1),
        ("hidden_act", "gelu"),
        ("rope_parameters", {"rope_theta": 5e5, "rope_type": "default"}),
    ],
)
def test_equal_weights_of_another_configuration(
    base: Path, tmp_path: Path, key: str, value: object
) -> None:
    other = edited(base, tmp_path / "other", None, **{key: value})
    message = rf"configurations differ in {key} \({key}: "
    with pytest.raises(PairError, match=message):
        certify_files(base, other, "model")
    with pytest.raises(PairError, match=message):
        open_pair(base, other, device="cpu")


def test_what_a_configuration_may_leave_out(base: Path, tmp_path: Path) -> None:
    # as older versions wrote it: defaults left out, rotary settings one by one
    old = edited(base, tmp_path / "old", None, rope_theta=10000.0, max_position_embeddings=512)
    file = old / "config.json"
    config = json.loads(file.read_text())
    for key in ("rope_parameters", "attention_bias", "mlp_bias", "head_dim"):
        config.pop(key, None)
    file.write_text(json.dumps(config))
    (_, _, certificate), _ = certify_files(base, old, "model")
    assert certificate.weights_equal


def extra(tensors: dict[str, np.ndarray]) -> None:
    tensors[QUERY.replace("weight", "lora_A.weight")] = np.ones((2, 48), np.float32)


def ends_alike(tensors: dict[str, np.ndarray]) -> None:
    tensors["other." + QUERY] = tensors[QUERY].copy()


def renamed(tensors: dict[str, np.ndarray]) -> None:
    tensors["foo.bar.weight"] = tensors.pop(QUERY)


def two_rows_fewer(tensors: dict[str, np.ndarray]) -> None:
    tensors[QUERY] = tensors[QUERY][:-2].copy()


@pytest.mark.parametrize("fault", [extra, ends_alike, renamed, two_rows_fewer])
def test_tensors_that_are_not_the_bases(base: Path, tmp_path: Path, fault: Edit) -> None:
    other = edited(base, tmp_path / "other", fault)
    with pytest.raises(PairError, match="are missing, added or of another shape"):
        weigh(base, other, "model")
    with pytest.raises(ModelError, match=r"does not have: |lacks weights|could not be loaded"):
        open_pair(base, other, device="cpu")


def test_buffers_of_older_checkpoints_are_no_tensors(base: Path, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    old = edited(base, tmp_path / "old", lambda t: t.update({name: np.ones(6, np.float32)}))
    assert weigh(base, old, "model").delta_is_zero
    assert open_pair(base, old, device="cpu").certificate.weights_equal


def test_another_number_of_tokens_fits(base: Path, tmp_path: Path) -> None:
    def grow(tensors: dict[str, np.ndarray]) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = np.concatenate([tensors[name], tensors[name][:5]])

    larger = edited(base, tmp_path / "larger", grow, vocab_size=305)
    (_, _, certificate), geometry = certify_files(base, larger, "model")
    assert not certificate.weights_equal
    assert len(geometry.reshaped) == 2
    assert "the number of tokens differs" in certificate.checks[1].detail
    assert not open_pair(base, larger, device="cpu").certificate.weights_equal


def test_nan_in_a_tensor_that_the_adapter_leaves_alone(base: Path, tmp_path: Path) -> None:
    adapter = factory.lora_adapter(tmp_path / "adapter", base, targets=["q_proj"])
    certify_files(base, adapter, "adapter")
    name = "model.layers.1.input_layernorm.weight"
    bad = edited(base, tmp_path / "bad", lambda t: t[name].__setitem__(0, np.nan))
    with pytest.raises(ModelError, match=f"the tensor {name} holds NaN"):
        certify_files(bad, adapter, "adapter")


def test_what_factors_cannot_say_is_no_figure(base: Path, tmp_path: Path) -> None:
    dora = factory.lora_adapter(tmp_path / "dora", base, dora=True, trained=False)
    geometry = weigh(base, dora, "adapter")
    assert geometry.delta_is_zero
    assert geometry.total.frobenius == 0.0
    file = dora / "adapter_model.safetensors"
    tensors = load_file(file)  # every B stays zero: the magnitudes are all of the change
    save_file({k: v * (1.5 if "magnitude" in k else 1) for k, v in tensors.items()}, file)
    (_, _, certificate), geometry = certify_files(base, dora, "adapter")
    assert not certificate.weights_equal
    assert not geometry.delta_is_zero
    for part in (*geometry.modules, *geometry.layers, geometry.total):
        assert (part.frobenius, part.spectral, part.effective_rank) == (None, None, None)
        assert part.reason.startswith("The factors are not the whole change: the adapter has ")


def test_the_revision_of_a_hub_cache_is_recorded(base: Path, tmp_path: Path) -> None:
    def cached(name: str, folder: Path) -> Path:
        place = tmp_path / f"models--owner--{name}" / "snapshots" / f"{name}0123"
        return Path(shutil.copytree(folder, place))

    adapter = factory.lora_adapter(tmp_path / "adapter", base, targets=["q_proj"])
    here, there = cached("base", base), cached("lora", adapter)
    (one, other, _), _ = certify_files(here, there, "adapter")
    pair = open_pair(here, there, device="cpu")
    for side, revision in ((one, "base0123"), (other, "lora0123")):
        assert side.revision == revision
    assert (pair.base.revision, pair.tuned.revision) == ("base0123", "lora0123")
    assert open_pair(base, adapter, device="cpu").base.revision is None
