"""The server behind a real socket: what is turned away unread, and what is not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from shared.http import HttpServer
from shared.http import server as module
from shared.http.refusal import Head, Heads, IsClosed
from shared.testing.eventually import eventually

CLOSED = "/v1/orders"


@dataclass
class Application:
    """Answers everything, as soon as it may."""

    called: list[str] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.called.append(scope["path"])
        await self.may_answer.wait()
        await receive()
        await PlainTextResponse("done")(scope, receive, send)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A connection on which bytes are sent as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            while (head := (await self.reader.readuntil(b"\r\n\r\n")).decode()).startswith("HTTP/1.1 100"):
                pass
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(first.split()[1]), headers, body)

    async def ask(self, path: str, *, body: bytes = b"{}", headers: str = "") -> Answer:
        self.writer.write(request(path, body=body, headers=headers))
        return await self.answer()


def request(path: str, *, body: bytes = b"{}", headers: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@pytest.fixture
def application() -> Application:
    application = Application()
    application.may_answer.set()
    return application


@pytest.fixture
async def client(application: Application) -> AsyncIterator[Client]:
    async with serving(application) as port, connected(port) as client:
        yield client


def closed(method: str, path: str) -> bool:
    return (method, path) == ("POST", CLOSED)


@asynccontextmanager
async def serving(application: Application, is_closed: IsClosed = closed) -> AsyncIterator[int]:
    server = HttpServer(application, host="127.0.0.1", port=0, is_closed=is_closed)
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    application.may_answer.set()
    server.should_exit = True
    await running


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield Client(reader, writer)
    writer.close()


async def test_what_is_turned_away_is_told_when_to_come_back(client: Client, application: Application) -> None:
    answer = await client.ask(CLOSED)

    problem = json.loads(answer.body)
    assert answer.status == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert 1 <= int(answer.headers["retry-after"]) <= 5
    assert (problem["code"], problem["instance"], problem["retryable"]) == ("overloaded", CLOSED, True)
    assert application.called == []


async def test_not_all_are_told_the_same_time(client: Client) -> None:
    told = {(await client.ask(CLOSED)).headers["retry-after"] for _ in range(60)}

    assert len(told) > 1


async def test_a_refusal_names_its_request(client: Client) -> None:
    given = await client.ask(CLOSED, headers="X-Request-Id: of-the-client\r\n")
    made = [(await client.ask(CLOSED)).headers["x-request-id"] for _ in range(2)]
    forged = await client.ask(CLOSED, headers="X-Request-Id: a b\r\n")
    again = await client.ask(CLOSED, headers="X-Request-Id: of-the-client\r\n")

    assert given.headers["x-request-id"] == again.headers["x-request-id"] == "of-the-client"
    assert made[0] != made[1]
    assert forged.headers["x-request-id"] not in {"a b", *made}


async def test_the_connection_goes_on(client: Client, application: Application) -> None:
    statuses = [(await client.ask(path)).status for path in (CLOSED, "/open", CLOSED, CLOSED, "/open")]

    assert statuses == [503, 200, 503, 503, 200]
    assert application.called == ["/open", "/open"]


async def test_the_same_request_is_refused_in_the_same_way_again(client: Client, application: Application) -> None:
    answers = [await client.ask(CLOSED) for _ in range(3)]

    assert len({tuple(answer.headers) for answer in answers}) == 1
    assert len({answer.body for answer in answers}) == 1
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert application.called == []


async def test_what_was_refused_before_is_read_once_there_is_room(application: Application) -> None:
    is_full = True
    async with serving(application, is_closed=lambda _, __: is_full) as port, connected(port) as client:
        refused = [(await client.ask(CLOSED)).status for _ in range(3)]
        is_full = False
        read = [(await client.ask(CLOSED)).status for _ in range(2)]
        is_full = True

        assert refused + read == [503, 503, 503, 200, 200]
        assert (await client.ask(CLOSED)).status == 503
        assert application.called == [CLOSED, CLOSED]


async def test_each_request_is_asked_for_once(application: Application) -> None:
    asked: list[str] = []
    is_full = True

    def is_closed(_: str, path: str) -> bool:
        asked.append(path)
        return is_full

    async with serving(application, is_closed=is_closed) as port, connected(port) as client:
        refused = [(await client.ask(CLOSED)).status for _ in range(2)]
        is_full = False
        read = [(await client.ask(path)).status for path in (CLOSED, CLOSED, "/open")]
        is_full = True
        again = [(await client.ask(path)).status for path in (CLOSED, "/open")]

    assert refused + read + again == [503, 503, 200, 200, 200, 503, 503]
    assert asked == [CLOSED, CLOSED, CLOSED, CLOSED, "/open", CLOSED, "/open"]


async def test_the_head_of_a_refused_request_before_another_body(client: Client, application: Application) -> None:
    whole = request(CLOSED, body=b"12345678")
    await client.ask(CLOSED, body=b"12345678")

    client.writer.write(whole[:-3])  # the rest comes later
    await client.writer.drain()
    await asyncio.sleep(0.05)
    client.writer.write(whole[-3:])
    assert (await client.answer()).status == 503
    for _ in range(2):
        client.writer.write(whole + request("/open"))  # two at once
        assert [(await client.answer()).status for _ in range(2)] == [503, 200]
    client.writer.write(whole)
    assert (await client.answer()).status == 503
    assert application.called == ["/open", "/open"]


async def test_two_refusals_at_once(client: Client) -> None:
    for _ in range(3):
        client.writer.write(request(CLOSED) * 2)
        assert [(await client.answer()).status for _ in range(2)] == [503, 503]


@pytest.mark.parametrize("path", ["/open", CLOSED])
async def test_refused_bytes_inside_of_a_body_are_a_body(client: Client, path: str) -> None:
    known = request(CLOSED)
    await client.ask(CLOSED)
    head, _, _ = request(path, body=known).partition(b"\r\n\r\n")

    client.writer.write(head + b"\r\n\r\n")
    await client.writer.drain()
    await asyncio.sleep(0.05)
    client.writer.write(known)

    assert (await client.answer()).status == (503 if path == CLOSED else 200)
    assert (await client.ask("/open")).status == 200


async def test_the_head_of_a_refused_request_in_pieces(client: Client) -> None:
    whole = request(CLOSED, body=b"")
    for _ in range(3):
        client.writer.write(whole[:20])
        await client.writer.drain()
        await asyncio.sleep(0.05)
        client.writer.write(whole[20:])

        assert (await client.answer()).status == 503
    assert (await client.ask("/open")).status == 200


def test_no_more_heads_are_kept_than_are_of_use() -> None:
    heads = Heads()
    for number in range(3000):
        heads.keep(request(f"/{number}"), Head("POST", f"/{number}", 2))
    heads.keep(request("/long", headers=f"X: {'x' * 5000}\r\n"), Head("POST", "/long", 2))

    assert heads.find(request("/2999")) == ("POST", "/2999", 2)
    assert heads.find(request("/0")) is None
    assert heads.find(request("/long", headers=f"X: {'x' * 5000}\r\n")) is None


async def test_a_body_in_pieces_is_dropped(client: Client, application: Application) -> None:
    head, _, _ = request(CLOSED, body=b"x" * 200_000).partition(b"\r\n\r\n")
    client.writer.write(head + b"\r\n\r\n")
    for _ in range(20):
        client.writer.write(b"x" * 10_000)
        await client.writer.drain()

    assert (await client.answer()).status == 503
    assert (await client.ask("/open")).status == 200
    assert application.called == ["/open"]


async def test_other_methods_and_paths_are_let_through(client: Client) -> None:
    client.writer.write(b"GET " + CLOSED.encode() + b" HTTP/1.1\r\nHost: test\r\n\r\n")

    assert (await client.answer()).status == 200
    assert (await client.ask(f"{CLOSED}/1")).status == 200
    assert (await client.ask(f"{CLOSED}?dry=1")).status == 503


async def test_whoever_wants_the_connection_closed_gets_that(client: Client) -> None:
    answer = await client.ask(CLOSED, headers="Connection: close\r\n")

    assert answer.status == 503
    assert answer.headers["connection"] == "close"
    async with asyncio.timeout(2):
        assert await client.reader.read() == b""


async def test_a_connection_on_which_nothing_follows_is_closed(client: Client) -> None:
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        assert (await client.ask(CLOSED)).status == 503
        await asyncio.sleep(2)

    async with asyncio.timeout(10):
        assert await client.reader.read() == b""
    assert asyncio.get_running_loop().time() - began > 8  # uvicorn waits for five seconds after the last


async def test_a_request_behind_one_that_is_being_answered_waits_its_turn(application: Application) -> None:
    application.may_answer.clear()
    async with serving(application) as port, connected(port) as client:
        client.writer.write(request("/open") + request(CLOSED))
        await eventually(lambda: application.called == ["/open"])
        application.may_answer.set()

        assert [(await client.answer()).status for _ in range(2)] == [200, 200]


async def test_a_refused_request_behind_one_that_is_being_answered_waits_its_turn(application: Application) -> None:
    async with serving(application) as port, connected(port) as client:
        await client.ask(CLOSED)
        application.may_answer.clear()
        client.writer.write(request("/open"))
        await eventually(lambda: application.called == ["/open"])
        client.writer.write(request(CLOSED))
        await client.writer.drain()
        await asyncio.sleep(0.05)
        application.may_answer.set()

        assert [(await client.answer()).status for _ in range(2)] == [200, 200]


async def test_who_asks_before_sending_the_body_is_answered_by_the_application(client: Client) -> None:
    answer = await client.ask(CLOSED, headers="Expect: 100-continue\r\n")

    assert answer.status == 200


async def test_who_wants_another_protocol_is_answered_by_the_application(client: Client) -> None:
    answer = await client.ask(CLOSED, body=b"", headers="Connection: Upgrade\r\nUpgrade: h2c\r\n")

    assert answer.status == 200


async def test_what_is_no_http_is_told_so_as_everything_else_is(client: Client, application: Application) -> None:
    client.writer.write(b"GET /open HTTP/1.1\r\nHost: test\r\nX-Odd: \x01\r\n\r\n")
    answer = await client.answer()

    problem = json.loads(answer.body)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert (problem["code"], problem["detail"]) == ("malformed_request", "Invalid HTTP request received.")
    assert (answer.headers["connection"], "x-request-id" in answer.headers) == ("close", True)
    assert application.called == []


async def test_a_crowd_is_told_to_come_back(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    application.may_answer.clear()
    async with serving(application) as port, connected(port) as first, connected(port) as second:
        first.writer.write(request("/open"))
        assert (await second.ask(CLOSED)).status == 503
        await eventually(lambda: application.called == ["/open"])
        async with connected(port) as third:
            answer = await third.ask("/open")

            assert (answer.status, json.loads(answer.body)["code"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1


async def test_a_server_that_turns_nobody_away(application: Application) -> None:
    server = HttpServer(application, host="127.0.0.1", port=0)
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    async with connected(server.servers[0].sockets[0].getsockname()[1]) as client:
        assert (await client.ask(CLOSED)).status == 200
    server.should_exit = True
    await running
