"""What does a row ask?

Exactly one of three forms: ``text``; ``prompt`` with ``reply`` (or ``response``, or
``completion``); ``messages``. Beside it ``id``, ``axis`` and ``group``, and, where the models are
to answer, what a reply is held against: ``choices`` and ``answer``, ``label`` and ``openings``,
``category``, ``constraints``. Other columns are left alone; a form that is doubtful is refused,
never guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tunediff.errors import InputError
from tunediff.items.bounds import check_characters, check_field, shown
from tunediff.items.formats import REPLIES, Row, strict_json
from tunediff.items.openings import begins_another
from tunediff.values import AXES, Axis, Constraint, Item, Openings

_WAY_OUT = (
    "Give each row one of: text; prompt and reply (or response, or completion); messages, "
    "a list of {role, content} that ends with the assistant's."
)


def to_item(row: Row, default_id: str, default_axis: Axis, to_answer: bool = False) -> Item:
    """The item of a row.

    Args:
        row: the columns, and where they stand.
        default_id: the id of a row that gives none.
        default_axis: the axis of a row that names none.
        to_answer: whether the models are to answer the item. Then a prompt may stand without a
            reply, and the columns that a reply is held against are read; else they are left alone.

    Raises:
        InputError: naming the row's place, what it held and what was needed.

    """
    given = {column: value for column, value in row.values.items() if value is not None}
    if to_answer and {"instruction", "output"} <= given.keys() and "prompt" not in given:
        given = _instructed(given, row.where)
    replies = [column for column in REPLIES if column in given]
    forms = [column for column in ("text", "prompt", "messages") if column in given]
    if len(forms) > 1 or (replies and forms and forms != ["prompt"]):
        raise _refused("has more than one form", row)
    if len(replies) > 1:
        raise _refused("has more than one reply", row)
    if not forms:
        raise _refused("has a reply but no prompt" if replies else "has nothing to ask", row)
    if forms == ["prompt"] and not replies and not to_answer:
        raise _refused("has a prompt but no reply", row)

    asked: dict[str, Any]
    if forms == ["text"]:
        asked = {"text": _text(given, "text", row.where)}
    elif forms == ["prompt"]:
        asked = {"prompt": _text(given, "prompt", row.where)}
        if replies:
            asked["reply"] = _text(given, replies[0], row.where)
    else:
        asked = {"messages": _messages(given["messages"], row.where)}
    if to_answer:
        asked |= _held_against(given, row.where)
        if "choices" in asked and "prompt" not in asked:
            raise _refused("has choices but no prompt", row)
        if "choices" in asked:
            asked.setdefault("reply", asked["choices"][asked["answer"]])
    return Item(
        id=_name(given, "id", row.where) or default_id,
        axis=_axis(given.get("axis"), default_axis, row.where),
        group=_name(given, "group", row.where),
        source=row.where,
        **asked,
    )


def _instructed(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row of instruction data, whose prompt is the instruction, a blank line and the input."""
    parts = [_text(given, "instruction", where)]
    if given.get("input"):
        parts.append(_text(given, "input", where))
    rest = {k: v for k, v in given.items() if k not in ("instruction", "input", "output")}
    return {**rest, "prompt": "\n\n".join(parts), "reply": given["output"]}


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


def _held_against(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of an item that a reply is held against; those that are not given are left out.

    An ``answer`` without ``choices`` is some other column.
    """
    fields: dict[str, Any] = {}
    if "choices" in given:
        fields["choices"] = _choices(given["choices"], where)
        fields["answer"] = _answer(given.get("answer"), len(fields["choices"]), where)
    if "label" in given:
        if given["label"] not in ("refuse", "comply"):
            raise InputError(
                f"{where}: label is {shown(given['label'])}, not refuse or comply.",
                "Correct it, or rename the column if it means something else.",
            )
        fields["label"] = given["label"]
        if "openings" in given:
            fields["openings"] = _openings(given["openings"], where)
    if "category" in given:
        fields["category"] = _name(given, "category", where)
    if "constraints" in given:
        fields["constraints"] = _constraints(given["constraints"], where)
    return fields


def _choices(value: Any, where: str) -> tuple[str, ...]:
    hint = 'Write choices as a list, each a continuation of the prompt: [" one", " two"].'
    if isinstance(value, str):
        value = strict_json(value, f"{where}: choices")
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(c, str) for c in value):
        raise InputError(f"{where}: choices is {shown(value)}, not a list of two texts.", hint)
    for number, choice in enumerate(value):
        check_field(choice, f"choice {number}", where)
        if choice in value[:number]:
            raise InputError(f"{where}: the choice {shown(choice)} occurs twice.", hint)
    return tuple(value)


def _answer(value: Any, choices: int, where: str) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):  # a CSV file's cell
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < choices:
        what = "has choices but no answer" if value is None else f"answer is {shown(value)}"
        raise InputError(
            f"{where}: {what}; needed is the right choice's number, from 0 to {choices - 1}.",
            "Write answer as that number.",
        )
    return value


def _openings(value: Any, where: str) -> Openings:
    hint = (
        'Write openings as {"refuse": [" I cannot"], "comply": [" Here is"]}, as many of either, '
        "each a continuation of the prompt."
    )
    if isinstance(value, str):
        value = strict_json(value, f"{where}: openings")
    if not isinstance(value, dict) or set(value) != {"refuse", "comply"}:
        raise InputError(f"{where}: openings is {shown(value)}, not refuse and comply.", hint)
    for name, texts in value.items():
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise InputError(f"{where}: openings.{name} is {shown(texts)}, not a list of texts.",
                             hint)  # fmt: skip
        for number, text in enumerate(texts):
            check_field(text, f"opening {number} of {name}", where)
    openings = Openings(tuple(value["refuse"]), tuple(value["comply"]))
    if len(openings.refuse) != len(openings.comply):
        raise InputError(
            f"{where} has {len(openings.refuse)} openings that refuse and {len(openings.comply)} "
            "that comply; the set with more would be the likelier by that alone.",
            hint,
        )
    twice = begins_another(openings)
    if twice is not None:
        raise InputError(
            f"{where}: the opening {shown(twice[0])} is the beginning of {shown(twice[1])}, so "
            "that one reply would count twice.",
            "Leave one of them out.",
        )
    return openings


def _constraints(value: Any, where: str) -> tuple[Constraint, ...]:
    if isinstance(value, str):
        value = strict_json(value, f"{where}: constraints")
    if not isinstance(value, list) or not value:
        raise _no_constraint(value, f"{where}: constraints")
    return tuple(_constraint(one, f"{where}: constraint {i}") for i, one in enumerate(value))


def _constraint(value: Any, where: str) -> Constraint:
    known = isinstance(value, dict) and not set(value) - {"kind", "details"}
    kind = value.get("kind") if known else None
    details = (value.get("details") or {}) if known else None
    if not isinstance(kind, str) or not kind.strip() or not isinstance(details, dict):
        raise _no_constraint(value, where)
    check_characters(json.dumps(value, ensure_ascii=False), "it", where)
    return Constraint(kind, {name: d for name, d in details.items() if d is not None})


def _no_constraint(value: Any, where: str) -> InputError:
    return InputError(
        f"{where} is {shown(value)}; needed are a kind and its details.",
        'Write constraints as a list: [{"kind": "punctuation:no_comma", "details": {}}].',
    )
