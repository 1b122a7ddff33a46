"""``tunediff look RUN [ITEM]``: one text, token by token, as both models read it."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tunediff.cli.output import printing
from tunediff.errors import UsageError
from tunediff.values import OF, Of

if TYPE_CHECKING:
    from tunediff.findings.microscope import Microscope, Reading
    from tunediff.run.store import Run

_RECORDED = "Recorded replies are known by their text alone: no token was scored."


def look(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, of compare --out or check --out.")
    ],
    item: Annotated[
        str | None,
        typer.Argument(
            metavar="[ITEM]",
            help="An item's id, or SUITE:ID. Without it: where the models differ most.",
        ),
    ] = None,
    by: Annotated[
        Literal["logp", "kl"],
        typer.Option(
            "--by",
            help="What is shown of each token: Δ ln p (tuned − base), or KL(base‖tuned).",
        ),
    ] = "logp",
    of: Annotated[
        Of | None,
        typer.Option(
            "--of",
            help="Whose text: the item's reference, or the reply of a model. Default: the first "
            "of these that there is.",
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant", metavar="NAME", help="Which tuned model, where RUN holds several."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, help="Without ITEM: spans listed.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Show one text of a run token by token, as both models read it; no model is needed.

    Every token is coloured by how much likelier or less likely tuning made it; below are the tokens
    that changed most, with what either model expected there, and the place where the two replies
    part. Without ITEM the spans are listed in which the models differ most.

    Exit codes: 0 done, 2 bad input, 70 a fault of tunediff itself.
    """
    from tunediff.findings.microscope import Microscope
    from tunediff.report.look import draw_item, draw_spans
    from tunediff.report.terminal import Printer
    from tunediff.run.looking import find_item

    run = _run(folder, variant)
    scope = Microscope.of(run)
    console = Printer().console
    if item is None:
        there: list[Of] = [whose for whose in OF if any(key[2] == whose for key in scope.keys)]
        of = of or (there[0] if there else None)
        spans = scope.worst_spans(count, "kl" if by == "kl" else "loss", of)
        found: dict[str, Any] = {"spans": [asdict(span) for span in spans]}
        found["looked_at"] = [list(key) for key in scope.looked_at]
        named = f"{spans[0].suite}:{spans[0].item}" if spans else "ITEM"
        command = shlex.join(["tunediff", "look", str(run.folder), named])
        why = _RECORDED if _is_recorded(run) else "No token of the run is such."
        drawn = draw_spans(console, spans, by, len(scope.looked_at), command, why)
    else:
        suite, id_ = find_item(item, scope.items)
        reading, why = _reading(run, scope, suite, id_, of)
        parting = scope.parting(suite, id_)
        found = {
            "suite": suite,
            "item": id_,
            "reading": None if reading is None else asdict(reading),
            "reason": why or None,
            "parting": None if parting is None else asdict(parting),
        }
        drawn = draw_item(console, scope, suite, id_, reading, by, why)
    with printing():
        sys.stdout.write(json.dumps(found, allow_nan=False) + "\n" if as_json else drawn)
    return 0


def _run(folder: Path, variant: str | None) -> Run:
    """The run of a folder, of the variant named where there are several."""
    from tunediff.run.variants import open_runs

    runs = {run.record["identity"]["variant"]: run for run in open_runs(folder)}
    if variant is None and len(runs) == 1:
        return next(iter(runs.values()))
    if variant in runs:
        return runs[variant]
    said = "none was named" if variant is None else f"--variant {variant} came"
    raise UsageError(
        f"{folder} holds {len(runs)} tuned model{'s' * (len(runs) != 1)}, {', '.join(runs)}; "
        f"{said}.",
        f"Add --variant {next(iter(runs))}.",
    )


def _is_recorded(run: Run) -> bool:
    return run.record["identity"]["settings"].get("backend") == "recorded"


def _reading(
    run: Run, scope: Microscope, suite: str, item: str, of: Of | None
) -> tuple[Reading | None, str]:
    """The text that is asked for, or why not one of the item was scored."""
    there: list[Of] = [whose for whose in OF if (suite, item, whose) in scope.keys]
    if of is None and there:
        of = there[0]
    if of in there:
        return scope.reading(suite, item, of), ""
    if there:
        raise UsageError(
            f"Of {suite}:{item} no text {of!r} was scored; there is {', '.join(there)}.",
            f"Choose --of {there[0]}.",
        )
    if _is_recorded(run):
        return None, _RECORDED
    reasons = [r.reason for r in run.rows() if (r.suite, r.item) == (suite, item) and r.reason]
    return None, f"No token of it was scored. {reasons[0] if reasons else ''}".strip()
