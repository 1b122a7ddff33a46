"""Which number does a text give as its answer?

Numbers are exact: fractions of two integers, so that 26, 26.0 and 52/2 are one and 0.1 is no
float. Units, currency and per cent signs are not compared. Number words ("six") are not read, and
a full stop is a decimal point, never a thousands separator.
"""

from __future__ import annotations

import re
from fractions import Fraction

_LONGEST = 300  # digits: what is longer is no answer, and its fraction would take long
_CURRENCY = r"(?:[$€£¥₹]|\b(?:USD|EUR|GBP|Rs\.?))"
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALE = re.compile(rf"\s?({'|'.join(_SCALES)})\b", re.IGNORECASE)
# a minus is a sign where no operand stands before it and no space after it
_SIGN = re.compile(rf"(?:(?<![\w)%-])-{_CURRENCY}?|{_CURRENCY}\s?-)\s?\Z")
_DASH = re.compile("[\u2212\u2013\ufe63\uff0d]")  # minus, en dash, small and full-width hyphen
_FRAC = re.compile(r"\\[dt]?frac\{(\d{1,99})\}\{(\d{1,99})\}")


def _pattern(separators: str) -> re.Pattern[str]:
    return re.compile(
        r"(?<![A-Za-z_\d])(?<!\d\.)(?:"
        r"(?P<whole>\d+) (?P<above>\d+)/(?P<below>\d+)(?!\d|\s?/)"
        r"|(?<!\d/)(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?!\d|\s?/|\.\d)"
        rf"|(?P<plain>(?:\d{{1,3}}(?:[{separators}]\d{{3}}){{1,30}}(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
        r"(?P<exponent>[eE][+-]?\d{1,2}(?!\w))?)",
        re.ASCII,
    )


_NUMBER = _pattern(",'’\u00a0\u202f\u2009")
_SPACED = _pattern(",'’\u00a0\u202f\u2009 ")

_HASHES = re.compile(r"####([^\n]*)")
_BOXED = re.compile(r"\\boxed\{([^\n]*)")
_ANSWER_IS = re.compile(
    r"\banswer(?: to [^.!?:\n]{1,60})? (?:is|would be|=)(?: that)?:?|\banswer\W{0,3}[:=]"
    r"|(?:^|\n)[ \t*_>#(\"']{0,6}A:",
    re.IGNORECASE,
)
_LINE = re.compile(r"\s*([^\n]*)")
_CLAUSE = re.compile(r"\s*([^\n]*?)(?:[.!?]{1,3}[*_\"')}]{0,4}(?:\s|\Z)|\n|\Z)")
_QUESTION = re.compile(r"\n[ \t*_>#]{0,6}(?:Question|Q)(?: ?\d{1,4})?:")


def own_answer(reply: str) -> str:
    """The reply up to the next "Question:" or "Q:" line, where a base model makes up more."""
    for question in _QUESTION.finditer(reply):
        if before := reply[: question.start()].strip():
            return before
    return reply


def marked_answers(text: str) -> tuple[str, ...]:
    """What follows the last "the answer is", "Answer:" or "A:": the line and its first clause."""
    marks = list(_ANSWER_IS.finditer(text))
    if not marks:
        return ()
    line = _LINE.match(text, marks[-1].end())
    return (line[1] if line else "", _clause_after(text, marks[-1]))


def answer_number(text: str) -> Fraction | None:
    r"""The number that a free reply gives as its answer; None where it holds none.

    The first that is there: the number after the first ``####``; in the last ``\boxed{}``; after
    the last mark of :func:`marked_answers`; the whole text, if it is one number; the last number of
    the text. After "is" it is the first number, after a colon the last one (a calculation may
    follow), and in both cases the one after the last "=" if the clause has one.
    """
    text = _FRAC.sub(r"\1/\2", _DASH.sub("-", text).replace("{,}", ",").replace("\\$", "$"))
    if hashes := _HASHES.search(text):
        if (number := _first(hashes[1])) is not None:
            return number
    for boxed in reversed(_BOXED.findall(text)):
        if (number := _first(boxed)) is not None:
            return number
    marks = list(_ANSWER_IS.finditer(text))
    if marks:
        clause = _clause_after(text, marks[-1])
        _, equals, after = clause.rpartition("=")
        colon = marks[-1][0][-1] == ":" and " " not in marks[-1][0].strip()
        number = _first(after) if equals else _last(clause) if colon else _first(clause)
        if number is not None:
            return number
    if (number := whole_number(text)) is not None:
        return number
    return _last(text, spaced=False)


def whole_number(text: str) -> Fraction | None:
    """The number that a short text is, with at most a sign, a currency and a unit; else None."""
    text = _DASH.sub("-", text.strip())
    found = _SPACED.search(text)
    if found is None or not re.fullmatch(rf"-?(?:{_CURRENCY})?\s?-?", text[: found.start()]):
        return None
    unit = text[found.end() :]
    return (
        _value(found, text) if re.fullmatch(r"\s?(?:[%°]|[a-z]+(?: [a-z]+)?)?\.?", unit) else None
    )


def _clause_after(text: str, mark: re.Match[str]) -> str:
    clause = _CLAUSE.match(text, mark.end())
    return clause[1] if clause else ""


def _first(text: str) -> Fraction | None:
    for match in _SPACED.finditer(text):
        if (number := _value(match, text)) is not None:
            return number
    return None


def _last(text: str, spaced: bool = True) -> Fraction | None:
    for match in reversed(list((_SPACED if spaced else _NUMBER).finditer(text))):
        if (number := _value(match, text)) is not None:
            return number
    return None


def _value(match: re.Match[str], text: str) -> Fraction | None:
    if match.end() - match.start() > _LONGEST:
        return None
    if match["plain"]:
        digits = re.sub(r"[^\d.]", "", match["plain"]) + (match["exponent"] or "")
        value = Fraction(digits)
        if scale := _SCALE.match(text, match.end()):
            value *= _SCALES[scale[1].lower()]
    else:
        top, bottom = (
            (int(match["top"]), int(match["bottom"]))
            if match["top"]
            else (int(match["above"]), int(match["below"]))
        )
        if bottom == 0:
            return None
        value = int(match["whole"] or 0) + Fraction(top, bottom)
    negative = _SIGN.search(text[max(0, match.start() - 8) : match.start()])
    return -value if negative else value
