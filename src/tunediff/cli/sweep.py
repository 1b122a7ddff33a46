"""``tunediff sweep BASE DATA -o SWEEP``: train every combination, compare all with one base."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tunediff.cli import options
from tunediff.cli import recipe_options as recipes
from tunediff.cli.output import interruptible, printing
from tunediff.errors import UsageError


def sweep(
    base: options.Base,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="The rows to train on, as `train` reads them.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="SWEEP",
            help="Its folder. A sweep that was interrupted goes on in the cell where it stopped.",
        ),
    ],
    ranks: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Ranks, with commas between. Default, where no list is given: 8,16,32,64.",
        ),
    ] = None,
    learning_rates: Annotated[
        str | None, typer.Option(metavar="LIST", help="Peaks of the learning rate.")
    ] = None,
    steps: Annotated[str | None, typer.Option(metavar="LIST", help="Optimizer steps.")] = None,
    data_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Rows: the first so many of one shuffle, so that a smaller size is part of a "
            "larger one.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="LIST", help="Seeds of the training.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Held-out rows of prompt and reference: the target. Default: a share of DATA's "
            "prompts, which no cell is trained on.",
        ),
    ] = None,
    target_share: Annotated[
        float, typer.Option(metavar="SHARE", help="Of DATA's distinct prompts, that share.")
    ] = 0.1,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=PATH]",
            help="What else is asked, as in `compare`. Repeatable. Default: every built-in suite.",
        ),
    ] = None,
    axis: options.Axes = None,
    limit: options.Limit = None,
    max_new_tokens: options.NewTokens = 128,
    allow_truncation: options.AllowTruncation = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the held-out share, the shuffle and the resampling.")
    ] = 0,
    recipe: recipes.RecipeFile = None,
    alpha: recipes.Alpha = None,
    scale: Annotated[
        float | None,
        typer.Option(help="alpha / r of every cell, in the place of one alpha for all ranks."),
    ] = None,
    dropout: recipes.Dropout = None,
    target_modules: recipes.TargetModules = None,
    weight_decay: recipes.WeightDecay = None,
    schedule: recipes.Schedule = None,
    warmup: recipes.Warmup = None,
    batch_size: recipes.BatchSize = None,
    accumulation: recipes.Accumulation = None,
    max_length: recipes.MaxLength = None,
    clip: recipes.Clip = None,
    loss: recipes.Loss = None,
    template: recipes.Template = None,
    held_out: recipes.HeldOut = None,
    evaluate_every: recipes.EvaluateEvery = None,
    patience: recipes.Patience = None,
    packing: recipes.Packing = None,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Steps from one checkpoint to the next.")
    ] = 50,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32 or bfloat16, in training and comparing. Default: auto as in `train`, "
            "float32 as in `compare`."
        ),
    ] = None,
    device: options.Device = "auto",
    download: options.Download = False,
    revision: options.Revision = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be trained and what it would compute."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print sweep.json and nothing else.")
    ] = False,
) -> int:
    """Train every combination of the values given, and compare all with base, read once.

    SWEEP gets the adapters, the runs of the comparison, sweep.json and frontier.svg. A list with
    one value is that option of `train`; a cell is what `train` and `compare` make of its values.

    Exit codes: 0 done, also where some cells' loss was not finite (they are named and left out); 2
    bad input, or no cell could be trained; 70 a fault of tunediff itself, 130 interrupted.
    """
    given: dict[str, Any] = {
        "alpha": alpha, "dropout": dropout,
        "target_modules": target_modules and tuple(target_modules.split(",")),
        "weight_decay": weight_decay, "schedule": schedule, "warmup": warmup,
        "batch_size": batch_size, "accumulation": accumulation, "max_length": max_length,
        "clip": clip, "loss": loss, "template": template, "held_out": held_out,
        "evaluate_every": evaluate_every, "patience": patience, "packing": packing,
    }  # fmt: skip
    lists: tuple[tuple[str, str | None, Callable[[str], Any]], ...] = (
        ("ranks", ranks, int), ("learning_rates", learning_rates, float), ("steps", steps, int),
        ("data_sizes", data_sizes, int), ("seeds", seeds, int),
    )  # fmt: skip
    from tunediff.findings.scorecard import scorecard
    from tunediff.findings.sweep import summarize_sweep
    from tunediff.report.sweep import draw_plan, draw_sweep
    from tunediff.report.sweep_plot import sweep_plot
    from tunediff.report.tables import write_tables
    from tunediff.report.terminal import Printer
    from tunediff.report.training import training_bar
    from tunediff.run.files import write_whole
    from tunediff.studies import sweep as study
    from tunediff.studies import sweep_plan as planning
    from tunediff.studies.askable import require_askable
    from tunediff.values import Generation

    if scale is not None and alpha is not None:
        raise UsageError("--alpha and --scale both came.", "--scale is alpha / r: give one.")
    if dtype not in (None, "float32", "bfloat16"):
        raise UsageError(f"--dtype is {dtype!r}.", "Choose float32 or bfloat16, or leave it out.")
    axes = {name: _numbers(name, text, kind) for name, text, kind in lists if text is not None}
    printer = Printer()
    plan = planning.plan_sweep(
        base,
        data,
        recipes.recipe_of(recipe, given),
        axes,
        scale=scale,
        suites=suite or (),
        suite_axes=axis or (),
        target=target,
        target_share=target_share,
        limit=limit,
        seed=seed,
        device=device,
        download=download,
        revision=revision,
    )
    for name, count in plan.overlap.items():
        printer.note(f"{count:,} rows of {data} have the prompt of an item of {name}.")
    generation = Generation(max_new_tokens, 0.0, 1.0, (), seed) if max_new_tokens else None
    form = plan.cells[0].recipe.template
    require_askable(plan.base_folder, plan.suites, form, generation, allow_truncation)
    cells = planning.estimates(plan)  # refuses what no cell could be trained on
    if dry_run:
        with printing():
            if as_json:
                sys.stdout.write(json.dumps({"cells": cells}, allow_nan=False) + "\n")
            else:
                asked = {suite.name: len(suite.items) for suite in plan.suites}
                sys.stdout.write(draw_plan(printer.console, cells, asked))
        return 0
    kept = f"{out} keeps what was finished; the same command goes on from there."
    with interruptible(lambda: kept):
        planning.begin(plan, out)
        with training_bar(printer.errors) as update:
            reports, failed = study.train_cells(
                plan,
                out,
                dtype=dtype or "auto",
                checkpoint_every=checkpoint_every,
                on_step=update,
                notice=printer.note,
            )
        with printer.progress(tokens=False) as progress:
            runs = study.compare_cells(
                plan,
                out,
                list(reports),
                generation=generation,
                dtype=dtype or "float32",
                allow_truncation=allow_truncation,
                progress=progress,
                notice=printer.note,
            )
        card = scorecard(runs)
        write_tables(out / planning.COMPARE, runs, card)
        facts = study.facts_of(plan, out, reports, failed)
        result = summarize_sweep(facts, card, runs, plan.overlap)
        text = json.dumps(result, indent=1, allow_nan=False)
        write_whole(out / "sweep.json", (text + "\n").encode())
        write_whole(out / "frontier.svg", sweep_plot(result))
    with printing():
        if as_json:
            sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
        else:
            drawn = draw_sweep(printer.console, result)
            sys.stdout.write(f"{drawn}\nKept in {out}: sweep.json, frontier.svg, compare/\n")
    return 0


def _numbers(name: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    """The values of a list; which of them a recipe takes is the recipe's to say.

    Raises:
        UsageError: something between two commas is no number.

    """
    values = []
    for part in text.split(","):
        try:
            values.append(kind(part))
        except ValueError:
            raise UsageError(
                f"--{name.replace('_', '-')} has {part!r}; needed are "
                f"{'whole ' if kind is int else ''}numbers with commas between.",
                "Write it as in 8,16,32." if kind is int else "Write it as in 1e-4,2e-4.",
            ) from None
    return tuple(values)
