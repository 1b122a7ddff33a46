"""What is asked of a pair, in which parts, and is each answer one to what was asked?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunediff.errors import InputError, NumericsError, PairError
from tunediff.pair.contract import Pair
from tunediff.run.record import strict_json
from tunediff.run.tables import TOKEN_COLUMNS
from tunediff.values import (
    TOKEN_METRICS,
    Encoded,
    Item,
    Measure,
    Observation,
    Of,
    Row,
    Scores,
    Side,
    Suite,
)

FOUND_SETTINGS = ("kernel", "fast_kernel", "threads", "budget", "chunk", "halvings")
"""Settings of a pair that it finds out on the machine (by its self-check, or when memory runs out),
and that a continued run takes from the record."""

# The array of Scores behind each of TOKEN_COLUMNS but those that say of which text it is.
_TOKEN_ARRAYS = ("positions", "targets", "nll_base", "nll_tuned", "kl_base_tuned", "delta_p")
REPORT_IT = "This is a fault of the backend; report it with the command that you ran."


@dataclass(frozen=True, slots=True)
class Asked:
    """An item as it was given and as it is scored."""

    item: Item
    encoded: Encoded


def encode(pair: Pair, suite: Suite, max_length: int | None, allow_truncation: bool) -> list[Asked]:
    """The items of a suite as the pair scores them, shortest first; ids of their own required."""
    require_own_ids(suite)
    encoded = pair.encode(suite.items, max_length, allow_truncation)
    asked = [Asked(i, e) for i, e in zip(suite.items, encoded, strict=True)]
    return sorted(asked, key=lambda a: (len(a.encoded.ids), a.item.id))


def require_own_ids(suite: Suite) -> None:
    """Refuse a suite without items, and one of whose ids another item has too."""
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


def cut(asked: Sequence[Asked], part_tokens: int) -> list[list[Asked]]:
    """Consecutive items of at most ``part_tokens`` tokens together, but at least one item."""
    parts: list[list[Asked]] = []
    room = 0
    for a in asked:
        if not parts or len(a.encoded.ids) > room:
            parts.append([])
            room = part_tokens
        parts[-1].append(a)
        room -= len(a.encoded.ids)
    return parts


def tokens_in(part: Sequence[Asked]) -> int:
    """How many tokens a part has."""
    return sum(len(a.encoded.ids) for a in part)


def hash_of(asked: Sequence[Asked], lines: Sequence[Mapping[str, Any]] = ()) -> str:
    """Of all that is asked, in the order in which it is; the order of the file has no say.

    ``lines``: what else of the items decides the numbers, such as the right answers.
    """
    digest = hashlib.sha256()
    for a in asked:
        digest.update(strict_json([a.item.id, a.item.axis, a.item.group]).encode())
        for e in filter(None, (a.encoded, a.encoded.tuned)):
            counts = [e.probe, e.bytes_scored, e.truncated, len(e.ids), len(e.scored)]
            digest.update(strict_json(counts).encode())
            for array in (e.ids, e.scored):
                digest.update(array.astype("<i8").tobytes())
    for line in sorted(map(strict_json, lines)):
        digest.update(line.encode())
    return digest.hexdigest()


def side_of(side: Side) -> dict[str, Any]:
    """What a side is, without where it lies: a folder that moved holds the same model."""
    return {k: v for k, v in asdict(side).items() if k != "path"}


def definition(m: Measure) -> dict[str, Any]:
    """What of a measure decides its numbers and what they mean (JSON)."""
    names = ("unit", "direction", "zero", "needs", "pool", "margin", "version")
    return {name: getattr(m, name) for name in names}


def scores_of(pair: Pair, part: Sequence[Asked]) -> Iterator[Scores]:
    """The pair's scores of one part, each proven to be of the item that was asked."""
    answers = pair.score([a.encoded for a in part])
    for a in part:
        scores = next(answers, None)
        if scores is None or scores.item_id != a.item.id:
            got = "nothing" if scores is None else f"the scores of {scores.item_id!r}"
            raise PairError(f"The pair was asked item {a.item.id!r} and yielded {got}.", REPORT_IT)
        _check(scores)
        yield scores
    extra = next(answers, None)
    if extra is not None:
        raise PairError(
            f"The pair yielded the scores of {extra.item_id!r} after the last item asked.",
            REPORT_IT,
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
                f"Item {scores.item_id!r} has NaN or infinity in {name} and no reason.", REPORT_IT
            )
    for name in (*_TOKEN_ARRAYS[1:], *TOKEN_METRICS):
        if positions and len(getattr(scores, name)) != positions:
            raise NumericsError(
                f"Item {scores.item_id!r} has {positions} scored positions and "
                f"{len(getattr(scores, name))} values of {name}.",
                REPORT_IT,
            )


def _has_positions(scores: Scores) -> bool:
    """Not so where the item failed, nor where the sides have different tokenizers."""
    return scores.reason is None and len(scores.positions) > 0


def token_columns(
    scored: Sequence[Scores], suite: str, of: Sequence[Of] | None = None
) -> dict[str, Any]:
    """The columns of ``tokens/`` of these texts; ``of``: whose each is, else all references."""
    owners = ["reference"] * len(scored) if of is None else of
    kept = [(s, whose) for s, whose in zip(scored, owners, strict=True) if _has_positions(s)]
    lines = [(s.item_id, whose) for s, whose in kept for _ in range(len(s.positions))]
    columns: dict[str, Any] = {
        "suite": [suite] * len(lines),
        "item": [item for item, _ in lines],
        "of": [whose for _, whose in lines],
    }
    for column, name in zip(TOKEN_COLUMNS[3:], _TOKEN_ARRAYS, strict=True):
        arrays = [getattr(s, name) for s, _ in kept]
        columns[column] = np.concatenate(arrays) if arrays else np.empty(0)
    return columns


def text_lines(
    pair: Pair,
    asked: Sequence[Encoded],
    scored: Sequence[Scores],
    suite: str,
    of: Sequence[Of] | None = None,
) -> list[dict[str, Any]]:
    """The lines of ``texts/`` of these texts: what both models read, those with tokens alone."""
    owners = ["reference"] * len(scored) if of is None else of
    return [
        {"suite": suite, "item": e.item_id, "of": whose, "ids": e.ids.tolist(),
         "pieces": pair.pieces(e.ids.tolist())}
        for e, s, whose in zip(asked, scored, owners, strict=True)
        if _has_positions(s)
    ]  # fmt: skip


def probe_line(scores: Scores, suite: str, pair: Pair) -> dict[str, Any]:
    """The line of ``probes/`` of an item."""
    known = _has_positions(scores)
    return {
        "suite": suite,
        "item": scores.item_id,
        "reason": scores.reason,
        "probe_logit_mse": scores.probe_logit_mse if known else None,
        "probe_logit_l2": scores.probe_logit_l2 if known else None,
        "probe_position": scores.probe_position if known else None,
        "probe_top_base": [[i, p, pair.token_text(i)] for i, p in scores.probe_top_base],
        "probe_top_tuned": [[i, p, pair.token_text(i)] for i, p in scores.probe_top_tuned],
    }


def score_rows(
    part: Sequence[Asked],
    scored: Sequence[Scores],
    measures: Sequence[Measure],
    suite: str,
    variant: str,
) -> list[Row]:
    """What the measures of scores say of a part."""
    rows: list[Row] = []
    for a, scores in zip(part, scored, strict=True):
        for m in measures:
            rows.append(row_of(m.name, a.item, m.function(scores), suite, variant))
    return rows


def row_of(
    measure: str, item: Item, found: Observation, suite: str, variant: str, sample: int = 0
) -> Row:
    """An observation as a line of the record."""
    group = item.id if item.group is None else item.group
    return Row(variant, measure, suite, item.axis, item.id, group, sample, **asdict(found))


def found_settings(pair: Pair) -> dict[str, Any]:
    """The settings that a pair finds out on the machine."""
    return {k: v for k, v in pair.settings.items() if k in FOUND_SETTINGS}
