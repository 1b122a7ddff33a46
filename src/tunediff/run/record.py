"""What does ``run.json`` hold, and in what do two of them differ?

Its objects are strict JSON with sorted keys, so that the same record is the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tunediff.errors import NumericsError, RunError
from tunediff.run import tables

SCHEMA_VERSION = 2
_ABSENT = object()
RECORD = "run.json"
_HASH = re.compile(r"[0-9a-f]{40,}")
_DIFFERENCES = 4  # at most so many are named


def strict_json(value: Any) -> str:
    """One line of JSON with sorted keys; NaN and infinity are refused.

    Raises:
        NumericsError: a number is NaN or infinite.

    """
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise NumericsError(
            f"A number for the record is NaN or infinite: {error}.",
            "Only finite numbers are stored; a missing one is null with a reason.",
        ) from error


def json_lines(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """One line of strict JSON each."""
    return "".join(strict_json(line) + "\n" for line in lines).encode()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; none where there is no file."""
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except ValueError as error:
        raise tables.damaged(path, error) from error


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """The content of ``run.json``."""
    return (json.dumps(record, sort_keys=True, allow_nan=False, indent=1) + "\n").encode()


def read_record(folder: Path) -> Mapping[str, Any] | None:
    """The record of a run folder, or None where no run has begun there.

    Raises:
        RunError: it is damaged, or from another version of tunediff.

    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes(), object_hook=partial(_Object, path))
        version = record["schema_version"]
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise RunError(
                f"{path} has schema version {version}; this tunediff reads up to {SCHEMA_VERSION}.",
                "Install a newer tunediff.",
            )
        if isinstance(version, int) and version < SCHEMA_VERSION:
            raise RunError(
                f"{path} has schema version {version}, which an older tunediff wrote; this one "
                f"reads {SCHEMA_VERSION}.",
                "Run the command again with another --out.",
            )
        if not isinstance(record["found"]["parts"], int):
            raise TypeError("found.parts is not a whole number")
        _ = record["finished"], record["identity"].items()
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged_record(path, str(error)) from error
    return record


class _Object(dict[str, Any]):
    """An object of ``run.json``; a missing key is a damaged file, whoever asks for it."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise _damaged_record(self.path, f"it has no {key!r} where one is needed")


def _damaged_record(path: Path, what: str) -> RunError:
    return RunError(f"{path} is damaged: {what}.", "Choose another folder and run again.")


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What decides the numbers of two runs and differs, in words and without hashes."""
    found = list(_unequal(there, here))
    keys = {keys for keys, _, _ in found}
    # What is asked is kept as token ids: another tokenizer, template or limit changes them too.
    tops = {"base", "tuned", "max_length", "allow_truncation"} & {key[0] for key in keys}
    if tops or ("settings", "template") in keys:
        found = [line for line in found if line[0] != ("suite", "asked")]
    words = list(dict.fromkeys(_in_words(*line) for line in found))
    words.sort(key=lambda word: "(" in word)  # models and texts before settings
    more = len(words) - _DIFFERENCES
    return "; ".join(words[:_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _unequal(
    there: Any, here: Any, keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """The leaves in which two trees differ: their keys, and both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            a, b = there.get(name, _ABSENT), here.get(name, _ABSENT)
            yield from _unequal(a, b, (*keys, name))
    elif there != here:
        yield keys, there, here


def _in_words(keys: tuple[str, ...], there: Any, here: Any) -> str:
    hashed: dict[tuple[str, ...], str] = {
        ("suite", "asked"): "the texts",
        ("base", "fingerprint"): "the base model",
        ("tuned", "fingerprint"): "the tuned model or adapter",
    }
    if keys in hashed:
        return hashed[keys]
    if keys[0] == "measures":
        return "the measures"
    if keys[0] == "suites":
        return f"the suite {keys[1]!r}" if len(keys) > 1 else "the suites"
    named = {("suite", "name"): "the texts' name", ("tunediff",): "tunediff's version"}
    setting = keys[1:] if keys[0] == "settings" and len(keys) > 1 else keys
    name = named.get(keys, " ".join(setting).replace("_", " "))
    both = [_shown(value) for value in (there, here)]
    return name if None in both else f"{name} ({both[0]} there, {both[1]} here)"


def _shown(value: Any) -> str | None:
    """A setting's value; None for what says nothing to a person."""
    if isinstance(value, dict) or (isinstance(value, str) and _HASH.fullmatch(value)):
        return None
    return "none" if value is None else "absent" if value is _ABSENT else json.dumps(value)
