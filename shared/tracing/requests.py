"""HTTP requests as spans, part of their clients' traces where those say so.

Source: OpenTelemetry, semantic conventions for HTTP spans.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from opentelemetry import context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from shared.tracing import spans

_OPERATIONS = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"})
"""What is asked of a service all the time, and has no consequences."""

_TRACEPARENT = b"traceparent"
_FAILURE = 500


class Served:
    """A request that is being answered and is not traced."""

    def answer(self, method: str, route: str, status: int | None) -> None:
        """Say what it has turned out to be, and how it is answered.

        Args:
            route: the template of its path; empty where there is none.
            status: None where there is no answer.
        """


_UNTRACED = Served()


class _TracedRequest(Served):
    def __init__(self, span: Span) -> None:
        self._span = span

    def answer(self, method: str, route: str, status: int | None) -> None:
        self._span.update_name(f"{method} {route}" if route else method)
        self._span.set_attribute("http.request.method", method)
        if route:
            self._span.set_attribute("http.route", route)
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if status is None or status >= _FAILURE:
            self._span.set_attribute("error.type", str(status or "aborted"))
            self._span.set_status(Status(StatusCode.ERROR))


@contextmanager
def serving(service: str, scope: Mapping[str, Any], request_id: str) -> Iterator[Served]:
    """Answer a request until the end of the block: what is said in it is said because of the request."""
    if not spans.is_on() or scope["path"] in _OPERATIONS:
        yield _UNTRACED
        return
    span = spans.start(
        service,
        scope["method"],
        kind=SpanKind.SERVER,
        parent=_traceparent(scope),
        # Never the query, which may hold what nobody else should know.
        attributes={
            "url.path": quote(scope["path"], errors="replace"),
            "url.scheme": scope["scheme"],
            "tenure.request_id": request_id,
        },
    )
    token = context.attach(set_span_in_context(span))
    try:
        yield _TracedRequest(span)
    finally:
        context.detach(token)
        span.end()


def _traceparent(scope: Mapping[str, Any]) -> str | None:
    given = [value for header, value in scope["headers"] if header == _TRACEPARENT]
    return given[0].decode("latin-1") if len(given) == 1 else None
