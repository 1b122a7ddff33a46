"""What must a backend do to be a pair?

A few methods, and what it says of itself; what it does not offer it refuses.
``tests/test_pair_contract.py`` runs on every backend that ``open.py`` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from tunediff.scoring.sampling import BOTH, Asked
from tunediff.values import (
    Candidates,
    Certificate,
    Encoded,
    Generation,
    Item,
    Reply,
    Scores,
    Side,
)


class Pair(Protocol):
    """Base and tuned, opened together."""

    base: Side
    tuned: Side
    certificate: Certificate
    offers: frozenset[str]  # of: "scores", "nll", "weights", "replies"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Device, dtype, kernel, fast_kernel, threads, versions …; JSON.

        ``ends``, where there are any: the sorted ids that end a reply, by either side's settings.
        Of two pairs with one base, base's replies are the same where these are.
        """
        ...

    def encode(
        self, items: Sequence[Item], max_length: int | None, allow_truncation: bool
    ) -> list[Encoded]:
        """Token ids of the items and the positions scored.

        Raises LengthError for an item that is too long, InputError for one that cannot be asked.
        """
        ...

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        """Every token metric of every item, in the order given.

        An item whose logits are not finite yields Scores with a ``reason`` and empty arrays.
        """
        ...

    def candidates(self, items: Sequence[Encoded], count: int) -> Iterator[Candidates]:
        """The ``count`` likeliest next tokens of both sides, in the order given.

        At every scored position of every item; the items are such as :meth:`score` gave numbers.
        """
        ...

    def prompts(self, items: Sequence[Item], max_length: int | None) -> list[Encoded]:
        """Token ids of what stands before each item's reply; nothing of it is scored.

        An item's prompt as it is, or its messages (without the assistant's last) by the chat
        template. Raises LengthError where no room is left for a reply, InputError where an item
        cannot be answered.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Encoded],
        generation: Generation,
        sample: int = 0,
        sides: Sequence[Asked] = BOTH,
    ) -> Iterator[tuple[Reply | None, Reply | None]]:
        """Base's and tuned's reply to every prompt, in the order given; None of a side not asked.

        ``sample``: from 0; with a temperature of 0 all samples are the same. Raises NumericsError,
        naming the item, where logits are not finite.
        """
        ...

    def continuation(self, prompt: Encoded, reply_ids: Sequence[int]) -> Encoded:
        """A prompt with the tokens of a reply behind it, which are scored as they are.

        Raises InputError for a reply without tokens, or with one that not both models know.
        """
        ...

    def noise_floor(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        """The largest pooled figure of base against itself, by name of metric; never 0."""
        ...

    def continue_with(self, settings: Mapping[str, Any]) -> None:
        """Go on as a run began: with its kernel and threads, whatever was found this time.

        ``settings`` are those that the run recorded. Called before ``score``, where a run is
        continued; raises PairError where this machine cannot do as they say.
        """
        ...

    def speed(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        """Tokens per second of "base" and of "tuned", each alone, on a few of the items."""
        ...

    def token_text(self, token_id: int) -> str:
        """The text of one token id, for people."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text that they read as: joined, the text.

        A character of several tokens is the last one's, and the others add "".
        """
        ...
