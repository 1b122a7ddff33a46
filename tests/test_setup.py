"""Does tools/setup.sh make the environment that is asked for, once, and say why where it cannot?

A stand-in plays Python and uv and writes down how it is called; nothing is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) exit ${OLD:-0} ;;
  *ensurepip*) exit ${BARE:-0} ;;
  --version) echo "Python 3.9.2" ;;
  "-m venv"*)
    echo "venv" >>"$CALLS"
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    printf '#!/bin/sh\\necho "$*" >>"$CALLS"\\n' >.venv/bin/uv
    chmod +x .venv/bin/uv ;;
esac
"""


@dataclass(frozen=True)
class Checkout:
    """A checkout with the stand-in beside it."""

    root: Path
    python: Path

    def setup(self, level: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "tools" / "setup.sh", level],
            env={
                "PATH": os.environ["PATH"],
                "PYTHON": str(self.python),
                "CALLS": str(self.python.parent / "calls"),
                **settings,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self, level: str, **settings: str) -> list[str]:
        """What a successful setup called."""
        log = self.python.parent / "calls"
        log.write_text("", encoding="utf-8")
        done = self.setup(level, **settings)
        assert done.returncode == 0, done.stderr
        return log.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "checkout"
    for name in ("tools/setup.sh", "pyproject.toml", "constraints.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    python = tmp_path / "python"
    python.write_text(PYTHON, encoding="utf-8")
    python.chmod(0o755)
    return Checkout(root, python)


def test_core_grows_into_all_and_a_repeat_does_nothing(checkout: Checkout) -> None:
    made, installed = checkout.calls("core")
    assert made == "venv"
    assert installed.endswith("--editable .")
    assert checkout.calls("core") == []
    (installed,) = checkout.calls("all")
    assert installed.endswith("--editable .[all,dev]")
    assert checkout.calls("all") == []
    assert checkout.calls("core") == []


def test_a_changed_file_installs_again_and_all_stays_all(checkout: Checkout) -> None:
    checkout.calls("all")
    with (checkout.root / "constraints.txt").open("a", encoding="utf-8") as file:
        file.write("six==1.17.0\n")
    (installed,) = checkout.calls("core")
    assert installed.endswith("--editable .[all,dev]")


def test_a_moved_checkout_gets_a_new_environment(checkout: Checkout, tmp_path: Path) -> None:
    checkout.calls("core")
    moved = Checkout(checkout.root.rename(tmp_path / "moved"), checkout.python)
    assert moved.calls("core")[0] == "venv"


def test_a_setup_that_was_interrupted_is_done_again(checkout: Checkout) -> None:
    checkout.calls("core")
    (checkout.root / ".venv" / "bin" / "uv").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    assert checkout.setup("all").returncode != 0
    assert not (checkout.root / ".venv" / ".tunediff-setup").exists()


def test_only_wheel_folders_that_exist_are_handed_on(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    wheels = f"{tmp_path / 'gone'} {tmp_path / 'wheels'}"
    installed = checkout.calls("core", PIP_FIND_LINKS=wheels)[-1]
    assert installed.endswith(f"--find-links {tmp_path / 'wheels'}")
    assert installed.count("--find-links") == 1


def test_an_old_python_is_refused(checkout: Checkout) -> None:
    done = checkout.setup("core", OLD="1")
    assert done.returncode == 2
    assert done.stderr == (
        f"setup: Python 3.11 or newer is needed, and {checkout.python} is Python 3.9.2. "
        "Install one, or name it: make setup PYTHON=/path/to/python3.11\n"
    )


def test_a_python_without_venv_is_refused(checkout: Checkout) -> None:
    done = checkout.setup("core", BARE="1")
    assert done.returncode == 2
    assert done.stderr == (
        f"setup: {checkout.python} lacks the venv module. "
        "On Debian or Ubuntu: apt-get install python3-venv\n"
    )


def test_an_unknown_level_is_refused(checkout: Checkout) -> None:
    done = checkout.setup("everything")
    assert done.returncode == 2
    assert done.stderr == "setup: the level is core or all, not 'everything'.\n"
