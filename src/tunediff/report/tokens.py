"""What does the page hold of single tokens: the microscope of an item, and the worst spans?

As much as fits, the items of highest KL first; the page says of how many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunediff.findings.microscope import Microscope, Reading

_ROOM = 700_000  # characters of JSON, about, for the tokens of one page
_CANDIDATES_ROOM = 600_000  # and for what the models expected in their places
_TOP = 5  # candidates of either side that are shown
_OF = ("reference", "base", "tuned")
_DIGITS = ".3g"


def looked(
    scope: Microscope, places: Mapping[tuple[str, str], int], share: float
) -> dict[str, Any]:
    """The tokens of a run's texts, as the page's script reads them.

    ``pieces``: each different piece of text once. ``texts``: by item and whose text it is, an
    object of ``t``, its tokens as numbers of pieces; ``s``, at which of them the scored ones begin;
    and of the scored ones ``k``, KL in nats, and ``d``, ln q − ln p; ``b`` and ``u``, what base
    and tuned expected there, (piece, probability) five times.

    Args:
        scope: of the run.
        places: the number of each item in the page.
        share: of the room, where several runs are on the page.

    """
    pieces: dict[str, int] = {}
    texts: dict[int, dict[str, Any]] = {}
    room, candidates_room = _ROOM * share, _CANDIDATES_ROOM * share
    kept = 0
    items = scope.highest(len(scope.items))
    for suite, item in items:
        if room <= 0:
            break
        own: dict[str, Any] = {}
        for of in _OF:
            reading = scope.reading(suite, item, of)
            if reading is None:
                continue
            own[of], used = _text(reading, pieces)
            room -= used
            if candidates_room > 0 and reading.tokens[own[of]["s"]].base is not None:
                own[of] |= _expected(reading, pieces)
                candidates_room -= 2 * 9 * _TOP * reading.count
        if own:
            texts[places[suite, item]] = own
            kept += 1
    return {"pieces": list(pieces), "texts": texts, "kept": kept, "of": len(items)}


def _text(reading: Reading, pieces: dict[str, int]) -> tuple[dict[str, Any], int]:
    first = next(at for at, token in enumerate(reading.tokens) if token.scored)
    scored = reading.tokens[first:]
    found = {
        "t": [_number(token.text, pieces) for token in reading.tokens],
        "s": first,
        "k": [_short(token.kl) for token in scored],
        "d": [_short(token.delta_logp) for token in scored],
    }
    return found, 5 * len(reading.tokens) + 12 * len(scored)


def _expected(reading: Reading, pieces: dict[str, int]) -> dict[str, Any]:
    first = next(at for at, token in enumerate(reading.tokens) if token.scored)
    return {
        key: [
            _flat((_number(c.text, pieces), _short(c.p)) for c in (getattr(t, side) or ())[:_TOP])
            for t in reading.tokens[first:]
        ]
        for key, side in (("b", "base"), ("u", "tuned"))
    }


def _flat(pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
    return [part for pair in pairs for part in pair]


def _number(text: str, pieces: dict[str, int]) -> int:
    return pieces.setdefault(text, len(pieces))


def _short(value: float | None) -> float | None:
    return None if value is None else float(format(value, _DIGITS))
