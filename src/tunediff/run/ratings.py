"""What did people say of a run's replies, as it lies in ``ratings.json``?

The file is made of ``ratings.sqlite``, in which the ratings are kept as they are sent, and can be
made again. Its ``summary`` is a copy for reading: figures are computed from ``ratings``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunediff.errors import RunError
from tunediff.run import files

FILE = "ratings.json"
SCHEMA_VERSION = 1
_TEXTS = ("rater", "suite", "item", "axis", "group", "a", "preference")


def write_ratings(folder: Path, exported: Mapping[str, Any]) -> None:
    """Keep what people said in a run folder."""
    text = json.dumps(exported, allow_nan=False, indent=1)
    files.write_whole(folder / FILE, (text + "\n").encode())


def read_ratings(folder: Path) -> dict[str, Any] | None:
    """What people said of a run, or None where there is no such file.

    Raises:
        RunError: the file is damaged, or from a newer tunediff.

    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_bytes())
        version = kept["schema_version"]
        if version > SCHEMA_VERSION:
            raise RunError(
                f"{path} has schema version {version}; this tunediff reads up to {SCHEMA_VERSION}.",
                "Install a newer tunediff.",
            )
        if not (isinstance(kept["variant"], str) and isinstance(kept["study"]["suites"], list)):
            raise TypeError("it does not say what was rated")
        if not (kept["ratings"] and all(map(_is_rating, kept["ratings"]))):
            raise TypeError("it holds what is no rating")
        if not _is_whole(kept["ratings"]):
            raise TypeError("a rating is there twice, or a second showing without the first")
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"{path} is damaged: {error}.",
            "Make it again with tunediff rate RUN --export, or delete it.",
        ) from error
    return kept


def _is_rating(line: Mapping[str, Any]) -> bool:
    return (
        all(isinstance(line[name], str) for name in _TEXTS)
        and isinstance(line["again"], bool)
        and all(type(line[side]) is int and 1 <= line[side] <= 5 for side in ("base", "tuned"))
        and line["preference"] in ("base", "tie", "tuned")
    )


def _is_whole(lines: Sequence[Mapping[str, Any]]) -> bool:
    once, again = (
        [(r["rater"], r["suite"], r["item"]) for r in lines if r["again"] is second]
        for second in (False, True)
    )
    return len({*once}) == len(once) and len({*again}) == len(again) and {*again} <= {*once}
