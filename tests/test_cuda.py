"""Does a GPU give the numbers of the float64 oracle and of the CPU, and the same replies?

These tests need a CUDA device and are skipped without one; `python -m pytest tests/test_cuda.py`
runs them on a machine that has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factory
import oracle
import test_kernels
from tunediff.findings.scorecard import scorecard
from tunediff.findings.summary import summarize
from tunediff.items.named import read_suites
from tunediff.items.read import read
from tunediff.pair.open import open_pair
from tunediff.run.comparing import compare
from tunediff.run.measuring import measure
from tunediff.specimens import load
from tunediff.values import TOKEN_METRICS, Encoded, Generation, Item

ARCHITECTURES = ("llama", "qwen2", "mistral", "gemma", "gpt2", "gpt_neox")
KINDS = ("lora", "switched", "full")


def tuned(kind: str, base: Path, folder: Path) -> Path:
    if kind == "full":
        return factory.full_finetune(folder, base)
    return factory.lora_adapter(folder, base, scale=0.1, dora=kind == "switched")


def texts_of(pair: Any, count: int = 12) -> list[Encoded]:
    items = [Item(str(i), text=text) for i, text in enumerate(factory.texts(count, words=(2, 60)))]
    return pair.encode(items, None, False)


def pooled(scores: list[Any], name: str) -> float:
    return float(np.concatenate([getattr(s, name) for s in scores]).mean())


def by_the_device(z_b: np.ndarray, z_t: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    from tunediff.scoring import head

    device = torch.device("cuda")
    assert head.metrics_kernel(device, z_b.shape[1]) == "fused", "Triton is not installed"
    one, other = (torch.from_numpy(z).to(device) for z in (z_b, z_t))
    table = head.row_metrics(device, z_b.shape[1])(one, other, torch.from_numpy(targets))
    return dict(zip(TOKEN_METRICS, table.T, strict=True))


@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("vocabulary", [1, 3, 300, 5000, 50257])
@pytest.mark.parametrize("wanted", [1e-8, 1e-6, 1e-2, 0.3, 30.0])
def test_the_fused_kernel_is_the_textbook(
    cuda: str, wanted: float, vocabulary: int, spread: float
) -> None:
    pair = test_kernels.at_divergence(wanted, max(vocabulary, 3), spread)
    pair = (pair[0][:, :vocabulary].copy(), pair[1][:, :vocabulary].copy(), pair[2] % vocabulary)
    bound = 1e-3 if wanted >= 1e-6 else 1e-2
    test_kernels.agree(by_the_device(*pair), oracle.token_metrics(*pair), bound)


def test_the_fused_kernel_far_from_zero(cuda: str) -> None:
    z_b, z_t, targets = test_kernels.at_divergence(1e-8, 5000, 3.0)
    pair = (z_b + np.float32(1000), z_t + np.float32(1000), targets)
    found, true = by_the_device(*pair), oracle.token_metrics(*pair)
    for name in test_kernels.DIVERGENCES:
        np.testing.assert_allclose(found[name], true[name], rtol=1e-2, err_msg=name)


def test_the_fused_kernel_takes_the_first_of_equals(cuda: str) -> None:
    z_b = np.zeros((1, 9000), np.float32)
    z_t = z_b.copy()
    z_b[0, [5000, 8999]] = z_t[0, [5000, 10]] = 2
    found = by_the_device(z_b, z_t, np.array([5000]))
    assert found["top1_agreement"].tolist() == [0.0]
    assert found["nll_base"] == pytest.approx(
        oracle.token_metrics(z_b, z_t, np.array([5000]))["nll_base"], rel=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_those_of_the_cpu(
    cuda: str, tmp_path: Path, architecture: str, kind: str
) -> None:
    base = factory.tiny_model(tmp_path / "base", architecture)
    other = tuned(kind, base, tmp_path / "tuned")
    here, there = (open_pair(base, other, device=device) for device in ("cpu", cuda))
    assert there.settings["device"].startswith("cuda")
    items = texts_of(here)
    for a, b in zip(here.score(items), there.score(items), strict=True):
        assert b.reason is None
        for name in ("nll_base", "nll_tuned", "logit_mse", "logit_l2"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=2e-4, atol=2e-6)
    for name in ("kl_base_tuned", "kl_tuned_base", "js", "logit_mse_centred", "delta_p"):
        one, two = (pooled(list(p.score(items)), name) for p in (here, there))
        assert two == pytest.approx(one, rel=1e-3, abs=1e-8), name


def test_scores_are_those_of_the_oracle(cuda: str, tmp_path: Path) -> None:
    base = factory.tiny_model(tmp_path / "base", "llama")
    adapter = factory.lora_adapter(tmp_path / "adapter", base, scale=0.3)
    pair = open_pair(base, adapter, device=cuda)
    items = texts_of(pair)
    found = list(pair.score(items))
    true = oracle.pair_metrics(base, adapter, [item.ids.tolist() for item in items])
    for name in TOKEN_METRICS:
        assert pooled(found, name) == pytest.approx(true[name], rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_nothing_under_the_floor_is_a_change(cuda: str, tmp_path: Path, dtype: str) -> None:
    base = factory.tiny_model(tmp_path / "base", "llama")
    small = factory.lora_adapter(tmp_path / "small", base, scale=1e-9)
    large = factory.lora_adapter(tmp_path / "large", base, scale=0.5)
    for adapter, changed in ((small, False), (large, True)):
        pair = open_pair(base, adapter, device=cuda, dtype=dtype)
        items = texts_of(pair)
        floor = pair.noise_floor(items)
        assert all(value > 0 for value in floor.values())
        kl = pooled(list(pair.score(items)), "kl_base_tuned")
        assert (kl > floor["kl_base_tuned"]) is changed, (kl, floor["kl_base_tuned"])


def test_packs_and_company_change_nothing(cuda: str, tmp_path: Path) -> None:
    base = factory.tiny_model(tmp_path / "base", "llama")
    pair: Any = open_pair(base, factory.lora_adapter(tmp_path / "a", base), device=cuda)
    items = texts_of(pair, 40)
    together = list(pair.score(items))
    pair.engine.budget, pair.engine.chunk = 1, 7
    for a, b in zip(together, pair.score(items), strict=True):
        np.testing.assert_allclose(a.nll_tuned, b.nll_tuned, rtol=1e-5, atol=1e-6)


def test_memory_that_runs_out_halves_the_packs(cuda: str, tmp_path: Path) -> None:
    import torch

    base = factory.tiny_model(tmp_path / "base", "llama")
    pair: Any = open_pair(base, factory.lora_adapter(tmp_path / "a", base), device=cuda)
    items = texts_of(pair, 200)
    whole = list(pair.score(items))
    real, calls = pair.engine.streams.pair, []

    def short(pack: Any) -> Any:
        calls.append(len(pack.ids))
        if len(calls) == 1:  # a real refusal of the device's allocator
            torch.empty(1 << 50, device=cuda, dtype=torch.uint8)
        return real(pack)

    pair.engine.streams.pair = short
    again = list(pair.score(items))
    assert pair.engine.halvings == 1
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_allclose(a.nll_tuned, b.nll_tuned, rtol=1e-5, atol=1e-6)


def test_replies_are_those_of_the_cpu(cuda: str) -> None:
    """Trained weights are sure of their answers, so that no reply hangs on a rounding."""
    suites = read_suites([f"general={load.suite('general')}"], limit=60)
    said = []
    for device in ("cpu", cuda):
        pair = open_pair(str(load.base()), str(load.HERE / "forgetful"), device=device)
        prompts = pair.prompts(suites[0].items, None)
        said.append(list(pair.generate(prompts, Generation(max_new_tokens=24))))
    equal = sum(one == other for one, other in zip(*said, strict=True))
    assert equal >= 58, f"{equal} of 60 pairs of replies are the same on both devices"


def test_check_and_compare_say_the_truth(cuda: str, tmp_path: Path) -> None:
    pair = open_pair(str(load.base()), str(load.HERE / "forgetful"), device=cuda)
    run = measure(pair, read(load.suite("target")), out=tmp_path / "check")
    assert summarize(run)["verdict"] == "tuned"
    suites = read_suites(
        [f"{name}={load.suite(name)}" for name in load.SUITES], axes=["target=target"]
    )
    card = scorecard(
        [compare(pair, suites, out=tmp_path / "run", generation=Generation(max_new_tokens=16))]
    )
    axes = card["variants"][0]["axes"]
    assert (axes["target"]["verdict"], axes["general"]["verdict"]) == ("better", "degraded")
    again = compare(pair, suites, out=tmp_path / "two", generation=Generation(max_new_tokens=16))
    one = (tmp_path / "run" / "rows" / "part-00000.parquet").read_bytes()
    assert (again.folder / "rows" / "part-00000.parquet").read_bytes() == one
