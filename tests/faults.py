"""Does a run survive whatever happens to it? A pair that needs no model, and faults on demand."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunediff.errors import InputError
from tunediff.pair.toy import ToyPair
from tunediff.run import files
from tunediff.run.measuring import measure
from tunediff.values import (
    TOKEN_METRICS,
    Candidates,
    Certificate,
    Encoded,
    Item,
    Scores,
    Side,
    Suite,
)

OPERATIONS = ("open_file", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")


class Killed(BaseException):
    """What a kill looks like from inside: nothing may catch it."""


@dataclass
class Disk:
    """Counts the store's file operations and puts a fault at one of them.

    ``kill_at``: the process dies after that operation (from 1); ``torn``: in the middle of it,
    where it is a write. ``fail_at``: that operation raises ``error`` instead. ``power_cut``: with
    the kill, what was written and not synced is lost.
    """

    kill_at: int | None = None
    fail_at: int | None = None
    error: int = errno.ENOSPC
    torn: bool = False
    power_cut: bool = False
    trace: list[tuple[str, str]] = field(default_factory=list)
    dead: bool = False
    _open: dict[int, str] = field(default_factory=dict)
    _unsynced: set[str] = field(default_factory=set)

    def __enter__(self) -> Disk:
        self._patch = pytest.MonkeyPatch()
        for name in OPERATIONS:
            self._patch.setattr(files, name, self._faulty(name, getattr(files, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _faulty(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any) -> Any:
            if self.dead:
                raise Killed
            path = self._open[first] if isinstance(first, int) else str(first)
            self.trace.append((name, path))
            if len(self.trace) == self.fail_at:
                raise OSError(self.error, os.strerror(self.error), path)
            last = len(self.trace) == self.kill_at
            if last and self.torn and name == "write":
                rest = (rest[0][: len(rest[0]) // 2],)
            # The kernel keeps what a killed process wrote; real syncs would only be slow.
            result = None if name == "fsync" else real(first, *rest)
            self._note(name, path, result, rest)
            if last:
                self._die()
            return result

        return call

    def _note(self, name: str, path: str, result: Any, rest: tuple[Any, ...]) -> None:
        if name == "open_file":
            self._open[result] = path
        elif name == "write":
            self._unsynced.add(path)
        elif name == "fsync":
            self._unsynced.discard(path)
        elif name == "rename" and path in self._unsynced:
            self._unsynced.remove(path)
            self._unsynced.add(str(rest[0]))

    def _die(self) -> None:
        self.dead = True
        if self.power_cut:
            for path in self._unsynced:
                os.truncate(path, 0)
        raise Killed


class FakePair:
    """A pair whose numbers follow from the item, its whole pack and the kernel, and nothing else.

    As with a real one, another pack or another kernel gives slightly other numbers: a store that
    mixes them up is found out by its bytes.
    """

    offers = frozenset({"scores", "nll", "weights"})

    def __init__(self, kernel: str = "exact", pause: float = 0.0, bad: str = "") -> None:
        self.base = Side("models/base", "base", "b" * 64)
        self.tuned = Side("models/tuned", "lora", "t" * 64)
        self.certificate = Certificate("lora", (), weights_equal=False)
        self.settings: dict[str, Any] = {
            "device": "cpu",
            "dtype": "float32",
            "kernel": kernel,
            "threads": 1,
        }
        self.pause = pause
        self.bad = bad  # the id of an item whose logits are not finite
        self.asked: list[str] = []
        self.floors = 0

    def encode(
        self, items: Sequence[Item], max_length: int | None, allow_truncation: bool
    ) -> list[Encoded]:
        return [self._encode(item, max_length, allow_truncation) for item in items]

    def _encode(self, item: Item, max_length: int | None, allow_truncation: bool) -> Encoded:
        ids = np.frombuffer((item.text or "").encode(), dtype=np.uint8).astype(np.int64)
        cut = 0 if max_length is None else max(0, len(ids) - max_length)
        if cut and not allow_truncation:
            raise InputError(
                f"{item.source}: {len(ids)} tokens, allowed are {max_length}.", "Cut it."
            )
        ids = ids[:max_length]
        return Encoded(item.id, ids, np.arange(len(ids) - 1), len(ids) - 1, len(ids) - 1, cut)

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        pack = ",".join(e.item_id for e in items)
        for e in items:
            self.asked.append(e.item_id)
            time.sleep(self.pause)
            key = f"{e.item_id}|{pack}|{self.settings['kernel']}"
            seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
            random = np.random.default_rng(seed)
            yield scores_of(e, random, failed=e.item_id == self.bad)

    def noise_floor(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        self.floors += 1
        first = items[0].item_id + self.settings["kernel"]
        return {name: 1e-7 * (1 + len(first) + i) for i, name in enumerate(TOKEN_METRICS)}

    def continue_with(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    def speed(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        return {"base": 100.0, "tuned": 100.0}

    def candidates(self, items: Sequence[Encoded], count: int) -> Iterator[Candidates]:
        pack = ",".join(e.item_id for e in items)
        for e in items:
            key = f"{e.item_id}|{e.ids.tolist()}|{pack}|{self.settings['kernel']}"
            seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
            random = np.random.default_rng(seed)
            shape = (len(e.scored), count)
            arrays = (random.integers(256, size=shape), random.random(shape))
            yield Candidates(e.item_id, e.scored, *arrays, *arrays)

    def token_text(self, token_id: int) -> str:
        return chr(token_id)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return ToyPair().pieces(ids)


def scores_of(e: Encoded, random: np.random.Generator, failed: bool = False) -> Scores:
    """Made-up scores of an item: positive, and the agreement 0 or 1."""
    count = 0 if failed else len(e.scored)
    metrics: dict[str, Any] = {name: random.lognormal(size=count) for name in TOKEN_METRICS}
    metrics["top1_agreement"] = np.round(random.random(count))
    metrics["delta_p"] = random.normal(size=count)
    return Scores(
        item_id=e.item_id,
        positions=e.scored[:count],
        targets=e.ids[e.scored[:count] + 1],
        bytes_scored=0 if failed else e.bytes_scored,
        probe_logit_mse=float("nan") if failed else random.random(),
        probe_logit_l2=float("nan") if failed else random.random(),
        probe_position=-1 if failed else e.probe,
        probe_top_base=() if failed else ((7, 0.5), (3, 0.25)),
        probe_top_tuned=() if failed else ((3, 0.75), (9, 0.125)),
        reason="Its logits are not finite." if failed else None,
        **metrics,
    )


def texts(count: int = 7) -> Suite:
    """A few short texts of different lengths."""
    items = [
        Item(f"i{k}", text="placeholder " * (1 + 5 * k % 4), axis="general", source=f"texts:{k}")
        for k in range(count)
    ]
    return Suite("texts", tuple(items), "h" * 64)


def small_run(folder: Path, **pair: Any) -> None:
    """The job that is killed: two parts of a few short texts."""
    measure(FakePair(**pair), texts(5), out=folder, part_tokens=90)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is promised to be the same, by its path."""
    outside = {"timing.jsonl", ".lock"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in outside
    }


def slow_run(folder: Path, pause: float = 0.01) -> None:
    """The job that is really killed, in a process of its own: several parts, half a second."""
    measure(FakePair(pause=pause), texts(24), out=folder, part_tokens=100)
