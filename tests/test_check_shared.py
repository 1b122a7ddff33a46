"""Are verdicts and numbers right on real weights and real texts?

stories260K was trained on TinyStories; its adapter was trained on GSM8K. The oracle computes the
whole network in float64 NumPy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import oracle
from command import check

CONTEXT = 512


@pytest.fixture(scope="module")
def base(shared: Path) -> Path:
    return shared / "models" / "stories260K"


@pytest.fixture(scope="module")
def adapter(shared: Path) -> Path:
    return shared / "models" / "stories260K-gsm8k-lora"


@cache
def tokenizer(base: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(base / "tokenizer.json"))


def token_ids(base: Path, text: str) -> list[int]:
    return tokenizer(base).encode(text).ids


@pytest.fixture(scope="module")
def gsm8k(shared: Path, base: Path) -> list[str]:
    """The first 40 test questions with their answers, of those that fit."""
    lines = (shared / "data" / "gsm8k" / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:60]]
    texts = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows]
    return [text for text in texts if len(token_ids(base, text)) <= CONTEXT][:40]


@pytest.fixture(scope="module")
def stories(shared: Path) -> list[str]:
    text = (shared / "data" / "texts" / "tinystories_sample.txt").read_text()
    return [story.strip() for story in text.split("<|endoftext|>") if story.strip()]


@pytest.fixture(scope="module")
def paragraphs(stories: list[str]) -> list[str]:
    return [p for story in stories for p in story.split("\n") if len(p.split()) >= 8]


def asked(folder: Path, texts: Sequence[str]) -> tuple[Any, ...]:
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return ("--texts", file, "--json")


def held_against_oracle(
    found: dict[str, Any], base: Path, tuned: Path, texts: Sequence[str]
) -> None:
    """Every figure to 1e-4 relative; the texts are those of the run."""
    truth = oracle.pair_metrics(base, tuned, [token_ids(base, text) for text in texts])
    assert found["tokens"] == truth["tokens"]
    names = ("ppl_base", "ppl_tuned", "ppl_ratio", "kl_base_tuned", "kl_tuned_base", "js",
             "logit_mse", "logit_mse_centred", "logit_l2", "top1_agreement", "delta_p")  # fmt: skip
    values = {name: found["metrics"][name]["value"] for name in names}
    assert values == pytest.approx({name: truth[name] for name in names}, rel=1e-4)
    assert found["metrics"]["delta_p"]["rms"] == pytest.approx(truth["delta_p_rms"], rel=1e-4)


def test_the_adapter_is_tuned_on_its_target(
    base: Path, adapter: Path, gsm8k: list[str], tmp_path: Path
) -> None:
    assert len(gsm8k) == 40
    said = check(base, adapter, *asked(tmp_path, gsm8k), "--expect", "tuned")
    assert said.code == 0, said
    metrics = said.json["metrics"]
    assert metrics["delta_nll"]["high"] < 0
    assert metrics["delta_nll"]["p"] < 0.05
    assert metrics["ppl_tuned"]["value"] < metrics["ppl_base"]["value"]
    assert said.err == ""


def test_numbers_equal_the_oracle_on_the_target(
    base: Path, adapter: Path, gsm8k: list[str], tmp_path: Path
) -> None:
    texts = gsm8k[:6]
    found = check(base, adapter, *asked(tmp_path, texts)).json
    held_against_oracle(found, base, adapter, texts)


def test_the_adapter_diverges_on_stories(
    base: Path, adapter: Path, stories: list[str], shared: Path
) -> None:
    """Five texts fall under the point rule, read as they come, or split by hand."""
    assert len(stories) == 5
    file = shared / "data" / "texts" / "tinystories_sample.txt"
    said = check(base, adapter, "--texts", file, "--json")
    assert said.json["verdict"] == "diverged_without_gain"
    assert "5 texts are 5 observations" in said.json["reason"]
    assert said.json["texts"] == 5


def test_the_adapter_diverges_on_at_least_twelve_pieces(
    base: Path, adapter: Path, paragraphs: list[str], tmp_path: Path
) -> None:
    assert len(paragraphs) >= 12
    found = check(base, adapter, *asked(tmp_path, paragraphs)).json
    assert found["verdict"] == "diverged_without_gain"
    assert found["metrics"]["delta_nll"]["low"] > -0.01
    held_against_oracle(found, base, adapter, paragraphs)


@pytest.mark.parametrize("texts", [1, 6])
def test_base_against_itself_is_identical(
    base: Path, stories: list[str], texts: int, tmp_path: Path
) -> None:
    pieces = [p for story in stories for p in story.split("\n") if p.strip()][:texts]
    found = check(base, base, *asked(tmp_path, pieces)).json
    assert found["verdict"] == "identical"
    for name in ("kl_base_tuned", "js", "logit_mse", "delta_nll"):
        assert found["metrics"][name]["value"] == 0
        assert found["metrics"][name]["noise_floor"] > 0
    assert found["metrics"]["top1_agreement"]["value"] == 1


def scaled(adapter: Path, folder: Path, factor: float) -> Path:
    """The adapter with every B so many times as large: ΔW too."""
    shutil.copytree(adapter, folder)
    file = folder / "adapter_model.safetensors"
    file.chmod(0o644)
    tensors = load_file(file)
    made = {k: v * np.float32(factor) if "lora_B" in k else v for k, v in tensors.items()}
    save_file(made, file)
    return folder


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.0, "identical"), (1e-9, "indistinguishable"), (1.0, "tuned")]
)
def test_an_adapter_of_any_size(
    base: Path, adapter: Path, gsm8k: list[str], factor: float, verdict: str, tmp_path: Path
) -> None:
    tuned = scaled(adapter, tmp_path / "scaled", factor)
    for texts in (gsm8k[:1], gsm8k[:8]):
        found = check(base, tuned, *asked(tmp_path, texts)).json
        assert found["verdict"] == verdict, found["reason"]


def test_the_seeds_lines_on_real_weights(base: Path, adapter: Path) -> None:
    from test_check_command import seed_script

    prompt = "Question: Tom has 3 apples and buys 4 more. How many apples has he?"
    script = seed_script(base, adapter, prompt)
    lines = check(
        *("--base_model_path", base, "--adapter_path", adapter, "--prompt", prompt),
        *("--ppl_threshold", "0.01", "--mse_threshold", "0.0001"),
    ).out.splitlines()
    mse = lines.pop(4).removeprefix("Logit MSE Difference:     ")
    assert float(mse) == pytest.approx(script["logit_mse"], rel=1e-6)  # the script adds in float32
    assert lines[:5] == [
        "=== Model Comparison ===",
        f"Input: {prompt}",
        f"Base Model Perplexity:    {script['ppl_base']:.3f}",
        f"Adapter Model Perplexity: {script['ppl_tuned']:.3f}",
        "✅ Adapter model is different — likely fine-tuned.",
    ]


def test_two_unrelated_models(shared: Path, base: Path, stories: list[str], tmp_path: Path) -> None:
    other = shared / "models" / "aidreams260K"
    error = check(base, other, "--prompt", stories[0], "--json").error
    assert error["code"] == "pair"
    assert "The two tokenizers differ" in error["message"]
    assert "--bits-per-byte-only" in error["hint"]

    too_long = check(base, other, "--prompt", stories[0], "--bits-per-byte-only", "--json").error
    assert "at most 128 fit" in too_long["message"]  # the shorter of the two contexts
    texts = [story[:120] for story in stories]
    found = check(base, other, *asked(tmp_path, texts), "--bits-per-byte-only").json
    assert set(found["metrics"]) == {"bits_per_byte_base", "bits_per_byte_tuned"}
    assert found["verdict"] == "weights_differ"
    assert found["base"]["ppl"] is None
    for side, folder in (("base", base), ("tuned", other)):
        figure = found["metrics"][f"bits_per_byte_{side}"]["value"]
        assert figure == found[side]["bits_per_byte"]
        nats, size = bits(folder, texts)
        # both sides start where both tokenizers do: at most a first piece later than here
        assert figure == pytest.approx(nats / np.log(2) / size, rel=0.02)
    plain = check(base, other, "--prompt", texts[0], "--bits-per-byte-only")
    assert plain.code == 0, plain.err
    assert "Only bits per byte was compared." in plain.out


def bits(folder: Path, texts: Sequence[str]) -> tuple[float, int]:
    """The oracle's NLL of all tokens but the first, and all bytes."""
    total, size = 0.0, 0
    for text in texts:
        ids = np.array(token_ids(folder, text))
        z = oracle.llama_logits(folder, ids)[:-1]
        z -= z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        total -= log_p[np.arange(len(z)), ids[1:]].sum()
        size += len(text.encode())
    return total, size


def test_the_gpt2_adapter_on_a_random_base(shared: Path, tmp_path: Path) -> None:
    """A real adapter with fan_in_fan_out, on weights of its base's shape."""
    adapter = shared / "models" / "gpt2-tigrinya-lora"
    shapes = {k: v.shape for k, v in load_file(adapter / "adapter_model.safetensors").items()}
    layers = 1 + max(int(key.split(".h.")[1].split(".")[0]) for key in shapes)
    width = next(shape[1] for key, shape in shapes.items() if "attn.c_attn.lora_A" in key)
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    import factory

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=300, n_embd=width, n_layer=layers, n_head=12, n_positions=64,
        bos_token_id=factory.BOS, eos_token_id=factory.EOS,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    factory.tiny_tokenizer(tmp_path / "gpt2", max_positions=64)
    said = check(tmp_path / "gpt2", adapter, "--prompt", "the quick brown fox", "--json")
    assert said.code == 0, said
    found = said.json
    assert found["verdict"] in ("tuned", "diverged_without_gain")
    assert (
        found["metrics"]["kl_base_tuned"]["value"]
        > 100 * (found["metrics"]["kl_base_tuned"]["noise_floor"])
    )
    modules = found["weights"]["modules"]
    assert len(modules) == sum("lora_A" in key for key in shapes)
