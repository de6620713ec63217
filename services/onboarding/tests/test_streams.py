"""Server-sent events: everything once, in order, to whoever comes back wherever."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import httpx2
import pytest

from services.onboarding import handlers
from services.onboarding.engine import Engine
from services.onboarding.streams import Streams
from services.onboarding.tests.catalogue import MINIMAL, answers
from services.onboarding.tests.support import IDS, KEY, Desk, Replica, blocked, go_on, hear, kinds, open_desk, told
from shared.clock import SystemClock
from shared.http import HttpServer
from shared.postgres import Pool, transaction
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker

pytestmark = pytest.mark.timeout(30)

Event = tuple[int, str, dict[str, Any]]


@pytest.fixture
async def streams(desk: Desk) -> AsyncIterator[Streams]:
    """The streams of one replica."""
    async with watching(desk) as streams:
        yield streams


@pytest.fixture
async def other_streams(database_url: str, broker: MemoryBroker) -> AsyncIterator[Streams]:
    """The streams of a replica on which nothing ever happens."""
    async with open_desk(database_url, broker, is_open=False) as desk, watching(desk) as streams:
        yield streams


@asynccontextmanager
async def watching(desk: Desk) -> AsyncIterator[Streams]:
    """Let a replica look for what happens, and stream it."""
    running = asyncio.create_task(desk.watch.run())
    try:
        yield Streams(desk.pool, desk.watch)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """Read a stream as a browser does: the number, the name and the data of each event."""
    async for chunk in chunks:
        fields = dict(line.split(": ", 1) for line in chunk.decode().strip().split("\n") if not line.startswith(":"))
        assert chunk.endswith(b"\n\n")
        if "data" in fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])


async def everything(chunks: Any) -> list[Event]:
    async with aclosing(chunks):
        return [event async for event in events(chunks)]


async def test_a_finished_workflow_is_told_from_its_start_to_its_end(desk: Desk, streams: Streams, pool: Pool) -> None:
    workflow_id = await desk.start()
    await go_on(pool, workflow_id, refuse="open-account")

    told_of = await everything(streams.workflow(workflow_id, after=0))

    assert [name for _, name, _ in told_of] == await kinds(pool, workflow_id)
    assert [number for number, _, _ in told_of] == list(range(1, len(told_of) + 1))
    assert told_of[-1][1] == "compensated"
    assert told_of[1][2].keys() >= {"seq", "workflowId", "tenantId", "at", "kind", "step", "attempt", "detail"}
    assert {data["workflowId"] for _, _, data in told_of} == {str(workflow_id)}


async def test_whoever_comes_back_goes_on_where_it_stopped_on_any_replica(
    desk: Desk, streams: Streams, other_streams: Streams, pool: Pool
) -> None:
    workflow_id = await desk.start()
    await go_on(pool, workflow_id)
    whole = await everything(streams.workflow(workflow_id, after=0))

    for last in (1, 7, len(whole) - 1, len(whole), len(whole) + 5):
        assert await everything(other_streams.workflow(workflow_id, after=last)) == whole[last:]


async def test_a_long_history_is_told_whole(
    desk: Desk, streams: Streams, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.onboarding.streams._PAGE", 3)
    workflow_id = await desk.start()
    await go_on(pool, workflow_id)

    assert [name for _, name, _ in await everything(streams.workflow(workflow_id, after=0))] == (
        await kinds(pool, workflow_id)
    )


async def test_what_happens_is_told_as_it_happens_until_the_end(
    desk: Desk, streams: Streams, other_streams: Streams, pool: Pool
) -> None:
    workflow_id = await desk.start()
    seen: list[list[str]] = [[], []]
    listeners = [
        asyncio.create_task(_listen(each, workflow_id, names))
        for each, names in zip((streams, other_streams), seen, strict=True)
    ]
    await eventually(lambda: seen == [["started", "asked"]] * 2)

    await go_on(pool, workflow_id, until=("activate-tenant",))
    await eventually(lambda: [names[-1:] for names in seen] == [["asked"]] * 2 and len(seen[1]) > 6)
    assert not [listener for listener in listeners if listener.done()]
    await go_on(pool, workflow_id)

    await asyncio.gather(*listeners)
    assert seen == [await kinds(pool, workflow_id)] * 2


async def _listen(streams: Streams, workflow_id: UUID, names: list[str]) -> None:
    async for _, name, _ in events(streams.workflow(workflow_id, after=0)):
        names.append(name)


async def test_the_end_is_told_even_if_it_comes_while_somebody_looks(desk: Desk, streams: Streams, pool: Pool) -> None:
    """The stream has to find out two things, what is new and whether it is over, and the end comes in between."""
    workflow_id = await desk.start()
    await go_on(pool, workflow_id, until=("activate-tenant",))
    so_far = len(await kinds(pool, workflow_id))
    async with transaction(pool) as connection:
        await connection.execute("LOCK TABLE workflow")
        listener = asyncio.create_task(everything(streams.workflow(workflow_id, after=so_far)))
        await eventually(lambda: _is_blocked(pool))
        activated = told(workflow_id, "activate-tenant", answers()["activate-tenant"])
        engine = Engine(clock=SystemClock(), ids=IDS)
        await handlers.continue_workflows(connection, [activated], engine=engine)

    assert [name for _, name, _ in await listener] == ["succeeded", "completed"]


async def _is_blocked(pool: Pool) -> bool:
    return await blocked(pool) > 0


async def test_what_comes_late_does_not_keep_the_stream_open(desk: Desk, streams: Streams, pool: Pool) -> None:
    workflow_id = await desk.start()
    await go_on(pool, workflow_id)
    await hear(pool, told(workflow_id, "open-account", answers()["open-account"]))

    told_of = await everything(streams.workflow(workflow_id, after=0))

    assert [name for _, name, _ in told_of][-2:] == ["completed", "late_success"]


async def test_while_nothing_happens_the_line_is_kept_open(
    desk: Desk, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.onboarding.streams.HEARTBEAT_SECONDS", 0.01)
    workflow_id = await desk.start()
    stream: Any = streams.workflow(workflow_id, after=2)

    async with aclosing(stream), asyncio.timeout(5):
        chunks = [await anext(stream) for _ in range(3)]

    assert chunks[0].startswith(b"retry: ")
    assert chunks[1].startswith(b":")
    assert chunks[2].startswith(b":")


async def test_whoever_stops_listening_is_forgotten(desk: Desk, streams: Streams) -> None:
    workflow_id = await desk.start()
    listener = asyncio.create_task(everything(streams.workflow(workflow_id, after=2)))
    await eventually(lambda: workflow_id in desk.watch._workflows.waiting)

    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)

    assert not desk.watch._workflows.waiting


# A tenant's


async def test_a_tenant_is_told_of_its_own_workflows_only_and_to_their_end(
    desk: Desk, streams: Streams, other_streams: Streams, pool: Pool
) -> None:
    ours, theirs = (await desk.submit("Acme")).workflow, (await desk.submit("Bolt")).workflow
    stream: Any = other_streams.tenant(ours["tenantId"], after=0)
    heard: list[Event] = []

    async def listen() -> None:
        async for event in events(stream):
            heard.append(event)  # noqa: PERF401 - looked at while it grows

    listener = asyncio.create_task(listen())
    await go_on(pool, UUID(theirs["id"]))
    await go_on(pool, UUID(ours["id"]))
    async with asyncio.timeout(10):
        await listener

    assert heard[-1][1] == "completed"
    assert [name for _, name, _ in heard] == await kinds(pool, UUID(ours["id"]))
    assert {data["workflowId"] for _, _, data in heard} == {ours["id"]}
    assert [number for number, _, _ in heard] == sorted({number for number, _, _ in heard})

    again: Any = streams.tenant(ours["tenantId"], after=heard[4][0])
    async with aclosing(again):
        rest = events(again)
        assert [event async for event in rest] == heard[5:]


async def test_who_has_heard_of_the_end_waits_for_what_happens_to_the_tenant_next(
    desk: Desk, streams: Streams, pool: Pool
) -> None:
    workflow = (await desk.submit("Acme")).workflow
    await go_on(pool, UUID(workflow["id"]))
    ended: Any = streams.tenant(workflow["tenantId"], after=0)
    last = [event async for event in events(ended)][-1]

    waiting: Any = streams.tenant(workflow["tenantId"], after=last[0])
    async with aclosing(waiting):
        assert await anext(waiting)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(waiting)


# Over HTTP


async def test_a_stream_arrives_event_by_event_and_closes(replica: Replica, pool: Pool) -> None:
    async with serving(replica) as client:
        workflow_id = (await client.post("/v1/onboardings", json=MINIMAL)).json()["id"]
        path = f"/v1/workflows/{workflow_id}/events"
        async with client.stream("GET", path, headers={"Last-Event-ID": "1"}) as answer:
            lines = answer.aiter_lines()
            first = [line async for line in lines_until(lines, "event: ")][-1]
            await go_on(pool, UUID(workflow_id))
            rest = [line async for line in lines]

    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert first == "event: asked"
    assert [line for line in rest if line.startswith("event: ")][-1] == "event: completed"


async def test_a_stream_may_be_resumed_at_another_replica(replica: Replica, other_replica: Replica, pool: Pool) -> None:
    workflow = (await replica.client.post("/v1/onboardings", json=MINIMAL)).json()
    await go_on(pool, UUID(workflow["id"]))
    path = workflow["links"]["events"]

    whole = (await replica.client.get(path)).text
    rest = (await other_replica.client.get(path, headers={"Last-Event-ID": "10"})).text

    assert whole.count("event: ") == len(await kinds(pool, UUID(workflow["id"])))
    assert rest.removeprefix("retry: 2000\n\n") == whole[whole.index("id: 11\n") :]


async def lines_until(lines: AsyncIterator[str], beginning: str) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line.startswith(beginning):
            return


@asynccontextmanager
async def serving(replica: Replica) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve a replica on a free port, as in production."""
    server = HttpServer(replica.service.api, host="127.0.0.1", port=0)
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    host, port = server.servers[0].sockets[0].getsockname()
    authorization = {"Authorization": f"Bearer {KEY}"}
    try:
        async with httpx2.AsyncClient(base_url=f"http://{host}:{port}", headers=authorization) as client:
            yield client
    finally:
        server.should_exit = True
        await running
