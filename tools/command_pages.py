"""What does each command's page say? Exactly what its ``--help`` prints.

``python tools/command_pages.py`` writes ``docs/commands/``; with ``--check`` it writes nothing and
fails where a page differs, is missing, or belongs to no command.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before typer is imported: it reads these once, and help must look alike on every terminal.
os.environ["TERMINAL_WIDTH"] = "80"
os.environ["NO_COLOR"] = "1"
os.environ["FORCE_COLOR"] = os.environ["PY_COLORS"] = os.environ["GITHUB_ACTIONS"] = ""

import typer
from typer.testing import CliRunner

PAGES = Path(__file__).resolve().parent.parent / "docs" / "commands"


def help_text(app: typer.Typer, *command: str) -> str:
    """What ``tunediff COMMAND --help`` prints, without trailing blanks."""
    result = CliRunner().invoke(app, [*command, "--help"], prog_name="tunediff")
    if result.exit_code != 0:
        raise SystemExit(f"tunediff {' '.join(command)} --help failed: {result.output}")
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def pages(app: typer.Typer) -> dict[str, str]:
    """The text of each page, by file name: one for each command, and a README that lists them."""

    def page(title: str, links: str, *command: str) -> str:
        note = "Written by `make docs` from the program's own `--help`."
        return f"# {title}\n\n{note}\n{links}\n```text\n{help_text(app, *command)}\n```\n"

    commands = sorted(typer.main.get_group(app).commands)
    links = "".join(f"- [`tunediff {name}`]({name}.md)\n" for name in commands)
    made = {f"{name}.md": page(f"tunediff {name}", "", name) for name in commands}
    return {"README.md": page("Commands", f"\n{links}"), **made}


def differences(made: dict[str, str], folder: Path) -> list[str]:
    """One line for each page of the folder that is not what it should be."""
    there = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    lines = [f"{name}: no such command" for name in there if name not in made]
    for name, text in made.items():
        if name not in there:
            lines.append(f"{name}: missing")
        elif there[name] != text:
            lines.append(f"{name}: differs from --help")
    return lines


def write(made: dict[str, str], folder: Path) -> None:
    """Make the folder hold these pages and no other."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


def main() -> None:
    """Write the pages, or with ``--check`` compare them."""
    from tunediff.cli import app

    if sys.argv[1:] == ["--check"]:
        lines = differences(pages(app), PAGES)
        if lines:
            raise SystemExit("\n".join([*lines, "docs/commands/ is not up to date: make docs"]))
    elif sys.argv[1:]:
        raise SystemExit("usage: python tools/command_pages.py [--check]")
    else:
        write(pages(app), PAGES)


if __name__ == "__main__":
    main()
