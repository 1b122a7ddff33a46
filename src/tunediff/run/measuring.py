"""How do items, a pair and measures become the rows of a run, even when it is killed half-way?

Items are sorted by length and id and cut into parts, so that neither the order of a file nor the
moment of a kill has a say in which items share a pack, and so in the numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunediff import __version__
from tunediff.errors import UsageError
from tunediff.measures import BUILT_IN
from tunediff.pair.contract import Pair
from tunediff.run import asking
from tunediff.run.store import Run, recording
from tunediff.values import Measure, Scores, Suite


def measure(
    pair: Pair,
    suite: Suite,
    *,
    out: Path | str,
    measures: Sequence[Measure] = BUILT_IN,
    variant: str = "tuned",
    seed: int = 0,
    max_length: int | None = None,
    allow_truncation: bool = False,
    part_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
    weights: Mapping[str, Any] | None = None,
) -> Run:
    """Ask both models every item of a suite and keep what the measures say.

    Args:
        pair: the two models, opened together.
        suite: what is asked.
        out: the run folder; where it holds the same run, that is continued.
        measures: what is measured of each item.
        variant: the name of the tuned side in the rows.
        seed: recorded; decides nothing here.
        max_length: at most so many token ids an item; None: as many as the model takes.
        allow_truncation: keep the first ``max_length`` ids of a longer item, and count it.
        part_tokens: about so many tokens are lost by a kill, at most.
        progress: called with the tokens done and their total, after every item.
        weights: the geometry of the change of weights, to be kept with the run (JSON).

    Raises:
        InputError: an item cannot be asked; nothing has been written.
        UsageError: a measure needs what the pair does not offer; nothing has been written.
        RunError: the folder belongs to another run or cannot be written.
        PairError: the pair yielded other items than it was asked.
        NumericsError: the pair yielded a number that is not finite, without a reason.

    """
    measures = sorted(measures, key=lambda m: m.name)
    _check_needs(pair, measures)
    asked = asking.encode(pair, suite, max_length, allow_truncation)
    parts = asking.cut(asked, part_tokens)
    settings = dict(pair.settings)
    identity = {
        "tunediff": __version__,
        "base": asking.side_of(pair.base),
        "tuned": asking.side_of(pair.tuned),
        "variant": variant,
        "suite": {"name": suite.name, "asked": asking.hash_of(asked)},
        "measures": {m.name: asking.definition(m) for m in measures},
        "settings": {k: v for k, v in settings.items() if k not in asking.FOUND_SETTINGS},
        "seed": seed,
        "max_length": max_length,
        "allow_truncation": allow_truncation,
        "part_tokens": part_tokens,
    }

    def found() -> dict[str, Any]:
        floor = pair.noise_floor([a.encoded for a in asked])
        truncated = [a.encoded.truncated for a in asked if a.encoded.truncated]
        return {
            "paths": {"base": pair.base.path, "tuned": pair.tuned.path},
            "settings": asking.found_settings(pair),
            "noise_floor": dict(floor),
            "certificate": pair.certificate.as_dict(),
            "weights": weights,
            "content_hash": suite.content_hash,
            "items": len(asked),
            "scored": sum(len(a.encoded.scored) for a in asked),
            "truncated": {"items": len(truncated), "tokens": sum(truncated)},
            "parts": len(parts),
        }

    with recording(out, identity, found) as recorder:
        missing = [k for k in range(len(parts)) if not recorder.has_part(k)]
        if recorder.continued and missing:
            pair.continue_with({**settings, **recorder.record["found"]["settings"]})
        total = sum(asking.tokens_in(part) for part in parts)
        done = total - sum(asking.tokens_in(parts[k]) for k in missing)
        for k in missing:
            began = time.perf_counter()
            scored: list[Scores] = []
            for scores in asking.scores_of(pair, parts[k]):
                scored.append(scores)
                done += len(parts[k][len(scored) - 1].encoded.ids)
                if progress is not None:
                    progress(done, total)
            recorder.write_part(
                k,
                asking.score_rows(parts[k], scored, measures, suite.name, variant),
                asking.token_columns(scored, suite.name),
                [asking.probe_line(scores, suite.name, pair) for scores in scored],
                texts=asking.text_lines(pair, [a.encoded for a in parts[k]], scored, suite.name),
            )
            seconds = time.perf_counter() - began
            note = {"part": k, "tokens": asking.tokens_in(parts[k]), "seconds": seconds}
            # Memory may have run out since the beginning, and packs been halved.
            recorder.note_time({**note, "settings": asking.found_settings(pair)})
        if missing:
            recorder.note_time({"speed": dict(pair.speed([a.encoded for a in asked]))})
        return recorder.finish()


def _check_needs(pair: Pair, measures: Sequence[Measure]) -> None:
    names = [m.name for m in measures]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"The measures are {names}; needed is at least one, and each name once.",
            "Rename or remove the double one.",
        )
    for m in measures:
        lacking = sorted(set(m.needs) - pair.offers)
        if lacking:
            raise UsageError(
                f"The measure {m.name!r} needs {', '.join(lacking)}; this pair offers "
                f"{', '.join(sorted(pair.offers)) or 'nothing'}.",
                "Leave that measure out, or open the pair with another backend.",
            )
