"""Where spans go: to a collector by OTLP over HTTP, or into a file; in batches, from a thread of its own.

A collector that is away holds up nobody: what waits for it is bounded (`OTEL_BSP_MAX_QUEUE_SIZE`, 2048 spans), and what
is more than that is dropped.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

from shared.settings import TracingSettings

log = structlog.get_logger(__name__)

_NAMESPACE = "tenure"
_CLOSE_SECONDS = 3.0
"""How long a process that stops waits for its last spans to leave."""


class Pipeline:
    """The way of a process's spans to where they are kept."""

    def __init__(self, settings: TracingSettings, *, version: str) -> None:
        self._exporter = _Telling(_exporter(settings))
        self._processor = BatchSpanProcessor(self._exporter)
        self._version = version
        self._tracers: dict[str, Tracer] = {}

    def tracer_of(self, service: str) -> Tracer:
        """Return the tracer of a service; each has its own, because one process may run several."""
        if service not in self._tracers:
            self._tracers[service] = self._tracer(service)
        return self._tracers[service]

    def _tracer(self, service: str) -> Tracer:
        names = {"service.name": service, "service.namespace": _NAMESPACE, "service.version": self._version}
        provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return provider.get_tracer(_NAMESPACE, self._version)

    def flush(self) -> None:
        """Export what has ended, and wait for it."""
        self._processor.force_flush()

    def close(self) -> None:
        """Export what has ended, as far as that takes no longer than a few seconds."""
        closing = threading.Thread(target=self._processor.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            log.warning("the last spans are lost", action="traces_lost")
            self._exporter.shutdown()


def _exporter(settings: TracingSettings) -> SpanExporter:
    if settings.file is not None:
        return FileExporter(settings.file)
    # It brings a client for HTTP and protocol buffers, for which who writes a file has no use.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter()  # it reads all `OTEL_EXPORTER_OTLP_*` itself


class FileExporter(SpanExporter):
    """Appends spans to a file, one JSON object a line, as OpenTelemetry's SDK writes them.

    Several processes may write into one file: what is written at once stays together.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append spans."""
        lines = "".join(f"{span.to_json(indent=None)}\n" for span in spans)
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                os.write(descriptor, lines.encode())
            finally:
                os.close(descriptor)
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


class _Telling(SpanExporter):
    """Tells of an exporter that does not get rid of spans: once when it begins, and once when it is over."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails and not self._fails:
            log.warning("traces are not exported, and are dropped", action="traces_unavailable")
        elif self._fails and not fails:
            log.info("traces are exported again", action="traces_exported")
        self._fails = fails
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
