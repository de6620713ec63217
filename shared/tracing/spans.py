"""Spans, and the `traceparent` by which whatever follows belongs to one, in another process or days later.

Nothing is traced until `switch` was called: then every function here has cost one comparison.

Source: W3C Trace Context; https://www.w3.org/TR/trace-context/
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace import get_current_span as current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TracerOf: TypeAlias = Callable[[str], Tracer]
"""Gives each service its tracer."""

Attributes: TypeAlias = Mapping[str, str | int | bool | None]
"""What is said of a span; None says nothing."""

_W3C = TraceContextTextMapPropagator()
_TRACE_ID = slice(3, 35)
_tracer_of: TracerOf | None = None


def switch(tracer_of: TracerOf | None) -> None:
    """Trace from now on, in the whole process; or not any more."""
    global _tracer_of  # noqa: PLW0603 - one switch for the process, as for its log
    _tracer_of = tracer_of


def is_on() -> bool:
    """Tell whether anything is traced."""
    return _tracer_of is not None


def start(
    service: str,
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: str | None = None,
    links: Sequence[str] = (),
    attributes: Attributes | None = None,
    since: int | None = None,
) -> Span:
    """Begin a span, which is heard of once it has ended; what is never ended never was.

    Args:
        service: where it happens.
        name: of few values, without identities.
        parent: the traceparent of what it is a part or a consequence of; it begins a trace of its own without.
        links: traceparents of what else has led to it.
        since: when it began, in nanoseconds since 1970; now where None.
    """
    if _tracer_of is None:
        return INVALID_SPAN
    return _tracer_of(service).start_span(
        name,
        context=_W3C.extract({"traceparent": parent}) if parent else Context(),
        kind=kind,
        attributes={key: value for key, value in (attributes or {}).items() if value is not None},
        links=[Link(context) for each in links if (context := _context_of(each)).is_valid],
        start_time=since,
    )


def traceparent_of(span: Span) -> str | None:
    """Return what refers to a span from elsewhere; None for one that is not traced."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def current() -> str | None:
    """Return the traceparent of the one thing that is being done here: a request or a message; None for several."""
    return traceparent_of(current_span()) if _tracer_of is not None else None


def fail(span: Span, error: BaseException) -> None:
    """Say that it has failed, and with what kind of error; what the error says may be a secret."""
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR))


def at_home(cause: str | None, home: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the parent of what happens in a trace, and its links, whatever trace its cause belongs to.

    Args:
        cause: the traceparent of what led to it; None where only time has.
        home: that of what the trace has begun with; None where it is not traced.
    """
    if cause is None or home is None:
        return cause or home, ()
    return (cause, ()) if cause[_TRACE_ID] == home[_TRACE_ID] else (home, (cause,))


def _context_of(traceparent: str) -> SpanContext:
    return current_span(_W3C.extract({"traceparent": traceparent})).get_span_context()
