"""Which runs does a folder of ``compare`` hold: one, or one for each of several tuned models?"""

from __future__ import annotations

import json
from pathlib import Path

from tunediff.errors import RunError
from tunediff.run.record import RECORD
from tunediff.run.store import Run

VARIANTS = "variants.json"


def open_runs(folder: Path | str) -> list[Run]:
    """The runs of a folder that ``compare`` or ``check`` wrote, in the order of its variants.

    Raises:
        RunError: it is no run folder, a run is not finished, or the list of variants is damaged.

    """
    folder = Path(folder)
    path = folder / VARIANTS
    if not path.is_file():
        inside = next((found.parent for found in sorted(folder.glob(f"*/{VARIANTS}"))), None)
        if inside is not None and not (folder / RECORD).exists():  # as in a sweep
            raise RunError(f"{folder} is not a run folder; its runs are in {inside}.",
                           f"Give {inside}.")  # fmt: skip
        return [Run.open(folder)]
    try:
        names = [str(name) for name in json.loads(path.read_bytes())]
    except (ValueError, TypeError) as error:
        raise RunError(
            f"{path} is damaged: {error}.", "Run the same command with the same --out again."
        ) from error
    return [Run.open(folder / name) for name in names]
