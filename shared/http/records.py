"""What is kept of every request: an id on its log lines, an access line, a measurement, a span. And the last resort."""

import asyncio
import re
import time
from collections.abc import Iterable
from urllib.parse import quote

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.problems import RETRY_AFTER_SECONDS, Problem, problem_of
from shared.ids import Ids
from shared.tracing.requests import Served, serving

log = structlog.get_logger(__name__)

REQUEST_ID = b"x-request-id"
"""The header that names a request, in both directions."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FIRST_ERROR = 400


class RequestRecorder:
    """ASGI middleware around everything else.

    It takes the client's ``X-Request-Id`` or makes one, binds it to all log lines, gives it back, and answers whatever
    exception nobody else has answered, being cancelled by a stopping server included.

    Args:
        app: what is recorded.
        service: whose it is.
        registry: where ``tenure_http_requests_total`` is kept by method, route and status, and
            ``tenure_http_request_seconds`` by method and route.
        ids: makes the ids of requests that bring none.
    """

    def __init__(self, app: ASGIApp, service: str, registry: CollectorRegistry, ids: Ids) -> None:
        self._app = app
        self._service = service
        self._ids = ids
        self._requests = Counter(
            "tenure_http_requests",
            "Requests, by method, route and status.",
            ("method", "route", "status"),
            registry=registry,
        )
        # Not by status too: each of its values would be a series of every bucket of every route.
        self._seconds = Histogram(
            "tenure_http_request_seconds",
            "How long requests took, by method and route.",
            ("method", "route"),
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = request_id(scope["headers"], self._ids)
        answer = _Answer(send, name)
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=name), serving(self._service, scope, name) as served:
            try:
                await self._answered(scope, receive, answer)
            finally:
                self._record(scope, answer.status, time.perf_counter() - started, served)

    async def _answered(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            await self._app(scope, receive, answer.send)
        except asyncio.CancelledError:
            if answer.status is None:  # a server that stops gives up those who take too long
                await _stopping().response(scope["path"])(scope, receive, answer.send)
            raise
        except Exception as error:
            problem = problem_of(error)
            if answer.status is not None:
                raise  # too late for another answer: the server must break the connection
            await problem.response(scope["path"])(scope, receive, answer.send)

    def _record(self, scope: Scope, status: int | None, seconds: float, served: Served) -> None:
        # Labels have few values whatever clients send: the route's template, never the path.
        route = getattr(scope.get("route"), "path", "")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(method, route, str(status or 0)).inc()
        self._seconds.labels(method, route).observe(seconds)
        served.answer(method, route, status)
        write = log.debug if status is not None and status < _FIRST_ERROR else log.info
        write(
            "request",
            action="request",
            method=method,
            path=quote(scope["path"], errors="replace"),  # control characters could forge lines on a terminal
            status=status,
            duration_ms=round(seconds * 1000, 2),
        )


def request_id(headers: Iterable[tuple[bytes, bytes]], ids: Ids) -> str:
    """Return the id that the client has given a request, or a new one."""
    for header, value in headers:
        if header == REQUEST_ID and _REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return given
    return ids.new().hex


def _stopping() -> Problem:
    return Problem(
        503,
        code="stopping",
        detail="This server is stopping. Try again.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


class _Answer:
    """The way back to the client: notes the status and adds the request's id.

    Attributes:
        status: None until the answer has begun.
    """

    def __init__(self, send: Send, request_id: str) -> None:
        self.status: int | None = None
        self._send = send
        self._header = (REQUEST_ID, request_id.encode())

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), self._header]
        await self._send(message)
