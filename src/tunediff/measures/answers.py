"""Is the reply the right answer?"""

from __future__ import annotations

import re
import string
import unicodedata
from fractions import Fraction

from tunediff.measures.numbers import answer_number, marked_answers, own_answer, whole_number
from tunediff.measures.pairs import both_sides
from tunediff.measures.text import reference
from tunediff.values import Item, Measure, Reply

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_YES_OR_NO = frozenset({"yes", "no", "true", "false"})
_OPEN = r"[\s\"'“*_(\[]{0,8}"
# "A" may be an article, so a letter needs a bracket, a stop or the end after it
_LETTER_FIRST = re.compile(rf"{_OPEN}(?P<letter>[A-Z])[*_\"'”]*(?:[).:,\]]|\s*\n|\s*\Z)")
_LETTER_MARKED = re.compile(
    rf"\b(?i:answer|option|choice)(?:\s\s?is)?(?:\s\s?(?i:option|choice))?\s?:?{_OPEN}"
    r"(?P<letter>[B-HJ-Z](?![\w'’])|[AI](?![\w'’]|\s+(?!because\b|since\b|as\b)[a-z]))"
)
_HEDGED = re.compile(r"[)\].*\"']*\s*(?:,|/|\bor\b|\band\b)\s*\(?[A-Z]\b(?!['’])")


def exact_match(item: Item, reply: Reply) -> float | str:
    """1 where the reply gives the reference's answer, else 0.

    Unit share; higher is better; 0 means that both are right as often. What is compared follows
    from the item:

    - with choices, the right one's letter ("B", "(B) …", "Answer: B") or its whole text;
    - with a number as reference (GSM8K's ``#### N``, "The answer is N", or nothing but a number,
      a currency and a unit), the number that the reply gives, exactly
      (:func:`~tunediff.measures.numbers.answer_number`);
    - else the whole reply, or what follows its last "The answer is" or "Answer:", without case,
      punctuation, articles and white space. "Yes", "no", "true" and "false" may go on.

    A reply stops where it makes up a next "Question:". An empty reply is a wrong answer. Null
    without a reference. The flexible extraction of lm-evaluation-harness's gsm8k, which takes the
    last number, but with marks first; the normalisation is SQuAD's (Rajpurkar et al. 2016).
    """
    answer = own_answer(reply.text)
    if item.choices and item.answer is not None and 0 <= item.answer < len(item.choices):
        return float(_picks(answer, item.choices, item.answer))
    right = reference(item)
    if right is None:
        return "The item has no reference answer."
    number = reference_number(right)
    if number is not None:
        return float(answer_number(answer) == number)
    return float(_same_text(answer, right))


def reference_number(right: str) -> Fraction | None:
    """The number that a reference is, or ends in after a mark; None where it is another text."""
    if "####" in right:
        return answer_number(right)
    for text in (right, *marked_answers(right)):
        if (number := whole_number(text)) is not None:
            return number
    return None


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and surplus white space."""
    marks = {c: None for c in set(text) if c in string.punctuation or _is_punctuation(c)}
    plain = text.casefold().translate(str.maketrans(marks))
    return " ".join(_ARTICLES.sub(" ", plain).split() or plain.split())


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P")


def _given(text: str) -> set[str]:
    """The answers that a text can be read to give, normalised."""
    return {normalised(part) for part in (text, *marked_answers(text))} - {""}


def _same_text(answer: str, right: str) -> bool:
    wanted = _given(right)
    if not wanted:  # nothing but punctuation
        return answer.strip() == right.strip()
    given = _given(answer)
    return not wanted.isdisjoint(given | ({g.split()[0] for g in given} & _YES_OR_NO))


def _picks(answer: str, choices: tuple[str, ...], right: int) -> bool:
    texts = [normalised(choice) for choice in choices]
    letters = string.ascii_lowercase[: len(choices)]
    given = _given(answer)
    if said := given & set(texts):
        return said == {texts[right]}
    if said := given & set(letters):
        return said == {letters[right : right + 1]}
    marked = list(_LETTER_MARKED.finditer(answer))
    letter = marked[-1] if marked else _LETTER_FIRST.match(answer)
    if letter is None or _HEDGED.match(answer, letter.end()):
        return False
    return letter["letter"].lower() == letters[right : right + 1]


ANSWERS: tuple[Measure, ...] = (
    Measure(
        "exact_match",
        "share",
        1,
        "both are right as often",
        ("replies",),
        both_sides(exact_match),
        margin=0.02,
    ),
)
