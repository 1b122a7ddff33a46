"""Which tiny models, adapters and texts does a test need on disk?

Random weights, real configurations and real libraries: what is built here is saved by transformers
and peft themselves, so it looks to the project exactly as a user's folder does.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

ARCHITECTURES = ("llama", "qwen2", "mistral", "gemma", "gpt2", "gpt_neox")
MORE_ARCHITECTURES = ("gemma2", "qwen3", "phi3")

_LLAMA_LIKE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("llama", "qwen2", "mistral", "gemma", "gemma2", "qwen3"), _LLAMA_LIKE),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
}
"""All linear projections of a layer, by model type."""

BOS, EOS = 0, 1
_WORDS = "the quick brown fox jumps over a lazy dog and then it sleeps in warm sun".split()
_MERGES = ("th", "the", "in", "er", "an", "and", "ow", "ar", "Ġa", "Ġth", "Ġthe", "Ġs", "un", "ox")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def tiny_model(
    folder: Path,
    architecture: str = "llama",
    *,
    seed: int = 0,
    vocab: int = 300,
    tie: bool | None = None,
    dtype: str = "float32",
    sliding_window: int | None = None,
    layers: int = 3,
    hidden: int = 48,
    max_positions: int = 256,
    add_bos: bool = True,
) -> Path:
    """Save a random model with its tokenizer; grouped-query attention where there is such.

    ``tie=None`` keeps the architecture's own habit. The tokenizer's vocabulary (272) is smaller
    than the model's, as it often is in real ones.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    options: dict[str, Any] = {
        "vocab_size": vocab,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": None,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": max_positions,
        "intermediate_size": 2 * hidden,
    }
    if architecture == "gpt2":
        options["n_inner"] = options.pop("intermediate_size")
    elif architecture != "gpt_neox":
        options["num_key_value_heads"] = 2
    if architecture in ("gemma", "gemma2", "qwen3"):
        options["head_dim"] = hidden // 4
    if architecture in ("mistral", "phi3"):
        options["sliding_window"] = sliding_window
    elif architecture == "gemma2":  # it insists on a window, every other layer uses it
        options["sliding_window"] = sliding_window or max_positions
    elif sliding_window is not None:
        raise ValueError(f"{architecture} has no sliding window here")
    if tie is not None:
        options["tie_word_embeddings"] = tie
    config = AutoConfig.for_model(architecture, **options)
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:  # norms stay about where they start, biases about zero
                parameter += 0.1 * noise
            else:  # wide enough that logits spread by about two
                looked_up = any(part in name for part in ("embed", "wte", "wpe", "lm_head"))
                parameter.copy_(noise * (0.3 if looked_up else parameter.shape[-1] ** -0.5))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tiny_tokenizer(Path(folder), max_positions=max_positions, add_bos=add_bos)
    return Path(folder)


def tiny_tokenizer(folder: Path, *, max_positions: int = 256, add_bos: bool = True) -> Path:
    """Save a byte-level BPE tokenizer of fixed merges, 272 entries: <s>, </s>, bytes, merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": BOS, "</s>": EOS}
    for token in (*alphabet, *_MERGES):
        vocabulary[token] = len(vocabulary)
    # a merge is written as its longest known head and the rest
    merges = [
        next((m[:cut], m[cut:]) for cut in range(len(m) - 1, 0, -1) if m[:cut] in vocabulary)
        for m in _MERGES
    ]
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<s>", "</s>"])
    if add_bos:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
        )
    PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", model_max_length=max_positions
    ).save_pretrained(folder)
    return Path(folder)


def lora_adapter(
    folder: Path,
    base: Path,
    *,
    rank: int = 4,
    alpha: float = 8,
    targets: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    scale: float = 0.02,
    dora: bool = False,
    rslora: bool = False,
    modules_to_save: Sequence[str] | None = None,
    embeddings: bool = False,
    trained: bool = True,
) -> Path:
    """Save a LoRA adapter made by peft, with B of size ``scale`` (zero where not ``trained``).

    Args:
        folder: where to.
        base: the base model's folder.
        rank: r.
        alpha: lora_alpha.
        targets: names of adapted modules; None: every linear projection of a layer.
        layers: indices of adapted layers; None: all.
        seed: of the random factors.
        scale: standard deviation of B's entries.
        dora: DoRA, its magnitudes moved as well.
        rslora: scaling alpha / √r.
        modules_to_save: whole modules kept beside the factors, moved as well.
        embeddings: adapt the input embedding too.
        trained: False leaves everything as peft initialises it: ΔW = 0.

    """
    import torch
    from peft import LoraConfig, get_peft_model

    model = _load(base)
    kind = model.config.model_type
    chosen = list(targets if targets is not None else TARGETS[kind])
    if embeddings:
        chosen.append({"gpt2": "wte", "gpt_neox": "embed_in"}.get(kind, "embed_tokens"))
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=chosen,
        layers_to_transform=None if layers is None else list(layers),
        use_dora=dora,
        use_rslora=rslora,
        modules_to_save=None if modules_to_save is None else list(modules_to_save),
        fan_in_fan_out=kind == "gpt2",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():  # peft's advice on tied heads; users save such adapters too
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        tuned = get_peft_model(model, config)
    if trained:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if not parameter.requires_grad:
                    continue
                noise = torch.randn(parameter.shape, generator=generator)
                if "lora_embedding_B" in name or "lora_B" in name:
                    parameter.copy_(scale * noise)
                elif "lora_magnitude" in name or "modules_to_save" in name:
                    parameter.mul_(1 + scale * noise)
                else:  # A, as wide as its inputs ask for
                    parameter.copy_(noise * parameter.shape[-1] ** -0.5)
    tuned.save_pretrained(folder, save_embedding_layers=False)
    return Path(folder)


def merged_model(folder: Path, base: Path, adapter: Path) -> Path:
    """Save base with the adapter merged into its weights, in base's dtype, with its tokenizer."""
    from peft import PeftModel

    PeftModel.from_pretrained(_load(base), adapter).merge_and_unload().save_pretrained(folder)
    return _with_tokenizer(folder, base)


def full_finetune(
    folder: Path,
    base: Path,
    *,
    seed: int = 0,
    which: Literal["all", "some tensors"] = "all",
    scale: float = 0.01,
) -> Path:
    """Save base with its weights moved by ``scale`` times their own size, random signs.

    ``"some tensors"`` moves the matrices of the last layer alone; the others stay byte-identical.
    """
    import torch

    model = _load(base)
    last = f".{model.config.num_hidden_layers - 1}."
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if which == "all" or (last in name and parameter.ndim > 1):
                parameter.mul_(1 + scale * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return _with_tokenizer(folder, base)


def edit_json(file: Path, **changes: Any) -> None:
    """Overwrite keys of a JSON file in place, to plant a fault."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def texts(n: int, seed: int = 0, *, words: tuple[int, int] = (3, 30)) -> list[str]:
    """Return ``n`` different plain texts of random length, in words."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return [
        f"{i} " + " ".join(rng.choice(_WORDS, rng.integers(words[0], words[1] + 1)))
        for i in range(n)
    ]


def _load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


def _with_tokenizer(folder: Path, base: Path) -> Path:
    for name in _TOKENIZER_FILES:
        if (Path(base) / name).exists():
            shutil.copy(Path(base) / name, Path(folder) / name)
    return Path(folder)
