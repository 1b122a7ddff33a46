"""How does a person watch a training and a table of verdicts come in?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

_LINE = "{:13} {:8} {:>9} {:>8}  {:22} {}"


class Finding(Protocol):
    """A verdict of ``check`` beside the truth."""

    @property
    def specimen(self) -> str: ...  # noqa: D102
    @property
    def suite(self) -> str: ...  # noqa: D102
    @property
    def truth(self) -> str: ...  # noqa: D102
    @property
    def verdict(self) -> str: ...  # noqa: D102
    @property
    def delta_nll(self) -> float: ...  # noqa: D102
    @property
    def kl(self) -> float: ...  # noqa: D102
    @property
    def right(self) -> bool: ...  # noqa: D102


@contextmanager
def training_bar(console: Console, steps: int) -> Iterator[Callable[[int, float], None]]:
    """Yield a function of (step, loss): a bar, or ten lines where there is no terminal."""
    if not console.is_terminal:
        every = max(1, steps // 10)

        def line(step: int, loss: float) -> None:
            if step % every == 0 or step == steps:
                console.print(f"step {step:4d} of {steps}, loss {loss:.4f}")

        yield line
        return
    columns = (
        TextColumn("Training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps, loss {task.fields[loss]:.4f}, left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=steps, loss=float("nan"))
        yield lambda step, loss: bar.update(task, completed=step, loss=loss)


def head(console: Console) -> None:
    """The table's first line."""
    titles = ("specimen", "suite", "ΔNLL", "KL", "verdict", "the truth?")
    console.print(Text(_LINE.format(*titles), style="bold"), soft_wrap=True)


def line(console: Console, finding: Finding) -> None:
    """One verdict, as soon as it is known."""
    text = _LINE.format(
        finding.specimen,
        finding.suite,
        f"{finding.delta_nll:+.4f}",
        f"{finding.kl:.2g}",
        finding.verdict,
        "yes" if finding.right else f"NO: {finding.truth}",
    )
    console.print(Text(text, style="" if finding.right else "red"), soft_wrap=True)
