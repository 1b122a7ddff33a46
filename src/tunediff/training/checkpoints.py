"""Where does a training go on after it was killed?

While it runs, the adapter's folder holds ``checkpoints/``: what the training was begun with, and a
folder for the last checkpoint, which is an adapter that PEFT loads, and beside it the optimizer's
moments and the history. All of it is safetensors and JSON: nothing that is read can run code. A
checkpoint is made under another name and renamed, and the one before it is removed only then, so
that whatever happens the last good one is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tunediff.errors import RunError
from tunediff.run import files
from tunediff.weights.files import read_json_object

FOLDER = "checkpoints"
BEGUN = "begun.json"
RESULT = "training.json"
TRAINER = "trainer.safetensors"
_STEP = "step-"

Tensors = dict[str, torch.Tensor]


@dataclass
class History:
    """What a training has done so far.

    ``losses``: one a step. ``held_out``: (step, loss), step 0 being the base. ``tokens``: read in
    training. ``resumed_at``: the steps after which it was begun again.
    """

    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    tokens: int = 0
    scored_tokens: int = 0
    seconds: float = 0.0
    resumed_at: list[int] = field(default_factory=list)

    @property
    def best(self) -> tuple[int, float] | None:
        """The step of the lowest held-out loss after training began, the first one of equals."""
        return min((x for x in self.held_out if x[0]), key=lambda x: x[1], default=None)

    @property
    def stale(self) -> int:
        """How many held-out losses came after the best one."""
        best = self.best
        return 0 if best is None else sum(step > best[0] for step, _ in self.held_out)


@dataclass(frozen=True)
class Checkpoint:
    """What a training goes on with; ``trainer``: the optimizer's moments and the best adapter."""

    step: int
    adapter: Tensors
    trainer: Tensors
    history: History


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of the training in the folder ``out``."""

    out: Path

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.out / FOLDER

    @contextmanager
    def begun(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Within, the folder is this training's, which ``settings`` decide.

        Raises:
            RunError: it is another training's or process's, or holds something else.

        """
        require_own(self.out, settings)
        files.make_folder(self.folder)
        with files.locked(self.folder / ".lock"):
            require_own(self.out, settings)  # another process may have had it until now
            if not _places(self.folder):
                files.write_whole(self.folder / BEGUN, _json(settings))
            for left in sorted(self.folder.glob(_STEP + "*" + files.TEMPORARY)):
                files.remove_folder(left)
            yield

    def save(self, step: int, adapter: Mapping[str, bytes], trainer: Tensors, history: History,
             *, keep: bool) -> None:  # fmt: skip
        """Put a checkpoint in the place of the one before it, or beside it with ``keep``."""
        place = self.folder / f"{_STEP}{step:06d}"
        made = place.with_name(place.name + files.TEMPORARY)
        files.make_folder(made)
        for name, content in adapter.items():
            files.write_whole(made / name, content)
        said = {"history": json.dumps(asdict(history), allow_nan=False)}
        files.write_whole(made / TRAINER, save(trainer, metadata=said))
        before = _places(self.folder)
        files.move_folder(made, place)
        for old in before if not keep else []:
            files.remove_folder(old)

    def last(self) -> Checkpoint | None:
        """The last one, where there is any."""
        places = _places(self.folder)
        if not places:
            return None
        place = places[-1]
        try:
            adapter, _ = _read(place / "adapter_model.safetensors")
            trainer, said = _read(place / TRAINER)
            history = History(**json.loads(said["history"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"The checkpoint {place} cannot be read: {error}.",
                f"Remove the folder {place}; the training goes on from an earlier one or begins "
                "again.",
            ) from error
        history.held_out = [(step, loss) for step, loss in history.held_out]
        return Checkpoint(_step_of(place), adapter, trainer, history)

    def remove(self) -> None:
        """Remove them all, once the adapter is there."""
        if self.folder.is_dir():
            files.remove_folder(self.folder)


def finished(out: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ``training.json`` of this training where it has ended.

    Raises:
        RunError: the folder is another training's, or holds something else.

    """
    require_own(out, settings)
    path = out / RESULT
    return read_json_object(path, RunError) if path.exists() else None


def require_own(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that this training may not write to.

    Raises:
        RunError: it is another training's, or holds something else.

    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; a folder was needed.", "Choose another name.")
    others = [path for path in out.iterdir() if path.name != FOLDER] if out.is_dir() else []
    if not others and not _places(out / FOLDER):
        return  # new, or what ended before its first checkpoint: nothing is lost
    if (out / RESULT).exists():
        there = read_json_object(out / RESULT, RunError).get("settings")
    elif (out / FOLDER / BEGUN).exists():
        there = read_json_object(out / FOLDER / BEGUN, RunError)
    else:
        raise RunError(
            f"{out} is not empty, and holds no training that tunediff began.",
            "Choose a new or empty folder.",
        )
    if there != json.loads(_json(settings)):
        what = ", ".join(_differences(there if isinstance(there, dict) else {}, settings))
        raise RunError(
            f"{out} holds another training: it differs in {what}.",
            "Choose another folder, or give the command that began it.",
        )


def _places(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by their step."""
    kept = (p for p in folder.glob(_STEP + "*") if not p.name.endswith(files.TEMPORARY))
    return sorted(kept, key=_step_of)  # by number: the name of step 1,000,000 is a digit longer


def _step_of(place: Path) -> int:
    return int(place.name.removeprefix(_STEP))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted(a.keys() | b.keys()):
        one, other = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += _differences(one, other, f"{key}.")
        elif one != other:
            found.append(prefix + key)
    return found


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
