"""Does the project keep its own house rules: files, pages, names, versions?"""

from __future__ import annotations

import ast
import os
import re
import runpy
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

import tunediff

ROOT = Path(__file__).resolve().parent.parent

# Files of src/ over 400 lines, each with the reason why it is not two.
LONG_FILES: dict[str, str] = {}

# Folders of one machine, and hosts of package registries.
FOREIGN = re.compile(
    r"(?:^|[^\w.~-])/(?:work|opt|root|home|Users|mnt)/\w|://[\w.-]*(?:pypi|npmjs|debian)"
)


def project_files(root: Path = ROOT) -> dict[str, Path]:
    """Every file that git tracks or would, by its name in the project."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listed.stdout.split("\0") if name]
    return {name: root / name for name in sorted(names) if (root / name).is_file()}


def text_of(path: Path) -> str | None:
    """The file's text, or None where it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def foreign_lines(files: dict[str, Path]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()}"
        for name, path in files.items()
        for number, line in enumerate((text_of(path) or "").splitlines(), 1)
        if FOREIGN.search(line)
    ]


def skips(code: str) -> list[str]:
    """The ways of not running a test that a file uses."""
    ways = {"skip", "skipif", "xfail", "importorskip"}
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and node.attr in ways and "pytest" in ast.unparse(node)
    ]


def dead_links(name: str, text: str, root: Path = ROOT) -> list[str]:
    """Relative links of a Markdown file that lead nowhere."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose)
    local = [target for target in targets if "://" not in target]
    return [t for t in local if not (root / name).parent.joinpath(t).exists()]


@pytest.fixture
def command_pages(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What tools/command_pages.py defines; the environment that it sets is taken back."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "command_pages.py")))


def test_no_file_names_a_machine_or_a_registry() -> None:
    assert foreign_lines(project_files()) == []


@pytest.mark.parametrize(
    "parts", [("/ro", "ot/x"), ("cd /ho", "me/ann"), ("(/op", "t/lib)"), ("https://py", "pi.org")]
)
def test_a_machine_path_or_registry_would_be_found(tmp_path: Path, parts: tuple[str, str]) -> None:
    (tmp_path / "a.md").write_text("".join(parts), encoding="utf-8")
    assert len(foreign_lines({"a.md": tmp_path / "a.md"})) == 1


def test_the_pages_of_the_commands_are_what_help_prints() -> None:
    """On any terminal: a wide one with colours is asked for here."""
    done = subprocess.run(
        [sys.executable, "tools/command_pages.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "FORCE_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_stale_missing_or_orphaned_page_is_found(
    tmp_path: Path, command_pages: SimpleNamespace
) -> None:
    app = typer.Typer()

    @app.command()
    def check(base: str, ppl_threshold: float = 0.01) -> None:
        """Is it really fine-tuned?"""

    @app.command()
    def demo() -> None:
        """Everything, on the embedded specimens."""

    made = command_pages.pages(app)
    assert set(made) == {"README.md", "check.md", "demo.md"}
    assert "Is it really fine-tuned?" in made["check.md"]
    assert "--ppl-threshold" in made["check.md"]

    command_pages.write(made, tmp_path)
    assert command_pages.differences(made, tmp_path) == []

    (tmp_path / "check.md").write_text("old", encoding="utf-8")
    (tmp_path / "demo.md").rename(tmp_path / "gone.md")
    assert command_pages.differences(made, tmp_path) == [
        "gone.md: no such command",
        "check.md: differs from --help",
        "demo.md: missing",
    ]
    command_pages.write(made, tmp_path)
    assert command_pages.differences(made, tmp_path) == []


def test_every_public_name_is_documented() -> None:
    assert tunediff.__all__
    for name in tunediff.__all__:
        documented = tunediff if name.startswith("__") else getattr(tunediff, name)
        assert (documented.__doc__ or "").strip(), name


def test_long_files_say_why() -> None:
    long = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "src").rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
    }
    assert long == set(LONG_FILES)


def test_version_is_told_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == tunediff.__version__


def test_torch_is_pinned_without_a_local_tag() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in pins if line.startswith("torch==")] == ["torch==2.13.0"]
    assert [line for line in pins if not re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line)] == []


def test_no_jinja_of_which_the_sandbox_leaks_is_allowed() -> None:
    """Before 3.1.6 a template could reach str.format through the attr filter (CVE-2025-27516)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    [lowest] = [line for line in project["dependencies"] if line.startswith("jinja2")]
    [pinned] = [line for line in pins if line.startswith("jinja2")]
    for line, sign in ((lowest, ">="), (pinned, "==")):
        version = line.removeprefix(f"jinja2{sign}").split(".")
        assert [int(part) for part in version] >= [3, 1, 6]


def test_changelog_has_a_place_for_the_next_line() -> None:
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_first_screen_of_the_readme_shows_both_ways_in() -> None:
    screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert any("make demo" in line for line in screen)
    assert any("make test" in line for line in screen)


def test_links_between_documents_lead_somewhere() -> None:
    dead = {
        name: links
        for name, path in project_files().items()
        if name.endswith(".md") and (links := dead_links(name, path.read_text(encoding="utf-8")))
    }
    assert dead == {}


def test_a_dead_link_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").touch()
    text = "[a](there.md#part) [b](gone.md) [c](https://example.org/x.md) `[d](code.md)`"
    assert dead_links("a.md", text, tmp_path) == ["gone.md"]


def test_only_the_fixtures_skip() -> None:
    found = {
        path.name: used
        for path in (ROOT / "tests").rglob("*.py")
        if path.name != "conftest.py" and (used := skips(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_a_skip_would_be_found() -> None:
    assert skips("@pytest.mark.skipif(True)\ndef test(): pytest.importorskip('ray')") == [
        "pytest.mark.skipif",
        "pytest.importorskip",
    ]


SHARED_TEST = """
def test_reads_it(shared):
    assert (shared / "README.md").is_file()
"""


@pytest.mark.parametrize(
    ("ci", "folder", "says", "code"),
    [
        ("", None, "1 skipped", 0),
        ("true", None, "reads the shared folder and was skipped in CI", 1),
        ("true", "shared", "1 passed", 0),
        ("true", "named", "1 passed", 0),
    ],
)
def test_a_shared_test_may_not_be_skipped_in_ci(
    tmp_path: Path, ci: str, folder: str | None, says: str, code: int
) -> None:
    tests = tmp_path / "repo" / "tests"
    tests.mkdir(parents=True)
    conftest = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    (tests / "conftest.py").write_text(conftest, encoding="utf-8")
    (tests / "test_it.py").write_text(SHARED_TEST, encoding="utf-8")
    (tests / "pytest.ini").write_text("[pytest]\nmarkers = shared\n", encoding="utf-8")
    env = {"PATH": os.environ["PATH"], "CI": ci}
    if folder is not None:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").touch()
    if folder == "named":
        env["TUNEDIFF_SHARED"] = str(tmp_path / folder)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "shared", "-p", "no:cacheprovider", str(tests)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert says in done.stdout
    assert done.returncode == code


def test_the_network_is_out_of_reach() -> None:
    with pytest.raises(RuntimeError, match=r"reached for the network: example\.org"):
        socket.create_connection(("example.org", 443))
    with socket.socket() as sock, pytest.raises(RuntimeError, match=r"the network: 192\.0\.2\.1"):
        sock.connect(("192.0.2.1", 443))


def test_this_machine_is_within_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
