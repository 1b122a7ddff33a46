"""Who may know whom: do the imports of src/tunediff point one way?

The rules are those of docs/architecture.md, read from the syntax tree, so an import inside a
function counts as much as one at the top. Every rule is tested by planting its breach.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "tunediff"

NUMBERS = {"errors", "values"}
BELOW_RUN = NUMBERS | {"items", "scoring", "measures", "pair", "weights"}
# Each room, and the rooms that it may import beside itself.
MAY_KNOW: dict[str, set[str]] = {
    "errors": set(),
    "values": {"errors"},
    "items": NUMBERS,
    "specimens": NUMBERS,
    "scoring": NUMBERS | {"items"},
    "measures": {"values"},
    "weights": NUMBERS,
    "pair": NUMBERS | {"items", "scoring", "weights"},
    "run": BELOW_RUN,
    "training": BELOW_RUN | {"run"},
    "findings": NUMBERS | {"items", "measures", "run"},  # knows numbers, not models
    "report": NUMBERS | {"run", "findings"},
    "rating": NUMBERS | {"run", "findings"},
    "studies": BELOW_RUN | {"run", "training", "findings", "specimens"},
}
MAY_KNOW["cli"] = set(MAY_KNOW) | {"specimens"}

TORCH_ROOMS = ("scoring/*", "pair/hf*.py", "training/*")
# Each outside package that has a home, and the files that are it.
HOMES: dict[str, tuple[str, ...]] = {
    "torch": TORCH_ROOMS,
    "transformers": TORCH_ROOMS,
    "peft": TORCH_ROOMS,
    "trl": ("training/*",),
    "numba": ("scoring/*",),
    "triton": ("scoring/fused.py",),
    "matplotlib": ("report/*",),
    "starlette": ("rating/*",),
    "uvicorn": ("rating/*",),
    "mlx": ("pair/mlx.py",),
    "mlx_lm": ("pair/mlx.py",),
    "ray": ("run/scatter.py",),
    "lm_eval": ("run/external.py",),
}
# Slow to import: inside functions, but for the rooms where torch is at home.
SLOW = {"torch", "transformers", "peft", "numba", "scipy", "pyarrow", "pandas", "matplotlib"}


class Import(NamedTuple):
    file: str  # relative to the package, with /
    line: int
    module: str  # absolute, dotted
    at_top: bool


def imports_of(path: Path, package: Path) -> Iterator[Import]:
    """Every import of a file, relative ones made absolute, named ones with their last part."""
    file = path.relative_to(package).as_posix()
    here = ["tunediff", *path.relative_to(package).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            first = node.args[0] if node.args else None
            if called in {"import_module", "__import__"} and isinstance(first, ast.Constant):
                names = [str(first.value)]
        for name in names:
            yield Import(file, node.lineno, name, id(node) not in inside)


def breach(found: Import) -> str | None:
    """Which rule an import breaks, in words; None where it breaks none."""
    room = found.file.split("/")[0].removesuffix(".py")
    top, *rest = found.module.split(".")
    at_home = any(fnmatch(found.file, pattern) for pattern in HOMES.get(top, ("*",)))
    if top == "tunediff":
        if room in {"__init__", "__main__"}:  # the front door opens on every room
            return None
        if not rest or rest[0] not in MAY_KNOW:
            return None if rest == ["__version__"] else "imports the package, not a room of it"
        if rest[0] != room and rest[0] not in MAY_KNOW[room]:
            return f"{room} may not know {rest[0]}"
    elif not at_home:
        return f"{top} belongs in {', '.join(HOMES[top])}"
    elif found.at_top and top in SLOW:
        if not any(fnmatch(found.file, pattern) for pattern in TORCH_ROOMS):
            return f"{top} is slow to import: import it inside the function that needs it"
    return None


def breaches(package: Path) -> list[str]:
    """One line for each import that breaks a rule."""
    lines = []
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room not in {"__init__", "__main__", *MAY_KNOW}:
            lines.append(f"{path.relative_to(package).as_posix()}: no room of that name is known")
            continue
        for found in imports_of(path, package):
            if broken := breach(found):
                lines.append(f"{found.file}:{found.line}: {found.module}: {broken}")
    return lines


def test_the_imports_point_one_way() -> None:
    assert list(SOURCE.rglob("*.py"))
    assert breaches(SOURCE) == []


def test_the_rooms_have_an_order() -> None:
    """No two rooms may know each other, not even through others."""
    left = {room: known - {room} for room, known in MAY_KNOW.items()}
    while ready := [room for room, known in left.items() if not known]:
        for room in ready:
            del left[room]
        left = {room: known.difference(ready) for room, known in left.items()}
    assert left == {}


@pytest.mark.parametrize(
    ("file", "code", "says"),
    [
        ("values.py", "from tunediff.items import read", "values may not know items"),
        ("errors.py", "import tunediff.values", "errors may not know values"),
        ("items/read.py", "def f():\n    from tunediff import pair", "items may not know pair"),
        ("scoring/packs.py", "from ..pair import contract", "scoring may not know pair"),
        ("measures/tokens.py", "from tunediff.errors import RunError", "may not know errors"),
        ("weights/lora.py", "from tunediff.pair import adapter", "weights may not know pair"),
        ("findings/gate.py", "from tunediff.pair.open import open_pair", "may not know pair"),
        ("report/html.py", "from tunediff.pair import toy", "report may not know pair"),
        ("pair/hf.py", "from tunediff.run import store", "pair may not know run"),
        ("run/store.py", "from tunediff import cli", "run may not know cli"),
        ("specimens/load.py", "from tunediff.items import read", "specimens may not know items"),
        ("run/store.py", "import tunediff", "imports the package, not a room of it"),
        ("run/store.py", "from tunediff import measure", "imports the package, not a room of it"),
        ("helpers/odd.py", "import os", "no room of that name is known"),
        ("pair/open.py", "def f():\n    import torch", "torch belongs in scoring/*, pair/hf*.py"),
        ("weights/lora.py", "def f():\n    import torch.nn as nn", "torch belongs in"),
        ("cli/check.py", "def f():\n    import transformers", "transformers belongs in"),
        ("run/a.py", "def f():\n    from peft import PeftModel", "peft belongs in"),
        ("pair/hf.py", "def f():\n    import numba", "numba belongs in scoring/*"),
        ("cli/a.py", "def f():\n    import matplotlib.pyplot", "matplotlib belongs in report/*"),
        ("cli/rate.py", "def f():\n    import uvicorn", "uvicorn belongs in rating/*"),
        ("rating/app.py", "from tunediff.studies import compare", "rating may not know studies"),
        ("pair/open.py", "importlib.import_module('torch')", "torch belongs in"),
        ("run/store.py", "import pyarrow.parquet", "pyarrow is slow to import"),
        ("findings/statistics.py", "from scipy import stats", "scipy is slow to import"),
        ("report/plots.py", "import matplotlib", "matplotlib is slow to import"),
    ],
)
def test_a_planted_breach_is_found(tmp_path: Path, file: str, code: str, says: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(code, encoding="utf-8")
    (line,) = breaches(tmp_path)
    assert line.startswith(f"{file}:")
    assert says in line


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("scoring/head.py", "import torch"),
        ("pair/hf_llama.py", "import transformers, peft"),
        ("training/trainer.py", "from peft import LoraConfig"),
        ("scoring/kernel.py", "import numba"),
        ("run/store.py", "def f():\n    import pyarrow"),
        ("report/plots.py", "def f():\n    import matplotlib"),
        ("cli/check.py", "from tunediff.specimens import load"),
        ("run/store.py", "from tunediff import __version__"),
        ("measures/tokens.py", "from . import pooling\nfrom tunediff.values import Measure"),
        ("__init__.py", "def f():\n    from tunediff.pair.open import open_pair"),
    ],
)
def test_a_lawful_import_is_left_alone(tmp_path: Path, file: str, code: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(code, encoding="utf-8")
    assert breaches(tmp_path) == []
