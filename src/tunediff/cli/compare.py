"""``tunediff compare BASE TUNED [TUNED ...]``: what changed, and is it settled?"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from tunediff.cli import options
from tunediff.cli.output import interruptible, printing
from tunediff.errors import UsageError


def compare(
    context: typer.Context,
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE",
            help="Base model: a folder, or a hub name; or recorded:FILE.jsonl (id, prompt, reply).",
        ),
    ],
    tuned: Annotated[
        list[str],
        typer.Argument(
            metavar="TUNED...",
            help="LoRA adapters, merged or fully fine-tuned models; or recorded:FILE.jsonl.",
        ),
    ],
    suite: options.Suites = None,
    data: options.Data = None,
    axis: options.Axes = None,
    limit: options.Limit = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            metavar="NAME",
            help="Only this measure beside those that judge the axes; FILE.py:NAME is a Measure of "
            "your own. Repeatable. Default: every measure.",
        ),
    ] = None,
    template: Annotated[
        str,
        typer.Option(
            "--template",
            metavar="raw|chat|FILE|both",
            help="How prompts are given: as they are, by the model's chat template, by that of a "
            "file, or raw and chat both.",
        ),
    ] = "raw",
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="Replies to each prompt; needs --temperature.")
    ] = 1,
    max_new_tokens: Annotated[
        int,
        typer.Option("--max-new-tokens", min=0, help="Of a reply. 0: no replies are made."),
    ] = 128,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 is greedy.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", help="Of the sampling.")] = 1.0,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="A reply ends before it. Repeatable."),
    ] = None,
    look: Annotated[
        list[str] | None,
        typer.Option(
            "--look",
            metavar="ITEM",
            help="Keep what both models expected at each token of this item (its id, or SUITE:ID) "
            "for tunediff look, beside the 50 items of highest KL. Repeatable.",
        ),
    ] = None,
    intersect: Annotated[
        bool,
        typer.Option("--intersect", help="Of recorded replies, keep the ids that both have."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print summary.json and nothing else.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="RUN",
            help="Keep the run here, with outputs.csv, metrics.csv and summary.json; go on where "
            "it stopped.",
        ),
    ] = None,
    max_length: options.MaxLength = None,
    allow_truncation: options.AllowTruncation = False,
    dtype: options.Dtype = "float32",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    backend: Annotated[str, typer.Option("--backend", help="auto, hf, recorded or toy.")] = "auto",
    download: options.Download = False,
    revision: options.Revision = None,
) -> int:
    """What did tuning change: target, general ability, safety, fluency?

    Both models score the references and answer the prompts of the suites; every axis gets the
    effect of its primary measure, an interval, and a verdict against a margin stated before.
    Several tuned models are compared with the same base, which answers once.

    Exit codes: 0 done, 2 bad input or a refused pair, 70 a fault of tunediff itself, 130
    interrupted.
    """
    from tunediff.findings.scorecard import scorecard
    from tunediff.pair.open import RECORDED
    from tunediff.report.scorecard import draw
    from tunediff.report.tables import write_tables
    from tunediff.report.terminal import Printer
    from tunediff.studies.compare import choose_measures, measure_compare, suites_or_built_in
    from tunediff.values import Generation

    if samples > 1 and temperature == 0:
        raise UsageError(
            f"--samples {samples} came with a temperature of 0, at which all samples are the same.",
            "Add --temperature, such as 0.7.",
        )
    recorded = base.startswith(RECORDED)
    if recorded:
        _refuse_making(context)
    # of recorded replies the limit counts items that were answered
    of_rows = None if recorded else limit
    suites = suites_or_built_in(suite or (), options.one_file(data), axis or (), of_rows, recorded)
    generation = None
    if max_new_tokens and not recorded:
        generation = Generation(max_new_tokens, temperature, top_p, tuple(stop or ()), seed)
    measures = choose_measures(measure or ())
    printer = Printer()
    kept = "What was finished is kept; the same command goes on from there."
    with interruptible(None if out is None else lambda: kept), ExitStack() as stack:
        folder = out
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        with printer.progress(tokens=False) as progress:
            runs = measure_compare(
                base,
                tuned,
                suites,
                folder,
                template=None if not (as_json or _said(context, "template")) else template,
                generation=generation,
                samples=samples,
                limit=limit,
                look=look or (),
                notice=printer.note,
                measures=measures,
                progress=progress,
                seed=seed,
                max_length=max_length,
                allow_truncation=allow_truncation,
                opening={
                    "backend": backend,
                    "dtype": dtype,
                    "device": device,
                    "download": download,
                    "revision": revision,
                    "intersect": intersect,
                },
            )
        card = scorecard(runs)
        if out is not None:
            write_tables(out, runs, card)
        with printing():
            if as_json:
                sys.stdout.write(json.dumps(card, allow_nan=False) + "\n")
            else:
                sys.stdout.write(draw(printer.console, card, runs[0].replies()))
                if out is not None:
                    sys.stdout.write(f"\nKept in {out}: outputs.csv, metrics.csv, summary.json\n")
                else:
                    sys.stdout.write("\nNothing is kept; give --out RUN to keep the replies.\n")
    return 0


def _said(context: typer.Context, name: str) -> bool:
    """Whether an option was given, and is not its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _refuse_making(context: typer.Context) -> None:
    """Recorded replies were made before; what says how to make them would say nothing.

    Raises:
        UsageError: such an option was given.

    """
    names = ("samples", "max_new_tokens", "temperature", "top_p", "stop", "look")
    given = [f"--{name.replace('_', '-')}" for name in names if _said(context, name)]
    if given:
        raise UsageError(
            f"{', '.join(given)} came with recorded replies, which were made before.",
            "Leave it out." if len(given) == 1 else "Leave them out.",
        )
