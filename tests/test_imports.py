"""Does importing the package, or asking it for help, stay cheap?"""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    "accelerate",
    "datasets",
    "lm_eval",
    "matplotlib",
    "mlx",
    "numba",
    "pandas",
    "peft",
    "pyarrow",
    "ray",
    "safetensors",
    "scipy",
    "starlette",
    "statsmodels",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "uvicorn",
}

HELP = """
import sys
from tunediff.cli import main
sys.argv = ["tunediff", *{arguments}, "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after running the code."""
    tell = f"{code}\nimport json, sys\nprint()\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", tell], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])} & HEAVY


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import tunediff") == set()


def test_the_help_loads_nothing_heavy() -> None:
    assert loaded_by(HELP.format(arguments=[])) == set()


def test_the_help_of_a_command_loads_nothing_heavy() -> None:
    assert loaded_by(HELP.format(arguments=["check"])) == set()
    assert loaded_by(HELP.format(arguments=["rate"])) == set()


def test_an_import_of_torch_is_caught() -> None:
    """The test of the tests above: what they look for would be seen."""
    assert "torch" in loaded_by("import tunediff, torch")
