"""What does a safetensors file hold?

The header is read and checked here, and tensors are read straight from the bytes: NumPy has no
bfloat16 and no 8-bit floats, and each of them widens exactly to float32.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from tunediff.errors import TunediffError
from tunediff.weights.files import parse_json_object

HEADER_BYTES_CAP = 32 * 2**20  # about 200,000 tensors
TENSOR_COUNT_CAP = 200_000
BLOCK_ELEMENTS = 2**20  # 4 MB of float32: streams well, and never matters for memory

_RAW: Mapping[str, str] = {  # the type in the file -> NumPy's type of the same bytes
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


def _e4m3_values() -> np.ndarray:
    """Every value of the 8-bit float with 4 exponent bits, bias 7: no infinity, two NaNs."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    size = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), normal)
    size = np.where((code & 127) == 127, np.nan, size)
    return np.where(code > 127, -size, size).astype(np.float32)


_E4M3 = _e4m3_values()


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies: bytes ``begin`` to ``end`` of its file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether it holds numbers of a weight, not masks or packed integers."""
        return self.dtype in FLOATS

    def raw(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the elements ``start`` to ``stop`` as stored, flat, in the bytes' NumPy type."""
        kind = np.dtype(_RAW[self.dtype])
        stop = self.count if stop is None else stop
        return np.fromfile(
            self.file, kind, count=stop - start, offset=self.begin + start * kind.itemsize
        )

    def read(self) -> np.ndarray:
        """Return the whole tensor, float32 (float64 where it is stored so), in its shape."""
        return widened(self.raw(), self.dtype).reshape(self.shape)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all elements in flat blocks of float32 (or float64), in order."""
        for start in range(0, self.count, BLOCK_ELEMENTS):
            yield widened(self.raw(start, min(self.count, start + BLOCK_ELEMENTS)), self.dtype)


def widened(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Return stored elements as float32, exactly; float64 and wide integers as float64."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E5M2":
        return (raw.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if dtype == "F8_E4M3":
        return _E4M3[raw]
    if dtype in ("F64", "I64", "U64", "I32", "U32"):
        return raw.astype(np.float64)
    return raw.astype(np.float32)


def read_header(
    path: Path, error: type[TunediffError], *, bytes_cap: int | None = None
) -> dict[str, Tensor]:
    """Return every tensor of a safetensors file by name; no tensor is read.

    Raises ``error`` where the file is too large, or its header is not one: the tensors must cover
    the data without gap or overlap, each with as many bytes as its shape and type need.
    """
    size = path.stat().st_size
    if bytes_cap is not None and size > bytes_cap:
        raise error(f"{path} has {size:,} bytes; at most {bytes_cap:,} are read.")
    with path.open("rb") as handle:
        start = handle.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= size - 8:
            raise error(
                f"{path} is not a safetensors file: {size:,} bytes, header of {length:,}.",
                "It may be a partial download, or a git-lfs pointer: fetch it again.",
            )
        if length > HEADER_BYTES_CAP:
            raise error(
                f"The header of {path} has {length:,} bytes; at most {HEADER_BYTES_CAP:,} are read."
            )
        header = parse_json_object(handle.read(length), f"The header of {path}", error)
    header.pop("__metadata__", None)
    if len(header) > TENSOR_COUNT_CAP:
        raise error(f"{path} holds {len(header):,} tensors; at most {TENSOR_COUNT_CAP:,} are read.")
    found = {name: _tensor(path, name, entry, 8 + length, error) for name, entry in header.items()}
    position = 8 + length
    for name, tensor in sorted(found.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if tensor.begin != position:
            raise error(f"{path}: the tensor {name} leaves a gap in the data, or overlaps another.")
        position = tensor.end
    if position != size:
        raise error(
            f"{path} has {size:,} bytes, but its header speaks of {position:,}.",
            "It may be a partial download: fetch it again.",
        )
    return found


def _tensor(path: Path, name: str, entry: Any, data: int, error: type[TunediffError]) -> Tensor:
    if not isinstance(entry, dict):
        raise error(f"{path}: the header's entry for {name} is not an object.")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _RAW:
        raise error(f"{path}: the tensor {name} has the type {dtype!r}, which is not read here.")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise error(f"{path}: the tensor {name} has the shape {shape!r} at {offsets!r}.")
    needed = math.prod(shape) * np.dtype(_RAW[dtype]).itemsize
    if offsets[1] - offsets[0] != needed:
        raise error(f"{path}: the tensor {name} needs {needed:,} bytes and is given {offsets!r}.")
    return Tensor(path, dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
