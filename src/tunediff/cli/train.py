"""``tunediff train BASE DATA -o ADAPTER``: LoRA supervised fine-tuning."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from tunediff.cli import recipe_options as options
from tunediff.cli.output import interruptible, printing


def train(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="Base model: a folder, or a hub name.")
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="JSONL, JSON, CSV or Parquet with prompt and response; instruction, input and "
            "output; or messages.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="ADAPTER",
            help="The adapter's folder. A training that was interrupted goes on from its last "
            "checkpoint.",
        ),
    ],
    recipe: options.RecipeFile = None,
    rank: options.Rank = None,
    alpha: options.Alpha = None,
    dropout: options.Dropout = None,
    target_modules: options.TargetModules = None,
    learning_rate: options.LearningRate = None,
    weight_decay: options.WeightDecay = None,
    schedule: options.Schedule = None,
    warmup: options.Warmup = None,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    accumulation: options.Accumulation = None,
    max_length: options.MaxLength = None,
    clip: options.Clip = None,
    loss: options.Loss = None,
    template: options.Template = None,
    held_out: options.HeldOut = None,
    evaluate_every: options.EvaluateEvery = None,
    patience: options.Patience = None,
    packing: options.Packing = None,
    seed: options.TrainingSeed = None,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Steps from one checkpoint to the next.")
    ] = 50,
    keep_checkpoints: Annotated[
        bool,
        typer.Option("--keep-checkpoints", help="Keep all of them, each an adapter by itself."),
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(
            help="Of the frozen base: float32, bfloat16, or auto: bfloat16 where its files and the "
            "GPU are. The adapter is float32."
        ),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a hub name that is not local.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Of BASE on the hub.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print training.json and nothing else.")
    ] = False,
) -> int:
    """Train a LoRA adapter on prompts and replies.

    ADAPTER gets PEFT's two files, training.json, loss.svg, recipe.toml and a model card; the
    figures in brackets are the recipe's defaults.

    Exit codes: 0 done, 2 bad input, a full disk or a loss that is not finite, 70 a fault of
    tunediff itself, 130 interrupted.
    """
    given: dict[str, Any] = {
        "rank": rank, "alpha": alpha, "dropout": dropout, "learning_rate": learning_rate,
        "target_modules": target_modules and tuple(target_modules.split(",")),
        "weight_decay": weight_decay, "schedule": schedule, "warmup": warmup, "steps": steps,
        "batch_size": batch_size, "accumulation": accumulation, "max_length": max_length,
        "clip": clip, "loss": loss, "template": template, "held_out": held_out,
        "evaluate_every": evaluate_every, "patience": patience, "packing": packing, "seed": seed,
    }  # fmt: skip
    from tunediff.report.terminal import Printer
    from tunediff.report.training import summary, training_bar
    from tunediff.report.training_plot import loss_plot
    from tunediff.run.files import write_whole

    whole = options.recipe_of(recipe, given)
    printer = Printer()
    with interruptible(lambda: _kept(out)), training_bar(printer.errors) as update:
        from tunediff.training.card import losses
        from tunediff.training.train import train as train_adapter

        done = train_adapter(
            base,
            data,
            out,
            recipe=whole,
            device=device,
            dtype=dtype,
            checkpoint_every=checkpoint_every,
            keep_checkpoints=keep_checkpoints,
            download=download,
            revision=revision,
            on_step=lambda s: update(s.number, s.steps, s.loss, s.tokens / s.seconds),
            notice=printer.note,
        )
    write_whole(out / "loss.svg", loss_plot(done.report))
    with printing():
        if as_json:
            sys.stdout.write(json.dumps(done.report, allow_nan=False) + "\n")
        else:
            said = summary(printer.console, done.report, losses(done.report))
            asked = f"tunediff compare {quote(base)} {quote(str(out))}{_form(done.report)}"
            sys.stdout.write(f"{said}\nKept in {out}. Compare:\n  {asked}\n")
    return 0


def _form(report: Mapping[str, Any]) -> str:
    """The option that asks prompts in the form that was learnt."""
    template = report["settings"]["recipe"]["template"]
    if template == "raw" and report["data"]["form"] == "messages":
        template = "chat"
    return "" if template == "raw" else f" --template {quote(template)}"


def _kept(out: Path) -> str:
    """What an interrupted training left behind."""
    kept = sorted(path.name for path in out.glob("checkpoints/step-*[0-9]"))
    if not kept:
        return f"No checkpoint was made in {out} yet."
    step = int(kept[-1].removeprefix("step-"))
    return f"{out} holds the checkpoint of step {step}; the same command goes on from there."
