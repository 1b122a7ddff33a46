"""Which rows does a file hold?

One function a format, from the file's characters (for Parquet: its path) to rows. A row knows
where it stands; what its columns mean is decided in ``forms.py``. A column that is null, or an
empty cell of a CSV file (which cannot say null), is None.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunediff.errors import InputError
from tunediff.items.bounds import FIELD_LIMIT, LINE_LIMIT, check_line, shown

REPLIES = ("reply", "response", "completion", "reference")  # four names for one column
# what a reply is held against
ANSWERS = ("choices", "answer", "label", "category", "constraints", "openings")
COLUMNS = ("id", "text", "prompt", *REPLIES, "messages", "axis", "group", *ANSWERS)
MARKER = "<|endoftext|>"
_SEPARATOR = re.compile(re.escape(MARKER) + r"(?:\r?\n)?")
_PARQUET_BATCH = 256  # rows decompressed at a time


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of one row, and "file:line"."""

    where: str
    values: Mapping[str, Any]


def from_txt(text: str, name: str) -> Iterator[Row]:
    """Texts between ``<|endoftext|>`` markers, or the whole file as one text.

    Each text is kept character for character, but for one newline at its end and the newline that
    ends a marker's own line. A marker may begin or end the file.
    """
    starts, ends = [0], []
    for match in _SEPARATOR.finditer(text):
        ends.append(match.start())
        starts.append(match.end())
    ends.append(len(text))
    spans = list(zip(starts, ends, strict=True))
    if len(spans) > 1:
        last = len(spans) - 1
        spans = [
            (start, end)
            for i, (start, end) in enumerate(spans)
            if i not in (0, last) or text[start:end].strip()
        ]
    line, counted = 1, 0
    for start, end in spans:
        line, counted = line + text.count("\n", counted, start), start
        yield Row(f"{name}:{line}", {"text": re.sub(r"\r?\n\Z", "", text[start:end])})


def from_jsonl(text: str, name: str) -> Iterator[Row]:
    """One JSON object a line; blank lines are skipped. Only a line feed ends a line."""
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{name}:{number}"
        check_line(len(line.encode("utf-8")), where)
        if line.strip():
            yield Row(where, _json_object(strict_json(line, where), where))


def from_json(text: str, name: str) -> Iterator[Row]:
    """A list of JSON objects."""
    decoder = _decoder()
    blank = re.compile(r"[ \t\r\n]*")

    def skip(at: int) -> int:
        return blank.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty text

    def line(at: int) -> str:
        return f"{name}:{text.count(chr(10), 0, at) + 1}"

    at = skip(0)
    if text[at : at + 1] != "[":
        raise InputError(
            f"{line(at)} does not begin a JSON list.",
            "Write [ {…}, {…} ], or one object a line in a .jsonl file.",
        )
    at = skip(at + 1)
    number, counted = 1 + text.count("\n", 0, at), at
    closed = text[at : at + 1] == "]"
    while not closed:
        number, counted = number + text.count("\n", counted, at), at
        where = f"{name}:{number}"
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise _not_json(error, name, where) from None
        yield Row(where, _json_object(value, where))
        at = skip(at)
        closed = text[at : at + 1] == "]"
        if not closed and text[at : at + 1] != ",":
            raise InputError(
                f"{line(at)} is not JSON: after an element came "
                f"{shown(text[at : at + 1]) if text[at:] else 'the end of the file'}, "
                "not a comma or ].",
                "Correct the file.",
            )
        at = at if closed else skip(at + 1)
    if text[at + 1 :].strip():
        raise InputError(f"{line(skip(at + 1))} goes on after the JSON list.", "Keep one list.")


def from_csv(text: str, name: str) -> Iterator[Row]:
    """Comma-separated, with a header, quoted by ``"``; a cell of lists or objects holds JSON."""
    rows = csv_cells(text, name)
    if not rows:
        return
    (header_where, header), *body = rows
    _refuse_twice(header, header_where)
    for where, cells in body:
        if len(cells) != len(header):
            raise InputError(
                f"{where} has {len(cells)} cells; the header has {len(header)} columns.",
                'Quote cells that hold commas, quotes or line ends: "like, this".',
            )
        values = {column: cell or None for column, cell in zip(header, cells, strict=True)}
        yield Row(where, values)


def csv_cells(text: str, name: str) -> list[tuple[str, list[str]]]:
    """Each row of a CSV file as "file:line" and its cells, the header among them."""
    limit = csv.field_size_limit(FIELD_LIMIT)
    try:
        return list(_csv_rows(text, name))
    finally:
        csv.field_size_limit(limit)


def from_parquet(path: Path, name: str) -> Iterator[Row]:
    """A Parquet table; ``messages`` is a list of structs or JSON text. Rows count from 0."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            _refuse_twice(columns, name)
            # other columns may be of any type and size: named in errors, never converted
            wanted = [column for column in columns if column in COLUMNS]
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH, columns=wanted):
                for values in batch.to_pylist():
                    yield Row(f"{name}:row {number}", dict.fromkeys(columns, "") | values)
                    number += 1
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: a text within {_PARQUET_BATCH} rows from row {number} is not UTF-8 "
            f"({error.reason} at its byte {error.start}).",
            "Write the table again with valid text.",
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{name} is not a readable Parquet file: {shown(str(error))}.",
            "Write it again, or give the rows as .jsonl.",
        ) from None


def strict_json(text: str, where: str) -> Any:
    """JSON without NaN, Infinity or a key that occurs twice in one object."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _not_json(error, None, where) from None


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice in one object")
    return values


def _not_json(error: Exception, name: str | None, where: str) -> InputError:
    """What is wrong, at the fault's own line where the whole file was parsed (``name``)."""
    what = str(error)
    if isinstance(error, json.JSONDecodeError):
        what = f"{error.msg} (column {error.colno})"
        where = where if name is None else f"{name}:{error.lineno}"
    elif isinstance(error, RecursionError):
        what = "nested too deeply"
    return InputError(f"{where} is not the JSON needed: {what}.", "Correct the line.")


def _json_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(
            f"{where} holds {shown(value)}, not a JSON object.",
            'Write each row as an object, such as {"text": "…"}.',
        )
    return value


def _csv_rows(text: str, name: str) -> Iterator[tuple[str, list[str]]]:
    # newline="" keeps line ends inside quoted cells as they are
    lines = io.StringIO(text, newline="")
    longest = max((len(line) for line in lines), default=0)
    lines.seek(0)
    if longest * 4 > LINE_LIMIT:  # a character has at most four bytes
        for number, line in enumerate(lines, 1):
            check_line(len(line.encode("utf-8")), f"{name}:{number}")
        lines.seek(0)
    reader = csv.reader(lines, strict=True)
    while True:
        where = f"{name}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{where} is not CSV: {error}.", 'Check the row\'s quotes: "say ""so""".'
            ) from None
        if cells:
            yield where, cells


def _refuse_twice(columns: list[str], where: str) -> None:
    for column in columns:
        if columns.count(column) > 1:
            raise InputError(
                f"{where} names the column {shown(column)} twice.", "Rename or delete one of them."
            )
