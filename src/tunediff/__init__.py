"""tunediff: what changed between a base language model and its fine-tuned derivative?

The public names are resolved on first use, so that importing the package loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tunediff.findings.scorecard import scorecard
    from tunediff.findings.summary import summarize, verdict
    from tunediff.items.named import read_suites
    from tunediff.items.read import read
    from tunediff.pair.open import open_pair
    from tunediff.report.html import report
    from tunediff.run.comparing import compare
    from tunediff.run.measuring import measure
    from tunediff.training.recipe import Recipe
    from tunediff.training.train import train
    from tunediff.values import Generation

_HOMES = {
    "Generation": "tunediff.values",
    "Recipe": "tunediff.training.recipe",
    "compare": "tunediff.run.comparing",
    "read": "tunediff.items.read",
    "read_suites": "tunediff.items.named",
    "scorecard": "tunediff.findings.scorecard",
    "open_pair": "tunediff.pair.open",
    "measure": "tunediff.run.measuring",
    "report": "tunediff.report.html",
    "summarize": "tunediff.findings.summary",
    "train": "tunediff.training.train",
    "verdict": "tunediff.findings.summary",
}
__all__ = [
    "Generation",
    "Recipe",
    "__version__",
    "compare",
    "measure",
    "open_pair",
    "read",
    "read_suites",
    "report",
    "scorecard",
    "summarize",
    "train",
    "verdict",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tunediff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
