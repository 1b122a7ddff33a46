"""Which things are asked, and from which files?

``read`` turns files, standard input and prompts into a :class:`Suite`. Whatever is wrong in an
input is an :class:`InputError` with its file and line; nothing is skipped or repaired in silence.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunediff.errors import InputError, UsageError
from tunediff.items import formats
from tunediff.items.bounds import FILE_LIMIT, decode, shown
from tunediff.items.forms import to_item
from tunediff.values import AXES, Axis, Item, Suite

_READERS: dict[str, Callable[[str, str], Iterator[formats.Row]]] = {
    ".txt": formats.from_txt,
    ".jsonl": formats.from_jsonl,
    ".json": formats.from_json,
    ".csv": formats.from_csv,
}
SUFFIXES = (*_READERS, ".parquet")


def read(
    *sources: str | os.PathLike[str], prompts: Sequence[str] = (), axis: Axis = "target"
) -> Suite:
    """The items of files and prompts, files first, in the order given.

    Args:
        sources: files (``.txt``, ``.jsonl``, ``.json``, ``.csv``, ``.parquet``), or ``"-"`` for
            standard input, which is JSONL if it begins with ``{`` and one plain text file if not.
        prompts: texts given directly; their ids are ``prompt-1`` and so on.
        axis: what items that name no axis of their own belong to.

    An item without an id gets its row's number, from 0; where several files are read,
    ``FILE:ROW``.

    Raises:
        InputError: for a source that cannot be read, a row that cannot be asked, an id that
            occurs twice.
        UsageError: for no source at all, or an axis that does not exist.

    """
    if axis not in AXES:
        raise UsageError(f"The axis {shown(axis)} is not one of {', '.join(AXES)}.", "Choose one.")
    if isinstance(prompts, str):
        raise UsageError("prompts is one string, not a list of strings.", "Write prompts=[…].")
    if not sources and not prompts:
        raise UsageError("There is nothing to ask.", "Give a file, or a prompt.")

    items: list[Item] = []
    names = names_of(sources)
    for source, name in zip(sources, names, strict=True):
        prefix = f"{name}:" if len(sources) > 1 else ""
        rows = enumerate(rows_of(source, name))
        found = [to_item(row, f"{prefix}{number}", axis) for number, row in rows]
        if not found:
            raise InputError(
                f"{name} is empty: it holds no item.",
                "Give at least one row; the first line of a .csv names its columns.",
            )
        items.extend(found)
    for number, prompt in enumerate(prompts, 1):
        row = formats.Row(f"prompt {number}", {"text": prompt})
        items.append(to_item(row, f"prompt-{number}", axis))

    refuse_duplicates(items)
    stems = [Path(name).stem for name in names] + (["prompts"] if prompts else [])
    return Suite("+".join(stems), tuple(items), content_hash(items))


def content_hash(items: Iterable[Item]) -> str:
    """sha256 over what is asked, whatever file and format it came from.

    Over the id, the text, prompt, reply or messages, the axis and the group of each item, and
    what a reply is held against where that is given. The order counts: packs, and so a run's last
    bits and its parts, follow it.
    """
    digest = hashlib.sha256(b"tunediff items 1\n")
    for item in items:
        asked = [item.id, item.axis, item.group, item.text, item.prompt, item.reply, item.messages]
        asked += _held_against(item)
        digest.update(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def _held_against(item: Item) -> list[dict[str, Any]]:
    """The fields of ``ANSWERS`` that are set, if any: items without them keep the hash they had."""
    fields = {name: getattr(item, name) for name in formats.ANSWERS}
    fields = {name: value for name, value in fields.items() if value is not None}
    if item.constraints is not None:
        fields["constraints"] = [[one.kind, dict(one.details)] for one in item.constraints]
    if item.openings is not None:
        fields["openings"] = asdict(item.openings)
    return [fields] if fields else []


def names_of(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
    """What each source is called: its file name, or its path where two names are the same."""

    def printable(text: str) -> str:
        # a file name may hold bytes that are not UTF-8
        return os.fsencode(text).decode("utf-8", "backslashreplace")

    paths = ["stdin" if source == "-" else printable(os.fspath(source)) for source in sources]
    names = [Path(path).name or path for path in paths]
    return names if len(set(names)) == len(names) else paths


def rows_of(source: str | os.PathLike[str], name: str) -> Iterator[formats.Row]:
    """The rows of a file in our own formats, or of standard input."""
    suffix = Path(source).suffix.lower()
    if source != "-" and suffix == ".parquet":
        _check_file(Path(source), SUFFIXES)
        return formats.from_parquet(Path(source), name)
    text = text_of(source, name)
    if source == "-":
        reader = formats.from_jsonl if text.lstrip().startswith("{") else formats.from_txt
    else:
        reader = _READERS[suffix]
    return reader(text, name)


def text_of(source: str | os.PathLike[str], name: str, suffixes: Sequence[str] = SUFFIXES) -> str:
    """The characters of a file that ends in one of ``suffixes``, or of standard input."""
    if source == "-":
        data = sys.stdin.buffer.read(FILE_LIMIT + 1)
    else:
        path = Path(source)
        _check_file(path, suffixes)
        try:
            with path.open("rb") as file:
                data = file.read(FILE_LIMIT + 1)
        except OSError as error:
            raise unreadable(path, error) from None
    text = decode(_capped(data, name), name)
    if not text.strip():
        raise InputError(f"{name} is empty: it holds no item.", "Give at least one text.")
    return text


def _check_file(path: Path, suffixes: Sequence[str]) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(
            f"There is no file {path}.", f"Check the path; the current folder is {Path.cwd()}."
        ) from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        raise InputError(
            f"{path} is a folder, and a file was needed.", "Name the files in it one by one."
        )
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is not a regular file.", "Pipe it in and give - as the file.")
    if path.suffix.lower() not in suffixes:
        raise InputError(
            f"{path} ends in {shown(path.suffix)}, a kind of file that is not read.",
            f"Give a file that ends in {', '.join(suffixes)}, or - for standard input.",
        )


def _capped(data: bytes, name: str) -> bytes:
    if len(data) > FILE_LIMIT:
        raise InputError(
            f"{name} has more than {FILE_LIMIT} bytes.", "Give a sample of it, or several files."
        )
    return data


def unreadable(path: Path, error: OSError | ValueError) -> InputError:
    """What the operating system said of a path."""
    what = error.strerror if isinstance(error, OSError) else str(error)
    return InputError(f"{shown(str(path))} cannot be read: {what}.", "Check the path and rights.")


def refuse_duplicates(items: Sequence[Item]) -> None:
    """Two items of one id could not be told apart in the record."""
    seen: dict[str, str] = {}
    for item in items:
        if item.id in seen:
            raise InputError(
                f"The id {shown(item.id)} occurs twice: {seen[item.id]} and {item.source}.",
                "Give each item an id of its own, or give none: an item without one is called by "
                "its row, counted from 0 (1 and '1' are the same id).",
            )
        seen[item.id] = item.source
