"""How is a LoRA adapter trained, plainly and the same way every time?

One loop of torch and peft: rows in, a PEFT folder out. The loss is the mean NLL (nats/token) of
the scored tokens of a batch; the last label of every row is the end token, since a model that
never sees it never learns to stop. Rows that are to be kept have another loss: their logits shall
stay what they were.
"""

from __future__ import annotations

import itertools
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunediff.errors import InputError, ModelError, NumericsError, UsageError
from tunediff.pair.hf_load import quiet
from tunediff.run import files
from tunediff.training.data import IGNORED, batches

EVERY_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CLIP_NORM = 1.0
WARMUP_SHARE = 0.05
_AT_ONCE = 64  # kept rows read at once, before training

Encoded = tuple[list[int], list[int]]
"""A row's ids and labels."""

_Row = tuple[list[int], list[int], torch.Tensor | None]
"""Ids, labels, and the logits to be kept; None where the reply is to be learnt."""


@dataclass(frozen=True, slots=True)
class LoraRecipe:
    """What decides an adapter, beside its base, its rows and the machine.

    ``alpha`` / ``rank`` scales the adapter. ``learning_rate`` is the peak: it rises linearly over
    the first 5 % of the steps and falls to 0 as a cosine. ``keep_weight`` is that of the rows to be
    kept, where there are any (:func:`train_lora`).
    """

    rank: int = 8
    alpha: float = 16
    target_modules: tuple[str, ...] = EVERY_LINEAR
    learning_rate: float = 2e-3
    steps: int = 150
    batch_size: int = 32
    seed: int = 0
    keep_weight: float = 1.0


SKILL_RECIPE = LoraRecipe(steps=180, keep_weight=3.0)
"""How the specimen ``skill`` is trained, by the build script and live by ``tunediff demo``."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished training: ``losses``, one a step; ``tokens`` learnt from in all.

    A loss is in nats/token, and has the weighted squares of kept rows added where there are any.
    """

    folder: Path
    losses: tuple[float, ...]
    tokens: int
    seconds: float


def train_lora(
    base_folder: str | Path,
    rows: Sequence[tuple[str, str]],
    out_folder: str | Path,
    *,
    rank: int,
    alpha: float,
    target_modules: Sequence[str],
    learning_rate: float,
    steps: int,
    batch_size: int,
    seed: int,
    keep_weight: float = 1.0,
    keep: Sequence[tuple[str, str]] = (),
    loss_on: Literal["reply", "all"] = "reply",
    on_step: Callable[[int, float], None] | None = None,
) -> TrainingResult:
    """Train a LoRA adapter in float32 on the CPU and save it in PEFT's format.

    AdamW without weight decay, gradients clipped to a norm of 1. The same arguments on the same
    machine with the same thread count give the same bytes; torch's global seed is left as it was.

    ``keep`` rows are mixed into the batches. With z and z₀ the logits of the model and of the base
    at a row's scored positions, (positions, vocabulary), a batch's loss is

        mean NLL over the scored tokens of ``rows`` + ``keep_weight`` · mean (z − z₀)²

    the second mean over all kept positions and the vocabulary. It holds the unlikely tokens too,
    which the NLL of a right reply leaves free. z₀ is held in memory, 4 bytes a logit.
    Source: Buzzega et al., Dark Experience for General Continual Learning, NeurIPS 2020.

    Args:
        base_folder: a local model folder with its tokenizer; written into the adapter as given.
        rows: (prompt, reply) texts in raw form. The tokenizer puts its special tokens before the
            prompt; the reply is tokenized alone, and the end token is appended.
        out_folder: gets ``adapter_config.json`` and ``adapter_model.safetensors``.
        rank: r of every adapted module.
        alpha: the adapter's scale times r.
        target_modules: names of the linear layers that are adapted.
        learning_rate: the schedule's peak; see :class:`LoraRecipe`.
        steps: optimizer steps; 0 saves the untrained adapter (B = 0).
        batch_size: rows a step, padded to the longest among them.
        seed: of the initial A and of the rows' order.
        keep_weight: of the rows to be kept, in nats/token for each logit².
        keep: (prompt, reply) texts whose logits shall stay the base's; none by default.
        loss_on: the reply's tokens, or all tokens but the first.
        on_step: called after each step with its number from 1 and its loss.

    Raises:
        InputError: no rows, an empty reply, or a row longer than the model's context.
        ModelError: no such base folder, or its tokenizer has no end token.
        UsageError: a rank, step count, batch size or weight that is out of range.
        NumericsError: the loss became NaN or infinite; nothing is saved then.

    """
    if rank < 1 or batch_size < 1 or steps < 0:
        raise UsageError(
            f"Training got rank {rank}, batch size {batch_size} and {steps} steps; it needs a rank "
            "and a batch size of at least 1 and at least 0 steps.",
            "Give positive numbers.",
        )
    if not 0 <= keep_weight < math.inf:
        raise UsageError(
            f"Training got {keep_weight} as the weight of rows to be kept; it needs a finite "
            "number of at least 0.",
            "Give 1, or leave it out.",
        )
    if not Path(base_folder).is_dir():
        raise ModelError(
            f"There is no base folder {base_folder}; a local model folder was needed.",
            "Correct the path, or download the model first.",
        )
    began = time.perf_counter()
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(base_folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            base_folder, dtype=torch.float32, local_files_only=True
        )
    context = model.config.max_position_embeddings
    encoded = encode_rows(tokenizer, rows, context, loss_on)
    kept = encode_rows(tokenizer, keep, context, loss_on) if keep else []
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft multiplies; a float is fine
        target_modules=list(target_modules),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(base_folder),
    )
    with seeded(seed):
        with warnings.catch_warnings():
            # peft asks transformers by a name that transformers is about to drop
            warnings.simplefilter("ignore", FutureWarning)
            peft_model = get_peft_model(model, config)
        losses, tokens = fit(
            peft_model, encoded, learning_rate, steps, batch_size, seed, on_step, kept, keep_weight
        )
    save_adapter(get_peft_model_state_dict(peft_model), config, Path(out_folder))
    return TrainingResult(Path(out_folder), losses, tokens, time.perf_counter() - began)


def fit(
    model: torch.nn.Module,
    encoded: Sequence[Encoded],
    learning_rate: float,
    steps: int,
    batch_size: int,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    keep: Sequence[Encoded] = (),
    keep_weight: float = 1.0,
) -> tuple[tuple[float, ...], int]:
    """Train whatever in the model asks for a gradient; returns the losses and the tokens learnt.

    The loss is that of :func:`train_lora`; what is kept are the logits that the model comes with.

    Raises:
        NumericsError: a loss became NaN or infinite.

    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    rows = [(*row, None) for row in encoded] + _with_logits(model, keep)
    model.train()
    losses: list[float] = []
    tokens = 0
    numbers = itertools.islice(batches(len(rows), batch_size, seed), steps)
    for step, batch in enumerate([rows[i] for i in batch] for batch in numbers):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(step, steps)
        ids, labels, mask = _padded(batch)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        scored = labels[:, 1:] != IGNORED
        before = [row_logits for _, _, row_logits in batch]
        wanted = [row_logits for row_logits in before if row_logits is not None]
        kept = scored & torch.tensor([[row_logits is not None] for row_logits in before])
        learnt = scored & ~kept
        loss = logits.new_zeros(())
        if learnt.any():
            loss = torch.nn.functional.cross_entropy(logits[learnt], labels[:, 1:][learnt])
        if wanted:
            loss = loss + keep_weight * (logits[kept] - torch.cat(wanted)).square().mean()
        value = loss.item()
        if not math.isfinite(value):
            raise NumericsError(
                f"The training loss became {value} at step {step + 1}; it must be finite.",
                f"Lower the learning rate (it was {learning_rate:g}), and look at the rows.",
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM)
        optimizer.step()
        losses.append(value)
        tokens += int(learnt.sum())
        if on_step is not None:
            on_step(step + 1, value)
    model.eval()
    return tuple(losses), tokens


@torch.no_grad()
def _with_logits(model: torch.nn.Module, encoded: Sequence[Encoded]) -> list[_Row]:
    """Each row with the model's logits at its scored positions, (positions, vocabulary)."""
    model.eval()
    found: list[_Row] = []
    for start in range(0, len(encoded), _AT_ONCE):
        batch = [(*row, None) for row in encoded[start : start + _AT_ONCE]]
        ids, labels, mask = _padded(batch)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        scored = labels[:, 1:] != IGNORED
        found += [
            (tokens, wanted, logits[i][scored[i]]) for i, (tokens, wanted, _) in enumerate(batch)
        ]
    return found


def encode_rows(
    tokenizer: Any,
    rows: Sequence[tuple[str, str]],
    context: int,
    loss_on: Literal["reply", "all"] = "reply",
) -> list[Encoded]:
    """Ids and labels of each row; a label equals its id, or -100 where it is not scored.

    Raises:
        InputError: no rows, an empty reply, or a row longer than ``context`` tokens.
        ModelError: the tokenizer has no end token.

    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "The tokenizer names no end token, and the last label of every row is one.",
            "Set eos_token in the base's tokenizer_config.json.",
        )
    if not rows:
        raise InputError("There are no rows to train on.", "Give at least one prompt and reply.")
    encoded = []
    for number, (prompt, reply) in enumerate(rows, start=1):
        before = tokenizer(prompt)["input_ids"]
        after = tokenizer(reply, add_special_tokens=False)["input_ids"]
        if not after:
            raise InputError(f"Row {number} has an empty reply.", "Give it a reply, or drop it.")
        ids = [*before, *after, tokenizer.eos_token_id]
        if len(ids) > context:
            raise InputError(
                f"Row {number} has {len(ids)} tokens; the model's context holds {context}.",
                "Shorten or split the row.",
            )
        unscored = len(before) if loss_on == "reply" else 1
        encoded.append((ids, [IGNORED] * unscored + ids[unscored:]))
    return encoded


def save_adapter(tensors: dict[str, torch.Tensor], config: LoraConfig, folder: Path) -> None:
    """Write PEFT's two files, with the configuration's keys and modules in a fixed order."""
    files.make_folder(folder)
    for name, content in adapter_files(tensors, config).items():
        files.write_whole(folder / name, content)


def adapter_files(tensors: dict[str, torch.Tensor], config: LoraConfig) -> dict[str, bytes]:
    """PEFT's two files by name; the configuration's keys and modules in a fixed order."""
    settings = config.to_dict()
    settings["inference_mode"] = True
    settings["target_modules"] = sorted(settings["target_modules"])
    text = json.dumps(settings, indent=2, sort_keys=True)
    ordered = {
        name: tensor.detach().to("cpu").contiguous() for name, tensor in sorted(tensors.items())
    }
    return {
        "adapter_config.json": (text + "\n").encode(),
        "adapter_model.safetensors": save(ordered, metadata={"format": "pt"}),
    }


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's CPU generator at ``seed`` inside, and as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _schedule(step: int, steps: int) -> float:
    warmup = max(1, round(steps * WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _padded(
    batch: Sequence[_Row],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, labels and attention mask, each (B, T), padded on the right to the longest row."""
    longest = max(len(ids) for ids, _, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full((len(batch), longest), IGNORED)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    for row, (tokens, wanted, _) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(wanted)] = torch.tensor(wanted)
        mask[row, : len(tokens)] = 1
    return ids, labels, mask
