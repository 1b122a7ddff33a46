"""Which models, adapters and texts is everything measured on?

The shapes of two public models with random weights (speed does not depend on what was learned),
made once and kept in build/bench/.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

CACHE = Path(__file__).resolve().parent.parent / "build" / "bench"
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK = 16

SHAPES: dict[str, dict[str, Any]] = {
    # the published configurations of HuggingFaceTB/SmolLM2-135M and Qwen/Qwen2.5-0.5B
    "SmolLM2-135M": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-0.5B": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    },
}

SMALL: dict[str, Any] = {  # what a training is measured on: six layers and a large head
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 688,
    "vocab_size": 49152,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}

TRAINED = ("specimen", "six layers, d=256, V=49,152")
"""What a training is measured on."""


def flop_per_token(shape: str) -> int:
    """2·2·parameters: two models, a product and a sum for each parameter of a matrix product.

    The head counts, the embedding (a look-up) does not, nor norms, biases and attention scores.
    """
    c = SHAPES[shape]
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    attention = hidden * hidden * (2 + 2 * c["num_key_value_heads"] / heads)
    layer = int(attention) + 3 * hidden * c["intermediate_size"]
    return 2 * 2 * (c["num_hidden_layers"] * layer + hidden * c["vocab_size"])


def text_ids(vocabulary: int, *, count: int = 32, seed: int = 0) -> list[list[int]]:
    """Random token ids in ``count`` texts of 16 to 512 tokens, their lengths log-uniform."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.uniform(math.log(16), math.log(512), count)).round().astype(int)
    return [rng.integers(0, vocabulary, n).tolist() for n in lengths]


def base(shape: str) -> Path:
    """Return the folder of a shape's model in float32, made where it is not there yet."""
    folder = CACHE / shape
    if not folder.exists():
        _in_one_step(folder, lambda part: _make_base(shape, part))
    return folder


def adapter(shape: str, *, top_third: bool = False) -> Path:
    """Return the folder of a LoRA on all seven projections, of every layer or the top third."""
    folder = CACHE / f"{shape}-lora{'-top' if top_third else ''}"
    if not folder.exists():
        _in_one_step(folder, lambda part: _make_adapter(shape, top_third, part))
    return folder


def small() -> Path:
    """Return the folder of the model of ``SMALL``, whose words are w2, w3 and so on."""
    if not (CACHE / "small").exists():
        _in_one_step(CACHE / "small", _make_small)
    return CACHE / "small"


def pair_7b() -> tuple[Path, Path]:
    """Return folders as a 7B model and its adapter have them: 128 modules of 4096², r = 16.

    The base's weights are a hole in a sparse file: its geometry is asked for without ‖W‖, so that
    its header alone is read.
    """
    for name, make in (("7B", _make_base_7b), ("7B-lora", _make_adapter_7b)):
        if not (CACHE / name).exists():
            _in_one_step(CACHE / name, make)
    return CACHE / "7B", CACHE / "7B-lora"


def _in_one_step(folder: Path, make: Any) -> None:
    """Build under another name and rename, so that an interrupted build is never taken up."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    make(part)
    part.rename(folder)


def _make_base(shape: str, folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    options = dict(SHAPES[shape])
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        options.pop("model_type"), **options, bos_token_id=None, eos_token_id=0
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"</s>": 0, "<unk>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def _make_small(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    options = dict(SMALL)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        options.pop("model_type"), **options, bos_token_id=None, eos_token_id=0
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    words = {"</s>": 0, "<unk>": 1} | {f"w{n}": n for n in range(2, SMALL["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def _make_adapter(shape: str, top_third: bool, folder: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    layers = SHAPES[shape]["num_hidden_layers"]
    model = AutoModelForCausalLM.from_pretrained(base(shape), dtype=torch.float32)
    config = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=list(PROJECTIONS),
        layers_to_transform=list(range(layers - layers // 3, layers)) if top_third else None,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(1)
    tuned = get_peft_model(model, config)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    tuned.save_pretrained(str(folder), save_embedding_layers=False)


def _make_base_7b(folder: Path) -> None:
    header, end = {}, 0
    for name in _modules_7b():
        begin, end = end, end + 2 * 4096 * 4096
        entry = {"dtype": "BF16", "shape": [4096, 4096], "data_offsets": [begin, end]}
        header[f"{name}.weight"] = entry
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 4096}))


def _make_adapter_7b(folder: Path) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(2)
    tensors = {
        f"base_model.model.{name}.lora_{side}.weight": (
            np.float32(0.01)
            * rng.standard_normal((RANK, 4096) if side == "A" else (4096, RANK), np.float32)
        )
        for name in _modules_7b()
        for side in "AB"
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": list(PROJECTIONS[:4]),
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "fan_in_fan_out": False,
        "base_model_name_or_path": "a 7B-shaped model",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))


def _modules_7b() -> list[str]:
    return [f"model.layers.{i}.self_attn.{name}" for i in range(32) for name in PROJECTIONS[:4]]
