"""How does a test rate? A run without a model, a server on loopback, and plain requests."""

from __future__ import annotations

import http.client
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunediff.rating import serve
from tunediff.rating.app import rating_app
from tunediff.rating.store import FILE, Answer, Standing
from tunediff.rating.study import OpenStudy, open_study
from tunediff.run.store import Run
from tunediff.studies.compare import measure_compare

TOKEN = "token-of-a-test"
Triple = tuple[str, str, str]  # a prompt, base's reply, tuned's


def triples(count: int) -> list[Triple]:
    """Replies of which neither says whose it is."""
    return [(f"ask {k}", f"one {k * 7919 % 104729}", f"two {k * 104729 % 7919}")
            for k in range(count)]  # fmt: skip


def replied(folder: Path, said: Sequence[Triple]) -> Run:
    """A run of recorded replies; the items' ids are item-0 and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for side, place in (("base", 1), ("tuned", 2)):
        rows = [
            {"id": f"item-{k}", "prompt": line[0], "reply": line[place]}
            for k, line in enumerate(said)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{side}.jsonl").write_text(text, encoding="utf-8")
    sides = [f"recorded:{folder / side}.jsonl" for side in ("base", "tuned")]
    (run,) = measure_compare(sides[0], sides[1:], (), folder / "run", opening={"backend": "auto"})
    return run


@contextmanager
def begun(run: Run, **given: Any) -> Iterator[OpenStudy]:
    with closing(open_study(run, **given)) as study:
        yield study


@dataclass(frozen=True)
class Page:
    """A page that is served."""

    study: OpenStudy
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/{TOKEN}/"

    def post(self, what: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        status, _, answer = request(self.port, "POST", f"/{TOKEN}/api/{what}", body=body)
        return status, json.loads(answer)


@contextmanager
def served(study: OpenStudy) -> Iterator[Page]:
    with serve.listen() as listening:
        port = listening.getsockname()[1]
        server = serve.server(rating_app(study, TOKEN, port))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield Page(study, port)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def sent(port: int, body: bytes, **changed: str | None) -> dict[str, str]:
    """The headers that a browser sends with a post; None leaves one out, _ stands for -."""
    host = f"127.0.0.1:{port}"
    headers: dict[str, str | None] = {
        "host": host,
        "origin": f"http://{host}",
        "sec-fetch-site": "same-origin",
        "content-type": "application/json",
        "content-length": str(len(body)),
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    return {name: value for name, value in headers.items() if value is not None}


def request(
    port: int,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | bytes = b"",
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer; without ``headers``, those of the page itself."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    if headers is None:
        headers = sent(port, data) if method == "POST" else {"host": f"127.0.0.1:{port}"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def database(run: Run) -> list[tuple[Any, ...]]:
    """All that the database holds, as rows."""
    with closing(sqlite3.connect(run.folder / FILE)) as db:
        return [
            (table, *row)
            for table in ("study", "rater", "showing", "rating", "undone")
            for row in db.execute(f"SELECT * FROM {table} ORDER BY 1")
        ]


def answer_of(standing: Standing, base: int, tuned: int, preference: str, note: str = "") -> Answer:
    """What a rater who knew the sides would send."""
    assert standing.showing is not None
    if standing.showing.a == "base":
        a, b, prefer = base, tuned, {"base": "a", "tuned": "b", "tie": "tie"}[preference]
    else:
        a, b, prefer = tuned, base, {"base": "b", "tuned": "a", "tie": "tie"}[preference]
    assert prefer in ("a", "b", "tie")
    return Answer(a, b, prefer, note)  # type: ignore[arg-type]


def chromium() -> str:
    """The browser of the system."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path is not None, "these tests need chromium"
    return path


def until(true: Any, seconds: float = 20) -> None:
    """Wait for what a thread or a process does."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.02)
