"""Is a model folder read exactly, and is nothing read that should not be?"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tunediff.errors import ModelError, PairError, TunediffError, UnsupportedError
from tunediff.pair.folders import classify, parse_model_argument
from tunediff.weights import files, tensors
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.names import NameMatcher, layer_number

CONFIG = {"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "tie_word_embeddings": False}
WEIGHTS = {
    "model.embed_tokens.weight": np.arange(32, dtype=np.float32).reshape(8, 4),
    "model.layers.0.mlp.up_proj.weight": np.ones((6, 4), np.float16),
}


def model(folder: Path, weights: Any = None, **changes: Any) -> Path:
    """Save a model folder; ``changes`` go into its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    save_file(WEIGHTS if weights is None else weights, folder / "model.safetensors")
    return folder


def raw_safetensors(path: Path, header: Any, data: bytes = b"") -> None:
    """Write a safetensors file with any header, faulty ones too."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_names_shapes_and_values(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(model(tmp_path))
    assert checkpoint.names == tuple(sorted(WEIGHTS))
    assert checkpoint.shape("model.embed_tokens.weight") == (8, 4)
    assert checkpoint.dtype("model.layers.0.mlp.up_proj.weight") == "F16"
    for name, value in WEIGHTS.items():
        read = checkpoint.read(name)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, value)
        assert checkpoint.frobenius(name) == pytest.approx(np.linalg.norm(value.astype(float)))
    with pytest.raises(ModelError, match="has no tensor nothing"):
        checkpoint.read("nothing")


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float16"])
def test_every_value_of_a_small_float_is_read_exactly(tmp_path: Path, kind: str) -> None:
    """Torch is the oracle: all bit patterns, NaN and infinity among them."""
    import torch
    from safetensors.torch import save_file as save_torch

    dtype = getattr(torch, kind)
    codes = torch.arange(2**16 if dtype.itemsize == 2 else 2**8, dtype=torch.int32)
    bits = codes.to(torch.uint16 if dtype.itemsize == 2 else torch.uint8).view(dtype)
    model(tmp_path)
    save_torch({"w": bits}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(Checkpoint.open(tmp_path).read("w"), bits.float().numpy())


@pytest.mark.parametrize("kind", ["float64", "int8", "uint8", "int64", "bool"])
def test_other_types_are_read(tmp_path: Path, kind: str) -> None:
    value = np.array([[0, 1, 1], [1, 0, 1]]).astype(kind)
    read = Checkpoint.open(model(tmp_path, {"w": value})).read("w")
    np.testing.assert_array_equal(read, value.astype(np.float32))


def test_a_tensor_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "BLOCK_ELEMENTS", 5)
    checkpoint = Checkpoint.open(model(tmp_path))
    name = "model.embed_tokens.weight"
    assert checkpoint.frobenius(name) == pytest.approx(np.linalg.norm(WEIGHTS[name]))
    assert [b.size for b in checkpoint.tensors[name].blocks()] == [5] * 6 + [2]


def shard(folder: Path, where: dict[str, str] | None = None) -> Path:
    model(folder)
    (folder / "model.safetensors").unlink()
    for number, (name, value) in enumerate(WEIGHTS.items()):
        save_file({name: value}, folder / f"model-{number}.safetensors")
    where = where or {name: f"model-{n}.safetensors" for n, name in enumerate(WEIGHTS)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(shard(tmp_path))
    for name, value in WEIGHTS.items():
        np.testing.assert_array_equal(checkpoint.read(name), value)
    assert set(checkpoint.file_hashes) == {
        "config.json", "model-0.safetensors", "model-1.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"x": "../outside.safetensors"}, "lies outside the folder"),
        ({"x": "/etc/passwd"}, "not a name inside the folder"),
        ({"x": "gone.safetensors"}, "is missing"),
        ({"x": "model-0.safetensors"}, "1 tensors are not in the shard that the index names: x"),
        ({"x": "config.json"}, r"only \.safetensors files are read"),
        ({"x": 3}, "weight_map must map"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, where: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Checkpoint.open(shard(tmp_path, where))


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    shard(tmp_path)
    save_file(WEIGHTS, tmp_path / "model-1.safetensors")
    with pytest.raises(ModelError, match=r"more than one shard holds model\.embed_tokens\.weight"):
        Checkpoint.open(tmp_path)


def test_the_fingerprint_sees_weights_and_settings_alone(tmp_path: Path) -> None:
    first = Checkpoint.open(model(tmp_path / "a")).fingerprint()
    again = Checkpoint.open(model(tmp_path / "b", transformers_version="9", _name_or_path="x"))
    assert again.fingerprint() == first
    assert Checkpoint.open(model(tmp_path / "c", rope_theta=5.0)).fingerprint() != first
    moved = WEIGHTS | {"model.embed_tokens.weight": WEIGHTS["model.embed_tokens.weight"] + 1}
    assert Checkpoint.open(model(tmp_path / "d", moved)).fingerprint() != first


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_named(tmp_path: Path, bad: float) -> None:
    Checkpoint.open(model(tmp_path)).finite_check()
    broken = {"fine": np.ones(3, np.float32), "model.norm.weight": np.array([1, bad], np.float16)}
    checkpoint = Checkpoint.open(model(tmp_path, broken))
    with pytest.raises(ModelError, match=r"tensor model\.norm\.weight holds NaN or infinity"):
        checkpoint.finite_check()
    with pytest.raises(ModelError, match=r"tensor model\.norm\.weight holds NaN or infinity"):
        checkpoint.frobenius("model.norm.weight")


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"w": entry("F32", [2], 0, 8)}, b"1234", "its header speaks of"),
        ({"w": entry("F32", [2], 0, 8)}, b"0" * 12, "its header speaks of"),
        ({"w": entry("F32", [3], 0, 8)}, b"0" * 8, "needs 12 bytes"),
        ({"w": entry("F32", [2], 8, 0)}, b"0" * 8, "needs 8 bytes"),
        ({"w": entry("F32", [2], 4, 12)}, b"0" * 12, "leaves a gap"),
        (
            {"v": entry("F32", [2], 0, 8), "w": entry("F32", [2], 4, 12)},
            b"0" * 12,
            "overlaps another",
        ),
        ({"w": entry("F32", [-1], 0, 4)}, b"0" * 4, "has the shape"),
        ({"w": entry("F32", [True], 0, 4)}, b"0" * 4, "has the shape"),
        ({"w": entry("F32", [2**62, 2**62], 0, 8)}, b"0" * 8, "needs"),
        ({"w": entry("F3", [1], 0, 4)}, b"0" * 4, "type 'F3'"),
        ({"w": {"dtype": ["F32"]}}, b"", r"type \['F32'\]"),
        ({"w": 7}, b"", "is not an object"),
        ([1], b"", "JSON list; an object was needed"),
        (b'{"w": {}, "w": {}}', b"", "'w' occurs twice"),
        (b'{"w": NaN}', b"", "NaN is not JSON"),
        (b"\xff\xfe", b"", "not valid JSON"),
        (b"[" * 100_000, b"", "not valid JSON"),
    ],
)
def test_a_faulty_header_is_refused(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    model(tmp_path)
    raw_safetensors(tmp_path / "model.safetensors", header, data)
    with pytest.raises(ModelError, match=message):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"1234", b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 64]
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"not a safetensors file.*fetch it again"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("module", "cap", "message"),
    [
        (tensors, "HEADER_BYTES_CAP", "The header of .* bytes; at most 10"),
        (tensors, "TENSOR_COUNT_CAP", "holds 2 tensors; at most 1"),
        (files, "JSON_BYTES_CAP", "config.json has .* bytes; at most 10"),
    ],
)
def test_caps_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, cap: str, message: str
) -> None:
    monkeypatch.setattr(module, cap, 1 if "COUNT" in cap else 10)
    with pytest.raises(ModelError, match=message):
        Checkpoint.open(model(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", "8"), ("vocab_size", True), ("hidden_size", -4), ("num_hidden_layers", 1.5),
        ("tie_word_embeddings", "yes"), ("model_type", 3), ("architectures", "Llama"),
        ("quantization_config", "gptq"),
    ],
)  # fmt: skip
def test_a_setting_of_the_wrong_type_is_named(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=f"config.json: {key} is .* was needed"):
        Checkpoint.open(model(tmp_path, **{key: value}))


@pytest.mark.parametrize("text", ["[]", "{", "", '{"a": Infinity}', '{"a": 1, "a": 2}'])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    model(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json (is not valid JSON|holds a JSON)"):
        Checkpoint.open(tmp_path)


def test_what_is_not_a_model_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no such path.*--download"):
        Checkpoint.open(tmp_path / "nothing")
    with pytest.raises(ModelError, match="is a file; a folder was needed"):
        Checkpoint.open(model(tmp_path / "m") / "config.json")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"it has no model\.safetensors"):
        Checkpoint.open(tmp_path / "m")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"only as pytorch_model\.bin.*never loaded.*convert it"):
        Checkpoint.open(tmp_path / "m")
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"not a model folder: it has no config\.json"):
        Checkpoint.open(tmp_path / "m")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    outside = model(tmp_path / "outside")
    (outside / "tokenizer.json").write_text("{}")
    folder = model(tmp_path / "inside")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside / name)
    with pytest.raises(ModelError, match=f"{name} is a link that leaves its folder"):
        Checkpoint.open(folder)


def test_links_within_the_folder_and_into_own_blobs_are_followed(tmp_path: Path) -> None:
    folder = model(tmp_path / "plain")
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    assert Checkpoint.open(folder).names
    hub = tmp_path / "hub"
    snapshot = model(hub / "models--owner--name" / "snapshots" / "abc")
    blobs = hub / "models--owner--name" / "blobs"
    blobs.mkdir()
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).rename(blobs / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert Checkpoint.open(snapshot).names
    other = hub / "models--owner--other" / "blobs"
    other.mkdir(parents=True)
    (blobs / "config.json").rename(other / "config.json")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../../models--owner--other/blobs/config.json")
    with pytest.raises(ModelError, match="leaves its folder"):
        Checkpoint.open(snapshot)


def test_odd_entries_do_not_hang(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(ModelError, match="not a regular file"):
        Checkpoint.open(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(ModelError, match="link to nothing"):
        Checkpoint.open(folder)


def test_names_match_by_suffix_only_where_one_does() -> None:
    matcher = NameMatcher(["h.0.attn.c_attn", "h.1.attn.c_attn", "a.b.x", "c.b.x", "lm_head"])
    assert matcher.find("h.0.attn.c_attn") == "h.0.attn.c_attn"
    assert matcher.find("transformer.h.1.attn.c_attn") == "h.1.attn.c_attn"
    assert matcher.find("b.x") is None  # two
    assert matcher.find("c_attn") is None
    assert matcher.find("0.attn.c_attn") == "h.0.attn.c_attn"
    assert matcher.find("model.other") is None


def test_layer_numbers() -> None:
    assert layer_number("model.layers.12.mlp.experts.3.w1.weight") == 12
    assert layer_number("h.0.attn.c_attn") == 0
    assert layer_number("model.norm.weight") is None
    assert layer_number("model.layer2.weight") is None


def test_folders_are_classified(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    assert classify(folder) == "model"
    with pytest.raises(ModelError, match="holds no adapter"):
        classify(folder, "adapter")
    adapter = tmp_path / "a"
    adapter.mkdir()
    with pytest.raises(ModelError, match="neither a model folder nor an adapter folder"):
        classify(adapter)
    (adapter / "adapters.safetensors").touch()
    with pytest.raises(UnsupportedError, match="MLX"):
        classify(adapter)
    (adapter / "adapter_config.json").write_text("{}")
    assert classify(adapter) == "adapter"
    with pytest.raises(ModelError, match="There is no such path"):
        classify(tmp_path / "nothing")


def test_a_folder_with_both_asks_which(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(PairError) as caught:
        classify(folder)
    assert f"adapter:{folder}" in caught.value.hint
    assert f"full:{folder}" in caught.value.hint
    assert classify(folder, "adapter") == "adapter"
    assert classify(folder, "model") == "model"


def test_prefixes_are_parsed() -> None:
    assert parse_model_argument("adapter:out/a") == ("adapter", "out/a")
    assert parse_model_argument("full:out/a") == ("model", "out/a")
    assert parse_model_argument("owner/name") == (None, "owner/name")


def test_every_error_here_has_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TunediffError) as caught:
        Checkpoint.open(tmp_path)
    assert caught.value.message.endswith(".")
    assert caught.value.hint.endswith(".")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["stories260K", "aidreams260K"])
def test_real_checkpoints(shared: Path, name: str) -> None:
    from safetensors.numpy import load_file

    checkpoint = Checkpoint.open(shared / "models" / name)
    checkpoint.finite_check()
    assert checkpoint.head is None
    assert checkpoint.input_embedding == "model.embed_tokens.weight"
    for tensor, value in load_file(shared / "models" / name / "model.safetensors").items():
        np.testing.assert_array_equal(checkpoint.read(tensor), value)
