"""How does a test give the command line its arguments, and see what it says?"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tunediff.cli import main

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Said:
    """What a command left behind: its exit code, and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on standard output; NaN, infinity or a second line are errors."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not strict JSON")

        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1
        return json.loads(self.out, parse_constant=refuse)

    @property
    def error(self) -> dict[str, str]:
        """The error object, of a command that was refused; its texts are whole sentences."""
        assert self.code == 2, self
        assert set(self.json) == {"error"}
        error = self.json["error"]
        assert set(error) == {"code", "message", "hint"}
        assert all(isinstance(text, str) for text in error.values())
        assert error["code"]
        assert error["message"]
        return error


def check(*arguments: Any) -> Said:
    """``tunediff check`` within this process."""
    return command("check", *arguments)


def command(*arguments: Any) -> Said:
    """``tunediff`` within this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["tunediff", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    code = end.value.code
    assert isinstance(code, int)
    return Said(code, out.getvalue(), without_progress(err.getvalue()))


def without_progress(err: str) -> str:
    """Standard error without the lines that a slow machine alone makes a command say."""
    slow = re.compile(
        r"Opening the models and|Scored [\d,]+ of|Step \d+ of|\d+ % of the work is done"
    )
    return "".join(line for line in err.splitlines(keepends=True) if not slow.match(line))


def process(*arguments: Any, before: str = "", after: str = "", **options: Any) -> Said:
    """``tunediff`` in a process of its own; ``before`` and ``after``: Python around it."""
    done = subprocess.run(
        started(*arguments, before=before, after=after),
        capture_output=True,
        env=environment(options.pop("env", {})),
        timeout=120,
        check=False,
        **options,
    )
    err = without_progress(done.stderr.decode())
    return Said(done.returncode, done.stdout.decode(), err)


def started(*arguments: Any, before: str = "", after: str = "") -> list[str]:
    """The command of that process."""
    code = (
        f"import sys; sys.argv = {['tunediff', *map(str, arguments)]!r}\n{before}\n"
        f"from tunediff.cli import main\ntry:\n    main()\nfinally:\n    pass\n    {after}"
    )
    return [sys.executable, "-c", code]


def environment(more: dict[str, str]) -> dict[str, str]:
    """Of a process that neither waits for the network nor for other threads."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}
