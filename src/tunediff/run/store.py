"""What is kept of a run, and in which files?

::

    runs/NAME/
      run.json                   what decides the numbers, and what was found at the beginning
      rows/part-00000.parquet    one line per observation: the columns of values.Row
      tokens/part-00000.parquet  per scored token, in float32
      probes/part-00000.jsonl    per item: the next token after the prompt, as both sides see it
      replies/part-00000.jsonl   per prompt and sample: both replies, where replies were asked for
      timing.jsonl               how long things took; outside every promise of identity

A part is its files, rows last; it exists where all of them do and is then never redone. Each
file is written whole or not at all (:mod:`tunediff.run.files`), and the same rows give the same
bytes, so that a run that was killed and continued cannot be told from one that was not.

In ``run.json``, ``identity`` decides the numbers, and a folder whose identity differs belongs to
another run; ``found`` was found when the run began (kernel, noise floor, certificate …) and is
kept when it goes on; ``finished`` is null until every part is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tunediff.errors import NumericsError, RunError
from tunediff.run import files, tables
from tunediff.values import Row

SCHEMA_VERSION = 1

_ABSENT = object()
_RECORD = "run.json"
_TIMING = "timing.jsonl"
_LOCK = ".lock"
_HASH = re.compile(r"[0-9a-f]{40,}")
_DIFFERENCES = 4  # at most so many are named
_ENDINGS = {
    "replies": ".jsonl",
    "probes": ".jsonl",
    "tokens": ".parquet",
    "rows": ".parquet",
}  # in writing order


@dataclass(frozen=True)
class Run:
    """A finished run folder, to be read.

    ``record`` is the content of ``run.json``.
    """

    folder: Path
    record: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Open a run folder.

        Raises:
            RunError: not a run folder, from a newer tunediff, or not finished.

        """
        folder = Path(folder)
        record = _read_record(folder)
        if record is None:
            raise RunError(
                f"{folder} is not a run folder: it has no {_RECORD}.",
                "Give the folder that was given as --out.",
            )
        parts = record["found"]["parts"]
        missing = [k for k in range(parts) if not _has_part(folder, record, k)]
        if missing or record["finished"] is None:
            names = ", ".join(_part_name(k) for k in missing[:5])
            named = f" ({names}{' …' if len(missing) > 5 else ''})" if missing else ""
            raise RunError(
                f"The run {folder} is not finished: {len(missing)} of its {parts} parts are "
                f"missing{named}.",
                "Run the same command with the same --out again; it goes on where it stopped.",
            )
        return cls(folder, record)

    def rows(self) -> list[Row]:
        """Every observation, in the order of the parts."""
        return [row for path in self._paths("rows") for row in tables.read_rows(path)]

    def tokens(self) -> dict[str, np.ndarray]:
        """Every scored token: one array per name in ``tables.TOKEN_COLUMNS``, all equally long.

        ``item`` holds strings; ``position`` (index in the item) and ``token`` (id) int32; the
        rest float32, in the units of the token metrics.
        """
        parts = [tables.read_tokens(path) for path in self._paths("tokens")]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def probes(self) -> list[dict[str, Any]]:
        """One mapping per item: what both sides expect after the prompt (or why not)."""
        return [line for path in self._paths("probes") for line in _read_json_lines(path)]

    def replies(self) -> list[dict[str, Any]]:
        """One mapping per prompt and sample: ``suite``, ``item``, ``sample``, ``base``, ``tuned``.

        Either side has ``text``, ``ids`` (or null) and ``stop``. Empty where none were asked for.
        """
        if "replies" not in _tables(self.record):
            return []
        return [line for path in self._paths("replies") for line in _read_json_lines(path)]

    def timing(self) -> list[dict[str, Any]]:
        """How long things took; may be empty."""
        return _read_json_lines(self.folder / _TIMING)

    def _paths(self, table: str) -> list[Path]:
        return [_part_path(self.folder, table, k) for k in range(self.record["found"]["parts"])]


@dataclass(frozen=True)
class Recorder:
    """The writing side of a run folder, held by one process; made by :func:`recording`.

    ``continued``: the run had begun before.
    """

    folder: Path
    record: Mapping[str, Any]
    continued: bool

    def has_part(self, k: int) -> bool:
        """Whether part ``k`` exists, and so need not be made."""
        return _has_part(self.folder, self.record, k)

    def write_part(
        self,
        k: int,
        rows: Sequence[Row],
        tokens: Mapping[str, Sequence[Any] | np.ndarray],
        probes: Sequence[Mapping[str, Any]],
        replies: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Store part ``k``: rows, token columns (``tables.TOKEN_COLUMNS``), a probe per item scored
        and, in a run that was begun with replies, both replies to each prompt.

        Raises:
            NumericsError: a number is NaN or infinite, or a null effect has no reason.
            RunError: it could not be written; what was written before stays.

        """
        contents = {
            "replies": _json_lines(replies),
            "probes": _json_lines(probes),
            "tokens": tables.tokens_bytes(tokens),
            "rows": tables.rows_bytes(rows),
        }
        for table in _tables(self.record):
            files.write_whole(_part_path(self.folder, table, k), contents[table])

    def replies_of(self, k: int) -> list[dict[str, Any]]:
        """The replies of a part that exists, as :meth:`Run.replies` has them."""
        return _read_json_lines(_part_path(self.folder, "replies", k))

    def note_time(self, note: Mapping[str, Any]) -> None:
        """Add a line to ``timing.jsonl``, rewritten whole: a torn line could not be read."""
        path = self.folder / _TIMING
        files.write_whole(path, _json_lines([*_read_json_lines(path), note]))

    def finish(self) -> Run:
        """Say that every part is there, and count the items that failed."""
        failed = sum(
            probe["reason"] is not None
            for k in range(self.record["found"]["parts"])
            for probe in _read_json_lines(_part_path(self.folder, "probes", k))
        )
        record = {**self.record, "finished": {"failed": failed}}
        if record != self.record:
            files.write_whole(self.folder / _RECORD, _record_bytes(record))
        return Run.open(self.folder)


@contextmanager
def recording(
    folder: Path | str,
    identity: Mapping[str, Any],
    found: Callable[[], Mapping[str, Any]],
) -> Iterator[Recorder]:
    """Begin a run in ``folder``, or go on with the same one.

    Args:
        folder: a new or empty folder, or one with a run of the same ``identity``.
        identity: what decides the numbers (JSON).
        found: called for a new run only: what is found at its beginning (JSON), with ``parts``,
            the number of parts, and ``replies``: true, where replies are kept.

    Raises:
        RunError: the folder belongs to another run or is not a run folder (nothing is written),
            another process writes to it, or it cannot be written.

    """
    folder = Path(folder)
    identity = json.loads(strict_json(identity))
    _same_run(folder, identity)
    files.make_folder(folder)
    with files.locked(folder / _LOCK):
        # Again, since another process may have begun its run between the look and the lock.
        record = _same_run(folder, identity)
        for place in (folder, *(folder / table for table in _ENDINGS)):
            files.remove_temporaries(place)
        continued = record is not None
        if record is None:
            record = {
                "schema_version": SCHEMA_VERSION,
                "identity": identity,
                "found": json.loads(strict_json(found())),
                "finished": None,
            }
            files.write_whole(folder / _RECORD, _record_bytes(record))
        for table in _tables(record):
            files.make_folder(folder / table)
        yield Recorder(folder, record, continued)


def kept_parts(folder: Path) -> tuple[int, int] | None:
    """How many parts of its run a folder holds, of how many; None where no run has begun there.

    Raises:
        RunError: the run's record is damaged, or from a newer tunediff.

    """
    record = _read_record(folder)
    if record is None:
        return None
    parts = record["found"]["parts"]
    return sum(_has_part(folder, record, k) for k in range(parts)), parts


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


def _record_bytes(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, sort_keys=True, allow_nan=False, indent=1) + "\n").encode()


def _same_run(folder: Path, identity: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record of the run in ``folder``, or None where a new one may begin there."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run needs a folder.", "Choose another name.")
    record = _read_record(folder)
    if record is None:
        ours = {_LOCK, _RECORD + files.TEMPORARY}
        strangers = sorted(p.name for p in folder.glob("*") if p.name not in ours)
        if strangers:
            raise RunError(
                f"{folder} is not empty and not a run folder (it holds {strangers[0]!r}).",
                "Choose a new or empty folder.",
            )
        return None
    if record["identity"] != identity:
        raise RunError(
            f"{folder} belongs to another run; these differ: "
            f"{_differences(record['identity'], identity)}.",
            "Choose another folder, or give the texts, models and settings that it began with.",
        )
    return record


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
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
    named = {("suite", "name"): "the texts' name", ("tunediff",): "tunediff's version"}
    setting = keys[1:] if keys[0] == "settings" else keys
    name = named.get(keys, " ".join(setting).replace("_", " "))
    both = [_shown(value) for value in (there, here)]
    return name if None in both else f"{name} ({both[0]} there, {both[1]} here)"


def _shown(value: Any) -> str | None:
    """A setting's value; None for what says nothing to a person."""
    if isinstance(value, dict) or (isinstance(value, str) and _HASH.fullmatch(value)):
        return None
    return "none" if value is None else "absent" if value is _ABSENT else json.dumps(value)


def _part_name(k: int) -> str:
    return f"part-{k:05d}"


def _part_path(folder: Path, table: str, k: int) -> Path:
    return folder / table / (_part_name(k) + _ENDINGS[table])


def _tables(record: Mapping[str, Any]) -> list[str]:
    """Which tables a run's parts have, in writing order."""
    return [t for t in _ENDINGS if t != "replies" or record["found"].get("replies", False)]


def _has_part(folder: Path, record: Mapping[str, Any], k: int) -> bool:
    return all(_part_path(folder, table, k).is_file() for table in _tables(record))


def _json_lines(lines: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(strict_json(line) + "\n" for line in lines).encode()


class _Object(dict[str, Any]):
    """An object of ``run.json``; a missing key is a damaged file, whoever asks for it."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise _damaged_record(self.path, f"it has no {key!r} where one is needed")


def _damaged_record(path: Path, what: str) -> RunError:
    return RunError(f"{path} is damaged: {what}.", "Choose another folder and run again.")


def _read_record(folder: Path) -> Mapping[str, Any] | None:
    path = folder / _RECORD
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
        if not isinstance(record["found"]["parts"], int):
            raise TypeError("found.parts is not a whole number")
        _ = record["finished"], record["identity"].items()
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged_record(path, str(error)) from error
    return record


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except ValueError as error:
        raise tables.damaged(path, error) from error
