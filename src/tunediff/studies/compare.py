"""Which runs does ``tunediff compare`` make, before anything is said of them?"""

from __future__ import annotations

import difflib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunediff.errors import InputError, RunError, UsageError
from tunediff.findings.primary import BESIDE, PRIMARY
from tunediff.items.bounds import shown
from tunediff.items.named import BUILT_IN, read_suites
from tunediff.items.read import content_hash
from tunediff.pair.contract import Pair
from tunediff.pair.open import RECORDED, open_pair
from tunediff.pair.template import read_template
from tunediff.run.comparing import EVERY, Replied, compare
from tunediff.run.looking import find_item
from tunediff.run.parts import Form
from tunediff.run.store import Run
from tunediff.run.variants import VARIANTS
from tunediff.studies.variants import (
    base_replies,
    keep_names,
    notice_template,
    share_base,
    share_of,
    weigh_pair,
)
from tunediff.values import Generation, Measure, Suite

if TYPE_CHECKING:
    from tunediff.scoring.states import BaseStates

REST = "recorded"  # the suite of recorded replies that no other one knows
TEMPLATES = ("raw", "chat", "both")


def measure_compare(
    base: str,
    tuned: Sequence[str],
    suites: Sequence[Suite],
    out: Path,
    *,
    template: str | None = None,
    generation: Generation | None = None,
    samples: int = 1,
    limit: int | None = None,
    look: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
    opening: Mapping[str, Any],
    **asking: Any,
) -> list[Run]:
    """Compare base with each tuned model on the suites.

    Base is read once for all, and answers once for all whose replies the same tokens end.

    Args:
        base: as ``open_pair`` takes it.
        tuned: one or more, likewise.
        suites: what is asked; empty: recorded replies as they are.
        out: the run folder; of several variants (tuned models, or forms of the prompt) it holds
            one run folder each, and ``variants.json``, their names in order.
        template: "raw", "chat", a file with a chat template, or "both" raw and chat; None: raw,
            and ``notice`` hears of a chat template that there is.
        generation: how replies are made; None: none are. Recorded replies are there already.
        samples: replies to each prompt; of recorded ones all are taken.
        limit: of recorded replies, only the first so many items of each suite.
        look: items whose candidates are kept, as ``looking.find_item`` takes their names.
        progress: called with the thousandths of the work that are done, and of all of it.
        notice: called with a sentence on what a person should know of the input.
        opening: the options of ``open_pair``.
        asking: the other options of :func:`tunediff.run.comparing.compare`.

    """
    recorded = base.startswith(RECORDED)
    source = template_source(template or "raw")
    if recorded:
        if template not in (None, "raw"):
            raise UsageError(
                f"--template {template} came with recorded replies, whose prompts were given "
                "before.",
                "Leave it out.",
            )
        generation = Generation()  # nothing is generated
    asked_for = [(suite.name, item.id) for suite in suites for item in suite.items]
    looked_at = sorted({find_item(name, asked_for) for name in look})
    forms: tuple[Form, ...] = {"both": ("raw", "chat"), "raw": ("raw",)}.get(
        template or "raw", ("chat",)
    )
    names = _names(tuned, forms)
    folders = [out] if len(names) == 1 else [out / name for name in names]
    if len(names) == 1 and (out / VARIANTS).exists():
        raise RunError(
            f"{out} holds the runs of several tuned models; one came.", "Choose another folder."
        )
    runs: list[Run] = []
    known: dict[tuple[Form, tuple[int, ...]], Replied] = {}
    places = iter(zip(names, folders, strict=True))
    states: BaseStates | None = None

    def begin(pair: Pair, asked: Sequence[Suite]) -> None:
        if not runs:
            _notice_twice(asked, notice)
        if template is None and not runs:
            notice_template(pair, asked, notice)
        if len(names) > 1:
            keep_names(out, names)

    with tempfile.TemporaryDirectory() as kept:
        for path in tuned:
            pair = open_pair(base, path, template=source, **opening)
            if len(tuned) > 1 and pair.settings["backend"] == "hf":
                states = share_base(pair, Path(kept), states)
            asked = _of_recorded(pair, suites, limit, notice) if recorded else suites
            ends = tuple(pair.settings.get("ends", ()))  # tuned's end base's replies too
            for form in forms:
                name, folder = next(places)
                run = compare(
                    pair,
                    asked,
                    out=folder,
                    generation=generation,
                    samples=_most_samples(pair, asked) if recorded else samples,
                    form=form,
                    variant=name,
                    progress=share_of(progress, len(runs), len(names)),
                    known=known.get((form, ends)),
                    states=states,
                    look=looked_at,
                    weights=partial(weigh_pair, base, path, opening)
                    if "weights" in pair.offers
                    else None,
                    begin=partial(begin, pair, asked),
                    **asking,
                )
                if not recorded:  # there a sample's number depends on both files
                    known.setdefault((form, ends), base_replies(run))
                runs.append(run)
    return runs


def _notice_twice(suites: Sequence[Suite], notice: Callable[[str], None]) -> None:
    """Say where two suites ask the same things, which then count twice."""
    asked: dict[tuple[str, ...], str] = {}
    for suite in suites:
        first = asked.setdefault(tuple(item.shown for item in suite.items), suite.name)
        if first != suite.name:
            notice(f"The suites {first} and {suite.name} ask the same; it counts twice.")


def choose_measures(names: Sequence[str]) -> tuple[Measure, ...]:
    """The measures of these names and the axes' primaries; without a name, every measure.

    A name is one of tunediff's, or ``FILE.py:NAME``: a ``Measure`` in a Python file of the user's.

    Raises:
        UsageError: there is no such measure.

    """
    if not names:
        return EVERY
    known = {m.name: m for m in EVERY}
    primaries = {*BESIDE, *(name for choices in PRIMARY.values() for name in choices)}
    chosen = {name: known[name] for name in known if name in primaries or name in names}
    for name in names:
        path, _, attribute = name.rpartition(":")
        if path.endswith(".py"):
            own = _own_measure(Path(path), attribute)
            chosen[own.name] = own
        elif name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise UsageError(
                f"There is no measure {shown(name)}."
                + (f" Did you mean {near[0]}?" if near else ""),
                f"The measures are {', '.join(known)}; or FILE.py:NAME of your own.",
            )
    return tuple(chosen.values())


def _own_measure(path: Path, name: str) -> Measure:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"There is no Python file {path}.", "Give --measure FILE.py:NAME.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not isinstance(found, Measure):
        raise UsageError(
            f"{path} has no Measure named {name!r}.",
            "Write NAME = Measure(…) in it, from tunediff.values.",
        )
    return found


def suites_or_built_in(
    specs: Sequence[str],
    data: str | None,
    axes: Sequence[str],
    limit: int | None,
    recorded: bool,
) -> tuple[Suite, ...]:
    """The suites asked for; where none is, every built-in one, or of recorded replies none."""
    if not specs and data is None and not recorded:
        specs = BUILT_IN
    return read_suites(specs, data, axes, limit)


def template_source(template: str) -> str | None:
    """The source of a template file."""
    if template in TEMPLATES:
        return None
    return read_template(template, f"none of {', '.join(TEMPLATES)}")


def _names(tuned: Sequence[str], forms: Sequence[str]) -> list[str]:
    """One name a variant: the last part of its path, with a number where two are the same."""
    names: list[str] = []
    for path in tuned:
        plain = path.rpartition(":")[2] if ":" in path else path
        stem = Path(os.path.abspath(plain)).name.removesuffix(".jsonl") or "tuned"
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names if len(forms) == 1 else [f"{n}-{form}" for n in names for form in forms]


def _most_samples(pair: Any, suites: Sequence[Suite]) -> int:
    return max(pair.samples(item.id) for suite in suites for item in suite.items)


def _of_recorded(
    pair: Any, suites: Sequence[Suite], limit: int | None, notice: Callable[[str], None]
) -> tuple[Suite, ...]:
    """What recorded replies answer: a suite's row of the same id gives the reference.

    Replies that no suite knows are a suite of their own, of which texts alone are measured.
    """
    recorded = {item.id: item for item in pair.items()}
    found: list[Suite] = []
    said: list[str] = []
    known: dict[str, str] = {}  # the suite of each id
    for suite in suites:
        own = [i for i in suite.items if i.id in recorded]
        if not own:
            raise InputError(
                f"No id of the suite {suite.name!r} has a recorded reply (it begins "
                f"{suite.items[0].id!r}; the replies begin {next(iter(recorded))!r}).",
                "Give the rows the ids of their replies.",
            )
        for item in own:
            if known.setdefault(item.id, suite.name) != suite.name:
                raise InputError(
                    f"The id {item.id!r} is in the suites {known[item.id]!r} and {suite.name!r}, "
                    "and one recorded reply cannot answer both.",
                    "Give each row an id that no other suite has (without ids rows count from 0).",
                )
        if len(own) < len(suite.items):
            said.append(
                f"{suite.name}: {len(suite.items) - len(own)} of {len(suite.items)} rows have no "
                "recorded reply and are left out."
            )
        items = tuple(
            replace(i, prompt=recorded[i.id].prompt, text=None, messages=None,
                    reply=i.messages[-1]["content"] if i.messages else i.reply)
            for i in own[:limit]
        )  # fmt: skip
        found.append(Suite(suite.name, items, content_hash(items)))
    rest = tuple(item for id_, item in recorded.items() if id_ not in known)[:limit]
    if rest:
        if any(suite.name == REST for suite in suites):
            raise UsageError(
                f"{len(recorded) - len(known)} recorded replies are in no suite given, and make "
                f"one named {REST!r}, which is also the name of a suite given.",
                "Give that suite another name.",
            )
        found.append(Suite(REST, rest, content_hash(rest)))
    left = len(recorded) - sum(len(suite.items) for suite in found)
    if left:
        said.append(
            f"{left} of {len(recorded)} prompts are left out by the limit of {limit} a suite."
        )
    for sentence in said:
        notice(sentence)
    return tuple(found)
