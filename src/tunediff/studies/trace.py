"""Which runs does ``tunediff trace`` make: one adapter, with which of its modules off?

The pair is opened once. Base is read once, tuned once for each group that is switched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tunediff.errors import AdapterError, UsageError
from tunediff.findings.paired import Setting
from tunediff.findings.trace import By, Part, Way, trace_card
from tunediff.pair.open import open_pair
from tunediff.studies.compare import template_source
from tunediff.studies.variants import Series
from tunediff.values import Generation, Suite

CARD = "trace.json"
WHOLE = "whole"


def measure_trace(
    base: str,
    adapter: str,
    suites: Sequence[Suite],
    out: Path,
    *,
    by: Literal["layer", "module", "both"] = "both",
    alone: bool = False,
    template: str | None = None,
    generation: Generation | None = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
    opening: Mapping[str, Any],
    **asking: Any,
) -> dict[str, Any]:
    """Compare base with the adapter whole and group by group; the object of ``trace.json``.

    Args:
        base: as ``open_pair`` takes it.
        adapter: the folder of a plain LoRA.
        suites: what is asked.
        out: the folder: a run folder a setting, ``variants.json`` and ``trace.json``.
        by: switch off every layer, every kind of module (``q_proj`` …), or both one by one.
        alone: ask each group on alone too.
        template: "raw", "chat" or a file; None: raw, and ``notice`` hears of a chat template.
        generation: how replies are made; None: none are.
        progress: called with the thousandths of the work that are done, and of all of it.
        notice: called with a sentence on what a person should know of the input.
        opening: the options of ``open_pair``.
        asking: the other options of :func:`tunediff.run.comparing.compare`.

    Raises:
        UnsupportedError: the tuned side is not a plain LoRA.
        AdapterError: the adapter changes nothing.
        RunError: the folder belongs to another comparison.

    """
    if by not in ("layer", "module", "both"):
        raise UsageError(f"--by {by} came.", "Give layer, module or both.")
    pair = open_pair(base, adapter, template=template_source(template or "raw"), **opening)
    from tunediff.pair.hf_dial import adapted

    modules = adapted(pair)
    if pair.certificate.weights_equal:
        raise AdapterError(
            f"{pair.tuned.path} changes nothing (ΔW is zero): there is no part to switch off.",
            "Give a trained adapter.",
        )
    ways: tuple[Way, ...] = ("off", "alone") if alone else ("off",)
    asked: list[tuple[By, str, set[str], Way]] = [
        (cut, group, own, way)
        for cut, groups in _groups(modules).items()
        if by in (cut, "both")
        for way in ways
        for group, own in groups.items()
    ]
    names = [WHOLE, *(_name(group, way) for _, group, _, way in asked)]

    with tempfile.TemporaryDirectory() as states:
        series = Series(
            pair,
            suites,
            out,
            Path(states),
            names=names,
            template=template,
            progress=progress,
            notice=notice,
            generation=generation,
            **asking,
        )
        whole = Setting.of(series.run(WHOLE))
        parts = []
        for (cut, group, own, way), name in zip(asked, names[1:], strict=True):
            off = own if way == "off" else set(modules) - own
            parts.append(Part(cut, group, len(own), way, Setting.of(series.run(name, off=off))))
    return trace_card(whole, parts)


def _groups(modules: Mapping[str, int | None]) -> dict[By, dict[str, set[str]]]:
    """The adapted modules by layer and by kind, in the model's order."""
    found: dict[By, dict[str, set[str]]] = {"layer": {}, "module": {}}
    for name, layer in sorted(modules.items(), key=lambda m: (m[1] is None, m[1] or 0)):
        within = "head" if layer is None else f"layer {layer}"
        found["layer"].setdefault(within, set()).add(name)
        found["module"].setdefault(name.rpartition(".")[2], set()).add(name)
    return found


def _name(group: str, way: Way) -> str:
    return f"{'without' if way == 'off' else 'only'}-{group.replace(' ', '-')}"
