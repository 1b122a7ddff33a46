"""Who is asked, when the replies are there already?

Two files of replies, one JSON object a line: ``id``, ``prompt``, ``reply`` and perhaps ``sample``.
They may come from anywhere: a server's log, another harness, last week. Nothing but their text is
known, so nothing else is offered. What a reply holds is data, however empty, long or odd.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tunediff.errors import InputError, PairError
from tunediff.items.bounds import FILE_LIMIT, decode, shown
from tunediff.items.formats import strict_json
from tunediff.scoring.sampling import BOTH, Asked
from tunediff.values import (
    Candidates,
    Certificate,
    Check,
    Encoded,
    Generation,
    Item,
    Reply,
    Scores,
    Side,
)

_LISTED = 10  # ids named in an error


@dataclass(frozen=True, slots=True)
class Recording:
    """What one file holds, by id as text: prompts, and replies by sample number.

    ``places``: "file:line" of an id's first row.
    """

    path: Path
    content_hash: str
    places: Mapping[str, str]
    prompts: Mapping[str, str]
    replies: Mapping[str, Mapping[int, str]]


def read_recording(path: Path) -> Recording:
    """The replies of one file.

    Raises:
        InputError: a file that cannot be read or holds no reply; a line without id, prompt or
            reply; two prompts under one id; a sample that occurs twice.

    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{shown(str(path))} cannot be read: {what}.", "Check the path.") from None
    if len(data) > FILE_LIMIT:
        raise InputError(f"{path.name} has more than {FILE_LIMIT} bytes.", "Give a sample of it.")
    places: dict[str, str] = {}
    prompts: dict[str, str] = {}
    replies: dict[str, dict[int, str]] = {}
    for number, line in enumerate(decode(data, path.name).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        row = strict_json(line, where)
        if not isinstance(row, dict):
            raise InputError(f"{where} holds {shown(row)}, not a JSON object.", _NEEDED)
        name, sample = _name(row, where), _sample(row, where)
        prompt, reply = (_text(row, column, where) for column in ("prompt", "reply"))
        first = places.setdefault(name, where)
        if prompts.setdefault(name, prompt) != prompt:
            raise InputError(
                f"{where} has another prompt under the id {shown(name)} than {first}.",
                "Give each prompt an id of its own.",
            )
        said = replies.setdefault(name, {})
        if sample in said:
            raise InputError(
                f"{where} is a second reply with the id {shown(name)} and sample {sample}; the "
                f"id's first row is {first}.",
                "Number the samples of one id 0, 1, 2 … in the column sample.",
            )
        said[sample] = reply
    if not replies:
        raise InputError(f"{path.name} holds no reply.", _NEEDED)
    return Recording(path, hashlib.sha256(data).hexdigest(), places, prompts, replies)


_NEEDED = "Write one object a line, with id, prompt and reply, and perhaps sample."


def _name(row: Mapping[str, Any], where: str) -> str:
    value = row.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(f"{where}: id is {shown(value)}, not a string or an integer.", _NEEDED)
    return _valid(str(value), "id", where)


def _sample(row: Mapping[str, Any], where: str) -> int:
    value = row.get("sample")
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(
            f"{where}: sample is {shown(value)}, not an integer from 0 on.", "Number the samples."
        )
    return value


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise InputError(
            f"{where}: {column} is {type(value).__name__} {shown(value)}, not text.", _NEEDED
        )
    return _valid(value, column, where)


def _valid(value: str, column: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: {column} holds U+{ord(value[error.start]):04X} at character {error.start}, "
            "half of a surrogate pair, which no UTF-8 text can hold.",
            "Remove it, or write the whole character.",
        ) from None
    return value


def open_recorded(base: Path, tuned: Path, *, intersect: bool = False) -> RecordedPair:
    """Two files of replies as a pair.

    Args:
        base: the file of base's replies.
        tuned: the file of tuned's.
        intersect: keep the ids and samples that both have, instead of refusing what one lacks.

    Raises:
        InputError: see :func:`read_recording`; ids or samples that one side lacks; other prompts
            under one id.

    """
    sides = read_recording(base), read_recording(tuned)
    b, t = sides
    common = [name for name in b.replies if name in t.replies]
    if not intersect:
        _refuse_missing("ids", b, t, b.replies, t.replies)
        _refuse_missing("replies (id, sample)", b, t, _samples(b), _samples(t))
    different = [name for name in common if b.prompts[name] != t.prompts[name]]
    if different:
        raise InputError(
            f"{len(different)} ids have another prompt in {b.path.name} than in {t.path.name}: "
            f"{_few(different)}; the first of them at {b.places[different[0]]} and "
            f"{t.places[different[0]]}.",
            "Only replies to the same prompts can be compared: give the same prompts the same ids.",
        )
    replies = {
        name: [(b.replies[name][k], t.replies[name][k]) for k in sorted(b.replies[name])
               if k in t.replies[name]]
        for name in common
    }  # fmt: skip
    replies = {name: both for name, both in replies.items() if both}
    if not replies:
        raise InputError(
            f"{b.path.name} and {t.path.name} have no reply with the same id and sample.",
            "Ids are compared as text: 1 and '1' are the same, '1' and '01' are not.",
        )
    return RecordedPair(b, t, replies)


def _samples(side: Recording) -> dict[tuple[str, int], None]:
    return dict.fromkeys((name, k) for name, said in side.replies.items() for k in said)


def _refuse_missing(
    what: str, b: Recording, t: Recording, ours: Mapping[Any, Any], theirs: Mapping[Any, Any]
) -> None:
    lacking = [
        f"{len(missing)} are missing in {other}: {_few(missing)}"
        for other, missing in (
            (t.path.name, [x for x in ours if x not in theirs]),
            (b.path.name, [x for x in theirs if x not in ours]),
        )
        if missing
    ]
    if lacking:
        raise InputError(
            f"The two files do not hold the same {what}; {'; '.join(lacking)}.",
            "Add them, or pass --intersect to compare what both files have.",
        )


def _few(values: Sequence[object]) -> str:
    return ", ".join(map(shown, values[:_LISTED])) + (", …" if len(values) > _LISTED else "")


class RecordedPair:
    """Replies that are there already, of both sides; see ``contract.Pair``.

    Args:
        b: base's file.
        t: tuned's file.
        replies: by id, (base's, tuned's) of each sample that both have.

    """

    offers = frozenset({"replies"})

    def __init__(
        self, b: Recording, t: Recording, replies: Mapping[str, Sequence[tuple[str, str]]]
    ) -> None:
        self.base, self.tuned = (
            Side(str(side.path), "recorded", side.content_hash) for side in (b, t)
        )
        self._prompts, self._places, self._replies = b.prompts, b.places, replies
        left_out = [
            f"{sum(map(len, side.replies.values())) - sum(map(len, replies.values()))} "
            f"of {side.path.name}"
            for side in (b, t)
        ]
        self.certificate = Certificate(
            "recorded",
            (
                Check(
                    "same_prompts", True, f"{len(replies)} ids have the same prompt on both sides"
                ),
                Check("left_out", None, f"replies that one side alone has: {', '.join(left_out)}"),
            ),
            weights_equal=False,
        )
        self.settings: Mapping[str, Any] = {
            "backend": "recorded",
            "device": None,
            "dtype": None,
            "kernel": None,
            "fast_kernel": False,
            "threads": None,
        }

    def items(self) -> list[Item]:
        """What was asked, in the order of base's file."""
        return [
            Item(name, prompt=self._prompts[name], source=self._places[name])
            for name in self._replies
        ]

    def samples(self, item_id: str) -> int:
        """How many replies to an item both sides have."""
        return len(self._replies.get(item_id, ()))

    def prompts(self, items: Sequence[Item], max_length: int | None) -> list[Encoded]:
        """The items by their ids; the tokens of their prompts are not known."""
        missing = [item.id for item in items if item.id not in self._replies]
        if missing:
            raise InputError(
                f"{len(missing)} items have no recorded reply: {_few(missing)}.",
                "Ask the items whose ids are in both files.",
            )
        none = np.empty(0, np.int64)
        return [Encoded(item.id, none, none, -1, 0) for item in items]

    def generate(
        self,
        prompts: Sequence[Encoded],
        generation: Generation,
        sample: int = 0,
        sides: Sequence[Asked] = BOTH,
    ) -> Iterator[tuple[Reply | None, Reply | None]]:
        """The recorded replies; ``sample`` counts an item's in the order of their numbers."""
        for prompt in prompts:
            said = self._replies[prompt.item_id]
            if sample >= len(said):
                raise InputError(
                    f"Item {shown(prompt.item_id)} has {len(said)} recorded replies of both sides; "
                    f"reply {sample + 1} was asked for.",
                    "Ask for fewer samples.",
                )
            b, t = (
                Reply(text) if side in sides else None
                for side, text in zip(BOTH, said[sample], strict=True)
            )
            yield b, t

    def encode(
        self, items: Sequence[Item], max_length: int | None, allow_truncation: bool
    ) -> list[Encoded]:
        """Refused: there is no tokenizer."""
        _refuse()

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        """Refused: there is no model."""
        _refuse()

    def candidates(self, items: Sequence[Encoded], count: int) -> Iterator[Candidates]:
        """Refused: there is no model."""
        _refuse()

    def continuation(self, prompt: Encoded, reply_ids: Sequence[int]) -> Encoded:
        """Refused: there is no tokenizer."""
        _refuse()

    def noise_floor(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        """Nothing was computed, so nothing was rounded."""
        return {}

    def continue_with(self, settings: Mapping[str, Any]) -> None:
        """Nothing was found that could differ."""

    def speed(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        """How fast they were made is not recorded."""
        return {}

    def token_text(self, token_id: int) -> str:
        """Refused: there is no tokenizer."""
        _refuse()

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Refused: there is no tokenizer."""
        _refuse()


def _refuse() -> NoReturn:
    raise PairError(
        "Recorded replies are known by their text alone; there is no model that could score.",
        "Use measures that need replies only, or give two models.",
    )
