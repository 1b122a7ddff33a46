"""What would the numbers be, worked out slowly by somebody who never saw the fast way?

NumPy alone, float64 (token metrics in the platform's long double), textbook formulas. Nothing here
imports the project's scoring, so that a fault would have to be made twice to go unseen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ARCHITECTURES = ("llama", "qwen2", "mistral")


def token_metrics(z_b: np.ndarray, z_t: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Every token metric at each position, by the textbook sums of DEFINITIONS.md.

    KL is Σ p(ln p − ln q) as written: the sum cancels down to the rounding of ln p, about 1e-18 in
    an 80-bit long double (1e-15 where long double is float64), so a true KL of 1e-8 keeps at
    least seven digits. A logit of −inf on both sides adds 0 to every sum, and the shift that
    ``logit_mse_centred`` takes off is the mean over the other entries.

    Args:
        z_b: logits of base, (T, V).
        z_t: logits of tuned, (T, V).
        targets: the token ids that follow, (T,).

    Returns:
        Name (as in ``tunediff.values.TOKEN_METRICS``) to float64 (T,).

    Raises:
        ValueError: NaN, +inf, −inf on one side alone, or a target of no probability.

    """
    b, t = (np.atleast_2d(np.asarray(z)).astype(np.longdouble) for z in (z_b, z_t))
    y = np.asarray(targets, dtype=np.int64)
    if b.shape != t.shape or y.shape != b.shape[:1]:
        raise ValueError(f"shapes do not fit: {b.shape}, {t.shape}, targets {y.shape}")
    if any((np.isnan(z) | np.isposinf(z)).any() for z in (b, t)):
        raise ValueError("a logit is NaN or +inf")
    masked = np.isneginf(b)
    if (masked != np.isneginf(t)).any():
        raise ValueError("a logit is -inf on one side alone")
    rows = np.arange(len(y))
    if masked[rows, y].any():
        raise ValueError("a target has no probability under either model")

    log_p, log_q = _log_softmax(b), _log_softmax(t)
    p, q = np.exp(log_p), np.exp(log_q)
    log_m = np.log(np.where(masked, 1, (p + q) / 2))

    def divergence(of: np.ndarray, log_of: np.ndarray, log_other: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # −inf − −inf, taken out by the mask
            return np.where(masked, 0, of * (log_of - log_other)).sum(axis=1)

    with np.errstate(invalid="ignore"):
        d = np.where(masked, 0, t - b)
    shift = d.sum(axis=1, keepdims=True) / (~masked).sum(axis=1, keepdims=True)
    centred = np.where(masked, 0, d - shift)
    vocabulary = b.shape[1]
    metrics = {
        "nll_base": -log_p[rows, y],
        "nll_tuned": -log_q[rows, y],
        "kl_base_tuned": divergence(p, log_p, log_q),
        "kl_tuned_base": divergence(q, log_q, log_p),
        "js": (divergence(p, log_p, log_m) + divergence(q, log_q, log_m)) / 2,
        "logit_mse": (d**2).sum(axis=1) / vocabulary,
        "logit_mse_centred": (centred**2).sum(axis=1) / vocabulary,
        "logit_l2": np.sqrt((d**2).sum(axis=1)),
        "top1_agreement": b.argmax(axis=1) == t.argmax(axis=1),
        "delta_p": q[rows, y] - p[rows, y],
    }
    return {name: values.astype(np.float64) for name, values in metrics.items()}


def llama_logits(
    folder: Path | str,
    ids: Sequence[int] | np.ndarray,
    adapter_folder: Path | str | None = None,
    strength: float = 1.0,
) -> np.ndarray:
    """Logits of one text through a whole Llama-shaped network, float64, (T, V).

    Serves model types llama, qwen2 and mistral with default rotary tables. A PEFT LoRA adapter
    is applied as W + strength·s·B·A, with s = alpha / r (alpha / √r for rsLoRA).

    Raises:
        ValueError: a configuration or an adapter that this plain network does not cover.

    """
    config = json.loads((Path(folder) / "config.json").read_text())
    w = _tuned_weights(Path(folder), adapter_folder and Path(adapter_folder), strength)
    window = _supported(config)
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    width = config.get("head_dim") or config["hidden_size"] // heads
    eps = config["rms_norm_eps"]
    ids = np.asarray(ids, dtype=np.int64)
    n = len(ids)

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        out = x @ w[f"{name}.weight"].T
        return out + w[f"{name}.bias"] if f"{name}.bias" in w else out

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * w[f"{name}.weight"]

    def split(x: np.ndarray, count: int) -> np.ndarray:
        return x.reshape(n, count, width).transpose(1, 0, 2)  # (heads, T, width)

    theta = (config.get("rope_parameters") or config)["rope_theta"]
    angle = np.arange(n)[:, None] * theta ** (-np.arange(0, width, 2) / width)  # (T, width/2)
    turn = np.exp(1j * angle)

    def rotate(x: np.ndarray) -> np.ndarray:
        pairs = (x[..., : width // 2] + 1j * x[..., width // 2 :]) * turn
        return np.concatenate([pairs.real, pairs.imag], axis=-1)

    back = np.arange(n)[:, None] - np.arange(n)[None, :]  # how far back each key lies
    unseen = (back < 0) | (back >= (window or n))

    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        h = norm(x, f"{at}.input_layernorm")
        query = rotate(split(linear(h, f"{at}.self_attn.q_proj"), heads))
        key = rotate(split(linear(h, f"{at}.self_attn.k_proj"), kv_heads))
        value = split(linear(h, f"{at}.self_attn.v_proj"), kv_heads)
        key, value = (np.repeat(a, heads // kv_heads, axis=0) for a in (key, value))
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(width)
        attention = np.exp(_log_softmax(np.where(unseen, -np.inf, scores)))
        mixed = (attention @ value).transpose(1, 0, 2).reshape(n, heads * width)
        x = x + linear(mixed, f"{at}.self_attn.o_proj")
        h = norm(x, f"{at}.post_attention_layernorm")
        gate = linear(h, f"{at}.mlp.gate_proj")
        x = x + linear(
            gate / (1 + np.exp(-gate)) * linear(h, f"{at}.mlp.up_proj"), f"{at}.mlp.down_proj"
        )
    head = "model.embed_tokens" if config.get("tie_word_embeddings") else "lm_head"
    return linear(norm(x, "model.norm"), head)


def pair_metrics(
    base: Path | str, tuned: Path | str, texts: Sequence[Sequence[int]], strength: float = 1.0
) -> dict[str, float]:
    """Token-pooled figures over texts of token ids, every token but each text's first scored.

    ``tuned`` is a PEFT adapter folder (it holds adapter_config.json) or a whole model.

    Returns:
        The mean of each token metric, and ``ppl_base``, ``ppl_tuned``, ``ppl_ratio``,
        ``delta_p_rms`` and ``tokens`` (scored positions).

    """
    is_adapter = (Path(tuned) / "adapter_config.json").exists()
    parts: list[dict[str, np.ndarray]] = []
    for ids in texts:
        z_b = llama_logits(base, ids)
        z_t = llama_logits(base, ids, tuned, strength) if is_adapter else llama_logits(tuned, ids)
        parts.append(token_metrics(z_b[:-1], z_t[:-1], np.asarray(ids)[1:]))
    tokens = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    pooled = {name: math.fsum(values) / len(values) for name, values in tokens.items()}
    return pooled | {
        "ppl_base": math.exp(pooled["nll_base"]),
        "ppl_tuned": math.exp(pooled["nll_tuned"]),
        "ppl_ratio": math.exp(pooled["nll_tuned"] - pooled["nll_base"]),
        "delta_p_rms": math.sqrt(math.fsum(tokens["delta_p"] ** 2) / len(tokens["delta_p"])),
        "tokens": float(len(tokens["delta_p"])),
    }


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _supported(config: Mapping) -> int | None:
    """The attention window of a configuration this network covers, None for unlimited."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = config["model_type"]
    if kind not in ARCHITECTURES:
        raise ValueError(f"model_type {kind!r}; this oracle knows {', '.join(ARCHITECTURES)}")
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"rope_type {rope['rope_type']!r}; this oracle knows 'default'")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act {config['hidden_act']!r}; this oracle knows 'silu'")
    if kind == "qwen2" and config.get("use_sliding_window"):
        raise ValueError("qwen2 with a sliding window; this oracle has none for it")
    return config.get("sliding_window") if kind == "mistral" else None


@lru_cache(maxsize=8)
def _tuned_weights(
    folder: Path, adapter_folder: Path | None, strength: float
) -> dict[str, np.ndarray]:
    weights = {
        name: tensor.astype(np.float64)
        for file in sorted(folder.glob("model*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    if adapter_folder is None:
        return weights
    config = json.loads((adapter_folder / "adapter_config.json").read_text())
    plain = {"peft_type": "LORA", "bias": "none"}
    odd = {key: config[key] for key, value in plain.items() if config[key] != value}
    odd |= {
        key: config[key]
        for key in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern")
        if config.get(key)
    }
    if odd:
        raise ValueError(f"an adapter with {odd}; this oracle knows plain LoRA")
    root = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    left = {
        name.removeprefix("base_model.model."): tensor.astype(np.float64)
        for name, tensor in load_file(adapter_folder / "adapter_model.safetensors").items()
    }
    for module in sorted({name.split(".lora_")[0] for name in left}):
        a, b = (left.pop(f"{module}.lora_{side}.weight") for side in "AB")
        weights[f"{module}.weight"] = weights[f"{module}.weight"] + strength * config[
            "lora_alpha"
        ] / root * (b @ a)
    if left:
        raise ValueError(f"tensors of the adapter that are no LoRA factors: {sorted(left)}")
    return weights
