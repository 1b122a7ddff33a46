"""Who is let in? Only a page that this server itself gave, to a browser on this machine.

Before anything is routed, on every method: the Host must be this server's, which stops names that
were rebound to loopback; the token must be in the path, which stops whoever was not given the
address; Origin and Sec-Fetch-Site must be this page's, which stops other pages in the same
browser. No cookie is used, so there is nothing that a foreign page could make the browser send.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
# Each decides who is asking or what is said; of two, one would be believed and the other used.
_ONCE = ("host", "origin", "sec-fetch-site", "content-type", "content-length")


class Guard:
    """An ASGI application around another one, which sees the paths without the token."""

    def __init__(self, app: App, token: str, port: int, largest_body: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self._largest = largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] != "http":
            return

        async def headed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                ours = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *ours]}
            await send(message)

        refused = self._refused(scope)
        if refused is None:
            await self._app({**scope, "path": self._inside(scope)}, receive, headed)
            return
        status, sentence = refused
        body = json.dumps({"error": sentence}).encode()
        kind = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await headed({"type": "http.response.start", "status": status, "headers": kind})
        await headed({"type": "http.response.body", "body": body})

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the sentence; None for a request that is let in."""
        headers = _by_name(scope["headers"])
        for name in _ONCE:
            if len(headers.get(name, ())) > 1:
                return 400, f"The header {name} came twice."
        one = {name: values[0] for name, values in headers.items()}
        host = one.get("host")
        if host not in self._hosts:
            return 421, "This is not the server that you asked for."
        if self._inside(scope) is None:
            return 404, "There is nothing here. Use the whole address that was printed."
        reading = scope["method"] == "GET"
        if not reading and scope["method"] != "POST":
            return 405, "Only GET and POST are answered."
        origin, site = one.get("origin"), one.get("sec-fetch-site")
        if origin != f"http://{host}" and not (reading and origin is None):
            return 403, "The request comes from another page."
        if site not in ((None, "none", "same-origin") if reading else (None, "same-origin")):
            return 403, "The request comes from another page. Type or paste the address."
        if scope["query_string"]:
            return 400, "No query is understood."
        if "transfer-encoding" in one or "content-encoding" in one:
            return 400, "The body must come plain, with its length."
        length = one.get("content-length", "0" if reading else "")
        if not (length.isascii() and length.isdigit()):
            return 411, "The length of the body is needed."
        # shortened, since Python refuses to read very long numbers; zeros in front mean nothing
        if int(length.lstrip("0")[:12] or 0) > (0 if reading else self._largest):
            return 413, "The body is too large."
        kind = one.get("content-type", "").replace(" ", "").lower()
        if not reading and kind not in ("application/json", "application/json;charset=utf-8"):
            return 415, "The body must be application/json."
        return None

    def _inside(self, scope: Scope) -> str | None:
        """The path behind the token, read from the raw one; None where the token is not there."""
        raw = scope.get("raw_path") or scope["path"].encode()
        before, token, rest = [*raw.split(b"/", 2), b"", b""][:3]
        if before or not hmac.compare_digest(token, self._token) or raw.count(b"/") < 2:
            return None
        return "/" + rest.decode("latin-1")


def _by_name(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found
