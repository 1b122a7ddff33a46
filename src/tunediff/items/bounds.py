"""How large may an input be, and which characters does it hold?

Shared by the readers of every format: the caps, strict decoding, and how a value that came from
outside is shown in an error message.
"""

from __future__ import annotations

import codecs

from tunediff.errors import InputError

FILE_LIMIT = 1 << 30  # bytes of a file that is read whole
LINE_LIMIT = 16 << 20  # bytes of one line of JSONL or CSV
FIELD_LIMIT = 8 << 20  # UTF-8 bytes of one text, id or group
_SHOWN = 80  # characters of an outside value in an error message


def decode(data: bytes, name: str) -> str:
    """Strict UTF-8; a byte order mark at the start is dropped.

    Raises:
        InputError: naming the line (from 1) and the byte offset (from 0) of the first bad byte.

    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "Save the file as UTF-8 and try again."
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            hint = "It begins like UTF-16. " + hint
        raise InputError(
            f"{name}:{line} is not UTF-8: byte 0x{data[error.start]:02x} at byte offset "
            f"{error.start} of the file ({error.reason}).",
            hint,
        ) from None
    return text.removeprefix("\ufeff")


def check_line(size: int, where: str) -> None:
    """Refuse a line of more than ``LINE_LIMIT`` bytes."""
    if size > LINE_LIMIT:
        raise InputError(
            f"{where} is a line of {size} bytes; at most {LINE_LIMIT} are read.",
            "Shorten the row, or split it into several.",
        )


def check_field(value: str, column: str, where: str) -> str:
    """The value itself, if :func:`check_characters` passes it and it is not blank."""
    check_characters(value, column, where)
    if not value.strip():
        what = "empty" if not value else "only white space"
        raise InputError(
            f"{where}: {column} is {what}; there is nothing to score.",
            "Fill it in, or delete the row.",
        )
    return value


def check_characters(value: str, column: str, where: str) -> str:
    """The value itself, if it is valid Unicode of at most ``FIELD_LIMIT`` bytes."""
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: {column} holds U+{ord(value[error.start]):04X} at character {error.start}, "
            "half of a surrogate pair, which no UTF-8 text can hold.",
            "Remove it, or write the whole character.",
        ) from None
    if size > FIELD_LIMIT:
        raise InputError(
            f"{where}: {column} has {size} bytes; at most {FIELD_LIMIT} are read.",
            "Split it into several items (in a .txt file: with <|endoftext|> between the texts).",
        )
    return value


def shown(value: object) -> str:
    """An outside value for a message: escaped, on one line, cut when long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
