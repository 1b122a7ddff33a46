"""How do items, a pair and measures become the rows of a run, even when it is killed half-way?

Items are sorted by length and id and cut into parts, so that neither the order of a file nor the
moment of a kill has a say in which items share a pack, and so in the numbers.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunediff import __version__
from tunediff.errors import InputError, NumericsError, PairError, UsageError
from tunediff.measures import BUILT_IN
from tunediff.pair.contract import Pair
from tunediff.run.store import Recorder, Run, recording, strict_json
from tunediff.run.tables import TOKEN_COLUMNS
from tunediff.values import TOKEN_METRICS, Encoded, Item, Measure, Row, Scores, Suite

FOUND_SETTINGS = ("kernel", "fast_kernel", "threads", "budget", "chunk")
"""Settings of a pair that it finds out on the machine (by its self-check, or when memory runs out),
and that a continued run takes from the record."""

# The array of Scores behind each of TOKEN_COLUMNS but the item.
_TOKEN_ARRAYS = ("positions", "targets", "nll_base", "nll_tuned", "kl_base_tuned", "delta_p")
_REPORT_IT = "This is a fault of the backend; report it with the command that you ran."


@dataclass(frozen=True, slots=True)
class _Asked:
    """An item as it was given and as it is scored."""

    item: Item
    encoded: Encoded


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
    asked = _encode(pair, suite, max_length, allow_truncation)
    parts = _cut(asked, part_tokens)
    settings = dict(pair.settings)
    identity = {
        "tunediff": __version__,
        "base": _side(pair.base),
        "tuned": _side(pair.tuned),
        "variant": variant,
        "suite": {"name": suite.name, "asked": _hash(asked)},
        "measures": {m.name: _definition(m) for m in measures},
        "settings": {k: v for k, v in settings.items() if k not in FOUND_SETTINGS},
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
            "settings": _found_settings(pair),
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
        total = sum(_tokens(part) for part in parts)
        done = total - sum(_tokens(parts[k]) for k in missing)
        for k in missing:
            began = time.perf_counter()
            scored: list[Scores] = []
            for scores in _score(pair, parts[k]):
                scored.append(scores)
                done += len(parts[k][len(scored) - 1].encoded.ids)
                if progress is not None:
                    progress(done, total)
            _write(recorder, pair, k, parts[k], scored, measures, suite.name, variant)
            seconds = time.perf_counter() - began
            note = {"part": k, "tokens": _tokens(parts[k]), "seconds": seconds}
            # Memory may have run out since the beginning, and packs been halved.
            recorder.note_time({**note, "settings": _found_settings(pair)})
        if missing:
            recorder.note_time({"speed": dict(pair.speed([a.encoded for a in asked]))})
        return recorder.finish()


def _found_settings(pair: Pair) -> dict[str, Any]:
    return {k: v for k, v in pair.settings.items() if k in FOUND_SETTINGS}


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


def _encode(
    pair: Pair, suite: Suite, max_length: int | None, allow_truncation: bool
) -> list[_Asked]:
    if not suite.items:
        raise InputError(f"The suite {suite.name!r} holds no item.", "Give at least one text.")
    sources: dict[str, str] = {}
    for item in suite.items:
        if item.id in sources:
            raise InputError(
                f"{item.source or suite.name}: the id {item.id!r} was given before "
                f"({sources[item.id] or suite.name}).",
                "Give every item an id of its own.",
            )
        sources[item.id] = item.source
    encoded = pair.encode(suite.items, max_length, allow_truncation)
    asked = [_Asked(i, e) for i, e in zip(suite.items, encoded, strict=True)]
    return sorted(asked, key=lambda a: (len(a.encoded.ids), a.item.id))


def _cut(asked: Sequence[_Asked], part_tokens: int) -> list[list[_Asked]]:
    """Consecutive items of at most ``part_tokens`` tokens together, but at least one item."""
    parts: list[list[_Asked]] = []
    room = 0
    for a in asked:
        if not parts or len(a.encoded.ids) > room:
            parts.append([])
            room = part_tokens
        parts[-1].append(a)
        room -= len(a.encoded.ids)
    return parts


def _tokens(part: Sequence[_Asked]) -> int:
    return sum(len(a.encoded.ids) for a in part)


def _hash(asked: Sequence[_Asked]) -> str:
    """Of all that is asked, in the order in which it is; the order of the file has no say."""
    digest = hashlib.sha256()
    for a in asked:
        digest.update(strict_json([a.item.id, a.item.axis, a.item.group]).encode())
        for e in filter(None, (a.encoded, a.encoded.tuned)):
            counts = [e.probe, e.bytes_scored, e.truncated, len(e.ids), len(e.scored)]
            digest.update(strict_json(counts).encode())
            for array in (e.ids, e.scored):
                digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()


def _side(side: Any) -> dict[str, Any]:
    """What a side is, without where it lies: a folder that moved holds the same model."""
    return {k: v for k, v in asdict(side).items() if k != "path"}


def _definition(m: Measure) -> dict[str, Any]:
    names = ("unit", "direction", "zero", "needs", "pool", "margin", "version")
    return {name: getattr(m, name) for name in names}


def _score(pair: Pair, part: Sequence[_Asked]) -> Iterator[Scores]:
    """The pair's scores of one part, each proven to be of the item that was asked."""
    answers = pair.score([a.encoded for a in part])
    for a in part:
        scores = next(answers, None)
        if scores is None or scores.item_id != a.item.id:
            got = "nothing" if scores is None else f"the scores of {scores.item_id!r}"
            raise PairError(f"The pair was asked item {a.item.id!r} and yielded {got}.", _REPORT_IT)
        _check(scores)
        yield scores
    extra = next(answers, None)
    if extra is not None:
        raise PairError(
            f"The pair yielded the scores of {extra.item_id!r} after the last item asked.",
            _REPORT_IT,
        )


def _check(scores: Scores) -> None:
    """Refuse numbers that are not finite, and token columns of unequal length."""
    if scores.reason is not None:
        return
    positions = len(scores.positions)
    probe = ("probe_logit_mse", "probe_logit_l2") if positions else ()
    for name in (*TOKEN_METRICS, *probe):
        if not np.isfinite(getattr(scores, name)).all():
            raise NumericsError(
                f"Item {scores.item_id!r} has NaN or infinity in {name} and no reason.", _REPORT_IT
            )
    for name in (*_TOKEN_ARRAYS[1:], *TOKEN_METRICS):
        if positions and len(getattr(scores, name)) != positions:
            raise NumericsError(
                f"Item {scores.item_id!r} has {positions} scored positions and "
                f"{len(getattr(scores, name))} values of {name}.",
                _REPORT_IT,
            )


def _write(
    recorder: Recorder,
    pair: Pair,
    k: int,
    part: Sequence[_Asked],
    scored: Sequence[Scores],
    measures: Sequence[Measure],
    suite: str,
    variant: str,
) -> None:
    rows: list[Row] = []
    for a, scores in zip(part, scored, strict=True):
        item = a.item
        group = item.id if item.group is None else item.group
        for m in measures:
            found = asdict(m.function(scores))
            rows.append(Row(variant, m.name, suite, item.axis, item.id, group, 0, **found))
    recorder.write_part(k, rows, _token_columns(scored), [_probe(s, pair) for s in scored])


def _has_positions(scores: Scores) -> bool:
    """Not so where the item failed, nor where the sides have different tokenizers."""
    return scores.reason is None and len(scores.positions) > 0


def _token_columns(scored: Sequence[Scores]) -> dict[str, Any]:
    kept = [s for s in scored if _has_positions(s)]
    columns: dict[str, Any] = {
        "item": [s.item_id for s in kept for _ in range(len(s.positions))],
    }
    for column, name in zip(TOKEN_COLUMNS[1:], _TOKEN_ARRAYS, strict=True):
        arrays = [getattr(s, name) for s in kept]
        columns[column] = np.concatenate(arrays) if arrays else np.empty(0)
    return columns


def _probe(scores: Scores, pair: Pair) -> dict[str, Any]:
    known = _has_positions(scores)
    return {
        "item": scores.item_id,
        "reason": scores.reason,
        "probe_logit_mse": scores.probe_logit_mse if known else None,
        "probe_logit_l2": scores.probe_logit_l2 if known else None,
        "probe_position": scores.probe_position if known else None,
        "probe_top_base": [[i, p, pair.token_text(i)] for i, p in scores.probe_top_base],
        "probe_top_tuned": [[i, p, pair.token_text(i)] for i, p in scores.probe_top_tuned],
    }
