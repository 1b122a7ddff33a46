"""What does a row ask?

Exactly one of three forms: ``text``; ``prompt`` with ``reply`` (or ``response``, or
``completion``); ``messages``. Beside it ``id``, ``axis`` and ``group``. Other columns are left
alone; a form that is doubtful is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunediff.errors import InputError
from tunediff.items.bounds import check_characters, check_field, shown
from tunediff.items.formats import REPLIES, Row, strict_json
from tunediff.values import AXES, Axis, Item

_WAY_OUT = (
    "Give each row one of: text; prompt and reply (or response, or completion); messages, "
    "a list of {role, content} that ends with the assistant's."
)


def to_item(row: Row, default_id: str, default_axis: Axis) -> Item:
    """The item of a row.

    Raises:
        InputError: naming the row's place, what it held and what was needed.

    """
    given = {column: value for column, value in row.values.items() if value is not None}
    replies = [column for column in REPLIES if column in given]
    forms = [column for column in ("text", "prompt", "messages") if column in given]
    if len(forms) > 1 or (replies and forms and forms != ["prompt"]):
        raise _refused("has more than one form", row)
    if len(replies) > 1:
        raise _refused("has more than one reply", row)
    if not forms:
        raise _refused("has a reply but no prompt" if replies else "has nothing to ask", row)
    if forms == ["prompt"] and not replies:
        raise _refused("has a prompt but no reply", row)

    asked: dict[str, Any]
    if forms == ["text"]:
        asked = {"text": _text(given, "text", row.where)}
    elif forms == ["prompt"]:
        asked = {
            "prompt": _text(given, "prompt", row.where),
            "reply": _text(given, replies[0], row.where),
        }
    else:
        asked = {"messages": _messages(given["messages"], row.where)}
    return Item(
        id=_name(given, "id", row.where) or default_id,
        axis=_axis(given.get("axis"), default_axis, row.where),
        group=_name(given, "group", row.where),
        source=row.where,
        **asked,
    )


def _refused(what: str, row: Row) -> InputError:
    columns = [shown(c) + ("" if v is not None else " (empty)") for c, v in row.values.items()]
    found = ", ".join(columns[:20]) + (", …" if len(columns) > 20 else "")
    return InputError(f"{row.where} {what} (columns found: {found or 'none'}).", _WAY_OUT)


def _text(given: Mapping[str, Any], column: str, where: str) -> str:
    value = given[column]
    if not isinstance(value, str):
        raise InputError(
            f"{where}: {column} is {type(value).__name__} {shown(value)}, not text.", _WAY_OUT
        )
    return check_field(value, column, where)


def _name(given: Mapping[str, Any], column: str, where: str) -> str | None:
    """A string or an integer, compared as a string; control characters are data."""
    value = given.get(column)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(
            f"{where}: {column} is {type(value).__name__} {shown(value)}, "
            "not a string or an integer.",
            f"Write {column} as a string.",
        )
    if value == "":
        raise InputError(f"{where}: {column} is empty.", f"Fill it in, or leave {column} out.")
    return check_characters(str(value), column, where)


def _axis(value: Any, default: Axis, where: str) -> Axis:
    if value is None:
        return default
    for axis in AXES:
        if value == axis:
            return axis
    raise InputError(
        f"{where}: axis is {shown(value)}, not one of {', '.join(AXES)}.",
        "Correct it, or leave axis out.",
    )


def _messages(value: Any, where: str) -> tuple[Mapping[str, str], ...]:
    if isinstance(value, str):
        value = strict_json(value, f"{where}: messages")
    if not isinstance(value, list) or len(value) < 2:
        raise InputError(
            f"{where}: messages is {shown(value)}, not a list of two messages or more.", _WAY_OUT
        )
    messages = tuple(_message(message, f"{where}: message {i}") for i, message in enumerate(value))
    if messages[-1]["role"] != "assistant":
        raise InputError(
            f"{where}: the last message is of role {shown(messages[-1]['role'])}; "
            "the assistant's reply is what is scored.",
            _WAY_OUT,
        )
    check_field(messages[-1]["content"], "the last message's content", where)
    return messages


def _message(value: Any, where: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is {shown(value)}, not {{role, content}}.", _WAY_OUT)
    fields = {key: field for key, field in value.items() if field is not None}
    if set(fields) != {"role", "content"} or not all(isinstance(f, str) for f in fields.values()):
        # anything else (tool calls, pictures) would be dropped by what follows, unseen
        raise InputError(
            f"{where} has {', '.join(map(shown, fields)) or 'no fields'}; "
            "needed are role and content, both text, and nothing else.",
            "Leave such conversations out, or write them as prompt and reply.",
        )
    check_field(fields["role"], "role", where)
    check_characters(fields["content"], "content", where)  # a blank system message is valid
    return {"role": fields["role"], "content": fields["content"]}
