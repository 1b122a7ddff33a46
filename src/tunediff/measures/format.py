"""Does the reply have the form that its prompt asks for: a list, code, JSON?

Each is 0 or 1, unit share, higher is better, and null where the prompt does not ask for it, so
that replies to other prompts do not drown the few that count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

from tunediff.measures.constraints import is_json, list_items
from tunediff.measures.pairs import both_sides
from tunediff.measures.prompted import LONGEST, asks_json
from tunediff.measures.text import asked
from tunediff.values import Item, Measure, Reply

_MAKE = r"(?:give|make|create|write|provide|generate|produce|compile|prepare|show|print|draft)"
_LIST = re.compile(
    rf"\b{_MAKE}(?: me| us)? (?:a|the|an?\s\w+)(?: \w+)? ?(?:list|bullet points|checklist)\b"
    r"|\b(?:bullet(?:ed)?[ -]?points?|(?:bullet(?:ed)?|numbered|ordered|unordered) list)\b"
    r"|(?:^|[.!?\n])[ \t]{0,9}(?:please )?list (?:\w+ )?(?:\w+ )?\w+s\b"
    r"|\b(?:as|in) (?:a |the form of a )list\b",
    re.IGNORECASE,
)
_LANGUAGE = (
    r"(?:Python|Java|JavaScript|TypeScript|C\+\+|C#|SQL|HTML|CSS|Bash|Rust|Ruby|Perl|PHP|Kotlin|"
    r"Haskell|Golang|MATLAB|LaTeX)"
)
_CODE = re.compile(
    rf"\b(?:{_MAKE}|implement|code|develop|design|build)\b[^.!?\n]{{0,60}}(?:"
    rf"(?<!\w){_LANGUAGE}(?!\w)[^.!?\n]{{0,30}}\b(?:code|function|program|script|class|query|method"
    r"|page|statement|snippet|loop)\b"
    r"|\b(?:code|function|program|script|class|query|method|page|statement|algorithm|loop)\b"
    rf"[^.!?\n]{{0,60}}\b(?:in|using|with) (?:a )?(?<!\w){_LANGUAGE}(?!\w)"
    r"|\b(?:code (?:snippet|block)|source code|pseudo-?code|regular expression)\b)",
    re.IGNORECASE,
)
_FENCED = re.compile(r"^[ \t]*```", re.MULTILINE)
_CODE_LINE = re.compile(
    r"^[ \t]*(?:def \w+\(|class \w+[:({]|import \w|from \w[\w.]* import |function \w*\s?\(|"
    r"#include\s*[<\"]|public (?:static |class )|(?:SELECT|CREATE TABLE|INSERT INTO|UPDATE) |"
    r"<!DOCTYPE|<html|(?:const|let|var) \w+ =|fn \w+\(|#!/|\\begin\{)",
    re.MULTILINE,
)


def asks_list(prompt: str) -> bool:
    """Whether the prompt wants a list."""
    return _LIST.search(prompt[:LONGEST]) is not None


def asks_code(prompt: str) -> bool:
    """Whether the prompt wants code: something that is code, in a language or as a snippet."""
    return _CODE.search(prompt[:LONGEST]) is not None


def gives_list(reply: str) -> bool:
    """Two lines or more that begin with a bullet, or two with a number; none inside a line."""
    return max(list_items(reply, "bullet"), list_items(reply, "number")) > 1


def gives_code(reply: str) -> bool:
    """A ``` block, or a line that can hardly be anything but code."""
    return bool(_FENCED.search(reply) or _CODE_LINE.search(reply))


def gives_json(reply: str) -> bool:
    """The reply is a JSON object or list, or holds one in a ``` block or after some words."""
    if is_json(reply) or any(is_json(part) for part in _blocks(reply)):
        return True
    start = min((at for at in (reply.find("{"), reply.find("[")) if at >= 0), default=-1)
    try:
        return start >= 0 and bool(json.JSONDecoder().raw_decode(reply, start))
    except (ValueError, RecursionError):
        return False


def _blocks(reply: str) -> list[str]:
    return [re.sub(r"\A[A-Za-z]*\s", "", part) for part in reply.split("```")[1::2]]


def _form(
    asks: Callable[[str], bool], gives: Callable[[str], bool], what: str, item: Item, reply: Reply
) -> float | str:
    if not asks(asked(item)):
        return f"The prompt does not ask for {what}."
    return float(gives(reply.text))


def _measure(
    name: str, asks: Callable[[str], bool], gives: Callable[[str], bool], what: str
) -> Measure:
    function = both_sides(partial(_form, asks, gives, what))
    zero = f"both give {what} as often where asked"
    return Measure(name, "share", 1, zero, ("replies",), function, margin=0.02)


FORMAT: tuple[Measure, ...] = (
    _measure("format_list", asks_list, gives_list, "a list"),
    _measure("format_code", asks_code, gives_code, "code"),
    _measure("format_json", asks_json, gives_json, "JSON"),
)
