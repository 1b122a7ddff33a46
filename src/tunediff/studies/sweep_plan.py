"""Which trainings make a sweep, on which rows, and what will they compute?

Everything that bad input can spoil is looked at here, before anything is trained. A sweep lies in
one folder:

    begun.json      what decides it
    data/           the rows trained on, and those held out, where DATA itself is not it
    cells/NAME/     each cell's adapter, as ``tunediff train`` leaves it
    compare/        the runs, as ``tunediff compare`` leaves them
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunediff.errors import InputError, RunError, UsageError
from tunediff.items.named import BUILT_IN, read_suites
from tunediff.items.read import content_hash
from tunediff.pair.open import resolve
from tunediff.run import files
from tunediff.training.recipe import Recipe
from tunediff.values import Item, Suite
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.files import read_json_object

if TYPE_CHECKING:
    from tunediff.training.data import Read

SCHEMA = 1
BEGUN = "begun.json"
DATA, CELLS, COMPARE = "data", "cells", "compare"
RANKS = (8, 16, 32, 64)
MOST = 500  # cells

# In the order in which they make a cell's name: the part of the name, and the recipe's key.
AXES = {
    "ranks": ("rank", "rank"),
    "learning_rates": ("lr", "learning_rate"),
    "steps": ("steps", "steps"),
    "data_sizes": ("data", None),
    "seeds": ("seed", "seed"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One training: its recipe and how many rows it reads (None: all that are trained on).

    ``setting``: the name without the seed; cells of one setting differ in nothing else.
    """

    name: str
    setting: str
    recipe: Recipe
    data_size: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep before anything is trained.

    ``learnt``: the rows to be trained on, ``order`` their numbers in the order from which
    ``data_sizes`` take the first; ``held_out``: those that are the target, where DATA gives it.
    """

    base: str
    base_folder: Path
    data: Path
    read: Read
    cells: tuple[Cell, ...]
    suites: tuple[Suite, ...]
    learnt: tuple[Item, ...]
    order: tuple[int, ...]
    held_out: tuple[Item, ...]
    seed: int
    opening: Mapping[str, Any]

    def rows(self, cell: Cell) -> tuple[Item, ...]:
        """What a cell is trained on."""
        if cell.data_size is None:
            return self.learnt
        return tuple(self.learnt[i] for i in self.order[: cell.data_size])

    @property
    def overlap(self) -> dict[str, int]:
        """How many rows trained on have the prompt of an item that is asked, by suite."""
        found = {}
        for suite in self.suites:
            asked = {_prompt(item) for item in suite.items} - {None}
            count = sum(_prompt(item) in asked for item in self.learnt)
            if count:
                found[suite.name] = count
        return found


def cells_of(
    recipe: Recipe, axes: Mapping[str, Sequence[Any]], scale: float | None = None
) -> tuple[Cell, ...]:
    """The combinations of the axes' values, the last axis of :data:`AXES` changing fastest.

    A cell's name holds the axes of more than one value (of a single cell: all that are given).
    ``scale``: alpha / r of every cell, in the place of the recipe's one alpha.

    Raises:
        UsageError: an axis without values or with one twice, too many cells, or a value that no
            recipe takes.

    """
    given = {axis: tuple(values) for axis in AXES if (values := axes.get(axis)) is not None}
    for axis, values in given.items():
        option = f"--{axis.replace('_', '-')}"
        if not values:
            raise UsageError(f"{option} came without a value.", "Give one or more, as in 8,16.")
        twice = next((v for v in values if values.count(v) > 1), None)
        if twice is not None:
            raise UsageError(f"{option} has {twice!r} twice.", "Give each value once.")
    count = prod(len(values) for values in given.values())
    if count > MOST:
        raise UsageError(
            f"These values make {count:,} cells; at most {MOST} are trained.", "Give fewer values."
        )
    varied = [axis for axis in given if len(given[axis]) > 1] or list(given)
    cells = []
    for values in product(*given.values()):
        chosen = dict(zip(given, values, strict=True))
        parts = {axis: f"{AXES[axis][0]}-{chosen[axis]}" for axis in varied}
        changed = {key: chosen[axis] for axis in given if (key := AXES[axis][1]) is not None}
        if scale is not None:
            changed["alpha"] = scale * changed.get("rank", recipe.rank)
        setting = "-".join(part for axis, part in parts.items() if axis != "seeds")
        cells.append(
            Cell(
                "-".join(parts.values()),
                setting or "recipe",
                replace(recipe, **changed),
                chosen.get("data_sizes"),
            )
        )
    return tuple(cells)


def plan_sweep(
    base: str,
    data: str | Path,
    recipe: Recipe,
    axes: Mapping[str, Sequence[Any]],
    *,
    scale: float | None = None,
    suites: Sequence[str] = (),
    suite_axes: Sequence[str] = (),
    target: str | None = None,
    target_share: float = 0.1,
    limit: int | None = None,
    seed: int = 0,
    **opening: Any,
) -> Plan:
    """Read and check everything that decides a sweep; nothing is written, no weight is loaded.

    Args:
        base: a model folder, or a hub name.
        data: the rows, as ``train`` reads them.
        recipe: what the axes do not say.
        axes: values by the names of :data:`AXES`; none: the ranks of :data:`RANKS`.
        scale: of :func:`cells_of`.
        suites: as ``compare`` takes them; empty: every built-in one.
        suite_axes: ``NAME=AXIS``.
        target: a file of items on the axis target. Where neither it nor a suite asks for the
            target, ``target_share`` of DATA's prompts are held out for it: all rows of such a
            prompt are kept from every training, so that none is both learnt and asked.
        target_share: of DATA's distinct prompts; at least one.
        limit: only the first so many items of each suite.
        seed: of that choice, and of the order from which data sizes take the first rows (so that a
            smaller size is part of a larger one).
        opening: the options of ``open_pair`` that are given: device, download, revision.

    Raises:
        UsageError, InputError, ModelError: what came makes no sweep.

    """
    from tunediff.training.data import read_rows
    from tunediff.training.train import refuse_adapter

    cells = cells_of(recipe, axes or {"ranks": RANKS}, scale)
    where = {key: opening[key] for key in ("download", "revision") if key in opening}
    folder = resolve(base, **where)
    refuse_adapter(folder)
    read = read_rows(data)
    asked = read_suites(suites or BUILT_IN, target, suite_axes, limit)
    learnt, held_out = read.items, ()
    if not any(item.axis == "target" for suite in asked for item in suite.items):
        learnt, held_out = _split(read, target_share, seed)
        kept = held_out[:limit]
        asked = (Suite("data", kept, content_hash(kept)), *asked)
    for cell in cells:
        if cell.data_size is not None and not 1 <= cell.data_size <= len(learnt):
            raise UsageError(
                f"--data-sizes has {cell.data_size:,}, and {len(learnt):,} rows can be trained on.",
                f"Give sizes from 1 to {len(learnt):,}.",
            )
    order = list(range(len(learnt)))
    random.Random(seed).shuffle(order)
    return Plan(
        base, folder, Path(data), read, cells, asked, learnt, tuple(order), held_out, seed, opening
    )


def estimates(plan: Plan) -> list[dict[str, Any]]:
    """Per cell: the adapter's parameters, and the tokens and FLOPs of a training to its end."""
    from tunediff.training.cost import Shapes, tokens_read, training_flops

    shapes = Shapes(plan.base_folder)
    tokens: dict[str, int] = {}
    for size in dict.fromkeys(cell.data_size for cell in plan.cells):
        own = [cell for cell in plan.cells if cell.data_size == size]
        read = replace(plan.read, items=plan.rows(own[0]), dropped=())
        counted = tokens_read(plan.base_folder, read, [cell.recipe for cell in own])
        tokens |= {cell.name: count for cell, count in zip(own, counted, strict=True)}
    adapters = [shapes.adapter(cell.recipe) for cell in plan.cells]
    return [
        {
            "name": cell.name,
            "rows": len(plan.rows(cell)),
            "adapter_parameters": adapter,
            "training_tokens": tokens[cell.name],
            "training_flops": training_flops(shapes.linear, adapter, tokens[cell.name]),
        }
        for cell, adapter in zip(plan.cells, adapters, strict=True)
    ]


def begin(plan: Plan, out: Path) -> None:
    """Take the folder, or know it again, and write the rows that DATA itself is not.

    Raises:
        RunError: the folder is another sweep's, or holds something else.

    """
    settings = _settings(plan)
    path = out / BEGUN
    if path.exists():
        there = read_json_object(path, RunError)
        different = [k for k in {**there, **settings} if there.get(k) != settings.get(k)]
        if different:
            raise RunError(
                f"{out} holds another sweep: it differs in {', '.join(sorted(different))}.",
                "Choose another folder, or give the command that began it.",
            )
    elif out.exists() and (
        not out.is_dir() or any(p.name != BEGUN + files.TEMPORARY for p in out.iterdir())
    ):
        raise RunError(
            f"{out} is not empty, and holds no sweep that tunediff began.",
            "Choose a new or empty folder.",
        )
    else:
        files.make_folder(out)
        files.write_whole(path, _json(settings))
    rows = {rows_file(plan, out, cell): plan.rows(cell) for cell in plan.cells}
    rows.pop(plan.data, None)
    if plan.held_out:
        rows[out / DATA / "target.jsonl"] = plan.held_out
    for file, items in rows.items():
        if not file.exists():
            files.make_folder(file.parent)
            files.write_whole(file, "".join(_line(item) for item in items).encode())


def _split(read: Read, share: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Rows to learn and rows held out; those of one prompt stay together."""
    if not 0 < share < 1:
        raise UsageError(
            f"--target-share is {share:g}; needed is a share of the prompts, above 0 and below 1.",
            "The default is 0.1.",
        )
    prompts = list(dict.fromkeys(map(_prompt, read.items)))
    count = max(1, round(share * len(prompts)))
    if len(prompts) <= count:
        raise InputError(
            f"{read.name} has {len(prompts)} distinct prompts, and {count} of them would be held "
            "out as the target; none is left to learn from.",
            "Add rows, or name the target: --target FILE.",
        )
    aside = set(random.Random(seed).sample(prompts, count))
    return (
        tuple(item for item in read.items if _prompt(item) not in aside),
        tuple(item for item in read.items if _prompt(item) in aside),
    )


def _prompt(item: Item) -> str | None:
    """What is asked, without blanks around it: the prompt, or the last message before the reply."""
    if item.messages is not None:
        return item.messages[-2]["content"].strip() if len(item.messages) > 1 else None
    asked = item.text if item.prompt is None else item.prompt
    return None if asked is None else asked.strip()


def rows_file(plan: Plan, out: Path, cell: Cell) -> Path:
    """The file of the rows that a cell is trained on."""
    if cell.data_size is not None:
        return out / DATA / f"train-{cell.data_size}.jsonl"
    return out / DATA / "train.jsonl" if plan.held_out else plan.data


def _line(item: Item) -> str:
    row: dict[str, Any] = {"id": item.id}
    if item.messages is not None:
        row["messages"] = [dict(message) for message in item.messages]
    else:
        row |= {"prompt": item.prompt, "response": item.reply}
    return json.dumps(row) + "\n"


def _settings(plan: Plan) -> dict[str, Any]:
    """What decides the figures, beside what ``train`` and ``compare`` look at themselves."""
    return {
        "schema": SCHEMA,
        "base": Checkpoint.open(plan.base_folder).fingerprint(),
        "data": plan.read.sha256,
        "cells": {
            cell.name: {**cell.recipe.as_dict(), "data_size": cell.data_size} for cell in plan.cells
        },
        "suites": {suite.name: suite.content_hash for suite in plan.suites},
        "seed": plan.seed,
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
