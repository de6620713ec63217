"""Where spans go, and that nobody waits for who should take them."""

import gzip
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from deploy.local.ports import free_port
from shared import service
from shared.settings import TracingSettings
from shared.testing import eventually
from shared.tracing import spans
from shared.tracing.exporting import exported

VERSION = "1.2.3"
_SAMPLED = 0x01
_VARIABLES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_SAMPLER",
    "TENURE_TRACES_FILE",
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    level = logging.getLogger("opentelemetry").level
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # as `configure_logs` does
    yield
    logging.getLogger("opentelemetry").setLevel(level)


class Collector(ThreadingHTTPServer):
    """Somebody who takes OTLP over HTTP.

    Attributes:
        taken: the path and the content of what has come.
        may_answer: unset, it takes what comes and keeps its sender waiting.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.taken: list[tuple[str, ExportTraceServiceRequest]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def names(self) -> list[str]:
        requests = (request for _, request in self.taken)
        resources = (each for request in requests for each in request.resource_spans)
        return [span.name for each in resources for scope in each.scope_spans for span in scope.spans]


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        content = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        self.server.taken.append((self.path, ExportTraceServiceRequest.FromString(content)))
        self.server.may_answer.wait(20)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        serving = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        yield collector
        collector.may_answer.set()
        collector.shutdown()
        serving.join()


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> TracingSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return TracingSettings()


def do_something(name: str = "something", *, where: str = "billing") -> str:
    span = spans.start(where, name, attributes={"tenure.tenant_id": "t1", "nothing": None})
    span.end()
    return spans.traceparent_of(span) or ""


def test_nothing_is_traced_where_nothing_is_said() -> None:
    with exported(TracingSettings(), version=VERSION) as exporting:
        assert (exporting, spans.is_on(), do_something()) == (None, False, "")


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"TENURE_TRACES_FILE": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_what_is_empty_or_disabled_is_off(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    assert not settings(monkeypatch, **variables).is_on


def test_a_file_gets_a_line_for_each_span(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    with exported(settings(monkeypatch, TENURE_TRACES_FILE=str(path)), version=VERSION):
        traceparent = do_something()
        do_something("another", where="tenant")

    found = {line["name"]: line for line in map(json.loads, path.read_text().splitlines())}
    assert found.keys() == {"something", "another"}
    assert found["something"]["context"]["trace_id"] == f"0x{traceparent[3:35]}"
    assert found["something"]["attributes"] == {"tenure.tenant_id": "t1"}
    about = found["another"]["resource"]["attributes"]
    names = ("service.namespace", "service.name", "service.version")
    assert tuple(about[name] for name in names) == ("tenure", "tenant", VERSION)
    assert not spans.is_on()


def test_several_blocks_append_to_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    for _ in range(2):
        with exported(settings(monkeypatch, TENURE_TRACES_FILE=str(path)), version=VERSION):
            do_something()

    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_a_collector_gets_spans_by_otlp(monkeypatch: pytest.MonkeyPatch, collector: Collector, name: str) -> None:
    url = collector.url if name.endswith("OTLP_ENDPOINT") else f"{collector.url}/v1/traces"
    with exported(settings(monkeypatch, **{name: url}), version=VERSION):
        do_something()

    assert [path for path, _ in collector.taken] == ["/v1/traces"]
    assert collector.names() == ["something"]


async def test_a_collector_that_is_away_holds_up_nobody_and_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.tracing.pipeline._CLOSE_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    nobody = f"http://127.0.0.1:{free_port()}"
    with (
        capture_logs() as logs,
        exported(settings(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=nobody), version=VERSION),
    ):
        before = time.monotonic()
        for _ in range(3000):
            do_something()
        assert time.monotonic() - before < 8
        await eventually(lambda: "traces_unavailable" in [line["action"] for line in logs])
        before = time.monotonic()

    assert time.monotonic() - before < 8
    assert [line["action"] for line in logs].count("traces_unavailable") == 1


def test_a_collector_that_does_not_answer_is_left_after_seconds(
    monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    monkeypatch.setattr("shared.tracing.pipeline._CLOSE_SECONDS", 0.2)
    collector.may_answer.clear()
    with (
        capture_logs() as logs,
        exported(settings(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url), version=VERSION),
    ):
        do_something()
        before = time.monotonic()

    assert time.monotonic() - before < 8
    assert [line["action"] for line in logs] == ["traces_lost"]


def test_a_file_that_cannot_be_written_is_told_of_and_over_when_it_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "later"
    with (
        capture_logs() as logs,
        exported(settings(monkeypatch, TENURE_TRACES_FILE=str(folder / "traces.jsonl")), version=VERSION) as exporting,
    ):
        assert exporting is not None
        do_something("lost")
        exporting.flush()
        folder.mkdir()
        do_something("kept")
        exporting.flush()

    assert [line["action"] for line in logs] == ["traces_unavailable", "traces_exported"]
    assert [json.loads(line)["name"] for line in (folder / "traces.jsonl").read_text().splitlines()] == ["kept"]


def test_a_service_traces_as_long_as_it_runs_where_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def serve(*_: Any) -> None:
        do_something("served")

    def settings_class(**_: Any) -> Any:
        return SimpleNamespace(log_format="json", log_level="info")

    path = tmp_path / "traces.jsonl"
    monkeypatch.setenv("TENURE_TRACES_FILE", str(path))
    monkeypatch.setattr(service, "_serve_one", serve)
    monkeypatch.setattr(service, "configure_logs", lambda **_: None)

    service.main(cast("Any", None), cast("Any", settings_class))

    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == ["served"]


def test_sampling_is_as_the_standard_variables_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    with exported(settings(monkeypatch, TENURE_TRACES_FILE=str(path)), version=VERSION):
        assert not int(do_something()[-2:], 16) & _SAMPLED

    assert not path.exists()


def test_who_traces_nothing_does_not_load_what_exports() -> None:
    look = "import sys, shared.service; print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    environment = {key: value for key, value in os.environ.items() if key not in _VARIABLES}
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, env=environment)

    assert found.stdout.strip() == "[]"
