"""Which items does a rater see, in which order, and which reply stands on which side?

Everything here is a pure function of what is asked and of a secret. The secret is drawn when a
rater begins and the plan is kept in the study's database; neither ever reaches the page.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tunediff.errors import UsageError
from tunediff.run.record import strict_json
from tunediff.run.store import Run

Side = Literal["base", "tuned"]


class Key(NamedTuple):
    """An item of a run."""

    suite: str
    item: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a rater reads of one item: the prompt, and both replies."""

    prompt: str
    base: str
    tuned: str


@dataclass(frozen=True, slots=True)
class Planned:
    """One showing: an item, whether it was shown before, and whose reply is reply A."""

    key: Key
    again: bool
    a: Side


def exchanges(run: Run, suites: Sequence[str] = ()) -> dict[Key, Exchange]:
    """Every item of a run that has replies, by key; of several samples the first.

    Args:
        run: of ``tunediff compare``.
        suites: only of these; empty: of all.

    Raises:
        UsageError: a suite that the run does not have, or no replies at all.

    """
    prompts = {Key(i["suite"], i["id"]): prompt_of(i) for i in run.items()}
    found: dict[Key, Exchange] = {}
    for line in run.replies():
        key = Key(line["suite"], line["item"])
        found.setdefault(key, Exchange(prompts[key], line["base"]["text"], line["tuned"]["text"]))
    if not found:
        raise UsageError(
            f"{run.folder} has no replies that people could rate.",
            "Give a run that tunediff compare kept with --out, with --max-new-tokens above 0.",
        )
    known = sorted({key.suite for key in found})
    for suite in suites:
        if suite not in known:
            raise UsageError(
                f"The run has no replies to a suite {suite!r}.",
                f"Its suites are {', '.join(known)}.",
            )
    return {key: said for key, said in found.items() if not suites or key.suite in suites}


def fingerprint(run: Run) -> str:
    """Of what was asked and answered: sha256 over the run's identity, items and replies."""
    of = [run.record["identity"], run.record["found"]["items_hash"], run.replies()]
    return hashlib.sha256(strict_json(of).encode()).hexdigest()


def prompt_of(item: Mapping[str, Any]) -> str:
    """What was asked, as a person reads it; who speaks stands before each message of several."""
    if item["messages"]:
        said = item["messages"][:-1]
        if len(said) == 1:
            return said[0]["content"]
        return "\n\n".join(f"{m['role']}: {m['content']}" for m in said)
    return item["prompt"] if item["prompt"] is not None else item["text"] or ""


def choose(keys: Sequence[Key], count: int, seed: int) -> list[Key]:
    """A simple random sample of ``count`` items (all, where there are fewer).

    It is random so that the items rated stand for those that were not; the same seed gives the
    same items, whatever their order.
    """
    return sorted(keys, key=lambda key: _drawn(str(seed).encode(), "choose", key))[:count]


def repeats(items: int) -> int:
    """How many of the items are shown twice: a tenth, rounded; none of fewer than six."""
    return (items + 4) // 10


def plan(keys: Sequence[Key], secret: bytes) -> list[Planned]:
    """The showings of one rater, in order.

    The order is random. A tenth of the items come again half the list later. Base is reply A in
    half of the showings, drawn at random, so that a liking for one side favours no model.
    """
    once = sorted(keys, key=lambda key: _drawn(secret, "order", key))
    gap = len(once) // 2
    early = sorted(enumerate(once[: len(once) - gap]), key=lambda p: _drawn(secret, "twice", p[1]))
    again = [(place + gap + 0.5, key, True) for place, key in early[: repeats(len(once))]]
    shown = sorted([*((place, key, False) for place, key in enumerate(once)), *again])
    places = sorted(range(len(shown)), key=lambda place: _drawn(secret, "side", place))
    odd = _drawn(secret, "odd")[0] & 1  # of an odd number, which side has one more
    first = set(places[: (len(shown) + odd) // 2])
    return [
        Planned(key, second, "base" if place in first else "tuned")
        for place, (_, key, second) in enumerate(shown)
    ]


def _drawn(secret: bytes, *what: Any) -> bytes:
    return hmac.digest(secret, json.dumps(what).encode(), "sha256")
