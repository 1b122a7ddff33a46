"""The command line: one file a command; parse, call, print."""

from __future__ import annotations

import atexit
import gc
import io
import json
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from tunediff import __version__
from tunediff.cli.check import check
from tunediff.cli.compare import compare
from tunediff.cli.demo import demo
from tunediff.cli.dial import dial
from tunediff.cli.look import look
from tunediff.cli.output import Interrupted, printing
from tunediff.cli.rate import rate
from tunediff.cli.report import report
from tunediff.cli.sweep import sweep
from tunediff.cli.trace import trace
from tunediff.cli.train import train
from tunediff.errors import TunediffError

app = typer.Typer(
    name="tunediff",
    help="What changed between a base language model and its fine-tuned derivative?",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (check, compare, train, sweep, dial, trace, look, report, rate, demo):
    app.command()(command)

# click's own, or that of the copy of click inside newer versions of typer
_Misuse: type[Exception] = typer.BadParameter.__bases__[0]


def _say_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"tunediff {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say which this is."),
    ] = False,
) -> None:
    """Options of tunediff itself; what it does is its commands'."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 expectation not met, 2 bad input or a refused pair, 130 interrupted, 70 a
    fault of tunediff itself, with its traceback.
    """
    # At its end the interpreter collects garbage among all that torch and transformers made, which
    # takes over a second; frozen, it is left to the system.
    atexit.register(gc.freeze)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may know ASCII alone
    arguments, left = sys.argv[1:] or ["--help"], ""
    try:
        status = app(arguments, standalone_mode=False)
    except TunediffError as error:
        _refuse(error.code, error.message, error.hint, arguments)
    except _Misuse as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "tunediff"
        message = getattr(error, "format_message", error.__str__)()
        _refuse("usage", message, f"See {command} --help.", arguments)
    except OSError as error:
        _refuse("system", f"The system refused: {error}.", "Check disk and permissions.", arguments)
    except Interrupted as stop:
        status, left = 130, f" {stop}"
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except Exception:  # left to Python it would end in 1, which says "expectation not met"
        traceback.print_exc()
        sys.stderr.write("This is a fault of tunediff: please report it with the lines above.\n")
        status = 70
    if status == 130:
        sys.stderr.write(f"Interrupted.{left}\n")
    sys.exit(status if isinstance(status, int) else 0)


def _refuse(code: str, message: str, hint: str, arguments: list[str]) -> NoReturn:
    if "--json" in arguments:
        error = {"code": code, "message": message, "hint": hint}
        with printing():
            sys.stdout.write(json.dumps({"error": error}, allow_nan=False) + "\n")
    else:
        from tunediff.report.terminal import clean

        sys.stderr.write(f"Error: {clean(message)}\n" + (f"{clean(hint)}\n" if hint else ""))
    sys.exit(2)
