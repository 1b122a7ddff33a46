"""How much of a comparison is done, when a made token costs more than one that is read?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from tunediff.run.parts import Part
from tunediff.values import Generation, Reply

WHOLE = 1000
MADE = 8.0  # read tokens that cost as much as a made one, about


class Gauge:
    """Says what part of the work is done, in thousandths; never less than before.

    Work is counted in tokens that are read. A reply costs ``MADE`` for each of its tokens, and is
    read twice with its prompt, as base's and as tuned's. How long replies are is known from those
    that were made; until the first, each is taken to be as long as it may be.

    Args:
        parts: what is asked.
        missing: the numbers of those that are not done.
        generation: how replies are made.
        samples: replies to each prompt.
        report: called with the thousandths done and 1000; None: nobody listens.
        again: tokens that are read again when all parts are there, as one more part.

    """

    def __init__(
        self,
        parts: Sequence[Part],
        missing: Sequence[int],
        generation: Generation | None,
        samples: int,
        report: Callable[[int, int], None] | None,
        again: int = 0,
    ) -> None:
        self._left = set(missing)
        # Of each part: tokens read (one more, since none is without cost), and replies to make.
        self._reads, self._makes = [], []
        for part in parts:
            read = 1 + sum(len(a.encoded.ids) for a in part.asked)
            replies = samples * len(part.asked) if part.way == "replies" else 0
            self._reads.append(3 * samples * read if replies else read)
            self._makes.append(replies)
        if again and missing:
            self._left.add(len(parts))
            self._reads.append(again)
            self._makes.append(0)
        self._longest = 0 if generation is None else generation.max_new_tokens
        self._report = report
        self._replies = self._tokens = 0  # made so far
        self._answered = 0  # prompts of the present part, each sample counted
        self._said = -1
        self._say()

    def counted(
        self, answers: Iterable[tuple[Reply | None, Reply | None]]
    ) -> Iterator[tuple[Reply | None, Reply | None]]:
        """The answers, each counted as it comes."""
        for both in answers:
            made = [len(reply.ids or ()) for reply in both if reply is not None]
            self._replies += len(made)
            self._tokens += sum(made)
            self._answered += 1
            self._say()
            yield both

    def ended(self, k: int) -> None:
        """Part ``k`` is kept; the one behind the last: all is read again."""
        self._left.discard(k)
        self._answered = 0
        self._say()

    def _say(self) -> None:
        length = self._tokens / self._replies if self._replies else self._longest
        work = [
            read + replies * (MADE + 2) * length
            for read, replies in zip(self._reads, self._makes, strict=True)
        ]
        ahead = sum(work[k] for k in self._left) - self._answered * MADE * length
        done = int(WHOLE * (1 - ahead / sum(work))) if self._left else WHOLE
        if done > self._said and self._report is not None:
            self._said = done
            self._report(done, WHOLE)
