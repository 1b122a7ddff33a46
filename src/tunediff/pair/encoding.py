"""Which tokens is a model shown, and which of them are scored?

One policy for both sides: special tokens are added by the tokenizer to plain text and to a prompt
with its reply, and by the template alone to messages. Special-token text inside data is text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tunediff.errors import InputError, LengthError
from tunediff.values import Encoded, Item


class Tokens(Protocol):
    """What a tokenizer must do here; ``hf_load.py`` wraps the one of the transformers library."""

    @property
    def bos(self) -> int | None:
        """The id of the token that begins a text."""
        ...

    @property
    def special_texts(self) -> Sequence[str]:
        """How the special tokens are written."""
        ...

    def __call__(
        self, text: str, *, special: bool, parse_special: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids and the (start, stop) characters of each.

        ``special``: add what the tokenizer adds (BOS …), with (0, 0) as its characters.
        ``parse_special``: read special-token text as special tokens.
        """
        ...


Render = Callable[[Item], tuple[str, str]]
"""Messages by the chat template: all but the last with a reply's opening, and all of them."""


@dataclass(frozen=True, slots=True)
class Spans:
    """An item as text: its tokens, their characters, and where the scored part starts."""

    text: str
    ids: np.ndarray  # int64 (T,)
    offsets: np.ndarray  # int64 (T, 2), characters, with the blanks before each token
    context: int | None  # characters before the scored part; None: all but the first token

    @property
    def scorable(self) -> np.ndarray:
        """Which tokens are scored, (T,) bool; one that straddles the border is the reply's."""
        if self.context is None:
            wanted = np.ones(len(self.ids), bool)
        else:
            wanted = self.offsets[:, 1] > self.context
        wanted[:1] = False  # the first token has no position before it
        return wanted


def spans(item: Item, tokens: Tokens, render: Render) -> Spans:
    """Tokenize an item.

    Raises:
        InputError: two BOS, special-token text in a message.

    """
    if item.messages is not None:
        _refuse_special(item, tokens)
        context_text, text = render(item)
        if item.begun:
            text = _without_end(item, text, len(context_text))
        ids, offsets = tokens(text, special=False, parse_special=True)
        context = len(context_text)
    else:
        text = item.text if item.text is not None else (item.prompt or "") + (item.reply or "")
        ids, offsets = tokens(text, special=True, parse_special=False)
        context = None if item.text is not None else len(item.prompt or "")
    _refuse_two_bos(item, ids, tokens)
    return Spans(text, np.array(ids, np.int64), _whole(offsets), context)


def _without_end(item: Item, text: str, start: int) -> str:
    """A conversation up to where the last message's own text ends."""
    assert item.messages is not None
    content = item.messages[-1]["content"]
    at = text.find(content, start)
    if at < 0:
        raise InputError(
            f"{_where(item)}: the chat template does not write the reply {content!r} as it is, so "
            "how a reply begins cannot be scored.",
            "Use a template that does, or ask raw.",
        )
    return text[: at + len(content)]


def _refuse_special(item: Item, tokens: Tokens) -> None:
    for message in item.messages or ():
        for special in tokens.special_texts:
            if special in message["content"]:
                raise InputError(
                    f"{_where(item)} has the special token {special!r} inside a message, where "
                    "it would be read as the template's own.",
                    "Remove it from the message's content.",
                )


def _refuse_two_bos(item: Item, ids: Sequence[int], tokens: Tokens) -> None:
    if len(ids) > 1 and tokens.bos is not None and ids[0] == ids[1] == tokens.bos:
        raise InputError(
            f"{_where(item)} begins with two BOS tokens (id {tokens.bos}).",
            "Remove the BOS text from the data or the template: it is added once already.",
        )


def _whole(offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Offsets (T, 2) without gaps: some tokenizers leave a token's leading blanks out of its."""
    found = np.array(offsets, np.int64).reshape(-1, 2)
    before = np.maximum.accumulate(np.concatenate([[0], found[:, 1]]))[:-1]
    found[:, 0] = np.minimum(found[:, 0], before)
    return found


def encode(
    item: Item, tokens: Tokens, render: Render, max_length: int | None, allow_truncation: bool
) -> Encoded:
    """Token ids of an item, and the positions that are scored.

    A character of which some tokens are scored and others not (at the start of a text without BOS,
    at the end of a cut one) counts whole among the bytes.

    Args:
        item: what is asked.
        tokens: the tokenizer.
        render: the chat template.
        max_length: at most this many token ids, BOS included; None: no limit.
        allow_truncation: keep the first ``max_length`` ids of a longer item.

    Raises:
        LengthError: a text that is too long, or of which what is kept has nothing to score.
        InputError: a text without a position that could be scored; see :func:`spans`.

    """
    found = spans(item, tokens, render)
    total = len(found.ids)
    if max_length is not None and total > max_length and not allow_truncation:
        raise LengthError(
            f"{_where(item)} has {total} tokens; at most {max_length} fit.",
            "Shorten it, or pass --allow-truncation to keep the first "
            f"{max_length} (--max-length sets another limit).",
        )
    kept = total if max_length is None else min(total, max_length)
    positions = np.flatnonzero(found.scorable[:kept]) - 1
    if not len(positions):
        raise (LengthError if kept < total else InputError)(
            f"{_where(item)} has no scored position: {kept} token{'s' * (kept != 1)}, none of them "
            "predicted from another.",
            "Give a longer text or a non-empty reply within --max-length.",
        )
    # the largest end, not the last: an EOS that the tokenizer adds has (0, 0)
    start, stop = found.offsets[positions[0] + 1, 0], found.offsets[positions + 1, 1].max()
    scored_text = found.text[start:stop]
    return Encoded(
        item_id=item.id,
        ids=found.ids[:kept],
        scored=positions,
        probe=kept - 1 if item.text is not None else int(positions[0]),
        bytes_scored=len(scored_text.encode()),
        truncated=total - kept,
    )


def encode_bytes(
    item: Item, both: tuple[Tokens, Tokens], render: Render, max_length: int | None
) -> tuple[Encoded, Encoded]:
    """An item for two different tokenizers, scored from the same byte offset on.

    Raises:
        LengthError: a text that is too long for a side.
        InputError: a text without a common offset; see :func:`spans`.

    """
    sides = [spans(item, tokens, render) for tokens in both]
    for side in sides:
        if max_length is not None and len(side.ids) > max_length:
            raise LengthError(
                f"{_where(item)} has {len(side.ids)} tokens; at most {max_length} fit.",
                "Shorten it.",
            )
    starts = [set(side.offsets[side.scorable, 0].tolist()) for side in sides]
    # of a character in several tokens, the first of which is context, none may be scored
    context_ends = max(side.offsets[~side.scorable, 1].max(initial=0) for side in sides)
    common = sorted(start for start in starts[0] & starts[1] if start >= context_ends)
    if not common:
        raise InputError(
            f"{_where(item)} has no character at which both tokenizers start a scored token.",
            "Give a longer text.",
        )
    start = common[0]
    bytes_scored = len(sides[0].text[start:].encode())
    encoded = []
    for side in sides:
        positions = np.flatnonzero((side.offsets[:, 0] >= start) & (side.offsets[:, 1] > start)) - 1
        encoded.append(Encoded(item.id, side.ids, positions, len(side.ids) - 1, bytes_scored))
    return encoded[0], encoded[1]


def prompt(
    item: Item, tokens: Tokens, render: Callable[[Item], str], max_length: int | None
) -> Encoded:
    """Token ids of what stands before an item's reply; nothing is scored.

    A plain prompt has the special tokens that the tokenizer puts in front of a text, and none that
    it puts behind one: the text goes on.

    Args:
        item: a prompt or messages.
        tokens: the tokenizer.
        render: messages by the chat template, up to where the assistant begins.
        max_length: at most this many token ids, BOS included; None: no limit.

    Raises:
        LengthError: too many tokens.
        InputError: a plain text, which nobody answers; no token at all; two BOS; special-token
            text in a message.

    """
    if item.messages is not None:
        _refuse_special(item, tokens)
        ids, _ = tokens(render(item), special=False, parse_special=True)
    elif item.prompt is not None:
        ids, offsets = tokens(item.prompt, special=True, parse_special=False)
        if item.prompt:
            ids = ids[: max(at for at, (_, stop) in enumerate(offsets) if stop) + 1]
        else:
            ids = ids[:1] if ids[:1] == [tokens.bos] else []
    else:
        raise InputError(
            f"{_where(item)} is a text, which has no prompt that could be answered.",
            "Give a prompt or messages.",
        )
    _refuse_two_bos(item, ids, tokens)
    if not ids:
        raise InputError(
            f"{_where(item)} has an empty prompt, and the tokenizer begins texts with no token of "
            "its own; there is nothing to go on from.",
            "Give a prompt.",
        )
    if max_length is not None and len(ids) > max_length:
        raise LengthError(
            f"The prompt of {_where(item, 'item')} has {len(ids)} tokens; at most {max_length} fit "
            "before a reply.",
            "Shorten it.",
        )
    return Encoded(item.id, np.array(ids, np.int64), np.empty(0, np.int64), len(ids) - 1, 0)


def continuation(prompt: Encoded, reply_ids: Sequence[int], bytes_scored: int) -> Encoded:
    """A prompt with a reply behind it, the reply's tokens scored.

    Raises:
        InputError: for a reply without tokens.

    """
    if not len(reply_ids):
        raise InputError(
            f"Item '{prompt.item_id}' has a reply without tokens, of which none can be scored.",
            "Leave empty replies out.",
        )
    probe = len(prompt.ids) - 1
    return Encoded(
        item_id=prompt.item_id,
        ids=np.concatenate([prompt.ids, np.array(reply_ids, np.int64)]),
        scored=np.arange(probe, probe + len(reply_ids)),
        probe=probe,
        bytes_scored=bytes_scored,
    )


def within(encoded: Encoded, rows: int) -> Encoded:
    """The same item, if a model of so many vocabulary entries knows all of its tokens.

    Raises:
        InputError: for an id beyond them.

    """
    highest = int(encoded.ids.max())
    if highest >= rows:
        raise InputError(
            f"Item '{encoded.item_id}' has the token id {highest}; the model knows {rows} tokens.",
            "The tokenizer in the folder belongs to another model: put the model's own there.",
        )
    return encoded


def _where(item: Item, what: str = "Item") -> str:
    return f"{what} '{item.id}'" + (f" ({item.source})" if item.source else "")


def tokenizer_identity(serialised: str) -> dict[str, Any]:
    """What decides a fast tokenizer's output, from its JSON form.

    The vocabulary, merges, normaliser, pre-tokenizer, post-processor and added tokens; not the
    padding and truncation that somebody last used it with, and not the file's bytes.
    """
    whole = json.loads(serialised)
    parts = {
        key: whole.get(key)
        for key in ("normalizer", "pre_tokenizer", "post_processor", "model", "added_tokens")
    }
    parts["added_tokens"] = sorted(parts["added_tokens"] or [], key=lambda t: t["id"])
    return parts


def tokenizer_differences(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> list[str]:
    """The parts in which two tokenizers differ; added tokens of tuned alone are "added_tokens"."""
    different = [
        key
        for key in ("model", "normalizer", "pre_tokenizer", "post_processor")
        if base[key] != tuned[key]
    ]
    if base["added_tokens"] != tuned["added_tokens"]:
        more = tuned["added_tokens"][: len(base["added_tokens"])] == base["added_tokens"]
        different.append("added_tokens" if more else "special_tokens")
    return different
