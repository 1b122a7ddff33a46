"""How do both models read one text, token by token, and where do they differ most?

No model is needed: everything is in the run folder. A :class:`Microscope` reads each file of it
once, and then shows any text at once.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tunediff.run.looking import ItemKey, TextKey, highest, texts_in
from tunediff.run.store import Run
from tunediff.values import Of

By = Literal["kl", "loss"]
_AROUND = 60  # characters before and after a span


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that a model may go on with, and how likely it finds it."""

    token: int
    text: str
    p: float


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text, and what both models made of it.

    ``text``: what it adds to the text; "" where it is a part of a character, which the last of its
    tokens has whole. ``nll_base`` and ``nll_tuned``: −ln p(token), −ln q(token); ``kl``: KL(p‖q)
    at this position, all in nats; ``delta_p``: q(token) − p(token). They are None where the token
    is not scored. ``base`` and ``tuned``: what either expected here, likeliest first; None where
    the item was not looked at.
    """

    text: str
    id: int
    scored: bool
    nll_base: float | None = None
    nll_tuned: float | None = None
    kl: float | None = None
    delta_p: float | None = None
    base: tuple[Candidate, ...] | None = None
    tuned: tuple[Candidate, ...] | None = None

    @property
    def delta_logp(self) -> float | None:
        """Ln q(token) − ln p(token): above 0 the tuned model finds it likelier."""
        if self.nll_base is None or self.nll_tuned is None:
            return None
        return self.nll_base - self.nll_tuned


@dataclass(frozen=True, slots=True)
class Reading:
    """One text as both models read it: the prompt first, which is not scored.

    ``of``: whose text it is, "reference" (the item's own), or the reply of "base" or "tuned".
    ``count``: scored tokens; ``nll_base``, ``nll_tuned`` and ``kl``: sums over them, in nats.
    """

    suite: str
    item: str
    of: Of
    tokens: tuple[Token, ...]
    count: int
    nll_base: float
    nll_tuned: float
    kl: float

    @property
    def text(self) -> str:
        """All of it, prompt included."""
        return "".join(token.text for token in self.tokens)

    @property
    def start(self) -> int:
        """The index of the first scored token; the prompt stands before it."""
        return next(at for at, token in enumerate(self.tokens) if token.scored)

    @property
    def prompt(self) -> str:
        """What stands before the first scored token."""
        return "".join(token.text for token in self.tokens[: self.start])

    @property
    def characters(self) -> list[tuple[Token, ...]]:
        """The tokens, those of one character together: what can be shown apart.

        Σ NLL of the tokens of a character is that of the character.
        """
        found: list[list[Token]] = [[]]
        for token in self.tokens:
            found[-1].append(token)
            if token.text:
                found.append([])
        return [tuple(tokens) for tokens in found if tokens]


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive scored tokens of one text in which the models differ.

    ``start`` and ``stop``: indices into the ``tokens`` of its :class:`Reading`. ``kl``: the sum of
    KL(p‖q) over them; ``loss``: of ln p − ln q of the tokens, above 0 where the tuned model finds
    them less likely. ``before``, ``text``, ``after``: how it reads, with what stands around it.
    """

    suite: str
    item: str
    of: Of
    start: int
    stop: int
    kl: float
    loss: float
    before: str
    text: str
    after: str


@dataclass(frozen=True, slots=True)
class Parting:
    """Where the first replies of both models to one prompt part.

    ``token``: the first place in which their tokens differ, from 0, counted from the reply's
    start; None where they have none or only their text is known. ``common``: the characters that
    both begin with; ``base`` and ``tuned``: how either goes on; "" where it ends there.
    ``part``: whether they differ at all.
    """

    suite: str
    item: str
    part: bool
    token: int | None
    common: str
    base: str
    tuned: str


@dataclass(frozen=True)
class Microscope:
    """A run's texts, ready to be looked at; made by :meth:`of`.

    ``items``: (suite, item) of all that was asked. ``keys``: (suite, item, of) of every text that
    was scored token by token, in the run's order. ``noise_floor``: of the run, by name of metric.
    """

    items: tuple[ItemKey, ...]
    keys: tuple[TextKey, ...]
    noise_floor: Mapping[str, float]
    _pieces: Mapping[TextKey, tuple[Sequence[int], Sequence[str]]]
    _tokens: Mapping[str, np.ndarray]
    _rows: Mapping[TextKey, slice]
    _candidates: Mapping[str, np.ndarray]
    _looked: Mapping[TextKey, slice]
    _replies: Mapping[ItemKey, Mapping[str, Any]]

    @classmethod
    def of(cls, run: Run) -> Microscope:
        """Read a run: of ``compare``, or of ``check``, which has references alone.

        Raises:
            RunError: a file of it is damaged.

        """
        tokens, candidates = run.tokens(replies=True), run.candidates()
        lines = run.texts()
        first = [line for line in run.replies() if line["sample"] == 0]
        asked = [(line["suite"], line["id"]) for line in run.items()]
        return cls(
            items=tuple(asked or ((line["suite"], line["item"]) for line in run.probes())),
            keys=tuple((line["suite"], line["item"], line["of"]) for line in lines),
            noise_floor=run.record["found"]["noise_floor"],
            _pieces={
                (line["suite"], line["item"], line["of"]): (line["ids"], line["pieces"])
                for line in lines
            },
            _tokens=tokens,
            _rows=dict(texts_in(tokens)),
            _candidates=candidates,
            _looked=dict(texts_in(candidates)),
            _replies={(line["suite"], line["item"]): line for line in first},
        )

    @property
    def looked_at(self) -> list[ItemKey]:
        """The items whose candidates are kept, highest mean KL first."""
        kept = {key[:2] for key in self._looked}
        return [key for key in self.highest(len(self.keys)) if key in kept]

    def highest(self, count: int) -> list[ItemKey]:
        """The items of highest mean KL a token, over all their texts, highest first."""
        return highest([self._tokens], count)

    def readings(self) -> Iterator[Reading]:
        """Every text, in the run's order."""
        for key in self.keys:
            found = self.reading(*key)
            assert found is not None
            yield found

    def reading(self, suite: str, item: str, of: Of = "reference") -> Reading | None:
        """One text; None where there is none, or it could not be scored."""
        key = (suite, item, of)
        if key not in self._rows:
            return None
        ids, pieces = self._pieces[key]
        tokens = [Token(text, id_, False) for text, id_ in zip(pieces, ids, strict=True)]
        rows = {name: values[self._rows[key]] for name, values in self._tokens.items()}
        numbers = [rows[n].tolist() for n in ("nll_base", "nll_tuned", "kl_base_tuned", "delta_p")]
        expected = self._expected(key, len(rows["position"]))
        for position, *values, (base, tuned) in zip(
            rows["position"].tolist(), *numbers, expected, strict=True
        ):
            at: int = position + 1
            tokens[at] = Token(pieces[at], ids[at], True, *values, base=base, tuned=tuned)
        sums = [math.fsum(column) for column in numbers[:3]]
        return Reading(suite, item, of, tuple(tokens), len(expected), *sums)

    def _expected(self, key: TextKey, count: int) -> list[tuple[Any, Any]]:
        """Base's and tuned's candidates at each scored position of a text."""
        if key not in self._looked:
            return [(None, None)] * count
        own = {name: values[self._looked[key]] for name, values in self._candidates.items()}
        ranks = int(own["rank"].max()) + 1
        sides = []
        for side in ("base", "tuned"):
            columns = (own[f"{side}_{name}"].tolist() for name in ("token", "text", "p"))
            found = [Candidate(*values) for values in zip(*columns, strict=True)]
            sides.append([tuple(found[k : k + ranks]) for k in range(0, len(found), ranks)])
        return list(zip(*sides, strict=True))

    def worst_spans(self, count: int = 10, by: By = "kl", of: Of | None = None) -> list[Span]:
        """The spans of the run in which the models differ most, worst first, none overlapping.

        A span is a maximum-scoring segment of a text's scored tokens; the next ones of that text
        are those left and right of it (the maximal segments of Ruzzo & Tompa 1999). A token's score
        by "kl" is its KL less the mean KL of all tokens of the run, since KL is never below 0; by
        "loss" it is ln p − ln q of the token, as it is. A reply that says the same as another text
        of its item is left out, and so is a span whose mean is not above the noise floor.

        Args:
            count: at most so many.
            by: what is summed.
            of: of these texts alone, such as "reference".

        """
        kl = self._tokens["kl_base_tuned"].astype(np.float64)
        loss = self._tokens["nll_tuned"].astype(np.float64) - self._tokens["nll_base"]
        scores = loss if by == "loss" else kl - (kl.mean() if len(kl) else 0.0)
        alike = {(*key[:2], *self._pieces[key][0]): key for key in reversed(self.keys)}
        firsts = set(alike.values())
        keys = [key for key in self.keys if key in firsts and of in (None, key[2])]
        floor = self.noise_floor.get("delta_nll" if by == "loss" else "kl_base_tuned", 0.0)
        found = []
        for text, start, stop in segments([scores[self._rows[key]] for key in keys], count):
            first = self._rows[keys[text]].start
            rows = slice(first + start, first + stop)
            span = self._span(keys[text], rows, float(kl[rows].sum()), float(loss[rows].sum()))
            if (span.loss if by == "loss" else span.kl) > floor * (stop - start):
                found.append(span)
        return found

    def _span(self, key: TextKey, rows: slice, kl: float, loss: float) -> Span:
        positions = self._tokens["position"][rows].tolist()
        start, stop = positions[0] + 1, positions[-1] + 2
        pieces = self._pieces[key][1]
        before = "".join(pieces[:start])[-_AROUND:]
        text, after = "".join(pieces[start:stop]), "".join(pieces[stop:])[:_AROUND]
        return Span(*key, start, stop, kl, loss, before, text, after)

    def parting(self, suite: str, item: str) -> Parting | None:
        """Where the first replies of both models part; None where the item was not answered.

        Only greedy replies part where the models do: sampled ones differ by chance too.
        """
        line = self._replies.get((suite, item))
        if line is None:
            return None
        base, tuned = line["base"], line["tuned"]
        token = None
        if base["ids"] is not None and tuned["ids"] is not None:
            both = [[*side["ids"], side["stop"]] for side in (base, tuned)]
            token = next((k for k, (b, t) in enumerate(zip(*both)) if b != t), None)  # noqa: B905
        same = common_start(base["text"], tuned["text"])
        return Parting(
            suite,
            item,
            token is not None or base["text"] != tuned["text"],
            token,
            base["text"][:same],
            base["text"][same:],
            tuned["text"][same:],
        )


def common_start(one: str, other: str) -> int:
    """How many characters two texts have in common at their start."""
    both = enumerate(zip(one, other, strict=False))
    return next((k for k, (a, b) in both if a != b), min(len(one), len(other)))


def segments(texts: Sequence[np.ndarray], count: int) -> list[tuple[int, int, int]]:
    """The ``count`` segments of largest sum: (text, start, stop), largest first.

    Of each text the maximum-scoring segment, then those of what is left of it on either side; none
    whose sum is not above 0. Of equal sums the earlier one comes first.
    """
    heap: list[tuple[float, int, int, int, int, int]] = []

    def look(text: int, low: int, high: int) -> None:
        best = _best(texts[text][low:high])
        if best is not None:
            total, start, stop = best
            heapq.heappush(heap, (-total, text, low + start, low + stop, low, high))

    for text, scores in enumerate(texts):
        look(text, 0, len(scores))
    found = []
    while heap and len(found) < count:
        _, text, start, stop, low, high = heapq.heappop(heap)
        found.append((text, start, stop))
        look(text, low, start)
        look(text, stop, high)
    return found


def _best(scores: np.ndarray) -> tuple[float, int, int] | None:
    """The consecutive scores of largest sum above 0, the fewest of them: (sum, start, stop)."""
    if not len(scores):
        return None
    sums = np.concatenate([[0.0], np.cumsum(scores)])
    gains = sums[1:] - np.minimum.accumulate(sums)[:-1]
    stop = int(gains.argmax()) + 1
    start = stop - 1 - int(sums[:stop][::-1].argmin())
    return (float(gains[stop - 1]), start, stop) if gains[stop - 1] > 0 else None
