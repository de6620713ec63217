"""Spans for tests: what was traced for a block, as it was exported."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from shared.tracing import spans


class Collected:
    """The spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._processor = SimpleSpanProcessor(self._exporter)

    def tracer_of(self, service: str) -> Tracer:
        """Return the tracer of a service."""
        provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return provider.get_tracer("tests")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """All of them, in the order in which they have ended."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Return those of a name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str, **attributes: Any) -> ReadableSpan:
        """Return the only one of a name that has these attributes, with underscores for dots."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}
        found = [span for span in self.named(name) if wanted.items() <= _plain(span).items()]
        assert len(found) == 1, f"{len(found)} of {name} {wanted} among {[span.name for span in self.spans]}"
        return found[0]


def _plain(span: ReadableSpan) -> Mapping[str, Any]:
    return {key.replace("_", "."): value for key, value in (span.attributes or {}).items()}


def id_of(span: ReadableSpan) -> int:
    """Return the identity of a span."""
    context = span.get_span_context()
    assert context is not None
    return int(context.span_id)


def trace_of(span: ReadableSpan) -> int:
    """Return the trace that a span is part of."""
    context = span.get_span_context()
    assert context is not None
    return int(context.trace_id)


def parent_of(span: ReadableSpan) -> int | None:
    """Return the identity of the span that one is a part or a consequence of."""
    return span.parent.span_id if span.parent else None


def linked(span: ReadableSpan) -> set[int]:
    """Return the identities of the spans that one is linked to."""
    return {link.context.span_id for link in span.links}


@contextmanager
def collecting() -> Iterator[Collected]:
    """Trace until the end of the block."""
    collected = Collected()
    spans.switch(collected.tracer_of)
    try:
        yield collected
    finally:
        spans.switch(None)
