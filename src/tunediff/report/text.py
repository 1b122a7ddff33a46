"""How is what a model or a file said shown, so that nothing in it acts and nothing hides?"""

from __future__ import annotations

import json
import re
from typing import Any

# What would not be seen, or would change how its surroundings are seen: C0 and C1 controls but
# newline and tab, marks of direction, zero-width spaces, separators of lines, tag characters and
# lone surrogates.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)
_SMALL = 5e-4  # a share that one decimal of a per cent would show as none
_BRACKETS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def visible(text: str) -> str:
    """The text with what hides in it spelt out: ␛ for an escape, ⟨U+202E⟩ for a mark."""
    return _HIDDEN.sub(_spelt, text.replace("\r\n", "\n"))


def _spelt(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"


def embedded(value: Any) -> str:
    """JSON that can stand inside ``<script type="application/json">``; its text is visible."""
    text = json.dumps(_shown(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda m: _BRACKETS[m[0]], text)


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {_shown(k): _shown(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(v) for v in value]
    return value


def figure(value: float | None, unit: str = "", *, sign: bool = False) -> str:
    """A number for people: four digits, shares in per cent, a real minus; a dash for none."""
    if value is None:
        return "–"
    share = ".1%"
    if unit == "share" and 0 < abs(value) < _SMALL:
        value, share = 100 * value, ".1g"
    style = ("+" if sign and value else "") + (share if unit == "share" else ".4g")
    shown = format(value, style).replace("%", "").replace("-", "−")
    shown = re.sub(r"e([+−])0?(\d+)", lambda m: f"·10{_raised(m[1], m[2])}", shown)
    return shown + ("\u202f%" if unit == "share" else "")


def chance(p: float | None) -> str:
    """A p-value: two digits, or that it is below .0001."""
    if p is None:
        return "–"
    return "< .0001" if p < 1e-4 else format(p, ".2g").removeprefix("0")


def _raised(sign: str, digits: str) -> str:
    return ("⁻" if sign == "−" else "") + digits.translate(
        str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    )
