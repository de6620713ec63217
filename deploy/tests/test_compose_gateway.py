"""The gateway of the Compose stack, as nginx runs it, before services that say which of them was asked."""

import asyncio
import os
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from deploy.local.ports import free_port
from deploy.tests.nginx import find_nginx
from shared.contracts import SERVICES
from shared.http import HttpServer
from shared.testing import eventually

FOLDER = Path(__file__).resolve().parents[1] / "compose" / "gateway"
OWNED = [(prefix, service) for service in SERVICES for prefix in import_module(f"services.{service}.api").PATHS]
MEGABYTE = 1_048_576
STREAM = "/v1/workflows/1/events"
WHO = "/v1/sessions/who"


_AS_OURSELVES = "user root;" if os.geteuid() == 0 else ""  # nobody else may write below the test's folder


async def echo(request: Request) -> Response:
    """Say what has arrived, and for which service."""
    if request.url.path == STREAM:
        return StreamingResponse(_slowly(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
    body = await request.body()
    raw = request.scope["raw_path"].decode()
    if request.url.path == WHO:
        return JSONResponse(request.headers.getlist("x-forwarded-for"))
    return JSONResponse(
        {"service": request.headers["x-service"], "path": raw, "bytes": len(body), "query": request.url.query}
    )


async def _slowly() -> AsyncIterator[bytes]:
    yield b"data: first\n\n"
    await asyncio.sleep(30)


@pytest.fixture
async def services() -> AsyncIterator[int]:
    """Something that listens in place of every service; its port."""
    port = free_port()
    application = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST", "DELETE"])])
    server = HttpServer(application, host="127.0.0.1", port=port)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    yield port
    server.should_exit = server.force_exit = True
    await serving


@pytest.fixture
async def gateway(services: int, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of nginx with the stack's configuration, which finds the services here."""
    port = free_port()
    await asyncio.to_thread(_configure, tmp_path, {
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "http://$service:8080;": f"http://127.0.0.1:{services}; proxy_set_header X-Service $service;",
        " /tmp/": f" {tmp_path}/",
        "/dev/stdout": f"{tmp_path}/access.log",
    })  # fmt: skip
    nginx = await asyncio.to_thread(find_nginx)
    process = await asyncio.create_subprocess_exec(
        nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;",
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            await eventually(lambda: _answers(client), within=10, describe="nginx answers")
            yield client
    finally:
        process.terminate()
        await process.wait()


def _configure(folder: Path, replaced: dict[str, str]) -> None:
    text = (FOLDER / "nginx.conf").read_text(encoding="utf-8")
    for old, new in {"worker_processes auto;": f"worker_processes 1; {_AS_OURSELVES}", **replaced}.items():
        assert old in text, f"the configuration has no {old}"
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    (folder / "routes.conf").write_text((FOLDER / "routes.conf").read_text(encoding="utf-8"), encoding="utf-8")


async def _answers(client: httpx2.AsyncClient) -> bool:
    try:
        await client.get("/")
    except httpx2.TransportError:
        return False
    return True


def problem_of(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail", "instance", "code", "errors", "retryable"}
    assert problem["status"] == answer.status_code
    return problem


async def test_a_path_goes_to_the_service_that_owns_it(gateway: httpx2.AsyncClient) -> None:
    for prefix, service in OWNED:
        for path in (prefix, f"{prefix}/one", f"{prefix}/one/two"):
            assert (await gateway.get(path)).json()["service"] == service, path


async def test_what_nobody_owns_goes_to_the_origin(gateway: httpx2.AsyncClient) -> None:
    paths = ["/", "/readyz", "/docs", "/openapi.json", "/metrics", "/services/billing/healthz", "/v1", "/nonsense"]
    for path in [*paths, *(f"{prefix}s-and-more" for prefix, _ in OWNED)]:
        assert (await gateway.get(path)).json()["service"] == "origin", path


async def test_a_request_is_handed_on_as_it_came(gateway: httpx2.AsyncClient) -> None:
    answer = await gateway.post("/v1/plans/a%2Fb%20c?x=%26&y=1", content=b"x" * MEGABYTE)

    assert answer.json() == {
        "service": "billing",
        "path": "/v1/plans/a%2Fb%20c",
        "bytes": MEGABYTE,
        "query": "x=%26&y=1",
    }


@pytest.mark.parametrize(
    ("said", "believed"),
    [("", "127.0.0.1"), ("203.0.113.9", "203.0.113.9"), ("198.51.100.1, 203.0.113.9", "203.0.113.9")],
)
async def test_who_asks_is_told_by_who_is_nearest(gateway: httpx2.AsyncClient, said: str, believed: str) -> None:
    answer = await gateway.get(WHO, headers={"X-Forwarded-For": said} if said else {})

    assert answer.json() == [believed]


async def test_a_stream_arrives_piece_by_piece(gateway: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(5), gateway.stream("GET", STREAM) as answer:
        async for piece in answer.aiter_bytes():
            assert piece == b"data: first\n\n"
            break


async def test_a_service_that_is_away_is_a_problem_that_says_to_come_back(
    gateway: httpx2.AsyncClient, tmp_path: Path
) -> None:
    text = (tmp_path / "nginx.conf").read_text(encoding="utf-8")
    (tmp_path / "nginx.conf").write_text(
        text.replace("proxy_pass http://127.0.0.1:", "proxy_pass http://127.0.0.1:1; # "), encoding="utf-8"
    )
    nginx = await asyncio.to_thread(find_nginx)
    reload = await asyncio.create_subprocess_exec(
        nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-s", "reload"
    )
    assert await reload.wait() == 0

    async def is_away() -> bool:
        return (await gateway.post('/v1/plans/"quoted"')).status_code == httpx2.codes.SERVICE_UNAVAILABLE

    await eventually(is_away)
    answer = await gateway.post('/v1/plans/"quoted"')
    problem = problem_of(answer)
    assert (problem["code"], problem["retryable"], problem["instance"]) == ("service_away", True, "/")
    assert "billing" in problem["detail"]
    assert answer.headers["retry-after"] == "1"


async def test_what_is_too_large_or_no_request_is_a_problem_too(gateway: httpx2.AsyncClient) -> None:
    large = await gateway.post("/v1/plans", content=b"x" * (3 * MEGABYTE))
    malformed = await gateway.get("/v1/plans", headers={"X-Long": "x" * 40_000})

    assert problem_of(large)["code"] == "body_too_large"
    assert problem_of(malformed)["code"] == "malformed_request"
