"""How do a base and a data file become an adapter?

Everything that bad input can spoil is looked at before the model is loaded; what is written is
written whole; the same call again goes on from the last checkpoint, or finds the adapter made.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunediff import __version__
from tunediff.errors import MissingExtraError, ModelError, UsageError
from tunediff.pair.folders import require_base
from tunediff.pair.hf_load import (
    HfTokens,
    context_length,
    device_of,
    full_config,
    load_model,
    quiet,
)
from tunediff.pair.open import resolve
from tunediff.pair.template import find_template, template_hash
from tunediff.run import files
from tunediff.scoring import precision
from tunediff.training import checkpoints
from tunediff.training.card import card
from tunediff.training.checkpoints import Checkpoints, History, Tensors
from tunediff.training.data import Data, prepare, read_rows, template_source
from tunediff.training.forward import Forward, Packing, try_packing
from tunediff.training.lora import adapter_files
from tunediff.training.recipe import ALL_LINEAR, Recipe, read_recipe, recipe_toml
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.files import few, has_adapter, hub_revision

if TYPE_CHECKING:
    from tunediff.training.trainer import Step, Trainer

SCHEMA = 1
NEEDED = ("trl", "accelerate", "datasets")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "safetensors", "numpy")


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training: the adapter's folder, and what its ``training.json`` holds."""

    folder: Path
    report: Mapping[str, Any]


def train(
    base: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    recipe: Recipe | str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    checkpoint_every: int = 50,
    keep_checkpoints: bool = False,
    download: bool = False,
    revision: str | None = None,
    on_step: Callable[[Step], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> Training:
    """Train a LoRA adapter on prompts and replies.

    The loss is the mean NLL (nats/token) of the scored tokens of a step. On a CPU the same call
    gives the same bytes, also where it was killed and went on.

    Args:
        base: a model folder, or a hub name.
        data: a JSONL, JSON, CSV or Parquet file; see :func:`tunediff.training.data.read_rows`.
        out: the adapter's folder: new, empty, or this training's own.
        recipe: a :class:`Recipe`, or a TOML file of one; None: the default.
        device: auto, cpu, cuda or mps.
        dtype: of the frozen base: float32, bfloat16, or auto: bfloat16 on a GPU that knows it where
            the base's own files are bfloat16, else float32. The adapter is float32.
        checkpoint_every: steps.
        keep_checkpoints: keep all of them, each a PEFT folder, and at the end too.
        download: fetch a hub name that is not local.
        revision: of ``base`` on the hub.
        on_step: called after each step.
        notice: called with a sentence on what a person should know.

    Raises:
        MissingExtraError: trl is not installed.
        UsageError, InputError, ModelError: what came cannot be trained on.
        RunError: the folder is another's, or could not be written.
        NumericsError: a loss or gradient was not finite; the last checkpoint is kept.

    """
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train")
    if not isinstance(recipe, Recipe):
        recipe = Recipe() if recipe is None else Recipe(**read_recipe(recipe))
    if checkpoint_every < 1:
        raise UsageError(f"checkpoint_every is {checkpoint_every}; at least 1 is needed.")
    out = Path(out)
    folder = resolve(str(base), download=download, revision=revision)
    refuse_adapter(folder)
    where, kind = device_of(device), Checkpoint.open(folder)
    base_dtype = _dtype(dtype, where, kind)
    read = read_rows(data)
    tokens = HfTokens(folder)
    own = find_template(folder)
    template = template_source(recipe.template, own)
    if recipe.template == "raw" and own is not None and read.form != "messages":
        notice("Prompts are given raw; the model has a chat template (--template chat).")
    config = full_config(kind)
    rows = prepare(
        read,
        tokens,
        template=template,
        chat=recipe.template != "raw",
        loss=recipe.loss,
        max_length=min(n for n in (recipe.max_length, context_length(config)) if n is not None),
        held_out=recipe.held_out,
        seed=recipe.seed,
    )
    renders = recipe.template != "raw" or read.form == "messages"
    settings = {
        "schema": SCHEMA,
        "base_fingerprint": kind.fingerprint(),
        "data_sha256": read.sha256,
        "template_sha256": template_hash(template) if renders and template is not None else None,
        "recipe": recipe.as_dict(),
        "device": where.type,
        "dtype": base_dtype,
    }
    kept = Checkpoints(out)
    if (there := checkpoints.finished(out, settings)) is not None:
        notice(f"{out} holds this very training, ended; nothing was trained again.")
        if not keep_checkpoints:
            kept.remove()
        return Training(out, there)
    with kept.begun(settings), _generators_kept():
        report = _train(
            str(base), folder, kind, tokens, rows, recipe, settings, where, kept,
            checkpoint_every, keep_checkpoints, on_step, notice,
        )  # fmt: skip
    if not keep_checkpoints:
        kept.remove()
    return Training(out, report)


def _train(
    name: str,
    folder: Path,
    kind: Checkpoint,
    tokens: HfTokens,
    data: Data,
    recipe: Recipe,
    settings: Mapping[str, Any],
    where: torch.device,
    kept: Checkpoints,
    every: int,
    keep_all: bool,
    on_step: Callable[[Step], None] | None,
    notice: Callable[[str], None],
) -> dict[str, Any]:
    began = time.perf_counter()
    goes_on = kept.last()
    if goes_on is not None:
        notice(f"Goes on after step {goes_on.step} of {recipe.steps}.")
    model = load_model(kind, DTYPES[settings["dtype"]], where)
    _require_known(data, model.get_input_embeddings().num_embeddings)
    for module in model.modules():
        if isinstance(module, nn.Dropout):  # the recipe's dropout is the adapter's alone
            module.p = 0.0
    kernel = precision.choose(where, DTYPES[settings["dtype"]])
    threads = precision.useful_threads(model.num_parameters())
    with precision.use(kernel), precision.threads(threads):
        packing = Packing(False, "The recipe says so.")
        if recipe.packing:
            packing = try_packing(model, data.examples)
            if not packing.used:
                notice(f"Rows are padded, not packed. {packing.reason}")
        lora = lora_config(model, recipe, name)
        torch.manual_seed(recipe.seed)
        with warnings.catch_warnings():
            # peft asks transformers by a name that transformers is about to drop
            warnings.simplefilter("ignore", FutureWarning)
            adapted: Any = get_peft_model(model, lora)

        def save(step: int, adapter: Tensors, state: Tensors, history: History) -> None:
            kept.save(step, adapter_files(adapter, lora), state, history, keep=keep_all)

        trainer = _trainer()(
            adapted,
            Forward(model, packing.used),
            tokens.tokenizer,
            data,
            recipe,
            kept.folder,
            goes_on=goes_on,
            save=save,
            save_every=every,
            on_step=on_step,
        )
        with quiet():
            tensors = trainer.run()
    contents = adapter_files(tensors, lora)
    history = trainer.history
    steps, best = len(history.losses), history.best
    report = {
        "made_by": f"tunediff train {__version__}",
        "settings": dict(settings),
        "base": {"path": name, "revision": hub_revision(folder)},
        "data": dict(data.report),
        "parameters": {
            "base": sum(p.numel() for p in model.parameters() if not p.requires_grad),
            "adapter": sum(tensor.numel() for tensor in tensors.values()),
        },
        "packing": {
            "used": packing.used, "reason": packing.reason, "difference": packing.difference,
        },
        "kernel": kernel,
        "threads": threads,
        "steps": steps,
        "stopped_early": steps < recipe.steps,
        "adapter_step": best[0] if recipe.patience and best else steps,
        "losses": history.losses,
        "held_out": [{"step": step, "loss": loss} for step, loss in history.held_out],
        "tokens": history.tokens,
        "scored_tokens": history.scored_tokens,
        "training_seconds": round(history.seconds, 3),
        "tokens_per_second": round(history.tokens / history.seconds, 1),
        "seconds": round(time.perf_counter() - began, 3),
        "resumed_at": history.resumed_at,
        "versions": {
            "python": platform.python_version(),
            "tunediff": __version__,
            **{package: version(package) for package in PACKAGES},
        },
    }  # fmt: skip
    contents |= {
        "recipe.toml": recipe_toml(recipe).encode(),
        "README.md": card(report).encode(),
        checkpoints.RESULT: (json.dumps(report, indent=2, allow_nan=False) + "\n").encode(),
    }
    for file, content in contents.items():  # the result last: where it is, the training has ended
        files.write_whole(kept.out / file, content)
    return report


def refuse_adapter(folder: Path) -> None:
    """Refuse what is no model, or is an adapter.

    Raises:
        ModelError: saying which.

    """
    if folder.is_dir() and has_adapter(folder):
        raise ModelError(
            f"{folder} is a PEFT adapter (or holds one beside a model), and BASE must be a plain "
            "model.",
            "Give the adapter's own base; to train further on top of it, merge it into its base "
            "first: PeftModel.from_pretrained(…).merge_and_unload().save_pretrained(…).",
        )
    require_base(folder)


def lora_config(model: nn.Module, recipe: Recipe, name: str) -> LoraConfig:
    """Peft's configuration of the recipe on this model.

    Raises:
        UsageError: a target module that the model does not have.

    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    linear = {
        path.rpartition(".")[2]: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    asked = sorted(linear) if recipe.target_modules == (ALL_LINEAR,) else recipe.target_modules
    unknown = [part for part in asked if part not in linear]
    if unknown:
        raise UsageError(
            f"The model has no target modules named {few(unknown)}.",
            f"It has {', '.join(sorted(linear))}; {ALL_LINEAR} takes them all.",
        )
    whole = recipe.alpha.is_integer()
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=int(recipe.alpha) if whole else recipe.alpha,  # type: ignore[arg-type]
        target_modules=list(asked),
        lora_dropout=recipe.dropout,
        fan_in_fan_out=any(isinstance(linear[part], Conv1D) for part in asked),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=name,
    )


def _trainer() -> type[Trainer]:
    """The class, from a module that imports trl, which takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what trl imports, while it does
        from tunediff.training.trainer import Trainer
    return Trainer


def _dtype(asked: str, device: torch.device, base: Checkpoint) -> str:
    if asked == "auto":
        stored = {tensor.dtype for tensor in base.tensors.values() if tensor.is_float}
        knows = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return "bfloat16" if knows and stored == {"BF16"} else "float32"
    if asked not in DTYPES:
        raise UsageError(
            f"The dtype {asked!r} is not one that is trained in.",
            f"Choose auto, {' or '.join(DTYPES)}.",
        )
    return asked


def _require_known(data: Data, vocabulary: int) -> None:
    highest = max(max(example.ids) for example in (*data.examples, *data.held_out))
    if highest >= vocabulary:
        raise ModelError(
            f"The tokenizer makes the token id {highest}, and the model knows {vocabulary} tokens.",
            "The tokenizer in the folder belongs to another model: put the model's own there.",
        )


@contextmanager
def _generators_kept() -> Iterator[None]:
    """The global generators, which trl and the dropout seed, are afterwards as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # trl's, not ours
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
