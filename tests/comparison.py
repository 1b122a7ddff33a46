"""What is compared where no model is needed? A pair that scores and answers, and suites for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from faults import FakePair
from tunediff.errors import LengthError
from tunediff.pair import encoding
from tunediff.run.comparing import compare
from tunediff.run.store import Run
from tunediff.scoring import sampling
from tunediff.scoring.sampling import BOTH, Asked
from tunediff.values import Encoded, Generation, Item, Reply, Suite

GENERATION = Generation(max_new_tokens=12)
EMPTY = "mute"  # a prompt that holds it gets an empty reply from both sides


def rendered(item: Item, whole: bool = True) -> str:
    """The fake pair's chat template."""
    messages = item.messages or ()
    said = "".join(f"<{m['role']}>{m['content']}" for m in (messages if whole else messages[:-1]))
    return said if whole else said + "<assistant>"


class AnsweringPair(FakePair):
    """A pair of bytes that scores and answers.

    As with a real one, numbers and replies depend on what else is asked in the same call.
    ``answered``: (items, sample, sides) of each call of ``generate``.
    """

    offers = frozenset({"scores", "nll", "weights", "replies"})

    def __init__(self, room: int | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.settings["backend"] = "fake"
        self.room = room  # token ids of a prompt, at most
        self.answered: list[tuple[tuple[str, ...], int, tuple[Asked, ...]]] = []

    def _encode(self, item: Item, max_length: int | None, allow_truncation: bool) -> Encoded:
        if item.text is not None:
            return super()._encode(item, max_length, allow_truncation)
        talk = item.messages is not None
        before = rendered(item, whole=False) if talk else item.prompt or ""
        whole = rendered(item) if talk else before + (item.reply or "")
        found = super()._encode(Item(item.id, text=whole, source=item.source), max_length,
                                allow_truncation)  # fmt: skip
        start = len(before.encode())
        if len(found.ids) <= start:
            raise LengthError(f"{item.source}: nothing of its reply fits.", "Shorten it.")
        scored = np.arange(start - 1, len(found.ids) - 1)
        return replace(found, scored=scored, probe=start - 1, bytes_scored=len(scored))

    def prompts(self, items: Sequence[Item], max_length: int | None) -> list[Encoded]:
        found = []
        for item in items:
            text = rendered(item, whole=False) if item.messages else item.prompt or ""
            ids = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
            room = min(n for n in (max_length, self.room, 10**9) if n is not None)
            if len(ids) > room:
                raise LengthError(f"{item.source}: the prompt does not fit.", "Shorten it.")
            found.append(Encoded(item.id, ids, np.empty(0, np.int64), len(ids) - 1, 0))
        return found

    def generate(
        self,
        prompts: Sequence[Encoded],
        generation: Generation,
        sample: int = 0,
        sides: Sequence[Asked] = BOTH,
    ) -> Iterator[tuple[Reply | None, Reply | None]]:
        sampling.check(generation)
        self.answered.append((tuple(p.item_id for p in prompts), sample, tuple(sides)))
        company = b"|".join(p.ids.tobytes() for p in prompts)
        for prompt in prompts:
            replies: dict[str, Reply | None] = {"base": None, "tuned": None}
            for side in sides:
                key = f"{side} {sample} {generation.seed} {self.settings['kernel']}".encode()
                ids = _ids(key + prompt.ids.tobytes() + company, generation.max_new_tokens)
                if EMPTY.encode() in bytes(prompt.ids.tolist()):
                    ids = ()
                replies[side] = Reply(bytes(ids).decode(), ids, "end")
            yield replies["base"], replies["tuned"]

    def continuation(self, prompt: Encoded, reply_ids: Sequence[int]) -> Encoded:
        return encoding.continuation(prompt, reply_ids, len(reply_ids))


def _ids(key: bytes, most: int) -> tuple[int, ...]:
    """A few letters and blanks, by a hash."""
    digest = hashlib.sha256(key).digest()
    return tuple(b"etaoin shr "[b % 11] for b in digest[1 : 2 + digest[0] % most])


def asked(count: int = 4) -> tuple[Suite, ...]:
    """Prompts with references, choices, texts, and prompts alone, of different lengths."""
    sums = [
        Item(f"s{k}", prompt=f"What is {k} and {k}{'?' * (1 + 3 * k % 5)}", reply=f" {2 * k}",
             axis="target", source=f"sums:{k}")
        for k in range(count)
    ]  # fmt: skip
    colours = (" red", " green", " pale blue")
    posed = [
        Item(f"c{k}", prompt=f"Pick the colour of the {'very ' * k}old ship:",
             choices=colours, answer=k % 3, reply=colours[k % 3], axis="general",
             category=f"kind {k % 2}", source=f"posed:{k}")
        for k in range(count)
    ]  # fmt: skip
    texts = [
        Item(f"t{k}", text="placeholder " * (1 + 5 * k % 4), axis="general", source=f"texts:{k}")
        for k in range(count)
    ]
    open_ended = [
        Item(f"w{k}", prompt=f"{EMPTY if k == 1 else 'Tell'} me more about harbour {k}",
             axis="fluency", source=f"open:{k}")
        for k in range(count)
    ]  # fmt: skip
    named = {"sums": sums, "posed": posed, "texts": texts, "open": open_ended}
    return tuple(Suite(name, tuple(items), "h" * 64) for name, items in named.items())


def small_comparison(folder: Path, pair: AnsweringPair | None = None, **options: Any) -> Run:
    """The job that is killed: a few parts of every kind."""
    given: dict[str, Any] = {"generation": GENERATION, "part_tokens": 150, **options}
    suites = given.pop("suites", asked())
    return compare(pair or AnsweringPair(), suites, out=folder, **given)
