"""The HTTP server: uvicorn inside our own event loop."""

import functools
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from shared.http.refusal import Heads, IsClosed, RefusingProtocol
from shared.ids import Ids, TimeOrderedIds

MOST = 2000
"""Connections, and requests that are being answered; beyond either everybody is told to come back."""

_STOP_SECONDS = 5


class HttpServer(uvicorn.Server):
    """Serves an application, leaving signals and logs to us.

    Args:
        app: what it serves.
        port: 0 takes a free one.
        is_closed: tells which requests are turned away unread; none by default.
        ids: makes the ids of requests that are turned away and bring none.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, port: int, is_closed: IsClosed | None = None, ids: Ids | None = None
    ) -> None:
        protocol = functools.partial(
            RefusingProtocol, is_closed=is_closed or _never, ids=ids or TimeOrderedIds(), most=MOST, heads=Heads()
        )
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=protocol,  # type: ignore[arg-type]  # uvicorn calls it, and nothing else
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until ``should_exit``; stop listening even if cancelled."""
        try:
            await super().serve(sockets)
        finally:
            for server in getattr(self, "servers", ()):  # there are none before it has started
                server.close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers alone."""
        yield


def _never(_: str, __: str) -> bool:
    return False
