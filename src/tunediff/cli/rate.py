"""``tunediff rate RUN``: what do people prefer, when they cannot know whose reply it is?"""

from __future__ import annotations

import json
import secrets
import sys
import webbrowser
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from tunediff.cli.output import printing
from tunediff.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from tunediff.rating.study import OpenStudy


def rate(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run of tunediff compare, kept with --out.")
    ],
    items: Annotated[
        int | None,
        typer.Option(
            "--items", metavar="N", min=1, help="How many are rated, drawn at random. Default: 20."
        ),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite", metavar="NAME", help="Only items of this suite. Repeatable. Default: all."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of which items are drawn. Default: 0.")
    ] = None,
    rater: Annotated[
        str | None,
        typer.Option("--rater", metavar="NAME", help="Begin as NAME; else the page asks."),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="On loopback. 0: any that is free.")
    ] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the address and open no browser.")
    ] = False,
    export: Annotated[
        bool,
        typer.Option(
            "--export", help="Serve no page: write RUN/ratings.json and print what people say."
        ),
    ] = False,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="With --export: raters by number, not by name.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --export: print ratings.json and nothing else.")
    ] = False,
) -> int:
    """Which replies do people prefer? A blind rating page on this machine.

    Every rater sees each prompt with both replies, in an order of their own and on sides that
    change, scores either from 1 to 5 and says which is better. A tenth of the items comes twice.
    Several people can rate at once; who comes back goes on. Ctrl-C ends it, and keeps all.

    Exit codes: 0 done, 2 bad input, 70 a fault of tunediff itself.
    """
    from tunediff.rating.study import open_study
    from tunediff.run.variants import open_runs

    if not export and (anonymous or as_json):
        raise UsageError("--anonymous and --json belong to --export.", "Add --export.")
    runs = open_runs(folder)
    if len(runs) > 1:
        raise UsageError(
            f"{folder} holds the runs of {len(runs)} tuned models, and people rate one at a time.",
            f"Give one of them: {', '.join(str(run.folder) for run in runs)}.",
        )
    if "suites" not in runs[0].record["identity"]:
        raise UsageError(f"{folder} is a run of tunediff check, which makes no replies.",
                         "Give a run of tunediff compare.")  # fmt: skip
    given = {"items": items, "seed": seed, "suites": suite or ()}
    if export:
        with closing(open_study(runs[0], **given, begin=False)) as study:
            _export(study, anonymous, as_json)
        return 0
    try:
        from tunediff.rating.app import rating_app
        from tunediff.rating.serve import HOST, listen, serve
    except ModuleNotFoundError as error:
        raise MissingExtraError((error.name or "starlette").partition(".")[0], "rate") from error
    # first what may be refused, then the study, which is kept
    with listen(port) as listening, closing(open_study(runs[0], **given)) as study:
        port, token = listening.getsockname()[1], secrets.token_urlsafe(24)
        address = f"http://{HOST}:{port}/{token}/" + (f"#{quote(rater)}" if rater else "")
        with printing():
            sys.stdout.write(
                f"{_begun(study)}\n\n  {address}\n\n"
                "Only this machine can open it, and only with the whole address. Every rating is\n"
                "kept as it is sent; Ctrl-C ends it.\n"
            )
        if sys.stdout.isatty() and not no_open:
            _open_browser(address)
        serve(rating_app(study, token, port), listening)
        with printing():
            sys.stdout.write(f"\n{_ended(study)}\n")
    return 0


def _open_browser(address: str) -> None:
    """Show the page, where there is a browser with a window of its own."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if type(browser) is not webbrowser.GenericBrowser:  # which would take over this terminal
        browser.open(address)


def _begun(study: OpenStudy) -> str:
    from tunediff.rating.showing import repeats
    from tunediff.report.terminal import clean

    count, variant = len(study.said), clean(study.run.record["identity"]["variant"], 30)
    twice = f", {repeats(count)} of them twice" if repeats(count) else ""
    return f"Rate {count} items{twice}: base against {variant}, blind, at"


def _ended(study: OpenStudy) -> str:
    from tunediff.report.terminal import clean

    rated = [f"{clean(s.rater)} {s.done} of {s.of}" for s in study.store.raters()]
    return (
        f"Ended. Rated: {', '.join(rated) or 'nothing'}. The same command goes on; with --export\n"
        "it says what people prefer."
    )


def _export(study: OpenStudy, anonymous: bool, as_json: bool) -> None:
    from tunediff.findings.scorecard import scorecard
    from tunediff.rating.study import export
    from tunediff.report.ratings import draw_ratings
    from tunediff.report.tables import SUMMARY, write_tables
    from tunediff.report.terminal import Printer
    from tunediff.run.ratings import FILE, write_ratings

    exported, folder = export(study, anonymous=anonymous), study.run.folder
    write_ratings(folder, exported)
    kept = [FILE]
    if (folder / SUMMARY).is_file():  # not in a variant's folder, whose tables lie above it
        write_tables(folder, [study.run], scorecard([study.run]))
        kept += ["metrics.csv", SUMMARY]
    with printing():
        if as_json:
            sys.stdout.write(json.dumps(exported, allow_nan=False) + "\n")
        else:
            sys.stdout.write(draw_ratings(Printer().console, exported))
            sys.stdout.write(f"\nKept in {folder}: {', '.join(kept)}\n")
