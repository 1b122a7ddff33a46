"""How are rows, tokens and candidates laid out in Parquet, the same values in the same bytes?"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from tunediff.errors import NumericsError, RunError
from tunediff.values import Row

ROW_COLUMNS = tuple(field.name for field in fields(Row))
TEXT_KEY = ("suite", "item", "of")
"""Which text a line belongs to; ``of`` says whose it is, as in ``values.OF``."""
TOKEN_COLUMNS = (
    *TEXT_KEY,
    *("position", "token", "nll_base", "nll_tuned", "kl_base_tuned", "delta_p"),
)
CANDIDATE_COLUMNS = (
    *TEXT_KEY,
    *("position", "rank"),
    *("base_token", "base_p", "base_text", "tuned_token", "tuned_p", "tuned_text"),
)
_INTEGERS = ("position", "rank", "token", "base_token", "tuned_token")
_STRINGS = (*TEXT_KEY, "base_text", "tuned_text")


def damaged(path: Path, error: Exception) -> RunError:
    """The error of a file of a part that cannot be read."""
    return RunError(
        f"{path} is damaged: {error}.",
        "Delete this file and run the same command with the same --out again.",
    )


def read_rows(path: Path) -> list[Row]:
    """The observations of one part."""
    columns = _read(path, ROW_COLUMNS)
    values = zip(*(columns[name].to_pylist() for name in ROW_COLUMNS), strict=True)
    return [Row(*row) for row in values]


def read_tokens(path: Path) -> dict[str, np.ndarray]:
    """The scored tokens of one part, by name of column."""
    return _read_arrays(path, TOKEN_COLUMNS)


def read_candidates(path: Path) -> dict[str, np.ndarray]:
    """The candidates of one part, by name of column."""
    return _read_arrays(path, CANDIDATE_COLUMNS)


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    columns = _read(path, names)
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        column = columns[name].combine_chunks()
        if name in _STRINGS:  # few different ones: each is made once
            found = column.dictionary_encode()
            words = np.array([*found.dictionary.to_pylist(), None], dtype=object)
            which: Any = np.from_dlpack(found.indices)
            arrays[name] = words[which]
        else:
            arrays[name] = np.from_dlpack(column)
    return arrays


def _schema(table: str) -> Any:
    import pyarrow as pa

    if table == "rows":
        text, number = pa.string(), pa.float64()
        kinds: dict[str, Any] = dict.fromkeys(ROW_COLUMNS, text)
        kinds |= dict.fromkeys(("base_sum", "tuned_sum", "effect_sum"), number)
        kinds |= {"sample": pa.int32(), "count": pa.int64()}
        nullable = {"base_sum", "tuned_sum", "effect_sum", "reason"}
    else:
        kinds = dict.fromkeys(TOKEN_COLUMNS if table == "tokens" else CANDIDATE_COLUMNS)
        for name in kinds:
            whole = pa.int32() if name in _INTEGERS else pa.float32()
            kinds[name] = pa.string() if name in _STRINGS else whole
        nullable = set()
    return pa.schema([pa.field(name, kind, name in nullable) for name, kind in kinds.items()])


def rows_bytes(rows: Sequence[Row]) -> bytes:
    """The observations of one part as a Parquet file.

    Raises:
        NumericsError: a sum is not finite, or an effect is null without a reason.

    """
    for row in rows:
        sums = (row.base_sum, row.tuned_sum, row.effect_sum)
        if (row.effect_sum is None) != bool(row.reason) or not all(
            value is None or math.isfinite(value) for value in sums
        ):
            raise NumericsError(
                f"The row of {row.measure!r} on item {row.item!r} has sums {sums} and reason "
                f"{row.reason!r}; it needs finite sums, or a null effect with a reason.",
                "This is a fault of that measure, not of the data.",
            )
    return _parquet_bytes(
        "rows", {name: [getattr(row, name) for row in rows] for name in ROW_COLUMNS}
    )


def tokens_bytes(tokens: Mapping[str, Sequence[Any] | np.ndarray]) -> bytes:
    """The scored tokens of one part, a column for each of ``TOKEN_COLUMNS``, as a Parquet file.

    Raises:
        NumericsError: a number is not finite in float32.

    """
    _require_finite(tokens, TOKEN_COLUMNS[5:])
    return _parquet_bytes("tokens", tokens)


def candidates_bytes(candidates: Mapping[str, Sequence[Any] | np.ndarray]) -> bytes:
    """The candidates of one part, a column for each of ``CANDIDATE_COLUMNS``, as a Parquet file.

    Raises:
        NumericsError: a probability is not finite.

    """
    _require_finite(candidates, ("base_p", "tuned_p"))
    return _parquet_bytes("candidates", candidates)


def _require_finite(columns: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if not np.isfinite(np.asarray(columns[name], dtype=np.float32)).all():
            raise NumericsError(
                f"A token's {name} is NaN or infinite in float32.",
                "An item whose numbers are not finite must be given a reason by the pair.",
            )


def _array(values: Sequence[Any] | np.ndarray, kind: Any) -> Any:
    """An Arrow array from its buffers: ``pyarrow.array`` would import pandas, over a second."""
    import pyarrow as pa

    valid = np.array([value is not None for value in values], dtype=bool)
    bitmap = np.packbits(valid, bitorder="little")
    if pa.types.is_string(kind):
        encoded = [(value or "").encode() for value in values]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
        contents = [ends, b"".join(encoded)]
    else:
        filled = [0 if value is None else value for value in values]
        contents = [np.array(filled, dtype=kind.to_pandas_dtype())]
    buffers = [None if valid.all() else pa.py_buffer(bitmap), *map(pa.py_buffer, contents)]
    return pa.Array.from_buffers(kind, len(valid), buffers)


def _parquet_bytes(name: str, columns: Mapping[str, Any]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(name)
    arrays = [_array(columns[field.name], field.type) for field in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    # Every choice that shapes the bytes is stated, so that another default changes none.
    buffer = io.BytesIO()
    parquet.write_table(
        table,
        buffer,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=True,
        write_statistics=True,
        write_page_checksum=True,
        store_schema=False,
        row_group_size=1 << 20,
    )
    return buffer.getvalue()


def _read(path: Path, columns: Sequence[str]) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    if tuple(table.column_names) != tuple(columns):
        raise RunError(
            f"{path} has columns {table.column_names}; needed are {list(columns)}.",
            "It was written by another version of tunediff; run again into another folder.",
        )
    return table
