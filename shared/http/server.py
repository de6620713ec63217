"""The HTTP server: uvicorn inside our own event loop, which turns requests away unread where there is too much to do.

Whoever is overloaded and still reads, checks and records every request has no time left for what was accepted. So the
refusal is written by the protocol itself, at a third of what the smallest application costs (20 microseconds, not 55).
"""

import functools
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.http.problems import Problem
from shared.http.records import request_id
from shared.ids import Ids, TimeOrderedIds

IsClosed = Callable[[str, str], bool]
"""Tells from its method and path whether a request is turned away now; true for few paths, all of them known."""

MOST = 2000
"""Connections, and requests that are being answered; beyond either everybody is told to come back."""

_SOONEST_SECONDS = 1
_LATEST_SECONDS = 5
_VARIANTS = 20
_STOP_SECONDS = 5


def overloaded() -> Problem:
    """Return the problem of having too much to do; clients come back at different times, not all at once."""
    return Problem(
        503,
        code="overloaded",
        detail="More is under way than can be done in time, so this was not accepted. Try again later.",
        headers={"Retry-After": str(random.randint(_SOONEST_SECONDS, _LATEST_SECONDS))},  # noqa: S311 - no secret
    )


class HttpServer(uvicorn.Server):
    """Serves an application, leaving signals and logs to us.

    Args:
        app: what it serves.
        port: 0 takes a free one.
        is_closed: asked for every request; nothing is turned away by default.
        ids: makes the ids of requests that are turned away and bring none.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, port: int, is_closed: IsClosed | None = None, ids: Ids | None = None
    ) -> None:
        protocol = functools.partial(_Protocol, is_closed=is_closed or _never, ids=ids or TimeOrderedIds(), most=MOST)
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


class _Protocol(HttpToolsProtocol):
    """One connection; answers by itself what is turned away, and leaves everything else to uvicorn."""

    def __init__(self, *args: object, is_closed: IsClosed, ids: Ids, most: int, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]  # whatever uvicorn gives
        self._is_closed = is_closed
        self._ids = ids
        self._most = most
        self._refused: str | None = None
        self._next = random.randrange(_VARIANTS)  # noqa: S311 - no secret

    def on_headers_complete(self) -> None:
        """Decide whether anybody reads the request."""
        is_plain = self._is_idle() and not self.expect_100_continue and not self.parser.should_upgrade()
        if is_plain and (path := self._turned_away()) is not None:
            self._refused = path
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, or drop it."""
        if self._refused is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Have the request answered, or refuse it."""
        if self._refused is None:
            super().on_message_complete()
            return
        path, self._refused = self._refused, None
        is_last = not self.parser.should_keep_alive()
        self.transport.write(self._refusal(path, is_last=is_last))
        if is_last:
            self.transport.close()
        self.on_response_complete()

    def _is_idle(self) -> bool:
        """Return whether nothing that came before on this connection is still to be answered."""
        return self.cycle is None or self.cycle.response_complete

    def _turned_away(self) -> str | None:
        """Return the path of a request that is turned away."""
        path = _path(self.url)
        if path is None:
            return None  # uvicorn knows what to answer
        is_crowded = len(self.connections) >= self._most or len(self.tasks) >= self._most
        return path if is_crowded or self._is_closed(self.parser.get_method().decode("ascii"), path) else None

    def _refusal(self, path: str, *, is_last: bool) -> bytes:
        refusals = _refusals(path)
        self._next = (self._next + 1) % len(refusals)
        head, body = refusals[self._next]
        more = b"".join([b"%s: %s\r\n" % header for header in self.server_state.default_headers])
        name = request_id(self.headers, self._ids).encode()
        return b"%s%sx-request-id: %s\r\n%s\r\n%s" % (head, more, name, b"connection: close\r\n" * is_last, body)


@functools.lru_cache(maxsize=64)
def _path(url: bytes) -> str | None:
    try:
        path: bytes = httptools.parse_url(url).path
        return path.decode("ascii")
    except (httptools.HttpParserError, AttributeError, UnicodeDecodeError):
        return None


@functools.lru_cache(maxsize=64)
def _refusals(path: str) -> list[tuple[bytes, bytes]]:
    """Return what is answered to requests for a path: some heads, without their ends, and bodies."""
    responses = [overloaded().response(path) for _ in range(_VARIANTS)]
    lines = [b"".join(b"%s: %s\r\n" % header for header in response.raw_headers) for response in responses]
    return [
        (b"HTTP/1.1 503 Service Unavailable\r\n" + head, bytes(response.body))
        for head, response in zip(lines, responses, strict=True)
    ]


def _never(_: str, __: str) -> bool:
    return False
