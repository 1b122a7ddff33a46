"""Is the packed loss that of single rows, and a training the one that the recipe describes?"""

from __future__ import annotations

import gc
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from factory import MORE_ARCHITECTURES, TARGETS, texts, tiny_model
from training import QUICK, plain_nll, trained, write_rows
from tunediff.pair.hf_load import load_model
from tunediff.pair.open import open_pair
from tunediff.scoring import attention
from tunediff.training import forward
from tunediff.training.data import IGNORED, Example, batches
from tunediff.training.forward import Forward, try_packing
from tunediff.training.recipe import Recipe
from tunediff.weights.checkpoint import Checkpoint

EXACTLY = replace(QUICK, dropout=0.0)  # dropout draws for rows as they lie


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts of many lengths, and replies."""
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", texts(11, words=(1, 20)))


@pytest.fixture(autouse=True)
def uncollected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers collect garbage at their start, which takes a second among so many modules."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


def examples(count: int = 4, *, longest: int = 40, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        ids = rng.integers(2, 270, longest if i == 0 else rng.integers(4, longest)).tolist()
        cut = int(rng.integers(1, len(ids) - 1))
        made.append(Example(tuple(ids), tuple([IGNORED] * cut + ids[cut:]), f"row {i}"))
    return made


def loaded(folder: Path, architecture: str = "llama") -> Any:
    if not folder.exists():
        options = {"sliding_window": 8} if architecture in ("gemma2", "mistral") else {}
        tiny_model(folder, architecture, **options)
    return load_model(Checkpoint.open(folder), torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(
    "architecture", ["llama", "mistral", "gpt2", "gpt_neox", "gemma", *MORE_ARCHITECTURES]
)
@pytest.mark.parametrize("packed", [True, False])
def test_loss_and_gradient_are_those_of_single_rows(
    tmp_path: Path, architecture: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tmp_path / "m", architecture)
    config = LoraConfig(
        r=3, target_modules=list(TARGETS[architecture]), task_type="CAUSAL_LM",
        init_lora_weights=False, fan_in_fan_out=architecture == "gpt2",
    )  # fmt: skip
    torch.manual_seed(0)
    adapted: Any = get_peft_model(model, config).eval()
    learnt = [p for p in adapted.parameters() if p.requires_grad]
    wanted, count = plain_nll(model, examples())
    truth = torch.autograd.grad(wanted, learnt)

    monkeypatch.setattr(forward, "CHUNK_LOGITS", 7 * 300)  # several chunks, the last one short
    found, scored = Forward(model, packed).nll(examples())
    slopes = torch.autograd.grad(found, learnt)
    assert scored == count
    assert abs(found.item() - wanted.item()) / count < 1e-6
    for one, other in zip(slopes, truth, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())
    with torch.no_grad():
        assert Forward(model, packed).nll(examples())[0].item() == pytest.approx(found.item())


def test_a_packed_row_does_not_see_its_neighbour(tmp_path: Path) -> None:
    model = Forward(loaded(tmp_path / "m"), packed=True)
    one, other, third = examples(3)
    with torch.no_grad():
        before = model.nll([one, other])[0] - model.nll([one])[0]
        after = model.nll([third, other])[0] - model.nll([third])[0]
    assert before.item() == pytest.approx(after.item(), rel=1e-5)


def test_packing_is_tried_and_a_leak_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tmp_path / "m")
    assert try_packing(model, examples()).used
    real = forward.run_backbone

    def leaking(model: Any, pack: Any) -> Any:
        return real(model, replace(pack, bounds=((0, len(pack.ids)),)))

    monkeypatch.setattr(forward, "run_backbone", leaking)
    found = try_packing(model, examples())
    assert not found.used
    assert found.difference is not None
    assert found.difference > 1e-2
    assert "nats/token" in (found.reason or "")


def test_where_packing_is_not_exact_rows_are_padded_and_it_is_said(
    tmp_path: Path,
    base: Path,
    rows: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = trained(base, rows, tmp_path / "packed", EXACTLY)
    padded = trained(base, rows, tmp_path / "padded", replace(EXACTLY, packing=False))
    monkeypatch.setattr(attention, "_no_mask", lambda *_, **__: torch.ones(1, 1, 1, 1).bool())
    attention.AttentionMaskInterface.register(attention.NAME, attention._no_mask)
    said: list[str] = []
    try:
        refused = trained(base, rows, tmp_path / "refused", EXACTLY, notice=said.append)
    finally:
        monkeypatch.undo()
        attention.AttentionMaskInterface.register(attention.NAME, attention._no_mask)
    assert packed.report["packing"]["used"]
    assert packed.report["packing"]["difference"] < 1e-5
    assert padded.report["packing"] == {
        "used": False, "reason": "The recipe says so.", "difference": None,
    }  # fmt: skip
    assert "by a mask alone" in refused.report["packing"]["reason"]
    assert any("padded, not packed" in line for line in said)
    assert packed.report["losses"] == pytest.approx(padded.report["losses"], abs=1e-5)
    assert refused.report["losses"] == padded.report["losses"]


def test_twice_half_a_batch_is_the_whole_batch(tmp_path: Path, base: Path, rows: Path) -> None:
    whole = trained(base, rows, tmp_path / "whole", replace(EXACTLY, batch_size=4))
    parts = replace(EXACTLY, batch_size=2, accumulation=2)
    half = trained(base, rows, tmp_path / "half", parts)
    assert half.report["losses"] == pytest.approx(whole.report["losses"], abs=1e-5)
    assert half.report["tokens"] == whole.report["tokens"]
    one, other = (load_file(t.folder / "adapter_model.safetensors") for t in (half, whole))
    for name, tensor in other.items():
        assert torch.allclose(one[name], tensor, atol=1e-4), name


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("loss", ["reply", "all"])
def test_a_training_is_the_plain_loop_that_its_recipe_describes(
    tmp_path: Path,
    base: Path,
    rows: Path,
    schedule: Any,
    loss: Any,
) -> None:
    """Against torch alone: its own tokens, order, loss, clipping, AdamW and learning rates."""
    recipe = replace(EXACTLY, schedule=schedule, loss=loss, warmup=0.34, weight_decay=0.3, clip=0.4)
    done = trained(base, rows, tmp_path / "a", recipe)
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LoraConfig(
        r=2, lora_alpha=4, target_modules=list(recipe.target_modules), task_type="CAUSAL_LM"
    )
    torch.manual_seed(recipe.seed)
    adapted = get_peft_model(model, config)
    learnt = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1.0, weight_decay=recipe.weight_decay)
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    found = []
    for step, batch in enumerate(itertools.islice(batches(len(lines), 2, recipe.seed), 6)):
        share = min(1.0, step / 2)  # two of six steps rise
        if step >= 2 and schedule != "constant":
            left = (step - 2) / 4
            share = 1 - left if schedule == "linear" else (1 + math.cos(math.pi * left)) / 2
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * share
        total, count = torch.zeros(()), 0
        for i in batch:
            before = tokenizer(lines[i]["prompt"])["input_ids"]
            after = tokenizer(lines[i]["response"], add_special_tokens=False)["input_ids"]
            ids = torch.tensor([[*before, *after, tokenizer.eos_token_id]])
            start = len(before) if loss == "reply" else 1
            logits = adapted(input_ids=ids).logits[0, start - 1 : -1]
            total = total + cross_entropy(logits, ids[0, start:], reduction="sum")
            count += len(ids[0]) - start
        (total / count).backward()
        found.append(total.item() / count)
        torch.nn.utils.clip_grad_norm_(learnt, recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
    assert done.report["losses"] == pytest.approx(found, abs=1e-5)
    mine = load_file(done.folder / "adapter_model.safetensors")
    for name, tensor in get_peft_model_state_dict(adapted).items():
        assert torch.allclose(mine[name], tensor, atol=2e-4), name


def test_a_plain_script_gets_the_logits_that_tunediff_gives(
    tmp_path: Path,
    base: Path,
    rows: Path,
) -> None:
    """The folder is PEFT's: peft and transformers alone load it."""
    folder = trained(base, rows, tmp_path / "a").folder
    assert not (folder / "config.json").exists()
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = tokenizer("the quick brown fox", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        plain = torch.log_softmax(model.eval()(input_ids=ids).logits[0].double(), -1)
        with model.disable_adapter():
            before = torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)
    from tunediff.items.read import read

    pair = open_pair(str(base), str(folder))
    encoded = pair.encode(read(prompts=["the quick brown fox"]).items, None, False)
    (scores,) = pair.score(encoded)
    at = torch.arange(len(ids[0]) - 1)
    for found, logits in ((scores.nll_tuned, plain), (scores.nll_base, before)):
        assert found == pytest.approx(-logits[at, ids[0, 1:]].numpy(), abs=1e-5)
    assert np.abs(scores.nll_tuned - scores.nll_base).max() > 1e-2


def test_training_lowers_the_loss(tmp_path: Path, base: Path, rows: Path) -> None:
    report = trained(base, rows, tmp_path / "a", Recipe(steps=60, learning_rate=1e-2)).report
    losses = report["losses"]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 1


def test_on_a_gpu_the_losses_are_those_of_the_cpu(
    tmp_path: Path,
    base: Path,
    rows: Path,
    cuda: str,
) -> None:
    from tunediff.training.train import train

    here = trained(base, rows, tmp_path / "cpu", EXACTLY).report
    for dtype, close in (("float32", 2e-2), ("bfloat16", 0.2)):
        there = train(base, rows, tmp_path / dtype, recipe=EXACTLY, device=cuda, dtype=dtype).report
        assert (there["settings"]["device"], there["settings"]["dtype"]) == ("cuda", dtype)
        assert there["packing"]["used"]
        assert there["losses"][0] == pytest.approx(here["losses"][0], abs=close / 10)
        assert there["losses"] == pytest.approx(here["losses"], abs=close)
        assert torch.cuda.memory_allocated() < 1 << 30
