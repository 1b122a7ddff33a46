"""Is the oracle itself right? Held against mpmath, and against transformers and peft in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2

from factory import edit_json, lora_adapter, merged_model, tiny_model
from oracle import llama_logits, pair_metrics, token_metrics
from tunediff.values import TOKEN_METRICS

IDS = [0, *np.random.default_rng(3).integers(2, 270, 40).tolist()]


def by_mpmath(z_b: np.ndarray, z_t: np.ndarray, y: int) -> dict[str, float]:
    """The definitions at one position in 60 digits."""
    with mpmath.workdps(60):
        b, t = ([mpmath.mpf(float(v)) for v in z] for z in (z_b, z_t))

        def probabilities(z):
            total = mpmath.fsum(mpmath.exp(v) for v in z)
            return [mpmath.exp(v) / total for v in z]

        def kl(one, two):
            return mpmath.fsum(u * mpmath.log(u / v) for u, v in zip(one, two, strict=True))

        p, q = probabilities(b), probabilities(t)
        m = [(u + v) / 2 for u, v in zip(p, q, strict=True)]
        d = [v - u for u, v in zip(b, t, strict=True)]
        mean = mpmath.fsum(d) / len(d)
        return {
            "nll_base": float(-mpmath.log(p[y])),
            "nll_tuned": float(-mpmath.log(q[y])),
            "kl_base_tuned": float(kl(p, q)),
            "kl_tuned_base": float(kl(q, p)),
            "js": float((kl(p, m) + kl(q, m)) / 2),
            "logit_mse": float(mpmath.fsum(x * x for x in d) / len(d)),
            "logit_mse_centred": float(mpmath.fsum((x - mean) ** 2 for x in d) / len(d)),
            "logit_l2": float(mpmath.sqrt(mpmath.fsum(x * x for x in d))),
            "top1_agreement": float(b.index(max(b)) == t.index(max(t))),
            "delta_p": float(q[y] - p[y]),
        }


@pytest.mark.parametrize("size", [3.0, 1e-1, 1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("vocabulary", [1, 2, 7, 97])
def test_token_metrics_equal_mpmath_down_to_a_kl_of_1e_12(size, vocabulary):
    rng = np.random.default_rng(0)
    z_b = rng.normal(0, 4, (3, vocabulary))
    z_t = z_b + size * rng.normal(0, 1, (3, vocabulary))
    y = rng.integers(0, vocabulary, 3)
    found = token_metrics(z_b, z_t, y)
    assert tuple(found) == TOKEN_METRICS
    for at in range(3):
        truth = by_mpmath(z_b[at], z_t[at], int(y[at]))
        for name, value in truth.items():
            assert found[name][at] == pytest.approx(value, rel=1e-5, abs=1e-17), name


def test_a_true_kl_of_1e_8_keeps_six_digits():
    rng = np.random.default_rng(1)
    z_b = rng.normal(0, 4, (1, 500))
    z_t = z_b + 2e-4 * rng.normal(0, 1, z_b.shape)
    truth = by_mpmath(z_b[0], z_t[0], 0)["kl_base_tuned"]
    assert 1e-9 < truth < 1e-7
    assert token_metrics(z_b, z_t, np.array([0]))["kl_base_tuned"][0] == pytest.approx(truth, 1e-6)


def test_identities():
    rng = np.random.default_rng(2)
    z_b, z_t = rng.normal(0, 3, (2, 50, 31))
    y = rng.integers(0, 31, 50)
    same = token_metrics(z_b, z_b, y)
    moved = token_metrics(z_b, z_b + 7.25, y)
    for name in ("kl_base_tuned", "kl_tuned_base", "js", "delta_p", "logit_mse_centred"):
        assert np.abs(same[name]).max() < 1e-16, name
        assert np.abs(moved[name]).max() < 1e-15, name
    assert moved["logit_mse"] == pytest.approx(np.full(50, 7.25**2), rel=1e-15)
    apart, back = token_metrics(z_b, z_t, y), token_metrics(z_t, z_b, y)
    assert (apart["kl_base_tuned"] == back["kl_tuned_base"]).all()
    assert (apart["js"] > 0).all()
    assert (apart["js"] < math.log(2)).all()
    assert (apart["logit_l2"] ** 2 / 31) == pytest.approx(apart["logit_mse"], rel=1e-14)


def test_masked_on_both_sides_adds_nothing():
    rng = np.random.default_rng(4)
    z_b, z_t = rng.normal(0, 3, (2, 5, 9))
    y = np.array([0, 1, 2, 3, 4])
    bare = token_metrics(z_b, z_t, y)
    inf = np.full((5, 3), -np.inf)
    masked = token_metrics(np.hstack([z_b, inf]), np.hstack([z_t, inf]), y)
    for name in TOKEN_METRICS:
        share = 9 / 12 if name.startswith("logit_mse") else 1  # mean over V, masked ones as 0
        assert masked[name] == pytest.approx(bare[name] * share, rel=1e-14), name
    shifted = token_metrics(np.hstack([z_b, inf]), np.hstack([z_b + 2, inf]), y)
    assert np.abs(shifted["logit_mse_centred"]).max() < 1e-30


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        ("one", -np.inf, "one side alone"),
        ("both", np.nan, "NaN or \\+inf"),
        ("both", np.inf, "NaN or \\+inf"),
        ("target", -np.inf, "no probability"),
    ],
)
def test_what_is_no_distribution_is_refused(where, value, told):
    z_b, z_t = np.zeros((1, 4)), np.ones((1, 4))
    at = 2 if where == "target" else 1
    z_b[0, at] = value
    if where != "one":
        z_t[0, at] = value
    with pytest.raises(ValueError, match=told):
        token_metrics(z_b, z_t, np.array([2]))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shapes do not fit"):
        token_metrics(np.zeros((2, 4)), np.zeros((2, 5)), np.array([0, 1]))


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tiny_lora(tmp_path_factory, tiny_llama):
    return lora_adapter(tmp_path_factory.mktemp("lora"), tiny_llama)


@pytest.fixture
def in_float64(monkeypatch):
    """Norms and rotary tables in float64: transformers holds both at float32 whatever the model."""

    def norm(self, x):
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + self.variance_epsilon))

    def rotary(self, x, position_ids):
        theta = self.config.rope_parameters["rope_theta"]
        width = 2 * len(self.inv_freq)
        steps = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angle = (position_ids[..., None].double() * steps).repeat(1, 1, 2)
        return angle.cos(), angle.sin()

    for module, name in (
        (modeling_llama, "Llama"),
        (modeling_qwen2, "Qwen2"),
        (modeling_mistral, "Mistral"),
    ):
        monkeypatch.setattr(getattr(module, f"{name}RMSNorm"), "forward", norm)
        monkeypatch.setattr(getattr(module, f"{name}RotaryEmbedding"), "forward", rotary)


def by_transformers(folder: Path, ids: list[int], adapter: Path | None = None) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return model.double().eval()(torch.tensor([ids]), use_cache=False).logits[0].numpy()


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("llama", {"tie": True}),
        ("llama", {"tie": False}),
        ("qwen2", {}),
        ("mistral", {}),
        ("mistral", {"sliding_window": 8}),
    ],
)
def test_whole_network_equals_transformers_and_peft(tmp_path, architecture, options, rslora):
    base = tiny_model(tmp_path / "base", architecture, **options)
    adapter = lora_adapter(tmp_path / "lora", base, rslora=rslora, rank=3)
    truth = by_transformers(base, IDS)
    assert truth.std() > 1
    assert np.abs(llama_logits(base, IDS) - truth).max() < 1e-10
    tuned = by_transformers(base, IDS, adapter)
    assert np.abs(tuned - truth).max() > 1e-2
    assert np.abs(llama_logits(base, IDS, adapter) - tuned).max() < 1e-10


def test_rounding_inside_transformers_is_what_separates_the_two(tiny_llama):
    """Without the float64 norms and tables the same network is 1e-7 away, not wrong."""
    distance = np.abs(llama_logits(tiny_llama, IDS) - by_transformers(tiny_llama, IDS)).max()
    assert 1e-9 < distance < 1e-4


@pytest.mark.shared
@pytest.mark.usefixtures("in_float64")
def test_real_weights_equal_transformers_and_peft(shared):
    base, adapter = (shared / "models" / n for n in ("stories260K", "stories260K-gsm8k-lora"))
    ids = AutoTokenizer.from_pretrained(base)("Question: Tom has 3 apples.\nAnswer: 3")["input_ids"]
    assert np.abs(llama_logits(base, ids) - by_transformers(base, ids)).max() < 1e-10
    truth = by_transformers(base, ids, adapter)
    assert np.abs(llama_logits(base, ids, adapter) - truth).max() < 1e-10
    figures = pair_metrics(base, adapter, [ids])
    assert figures["ppl_tuned"] < figures["ppl_base"]  # what this adapter was trained for


def test_strength_scales_the_adapter(tmp_path, tiny_llama, tiny_lora):
    half = tmp_path / "half"
    half.mkdir()
    for file in tiny_lora.iterdir():
        (half / file.name).write_bytes(file.read_bytes())
    alpha = json.loads((half / "adapter_config.json").read_text())["lora_alpha"]
    edit_json(half / "adapter_config.json", lora_alpha=alpha / 2)
    by_config = llama_logits(tiny_llama, IDS, half)
    assert np.abs(llama_logits(tiny_llama, IDS, tiny_lora, 0.5) - by_config).max() < 1e-12
    assert np.abs(llama_logits(tiny_llama, IDS, tiny_lora) - by_config).max() > 1e-3
    nothing = llama_logits(tiny_llama, IDS, tiny_lora, 0.0)
    assert (nothing == llama_logits(tiny_llama, IDS)).all()


def test_a_later_token_never_reaches_an_earlier_position(tiny_llama):
    whole = llama_logits(tiny_llama, IDS)
    assert np.abs(llama_logits(tiny_llama, IDS[:20]) - whole[:20]).max() < 1e-12


def test_pair_metrics_pool_tokens_not_texts(tiny_llama, tiny_lora):
    texts = [IDS[:4], IDS[:31]]
    each = []
    for ids in texts:
        b, t = llama_logits(tiny_llama, ids), llama_logits(tiny_llama, ids, tiny_lora)
        each.append(token_metrics(b[:-1], t[:-1], np.array(ids[1:])))
    pooled = pair_metrics(tiny_llama, tiny_lora, texts)
    assert pooled["tokens"] == 3 + 30
    for name in TOKEN_METRICS:
        truth = sum(part[name].sum() for part in each) / 33
        assert pooled[name] == pytest.approx(truth, rel=1e-13), name
    means = [part["kl_base_tuned"].mean() for part in each]
    assert pooled["kl_base_tuned"] != pytest.approx(sum(means) / 2, rel=1e-2)
    assert pooled["ppl_ratio"] == pytest.approx(pooled["ppl_tuned"] / pooled["ppl_base"])


def test_a_merged_folder_gives_the_adapter_s_figures(tmp_path, tiny_llama, tiny_lora):
    merged = merged_model(tmp_path / "merged", tiny_llama, tiny_lora)
    one, other = (pair_metrics(tiny_llama, side, [IDS]) for side in (tiny_lora, merged))
    for name in ("nll_tuned", "kl_base_tuned", "logit_mse"):
        assert one[name] == pytest.approx(other[name], rel=1e-4), name


def test_what_the_oracle_does_not_cover_is_refused(tmp_path, tiny_llama, tiny_lora):
    with pytest.raises(ValueError, match="'gpt2'"):
        llama_logits(tiny_model(tmp_path / "gpt2", "gpt2"), IDS)
    with pytest.raises(ValueError, match="use_dora"):
        llama_logits(tiny_llama, IDS, lora_adapter(tmp_path / "dora", tiny_llama, dora=True))
    extra = tmp_path / "extra"
    extra.mkdir()
    tensors = load_file(tiny_lora / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_C.weight"
    save_file(tensors | {name: np.ones((2, 2))}, extra / "adapter_model.safetensors")
    (extra / "adapter_config.json").write_text((tiny_lora / "adapter_config.json").read_text())
    with pytest.raises(ValueError, match="lora_C"):
        llama_logits(tiny_llama, IDS, extra)
