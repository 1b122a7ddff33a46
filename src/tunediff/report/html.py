"""How does a run become one page that opens from disk, asks no network for anything, and prints?

A pure function of the run folder: the same run gives the same bytes. Whatever a model, a person or
a file said goes through the template's escaping, or into JSON that the page's script shows as
text; and the page's policy lets no other script run and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files as resources
from itertools import count
from pathlib import Path
from typing import Any

from tunediff.errors import NumericsError
from tunediff.findings.microscope import Microscope
from tunediff.findings.scorecard import scorecard
from tunediff.report import plots
from tunediff.report.browse import browsed
from tunediff.report.chapter import Chapter, chapter, is_check
from tunediff.report.curves import Study, study_of
from tunediff.report.figures import Drawing
from tunediff.report.glossary import TERMS, VERDICTS, definition, label, ordered
from tunediff.report.replay import command
from tunediff.report.story import RULE, asked, mark, signed, word
from tunediff.report.svg import inline, save
from tunediff.report.text import chance, embedded, figure, visible
from tunediff.run import files
from tunediff.run.store import Run
from tunediff.run.variants import open_runs

NAME = "report.html"
_LONGEST = 60  # characters of a plot's file name


def report(run: Run | Path | str, out: Path | str | None = None) -> Path:
    """Write the page of a run and say where it is.

    Args:
        run: a finished run, or a folder that ``check`` or ``compare`` wrote.
        out: the file; None: ``report.html`` in that folder.

    Raises:
        RunError: it is no finished run, is damaged or from a newer tunediff, or the page cannot be
            written.

    """
    folder = run.folder if isinstance(run, Run) else Path(run)
    path = folder / NAME if out is None else Path(out)
    files.write_whole(path, render(run).encode())
    return path


def save_plots(run: Run | Path | str, folder: Path | str) -> list[str]:
    """Write every plot of a run as PNG and SVG for a paper, and say their names."""
    folder = Path(folder)
    names: list[str] = []
    with plots.style():
        study, runs = _opened(run)
        chapters, _ = _chapters(runs, [Microscope.of(run) for run in runs])
        drawn = [("", drawing) for drawing in (study.drawings if study else ())]
        for one in chapters:
            before = f"{one.name}-" if len(chapters) > 1 else ""
            drawn += [(before, drawing) for drawing in _drawings(one)]
        files.make_folder(folder)
        for before, drawing in drawn:
            names.append(_file_name(before + drawing.name, names))
            save(drawing.figure, folder, names[-1])
    return names


def _file_name(name: str, taken: Sequence[str]) -> str:
    """A name that every disk takes, and that no other plot has."""
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)[:_LONGEST]
    return plain if plain not in taken else f"{plain}-{len(taken)}"


def render(run: Run | Path | str) -> str:
    """The page as text."""
    with plots.style():
        study, runs = _opened(run)
        scopes = [Microscope.of(run) for run in runs]
        chapters, card = _chapters(runs, scopes)
        judged = dict.fromkeys(own["primary"] for one in chapters for own in one.axes.values())
        items = browsed(runs, [one.name for one in chapters], scopes, list(judged))
        return _page(chapters, card, study, items)


def _opened(run: Run | Path | str) -> tuple[Study | None, list[Run]]:
    """The study that a folder holds, and the runs that have a chapter: of a study, a few."""
    if isinstance(run, Run):
        return None, [run]
    study = study_of(Path(run))
    if study is None:
        return None, open_runs(run)
    runs = open_runs(study.runs)
    shown = [r for r in runs if r.record["identity"]["variant"] in study.shown]
    return study, shown or runs[:1]


def _chapters(
    runs: Sequence[Run], scopes: Sequence[Microscope]
) -> tuple[list[Chapter], dict[str, Any] | None]:
    card = None if is_check(runs[0]) else scorecard(runs)
    variants = [None] * len(runs) if card is None else card["variants"]
    return [chapter(*own) for own in zip(runs, variants, scopes, strict=True)], card


def _drawings(one: Chapter) -> Iterator[Drawing]:
    yield from (drawing for drawing, _ in one.strips.values())
    for own in one.drawings.values():
        yield from own
    for drawing in (one.domains, one.correlations, one.tokens, one.layers, one.concern):
        if drawing is not None:
            yield drawing


def _page(
    chapters: Sequence[Chapter],
    card: dict[str, Any] | None,
    study: Study | None,
    items: dict[str, Any],
) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    numbers = count()

    def drawn(drawing: Drawing) -> Markup:
        ident = f"f{next(numbers)}"
        title, description = visible(drawing.title), visible(drawing.description)
        return Markup(inline(drawing.figure, ident, title, description))

    place = resources("tunediff.report") / "page"
    script, sheet = (
        (place / name).read_text(encoding="utf-8") for name in ("script.js", "style.css")
    )
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "asked": asked,
        "chance": chance,
        "command": command,
        "definition": definition,
        "drawn": drawn,
        "figure": figure,
        "label": label,
        "mark": mark,
        "ordered": ordered,
        "signed": signed,
        "word": word,
    }
    template = environment.from_string((place / "template.html").read_text(encoding="utf-8"))
    return template.render(
        chapters=chapters,
        card=card,
        study=study,
        script=Markup(script),
        sheet=Markup(sheet),
        policy=_policy(script, sheet),
        data=Markup(embedded(items)),
        rule=RULE,
        terms=TERMS,
        verdicts=VERDICTS,
    )


def _policy(script: str, sheet: str) -> str:
    """What the page may do: run its one script, wear its one style sheet, and nothing else."""

    def named(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; script-src {named(script)}; style-src {named(sheet)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _shown(value: Any) -> Any:
    """What the template puts out: plain text is made visible, and there is never a None."""
    if value is None:
        raise NumericsError("The page was about to show a figure that there is none of.", "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value)) or "none"
    return visible(value) if type(value) is str else value
