"""How many real tokens a second does a training read, padded to the maximum, and packed?

The peer is the plain loop of a notebook: every row padded to the recipe's 512 tokens, a mask, the
model's own loss over whole logits, AdamW. Both sides take the same rows in the same order, from
the first step on; what happens before it is not counted.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import shapes
from tunediff import specimens
from tunediff.training.data import IGNORED, batches, prepare, read_rows
from tunediff.training.recipe import Recipe
from tunediff.training.train import train

STEPS, BEFORE = 24, 4  # of which the first few are not counted
ROWS = 200


def speed(job: dict[str, Any]) -> dict[str, Any]:
    """Real tokens and their cost in seconds, CPU and wall, and the last loss."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base = specimens.base() if job["model"] == "specimen" else shapes.small()
        rows = _rows(job["model"], folder / "rows.jsonl")
        recipe = Recipe(steps=STEPS, dropout=0.0, learning_rate=1e-3)
        way = _padded if job["way"] == "padded" else _ours
        marks, losses = way(base, rows, recipe, folder, job["device"])
    (tokens, wall, cpu), (all_tokens, end, cpu_end) = marks
    return {
        "tokens": all_tokens - tokens,
        "cost": {"wall": end - wall, "cpu": cpu_end - cpu},
        "losses": losses,
    }


Mark = tuple[int, float, float]  # tokens so far, wall and CPU seconds


def _mark(tokens: int) -> Mark:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return tokens, time.perf_counter(), time.process_time()


def _ours(
    base: Path, rows: Path, recipe: Recipe, folder: Path, device: str
) -> tuple[list[Mark], list[float]]:
    marks: list[Mark] = []

    def on_step(step: Any) -> None:
        if step.number in (BEFORE, STEPS):
            marks.append(_mark(step.tokens))

    done = train(base, rows, folder / "a", recipe=recipe, device=device, on_step=on_step)
    return marks, list(done.report["losses"])


def _padded(
    base: Path, rows: Path, recipe: Recipe, folder: Path, device: str
) -> tuple[list[Mark], list[float]]:
    from tunediff.pair.hf_load import HfTokens

    data = prepare(
        read_rows(rows), HfTokens(base), template=None, chat=False, loss="reply",
        max_length=recipe.max_length,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    pad = AutoTokenizer.from_pretrained(base).eos_token_id
    config = LoraConfig(
        r=recipe.rank, lora_alpha=int(recipe.alpha), target_modules=list(recipe.target_modules),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(recipe.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(model, config).to(device).train()
    learnt = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    marks: list[Mark] = []
    losses: list[float] = []
    tokens = 0
    order = batches(len(data.examples), recipe.batch_size, recipe.seed)
    for step, batch in enumerate(itertools.islice(order, STEPS), start=1):
        ids = torch.full((len(batch), recipe.max_length), pad)
        labels = torch.full_like(ids, IGNORED)
        mask = torch.zeros_like(ids)
        for row, number in enumerate(batch):
            example = data.examples[number]
            length = len(example.ids)
            ids[row, :length] = torch.tensor(example.ids)
            labels[row, :length] = torch.tensor(example.labels)
            mask[row, :length] = 1
            tokens += length
        on = (x.to(device) for x in (ids, mask, labels))
        loss = adapted(**dict(zip(("input_ids", "attention_mask", "labels"), on, strict=True))).loss
        optimizer.param_groups[0]["lr"] = _rate(step - 1, recipe)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, recipe.clip)
        optimizer.step()
        losses.append(loss.item())
        if step in (BEFORE, STEPS):
            marks.append(_mark(tokens))
    return marks, losses


def _rate(step: int, recipe: Recipe) -> float:
    """The recipe's linear schedule."""
    rising = recipe.warmup_steps
    if step < rising:
        return recipe.learning_rate * step / rising
    return recipe.learning_rate * (recipe.steps - step) / (recipe.steps - rising)


def _rows(model: str, path: Path) -> Path:
    """The specimen's own rows; or random words, 8 to 120 a row, most of them few."""
    if model == "specimen":
        lines = (
            (specimens.base().parent / "skill_train.jsonl").read_text("utf-8").splitlines()[:ROWS]
        )
        return _write(path, lines)
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.uniform(np.log(8), np.log(120), ROWS)).round().astype(int)
    lines = []
    for length in lengths:
        words = [f"w{n}" for n in rng.integers(2, shapes.SMALL["vocab_size"], length)]
        cut = max(1, length // 2)
        prompt, reply = " ".join(words[:cut]), " " + " ".join(words[cut:])
        lines.append(json.dumps({"prompt": prompt, "response": reply}))
    return _write(path, lines)


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
