"""What is kept of a run, and in which files?

::

    runs/NAME/
      run.json                   what decides the numbers, and what was found at the beginning
      rows/part-00000.parquet    one line per observation: the columns of values.Row
      tokens/part-00000.parquet  per scored token of references and first replies, in float32
      texts/part-00000.jsonl     per text of those: all its token ids, and how they read
      probes/part-00000.jsonl    per item: the next token after the prompt, as both sides see it
      replies/part-00000.jsonl   per prompt and sample: both replies, where replies were asked for
      candidates/part-00000.parquet  what both sides expected in the items that differ most
      items.jsonl                what was asked, in a run of suites
      timing.jsonl               how long things took; outside every promise of identity
      ratings.json               what people said of the replies, where `rate --export` wrote it

A part is its files, rows last; it exists where all of them do and is then never redone. Each
file is written whole or not at all (:mod:`tunediff.run.files`), and the same rows give the same
bytes, so that a run that was killed and continued cannot be told from one that was not.
Candidates are chosen when all parts are there, and have parts of their own; ``finished`` counts
them.

In ``run.json``, ``identity`` decides the numbers, and a folder whose identity differs belongs to
another run; ``found`` was found when the run began (kernel, noise floor, certificate …) and is
kept when it goes on; ``finished`` is null until every part is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunediff.errors import RunError
from tunediff.run import files, tables
from tunediff.run.ratings import read_ratings
from tunediff.run.record import (
    RECORD,
    SCHEMA_VERSION,
    differences,
    json_lines,
    read_json_lines,
    read_record,
    record_bytes,
    strict_json,
)
from tunediff.values import Row

_TIMING = "timing.jsonl"
_ITEMS = "items.jsonl"
_LOCK = ".lock"
_CANDIDATES = "candidates"
_ENDINGS = {
    "replies": ".jsonl",
    "probes": ".jsonl",
    "texts": ".jsonl",
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
        record = read_record(folder)
        if record is None:
            raise RunError(
                f"{folder} is not a run folder: it has no {RECORD}.",
                "Give the folder that was given as --out.",
            )
        parts = record["found"]["parts"]
        missing = [k for k in range(parts) if not _has_part(folder, record, k)]
        if missing or not _is_finished(folder, record):
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

    def tokens(self, *, replies: bool = False) -> dict[str, np.ndarray]:
        """Every scored token: one array per name in ``tables.TOKEN_COLUMNS``, all equally long.

        ``suite``, ``item`` and ``of`` hold strings; ``position`` (index in the item) and ``token``
        (id) int32; the rest float32, in the units of the token metrics.

        Args:
            replies: those of both models' first replies too, not of references and texts alone.

        """
        found = _joined([tables.read_tokens(path) for path in self._paths("tokens")])
        if replies:
            return found
        kept = found["of"] == "reference"
        return {name: values[kept] for name, values in found.items()}

    def texts(self) -> list[dict[str, Any]]:
        """One mapping per text that ``tokens`` are of: ``suite, item, of, ids, pieces``.

        ``ids``: all token ids that the models read. ``pieces``: what each adds to the text.
        """
        return [line for path in self._paths("texts") for line in read_json_lines(path)]

    def candidates(self) -> dict[str, np.ndarray]:
        """What both sides expected: one array per name in ``tables.CANDIDATE_COLUMNS``.

        A line per scored position and rank, of the texts of the items that were looked at; empty
        where none were.
        """
        count = self.record["finished"]["candidates"]
        paths = [_part_path(self.folder, _CANDIDATES, k) for k in range(count)]
        parts = [tables.read_candidates(path) for path in paths]
        return _joined(parts) if parts else {n: np.empty(0) for n in tables.CANDIDATE_COLUMNS}

    def probes(self) -> list[dict[str, Any]]:
        """One mapping per item: what both sides expect after the prompt (or why not)."""
        return [line for path in self._paths("probes") for line in read_json_lines(path)]

    def replies(self) -> list[dict[str, Any]]:
        """One mapping per prompt and sample: ``suite``, ``item``, ``sample``, ``base``, ``tuned``.

        Either side has ``text``, ``ids`` (or null) and ``stop``. Empty where none were asked for.
        """
        if "replies" not in _tables(self.record):
            return []
        return [line for path in self._paths("replies") for line in read_json_lines(path)]

    def items(self) -> list[dict[str, Any]]:
        """What was asked: a mapping per item, in the order given. Empty in a run of ``check``.

        Raises:
            RunError: the file is lost, damaged, or not the one that was written.

        """
        path = self.folder / _ITEMS
        if "replies" not in _tables(self.record):
            return []
        if not path.is_file():
            raise RunError(
                f"{path} is missing, which holds what was asked.",
                "Run the same command with the same --out again; it writes the file anew.",
            )
        items = read_json_lines(path)
        if items_hash(items) != self.record["found"]["items_hash"]:
            raise tables.damaged(path, ValueError("it is not what the run was asked"))
        return items

    def timing(self) -> list[dict[str, Any]]:
        """How long things took; may be empty."""
        return read_json_lines(self.folder / _TIMING)

    def ratings(self) -> dict[str, Any] | None:
        """What people said of the replies, as ``tunediff rate --export`` wrote it, if it did.

        Raises:
            RunError: the file is damaged, or from a newer tunediff.

        """
        return read_ratings(self.folder)

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

    @property
    def finished(self) -> bool:
        """Whether the run was finished before, and its candidates are there."""
        return _is_finished(self.folder, self.record)

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
        texts: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Store part ``k``: rows, token columns (``tables.TOKEN_COLUMNS``) with a line for each of
        their texts, a probe per item scored and, in a run that was begun with replies, both
        replies to each prompt.

        Raises:
            NumericsError: a number is NaN or infinite, or a null effect has no reason.
            RunError: it could not be written; what was written before stays.

        """
        contents = {
            "replies": json_lines(replies),
            "probes": json_lines(probes),
            "texts": json_lines(texts),
            "tokens": tables.tokens_bytes(tokens),
            "rows": tables.rows_bytes(rows),
        }
        for table in _tables(self.record):
            files.write_whole(_part_path(self.folder, table, k), contents[table])

    def replies_of(self, k: int) -> list[dict[str, Any]]:
        """The replies of a part that exists, as :meth:`Run.replies` has them."""
        return read_json_lines(_part_path(self.folder, "replies", k))

    def tokens_of(self, k: int) -> dict[str, np.ndarray]:
        """The tokens of a part that exists, as :meth:`Run.tokens` has them, replies too."""
        return tables.read_tokens(_part_path(self.folder, "tokens", k))

    def has_candidates(self, k: int) -> bool:
        """Whether part ``k`` of the candidates exists."""
        return _part_path(self.folder, _CANDIDATES, k).is_file()

    def write_candidates(self, k: int, columns: Mapping[str, Any]) -> None:
        """Store part ``k`` of the candidates, a column for each of ``tables.CANDIDATE_COLUMNS``."""
        files.make_folder(self.folder / _CANDIDATES)
        path = _part_path(self.folder, _CANDIDATES, k)
        files.write_whole(path, tables.candidates_bytes(columns))

    def keep_items(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Store what is asked, once."""
        if not (self.folder / _ITEMS).is_file():
            files.write_whole(self.folder / _ITEMS, json_lines(items))

    def note_time(self, note: Mapping[str, Any]) -> None:
        """Add a line to ``timing.jsonl``, rewritten whole: a torn line could not be read."""
        path = self.folder / _TIMING
        files.write_whole(path, json_lines([*read_json_lines(path), note]))

    def finish(self, candidates: int = 0) -> Run:
        """Say that every part is there, of the candidates too, and count the items that failed."""
        failed = sum(
            probe["reason"] is not None
            for k in range(self.record["found"]["parts"])
            for probe in read_json_lines(_part_path(self.folder, "probes", k))
        )
        record = {**self.record, "finished": {"failed": failed, "candidates": candidates}}
        if record != self.record:
            files.write_whole(self.folder / RECORD, record_bytes(record))
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
            the number of parts, and ``replies``: true and the ``items_hash``, where replies and
            items are kept.

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
        for place in (folder, *(folder / table for table in (*_ENDINGS, _CANDIDATES))):
            files.remove_temporaries(place)
        continued = record is not None
        if record is None:
            record = {
                "schema_version": SCHEMA_VERSION,
                "identity": identity,
                "found": json.loads(strict_json(found())),
                "finished": None,
            }
            files.write_whole(folder / RECORD, record_bytes(record))
        for table in _tables(record):
            files.make_folder(folder / table)
        yield Recorder(folder, record, continued)


def items_hash(items: Sequence[Mapping[str, Any]]) -> str:
    """Of the lines of ``items.jsonl``, whose order a continued run may change."""
    return hashlib.sha256("\n".join(sorted(map(strict_json, items))).encode()).hexdigest()


def kept_parts(folder: Path) -> tuple[int, int] | None:
    """How many parts of its run a folder holds, of how many; None where no run has begun there.

    Raises:
        RunError: the run's record is damaged, or from a newer tunediff.

    """
    record = read_record(folder)
    if record is None:
        return None
    parts = record["found"]["parts"]
    return sum(_has_part(folder, record, k) for k in range(parts)), parts


def _same_run(folder: Path, identity: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record of the run in ``folder``, or None where a new one may begin there."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run needs a folder.", "Choose another name.")
    record = read_record(folder)
    if record is None:
        ours = {_LOCK, RECORD + files.TEMPORARY}
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
            f"{differences(record['identity'], identity)}.",
            "Choose another folder, or give the texts, models and settings that it began with.",
        )
    return record


def _part_name(k: int) -> str:
    return f"part-{k:05d}"


def _part_path(folder: Path, table: str, k: int) -> Path:
    return folder / table / (_part_name(k) + _ENDINGS.get(table, ".parquet"))


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _tables(record: Mapping[str, Any]) -> list[str]:
    """Which tables a run's parts have, in writing order."""
    return [t for t in _ENDINGS if t != "replies" or record["found"].get("replies", False)]


def _is_finished(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether the run was finished, and its candidates are there."""
    count = 0 if record["finished"] is None else record["finished"]["candidates"]
    paths = [_part_path(folder, _CANDIDATES, k) for k in range(count)]
    return record["finished"] is not None and all(path.is_file() for path in paths)


def _has_part(folder: Path, record: Mapping[str, Any], k: int) -> bool:
    return all(_part_path(folder, table, k).is_file() for table in _tables(record))
