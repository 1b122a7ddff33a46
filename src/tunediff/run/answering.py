"""What did both models answer, and how likely does either find what was said?

Replies are made in parts, measured as texts, and scored by both models, so that no later view needs
a model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tunediff.errors import InputError
from tunediff.measures.tokens import kl_base_tuned_start, nll
from tunediff.pair.contract import Pair
from tunediff.run import asking
from tunediff.run.asking import Asked
from tunediff.run.parts import Part, left_out, plain
from tunediff.run.progress import Gauge
from tunediff.run.store import Recorder
from tunediff.values import OF, Encoded, Generation, Measure, Observation, Of, Reply, Row, Scores

if TYPE_CHECKING:
    from tunediff.scoring.states import BaseStates

_SCORED_REPLY = ("scores", "replies")
_OF_BASE, _OF_TUNED = (
    Measure(
        f"nll_of_{side}_reply",
        "nats/token",
        0,
        f"the reply of {side} is as likely under both",
        _SCORED_REPLY,
        nll,
    )
    for side in ("base", "tuned")
)
_START = Measure(
    "kl_of_base_reply_start",
    "nats/token",
    0,
    "same distribution over the first eight tokens of base's reply",
    _SCORED_REPLY,
    kl_base_tuned_start,
)
OF_REPLIES: tuple[Measure, ...] = (_OF_BASE, _START, _OF_TUNED)
"""How likely both models find what base said and what tuned said, and where they part."""
_OF_SIDES = ((_OF_BASE, _START), (_OF_TUNED,))

Replied = Mapping[tuple[str, str, int], Reply]
"""Replies of base that are known already, by suite, item and sample."""


def answer(
    pair: Pair,
    recorder: Recorder,
    k: int,
    part: Part,
    chosen: Mapping[str, Sequence[Measure]],
    generation: Generation,
    samples: int,
    variant: str,
    known: Replied,
    states: BaseStates | None,
    gauge: Gauge,
) -> dict[str, float]:
    """Make, measure and keep the replies of a part; how many tokens were made, in what time."""
    began, made = time.perf_counter(), 0
    replies: list[list[tuple[Reply, Reply]]] = [[] for _ in part.asked]
    recorded = getattr(pair, "samples", None)  # replies that are there may differ in number
    for sample in range(samples):
        own = [
            (a, said)
            for a, said in zip(part.asked, replies, strict=True)
            if recorded is None or sample < recorded(a.item.id)
        ]
        prompts = [a.encoded for a, _ in own]
        keys = [(part.suite, a.item.id, sample) for a, _ in own]
        if all(key in known for key in keys):
            answers = gauge.counted(pair.generate(prompts, generation, sample, ("tuned",)))
            both = [(known[key], tuned) for key, (_, tuned) in zip(keys, answers, strict=True)]
        else:
            both = list(gauge.counted(pair.generate(prompts, generation, sample)))
            made += sum(len(base.ids or ()) for base, _ in both if base is not None)
        for (_, said), (base, tuned) in zip(own, both, strict=True):
            assert base is not None
            assert tuned is not None
            said.append((base, tuned))
            made += len(tuned.ids or ())
    seconds = time.perf_counter() - began

    rows: list[Row] = []
    lines: list[dict[str, Any]] = []
    for a, said in zip(part.asked, replies, strict=True):
        item = plain(a.item)
        for sample, (base, tuned) in enumerate(said):
            for m in chosen["replies"]:
                found = m.function(item, base, tuned)
                rows.append(asking.row_of(m.name, a.item, found, part.suite, variant, sample))
            sides = {"base": asdict(base), "tuned": asdict(tuned)}
            lines.append({"suite": part.suite, "item": a.item.id, "sample": sample, **sides})
        for m in chosen["samples"] if samples > 1 else ():
            found = m.function(item, [b for b, _ in said], [t for _, t in said])
            rows.append(asking.row_of(m.name, a.item, found, part.suite, variant))
    rows += left_out(part, chosen["replies"], variant)
    first: list[tuple[Of, Encoded, Scores]] = []
    if chosen["scored replies"] and "scores" in pair.offers:
        found, first = _score_replies(
            pair, part, replies, chosen["scored replies"], variant, states
        )
        rows += found
    of: list[Of] = [whose for whose, _, _ in first]
    scored = [scores for _, _, scores in first]
    recorder.write_part(
        k,
        rows,
        asking.token_columns(scored, part.suite, of),
        [],
        lines,
        asking.text_lines(pair, [e for _, e, _ in first], scored, part.suite, of),
    )
    return {"tokens": made, "seconds": seconds}


def _score_replies(
    pair: Pair,
    part: Part,
    replies: Sequence[Sequence[tuple[Reply, Reply]]],
    measures: Sequence[Measure],
    variant: str,
    states: BaseStates | None,
) -> tuple[list[Row], list[tuple[Of, Encoded, Scores]]]:
    """What both models' scores of each reply come to: rows, and the scores of the first replies.

    Base's replies are scored apart from tuned's, which no other tuned model has. Tokens are kept of
    an item's first replies alone: more samples would make the record grow with their number, and
    show the same thing again.
    """
    rows: list[Row] = []
    first: list[tuple[Of, Encoded, Scores]] = []
    for side, (of_side, of) in enumerate(zip(_OF_SIDES, OF[1:], strict=True)):
        wanted = [m for m in of_side if m in measures]
        said = [
            (a, sample, _continued(pair, a.encoded, both[side]))
            for a, own in zip(part.asked, replies, strict=True)
            for sample, both in enumerate(own)
            if wanted
        ]
        scorable = [Asked(a.item, e) for a, _, e in said if not isinstance(e, str)]
        with states.asked_once() if states is not None and side else nullcontext():
            scores = asking.scores_of(pair, scorable)
            for a, sample, encoded in said:
                if isinstance(encoded, str):
                    found = [Observation(None, None, None, 0, encoded)] * len(wanted)
                else:
                    scored = next(scores)
                    found = [m.function(scored) for m in wanted]
                    if sample == 0:
                        first.append((of, encoded, scored))
                for m, one in zip(wanted, found, strict=True):
                    rows.append(asking.row_of(m.name, a.item, one, part.suite, variant, sample))
    return rows, first


def _continued(pair: Pair, prompt: Encoded, reply: Reply) -> Encoded | str:
    """A reply behind its prompt, or why not both models can score it."""
    if not reply.ids:
        return "The reply is empty."
    try:
        return pair.continuation(prompt, reply.ids)
    except InputError as error:  # such as a token that was added to one side alone
        return error.message
