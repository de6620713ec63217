"""Requests that are turned away unread, by the HTTP protocol itself, where there is too much to do.

Whoever is overloaded and still reads, checks and records every request has no time left for what was accepted. A
refusal by the smallest ASGI application takes 50 microseconds, most of them spent on what nobody looks at; here it is
one look at bytes that were parsed before, and one write.
"""

import functools
import random
from collections.abc import Callable
from typing import NamedTuple

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.http.problems import Problem
from shared.http.records import REQUEST_ID, request_id
from shared.ids import Ids

IsClosed = Callable[[str, str], bool]
"""Tells from its method and path whether a request is turned away now; true for few paths, all of them known.

It is asked once for each request, and may keep a place for one that it lets in.
"""

_SOONEST_SECONDS = 1
_LATEST_SECONDS = 5
_VARIANTS = 20
_LONGEST_HEAD = 2048
_MOST_HEADS = 256
_END_OF_HEAD = b"\r\n\r\n"


def overloaded() -> Problem:
    """Return the problem of having too much to do; clients come back at different times, not all at once."""
    return Problem(
        503,
        code="overloaded",
        detail="More is under way than can be done in time, so this was not accepted. Try again later.",
        headers={"Retry-After": str(random.randint(_SOONEST_SECONDS, _LATEST_SECONDS))},  # noqa: S311 - no secret
    )


class Head(NamedTuple):
    """What the head of a request says."""

    method: str
    path: str
    length: int


class Heads:
    """Heads that were refused before, byte for byte: clients that come again send the same ones."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def find(self, data: bytes) -> Head | None:
        """Return what a whole request says whose head is known; None for any other, and for a part or more than one."""
        head, _, body = data.partition(_END_OF_HEAD)
        known = self._known.get(head)
        return known if known is not None and len(body) == known.length else None

    def keep(self, data: bytes, head: Head) -> None:
        """Remember what the head says with which these bytes begin."""
        written = data.partition(_END_OF_HEAD)[0]
        if len(written) > _LONGEST_HEAD:
            return
        if len(self._known) >= _MOST_HEADS:
            self._known.clear()
        self._known[written] = head


class RefusingProtocol(HttpToolsProtocol):
    """One connection; answers by itself what is turned away, and leaves everything else to uvicorn.

    Args:
        is_closed: asked for every request.
        ids: makes the ids of requests that are turned away and bring none.
        most: connections, and requests that are being answered; beyond either everybody is turned away.
        heads: shared by all connections of a server.
    """

    def __init__(
        self, *args: object, is_closed: IsClosed, ids: Ids, most: int, heads: Heads, **settings: object
    ) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]  # whatever uvicorn gives
        self._is_closed = is_closed
        self._ids = ids
        self._most = most
        self._heads = heads
        self._refused: str | None = None
        self._is_between = True
        self._is_let_in = False
        self._data = b""
        self._length = 0
        self._active_at = 0.0
        self._next = random.randrange(_VARIANTS)  # noqa: S311 - no secret

    def data_received(self, data: bytes) -> None:
        """Refuse a request that was refused before, or have the bytes parsed."""
        if self._is_between and self._is_idle():
            if (known := self._heads.find(data)) is not None:
                if self._is_turned_away(known.method, known.path):
                    self._active_at = self.loop.time()
                    self.transport.write(self._refusal(known.path, self._ids.new().hex))
                    return
                self._is_let_in = True
            self._data = data
        else:
            self._data = b""
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Note that a request has begun."""
        self._is_between = False
        self._length = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Decide whether anybody reads the request."""
        is_plain = self._is_idle() and not self.expect_100_continue and not self.parser.should_upgrade()
        path = _path(self.url) if is_plain and not self._is_let_in else None
        self._is_let_in = False
        if path is not None and self._is_turned_away(self.parser.get_method().decode("ascii"), path):
            self._refused = path
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, or drop it."""
        self._length += len(body)
        if self._refused is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Have the request answered, or refuse it."""
        self._is_between = True
        if self._refused is None:
            super().on_message_complete()
            return
        path, self._refused = self._refused, None
        is_last = not self.parser.should_keep_alive()
        self.transport.write(self._refusal(path, request_id(self.headers, self._ids), is_last=is_last))
        if is_last:
            self.transport.close()
        elif self._data and not any(name == REQUEST_ID for name, _ in self.headers):
            self._heads.keep(self._data, Head(self.parser.get_method().decode("ascii"), path, self._length))
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as everything else is answered that is wrong, and hang up."""
        problem = Problem(400, code="malformed_request", detail=msg, headers={"Connection": "close"})
        response = problem.response("/")
        name = b"%s: %s\r\n" % (REQUEST_ID, self._ids.new().hex.encode())
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%s%s\r\n%s" % (_lines(response), name, response.body))
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing has come for a while; refusals do not stop this clock, but count."""
        left = self._active_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _is_idle(self) -> bool:
        """Return whether nothing that came before on this connection is still to be answered."""
        return self.cycle is None or self.cycle.response_complete

    def _is_turned_away(self, method: str, path: str) -> bool:
        is_crowded = len(self.connections) >= self._most or len(self.tasks) >= self._most
        return is_crowded or self._is_closed(method, path)

    def _refusal(self, path: str, name: str, *, is_last: bool = False) -> bytes:
        refusals = _refusals(path)
        self._next = (self._next + 1) % _VARIANTS
        head, body = refusals[self._next]
        more = b"".join([b"%s: %s\r\n" % header for header in self.server_state.default_headers])
        ending = b"connection: close\r\n" if is_last else b""
        return b"%s%s%s: %s\r\n%s\r\n%s" % (head, more, REQUEST_ID, name.encode(), ending, body)


@functools.lru_cache(maxsize=64)
def _path(url: bytes) -> str | None:
    """Return the path of a request's target; None where uvicorn must say what is wrong with it."""
    try:
        path: bytes = httptools.parse_url(url).path
        return path.decode("ascii")
    except (httptools.HttpParserError, AttributeError, UnicodeDecodeError):
        return None


@functools.lru_cache(maxsize=64)
def _refusals(path: str) -> list[tuple[bytes, bytes]]:
    """Return what is answered to requests for a path: some heads, without their ends, and bodies."""
    responses = [overloaded().response(path) for _ in range(_VARIANTS)]
    return [(b"HTTP/1.1 503 Service Unavailable\r\n" + _lines(each), bytes(each.body)) for each in responses]


def _lines(response: Response) -> bytes:
    return b"".join(b"%s: %s\r\n" % header for header in response.raw_headers)
