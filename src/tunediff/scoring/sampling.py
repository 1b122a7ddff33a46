"""Which token comes next, and when is a reply over?

NumPy alone: every backend that has logits answers by these rules. The randomness of a sampled
token is a function of what was asked and of where it stands, never of the batch; base and tuned
use the same, so that what differs between their replies is the models' doing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tunediff.errors import UsageError
from tunediff.values import Encoded, Generation, Reply

Asked = Literal["base", "tuned"]
BOTH: tuple[Asked, ...] = ("base", "tuned")
"""Who can be asked for replies."""

_LIKELIEST = 512  # candidates looked at before the whole vocabulary is sorted


def check(generation: Generation) -> None:
    """Raise UsageError for settings that make no replies."""
    g = generation
    for name, fits, needed in (
        ("max_new_tokens", g.max_new_tokens >= 1, "1 or more"),
        ("temperature", 0 <= g.temperature < math.inf, "0 (greedy) or more"),
        ("top_p", 0 < g.top_p <= 1, "above 0 and at most 1"),
        ("stop", all(g.stop), "strings that are not empty"),
    ):
        if not fits:
            raise UsageError(f"{name} is {getattr(g, name)!r}; it must be {needed}.", "Change it.")


def noise(prompt: Encoded, generation: Generation, sample: int) -> np.ndarray:
    """One number in [0, 1) for each position of a reply, (max_new_tokens,).

    A Philox stream (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) whose key
    is a hash of the seed, the prompt's token ids and the sample; the position is its counter.
    """
    said = f"{generation.seed} {sample} ".encode() + prompt.ids.astype("<i8").tobytes()
    key = int.from_bytes(hashlib.sha256(said).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(generation.max_new_tokens)


def choose(z: np.ndarray, generation: Generation, u: float) -> int:
    """The next token: the likeliest, or the one at ``u`` of the distribution.

    Candidates stand in order of probability, equals in order of id; the fewest of them that hold
    ``top_p`` of the probability share it out among themselves, in float64.

    Args:
        z: finite logits or -inf, (V,), one of them finite.
        generation: temperature 0 takes the first candidate.
        u: in [0, 1).

    """
    if generation.temperature == 0:
        return int(z.argmax())  # of several largest, the first
    scaled = (z.astype(np.float64) - float(z.max())) / generation.temperature
    total = float(np.exp(scaled).sum())
    for most in (_LIKELIEST, len(z)):
        order = _ordered(z, most)
        held = np.cumsum(np.exp(scaled[order])) / total
        last = int(np.searchsorted(held, generation.top_p * (1 - 1e-12)))
        if last < len(held) or most >= len(z):
            break
        if generation.top_p == 1 and u < held[-1]:  # the rest is not needed
            return int(order[np.searchsorted(held, u, side="right")])
    last = min(last, len(held) - 1)
    return int(order[np.searchsorted(held[:last], u * held[last], side="right")])


def _ordered(z: np.ndarray, most: int) -> np.ndarray:
    """The ids of the ``most`` largest logits and their equals, largest first, equals by id."""
    if most >= len(z):
        return np.argsort(-z, kind="stable")
    ids = np.flatnonzero(z >= np.partition(z, len(z) - most)[len(z) - most])
    return ids[np.argsort(-z[ids], kind="stable")]


@dataclass(slots=True)
class Draft:
    """A reply in the making, of one side to one prompt.

    ``most``: it may have so many tokens. ``ends``: ids that end it. ``text``: what ids read as.
    """

    generation: Generation
    most: int
    noise: np.ndarray
    ends: Collection[int]
    text: Callable[[Sequence[int]], str]
    ids: list[int] = field(default_factory=list)
    reply: Reply | None = None  # once it is over

    def go_on(self, z: np.ndarray) -> None:
        """Choose the next token by its logits (V,), and see whether that was the last."""
        self.take(choose(z, self.generation, float(self.noise[len(self.ids)])))

    def take(self, token: int) -> None:
        """Add a token, and see whether it was the last."""
        if token in self.ends:
            self.reply = Reply(self.text(self.ids), tuple(self.ids), "end")
            return
        self.ids.append(token)
        if self.generation.stop:
            text = self.text(self.ids)
            found = [at for at in map(text.find, self.generation.stop) if at >= 0]
            if found:
                self.reply = Reply(text[: min(found)], tuple(self.ids), "stop_string")
                return
        if len(self.ids) >= self.most:
            self.reply = Reply(self.text(self.ids), tuple(self.ids), "length")
