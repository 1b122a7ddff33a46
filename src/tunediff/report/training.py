"""What does a person read while an adapter is trained, and at the end?"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from tunediff.report.terminal import clean

_QUIET = 20.0  # seconds until the first line of progress in a log
_PAUSE = 30.0  # seconds from one such line to the next

Update = Callable[[int, int, float, float], None]
"""Takes a finished step's number, the number of steps, its loss, and tokens a second."""


@contextmanager
def training_bar(errors: Console) -> Iterator[Update]:
    """How far the training is: a bar in a terminal, in a log a plain line now and then."""
    if not (errors.is_interactive and sys.stderr.isatty()):
        yield _spoken(errors)
        return
    bar = Progress(
        TextColumn("Training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None, figures="")

        def update(number: int, steps: int, loss: float, speed: float) -> None:
            figures = f"loss {loss:.4f}, {speed:,.0f} tokens/s, left"
            bar.update(task, completed=number, total=steps, figures=figures)

        yield update


def _spoken(errors: Console) -> Update:
    said, first = time.monotonic() - _PAUSE + _QUIET, None

    def update(number: int, steps: int, loss: float, speed: float) -> None:
        nonlocal said, first
        now = time.monotonic()
        if first is None:
            first = (number, now)  # a training that goes on does not begin at 1
        elif now - said >= _PAUSE:
            left = (now - first[1]) / (number - first[0]) * (steps - number)
            line = f"Step {number} of {steps}: loss {loss:.4f}, {speed:,.0f} tokens/s, "
            errors.print(f"{line}{left:.0f} s left")
            said = now

    return update


def summary(console: Console, report: Mapping[str, Any], losses: str) -> str:
    """What was read and what came of it; ``losses``: the sentence of the model card."""
    data, recipe, parameters = report["data"], report["settings"]["recipe"], report["parameters"]
    gone = [f"{count:,} {why}" for why, count in data["dropped"].items() if count]
    lines = [
        f"Read {data['rows']:,} rows of {clean(data['file'])} ({data['form']}): "
        f"{data['trained']:,} trained on, {data['held_out']:,} held out, "
        f"{', '.join(gone) + ' dropped' if gone else 'none dropped'}, {data['cut']:,} cut at "
        f"{data['limit']:,} tokens."
    ]
    if data["first_dropped"]:
        lines.append(f"Dropped: {clean(', '.join(data['first_dropped']))}" + (
            ", …" if sum(data["dropped"].values()) > len(data["first_dropped"]) else ""
        ))  # fmt: skip
    if data["border_inside_a_token"]:
        lines.append(
            f"In {data['border_inside_a_token']:,} rows one token holds the end of the prompt and "
            "the beginning of the reply; begin replies with a blank, or end prompts with a line."
        )
    lines += [
        f"Adapter: {parameters['adapter']:,} parameters (r = {recipe['rank']}) on "
        f"{parameters['base']:,} of the base.",
        f"{report['steps']} steps, {report['tokens']:,} tokens ({report['scored_tokens']:,} "
        f"scored) in {report['training_seconds']:.1f} s: {report['tokens_per_second']:,.0f} "
        "tokens/s.",
        losses,
    ]
    with console.capture() as captured:
        for line in lines:
            console.print(Text(line))
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())
