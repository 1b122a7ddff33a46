"""WHAT IS SHOWN: a run and its findings, drawn for people.

``tunediff.report`` names this room, and is the public function that writes a run's page: once the
room is imported, Python puts it in the package under that name. So the room can be called.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunediff.run.store import Run


class _Room(ModuleType):
    def __call__(self, run: Run | Path | str, out: Path | str | None = None) -> Path:
        from tunediff.report.html import report

        return report(run, out)


sys.modules[__name__].__class__ = _Room
