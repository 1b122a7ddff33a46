"""Which suites do these names and paths mean?

A suite is NAME=PATH, or the NAME of a built-in one alone. NAME chooses how PATH is read: those of
``public.FORMATS`` read the public benchmark, any other name our own formats. A folder is all its
files of the kinds that are read.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tunediff.errors import InputError, UsageError
from tunediff.items.bounds import shown
from tunediff.items.formats import Row
from tunediff.items.forms import to_item
from tunediff.items.public import FORMATS
from tunediff.items.read import (
    SUFFIXES,
    content_hash,
    names_of,
    refuse_duplicates,
    rows_of,
    text_of,
    unreadable,
)
from tunediff.values import AXES, Axis, Item, Suite

BUILT_IN = ("instructions", "knowledge", "reasoning", "safety", "writing")
_HERE = Path(__file__).resolve().parent / "suites"
_NO_DATA = {"readme", "license", "licence"}  # stems of files that a folder of data holds beside it


def read_suites(
    specs: Sequence[str] = (),
    data: str | os.PathLike[str] | None = None,
    axes: Sequence[str] = (),
    limit: int | None = None,
) -> tuple[Suite, ...]:
    """The suites of a comparison, in the order given; ``data`` comes first.

    Args:
        specs: ``NAME=PATH``, or a built-in suite's ``NAME``. PATH is a file, a folder or ``-``.
        data: a file or folder in our own formats: the suite ``data``, on the axis target.
        axes: ``NAME=AXIS``, the axis of a suite's rows that name none. By default it is general,
            and safety for a prompt with a label.
        limit: only the first so many items of each suite, in the order of its rows (not a
            sample). The whole file is read and checked all the same.

    A prompt may stand without a reply where no prompt of its suite has anything that a reply is
    held against (a reference, choices, constraints, a label). An item without an id gets its
    row's number, from 0; in a folder, ``FILE:ROW``.

    Raises:
        UsageError: for a built-in suite, an axis or a suite of ``axes`` that does not exist, a
            name given twice, an axis that no row takes, a limit below 1.
        InputError: for what cannot be read, with file and line; an empty folder; an id that
            occurs twice in a suite; a row without an answer among rows that have one.

    """
    if limit is not None and limit < 1:
        raise UsageError(f"The limit is {limit}; needed is 1 or more.", "Ask at least one item.")
    given: list[tuple[str, str | os.PathLike[str], Axis]] = []
    if data is not None:
        given.append(("data", data, "target"))
    given.extend((*_spec(spec), "general") for spec in specs)
    names = [name for name, _, _ in given]
    _refuse_twice(names, "suite")
    chosen = _axes(axes, names)
    suites = []
    for name, path, default in given:
        items = _items(name, path, default, chosen.get(name))
        if name in chosen and all(item.axis != chosen[name] for item in items):
            raise UsageError(
                f"Every row of the suite {shown(name)} names its own axis, and none is "
                f"{chosen[name]}.",
                f"Leave out --axis {name}={chosen[name]}, or delete the axis column.",
            )
        items = items[:limit]
        suites.append(Suite(name, tuple(items), content_hash(items)))
    return tuple(suites)


def _spec(spec: str) -> tuple[str, str | os.PathLike[str]]:
    """The name and the path of NAME=PATH, or of a built-in suite."""
    name, sign, path = spec.partition("=")
    if sign:
        if not name or not path:
            raise UsageError(f"The suite {shown(spec)} lacks a name or a path.", "Write NAME=PATH.")
        return name, path
    if name in BUILT_IN:
        return name, _HERE / f"{name}.jsonl"
    if name in FORMATS:
        raise UsageError(
            f"The suite {name} is read from a file of yours, and no path was given.",
            f"Write {name}=PATH.",
        )
    raise UsageError(
        f"There is no built-in suite {shown(name)}.",
        f"{_meant(name, (*BUILT_IN, *FORMATS))}Built in are {', '.join(BUILT_IN)}; for a file of "
        "yours write NAME=PATH.",
    )


def _axes(axes: Sequence[str], names: Sequence[str]) -> dict[str, Axis]:
    chosen: dict[str, Axis] = {}
    _refuse_twice([spec.partition("=")[0] for spec in axes], "axis of")
    for spec in axes:
        name, sign, value = spec.partition("=")
        if not sign:
            raise UsageError(f"The axis {shown(spec)} names no suite.", "Write NAME=AXIS.")
        if name not in names:
            raise UsageError(
                f"An axis was given for the suite {shown(name)}, which is not asked.",
                f"{_meant(name, names)}Asked are: {', '.join(map(shown, names)) or 'none'}.",
            )
        if value not in AXES:
            raise UsageError(
                f"The axis {shown(value)} of the suite {shown(name)} is not one of "
                f"{', '.join(AXES)}.",
                f"{_meant(value, AXES)}Choose one.",
            )
        chosen[name] = value
    return chosen


def _items(
    name: str, path: str | os.PathLike[str], default: Axis, chosen: Axis | None
) -> list[Item]:
    """The items of a suite; ``chosen``: the axis of those whose row names none, if one was given.

    Else a labelled prompt is one of safety, and the others have the default.
    """
    suffixes = (FORMATS[name][0],) if name in FORMATS else SUFFIXES
    in_folder = os.path.isdir(path)  # False, not an error, for a name that cannot be one
    files = _files(Path(path), suffixes) if in_folder else [path]
    items: list[Item] = []
    for file, called in zip(files, names_of(files), strict=True):
        prefix = f"{called}:" if in_folder else ""
        rows = list(_rows(name, file, called))
        if not rows:
            raise InputError(f"{called} is empty: it holds no item.", "Give at least one row.")
        for n, row in enumerate(rows):
            labelled = row.values.get("label") is not None
            axis = chosen or ("safety" if labelled else default)
            items.append(to_item(row, f"{prefix}{n}", axis, to_answer=True))
    refuse_duplicates(items)
    _refuse_gaps(items)
    return items


def _rows(name: str, path: str | os.PathLike[str], called: str) -> Iterator[Row]:
    if name not in FORMATS:
        return rows_of(path, called)
    suffix, reader = FORMATS[name]
    return reader(text_of(path, called, (suffix,)), called)


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The folder's own files that are read, by name; hidden ones and those beside the data not."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from None
    files = [
        path
        for path in found
        if path.suffix.lower() in suffixes
        and path.stem.lower() not in _NO_DATA
        and not path.name.startswith(".")
        and path.is_file()
    ]
    if not files:
        raise InputError(
            f"The folder {folder} holds no file that ends in {', '.join(suffixes)}.",
            "Give the folder that holds the files themselves, or one file.",
        )
    return files


def _refuse_gaps(items: Iterable[Item]) -> None:
    """One prompt without an answer among prompts that have one is a fault, not a choice."""
    prompts = [item for item in items if item.prompt is not None]
    bare = [item for item in prompts if not (item.reply or item.constraints or item.label)]
    if bare and len(bare) < len(prompts):
        raise InputError(
            f"{bare[0].source} has a prompt without an answer, and other rows of the suite have "
            f"one ({len(bare)} of {len(prompts)} have none).",
            "Give it a reply, choices and answer, constraints or a label; or give the prompts "
            "without an answer as a suite of their own.",
        )


def _refuse_twice(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"The {what} {shown(name)} is given twice.", "Name each suite once.")


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"Did you mean {close[0]}? " if close else ""
