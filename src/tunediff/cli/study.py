"""What do the commands that dial one adapter do around their study?"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunediff.cli import options
from tunediff.cli.output import interruptible, printing
from tunediff.values import Generation


@contextmanager
def studying(
    out: Path | None,
    as_json: bool,
    template: str | None,
    max_new_tokens: int,
    opening: Mapping[str, Any],
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Within: a folder for the runs, and what every study is told; progress is shown."""
    from tunediff.report.terminal import Printer

    printer = Printer()
    kept = "What was finished is kept; the same command goes on from there."
    with (
        interruptible(None if out is None else lambda: kept),
        tempfile.TemporaryDirectory() as place,
        printer.progress(tokens=False) as progress,
    ):
        yield (
            Path(place) / "runs" if out is None else out,
            {
                "template": options.one_template(template) or ("raw" if as_json else None),
                "generation": Generation(max_new_tokens) if max_new_tokens else None,
                "progress": progress,
                "notice": printer.note,
                "opening": opening,
            },
        )


def say(
    card: Mapping[str, Any],
    out: Path | None,
    name: str,
    as_json: bool,
    draw: Callable[[Any, Mapping[str, Any]], str],
) -> None:
    """Keep the card as ``out/name`` and print it, drawn or as JSON."""
    from tunediff.report.terminal import Printer
    from tunediff.run import files

    text = json.dumps(card, allow_nan=False) + "\n"
    if out is not None:
        files.write_whole(out / name, text.encode())
    with printing():
        if as_json:
            sys.stdout.write(text)
            return
        sys.stdout.write(draw(Printer().console, card))
        left = "Nothing is kept; give --out FOLDER to keep the runs."
        sys.stdout.write(f"\n{left if out is None else f'Kept in {out}: {name}'}\n")
