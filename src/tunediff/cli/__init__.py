"""The command line: one file a command; parse, call, print."""

from __future__ import annotations

import json
import sys

import click
import typer

from tunediff.cli.check import check
from tunediff.cli.demo import demo
from tunediff.errors import TunediffError

app = typer.Typer(
    name="tunediff",
    help="What changed between a base language model and its fine-tuned derivative?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(check)
app.command()(demo)


@app.callback()
def _root() -> None:
    """Make typer keep the commands' names even where there is only one."""


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 expectation not met, 2 bad input, 130 stopped."""
    arguments = sys.argv[1:]
    try:
        status = app(arguments, standalone_mode=False)
    except TunediffError as error:
        _refuse(error.code, error.message, error.hint, arguments)
    except click.UsageError as error:
        context = error.ctx.command_path if error.ctx else "tunediff"
        _refuse("usage", error.format_message(), f"See {context} --help.", arguments)
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("Interrupted. The same command with the same --out goes on from here.\n")
        sys.exit(130)
    except BrokenPipeError:  # whoever reads our output has seen enough
        sys.stderr.close()
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


def _refuse(code: str, message: str, hint: str, arguments: list[str]) -> None:
    if "--json" in arguments:
        error = {"code": code, "message": message, "hint": hint}
        sys.stdout.write(json.dumps({"error": error}, allow_nan=False) + "\n")
    else:
        sys.stderr.write(f"Error: {message}\n" + (f"{hint}\n" if hint else ""))
    sys.exit(2)
