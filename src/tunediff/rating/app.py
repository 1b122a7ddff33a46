"""What does the server answer? The page's three files, and three posts.

``POST api/join``, ``api/rate`` and ``api/undo`` all answer with where the rater stands: the number
of ratings done and to do, and the prompt and both replies to be rated next as A and B. Which of
them is whose is in no answer, and neither is anything that differs by it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tunediff.rating import strict
from tunediff.rating.guard import App, Guard
from tunediff.rating.showing import Exchange, Key
from tunediff.rating.store import Refused, Standing
from tunediff.rating.study import OpenStudy
from tunediff.run.record import strict_json

_PAGE = Path(__file__).parent / "page"
_FILES = {"": ("page.html", "text/html"), "page.css": ("page.css", "text/css"),
          "page.js": ("page.js", "text/javascript")}  # fmt: skip


def rating_app(study: OpenStudy, token: str, port: int) -> App:
    """The application, behind its guard.

    Args:
        study: what is rated, and where it is kept.
        token: the part of the path that opens it.
        port: where it is served, on loopback.

    """

    def post(path: str, act: Callable[[bytes], Standing]) -> Route:
        async def answer(request: Request) -> Response:
            # Not in a thread: a transaction takes milliseconds, and one after the other is safe.
            try:
                standing = act(await request.body())
            except strict.Malformed as error:
                return _json(400, {"error": str(error)})
            except Refused as error:
                return _json(error.status, {"error": str(error)})
            except sqlite3.Error as error:
                return _json(503, {"error": f"The rating could not be kept: {error}."})
            return _json(200, seen(standing, study.said))

        return Route(path, answer, methods=["POST"])

    def rate(body: bytes) -> Standing:
        return study.store.rate(*strict.rated(body))

    def undo(body: bytes) -> Standing:
        return study.store.undo(*strict.undone(body))

    def join(body: bytes) -> Standing:
        return study.store.join(strict.joining(body))

    routes = [post("/api/join", join), post("/api/rate", rate), post("/api/undo", undo)]
    routes += [_file(path, *file) for path, file in _FILES.items()]
    inner = Starlette(routes=routes)
    inner.router.redirect_slashes = False  # a redirect would lead out of the token's path
    return Guard(inner, token, port, strict.LARGEST_BODY)


def seen(standing: Standing, said: Mapping[Key, Exchange]) -> dict[str, Any]:
    """What the page is told of where a rater stands."""
    showing = None
    if standing.showing is not None:
        exchange = said[standing.showing.key]
        a, b = exchange.base, exchange.tuned
        if standing.showing.a == "tuned":
            a, b = b, a
        showing = {"id": standing.showing.ticket, "prompt": exchange.prompt, "a": a, "b": b}
    return {
        "rater": standing.rater,
        "done": standing.done,
        "of": standing.of,
        "last": standing.last,
        "showing": showing,
    }


def _file(path: str, name: str, kind: str) -> Route:
    content = (_PAGE / name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return Route(f"/{path}", answer, methods=["GET"])


def _json(status: int, said: Mapping[str, Any]) -> Response:
    """In ASCII: a reply may hold half of a surrogate pair, which no UTF-8 can."""
    return Response(strict_json(said), status, media_type="application/json")
