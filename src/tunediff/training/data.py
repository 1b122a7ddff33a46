"""Which tokens does a model learn from, and which of them are scored?

Rows become the items that ``compare`` asks, and are tokenized as ``compare`` tokenizes them: a raw
prompt and its reply as one text with nothing between, a conversation by the chat template. The
last label of a row is the end token, since a model that never sees it never learns to stop; a row
that was cut has no end, and does not teach one. What cannot be learnt from is counted and named.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunediff.errors import InputError, ModelError, UsageError
from tunediff.items.bounds import shown
from tunediff.items.formats import REPLIES, Row
from tunediff.items.forms import to_item
from tunediff.items.read import content_hash, names_of, rows_of
from tunediff.pair import encoding
from tunediff.pair.hf_load import HfTokens
from tunediff.pair.rendering import renderer
from tunediff.pair.template import read_template
from tunediff.run.parts import as_chat
from tunediff.values import Item

IGNORED = -100  # torch's own ignore_index: a token that is not scored
NO_REPLY = "without a reply"
NO_ROOM = "without a reply token within max_length"
_NAMED = 10  # dropped rows that are named one by one

_WAY_OUT = (
    "Give each row prompt and response (or reply, or completion); or instruction, input and "
    "output; or messages, a list of {role, content} that ends with the assistant's."
)


@dataclass(frozen=True, slots=True)
class Example:
    """A row as tokens.

    A label equals its id, or is ``IGNORED`` where the token is not scored; the first token never
    is. ``where``: "file:line".
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    where: str

    @property
    def scored(self) -> int:
        """How many of its tokens are scored."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class Read:
    """What a data file holds: its items, and the places of rows that were dropped."""

    name: str
    form: str
    items: tuple[Item, ...]
    dropped: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Over what is learnt, whatever file and format it came from."""
        return content_hash(self.items)


@dataclass(frozen=True, slots=True)
class Data:
    """Rows ready to be learnt from, those that are held out, and what became of the others."""

    examples: tuple[Example, ...]
    held_out: tuple[Example, ...]
    report: Mapping[str, Any]  # the entry ``data`` of training.json


def read_rows(source: str | Path) -> Read:
    """The rows of a JSONL, JSON, CSV or Parquet file, all of one form.

    A row whose reply is missing or blank is dropped.

    Raises:
        InputError: a file or row that cannot be read, rows of two forms, no row with a reply.

    """
    (name,) = names_of([source])
    items: list[Item] = []
    dropped: list[str] = []
    first: tuple[str, str] | None = None
    for number, row in enumerate(rows_of(source, name)):
        form, columns = _form(row)
        first = first or (form, row.where)
        if form != first[0]:
            raise InputError(
                f"{row.where} has {form}, and {first[1]} has {first[0]}; the rows of a file have "
                "one form.",
                "Make two files of it, or write all rows alike.",
            )
        values = {column: row.values.get(column) for column in columns}
        if _replied(values, form):
            items.append(to_item(Row(row.where, values), str(number), "target", to_answer=True))
        else:
            dropped.append(row.where)
    if not items:
        raise InputError(
            f"{name} holds no row that could be learnt from: {len(dropped)} rows were read, and "
            "none has a reply.",
            _WAY_OUT,
        )
    return Read(name, first[0] if first else "", tuple(items), tuple(dropped))


def prepare(
    read: Read,
    tokens: HfTokens,
    *,
    template: str | None,
    chat: bool,
    loss: Literal["reply", "all"],
    max_length: int,
    held_out: float = 0.0,
    seed: int = 0,
) -> Data:
    """Tokenize what was read, cut what is too long, and hold a share of it out.

    Args:
        read: of :func:`read_rows`.
        tokens: the base's tokenizer.
        template: the chat template's source, where there is one.
        chat: whether prompts are given as a user's messages.
        loss: what is scored: the reply, or every token but the first.
        max_length: at most so many tokens a row; the end is cut off.
        held_out: the share of rows held out; at least one where it is not 0.
        seed: of the choice of those.

    Raises:
        InputError: a row that the template refuses, or too few rows left.
        ModelError: an end token is needed and the tokenizer names none.

    """
    items = [as_chat(item) for item in read.items] if chat else list(read.items)
    render = renderer(template, items, **tokens.special)
    ends = frozenset(tokens.tokenizer.convert_tokens_to_ids(list(tokens.special_texts)))

    counts: Counter[str] = Counter()
    unfit: list[str] = []
    examples: list[Example] = []
    for item in items:
        found = encoding.spans(item, tokens, render)
        counts["shared"] += _straddles(found)
        ids, reply = _ended(found, item, tokens, ends)
        kept = len(ids[:max_length])
        if not reply[:kept].any():
            unfit.append(item.source)
            continue
        counts["cut"] += kept < len(ids)
        scored = reply[:kept] if loss == "reply" else np.arange(kept) > 0
        labels = np.where(scored, ids[:kept], IGNORED)
        examples.append(Example(tuple(ids[:kept].tolist()), tuple(labels.tolist()), item.source))
    kept_out = _held_out(len(examples), held_out, seed) if examples else frozenset()
    if len(examples) <= len(kept_out):
        raise InputError(
            f"{read.name}: of {len(read.items) + len(read.dropped)} rows read, {len(examples)} can "
            "be learnt from; at least one is needed"
            + (" beside those held out." if held_out else "."),
            "Raise --max-length, or add rows."
            if unfit
            else "Add rows, or hold none out."
            if examples
            else _WAY_OUT,
        )
    learnt = tuple(e for i, e in enumerate(examples) if i not in kept_out)
    aside = tuple(examples[i] for i in sorted(kept_out))
    report = {
        "file": read.name,
        "sha256": read.sha256,
        "form": read.form,
        "rows": len(read.items) + len(read.dropped),
        "dropped": {NO_REPLY: len(read.dropped), NO_ROOM: len(unfit)},
        "first_dropped": [*read.dropped, *unfit][:_NAMED],
        "limit": max_length,
        "cut": counts["cut"],
        "border_inside_a_token": counts["shared"],
        "trained": len(learnt),
        "held_out": len(aside),
        "tokens": sum(len(e.ids) for e in learnt),
        "scored_tokens": sum(e.scored for e in learnt),
        "longest": max(len(e.ids) for e in learnt),
    }
    return Data(learnt, aside, report)


def batches(rows: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Numbers of rows without end: each once in a seeded order, then again in another."""
    rng = random.Random(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < batch_size:
            waiting += rng.sample(range(rows), rows)
        batch, waiting = waiting[:batch_size], waiting[batch_size:]
        yield batch


def template_source(template: str, own: str | None) -> str | None:
    """The chat template's source: the model's own, or that of the file ``template`` names.

    Raises:
        UsageError: "chat" and the model has none; no such file.

    """
    if template == "raw":
        return own
    if template == "chat":
        if own is None:
            raise UsageError(
                "--template chat came, and the model folder has no chat template.",
                "Put it there as chat_template.jinja, or name a file: --template FILE.",
            )
        return own
    return read_template(template, "neither raw nor chat")


def _form(row: Row) -> tuple[str, tuple[str, ...]]:
    """What a row holds, in words, and its columns; which rows give them is another question."""
    columns = row.values.keys()
    reply = next((column for column in REPLIES if column in columns), None)
    forms = []
    if "messages" in columns:
        forms.append(("messages", ("messages",)))
    if {"instruction", "output"} <= columns:
        forms.append(("instruction and output", ("instruction", "input", "output")))
    if "prompt" in columns and reply is not None:
        forms.append((f"prompt and {reply}", ("prompt", reply)))
    if len(forms) != 1:
        what = "more than one form" if forms else "nothing to learn from"
        found = ", ".join(shown(c) for c in columns) or "none"
        raise InputError(f"{row.where} has {what} (columns found: {found}).", _WAY_OUT)
    return forms[0]


def _replied(values: Mapping[str, Any], form: str) -> bool:
    """Whether there is a reply; one of a wrong type is, and is refused where it is read."""
    reply = list(values.values())[-1]
    if form == "messages" and isinstance(reply, list) and reply and isinstance(reply[-1], dict):
        if reply[-1].get("role") != "assistant":
            return True
        reply = reply[-1].get("content")
    return reply is not None and not (isinstance(reply, str) and not reply.strip())


def _straddles(found: encoding.Spans) -> bool:
    """Whether a token holds the end of the prompt and the beginning of the reply."""
    if found.context is None:
        return False
    starts, stops = found.offsets.T
    return bool(((starts < found.context) & (stops > found.context)).any())


def _ended(
    found: encoding.Spans, item: Item, tokens: HfTokens, specials: frozenset[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The ids with the end token as the last one, (T,), and which are the reply's, (T,) bool.

    A template ends a reply by a special token of its own, which blanks may follow that no model
    ever gets to write; else the tokenizer's end token is put behind.
    """
    ids, reply = found.ids, found.scorable
    if item.messages is not None:
        last = max(np.flatnonzero(reply & np.isin(ids, list(specials))), default=None)
        if last is not None and not found.text[found.offsets[last, 1] :].strip():
            return ids[: last + 1], reply[: last + 1]
    length = int(np.flatnonzero(reply)[-1]) + 1 if reply.any() else len(ids)
    if tokens.eos is None:
        raise ModelError(
            "The tokenizer names no end token, and the last label of every row is one.",
            "Set eos_token in the base's tokenizer_config.json.",
        )
    return np.append(ids[:length], tokens.eos), np.append(reply[:length], True)


def _held_out(rows: int, share: float, seed: int) -> frozenset[int]:
    if not share:
        return frozenset()
    return frozenset(random.Random(seed).sample(range(rows), max(1, round(share * rows))))
