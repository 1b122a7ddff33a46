"""How do suites, a pair and measures become the record of a comparison, killed or not?

Each suite is asked in up to four ways, as its items allow and the pair offers: its references and
texts are scored, its choices are scored, so are the openings of labelled prompts, and its prompts
are answered by both models (``answering.py``). Items are sorted by length and id and cut into
parts, so that no order of a file and no moment of a kill has a say in the numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunediff import __version__
from tunediff.measures import ALL
from tunediff.pair.contract import Pair
from tunediff.run import asking, looking
from tunediff.run.answering import OF_REPLIES, Replied, answer
from tunediff.run.asking import Asked
from tunediff.run.parts import Form, Part, item_line, left_out, plan
from tunediff.run.progress import Gauge
from tunediff.run.store import Recorder, Run, items_hash, recording
from tunediff.scoring import sampling
from tunediff.values import (
    Choices,
    Generation,
    Measure,
    Row,
    Scores,
    Suite,
)

if TYPE_CHECKING:
    from tunediff.scoring.states import BaseStates

EVERY: tuple[Measure, ...] = (*ALL, *OF_REPLIES)


def compare(
    pair: Pair,
    suites: Sequence[Suite],
    *,
    out: Path | str,
    generation: Generation | None = None,
    samples: int = 1,
    form: Form = "raw",
    variant: str = "tuned",
    seed: int = 0,
    max_length: int | None = None,
    allow_truncation: bool = False,
    part_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
    known: Replied | None = None,
    states: BaseStates | None = None,
    measures: Sequence[Measure] = EVERY,
    look: Sequence[looking.ItemKey] | None = (),
    weights: Callable[[], Mapping[str, Any]] | None = None,
    begin: Callable[[], None] | None = None,
    timed: bool = True,
) -> Run:
    """Ask both models everything that the suites hold, and keep what all measures say.

    Args:
        pair: the two models, opened together.
        suites: what is asked; no two of one name.
        out: the run folder; where it holds the same run, that is continued.
        generation: how replies are made; None: none are.
        samples: how many replies to each prompt.
        form: how a prompt is given: as it is, or as a user's message by the chat template.
        variant: the name of the tuned side in the rows.
        seed: of the statistics; recorded.
        max_length: at most so many token ids an item; None: as many as the model takes.
        allow_truncation: keep the first ids of a longer item, and count it.
        part_tokens: about so many tokens are lost by a kill, at most.
        progress: called with the thousandths of the work that are done, and 1000.
        measures: what is measured.
        look: (suite, item) of those whose candidates are kept, beside the items of highest KL;
            None: no candidates are.
        known: base's replies, where another variant's run made them: base answers once.
        states: where the pair keeps base's hidden states for other variants: base is read once.
        weights: yields the geometry of the change of weights (JSON), to be kept with a new run.
        begin: called when all is found to be askable, before anything is written.
        timed: whether the pair's speed is measured in the end, by some more passes.

    Raises:
        InputError: an item cannot be asked; nothing has been written.
        RunError: the folder belongs to another run or cannot be written.
        PairError, NumericsError: the pair failed.
        UsageError: settings that make no replies; nothing has been written.

    """
    if generation is not None:
        sampling.check(generation)
    parts = list(plan(pair, suites, generation, samples, form, max_length, allow_truncation,
                       part_tokens))  # fmt: skip
    lines = [item_line(s.name, i) for s in suites for i in s.items]
    chosen = _by_need(measures)
    settings = dict(pair.settings)
    identity = {
        "tunediff": __version__,
        "base": asking.side_of(pair.base),
        "tuned": asking.side_of(pair.tuned),
        "variant": variant,
        "suites": {
            s.name: asking.hash_of(
                [a for p in parts if p.suite == s.name for a in p.asked],
                [item_line(s.name, i) for i in s.items],
            )
            for s in suites
        },
        "measures": {m.name: asking.definition(m) for m in measures},
        # recorded replies were made before, nobody knows how
        "generation": asdict(generation)
        if generation and pair.settings["backend"] != "recorded"
        else None,
        "samples": samples,
        "form": form,
        "settings": {k: v for k, v in settings.items() if k not in asking.FOUND_SETTINGS},
        "seed": seed,
        "max_length": max_length,
        "allow_truncation": allow_truncation,
        "part_tokens": part_tokens,
        "look": None if look is None else sorted(map(list, look)),
    }
    scored = [a.encoded for p in parts if p.way == "scores" for a in p.asked] or [
        a.encoded for p in parts if p.way == "openings" for a in p.asked
    ]

    def found() -> dict[str, Any]:
        truncated = [e.truncated for e in scored if e.truncated]
        return {
            "paths": {"base": pair.base.path, "tuned": pair.tuned.path},
            "settings": asking.found_settings(pair),
            "noise_floor": dict(pair.noise_floor(scored)) if scored else {},
            "certificate": pair.certificate.as_dict(),
            "items": {s.name: len(s.items) for s in suites},
            "items_hash": items_hash(lines),
            "truncated": {"items": len(truncated), "tokens": sum(truncated)},
            "parts": len(parts),
            "replies": True,
            **({} if weights is None else {"weights": weights()}),
        }

    if begin is not None:
        begin()
    with recording(out, identity, found) as recorder:
        recorder.keep_items(lines)
        missing = [k for k in range(len(parts)) if not recorder.has_part(k)]
        whole = not missing and recorder.finished
        if recorder.continued and not whole:
            pair.continue_with({**settings, **recorder.record["found"]["settings"]})
        again = looking.about(parts) if "scores" in pair.offers and look is not None else 0
        gauge = Gauge(parts, missing, generation, samples, progress, again)
        if whole:
            return Run.open(out)
        for k in missing:
            began = time.perf_counter()
            part = parts[k]
            note: dict[str, Any] = {"part": k, "way": part.way, "tokens": part.cost}
            if part.way == "replies":
                assert generation is not None
                note["answered"] = answer(
                    pair, recorder, k, part, chosen, generation, samples, variant, known or {},
                    states, gauge,
                )  # fmt: skip
            elif part.way != "scores":
                _continue(pair, recorder, k, part, chosen[part.way], variant)
            else:
                _score(pair, recorder, k, part, chosen["scores"], variant)
            gauge.ended(k)
            note["seconds"] = time.perf_counter() - began
            recorder.note_time({**note, "settings": asking.found_settings(pair)})
        if timed and missing and scored:
            recorder.note_time({"speed": dict(pair.speed(scored))})
        with states.asked_once() if states is not None else nullcontext():
            looked_at = 0 if look is None else _look(pair, recorder, parts, look, part_tokens)
        gauge.ended(len(parts))
        return recorder.finish(looked_at)


def _look(
    pair: Pair,
    recorder: Recorder,
    parts: Sequence[Part],
    named: Sequence[looking.ItemKey],
    most: int,
) -> int:
    """Keep the candidates of the items that differ most and of those named; in how many parts."""
    cuts = looking.plan(pair, recorder, parts, named, most)
    for k, texts in enumerate(cuts):
        if not recorder.has_candidates(k):
            began = time.perf_counter()
            recorder.write_candidates(k, looking.columns(pair, texts))
            note = {"candidates": k, "tokens": sum(len(a.encoded.ids) for _, a in texts)}
            recorder.note_time({**note, "seconds": time.perf_counter() - began})
    return len(cuts)


def _by_need(measures: Sequence[Measure]) -> Mapping[str, Sequence[Measure]]:
    """The measures by what their function is given; those of replies that were scored apart."""
    found: dict[str, list[Measure]] = {
        need: []
        for need in ("scores", "choices", "openings", "replies", "samples", "scored replies")
    }
    for m in measures:
        need = "scores" if m.needs == ("nll",) else m.needs[0]
        found["scored replies" if m in OF_REPLIES else need].append(m)
    return found


def _score(
    pair: Pair,
    recorder: Recorder,
    k: int,
    part: Part,
    measures: Sequence[Measure],
    variant: str,
) -> None:
    scored = list(asking.scores_of(pair, part.asked))
    recorder.write_part(
        k,
        [
            *asking.score_rows(part.asked, scored, measures, part.suite, variant),
            *left_out(part, measures, variant),
        ],
        asking.token_columns(scored, part.suite),
        [asking.probe_line(scores, part.suite, pair) for scores in scored],
        texts=asking.text_lines(pair, [a.encoded for a in part.asked], scored, part.suite),
    )


def _continue(
    pair: Pair,
    recorder: Recorder,
    k: int,
    part: Part,
    measures: Sequence[Measure],
    variant: str,
) -> None:
    """Measure and keep how likely an item's choices or openings are.

    What both expect first is kept of items that have no reference, with which it would be too.
    """
    scores = asking.scores_of(pair, part.asked)
    rows: list[Row] = []
    probes: list[dict[str, Any]] = []
    for item, own in part.groups:
        scored = [next(scores) for _ in own]
        choices = _gathered(item.id, own, scored)
        for m in measures:
            found = m.function(item, choices)
            rows.append(asking.row_of(m.name, item, found, part.suite, variant))
        if item.reply is None and item.messages is None:
            probes.append(asking.probe_line(replace(scored[0], item_id=item.id), part.suite, pair))
    rows += left_out(part, measures, variant)
    recorder.write_part(k, rows, asking.token_columns([], ""), probes)


def _gathered(item: str, asked: Sequence[Asked], scored: Sequence[Scores]) -> Choices:
    reason = next((s.reason for s in scored if s.reason is not None), None)
    kept = [] if reason is not None else scored
    return Choices(
        item_id=item,
        base=np.array([-s.nll_base.sum() for s in kept]),
        tuned=np.array([-s.nll_tuned.sum() for s in kept]),
        tokens=np.array([len(s.positions) for s in kept], dtype=np.int64),
        bytes_scored=np.array([a.encoded.bytes_scored for a in asked[: len(kept)]], np.int64),
        reason=reason,
    )
