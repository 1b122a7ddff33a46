"""Where is the page served, and until when?"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from uvicorn import Config, Server

from tunediff.errors import UsageError
from tunediff.rating.guard import App

HOST = "127.0.0.1"


def listen(port: int = 0) -> socket.socket:
    """A socket on loopback; port 0: whichever is free.

    Raises:
        UsageError: the port is taken, or not for this user.

    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise UsageError(
            f"Port {port} cannot be used: {os.strerror(error.errno or 0)}.",
            "Leave --port out, or give another.",
        ) from error


def server(app: App) -> Server:
    """What answers; it ends when its ``should_exit`` is set."""
    return Server(
        Config(
            app,
            log_level="critical",
            log_config=None,
            http="h11",
            ws="none",
            lifespan="off",
            proxy_headers=False,  # nobody forwards to it
            server_header=False,
            timeout_graceful_shutdown=3,
        )
    )


def serve(app: App, listening: socket.socket) -> None:
    """Answer until Ctrl-C, which is how it should end."""
    with suppress(KeyboardInterrupt):
        server(app).run([listening])
