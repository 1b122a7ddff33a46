"""Does the rating server answer its own page, and nobody else?"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rating import TOKEN, Page, begun, database, replied, request, sent, served, triples
from tunediff.rating import strict
from tunediff.rating.guard import Guard

TRIPLES = triples(10)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    run = replied(tmp_path_factory.mktemp("rating"), TRIPLES)
    with begun(run) as study, served(study) as page:
        yield page


@pytest.fixture(scope="module")
def joined(page: Page) -> dict[str, Any]:
    status, standing = page.post("join", {"rater": "Ann"})
    assert status == 200
    return standing


def rating(standing: dict[str, Any], **changed: Any) -> dict[str, Any]:
    said = {"rater": standing["rater"], "showing": standing["showing"]["id"], "a": 3, "b": 4}
    return {**said, "prefer": "b", "note": "", **changed}


# the page


def test_the_page_is_three_files_that_say_nothing_of_sides(page: Page) -> None:
    for name, kind in (("", "html"), ("page.css", "css"), ("page.js", "javascript")):
        status, headers, body = request(page.port, "GET", f"/{TOKEN}/{name}")
        assert status == 200
        assert headers["content-type"] == f"text/{kind}; charset=utf-8"
        text = body.decode().lower()
        for word in ("tuned", "base", "model", "adapter", "finetun"):
            assert word not in text, name


def test_every_answer_has_the_headers_that_keep_it_here(page: Page) -> None:
    answers = [
        request(page.port, "GET", f"/{TOKEN}/"),
        request(page.port, "GET", f"/{TOKEN}/page.js"),
        request(page.port, "GET", "/"),
        request(page.port, "POST", f"/{TOKEN}/api/join", body={"rater": "Ann"}),
        request(page.port, "POST", f"/{TOKEN}/api/join", body=b"{"),
        request(page.port, "PUT", f"/{TOKEN}/"),
    ]
    assert [status for status, *_ in answers] == [200, 200, 404, 200, 400, 405]
    for _, headers, _ in answers:
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "set-cookie" not in headers
        assert "access-control-allow-origin" not in headers
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'",
                     "form-action 'none'", "base-uri 'none'"):  # fmt: skip
            assert part in policy.split("; ")


def test_it_listens_on_loopback_alone(page: Page) -> None:
    with socket.socket() as taken, pytest.raises(OSError, match="in use"):
        taken.bind(("127.0.0.1", page.port))
    with socket.socket() as free:
        free.bind(("127.0.0.2", page.port))


# what is refused

PATH = f"/{TOKEN}/api/rate"
Forged = tuple[str, str, dict[str, str], bytes]  # method, path, headers, body
Forge = Callable[[int, dict[str, Any]], Forged]


def forged(
    path: str = PATH, method: str = "POST", body: bytes | None = None, **headers: str | None
) -> Forge:
    """A request that is right in all but this."""

    def make(port: int, standing: dict[str, Any]) -> Forged:
        data = json.dumps(rating(standing)).encode() if body is None else body
        there = {k: v and v.replace("PORT", str(port)) for k, v in headers.items()}
        if method in ("GET", "HEAD"):
            none = dict.fromkeys(("origin", "content_type", "content_length"))
            there = {**none, **there}
        return method, path, sent(port, data, **there), data

    return make


def saying(**changed: Any) -> Forge:
    """A rating with other values; ``...`` leaves a key out."""

    def make(port: int, standing: dict[str, Any]) -> Forged:
        said = {k: v for k, v in rating(standing, **changed).items() if v is not ...}
        data = json.dumps(said).encode()
        return "POST", PATH, sent(port, data), data

    return make


def written(template: str) -> Forge:
    """A rating written out, with ``ID`` for the showing's."""

    def make(port: int, standing: dict[str, Any]) -> Forged:
        data = template.replace("ID", standing["showing"]["id"]).encode()
        return "POST", PATH, sent(port, data), data

    return make


WHOLE = '{"rater": "Ann", "showing": "ID", "a": 3, "b": 4, "prefer": "b", "note": ""}'
FORGED: dict[str, Forge] = {
    # who asks
    "no token": forged("/api/rate"),
    "another token": forged("/token-of-a-tesu/api/rate"),
    "half a token": forged(f"/{TOKEN[:-1]}/api/rate"),
    "a longer token": forged(f"/{TOKEN}x/api/rate"),
    "the token in capitals": forged(f"/{TOKEN.upper()}/api/rate"),
    "the token in the query": forged(f"/api/rate?token={TOKEN}"),
    "the token percent-encoded": forged(f"/%74{TOKEN[1:]}/api/rate"),
    "the token behind another": forged(f"/x/{TOKEN}/api/rate"),
    "the token behind dots": forged(f"/x/../{TOKEN}/api/rate"),
    "an absolute target": forged(f"http://127.0.0.1/{TOKEN}/api/rate"),
    "another host": forged(host="evil.example:PORT"),
    "a host that was rebound": forged(host="127.0.0.1.evil.example:PORT"),
    "the host without a port": forged(host="127.0.0.1"),
    "another port": forged(host="127.0.0.1:1"),
    "another loopback address": forged(host="127.0.0.2:PORT"),
    "no host": forged(host=None),
    "another origin": forged(origin="http://evil.example"),
    "the origin null": forged(origin="null"),
    "no origin": forged(origin=None),
    "an origin of another port": forged(origin="http://127.0.0.1:1"),
    "an origin by https": forged(origin="https://127.0.0.1:PORT"),
    "an origin of the other name": forged(origin="http://localhost:PORT"),
    "from another site": forged(sec_fetch_site="cross-site"),
    "from a neighbour": forged(sec_fetch_site="same-site"),
    "typed, and yet a post": forged(sec_fetch_site="none"),
    "a site that is none": forged(sec_fetch_site="same-origin, cross-site"),
    "reading from another site": forged(f"/{TOKEN}/", "GET", b"", sec_fetch_site="cross-site"),
    "reading from another origin": forged(f"/{TOKEN}/", "GET", b"", origin="http://evil.example"),
    "reading with the origin null": forged(f"/{TOKEN}/", "GET", b"", origin="null"),
    "reading with another host": forged(f"/{TOKEN}/", "GET", b"", host="evil.example:PORT"),
    # how it is asked
    "a get of a post": forged(method="GET", body=b""),
    "a post of a get": forged(f"/{TOKEN}/"),
    "put": forged(method="PUT"),
    "delete": forged(method="DELETE"),
    "options": forged(method="OPTIONS"),
    "head": forged(f"/{TOKEN}/", "HEAD", b""),
    "a method of its own": forged(method="RATE"),
    "a get that says it is a post": forged(method="GET", body=b"", x_http_method_override="POST"),
    "a get with a body": forged(f"/{TOKEN}/", "GET", b"{}", content_length="2"),
    "a query": forged(f"{PATH}?a=5"),
    "no such path": forged(f"/{TOKEN}/api/export"),
    "a path that climbs": forged(f"/{TOKEN}/../{TOKEN}/api/rate"),
    "a file that climbs": forged(f"/{TOKEN}/..%2f..%2fstore.py", "GET", b""),
    "a file of the run": forged(f"/{TOKEN}/ratings.sqlite", "GET", b""),
    "a slash too many": forged(f"/{TOKEN}/api/rate/"),
    # what is said
    "a form": forged(content_type="application/x-www-form-urlencoded"),
    "plain text": forged(content_type="text/plain"),
    "no type": forged(content_type=None),
    "another character set": forged(content_type="application/json; charset=utf-16"),
    "packed": forged(content_encoding="gzip"),
    "no length": forged(content_length=None),
    "a length in words": forged(content_length="many"),
    "a negative length": forged(content_length="-1"),
    "too large": forged(body=b" " * (strict.LARGEST_BODY + 1)),
    "too large by far": forged(body=b"", content_length="9" * 15),
    "too large behind zeros": forged(body=b"", content_length="0" * 12 + "9" * 8),
    "nothing": forged(body=b""),
    "no json": forged(body=b"a=3&b=4"),
    "half of it": written(WHOLE[:-9]),
    "two of it": written(WHOLE + WHOLE),
    "no utf-8": forged(body=WHOLE.replace("Ann", "Ann\xfc").encode("latin-1")),
    "utf-16": forged(body=WHOLE.encode("utf-16")),
    "deep": forged(body=b"[" * 16_000 + b"]" * 16_000),
    "a list": written(f"[{WHOLE}]"),
    "a number": forged(body=b"3"),
    "nan": written(WHOLE.replace("3", "NaN")),
    "infinity": written(WHOLE.replace("3", "Infinity")),
    "a number of 5,000 digits": written(WHOLE.replace("3", "3" * 5_000)),
    "a key twice": written(WHOLE.replace('"a": 3', '"a": 3, "a": 5')),
    "a key in capitals": written(WHOLE.replace('"a"', '"A"')),
    "a key too many": saying(side="tuned"),
    "a key too few": saying(note=...),
    "no showing": saying(showing=...),
    "a score of 0": saying(a=0),
    "a score of 6": saying(b=6),
    "a negative score": saying(a=-1),
    "half a score": saying(a=2.5),
    "a score with a point": saying(a=3.0),
    "a score as a text": saying(a="3"),
    "a score of true": saying(a=True),
    "a score of null": saying(a=None),
    "scores in a list": saying(a=[3]),
    "a preference for a side": saying(prefer="tuned"),
    "no preference": saying(prefer=""),
    "a preference as a number": saying(prefer=1),
    "a note that is a number": saying(note=7),
    "a note too long": saying(note="x" * (strict.LONGEST_NOTE + 1)),
    "half a surrogate pair": saying(note="\ud83d"),
    "a null character": saying(note="a\0b"),
    "no such showing": saying(showing="no-such-ticket"),
    "an item's id": saying(showing="item-0"),
    "a path": saying(showing="../../ratings.sqlite"),
    "sql": saying(showing="' OR 1=1 --"),
    "a showing of some length": saying(showing="x" * 3_000),
    "a number of a showing": saying(showing=1),
    "no such rater": saying(rater="Zoe"),
    "another rater": saying(rater="Ben"),
    "an empty name": saying(rater="  "),
    "a name with an escape": saying(rater="Ann\x1b[2J"),
    "a name that turns round": saying(rater="\u202eAnn"),
    "a name too long": saying(rater="x" * (strict.LONGEST_NAME + 1)),
}  # fmt: skip


def test_there_are_as_many_as_were_asked_for() -> None:
    assert len(FORGED) >= 60


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_request_is_refused(case: str, page: Page, joined: dict[str, Any]) -> None:
    page.post("join", {"rater": "Ben"})
    before = database(page.study.run)
    method, path, headers, body = FORGED[case](page.port, joined)
    status, _, answer = request(page.port, method, path, headers, body)
    assert 400 <= status < 500, answer
    assert b"Traceback" not in answer
    assert database(page.study.run) == before


def test_the_same_request_unforged_is_granted(page: Page, joined: dict[str, Any]) -> None:
    """Else the tests above could be refused for another reason than they say."""
    run = page.study.run
    status, standing = page.post("join", {"rater": "Una"})
    for name in ("127.0.0.1", "localhost"):
        data = json.dumps(rating(standing)).encode()
        host = f"{name}:{page.port}"
        headers = sent(page.port, data, host=host, origin=f"http://{host}")
        status, _, answer = request(page.port, "POST", PATH, headers, data)
        assert status == 200, answer
        standing = json.loads(answer)
    assert sum(row[0] == "rating" for row in database(run)) == 2
    for site in ("none", "same-origin"):
        headers = {"host": f"127.0.0.1:{page.port}", "sec-fetch-site": site}
        assert request(page.port, "GET", f"/{TOKEN}/", headers)[0] == 200


@pytest.mark.parametrize(
    "case",
    ["another host", "another origin", "the origin null", "no origin", "from another site",
     "from a neighbour", "a form", "a query", "packed"],
)  # fmt: skip
def test_without_the_guard_it_would_be_granted(
    case: str, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guard, "_refused", lambda self, scope: None)
    _, standing = page.post("join", {"rater": f"Let in by {case}"})
    method, path, headers, body = FORGED[case](page.port, standing)
    assert request(page.port, method, path, headers, body)[0] == 200


def raw(port: int, lines: list[str], body: bytes = b"") -> bytes:
    """All that comes back of a request that no library would send."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def joining(port: int, *extra: str, without: str = "", body: bytes | None = None) -> bytes:
    """A right request to join, but for headers that are added behind the others or left out."""
    data = b'{"rater": "Raw"}' if body is None else body
    headers = {k: v for k, v in sent(port, data).items() if k != without}
    lines = [f"POST /{TOKEN}/api/join HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return raw(port, [*lines, *extra, "connection: close"], data)


@pytest.mark.parametrize(
    "extra",
    [
        "host: evil.example",
        "origin: http://evil.example",
        "sec-fetch-site: cross-site",
        "sec-fetch-site: same-origin",
        "content-type: text/plain",
        "content-length: 5",
        "content-length : 16",
        "transfer-encoding: chunked",
        "transfer-encoding: gzip, chunked",
        "content-encoding: identity",
        "a bad name: x",
    ],
)
def test_headers_that_contradict_each_other_are_refused(page: Page, extra: str) -> None:
    before = database(page.study.run)
    answer = joining(page.port, extra)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert b" 200 " not in answer
    assert database(page.study.run) == before


def test_a_body_in_chunks_is_refused(page: Page) -> None:
    chunks = b'10\r\n{"rater": "Raw"}\r\n0\r\n\r\n'
    answer = joining(page.port, "transfer-encoding: chunked", without="content-length", body=chunks)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"must come plain" in answer


def test_the_same_bytes_without_a_contradiction_are_granted(page: Page) -> None:
    assert joining(page.port, "x-any: thing").startswith(b"HTTP/1.1 200")


# what it tells, and what not


def test_a_rating_posted_twice_is_one_rating(page: Page) -> None:
    _, standing = page.post("join", {"rater": "Twice"})
    said = rating(standing)
    first = page.post("rate", said)
    assert first[0] == 200
    assert page.post("rate", said) == first
    status, answer = page.post("rate", {**said, "a": 5})
    assert (status, answer) == (
        409,
        {"error": "This item was rated otherwise before. Undo that first."},
    )
    assert page.post("join", {"rater": "twice"}) == first  # capitals do not matter


def test_a_rating_that_comes_late_is_refused(page: Page) -> None:
    _, standing = page.post("join", {"rater": "Late"})
    said = rating(standing)
    _, second = page.post("rate", said)
    back = page.post("undo", {"rater": "Late", "showing": second["last"]})
    assert back[1]["done"] == 0
    assert page.post("undo", {"rater": "Late", "showing": second["last"]}) == back
    # of the item that was on the page before the undo
    assert page.post("rate", rating(second))[0] == 409
    # the same rating, sent again by a slow network: the showing has another ticket now
    status, answer = page.post("rate", said)
    assert (status, answer["error"]) == (409, "This rating was taken back. Reload the page.")
    assert back[1]["showing"]["id"] != standing["showing"]["id"]
    assert {**back[1]["showing"], "id": ""} == {**standing["showing"], "id": ""}
    assert page.post("rate", rating(back[1]))[0] == 200
    assert page.post("undo", {"rater": "Late", "showing": "x"})[0] == 404


def test_two_raters_at_once(page: Page) -> None:
    """Each posts every rating three times at once, while the other does the same."""
    faults: list[Any] = []

    def rate_all(name: str) -> None:
        _, standing = page.post("join", {"rater": name})
        while standing["showing"]:
            said, answers = rating(standing), []
            ways = [
                threading.Thread(target=lambda s=said, a=answers: a.append(page.post("rate", s)))
                for _ in range(3)
            ]
            for way in ways:
                way.start()
            for way in ways:
                way.join()
            if len(answers) != 3 or any(answer != answers[0] for answer in answers):
                faults.append(answers)
                return
            standing = answers[0][1]

    raters = [threading.Thread(target=rate_all, args=(f"rater {k}",)) for k in range(2)]
    for rater in raters:
        rater.start()
    for rater in raters:
        rater.join(60)
    assert faults == []
    done = {s.rater: (s.done, s.of) for s in page.study.store.raters()}
    assert [done[f"rater {k}"] for k in range(2)] == [(11, 11), (11, 11)]


def test_no_answer_says_whose_reply_it_is(page: Page) -> None:
    """All of every answer is known but tickets and texts; the texts stand on their sides."""
    sides = []
    for name in ("Blind 1", "Blind 2"):
        _, answer = page.post("join", {"rater": name})
        while answer["showing"]:
            assert list(answer) == ["done", "last", "of", "rater", "showing"]
            assert list(answer["showing"]) == ["a", "b", "id", "prompt"]
            (k,) = [k for k, line in enumerate(TRIPLES) if line[0] == answer["showing"]["prompt"]]
            both = answer["showing"]["a"], answer["showing"]["b"]
            assert sorted(both) == sorted(TRIPLES[k][1:])
            sides.append(both == TRIPLES[k][1:])
            tickets = [answer["showing"]["id"], *filter(None, [answer["last"]])]
            assert all(len(ticket) == 22 for ticket in tickets)
            _, answer = page.post("rate", rating(answer))
    assert sum(sides) in range(10, 13)  # 22 showings: half, or one more of a rater's 11


def test_an_answer_is_as_long_whoever_stands_left(tmp_path: Path) -> None:
    run = replied(tmp_path, [("ask", "short", "a longer reply" * 9)] * 8)
    lengths: dict[bool, set[int]] = {True: set(), False: set()}
    with begun(run) as study, served(study) as page:
        for name in ("Ann", "Ben", "Eve"):
            body = {"rater": name}
            _, headers, answer = request(page.port, "POST", f"/{TOKEN}/api/join", body=body)
            said = json.loads(answer)["showing"]
            lengths[said["a"] == "short"].add(int(headers["content-length"]))
            assert sorted(headers) == sorted(set(headers))
    assert len(lengths[True] | lengths[False]) == 1


def test_a_full_disk_is_told_and_the_rating_can_be_sent_again(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    _, standing = page.post("join", {"rater": "Full"})

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(type(page.study.store), "rate", full)
        status, answer = page.post("rate", rating(standing))
    assert status == 503
    assert answer == {"error": "The rating could not be kept: database or disk is full."}
    assert page.post("rate", rating(standing))[0] == 200
