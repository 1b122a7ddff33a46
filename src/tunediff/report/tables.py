"""What does a comparison look like as files for a spreadsheet or for pandas?

``outputs.csv`` has a line per reply, ``metrics.csv`` a line per item and sample. A cell of text
that a spreadsheet would take for a formula gets an apostrophe in front; what was said is kept in
``replies/`` as it was.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunediff.findings.raters import kept_rows
from tunediff.run import files
from tunediff.run.store import Run

SUMMARY = "summary.json"
OUTPUTS = ("id", "prompt", "base_output", "tuned_output", "suite", "sample", "variant")
_KEYS = ("id", "suite", "axis", "sample", "variant")
# The seed's names for two of the measures.
_SEED = {
    "base_len": ("words", "base"),
    "tuned_len": ("words", "tuned"),
    "base_keyword_coverage": ("keyword_coverage", "base"),
    "tuned_keyword_coverage": ("keyword_coverage", "tuned"),
    "len_delta": ("words", "effect"),
    "coverage_delta": ("keyword_coverage", "effect"),
}


def write_tables(folder: Path, runs: Sequence[Run], summary: Mapping[str, Any]) -> None:
    """Write ``outputs.csv``, ``metrics.csv`` and ``summary.json`` beside the record."""
    files.write_whole(folder / "outputs.csv", _csv(OUTPUTS, outputs(runs)))
    header, lines = metrics(runs)
    files.write_whole(folder / "metrics.csv", _csv(header, lines))
    text = json.dumps(summary, allow_nan=False, indent=1, ensure_ascii=True)
    files.write_whole(folder / SUMMARY, (text + "\n").encode())


def outputs(runs: Sequence[Run]) -> Iterable[list[Any]]:
    """The lines of ``outputs.csv``, in the columns of :data:`OUTPUTS`."""
    for run in runs:
        prompts = {(i["suite"], i["id"]): prompt_of(i) for i in run.items()}
        for line in run.replies():
            key = (line["suite"], line["item"])
            said = [safe(line[side]["text"]) for side in ("base", "tuned")]
            yield [
                *(safe(line["item"]), safe(prompts[key]), *said),
                *(safe(line["suite"]), line["sample"], safe(run.record["identity"]["variant"])),
            ]


def metrics(runs: Sequence[Run]) -> tuple[list[str], list[list[Any]]]:
    """Header and lines of ``metrics.csv``: every measure's mean of either side, and its effect."""
    found: dict[tuple[str, ...], dict[str, dict[str, float | None]]] = {}
    names: set[str] = set()
    for run in runs:
        for row in (*run.rows(), *kept_rows(run)):
            key = (row.item, row.suite, row.axis, str(row.sample), row.variant)
            own = found.setdefault(key, {})
            if row.effect_sum is None or not row.count:
                continue
            names.add(row.measure)
            own[row.measure] = {
                side: None if part is None else part / row.count
                for side, part in (
                    ("base", row.base_sum),
                    ("tuned", row.tuned_sum),
                    ("effect", row.effect_sum),
                )
            }
    columns = [(name, side) for name in sorted(names) for side in ("base", "tuned", "effect")]
    empty: dict[str, float | None] = {}
    lines = []
    for key, own in found.items():
        wanted = (*_SEED.values(), *columns)
        numbers = [own.get(name, empty).get(side) for name, side in wanted]
        item, suite, axis, sample, variant = key
        lines.append([safe(item), safe(suite), axis, int(sample), safe(variant), *numbers])
    return [*_KEYS, *_SEED, *(f"{name}_{side}" for name, side in columns)], lines


def prompt_of(item: Mapping[str, Any]) -> str:
    """The text of an item that a person recognises it by."""
    if item["messages"]:
        return "\n".join(m["content"] for m in item["messages"][:-1])
    return item["prompt"] if item["prompt"] is not None else item["text"] or ""


def safe(text: str) -> str:
    """A cell that no spreadsheet computes: one that begins with = + - @ or a control character."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")  # else a lone \r in a cell is not quoted
    writer.writerow(header)
    writer.writerows(lines)
    return out.getvalue().encode("utf-8", "backslashreplace")
