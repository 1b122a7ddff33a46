"""What do the text measures mean by a prompt, a reference, a word, code and a script?

Whatever a model wrote is data: empty, huge, with control characters or lone surrogates. Nothing
here raises, and every pattern is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from tunediff.values import Item

# Thai to Tibetan, Burmese, Khmer, kana, Han: scripts written without spaces between words.
_NO_SPACES = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_LONGEST_WORD = 20  # a mean above it: what lies between spaces are no words
_INLINE_CODE = re.compile(r"`[^`\n]+`")


def asked(item: Item) -> str:
    """What the model is asked: the prompt, or the messages before the last one."""
    if item.prompt is not None or item.messages is None:
        return item.prompt or ""
    return "\n".join(message["content"] for message in item.messages[:-1])


def reference(item: Item) -> str | None:
    """The reply that is known to be right, if one is."""
    if item.reply is not None or not item.messages:
        return item.reply
    return item.messages[-1]["content"]


def units(text: str) -> tuple[list[str], int]:
    """The parts that repetition is counted in, and the n of an n-gram of about four words.

    Whitespace words and 4. Where a text is written without spaces (most of its characters belong
    to such scripts, or its words are longer than 20 characters on average): its characters but
    for white space, and 8, since a Chinese word has about two.
    """
    words = text.split()
    characters = sum(map(len, words))
    if (
        characters > _LONGEST_WORD * len(words)
        or 2 * sum(1 for _ in _NO_SPACES.finditer(text)) > characters
    ):
        return list("".join(words)), 8
    return words, 4


def without_code(text: str) -> tuple[str, int]:
    """The text without its code spans, and their number: ``` blocks, and `inline` on one line.

    A block that is never closed goes on to the end.
    """
    parts = text.split("```")
    rest, inline = _INLINE_CODE.subn(" ", "\n".join(parts[::2]))
    return rest, len(parts) // 2 + inline


def dominant_script(text: str) -> str | None:
    """The script of most letters outside code, by their Unicode names; None without letters.

    Chinese characters beside kana are Japanese writing, and "KANA", where at least every tenth is
    kana; otherwise "CJK".
    """
    scripts: Counter[str] = Counter()
    for character, n in Counter(without_code(text)[0]).items():
        if character.isalpha():
            scripts[_script(character)] += n
    kana, han = scripts["KANA"], scripts["CJK"]
    if kana and kana * 10 >= han:
        scripts["KANA"] += scripts.pop("CJK", 0)
    return max(sorted(scripts), key=scripts.__getitem__, default=None)


def _script(letter: str) -> str:
    # NFKC: full-width and mathematical letters are variants of plain ones
    plain = unicodedata.normalize("NFKC", letter)
    script = re.split("[ -]", unicodedata.name(plain[0], "OTHER"))[0]
    return "KANA" if script in ("HIRAGANA", "KATAKANA") else script
