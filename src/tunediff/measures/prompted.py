"""Which checkable constraints does a prompt state in plain words?

Careful patterns: a constraint that is missed costs a little power, one that was never meant makes
a wrong number, so a phrase is taken only where it can hardly mean anything else. English only.
What stands in quotation marks or code is the prompt's material and is searched for no demands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunediff.measures.constraints import unchecked
from tunediff.values import Constraint

LONGEST = 20_000  # characters of a prompt that are searched; a longer one is mostly material
_NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
_N = r"(?:\d{1,3}(?:,\d{3}){1,2}|\d{1,5}|" + "|".join(_NUMBERS) + r")\b"
_UNITS = {
    "word": ("length_constraints:number_words", "num_words"),
    "sentence": ("length_constraints:number_sentences", "num_sentences"),
    "paragraph": ("length_constraints:number_blocks", "num_paragraphs"),
    "line": ("length_constraints:number_lines", "num_lines"),
}
_UNIT = r"(?P<unit>word|sentence|paragraph|line|bullet)s?(?:[ -](?:point|item)s?)?\b(?!-)"
_SIZE = r"(?:(?:short|long|brief|simple|complete|full|concise|markdown)\s+)?"
_MORE, _FEWER = "at least", "at most"
_BEFORE = {
    r"at least|no (?:fewer|less) than|not (?:fewer|less) than|a? ?minimum of": _MORE,
    r"at most|(?:no|not) (?:more|longer) than|not exceed(?:ing)?|up to|within"
    r"|a? ?maximum of": _FEWER,
    r"less than|fewer than|shorter than|under|below": "less than",
    r"more than|longer than|over": "more than",
    r"exactly|precisely": "exactly",
}
_AFTER = {
    r"or (?:less|fewer|under)|at (?:the )?most|max(?:imum)?|tops": _FEWER,
    r"or more|at (?:the )?least|minimum": _MORE,
}
_VERB = (
    r"(?:answer|compose|create|describe|draft|explain|generate|give|make|produce|provide|reply|"
    r"respond|summari[sz]e|tell|use|write)"
)
_NEGATED = re.compile(
    r"(?:\bnot|n[’']t|\bnever|\bavoid|\bwithout|\brefrain from|\brather than)(?: \w+){0,2} ?\Z",
    re.IGNORECASE,
)
_OPPOSITE = {"more than": _FEWER, "less than": _MORE}  # of "do not use more than …"
_EACH = re.compile(r"\b(?:each|every|per|apiece)\b", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“”]([^\"“”\n]{1,300})[\"“”]|(?<!\w)['‘]([^'‘’\n]{1,100})['’](?!\w)")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+(?!\s|\Z)[^.!?\n]*)*[.!?]*")

# «n» stands for the n-th quotation of the prompt
_QUOTE = r"«\d+»"
_QUOTES = rf"{_QUOTE}(?:(?:,| and|, and| &) {_QUOTE})*"
_KIND = r"(?:key ?)?(?:word|phrase|term|keyword|name)s?"
_BARE = r"[A-Za-z]+(?:(?:, | and |, and )[A-Za-z]+)*"
_NAMED = rf"(?:(?:the |these |this )?(?:following )?(?:exact )?{_KIND}:? )"
_STOP = r"(?=\s*(?:[.!;\n]|\Z|,? (?:in (?:your|the)|at least|somewhere|anywhere|exactly)\b))"
_THING = rf"(?:{_NAMED}?(?P<quotes>{_QUOTES})|{_NAMED}(?P<bare>{_BARE}){_STOP})"
_INCLUDE = re.compile(
    r"(?:\b(?:must|should|needs? to|has to|have to|make sure (?:to|you|that you|it|that it)|"
    r"be sure to|ensure (?:you|that you|that it|it)|please)(?: also)? |(?:^|[,;] |and )\s*)"
    rf"(?:includes?|contains?|mentions?|use(?= the )) (?!.{{0,40}} or «){_THING}(?! or\b)",
    re.IGNORECASE,
)
_NEGATION = (
    r"(?:\bdo not|\bdon[’']t|\bnever|\bmust not|\bshould not|\bshouldn[’']t|\bmay not|\bcannot|"
    r"\bcan[’']t|\bwithout|\bavoid|\bnot allowed to|\brefrain from)"
)
_USE = r"(?:us(?:e|ing)|includ(?:e|ing)|mention(?:ing)?|contain(?:ing)?|say(?:ing)?|writ(?:e|ing))"
_EXCLUDE = re.compile(rf"{_NEGATION} (?:ever )?(?:{_USE} )?(?:any of )?{_THING}", re.IGNORECASE)
_APPEAR = re.compile(
    rf"\bthe (?:key ?)?word (?P<what>{_QUOTE}|[a-z]+) (?:should|must|(?:can|may)(?= ?not))"
    r"(?P<no> ?not|n[’']t)? (?:only )?(?:appear|be (?:used|included|mentioned))",
    re.IGNORECASE,
)
_LETTER = re.compile(
    rf"{_NEGATION} (?:ever )?(?:{_USE} )?the letter (?P<letter>{_QUOTE}|[a-z])\b(?! or| and)",
    re.IGNORECASE,
)
_COMMAS = re.compile(
    rf"{_NEGATION} (?:the )?(?:{_USE} )?(?:of )?(?:any )?commas?\b|\bno commas?\b", re.IGNORECASE
)
_TIMES = re.compile(
    rf"(?P<relation>{'|'.join(_BEFORE)}) (?P<n>{_N}) times|(?P<m>{_N}) or more times"
    r"|(?P<few>at least|at most) (?P<once>once|twice)|\b(?P<vague>once|twice|times?)\b",
    re.IGNORECASE,
)
_UPPER = re.compile(
    r"\b(?:in|using|use|with|be) (?:only |all |entirely in )*"
    r"(?:capital(?:ized)? letters|capitals|caps|upper[ -]?case)",
    re.IGNORECASE,
)
_LOWER = re.compile(
    r"\b(?:in|using|use|with|be) (?:only |all |entirely in )*(?:lower[ -]?case|small letters)"
    rf"|(?:\bno|{_NEGATION}(?: {_USE})?(?: any)?) (?:capital letters|capitals|upper[ -]?case)",
    re.IGNORECASE,
)
_PART = re.compile(
    r"\b(?:words?|titles?|headings?|headers?|names?|phrases?|sections?|times|once|first letter|"
    r"letters? of)\b",
    re.IGNORECASE,
)
_ANSWER = (
    r"(?:(?:your |the |this )?(?:entire |whole )?(?:reply|response|answer|output|text|email|letter|"
    r"poem|story|post|essay|message|song|speech)\s+)?"
)
_SAYING = (
    r"(?:by saying|by asking|with|in)"
    r"(?: (?:this|the|an?|exact|phrase|words?|sentence|question|line|of))*:?"
)
_END = re.compile(
    rf"\b(?:end|finish|conclude|close)s? {_ANSWER}{_SAYING} (?P<quote>{_QUOTE})", re.IGNORECASE
)
_END_QUESTION = re.compile(
    rf"\b(?:end|finish|conclude|close) {_ANSWER}with a question\b(?! «)", re.IGNORECASE
)
_START = re.compile(
    rf"\b(?:begin|start|open)s? {_ANSWER}{_SAYING} (?P<quote>{_QUOTE})", re.IGNORECASE
)
_CAPITALS = re.compile(r"\bcapital|\bcaps\b|\bupper[ -]?case", re.IGNORECASE)
_PLACE = re.compile(r"\b(?:paragraph|sentence \d|line|section|stanza|verse|word)\b", re.IGNORECASE)
_EITHER = re.compile(
    r"\b(?:answer|reply|respond)(?: only| just| simply)?(?: with| by saying)?"
    r"(?: only| just| simply| an?| simple| single| either| word| one of)* "
    r"(?P<a>yes|true) or (?P<b>no|false)\b(?! or)",
    re.IGNORECASE,
)
_JSON = re.compile(
    r"\b(?:as|in|into|with) (?:an? |one |the )?(?:single |valid |strict |pure )?JSON"
    r"(?: format| object| array| block| list)?\b(?!\s+(?:file|schema|web|parser|librar|\w+ing))",
    re.IGNORECASE,
)
_MAKE = re.compile(
    rf"\b(?:{_VERB[3:-1]}|format|list|name|output|present|print|return|show|wrap|want|response|"
    r"reply|put|convert)\w*\b",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"^\W*(?:how|why|what|when|where|which|who|explain (?:how|why|what))\b", re.I)
_ASKING = re.compile(
    r"^\W*(?:do(?!n[’']t| not)|does|did|is|are|was|were|has|have|which|who|what|when|why|how)\b",
    re.IGNORECASE,
)
_BULLETS = re.compile(
    r"\b(?:as|in|using|use|with|into) (?:an? |the )?(?:form of an? |format of )?(?:short |simple )?"
    r"(?:bullet(?:ed)?(?:[ -]points?)?(?: list| points?| form(?:at)?)?|unordered list)\b"
    r"|\bbullet(?:ed)?(?:[ -]point)?(?:ed)? list of\b",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"\b(?:as|in|using|use|with|into|make|create|give me|write) (?:an? |the )?(?:form of an? )?"
    r"(?:short |simple )?(?:numbered|ordered) list\b",
    re.IGNORECASE,
)


def found_in(prompt: str) -> tuple[Constraint, ...]:
    """The constraints that the prompt states, in the order of the rules below, each once."""
    text, quotes = _aside(prompt[:LONGEST])
    found: list[Constraint] = []
    for match in _SENTENCE.finditer(text):
        found.extend(_in_sentence(match[0].strip(), quotes))
    if "***" in prompt:  # paragraphs that are divided by something else than blank lines
        found = [c for c in found if c.kind != "length_constraints:number_blocks"]
    return tuple(c for c in _consistent(found) if unchecked(c) is None)


def asks_json(prompt: str) -> bool:
    """Whether the prompt wants its reply to be JSON."""
    return any(c.kind == "detectable_format:json_format" for c in found_in(prompt))


def _aside(prompt: str) -> tuple[str, list[str]]:
    """The prompt without code, each quotation replaced by «n»; and the quotations."""
    quotes: list[str] = []

    def keep(match: re.Match[str]) -> str:
        quotes.append(match[1] or match[2])
        return f"«{len(quotes) - 1}»"

    plain = _CODE.sub(" ", prompt.replace("«", " ").replace("»", " "))
    return _QUOTED.sub(keep, plain), quotes


def _in_sentence(sentence: str, quotes: list[str]) -> Iterator[Constraint]:
    if not _EACH.search(sentence):  # a demand on each part is none on the whole
        for constraint in _counts(sentence):
            # "at least 15 words in capital letters" counts capital words alone
            if constraint.kind != _UNITS["word"][0] or not _CAPITALS.search(sentence):
                yield constraint
    yield from _words(sentence, quotes)
    yield from _case(sentence)
    yield from _ends(sentence, quotes)
    yield from _forms(sentence)


def _counts(sentence: str) -> Iterator[Constraint]:
    before = "|".join(f"(?P<r{i}>{words})" for i, words in enumerate(_BEFORE))
    after = "|".join(f"(?P<r{i}>{words})" for i, words in enumerate(_AFTER))
    for relations, pattern in (
        (_BEFORE, rf"\b(?:{before}) (?P<n>{_N})[ -]{_SIZE}{_UNIT}(?! or (?:less|fewer|more))"),
        (_AFTER, rf"\b(?P<n>{_N})[ -]{_SIZE}{_UNIT} (?:{after})\b"),
    ):
        for match in re.finditer(pattern, sentence, re.IGNORECASE):
            names = list(relations.values())
            relation = names[next(i for i in range(len(names)) if match[f"r{i}"])]
            if _negated(sentence, match):
                relation = _OPPOSITE.get(relation)
            if relation is not None:
                yield _count(match["unit"], relation, match["n"])
    for match in re.finditer(rf"\b(?P<n>{_N})\+[ -]{_SIZE}{_UNIT}", sentence, re.IGNORECASE):
        yield _count(match["unit"], _MORE, match["n"])
    between = rf"\b(?:between|in|of|with) (?P<n>{_N})(?: ?[-–] ?| to | and )(?P<m>{_N}) {_UNIT}"
    for match in re.finditer(between, sentence, re.IGNORECASE):
        yield _count(match["unit"], _MORE, match["n"])
        yield _count(match["unit"], _FEWER, match["m"])
    bare = (
        rf"\b(?:in|into|using|with|as|to) (?P<n>{_N}) {_SIZE}{_UNIT}(?! (?:or|to) )",
        rf"^\W*(?:please )?{_VERB}(?: me| us)? (?P<n>{_N}) {_SIZE}{_UNIT}(?! (?:or|to|that) )",
        rf"^\W*(?:please )?{_VERB}(?: me| us)? (?:an?|your) (?:\w+ )?(?P<n>{_N})-{_UNIT}",
    )
    for pattern in bare:
        for match in re.finditer(pattern, sentence, re.IGNORECASE):
            # "in 50 words" means about 50; "in three words" means three
            exact = match["unit"].lower() != "word" or _value(match["n"]) <= 10
            if exact and not _negated(sentence, match):
                yield _count(match["unit"], "exactly", match["n"])


def _count(unit: str, relation: str, number: str) -> Constraint:
    n = _value(number)
    if unit.lower() == "bullet":
        return Constraint(
            "detectable_format:list", {"marker": "bullet", "relation": relation, "num_items": n}
        )
    kind, name = _UNITS[unit.lower()]
    return Constraint(kind, {"relation": relation, name: n})


def _value(number: str) -> int:
    number = number.lower().replace(",", "")
    return _NUMBERS.index(number) + 1 if number in _NUMBERS else int(number)


def _words(sentence: str, quotes: list[str]) -> Iterator[Constraint]:
    excluded = [match.span() for match in _EXCLUDE.finditer(sentence)]
    for match in _EXCLUDE.finditer(sentence):
        yield Constraint("keywords:forbidden_words", {"forbidden_words": _things(match, quotes)})
    for match in _INCLUDE.finditer(sentence):
        if not any(a < match.end() and match.start() < b for a, b in excluded):
            yield from _wanted(_things(match, quotes), sentence[match.end() :])
    for match in _APPEAR.finditer(sentence):
        word = _unquoted(match["what"], quotes)
        if match["no"]:
            yield Constraint("keywords:forbidden_words", {"forbidden_words": (word,)})
        else:
            yield from _wanted((word,), sentence[match.end() :])
    for match in _LETTER.finditer(sentence):
        letter = _unquoted(match["letter"], quotes)
        if len(letter) == 1:
            details = {"letter": letter, "let_relation": "less than", "let_frequency": 1}
            yield Constraint("keywords:letter_frequency", details)
    if _COMMAS.search(sentence):
        yield Constraint("punctuation:no_comma")


def _wanted(words: tuple[str, ...], rest: str) -> Iterator[Constraint]:
    times = _TIMES.search(rest)
    if times is None:
        yield Constraint("keywords:existence", {"keywords": words})
    elif len(words) == 1:
        if times["vague"]:
            return
        if times["once"]:
            relation, n = times["few"].lower(), 2 if times["once"].lower() == "twice" else 1
        elif times["m"]:
            relation, n = _MORE, _value(times["m"])
        else:
            said = times["relation"]
            relation = next(r for p, r in _BEFORE.items() if re.fullmatch(p, said, re.IGNORECASE))
            n = _value(times["n"])
        details = {"keyword": words[0], "relation": relation, "frequency": n}
        yield Constraint("keywords:frequency", details)


def _things(match: re.Match[str], quotes: list[str]) -> tuple[str, ...]:
    if match["quotes"]:
        return tuple(_unquoted(q, quotes) for q in re.findall(_QUOTE, match["quotes"]))
    return tuple(re.split(r", and |, | and ", match["bare"]))


def _unquoted(text: str, quotes: list[str]) -> str:
    return quotes[int(text[1:-1])].rstrip(".,") if text[:1] == "«" else text


def _case(sentence: str) -> Iterator[Constraint]:
    # "without using capital letters" holds "using capital letters"
    for pattern, kind in ((_LOWER, "lowercase"), (_UPPER, "capital")):
        match = pattern.search(sentence)
        if match is None or (pattern is _UPPER and _negated(sentence, match)):
            continue
        if not _PART.search(sentence[: match.start()][-40:] + sentence[match.end() :]):
            yield Constraint(f"change_case:english_{kind}")
            return


def _ends(sentence: str, quotes: list[str]) -> Iterator[Constraint]:
    if _ASKING.search(sentence):
        return
    for pattern, kind, name in (
        (_END, "startend:end_checker", "end_phrase"),
        (_START, "startend:start_checker", "start_phrase"),
    ):
        for match in pattern.finditer(sentence):
            of_a_part = _PLACE.search(sentence[: match.start()]) or _EACH.search(sentence)
            if not of_a_part and not _negated(sentence, match):
                yield Constraint(kind, {name: _unquoted(match["quote"], quotes)})
    question = _END_QUESTION.search(sentence)
    if question and not _negated(sentence, question):
        yield Constraint("startend:end_checker", {"end_phrase": "?"})
    for match in _EITHER.finditer(sentence):
        if not _negated(sentence, match):
            yield Constraint("startend:one_of", {"options": (match["a"], match["b"])})


def _negated(sentence: str, match: re.Match[str]) -> bool:
    return _NEGATED.search(sentence[: match.start()]) is not None


def _forms(sentence: str) -> Iterator[Constraint]:
    if _ABOUT.search(sentence):
        return
    json = _JSON.search(sentence)
    if json and _MAKE.search(sentence[: json.start()]) and not _negated(sentence, json):
        yield Constraint("detectable_format:json_format")
    for pattern, marker in ((_BULLETS, "bullet"), (_NUMBERED, "number")):
        match = pattern.search(sentence)
        if match and not _negated(sentence, match):
            details = {"marker": marker, "relation": _MORE, "num_items": 1}
            yield Constraint("detectable_format:list", details)


def _consistent(found: list[Constraint]) -> Iterator[Constraint]:
    """Each once; none of several exact counts of one thing, which cannot all be the reply's."""
    unique: list[Constraint] = []
    for constraint in found:
        if constraint not in unique:
            unique.append(constraint)
    exact = [c.kind for c in unique if c.details.get("relation") == "exactly"]
    for constraint in unique:
        if constraint.details.get("relation") != "exactly" or exact.count(constraint.kind) == 1:
            yield constraint
