import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.local.gateway import gateway
from deploy.local.ports import free_port
from shared.http import HttpServer
from shared.testing import eventually

Serve = Callable[[ASGIApp], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Run applications on ports of their own until the test ends."""
    async with AsyncExitStack() as exits:

        async def start(app: ASGIApp) -> int:
            port = free_port()
            await exits.enter_async_context(served(app, port))
            return port

        yield start


@asynccontextmanager
async def served(app: ASGIApp, port: int) -> AsyncIterator[None]:
    server = HttpServer(app, host="127.0.0.1", port=port)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    yield
    server.should_exit = True
    await serving


@asynccontextmanager
async def origin_before(serve: Serve, port: int) -> AsyncIterator[httpx2.AsyncClient]:
    """Put a gateway before the service on a port, and a client before that."""
    async with gateway({"billing": (("/v1/plans",), f"http://127.0.0.1:{port}")}) as app:
        base_url = f"http://127.0.0.1:{await serve(app)}"
        async with httpx2.AsyncClient(base_url=base_url, timeout=10, trust_env=False) as client:
            yield client


class Echo:
    """Answers with what it was asked."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        said = [(b"x-method", scope["method"].encode()), (b"x-query", scope["query_string"])]
        said += [(b"x-path", scope["raw_path"]), (b"x-host", dict(headers)[b"host"])]
        said += [(b"x-client", value) for name, value in headers if name == b"x-forwarded-for"]
        await send({"type": "http.response.start", "status": 207, "headers": [*said, (b"keep-alive", b"no")]})
        await send({"type": "http.response.body", "body": body})


class Stream:
    """Sends a line, then nothing until it is let go on; notes when its client is gone."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        going_on = asyncio.create_task(self.go_on.wait())
        leaving = asyncio.ensure_future(receive())
        await asyncio.wait([going_on, leaving], return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            self.gone.set()
        else:
            await send({"type": "http.response.body", "body": b"second"})
        going_on.cancel()
        leaving.cancel()


class Dies:
    """Reads the request and hangs up."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        self.asked += 1
        writer.close()


async def test_a_request_is_handed_on_as_it_is(serve: Serve) -> None:
    async with origin_before(serve, await serve(Echo())) as client:
        body = b"x" * (1024 * 1024)
        answer = await client.request("PUT", "/v1/plans/a%2Fb?q=%C3%A9&limit=1", content=body)
    assert answer.status_code == 207
    assert answer.content == body
    assert answer.headers["x-method"] == "PUT"
    assert answer.headers["x-path"] == "/v1/plans/a%2Fb"
    assert answer.headers["x-query"] == "q=%C3%A9&limit=1"
    assert answer.headers["x-host"] == f"127.0.0.1:{client.base_url.port}"
    assert "keep-alive" not in answer.headers


async def test_a_service_is_told_who_asks_by_who_is_nearest(serve: Serve) -> None:
    async with origin_before(serve, await serve(Echo())) as client:
        plain = await client.get("/v1/plans")
        behind_a_proxy = await client.get("/v1/plans", headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.9"})

    assert plain.headers.get_list("x-client") == ["127.0.0.1"]
    assert behind_a_proxy.headers.get_list("x-client") == ["203.0.113.9"]


async def test_an_answer_arrives_piece_by_piece(serve: Serve) -> None:
    stream = Stream()
    async with origin_before(serve, await serve(stream)) as client, client.stream("GET", "/v1/plans") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"first"  # while the service has not said the rest
        stream.go_on.set()
        assert [piece async for piece in pieces] == [b"second"]


async def test_a_service_is_told_when_its_client_has_left(serve: Serve) -> None:
    stream = Stream()
    async with origin_before(serve, await serve(stream)) as client:
        async with client.stream("GET", "/v1/plans") as answer:
            assert await anext(answer.aiter_raw()) == b"first"
        async with asyncio.timeout(5):
            await stream.gone.wait()


async def test_a_service_that_is_away_is_a_problem_to_be_retried(serve: Serve) -> None:
    async with origin_before(serve, free_port()) as client:
        answer = await client.get("/v1/plans")
        assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, "service_away", "1")
        assert answer.json()["retryable"] is True
        readiness = await client.get("/readyz")
        assert (readiness.status_code, readiness.json()["code"]) == (503, "not_ready")
        assert "billing" in readiness.json()["detail"]
        assert (await client.get("/openapi.json")).json()["code"] == "service_away"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/nowhere")).status_code == 404


async def test_a_service_that_hangs_up_is_a_problem_and_not_asked_twice(serve: Serve) -> None:
    dies = Dies()
    server = await asyncio.start_server(dies, "127.0.0.1", 0)
    async with server, origin_before(serve, server.sockets[0].getsockname()[1]) as client:
        answer = await client.post("/v1/plans", json={})
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (502, "service_lost", "1")
    assert dies.asked == 1


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_over_the_limit_never_reaches_a_service(serve: Serve, is_announced: bool) -> None:  # noqa: FBT001
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b"x" * 65_536

    async with origin_before(serve, await serve(Echo())) as client:
        answer = await client.post("/v1/plans", content=b"x" * (1024 * 1024 + 1) if is_announced else pieces())
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
