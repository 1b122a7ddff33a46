"""Is what a rater sees drawn fairly, and what a rater says kept once and for good?"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from command import environment
from rating import answer_of, begun, database, replied, triples
from tunediff.errors import RunError, UsageError
from tunediff.rating.app import seen
from tunediff.rating.showing import Exchange, Key, choose, plan, prompt_of, repeats
from tunediff.rating.store import FILE, Answer, Refused, Showing, Standing, Store
from tunediff.rating.study import OpenStudy, open_study
from tunediff.run.store import Run

KEYS = [Key("suite", f"item-{k}") for k in range(20)]
A3 = Answer(3, 4, "b", "a note")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return replied(tmp_path_factory.mktemp("rating"), triples(30))


@pytest.fixture
def run(said: Run) -> Iterator[Run]:
    yield said
    for path in said.folder.glob("ratings.*"):
        path.unlink()


@pytest.fixture
def study(run: Run) -> Iterator[OpenStudy]:
    with begun(run) as study:
        yield study


# which items, in which order, on which side


def test_items_are_drawn_at_random_and_again_by_the_seed() -> None:
    keys = [Key("s", str(k)) for k in range(40)]
    first = choose(keys, 10, 0)
    assert first == choose(keys[::-1], 10, 0)
    assert first != choose(keys, 10, 1)
    assert choose(keys, 99, 0) == choose(keys, 40, 0)
    drawn = Counter(key for seed in range(400) for key in choose(keys, 10, seed))
    assert len(drawn) == 40
    assert all(60 < times < 140 for times in drawn.values())  # 100 expected, sd 8.7


def test_a_tenth_comes_twice_and_far_apart() -> None:
    assert [repeats(n) for n in (1, 5, 6, 10, 15, 16, 20, 50)] == [0, 0, 1, 1, 1, 2, 2, 5]
    for number in range(200):
        shown = plan(KEYS, number.to_bytes(32))
        assert len(shown) == 22
        assert sorted(p.key for p in shown if not p.again) == sorted(KEYS)
        places = {p.key: k for k, p in enumerate(shown) if not p.again}
        for k, p in enumerate(shown):
            if p.again:
                assert k - places[p.key] >= 10


def test_order_sides_and_repeats_are_fair() -> None:
    plans = [plan(KEYS, number.to_bytes(32)) for number in range(600)]
    base_first = Counter((p.key, p.again) for shown in plans for p in shown if p.a == "base")
    for key in KEYS:
        assert 240 < base_first[key, False] < 360  # 300 expected, sd 12
        places = [k for shown in plans for k, p in enumerate(shown) if p.key == key]
        assert 9 < sum(places) / len(places) < 13
    twice = Counter(p.key for shown in plans for p in shown if p.again)
    assert all(30 < twice[key] < 95 for key in KEYS)  # 60 expected, sd 7.5
    for shown in plans:
        assert sum(p.a == "base" for p in shown) == 11
    # a second showing's side says nothing of the first one's
    changed = 0
    for shown in plans:
        first = {p.key: p.a for p in shown if not p.again}
        changed += sum(p.a != first[p.key] for p in shown if p.again)
    assert 520 < changed < 760  # of 1,200; half and a little more, since sides are balanced


def test_plans_of_an_odd_number_have_one_more_on_either_side() -> None:
    more = Counter(
        sum(p.a == "base" for p in plan(KEYS[:5], number.to_bytes(32))) for number in range(300)
    )
    assert set(more) == {2, 3}
    assert min(more.values()) > 100


def test_a_plan_is_a_function_of_its_secret() -> None:
    assert plan(KEYS, b"a" * 32) == plan(KEYS[::-1], b"a" * 32)
    assert plan(KEYS, b"a" * 32) != plan(KEYS, b"b" * 32)


def test_the_page_cannot_tell_the_models_apart() -> None:
    """With base and tuned exchanged, and their sides too, it is told the same bytes."""
    key = Key("suite", "item")
    for x, y in (("one", "two"), ("", "long " * 99)):
        told = [
            json.dumps(
                seen(
                    Standing("Ann", 1, 2, Showing("ticket", key, a), "last"),
                    {key: Exchange("ask", base, tuned)},
                )
            )
            for a, base, tuned in (("base", x, y), ("tuned", y, x))
        ]
        assert told[0] == told[1]


def test_of_a_talk_it_is_said_who_speaks() -> None:
    talk = [{"role": r, "content": c} for r, c in (("system", "be brief"), ("user", "ask"))]
    reply = {"role": "assistant", "content": "reply"}
    assert prompt_of({"messages": [*talk, reply]}) == "system: be brief\n\nuser: ask"
    assert prompt_of({"messages": [talk[1], reply]}) == "ask"
    assert prompt_of({"messages": None, "prompt": "p", "text": None}) == "p"


# what is kept


def all_rated(study: OpenStudy, name: str) -> None:
    standing = study.store.join(name)
    while standing.showing:
        answer = answer_of(standing, 2, 4, "tuned")
        standing = study.store.rate(name, standing.showing.ticket, answer)


def test_ratings_come_back_with_their_sides_resolved(study: OpenStudy) -> None:
    all_rated(study, "Ann")
    ratings = study.store.ratings()
    assert len(ratings) == 22
    assert {(r.base, r.tuned, r.preference) for r in ratings} == {(2, 4, "tuned")}
    assert Counter(r.a for r in ratings) == {"base": 11, "tuned": 11}
    assert [r.place for r in ratings] == list(range(1, 23))
    assert sum(r.again for r in ratings) == 2


def test_all_raters_rate_the_same_items_in_orders_of_their_own(study: OpenStudy) -> None:
    for name in ("Ann", "Ben"):
        all_rated(study, name)
    orders: dict[str, list[Key]] = {}
    for r in study.store.ratings():
        if not r.again:
            orders.setdefault(r.rater, []).append(Key(r.suite, r.item))
    assert sorted(orders["Ann"]) == sorted(orders["Ben"]) == sorted(study.said)
    assert orders["Ann"] != orders["Ben"]


def test_a_rater_goes_on_after_the_file_was_closed(run: Run) -> None:
    with begun(run) as study:
        standing = study.store.join("Ann")
        for _ in range(3):
            assert standing.showing is not None
            standing = study.store.rate("Ann", standing.showing.ticket, A3)
    with begun(run) as study:
        assert study.store.join("ann") == standing
        assert standing.done == 3


def test_only_the_showing_of_now_can_be_rated(study: OpenStudy) -> None:
    ann, ben = study.store.join("Ann"), study.store.join("Ben")
    assert ann.showing is not None
    assert ben.showing is not None
    tickets = {row[1]: row[2] for row in database(study.run) if row[0] == "showing"}
    assert len(tickets) == 44
    later = [ticket for ticket in tickets.values() if ticket != ann.showing.ticket]
    for ticket in later[:5]:
        with pytest.raises(Refused):
            study.store.rate("Ann", ticket, A3)
    with pytest.raises(Refused) as error:
        study.store.rate("Ann", ben.showing.ticket, A3)
    assert error.value.status == 404  # not even that there is one
    assert study.store.ratings() == []


def test_undo_goes_back_one_by_one(study: OpenStudy) -> None:
    standing = study.store.join("Ann")
    for _ in range(2):
        assert standing.showing is not None
        standing = study.store.rate("Ann", standing.showing.ticket, A3)
    with pytest.raises(Refused, match="Only the last rating"):
        study.store.undo("Ann", study.store.ratings() and _first_ticket(study))
    for left in (1, 0):
        assert standing.last is not None
        standing = study.store.undo("Ann", standing.last)
        assert standing.done == left == len(study.store.ratings())
    assert standing.last is None


def _first_ticket(study: OpenStudy) -> str:
    return next(row[2] for row in database(study.run) if row[0] == "showing" and row[4] == 1)


def test_the_database_itself_refuses_what_is_no_rating(study: OpenStudy) -> None:
    """Beneath the checks of a request lie those of the tables."""
    study.store.join("Ann")
    with closing(sqlite3.connect(study.run.folder / FILE)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        for values in (
            "(1, 0, 3, 'a', '', '')",
            "(1, 6, 3, 'a', '', '')",
            "(1, 3.5, 3, 'a', '', '')",
            "(1, 3, 3, 'base', '', '')",
            "(1, 3, 3, 'a', NULL, '')",
            "(999, 3, 3, 'a', '', '')",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(f"INSERT INTO rating VALUES {values}")


KILLED = """
import os, sys
from tunediff.rating.study import open_study
from tunediff.rating.store import Answer
from tunediff.run.store import Run
study = open_study(Run.open(sys.argv[1]))
standing = study.store.join("Ann")
while standing.showing:
    standing = study.store.rate("Ann", standing.showing.ticket, Answer(1, 2, "b", "n"))
    print(standing.done, flush=True)
    if standing.done == 22:
        while standing.done:
            standing = study.store.undo("Ann", standing.last)
            print(standing.done, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 40, 90])
def test_what_was_acknowledged_survives_a_kill(run: Run, after: int) -> None:
    """A process that rates and takes back without end is killed; what it had said holds."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(run.folder)],
        env=environment({}), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        heard = 0
        for _ in range(after):
            heard = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
    last = int(rest[-1]) if rest else heard
    with begun(run) as study:
        done = study.store.join("Ann").done
        assert abs(done - last) <= 1  # one more may have been kept and not yet said
        assert [r.place for r in study.store.ratings()] == list(range(1, done + 1))
        all_rated(study, "Ann")


def test_two_processes_at_once(run: Run) -> None:
    code = (
        "import sys\nfrom tunediff.rating.study import open_study\n"
        "from tunediff.rating.store import Answer\nfrom tunediff.run.store import Run\n"
        "store = open_study(Run.open(sys.argv[1])).store\ns = store.join(sys.argv[2])\n"
        "while s.showing:\n    s = store.rate(s.rater, s.showing.ticket, Answer(1, 2, 'b'))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(run.folder), name], env=environment({}))
        for name in ("Ann", "Ben")
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    with begun(run) as study:
        assert [(s.rater, s.done) for s in sorted(study.store.raters(), key=lambda s: s.rater)] == [
            ("Ann", 22), ("Ben", 22),
        ]  # fmt: skip


# what is refused


def test_a_study_is_of_what_it_was_begun_with(run: Run) -> None:
    with begun(run, items=8, seed=3) as study:
        begun_with = study.said
    with begun(run) as study:
        assert study.said == begun_with
    with begun(run, items=8, seed=3, suites=()) as study:
        assert study.said == begun_with
    for given, words in (
        ({"items": 9}, "--items 9 came, and the study in"),
        ({"seed": 0}, "--seed 0 came"),
        ({"suites": ("recorded",)}, "--suite recorded came"),
    ):
        with pytest.raises(UsageError, match=words) as error:
            open_study(run, **given)
        assert "Leave it out to go on" in error.value.hint


def test_ratings_of_other_replies_are_refused(run: Run, tmp_path: Path) -> None:
    with begun(run):
        pass
    other = replied(tmp_path, [*triples(29), ("ask 29", "one", "quite another")])
    (other.folder / FILE).write_bytes((run.folder / FILE).read_bytes())
    with pytest.raises(RunError, match="ratings of other replies than the run has now"):
        open_study(other)


def test_a_suite_that_is_not_there_is_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="no replies to a suite 'x'") as error:
        open_study(run, suites=("x",))
    assert "Its suites are recorded" in error.value.hint
    assert not (run.folder / FILE).exists()


def test_a_damaged_or_newer_file_is_refused(run: Run) -> None:
    path = run.folder / FILE
    path.write_bytes(b"no database at all, but long enough to look like one" * 99)
    with pytest.raises(RunError, match=r"ratings.sqlite cannot be used: file is not a database"):
        open_study(run)
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(RunError, match="schema version 2; this tunediff reads up to 1"):
        open_study(run)


def test_a_file_that_a_kill_left_empty_begins_anew(run: Run) -> None:
    (run.folder / FILE).touch()
    with pytest.raises(RunError, match="Nobody has rated"):
        open_study(run, begin=False)
    with begun(run) as study:
        assert study.store.join("Ann").of == 22


def test_nothing_is_begun_by_looking(run: Run) -> None:
    with pytest.raises(RunError, match="Nobody has rated") as error:
        Store.open(run.folder)
    assert error.value.hint == f"Open the rating page first: tunediff rate {run.folder}"
    assert not (run.folder / FILE).exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, study: OpenStudy) -> None:
    with pytest.raises(RunError, match="unable to open database file"):
        Store.open(tmp_path / "nowhere", study.store.study)
