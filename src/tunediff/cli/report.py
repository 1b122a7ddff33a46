"""``tunediff report RUN``: one page to read, to share and to print."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from tunediff.cli.output import printing


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A folder that compare or check wrote with --out."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: RUN/report.html."),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option("--plots", metavar="DIR", help="Write each plot as PNG and SVG here too."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> int:
    """One HTML page of a run: what changed, item by item, and how it was found.

    The page is one file that asks no network for anything. It is made from the run folder alone:
    the same run gives the same page.

    Exit codes: 0 done, 2 no such run, or it cannot be written.
    """
    from tunediff.report.html import report as write_page
    from tunediff.report.html import save_plots

    path = write_page(run, output)
    lines = [str(path)]
    if plots is not None:
        lines.append(f"{len(save_plots(run, plots))} plots in {plots}, as PNG and SVG")
    with printing():
        sys.stdout.write("\n".join(lines) + "\n")
    if open_it:
        webbrowser.open(path.resolve().as_uri())
    return 0
