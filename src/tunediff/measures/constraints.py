"""Does a reply meet a constraint that a program can check?

Kinds are IFEval's names (Zhou et al. 2023, Instruction-Following Evaluation for Large Language
Models), each checked by what its name and its details say; a few more for what prompts ask in
plain words. Where IFEval's own program departs from that, so do we from it: keywords are literal
text and no patterns, a JSON block is an object or a list, a postscript begins a line, and the
English of an "english_capital" reply is its Latin script.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunediff.measures.text import dominant_script
from tunediff.values import Constraint

RELATIONS: Mapping[str, Callable[[float, float], bool]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "exactly": operator.eq,
    "less than": operator.lt,
    "more than": operator.gt,
}

# Scripts that one language of IFEval's list has for itself; those of others prove nothing.
OWN_SCRIPT: Mapping[str, str] = {
    "bn": "BENGALI",
    "el": "GREEK",
    "gu": "GUJARATI",
    "he": "HEBREW",
    "ja": "KANA",
    "kn": "KANNADA",
    "ko": "HANGUL",
    "ml": "MALAYALAM",
    "pa": "GURMUKHI",
    "ta": "TAMIL",
    "te": "TELUGU",
    "th": "THAI",
}

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'“])(?:[A-HJ-Z]|[A-Za-z]\.[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs)$"
)
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]*_]*(?=\s|\Z)|[。！？]+|\n[^\S\n]*\n")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_BULLET = re.compile(r"^[ \t]*(?:\*(?!\*)|[-•])[ \t]*\S", re.MULTILINE)
_NUMBERED = re.compile(r"^[ \t]*\(?\d{1,4}[.)][ \t]+\S", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*\*[^\n*]+\*\*|\*[^\n*]+\*")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_TITLE = re.compile(r"<<[^\n<>]+>>")
_FENCE = re.compile(r"\A```[A-Za-z]*\s")
_CAPITAL_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_MY_ANSWER = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def met(constraint: Constraint, reply: str) -> bool | str:
    """Whether the reply meets the constraint, or a sentence that says why it cannot be checked."""
    why = unchecked(constraint)
    return why or CHECKERS[constraint.kind][0](reply, **constraint.details)


def unchecked(constraint: Constraint) -> str | None:
    """Why a constraint cannot be checked, whatever the reply is; None where it can."""
    kind = f"{constraint.kind!a}"
    if constraint.kind not in CHECKERS:
        return f"The constraint {kind} is not one that is checked here."
    details = CHECKERS[constraint.kind][1]
    given = constraint.details
    wrong = [name for name, fits in details.items() if not fits(given.get(name))]
    if wrong:
        return f"The constraint {kind} came without a usable {' and '.join(wrong)}."
    if unknown := sorted(set(given) - set(details)):
        return f"The constraint {kind} came with the detail {unknown[0]!a}, which it does not have."
    if constraint.kind == "language:response_language" and given["language"] not in OWN_SCRIPT:
        return (
            f"The constraint {kind} asks for {given['language']!a}, which shares its script with "
            "other languages and cannot be told from them by a sound rule."
        )
    return None


def count_sentences(text: str) -> int:
    """Runs of text with a word, ended by . ! ? or their like, or by a blank line.

    A full stop after an initial, a common title or a list's number ends none.
    """
    found, start = 0, 0
    for end in _SENTENCE_END.finditer(text):
        window = max(start, end.start() - 8)
        before = text[window : end.start()]
        numbers_a_line = window == start and before.strip().isdigit()
        if (
            end[0] == "."
            and end.end() < len(text)
            and (numbers_a_line or _ABBREVIATION.search(before))
        ):
            continue
        found += bool(_WORD.search(text, start, end.start()))
        start = end.end()
    return found + bool(_WORD.search(text, start))


def list_items(text: str, marker: str) -> int:
    """Lines that begin with * - or • ("bullet"), or with a number and . or ) ("number")."""
    return sum(1 for _ in (_BULLET if marker == "bullet" else _NUMBERED).finditer(text))


def is_json(text: str) -> bool:
    """Whether the text is one JSON object or list, alone or inside one ``` block."""
    text = text.strip()
    if fence := _FENCE.match(text):
        text = text[fence.end() :].strip().removesuffix("```")
    if text[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _number_words(reply: str, relation: str, num_words: int) -> bool:
    return RELATIONS[relation](len(_WORD.findall(reply)), num_words)


def _number_sentences(reply: str, relation: str, num_sentences: int) -> bool:
    return RELATIONS[relation](count_sentences(reply), num_sentences)


def _number_lines(reply: str, relation: str, num_lines: int) -> bool:
    return RELATIONS[relation](sum(bool(line.strip()) for line in reply.split("\n")), num_lines)


def _paragraphs(reply: str) -> list[str]:
    return [part for part in _BLANK_LINE.split(reply) if part.strip()]


def _number_blocks(reply: str, relation: str, num_paragraphs: int) -> bool:
    return RELATIONS[relation](len(_paragraphs(reply)), num_paragraphs)


def _number_paragraphs(reply: str, num_paragraphs: int) -> bool:
    parts = [part.strip() for part in reply.split("***")]
    # a divider may open or close the reply, but two in a row hold an empty paragraph
    inner = parts[1:-1]
    return all(inner) and sum(map(bool, parts)) == num_paragraphs


def _nth_paragraph(reply: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = _paragraphs(reply)
    if len(parts) != num_paragraphs or not 1 <= nth_paragraph <= len(parts):
        return False
    word = _WORD.search(parts[nth_paragraph - 1])
    return word is not None and word[0].casefold() == first_word.strip().casefold()


def _existence(reply: str, keywords: Sequence[str]) -> bool:
    folded = reply.casefold()
    return all(word.casefold() in folded for word in keywords)


def _forbidden(reply: str, forbidden_words: Sequence[str]) -> bool:
    return not any(_whole(word).search(reply) for word in forbidden_words)


def _whole(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word.strip())}(?!\w)", re.IGNORECASE)


def _frequency(reply: str, keyword: str, relation: str, frequency: int) -> bool:
    return RELATIONS[relation](reply.casefold().count(keyword.strip().casefold()), frequency)


def _letter(reply: str, letter: str, let_relation: str, let_frequency: int) -> bool:
    return RELATIONS[let_relation](reply.lower().count(letter.lower()), let_frequency)


def _language(reply: str, language: str) -> bool:
    return dominant_script(reply) == OWN_SCRIPT[language]


def _postscript(reply: str, postscript_marker: str) -> bool:
    spaced = [re.escape(c) for c in postscript_marker if not c.isspace()]
    return bool(re.search(r"^[ \t>*_]*" + r"\s?".join(spaced), reply, re.MULTILINE | re.IGNORECASE))


def _placeholders(reply: str, num_placeholders: int) -> bool:
    return sum(1 for _ in _PLACEHOLDER.finditer(reply)) >= num_placeholders


def _bullets(reply: str, num_bullets: int) -> bool:
    return list_items(reply, "bullet") == num_bullets


def _list(reply: str, marker: str, relation: str, num_items: int) -> bool:
    return RELATIONS[relation](list_items(reply, marker), num_items)


def _highlights(reply: str, num_highlights: int) -> bool:
    return sum(bool(h[0].strip("* \t")) for h in _HIGHLIGHT.finditer(reply)) >= num_highlights


def _title(reply: str) -> bool:
    return any(title[0][2:-2].strip() for title in _TITLE.finditer(reply))


def _my_answer(reply: str) -> bool:
    return any(option in reply for option in _MY_ANSWER)


def _sections(reply: str, section_spliter: str, num_sections: int) -> bool:
    mark = re.compile(rf"(?<!\w){re.escape(section_spliter.strip())}\s?\d+")
    return sum(1 for _ in mark.finditer(reply)) >= num_sections


def _two_responses(reply: str) -> bool:
    parts = [part.strip() for part in reply.split("******")]
    answers = [part for part in parts if part]
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


def _repeat_prompt(reply: str, prompt_to_repeat: str) -> bool:
    return reply.strip().casefold().startswith(prompt_to_repeat.strip().casefold())


def _starts(reply: str, start_phrase: str) -> bool:
    said = reply.strip().lstrip("\"'“*").casefold()
    return said.startswith(start_phrase.strip().casefold())


def _ends(reply: str, end_phrase: str) -> bool:
    said = reply.strip().rstrip("\"'”*").rstrip().casefold()
    return said.endswith(end_phrase.strip().rstrip("\"'”*").casefold())


def _one_of(reply: str, options: Sequence[str]) -> bool:
    word = _WORD.search(reply)
    return word is not None and word[0].casefold() in {option.casefold() for option in options}


def _quotation(reply: str) -> bool:
    said = reply.strip()
    return len(said) > 1 and said[0] == said[-1] == '"'


def _no_comma(reply: str) -> bool:
    return "," not in reply


def _upper(reply: str) -> bool:
    return reply.isupper() and dominant_script(reply.replace("`", "")) == "LATIN"


def _lower(reply: str) -> bool:
    return reply.islower() and dominant_script(reply.replace("`", "")) == "LATIN"


def _capital_words(reply: str, capital_relation: str, capital_frequency: int) -> bool:
    capitals = sum(word[0].isupper() for word in _CAPITAL_WORD.finditer(reply))
    return RELATIONS[capital_relation](capitals, capital_frequency)


def _a_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_a_text, value))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _relation(value: Any) -> bool:
    return isinstance(value, str) and value in RELATIONS


def _marker(value: Any) -> bool:
    return value in ("bullet", "number")


_Fits = Callable[[Any], bool]
CHECKERS: Mapping[str, tuple[Callable[..., bool], Mapping[str, _Fits]]] = {
    "change_case:capital_word_frequency": (
        _capital_words,
        {"capital_relation": _relation, "capital_frequency": _number},
    ),
    "change_case:english_capital": (_upper, {}),
    "change_case:english_lowercase": (_lower, {}),
    "combination:repeat_prompt": (_repeat_prompt, {"prompt_to_repeat": _a_text}),
    "combination:two_responses": (_two_responses, {}),
    "detectable_content:number_placeholders": (_placeholders, {"num_placeholders": _number}),
    "detectable_content:postscript": (_postscript, {"postscript_marker": _a_text}),
    "detectable_format:constrained_response": (_my_answer, {}),
    "detectable_format:json_format": (is_json, {}),
    "detectable_format:multiple_sections": (
        _sections,
        {"section_spliter": _a_text, "num_sections": _number},
    ),
    "detectable_format:number_bullet_lists": (_bullets, {"num_bullets": _number}),
    "detectable_format:number_highlighted_sections": (_highlights, {"num_highlights": _number}),
    "detectable_format:title": (_title, {}),
    "keywords:existence": (_existence, {"keywords": _texts}),
    "keywords:forbidden_words": (_forbidden, {"forbidden_words": _texts}),
    "keywords:frequency": (
        _frequency,
        {"keyword": _a_text, "relation": _relation, "frequency": _number},
    ),
    "keywords:letter_frequency": (
        _letter,
        {"letter": _a_text, "let_relation": _relation, "let_frequency": _number},
    ),
    "language:response_language": (_language, {"language": _a_text}),
    "length_constraints:nth_paragraph_first_word": (
        _nth_paragraph,
        {"num_paragraphs": _number, "nth_paragraph": _number, "first_word": _a_text},
    ),
    "length_constraints:number_paragraphs": (_number_paragraphs, {"num_paragraphs": _number}),
    "length_constraints:number_sentences": (
        _number_sentences,
        {"relation": _relation, "num_sentences": _number},
    ),
    "length_constraints:number_words": (
        _number_words,
        {"relation": _relation, "num_words": _number},
    ),
    "punctuation:no_comma": (_no_comma, {}),
    "startend:end_checker": (_ends, {"end_phrase": _a_text}),
    "startend:quotation": (_quotation, {}),
    # not IFEval's: what prompts ask in plain words
    "detectable_format:list": (
        _list,
        {"marker": _marker, "relation": _relation, "num_items": _number},
    ),
    "length_constraints:number_blocks": (
        _number_blocks,
        {"relation": _relation, "num_paragraphs": _number},
    ),
    "length_constraints:number_lines": (
        _number_lines,
        {"relation": _relation, "num_lines": _number},
    ),
    "startend:one_of": (_one_of, {"options": _texts}),
    "startend:start_checker": (_starts, {"start_phrase": _a_text}),
}
"""Every kind: its checker, and what each of the details it needs has to look like."""
