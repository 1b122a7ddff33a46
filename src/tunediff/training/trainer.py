"""How does trl's trainer train exactly what the recipe says, and go on where it was killed?

:class:`Trainer` is trl's SFTTrainer with a forward pass and a loss of our own. The loss of a step
is Σ NLL / n over all n scored tokens of its rows, however they are spread over micro-batches.
Whatever is random is a function of the seed and the step (the order of the rows, dropout), so that
a training that goes on needs no generator's state.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tunediff.errors import NumericsError
from tunediff.training.checkpoints import Checkpoint, History, Tensors
from tunediff.training.data import IGNORED, Data, Example, batches
from tunediff.training.forward import Forward
from tunediff.training.recipe import Recipe

_HELD_OUT_ROWS = 8  # read at once
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True, slots=True)
class Step:
    """What a finished step was: its number from 1 of ``steps``, its loss, and the speed so far."""

    number: int
    steps: int
    loss: float
    tokens: int  # read in this run of the command, since a resumed one has a clock of its own
    seconds: float


Save = Callable[[int, Tensors, Tensors, History], None]
"""Keeps a checkpoint: step, adapter, trainer's tensors, history."""


class Trainer(SFTTrainer):
    """See the module; ``run`` trains.

    Args:
        model: the base with its adapter; only the adapter asks for gradients.
        forward: the base's own forward pass, which the adapter is part of.
        tokenizer: of the base; nothing is tokenized here.
        data: the rows.
        recipe: see :class:`Recipe`.
        folder: an existing folder; nothing is written to it here.
        goes_on: where an earlier run of this training stopped.
        save: keeps a checkpoint, every ``save_every`` steps.
        on_step: hears of each step.

    """

    loss_is_scaled_for_ga = True  # by the scored tokens of the whole step

    def __init__(
        self,
        model: PeftModel,
        forward: Forward,
        tokenizer: Any,
        data: Data,
        recipe: Recipe,
        folder: Path,
        *,
        goes_on: Checkpoint | None,
        save: Save,
        save_every: int,
        on_step: Callable[[Step], None] | None,
    ) -> None:
        self.recipe, self.forward, self.data = recipe, forward, data
        self.goes_on = goes_on
        self.history = History() if goes_on is None else goes_on.history
        self.keep, self.save_every, self.on_step = save, save_every, on_step
        self.best: Tensors = {}
        self.step_loss = 0.0
        self.began = self.clock = time.perf_counter()
        self.tokens_before = self.history.tokens
        self.learnt = [p for p in model.parameters() if p.requires_grad]
        cpu = self.learnt[0].device.type == "cpu"
        with warnings.catch_warnings():
            # transformers renames an argument that trl still sets
            warnings.filterwarnings(
                "ignore", message=".*gradient_checkpointing", category=FutureWarning
            )
            arguments = SFTConfig(
                output_dir=str(folder),
                use_cpu=cpu,
                bf16=False,  # the base has the dtype it was loaded in, the adapter float32
                seed=recipe.seed,
                max_steps=recipe.steps,
                per_device_train_batch_size=recipe.batch_size,
                gradient_accumulation_steps=recipe.accumulation,
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                lr_scheduler_type=_SCHEDULES[recipe.schedule],
                warmup_steps=recipe.warmup_steps,
                max_grad_norm=recipe.clip,
                optim="adamw_torch",
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
                remove_unused_columns=False,
                gradient_checkpointing=False,
                dataloader_pin_memory=False,
                average_tokens_across_devices=False,
                save_strategy="no",
                logging_strategy="no",
                logging_nan_inf_filter=False,
                report_to="none",
                disable_tqdm=True,
            )
        arguments._n_gpu = min(1, arguments.n_gpu)  # else rows are spread over every GPU
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"row": list(range(len(data.examples)))}),
            data_collator=self._collate,
            processing_class=tokenizer,
            callbacks=[_Watch(self)],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # asks for the scored tokens of the whole step

    def run(self) -> Tensors:
        """Train; returns the adapter's tensors, with patience those of the lowest held-out loss."""
        self.train()
        if self.recipe.patience and self.best:
            return self.best
        return get_peft_model_state_dict(self.model)

    def _collate(self, rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        examples = [self.data.examples[row["row"]] for row in rows]
        labels = [torch.tensor(example.labels) for example in examples]
        return {
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),  # are counted
            "examples": examples,
        }

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Every row of the steps that are left, in order."""
        size, done = self.recipe.batch_size, 0 if self.goes_on is None else self.goes_on.step
        left = itertools.islice(
            batches(len(self.data.examples), size, self.recipe.seed),
            done * self.recipe.accumulation,
            self.recipe.steps * self.recipe.accumulation,
        )
        return [row for batch in left for row in batch]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The micro-batch's share of the step's loss: Σ NLL / scored tokens of the whole step."""
        examples: list[Example] = inputs["examples"]
        total, count = self.forward.nll(examples)
        loss = total / int(num_items_in_batch)
        value = loss.item()
        if not math.isfinite(value):
            raise self._not_finite(f"The loss became {value}", self.state.global_step + 1, examples)
        self.step_loss += value
        self.history.tokens += sum(len(example.ids) for example in examples)
        self.history.scored_tokens += count
        return loss.to(self.args.device, torch.float32)

    def _clip_grad_norm(self, model: Any) -> Any:
        # the adapter's alone: to go through all modules costs a tenth of a small model's step
        return torch.nn.utils.clip_grad_norm_(self.learnt, self.recipe.clip)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm: Any = super()._get_grad_norm(model, grad_norm)
        if not math.isfinite(norm):  # the step would spoil the weights
            raise self._not_finite(f"The gradient's norm became {norm}", self.state.global_step + 1)
        return norm

    def _not_finite(self, what: str, step: int, examples: Sequence[Example] = ()) -> NumericsError:
        rows = ", ".join(example.where for example in examples)
        before = max(0, step - 1)
        kept = before - before % self.save_every
        left = f"The checkpoint of step {kept} is kept." if kept else "No checkpoint was made yet."
        return NumericsError(
            f"{what} at step {step}{f' (rows {rows})' if rows else ''}; it must be finite. {left}",
            f"Lower the learning rate (it is {self.recipe.learning_rate:g}), and look at the rows."
            + (" Another recipe needs another folder." if kept else ""),
        )

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it would go through every parameter at each step."""
        return 0

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean NLL of the held-out rows' scored tokens, nats/token."""
        rows, total, count = self.data.held_out, 0.0, 0
        self.forward.model.eval()
        for start in range(0, len(rows), _HELD_OUT_ROWS):
            examples = rows[start : start + _HELD_OUT_ROWS]
            found, scored = self.forward.nll(examples)
            if not math.isfinite(found.item()):  # the lowest of several could not be told
                what = f"The held-out loss became {found.item()}"
                raise self._not_finite(what, self.state.global_step, examples)
            total, count = total + found.item(), count + scored
        return total / count


class _Watch(TrainerCallback):
    """What happens around the steps."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        trainer, start = self.trainer, self.trainer.goes_on
        if start is not None:
            restore(start, trainer.model, others["optimizer"], others["lr_scheduler"])
            state.global_step = start.step
            trainer.history.resumed_at.append(start.step)
            trainer.best = best_of(start.trainer)
        elif trainer.data.held_out:
            trainer.history.held_out.append((0, trainer.held_out_loss()))
        trainer.began = trainer.clock = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        # dropout is a function of the seed and the step
        number = (self.trainer.recipe.seed << 32) + state.global_step
        torch.default_generator.manual_seed(number)
        if args.device.type == "cuda":
            torch.cuda.manual_seed(number)
        self.trainer.step_loss = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        trainer, recipe, step = self.trainer, self.trainer.recipe, state.global_step
        history = trainer.history
        history.losses.append(trainer.step_loss)
        last = step == recipe.steps
        if trainer.data.held_out and (last or step % recipe.evaluate_every == 0):
            history.held_out.append((step, trainer.held_out_loss()))
            if recipe.patience and history.stale == 0:
                trainer.best = {
                    name: tensor.detach().clone()
                    for name, tensor in get_peft_model_state_dict(trainer.model).items()
                }
            control.should_training_stop |= 0 < recipe.patience <= history.stale
        now = time.perf_counter()
        history.seconds += now - trainer.clock
        trainer.clock = now
        if trainer.on_step is not None:
            seconds, tokens = now - trainer.began, history.tokens - trainer.tokens_before
            trainer.on_step(Step(step, recipe.steps, trainer.step_loss, tokens, seconds))
        if step % trainer.save_every == 0 and not last and not control.should_training_stop:
            adapter = get_peft_model_state_dict(trainer.model)
            kept = moments(others["optimizer"]) | {f"best/{n}": t for n, t in trainer.best.items()}
            trainer.keep(step, adapter, kept, history)


def moments(optimizer: Any) -> Tensors:
    """AdamW's moments, ``exp_avg/NUMBER`` and ``exp_avg_sq/NUMBER`` in the parameters' order."""
    return {
        f"{name}/{number}": state[name].detach().cpu().contiguous()
        for number, state in optimizer.state_dict()["state"].items()
        for name in ("exp_avg", "exp_avg_sq")
    }


def best_of(trainer: Tensors) -> Tensors:
    """The adapter of the lowest held-out loss in a checkpoint; empty where none was kept."""
    return {n.removeprefix("best/"): t for n, t in trainer.items() if n.startswith("best/")}


def restore(start: Checkpoint, model: Any, optimizer: Any, schedule: Any) -> None:
    """Put adapter, optimizer and learning rate where they were after ``start.step`` steps."""
    set_peft_model_state_dict(model, start.adapter)
    whole = optimizer.state_dict()
    count = sum(len(group["params"]) for group in whole["param_groups"])
    whole["state"] = {
        number: {
            "step": torch.tensor(float(start.step)),
            **{name: start.trainer[f"{name}/{number}"] for name in ("exp_avg", "exp_avg_sq")},
        }
        for number in range(count)
    }
    optimizer.load_state_dict(whole)
    schedule.last_epoch, schedule._step_count = start.step, start.step + 1
    rates = [b * f(start.step) for b, f in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    schedule._last_lr = rates
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
