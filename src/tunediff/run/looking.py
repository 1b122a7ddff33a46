"""Which items are looked at token by token, and what did both models expect there?

The items whose tokens differ most can be known only when all are scored, so that they are read a
second time, with candidates kept. Which they are follows from the tokens on disk alone: a run that
was killed and continued looks at the same ones, in the same parts.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tunediff.errors import PairError, UsageError
from tunediff.items.bounds import shown
from tunediff.pair.contract import Pair
from tunediff.run import asking
from tunediff.run.asking import Asked
from tunediff.run.parts import Part
from tunediff.run.store import Recorder
from tunediff.run.tables import CANDIDATE_COLUMNS, TEXT_KEY
from tunediff.values import OF, Candidates, Of

ITEMS = 50  # of a run, those of highest mean KL
CANDIDATES = 5  # kept of either side at each position

ItemKey = tuple[str, str]
"""Suite and item."""

TextKey = tuple[str, str, Of]
"""Suite, item and whose text."""

_LISTED = 8  # names in an error


def texts_in(tokens: Mapping[str, np.ndarray]) -> Iterator[tuple[TextKey, slice]]:
    """The texts of a table of tokens or candidates, whose lines stand together, in its order."""
    length = len(tokens["item"])
    if not length:
        return
    new = np.zeros(length, bool)
    for name in TEXT_KEY:
        new[1:] |= tokens[name][1:] != tokens[name][:-1]
    starts = [0, *np.flatnonzero(new).tolist()]
    for start, stop in zip(starts, [*starts[1:], length], strict=True):
        suite, item, of = (tokens[name][start] for name in TEXT_KEY)
        yield (suite, item, of), slice(start, stop)


def highest(tables: Iterable[Mapping[str, np.ndarray]], count: int) -> list[ItemKey]:
    """The items of highest mean KL(base‖tuned) a token, highest first.

    Over all of an item's tokens: of its reference and of both first replies, Σ KL / their number.

    Args:
        tables: tokens, as ``Run.tokens(replies=True)`` has them, whole or in parts.
        count: at most so many.

    """
    sums: dict[ItemKey, tuple[float, int]] = {}
    for tokens in tables:
        for (suite, item, _), own in texts_in(tokens):
            kl = tokens["kl_base_tuned"][own]
            total, number = sums.get((suite, item), (0.0, 0))
            sums[suite, item] = total + float(kl.sum(dtype=np.float64)), number + len(kl)
    means = {key: total / number for key, (total, number) in sums.items()}
    return sorted(means, key=lambda key: (-means[key], key))[:count]


def find_item(name: str, known: Collection[ItemKey]) -> ItemKey:
    """The item that a person names, by its id or as SUITE:ID.

    Raises:
        UsageError: there is none, or several suites have one.

    """
    found = [key for key in known if name in (key[1], ":".join(key))]
    if len(found) == 1:
        return found[0]
    if found:
        names = [":".join(key) for key in found]
        raise UsageError(
            f"{len(names)} suites have an item {shown(name)}: {_few(names)}.",
            f"Name one of them, such as {names[0]}.",
        )
    forms = {form: ":".join(key) for key in known for form in (":".join(key), key[1])}
    near = {forms[form]: None for form in difflib.get_close_matches(name, forms, 3)}
    raise UsageError(
        f"There is no item {shown(name)}."
        + (f" Did you mean {' or '.join(map(shown, near))}?" if near else ""),
        f"The items are {_few([':'.join(key) for key in known])}.",
    )


def _few(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(map(shown, names[:_LISTED])) + (f" and {more} more" if more > 0 else "")


def about(parts: Sequence[Part]) -> int:
    """How many tokens are read again, about: the share of the items, replies not counted."""
    read = [part for part in parts if part.way != "choices"]
    items = {(part.suite, item.id) for part in read for item, _ in part.groups}
    tokens = sum(asking.tokens_in(part.asked) for part in read)
    return int(tokens * min(1.0, ITEMS / max(1, len(items))))


def plan(
    pair: Pair, recorder: Recorder, parts: Sequence[Part], named: Sequence[ItemKey], most: int
) -> list[list[tuple[TextKey, Asked]]]:
    """The texts that are read again, in parts of about ``most`` tokens; all rows are there.

    Args:
        pair: the two models.
        recorder: of the run.
        parts: of the run.
        named: items that are looked at, whatever their KL.
        most: tokens of a part.

    """
    tables = [recorder.tokens_of(k) for k in range(len(parts))]
    items = {*highest(tables, ITEMS), *named}
    found: list[tuple[TextKey, Asked]] = []
    for k, (part, tokens) in enumerate(zip(parts, tables, strict=True)):
        keys = [key for key, _ in texts_in(tokens) if key[:2] in items]
        if keys:
            found += zip(keys, _as_scored(pair, recorder, k, part, keys), strict=True)
    found.sort(key=lambda text: (len(text[1].encoded.ids), text[0][:2], OF.index(text[0][2])))
    cuts = asking.cut([asked for _, asked in found], most)
    texts = iter(found)
    return [[next(texts) for _ in cut] for cut in cuts]


def _as_scored(
    pair: Pair, recorder: Recorder, k: int, part: Part, keys: Sequence[TextKey]
) -> Iterator[Asked]:
    """Texts of a part as they were scored: references as asked, replies behind their prompts."""
    asked = {a.item.id: a for a in part.asked}
    said: dict[str, Any] = {}
    if part.way == "replies":
        said = {line["item"]: line for line in recorder.replies_of(k) if line["sample"] == 0}
    for _, item, of in keys:
        a = asked[item]
        encoded = pair.continuation(a.encoded, said[item][of]["ids"]) if said else a.encoded
        yield Asked(a.item, encoded)


def columns(pair: Pair, texts: Sequence[tuple[TextKey, Asked]]) -> dict[str, Any]:
    """The columns of ``candidates/`` of these texts, as the pair answers.

    Raises:
        PairError: the pair answered something else than it was asked.

    """
    found: dict[str, list[Any]] = {name: [] for name in CANDIDATE_COLUMNS}
    answers = pair.candidates([asked.encoded for _, asked in texts], CANDIDATES)
    for (key, asked), answer in zip(texts, answers, strict=True):
        _require(answer, asked)
        positions, ranks = answer.base_ids.shape
        lines = positions * ranks
        for name, value in zip(TEXT_KEY, key, strict=True):
            found[name] += [value] * lines
        found["position"] += np.repeat(answer.positions, ranks).tolist()
        found["rank"] += list(range(ranks)) * positions
        for side in ("base", "tuned"):
            tokens = getattr(answer, f"{side}_ids").ravel().tolist()
            found[f"{side}_token"] += tokens
            found[f"{side}_p"] += getattr(answer, f"{side}_p").ravel().tolist()
            found[f"{side}_text"] += map(pair.token_text, tokens)
    return found


def _require(answer: Candidates, asked: Asked) -> None:
    shape = (len(asked.encoded.scored), answer.base_ids.shape[1])
    arrays = (answer.base_ids, answer.base_p, answer.tuned_ids, answer.tuned_p)
    if (
        answer.item_id != asked.item.id
        or not np.array_equal(answer.positions, asked.encoded.scored)
        or any(array.shape != shape for array in arrays)
    ):
        raise PairError(
            f"The pair was asked for the candidates of item {asked.item.id!r} and yielded others.",
            asking.REPORT_IT,
        )
