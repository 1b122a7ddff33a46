"""Which files of a folder may be opened, and what do they hold?

A model or adapter folder may come from anyone. Nothing here follows a path or a link out of it,
but for the links of a hub cache into the same repository's own blobs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunediff.errors import TunediffError

JSON_BYTES_CAP = 16 * 2**20  # the index of a mixture with 100,000 tensors is about 10 MB
SHOWN = 3  # how many names an error message lists before it only counts


def existing_folder(path: Path, error: type[TunediffError]) -> Path:
    """Return ``path`` where it is a folder; raises ``error`` where it is missing or a file."""
    if not path.exists():
        raise error(
            f"There is no such path: {path}.",
            "Give a local folder, or a hub name together with --download.",
        )
    if not path.is_dir():
        raise error(f"{path} is a file; a folder was needed.", "Give the folder that holds it.")
    return path


def safe_file(folder: Path, name: str, error: type[TunediffError]) -> Path:
    """Return the regular file ``name`` of ``folder``.

    Raises ``error`` where the name or a link leads out of the folder, or is no regular file.
    """
    if not name or "\0" in name or "\\" in name or Path(name).is_absolute():
        raise error(f"{folder} names a file {name!r}, which is not a name inside the folder.")
    if ".." in Path(name).parts:
        raise error(
            f"{folder} names a file {name!r}, which lies outside the folder.",
            "Do not use this folder unless you know who made it.",
        )
    path = folder / name
    _refuse_stray_link(folder, path, error)
    if not path.is_file():
        raise error(f"{path} is not a regular file, or is missing.", "Download the folder again.")
    return path


def refuse_stray_links(folder: Path, error: type[TunediffError]) -> None:
    """Raise ``error`` where any entry of the folder is a link that leaves it.

    Other libraries read tokenizers and settings from the same folder, so every entry counts.
    """
    with os.scandir(folder) as entries:
        links = sorted(entry.name for entry in entries if entry.is_symlink())
    for name in links:
        _refuse_stray_link(folder, folder / name, error)


def _refuse_stray_link(folder: Path, path: Path, error: type[TunediffError]) -> None:
    root = folder.resolve()
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # dangling, or a loop
        if path.is_symlink():
            raise error(
                f"{path} is a link to nothing.", "Download the folder again, completely."
            ) from None
        return  # a plain missing file: the caller says so
    allowed = [root]
    # models--owner--name/snapshots/REVISION/file -> ../../blobs/HASH
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        allowed.append(root.parent.parent / "blobs")
    if not any(target.is_relative_to(place) for place in allowed):
        raise error(
            f"{path} is a link that leaves its folder.",
            "Replace the link by a copy of the file, if you trust where it leads.",
        )


def hub_revision(folder: Path) -> str | None:
    """Return the commit that a folder of a hub cache holds (snapshots/COMMIT), else None."""
    here = folder.resolve()
    return here.name if here.parent.name == "snapshots" else None


def read_json_object(path: Path, error: type[TunediffError]) -> dict[str, Any]:
    """Return a JSON file's object; raises ``error`` where it is anything else, or too large."""
    size = path.stat().st_size
    if size > JSON_BYTES_CAP:
        raise error(f"{path} has {size:,} bytes; at most {JSON_BYTES_CAP:,} are read.")
    return parse_json_object(path.read_bytes(), str(path), error)


def parse_json_object(raw: bytes, where: str, error: type[TunediffError]) -> dict[str, Any]:
    """Return the object that strict JSON holds: UTF-8, no NaN, no key twice."""
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as cause:
        raise error(f"{where} is not valid JSON: {cause}.") from cause
    if not isinstance(value, dict):
        raise error(f"{where} holds a JSON {type(value).__name__}; an object was needed.")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def sha256_file(path: Path) -> str:
    """Return the file's sha256 in hex, streamed."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def few(names: Iterable[str]) -> str:
    """Return the first few names for an error message, and how many more there are."""
    names = sorted(names)
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def has_full_weights(folder: Path) -> bool:
    """Whether the folder holds a model's own weights, in any format."""
    return any(
        any(folder.glob(pattern))
        for pattern in ("model*.safetensors*", "pytorch_model*", "consolidated*", "*.gguf")
    )


def has_adapter(folder: Path) -> bool:
    """Whether the folder holds a PEFT adapter, in any format."""
    return (folder / "adapter_config.json").exists() or any(folder.glob("adapter_model*"))
