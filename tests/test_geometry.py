"""Are the figures of ΔW those of ΔW itself, formed in float64 and decomposed whole?"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from factory import full_finetune, lora_adapter, merged_model, tiny_model
from tunediff.errors import ModelError
from tunediff.pair.adapter import read_adapter
from tunediff.weights import geometry
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.difference import checkpoint_difference
from tunediff.weights.geometry import lora_geometry, singular_values
from tunediff.weights.spectrum import ZERO, Part, effective_rank, energy_rank


@dataclass(frozen=True)
class Factors:
    """A LoRA module without an adapter around it."""

    name: str
    a: np.ndarray
    b: np.ndarray
    scale: float = 1.0
    fan_in_fan_out: bool = False
    base_tensor: str | None = None


def oracle(*deltas: np.ndarray) -> dict[str, float]:
    """Return the figures of the block-diagonal matrix of ``deltas`` from its whole SVD, float64."""
    sigma = np.concatenate([np.linalg.svd(d.astype(np.float64), compute_uv=False) for d in deltas])
    sigma = np.sort(sigma)[::-1]
    share = sigma / sigma.sum()
    energy = np.cumsum(sigma**2) / (sigma**2).sum()
    return {
        "frobenius": float(np.sqrt((sigma**2).sum())),
        "spectral": float(sigma[0]),
        "effective_rank": float(np.exp(-sum(s * np.log(s) for s in share if s > 0))),
        "energy_rank": int((energy < 0.99 - 1e-12).sum()) + 1,
    }


def assert_part(part: Part, expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert getattr(part, name) == pytest.approx(value, rel=1e-6), name


def random_factors(
    rng: np.random.Generator, out: int, width: int, rank: int, name: str = "layers.0.x", **k: Any
) -> Factors:
    a = rng.normal(size=(rank, width)).astype(np.float32)
    b = rng.normal(size=(out, rank)).astype(np.float32)
    return Factors(name, a, b, **k)


def formed(m: Factors) -> np.ndarray:
    return m.scale * (m.b.astype(np.float64) @ m.a.astype(np.float64))


@settings(max_examples=80, deadline=None)
@given(
    out=st.integers(1, 40),
    width=st.integers(1, 40),
    rank=st.integers(1, 12),
    size=st.sampled_from([1e-15, 1e-9, 1.0, 1e12]),
    deficient=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_figures_equal_those_of_the_formed_delta(
    out: int, width: int, rank: int, size: float, deficient: bool, seed: int
) -> None:
    """All shapes: the rank above a side too, repeated and zero directions, very small and large."""
    rng = np.random.default_rng(seed)
    m = random_factors(rng, out, width, rank, scale=1.7)
    m = Factors(m.name, m.a * np.float32(size), m.b, m.scale)
    if deficient:
        m.a[-1] = m.a[0]
        m.b[:, rank // 2] = 0
    if not formed(m).any():
        return
    part = lora_geometry([m]).modules[0]
    assert_part(part, oracle(formed(m)))
    assert part.shape == (out, width)
    assert part.rank == rank


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-5, 1e-6, 1e-8])
def test_small_singular_values_are_exact_too(spread: float) -> None:
    """Factors ever closer to dependent: both ways of the QR are taken, and agree with the SVD."""
    rng = np.random.default_rng(3)
    b = rng.normal(size=(60, 4))
    b[:, 3] = b[:, 0] + spread * b[:, 3]
    a = rng.normal(size=(4, 50))
    found = singular_values(a, b, 1.0)
    expected = np.linalg.svd(b @ a, compute_uv=False)[:4]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_both_ways_of_the_triangle_are_a_qr() -> None:
    rng = np.random.default_rng(4)
    for columns in (rng.normal(size=(50, 5)), np.ones((50, 5)), rng.normal(size=(3, 5))):
        r = geometry._triangle(columns)
        np.testing.assert_allclose(r.T @ r, columns.T @ columns, atol=1e-12)


def test_layers_and_totals_pool_their_modules(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    ms = [
        random_factors(rng, 7, 9, 2, "model.layers.1.q"),
        random_factors(rng, 8, 5, 3, "model.layers.0.q", scale=0.5),
        random_factors(rng, 6, 6, 2, "model.layers.10.q", scale=3.0),
        random_factors(rng, 9, 4, 2, "model.layers.1.v"),
        random_factors(rng, 9, 4, 2, "lm_head"),
    ]
    g = lora_geometry(ms)
    assert [layer.layer for layer in g.layers] == [0, 1, 10]
    assert_part(g.layers[1], oracle(formed(ms[0]), formed(ms[3])))
    assert_part(g.total, oracle(*map(formed, ms)))
    total = sum(part.frobenius**2 for part in g.modules if part.frobenius) ** 0.5
    assert g.total.frobenius == pytest.approx(total)
    assert g.total.spectral == max(part.spectral or 0 for part in g.modules)
    assert g.total.relative is None  # no base was given
    json.dumps(g.as_dict(), allow_nan=False)
    assert not g.delta_is_zero


def test_relative_to_the_base(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    weights = {f"layers.{i}.w.weight": rng.normal(size=(6, 5)).astype(np.float16) for i in (0, 1)}
    (tmp_path / "config.json").write_text("{}")
    save_file(weights, tmp_path / "model.safetensors")
    ms = [
        random_factors(rng, 5, 6, 2, f"layers.{i}.w", fan_in_fan_out=True,
                       base_tensor=f"layers.{i}.w.weight")
        for i in (0, 1)
    ]  # fmt: skip
    g = lora_geometry(ms, Checkpoint.open(tmp_path))
    sizes = [np.linalg.norm(w.astype(np.float64)) for w in weights.values()]
    for part, m, size in zip(g.modules, ms, sizes, strict=True):
        assert part.relative == pytest.approx(np.linalg.norm(formed(m)) / size)
        assert part.shape == (6, 5)
    assert g.total.relative == pytest.approx(
        np.linalg.norm([np.linalg.norm(formed(m)) for m in ms]) / np.linalg.norm(sizes)
    )


@pytest.mark.parametrize("zero", ["a", "b", "scale", "apart"])
def test_a_delta_of_zero_has_norms_and_no_ranks(zero: str) -> None:
    m = random_factors(np.random.default_rng(7), 5, 6, 2, scale=0.0 if zero == "scale" else 2.0)
    if zero == "apart":  # each outer product is zero, and neither factor is
        m.a[0], m.b[:, 1] = 0, 0
    elif zero != "scale":
        getattr(m, zero)[:] = 0
    g = lora_geometry([m])
    part = g.modules[0]
    assert g.delta_is_zero
    assert (part.frobenius, part.spectral) == (0.0, 0.0)
    assert (part.effective_rank, part.energy_rank, part.reason) == (None, None, ZERO)


def test_one_tiny_entry_is_not_zero() -> None:
    a, b = np.zeros((2, 5), np.float32), np.zeros((4, 2), np.float32)
    a[1, 3], b[2, 1] = 1e-30, 1e-30
    g = lora_geometry([Factors("x", a, b)])
    assert not g.delta_is_zero
    assert g.total.frobenius == pytest.approx(1e-60)
    assert g.total.effective_rank == pytest.approx(1.0)


def test_ranks_of_known_spectra() -> None:
    assert effective_rank(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_rank(np.array([5.0])) == pytest.approx(1)
    assert energy_rank(np.full(200, 2.0)) == 198
    assert energy_rank(np.array([3.0, 1e-9])) == 1
    assert energy_rank(np.array([99.0**0.5, 1.0])) == 1  # exactly 99 %
    assert energy_rank(np.array([98.0**0.5, 1.0, 1.0])) == 2


def test_a_7b_shaped_adapter_takes_under_a_second_of_processor_time() -> None:
    rng = np.random.default_rng(8)
    a = rng.standard_normal((16, 4096), dtype=np.float32)
    b = rng.standard_normal((4096, 16), dtype=np.float32)
    ms = [Factors(f"layers.{i // 4}.m{i % 4}", a, b) for i in range(128)]
    lora_geometry(ms[:2])
    start = time.process_time()
    lora_geometry(ms)
    assert time.process_time() - start < 2.0  # 0.4 s measured; twice a second spares slow machines


# Full fine-tunes: two folders, tensor by tensor.


def folder(path: Path, weights: dict[str, np.ndarray]) -> Checkpoint:
    path.mkdir()
    (path / "config.json").write_text("{}")
    save_file(weights, path / "model.safetensors")
    return Checkpoint.open(path)


def sound(rng: np.random.Generator) -> dict[str, np.ndarray]:
    shapes = {
        "model.embed_tokens.weight": (11, 6),
        "model.layers.0.w.weight": (7, 6),
        "model.layers.0.norm.weight": (6,),
        "model.layers.1.w.weight": (7, 6),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_tensors_are_compared_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunediff.weights.difference.BLOCK_ELEMENTS", 5)
    base = sound(np.random.default_rng(9))
    tuned = sound(np.random.default_rng(10))
    tuned["model.layers.1.w.weight"] = base["model.layers.1.w.weight"]
    g = checkpoint_difference(folder(tmp_path / "b", base), folder(tmp_path / "t", tuned))
    assert not g.delta_is_zero
    for part in g.modules:
        delta = tuned[part.name].astype(np.float64) - base[part.name]
        if part.name == "model.layers.1.w.weight":
            assert (part.frobenius, part.relative, part.reason) == (0.0, 0.0, ZERO)
            continue
        assert_part(part, oracle(delta.reshape(len(delta), -1)))
        size = np.linalg.norm(base[part.name].astype(np.float64))
        assert part.relative == pytest.approx(np.linalg.norm(delta) / size)
    assert [layer.layer for layer in g.layers] == [0, 1]
    assert g.total.spectral == max(part.spectral or 0.0 for part in g.modules)


def test_equal_checkpoints_have_no_difference(tmp_path: Path) -> None:
    base = sound(np.random.default_rng(11))
    first = folder(tmp_path / "b", base)
    g = checkpoint_difference(first, first)
    assert g.delta_is_zero
    assert g.total.frobenius == 0.0
    wide = {name: value.astype(np.float64) for name, value in base.items()}
    assert checkpoint_difference(first, folder(tmp_path / "wide", wide)).delta_is_zero
    turned = {name: value.copy() for name, value in base.items()}
    turned["model.layers.0.norm.weight"][3] = np.nextafter(
        turned["model.layers.0.norm.weight"][3], np.float32(9)
    )
    g = checkpoint_difference(first, folder(tmp_path / "one_bit", turned))
    assert not g.delta_is_zero
    assert [part.name for part in g.modules if part.frobenius] == ["model.layers.0.norm.weight"]


def test_added_missing_and_reshaped_tensors_are_reported(tmp_path: Path) -> None:
    base = sound(np.random.default_rng(12))
    tuned = dict(base)
    tuned["model.extra.weight"] = np.ones((2, 2), np.float32)
    del tuned["model.layers.1.w.weight"]
    tuned["model.embed_tokens.weight"] = np.ones((13, 6), np.float32)
    g = checkpoint_difference(folder(tmp_path / "b", base), folder(tmp_path / "t", tuned))
    assert g.added == ("model.extra.weight",)
    assert g.missing == ("model.layers.1.w.weight",)
    assert g.reshaped == ("model.embed_tokens.weight",)
    assert not g.delta_is_zero
    part = next(p for p in g.modules if p.name in g.reshaped)
    assert part.frobenius is None
    assert part.reason == "The shapes differ: (11, 6) in base, (13, 6) in tuned."
    assert g.total.frobenius is None
    assert g.total.reason == part.reason
    fewer = {k: v for k, v in base.items() if "norm" not in k}
    small, large = folder(tmp_path / "fewer", fewer), folder(tmp_path / "more", base)
    assert not checkpoint_difference(small, large).delta_is_zero
    assert not checkpoint_difference(large, small).delta_is_zero


def test_large_matrices_have_frobenius_norms_and_a_reason(tmp_path: Path) -> None:
    base, tuned = sound(np.random.default_rng(13)), sound(np.random.default_rng(14))
    base["stack"], tuned["stack"] = np.ones((2, 3, 4), np.float32), np.zeros((2, 3, 4), np.float32)
    g = checkpoint_difference(
        folder(tmp_path / "b", base), folder(tmp_path / "t", tuned), spectrum_side=5
    )
    by_name = {part.name: part for part in g.modules}
    part = by_name["model.layers.0.w.weight"]
    assert part.frobenius == pytest.approx(np.linalg.norm(tuned[part.name] - base[part.name]))
    assert (part.spectral, part.effective_rank, part.energy_rank) == (None, None, None)
    assert part.reason == "Too large for its singular values: (7, 6), and 5 is the limit."
    assert by_name["stack"].frobenius == pytest.approx(24**0.5)
    assert by_name["stack"].reason == "No matrix: it has 3 dimensions."
    assert g.total.spectral is None
    assert g.total.reason


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_a_weight_that_is_not_finite_is_an_error(tmp_path: Path, side: str) -> None:
    sides = {"base": sound(np.random.default_rng(1)), "tuned": sound(np.random.default_rng(2))}
    sides[side]["model.layers.0.w.weight"][2, 2] = np.nan
    first, second = (folder(tmp_path / name, weights) for name, weights in sides.items())
    with pytest.raises(ModelError, match=rf"{side}: the tensor model.layers.0.w.weight holds NaN"):
        checkpoint_difference(first, second)


def test_prefixes_buffers_and_tied_heads_are_no_difference(tmp_path: Path) -> None:
    rng = np.random.default_rng(15)
    base = {
        "wte.weight": rng.normal(size=(9, 4)).astype(np.float32),
        "h.0.attn.c_attn.weight": rng.normal(size=(4, 12)).astype(np.float32),
        "h.0.attn.c_attn.bias": np.ones(12, np.float32),
        "h.0.attn.bias": np.ones((1, 1, 8, 8), np.float32),
    }
    tuned = {f"transformer.{name}": value for name, value in base.items()}
    del tuned["transformer.h.0.attn.bias"]
    tuned["lm_head.weight"] = base["wte.weight"].copy()
    first, second = folder(tmp_path / "b", base), folder(tmp_path / "t", tuned)
    assert checkpoint_difference(first, second).delta_is_zero
    assert checkpoint_difference(second, first).delta_is_zero
    tuned["lm_head.weight"] += 1
    untied = checkpoint_difference(first, folder(tmp_path / "untied", tuned))
    assert [part.name for part in untied.modules if part.frobenius] == ["lm_head.weight"]
    turned = checkpoint_difference(folder(tmp_path / "again", tuned), first)
    assert [part.name for part in turned.modules if part.frobenius] == ["lm_head.weight"]


def test_a_merged_adapter_has_the_adapters_geometry(tmp_path: Path) -> None:
    """Two ways to the same ΔW: the factors, and the merged checkpoint minus its base."""
    base = tiny_model(tmp_path / "base", "llama", layers=2)
    adapter = lora_adapter(tmp_path / "lora", base, rank=3, scale=0.5, targets=["q_proj"])
    merged = merged_model(tmp_path / "merged", base, adapter)
    full = full_finetune(tmp_path / "full", base, which="some tensors")
    checkpoint = Checkpoint.open(base)
    factors = lora_geometry(read_adapter(adapter, checkpoint).modules, checkpoint)
    whole = checkpoint_difference(checkpoint, Checkpoint.open(merged))
    by_name = {part.name: part for part in whole.modules}
    for part in factors.modules:
        other = by_name[f"{part.name}.weight"]
        assert part.frobenius == pytest.approx(other.frobenius, rel=1e-5)
        assert part.spectral == pytest.approx(other.spectral, rel=1e-5)
        assert part.relative == pytest.approx(other.relative, rel=1e-5)
    changed = {part.name for part in whole.modules if part.frobenius}
    assert changed == {f"{part.name}.weight" for part in factors.modules}
    part = checkpoint_difference(checkpoint, Checkpoint.open(full))
    assert {p.layer for p in part.modules if p.frobenius} == {1}


@pytest.mark.shared
def test_real_weights(shared: Path) -> None:
    base = Checkpoint.open(shared / "models" / "stories260K")
    folder = shared / "models" / "stories260K-gsm8k-lora"
    adapter = read_adapter(folder, base)
    g = lora_geometry(adapter.modules, base)
    raw = load_file(folder / "adapter_model.safetensors")
    weights = load_file(shared / "models" / "stories260K" / "model.safetensors")
    deltas = []
    for part in g.modules:
        a, b = (
            raw[f"base_model.model.{part.name}.lora_{x}.weight"].astype(np.float64) for x in "AB"
        )
        deltas.append(2.0 * b @ a)  # alpha 16, rank 8
        assert_part(part, oracle(deltas[-1]))
        size = np.linalg.norm(weights[f"{part.name}.weight"].astype(np.float64))
        assert part.relative == pytest.approx(np.linalg.norm(deltas[-1]) / size, rel=1e-6)
    assert_part(g.total, oracle(*deltas))
    assert len(g.layers) == 5
    assert checkpoint_difference(base, base).delta_is_zero
    other = Checkpoint.open(shared / "models" / "aidreams260K")
    assert len(checkpoint_difference(base, other).reshaped) == 8
