"""How would one compare two models without tunediff?

The peer: both models loaded whole, one text at a time, whole logits of both, every token metric of
the project in plain float32 torch. Written plainly, with nothing done to make it slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import AutoModelForCausalLM

PERCENTILES = (1.0, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0.0)


def naive(
    base: Path | str,
    adapter: Path | str,
    texts_ids: Sequence[Sequence[int]],
    *,
    dtype: str = "float32",
    device: str = "cpu",
) -> dict[str, float]:
    """Load both models, score every text, pool over tokens."""
    return score(*load(base, adapter, dtype=dtype, device=device), texts_ids)


def load(
    base: Path | str, adapter: Path | str, *, dtype: str = "float32", device: str = "cpu"
) -> tuple[Any, Any]:
    """Return the base model, and a second copy of it that wears the adapter."""
    base_model, other = (
        AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype), device_map=device)
        for _ in range(2)
    )
    return base_model.eval(), PeftModel.from_pretrained(other, adapter).eval()


@torch.no_grad()
def score(
    base_model: Any, tuned_model: Any, texts_ids: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Pooled figures: the mean of each token metric, perplexities, RMS and percentiles."""
    per_text = []
    for ids in texts_ids:
        tokens = torch.tensor([list(ids)], device=base_model.device)
        z_b = base_model(tokens).logits[0, :-1].float()
        z_t = tuned_model(tokens).logits[0, :-1].float()
        per_text.append(metrics(z_b, z_t, tokens[0, 1:]))
    tokens = {name: torch.cat([m[name] for m in per_text]).double() for name in per_text[0]}
    pooled = {name: values.mean().item() for name, values in tokens.items()}
    pooled["ppl_base"] = tokens["nll_base"].mean().exp().item()
    pooled["ppl_tuned"] = tokens["nll_tuned"].mean().exp().item()
    pooled["delta_p_rms"] = tokens["delta_p"].square().mean().sqrt().item()
    quantiles = torch.tensor(PERCENTILES, dtype=torch.float64, device=base_model.device)
    for name in ("kl_base_tuned", "kl_tuned_base", "delta_p"):
        values = tokens[name].quantile(quantiles).tolist()
        pooled |= {f"{name}_{q:.1%}": v for q, v in zip(PERCENTILES, values, strict=True)}
    return pooled


def metrics(z_b: torch.Tensor, z_t: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every token metric at each position, from logits (T, V) and next tokens (T,)."""
    log_p, log_q = log_softmax(z_b, dim=-1), log_softmax(z_t, dim=-1)
    p, q = log_p.exp(), log_q.exp()
    log_m = ((p + q) / 2).log()
    d = z_t - z_b
    at = y.unsqueeze(1)

    def divergence(log_of: torch.Tensor, log_other: torch.Tensor) -> torch.Tensor:
        return kl_div(log_other, log_of, log_target=True, reduction="none").sum(-1)

    return {
        "nll_base": cross_entropy(z_b, y, reduction="none"),
        "nll_tuned": cross_entropy(z_t, y, reduction="none"),
        "kl_base_tuned": divergence(log_p, log_q),
        "kl_tuned_base": divergence(log_q, log_p),
        "js": (divergence(log_p, log_m) + divergence(log_q, log_m)) / 2,
        "logit_mse": d.square().mean(-1),
        "logit_mse_centred": (d - d.mean(-1, keepdim=True)).square().mean(-1),
        "logit_l2": d.norm(dim=-1),
        "top1_agreement": (z_b.argmax(-1) == z_t.argmax(-1)).float(),
        "delta_p": (q.gather(1, at) - p.gather(1, at)).squeeze(1),
    }
