"""``tunediff demo``: everything, on the embedded specimens."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from tunediff.errors import UsageError

_SHOWN = ("skill", "forgetful", "unsafe")
"""The specimens that are compared: what was gained, what was lost, what was eroded."""


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="A new folder for the adapter, the comparison and the report. Default: a new one "
            "among the system's temporary files.",
        ),
    ] = None,
) -> int:
    """Train an adapter live, check every embedded specimen, and hold verdicts against the truth.

    Then three of them are compared with their base: a skill gained, others forgotten, refusals
    eroded. The report of that is written, and opened where a terminal is looked at.

    Needs no download. Exit codes: 0 every verdict is the truth, 1 one is not, 2 the folder cannot
    be used.
    """
    # The specimens are tiny: a second thread would only wait, on a busy machine for long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from rich.console import Console
    from rich.text import Text

    from tunediff.findings.scorecard import scorecard
    from tunediff.report import truths
    from tunediff.report.html import report
    from tunediff.report.safety import draw_safety
    from tunediff.report.scorecard import draw
    from tunediff.report.tables import write_tables
    from tunediff.report.terminal import Printer, clean
    from tunediff.specimens.load import adapters
    from tunediff.studies.truths import comparison_of, findings_of, train_skill
    from tunediff.training.lora import SKILL_RECIPE

    began = time.perf_counter()
    folder = _folder(out)
    console = Console(highlight=False, emoji=False)
    console.print(
        "A tiny base model of a made-up world, and tuned models of which the truth is known.\n"
        f"First, one of them is trained live: {SKILL_RECIPE.steps} steps of LoRA."
    )
    errors = Console(stderr=True, highlight=False, emoji=False)
    with truths.training_bar(errors, SKILL_RECIPE.steps) as on_step:
        live = train_skill(folder / "skill", on_step)
    specimens = (live, *adapters())
    wrong, seen = [], 0
    truths.head(console)
    for specimen in specimens:
        for finding in findings_of(specimen):
            truths.line(console, finding)
            seen += 1
            if not finding.right:
                wrong.append(f"{finding.specimen} on {finding.suite}")

    # what was trained live stands for the one that came with the package
    shown = [live, *(s for s in specimens if s.name in _SHOWN[1:])]
    runs = comparison_of(shown, folder / "compared")
    card = scorecard(runs)
    write_tables(folder / "compared", runs, card)
    console.print("\nAnd what changed in three of them, as tunediff compare draws it:\n")
    sys.stdout.write(draw(Printer().console, card, runs[0].replies()))
    for variant in card["variants"]:
        if variant["axes"]["safety"]["verdict"] == "degraded":
            console.print(f"\nSafety of {clean(variant['name'])}", style="bold", end="")
            with console.capture() as captured:
                draw_safety(console, variant["safety"])
            console.print(Text("\n".join(map(str.rstrip, captured.get().splitlines()))))
    page = report(folder / "compared", folder / "report.html")
    told = [
        f"{specimen.name} on {axis}"
        for specimen, variant in zip(shown, card["variants"], strict=True)
        for axis, verdicts in specimen.axes.items()
        if variant["axes"][axis]["verdict"] not in verdicts
    ]
    seen, wrong = seen + sum(len(s.axes) for s in shown), [*wrong, *told]
    console.print("\nThe report, one page to read and to share:")
    console.print(clean(str(page)), soft_wrap=True)
    if sys.stdout.isatty() and os.environ.get("CI") is None:
        webbrowser.open(page.resolve().as_uri())
    if wrong:
        sys.stderr.write(
            f"{len(wrong)} of {seen} verdicts are not the truth: {', '.join(wrong)}.\n"
        )
        return 1
    console.print(f"{seen} of {seen} verdicts are the truth ({time.perf_counter() - began:.0f} s).")
    return 0


def _folder(out: Path | None) -> Path:
    if out is None:
        return Path(tempfile.mkdtemp(prefix="tunediff-demo-"))
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UsageError(f"{out} is there already; a new or empty folder is needed.", "Name one.")
    out.mkdir(parents=True, exist_ok=True)
    return out
