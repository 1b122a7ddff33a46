"""How is a rating kept: once, by whom it came from, and through a kill?

``RUN/ratings.sqlite``, one transaction a request, each synced to disk before it is answered. A
showing is known to the page by a random ticket alone; which reply was whose stays in here.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from tunediff.errors import RunError
from tunediff.rating.showing import Key, Planned, Side, plan

FILE = "ratings.sqlite"
SCHEMA_VERSION = 1
_WAIT = 10.0  # seconds for another process that writes

_TABLES = """
CREATE TABLE study (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    settings TEXT NOT NULL);
CREATE TABLE rater (
    rater INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE);
CREATE TABLE showing (
    showing INTEGER PRIMARY KEY,
    ticket TEXT NOT NULL UNIQUE,
    rater INTEGER NOT NULL REFERENCES rater,
    place INTEGER NOT NULL,
    suite TEXT NOT NULL,
    item TEXT NOT NULL,
    again INTEGER NOT NULL CHECK (again IN (0, 1)),
    a TEXT NOT NULL CHECK (a IN ('base', 'tuned')),
    UNIQUE (rater, place),
    UNIQUE (rater, suite, item, again));
CREATE TABLE rating (
    showing INTEGER PRIMARY KEY REFERENCES showing,
    score_a INTEGER NOT NULL CHECK (typeof(score_a) = 'integer' AND score_a BETWEEN 1 AND 5),
    score_b INTEGER NOT NULL CHECK (typeof(score_b) = 'integer' AND score_b BETWEEN 1 AND 5),
    prefer TEXT NOT NULL CHECK (prefer IN ('a', 'b', 'tie')),
    note TEXT NOT NULL,
    at TEXT NOT NULL);
CREATE TABLE undone (
    ticket TEXT PRIMARY KEY,
    rater INTEGER NOT NULL REFERENCES rater);
"""


@dataclass(frozen=True, slots=True)
class Study:
    """What is rated: fixed when the first rater's page is opened.

    ``run``: the fingerprint of the run. ``suites``: empty for all. ``items``: those chosen.
    """

    run: str
    suites: tuple[str, ...]
    seed: int
    items: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a rater says of one showing: 1–5 for either reply, and which is better."""

    score_a: int
    score_b: int
    prefer: Literal["a", "b", "tie"]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Showing:
    """What is to be rated now; ``a`` is whose reply is reply A, and for the server alone."""

    ticket: str
    key: Key
    a: Side


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a rater is. ``last``: the ticket of the rating that could be taken back."""

    rater: str
    done: int
    of: int
    showing: Showing | None
    last: str | None


@dataclass(frozen=True, slots=True)
class Rated:
    """A rating with its sides resolved. ``place``: its number among the rater's, from 1."""

    rater: str
    suite: str
    item: str
    again: bool
    place: int
    a: Side
    base: int
    tuned: int
    preference: Literal["base", "tie", "tuned"]
    note: str
    at: str


class Refused(Exception):
    """A request that cannot be granted; the sentence is for the rater."""

    def __init__(self, status: Literal[404, 409], sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Store:
    """The ratings of one run. Used by one thread at a time; other processes may use the file."""

    def __init__(self, connection: sqlite3.Connection, study: Study) -> None:
        self._db = connection
        self.study = study

    @classmethod
    def open(cls, folder: Path, begin: Study | None = None) -> Store:
        """The store in a run folder; a new one, of the study ``begin``, where there is none.

        Raises:
            RunError: there is none and none is begun; or the file is damaged, from a newer
                tunediff, or cannot be written.

        """
        path = folder / FILE
        if begin is None and not path.is_file():
            raise unrated(folder)
        try:
            db = sqlite3.connect(path, _WAIT, isolation_level=None, check_same_thread=False)
            try:
                return cls(db, _opened(db, path, begin))
            except BaseException:
                db.close()
                raise
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} cannot be used: {error}.",
                "Check the folder's permissions and its disk; a damaged file has to be moved away.",
            ) from error

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def join(self, name: str) -> Standing:
        """Begin as a rater, or go on as one of that name (capitals do not matter)."""
        with _transaction(self._db):
            self._db.execute("INSERT OR IGNORE INTO rater (name) VALUES (?)", (name,))
            rater, name = self._rater(name)
            if not self._db.execute("SELECT 1 FROM showing WHERE rater = ?", (rater,)).fetchone():
                self._keep_plan(rater, plan(self.study.items, secrets.token_bytes(32)))
            return self._standing(rater, name)

    def rate(self, name: str, ticket: str, answer: Answer) -> Standing:
        """Keep a rating of the showing that is to be rated now.

        The same rating again is taken as the same one.

        Raises:
            Refused: no such rater or showing (404); rated otherwise before, taken back, or not the
                one to be rated now (409).

        """
        with _transaction(self._db):
            rater, name = self._rater(name)
            showing, kept = self._showing(rater, ticket)
            if kept is None:
                now = self._standing(rater, name).showing
                if now is None or now.ticket != ticket:
                    raise Refused(409, "This is not the item to rate now. Reload the page.")
                at = datetime.now(UTC).isoformat(timespec="seconds")
                self._db.execute(
                    "INSERT INTO rating VALUES (?, ?, ?, ?, ?, ?)",
                    (showing, answer.score_a, answer.score_b, answer.prefer, answer.note, at),
                )
            elif kept != answer:
                raise Refused(409, "This item was rated otherwise before. Undo that first.")
            return self._standing(rater, name)

    def undo(self, name: str, ticket: str) -> Standing:
        """Take back the rater's last rating; its showing comes again under another ticket.

        Raises:
            Refused: no such rater or showing (404), or not the last rating (409).

        """
        with _transaction(self._db):
            rater, name = self._rater(name)
            if not self._is_undone(rater, ticket):
                showing, _ = self._showing(rater, ticket)
                if self._standing(rater, name).last != ticket:
                    raise Refused(409, "Only the last rating can be taken back.")
                self._db.execute("DELETE FROM rating WHERE showing = ?", (showing,))
                self._db.execute("INSERT INTO undone VALUES (?, ?)", (ticket, rater))
                self._db.execute(
                    "UPDATE showing SET ticket = ? WHERE showing = ?", (_ticket(), showing)
                )
            return self._standing(rater, name)

    def raters(self) -> list[Standing]:
        """How far each rater is, in the order in which they joined."""
        with _transaction(self._db):
            listed = self._db.execute("SELECT rater, name FROM rater ORDER BY rater").fetchall()
            return [self._standing(rater, name) for rater, name in listed]

    def ratings(self) -> list[Rated]:
        """Every rating, by rater and place."""
        lines = self._db.execute(
            "SELECT name, suite, item, again, place, a, score_a, score_b, prefer, note, at "
            "FROM rating JOIN showing USING (showing) JOIN rater USING (rater) "
            "ORDER BY rater, place"
        )
        return [_resolved(*line) for line in lines]

    def _rater(self, name: str) -> tuple[int, str]:
        found = self._db.execute("SELECT rater, name FROM rater WHERE name = ?", (name,)).fetchone()
        if found is None:
            raise Refused(404, "There is no rater of that name. Reload the page.")
        return found

    def _showing(self, rater: int, ticket: str) -> tuple[int, Answer | None]:
        found = self._db.execute(
            "SELECT showing.showing, score_a, score_b, prefer, note "
            "FROM showing LEFT JOIN rating USING (showing) WHERE ticket = ? AND rater = ?",
            (ticket, rater),
        ).fetchone()
        if found is None:
            if self._is_undone(rater, ticket):
                raise Refused(409, "This rating was taken back. Reload the page.")
            raise Refused(404, "There is no such item to rate. Reload the page.")
        showing, *said = found
        return showing, None if said[0] is None else Answer(*said)

    def _is_undone(self, rater: int, ticket: str) -> bool:
        where = "SELECT 1 FROM undone WHERE ticket = ? AND rater = ?"
        return self._db.execute(where, (ticket, rater)).fetchone() is not None

    def _standing(self, rater: int, name: str) -> Standing:
        """Ratings are made and taken back in order, so the first ``done`` showings are rated."""
        shown = self._db.execute(
            "SELECT ticket, suite, item, a, rating.showing IS NOT NULL "
            "FROM showing LEFT JOIN rating USING (showing) WHERE rater = ? ORDER BY place",
            (rater,),
        ).fetchall()
        done = sum(rated for *_, rated in shown)
        showing = None
        if done < len(shown):
            ticket, suite, item, a, _ = shown[done]
            showing = Showing(ticket, Key(suite, item), a)
        return Standing(name, done, len(shown), showing, shown[done - 1][0] if done else None)

    def _keep_plan(self, rater: int, planned: Sequence[Planned]) -> None:
        self._db.executemany(
            "INSERT INTO showing (ticket, rater, place, suite, item, again, a) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (_ticket(), rater, place, *p.key, int(p.again), p.a)
                for place, p in enumerate(planned, 1)
            ],
        )


def _opened(db: sqlite3.Connection, path: Path, begin: Study | None) -> Study:
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA synchronous = FULL")
    with _transaction(db):
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise RunError(
                f"{path} has schema version {version}; this tunediff reads up to {SCHEMA_VERSION}.",
                "Install a newer tunediff.",
            )
        if version == 0:  # new, or left by one that was killed when it had made the file
            if begin is None:
                raise unrated(path.parent)
            for statement in _TABLES.split(";"):
                db.execute(statement)
            db.execute("INSERT INTO study VALUES (1, ?)", (json.dumps(asdict(begin)),))
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        (settings,) = db.execute("SELECT settings FROM study").fetchone()
    kept = json.loads(settings)
    items = tuple(Key(*key) for key in kept["items"])
    return Study(kept["run"], tuple(kept["suites"]), kept["seed"], items)


def unrated(folder: Path) -> RunError:
    """The error of a run that nobody has rated."""
    return RunError(
        f"Nobody has rated {folder} yet.", f"Open the rating page first: tunediff rate {folder}"
    )


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; others who write wait for it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _ticket() -> str:
    return secrets.token_urlsafe(16)


def _resolved(
    rater: str, suite: str, item: str, again: int, place: int, a: Side,
    score_a: int, score_b: int, prefer: str, note: str, at: str,
) -> Rated:  # fmt: skip
    base, tuned = (score_a, score_b) if a == "base" else (score_b, score_a)
    b: Side = "tuned" if a == "base" else "base"
    preference = a if prefer == "a" else b if prefer == "b" else "tie"
    return Rated(rater, suite, item, bool(again), place, a, base, tuned, preference, note, at)
