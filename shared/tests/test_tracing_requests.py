"""HTTP requests as spans, and the log lines that belong to them."""

import json
import logging
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
import structlog
from fastapi import APIRouter
from opentelemetry.trace import StatusCode, use_span
from structlog.testing import capture_logs

from shared.http import create_api, everybody
from shared.logs import NOISY, add_trace, configure_logs
from shared.testing.spans import Collected, collecting, id_of, parent_of, trace_of
from shared.tracing import spans

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collected() -> Iterator[Collected]:
    with collecting() as collected:
        yield collected


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    router = APIRouter(dependencies=[everybody()])

    @router.get("/v1/pets/{pet_id}")
    async def pet(pet_id: str) -> dict[str, str | None]:
        if pet_id == "broken":
            raise RuntimeError("a secret")
        structlog.get_logger().info("looked", action="looked")
        return {"traceparent": spans.current()}

    async def fine() -> None:
        """Be ready."""

    api = create_api("billing", routers=[router], admin_key="a-key", checks={"fine": fine}, version="1")
    transport = httpx2.ASGITransport(api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://tenure.example") as client:
        yield client


async def test_a_request_is_a_span_in_the_trace_of_its_client(client: httpx2.AsyncClient, collected: Collected) -> None:
    answer = await client.get("/v1/pets/rex?key=hidden", headers={"traceparent": CLIENT, "x-request-id": "r1"})

    [span] = collected.spans
    assert answer.json() == {"traceparent": spans_of(span)}
    assert (span.name, span.kind.name) == ("GET /v1/pets/{pet_id}", "SERVER")
    assert (f"{trace_of(span):032x}", f"{parent_of(span):016x}") == (CLIENT[3:35], CLIENT[36:52])
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/v1/pets/{pet_id}",
        "http.response.status_code": 200,
        "url.path": "/v1/pets/rex",
        "url.scheme": "http",
        "tenure.request_id": "r1",
    }
    assert span.status.status_code is StatusCode.UNSET


def spans_of(span: object) -> str:
    context = span.get_span_context()  # type: ignore[attr-defined]  # of the SDK's own class
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


@pytest.mark.parametrize("header", ["nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", CLIENT + "\x00", "é"])
async def test_a_traceparent_that_is_none_begins_a_trace(
    client: httpx2.AsyncClient, collected: Collected, header: str
) -> None:
    answer = await client.get("/v1/pets/rex", headers=[(b"traceparent", header.encode())])

    [span] = collected.spans
    assert (answer.status_code, parent_of(span)) == (200, None)


async def test_a_failure_says_so_and_no_more(client: httpx2.AsyncClient, collected: Collected) -> None:
    assert (await client.get("/v1/pets/broken")).status_code == 500
    assert (await client.get("/nowhere")).status_code == 404

    failed, unknown = collected.spans
    assert (failed.status.status_code, (failed.attributes or {})["error.type"]) == (StatusCode.ERROR, "500")
    assert "a secret" not in failed.to_json()
    assert (unknown.name, unknown.status.status_code) == ("GET", StatusCode.UNSET)


async def test_what_is_asked_all_the_time_is_not_traced(client: httpx2.AsyncClient, collected: Collected) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await client.get(path)).status_code == 200

    assert collected.spans == ()


async def test_log_lines_of_a_request_name_its_trace(client: httpx2.AsyncClient, collected: Collected) -> None:
    with capture_logs(processors=[add_trace]) as logs:
        await client.get("/v1/pets/rex")
        structlog.get_logger().info("elsewhere", action="elsewhere")

    [span] = collected.spans
    lines = {line["action"]: line for line in logs}
    for action in ("looked", "request"):
        assert lines[action]["trace_id"] == f"{trace_of(span):032x}"
        assert lines[action]["span_id"] == f"{id_of(span):016x}"
    assert "trace_id" not in lines["elsewhere"]


async def test_log_lines_name_no_trace_where_nothing_is_traced(client: httpx2.AsyncClient) -> None:
    with capture_logs(processors=[add_trace]) as logs:
        await client.get("/v1/pets/rex", headers={"traceparent": CLIENT})

    assert not [line for line in logs if {"trace_id", "span_id"} & line.keys()]


@pytest.fixture
def untouched_logs() -> Iterator[None]:
    """Put back what `configure_logs` changes for the whole process."""
    noisy = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in noisy]
    yield
    structlog.reset_defaults()
    for logger, level in zip(noisy, levels, strict=True):
        logger.setLevel(level)


def test_services_log_that_way(untouched_logs: None, capsys: pytest.CaptureFixture[str], collected: Collected) -> None:
    configure_logs(form="json", level="info")
    span = spans.start("billing", "something")
    with use_span(span):
        structlog.get_logger().info("within")

    [line] = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
