"""What may a request say? Exactly what the page sends, and nothing like it.

JSON is read strictly: UTF-8, one object, no key twice, no NaN, no nesting, no key too many or too
few, and each value of exactly its type.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from tunediff.rating.store import Answer

LONGEST_NAME = 60
LONGEST_NOTE = 2000
_LONGEST_TICKET = 64
LARGEST_BODY = 32_768  # a note of that length, each character escaped, fits


class Malformed(Exception):
    """A body that the page would not have sent."""


def joining(body: bytes) -> str:
    """The rater's name."""
    return _name(_fields(body, "rater")["rater"])


def rated(body: bytes) -> tuple[str, str, Answer]:
    """The rater's name, the ticket, and what was said."""
    said = _fields(body, "rater", "showing", "a", "b", "prefer", "note")
    prefer, note = said["prefer"], _text(said["note"], "note", LONGEST_NOTE)
    if prefer not in ("a", "b", "tie"):
        raise Malformed("prefer must be a, b or tie.")
    answer = Answer(_score(said["a"]), _score(said["b"]), prefer, note)
    return _name(said["rater"]), _text(said["showing"], "showing", _LONGEST_TICKET), answer


def undone(body: bytes) -> tuple[str, str]:
    """The rater's name and the ticket."""
    said = _fields(body, "rater", "showing")
    return _name(said["rater"]), _text(said["showing"], "showing", _LONGEST_TICKET)


def _fields(body: bytes, *names: str) -> Mapping[str, Any]:
    try:
        said = json.loads(
            body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise Malformed(f"The body is no strict JSON: {type(error).__name__}.") from error
    if not isinstance(said, dict) or set(said) != set(names):
        raise Malformed(f"The body must be one object with the keys {', '.join(names)}.")
    return said


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    said = dict(pairs)
    if len(said) != len(pairs):
        raise Malformed("A key came twice.")
    return said


def _refuse_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is no JSON.")


def _score(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 5:  # True is an int to isinstance
        raise Malformed("A score must be a whole number from 1 to 5.")
    return value


def _text(value: Any, what: str, longest: int, allowed: Callable[[str], bool] | None = None) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise Malformed(f"{what} must be a text of at most {longest} characters.")
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        raise Malformed(f"{what} holds what is no text.")
    if allowed is not None and not allowed(value):
        raise Malformed(f"{what} holds control characters.")
    return value


def _name(value: Any) -> str:
    """Without control characters and direction marks, which would disguise it."""
    name = unicodedata.normalize("NFC", _text(value, "rater", LONGEST_NAME, str.isprintable))
    if not name.strip():
        raise Malformed("A name is needed.")
    return name.strip()
