"""The whole system in one process on real servers, and what a test needs to use it, watch it and disturb it."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aio_pika
import httpx2
import pytest
from aio_pika.abc import AbstractIncomingMessage

from deploy.audit import Audit, audit
from deploy.local.ports import free_port
from deploy.local.stack import Stack, running_stack
from deploy.local.system import built_services, origin_of
from services.provisioning.jobs.settling import Settling
from shared.contracts import Ask
from shared.contracts.provisioning import StepProgressed
from shared.messaging.bus import Bus
from shared.messaging.event import Event, Outgoing
from shared.messaging.topology import STATUS_EXCHANGE
from shared.postgres import Connection
from shared.service import Ports, Service, run_all
from shared.testing import eventually

Workflow = Mapping[str, Any]

_READY_SECONDS = 30.0
_FINISHED_SECONDS = 30


@asynccontextmanager
async def throwaway_stack() -> AsyncIterator[Stack]:
    """Start Postgres and RabbitMQ in a folder of their own, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tenure-system-"))  # not pytest's: other users must reach it when we are root
    try:
        async with running_stack(folder, say=_nothing, durable=False) as stack:
            yield stack
    finally:
        shutil.rmtree(folder)


def _nothing(_: str) -> None:
    """Tell nobody."""


class MovableClock:
    """The machine's clock, which a test can put forward; waiting takes real time."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        return datetime.now(UTC) + self._ahead

    async def sleep(self, seconds: float) -> None:
        """Wait for seconds of real time."""
        await asyncio.sleep(seconds)

    def put_forward(self, seconds: float) -> None:
        """Let it be later at once: whatever is due until then is due now."""
        self._ahead += timedelta(seconds=seconds)


@dataclass(frozen=True)
class System:
    """Six running services.

    Attributes:
        services: by name.
        environment: what each was told.
        audited: the logins with which an audit reads every database.
        client: an administrator at the common origin.
        clock: of all six.
    """

    services: Mapping[str, Service]
    environment: Mapping[str, Mapping[str, str]]
    audited: Mapping[str, str]
    client: httpx2.AsyncClient
    clock: MovableClock

    async def onboard(self, customer_name: str, **fields: Any) -> Workflow:
        """Have a customer onboarded and return the accepted workflow."""
        body = {"customerName": customer_name, "adminEmails": ["ada@tenants.example"]} | fields
        answer = await self.client.post("/v1/onboardings", json=body)
        assert answer.status_code == httpx2.codes.ACCEPTED, answer.text
        accepted: Workflow = answer.json()
        return accepted

    async def finished(self, workflow: Workflow) -> Workflow:
        """Wait until a workflow has ended, and return it."""
        answer = await self.client.get(workflow["links"]["self"], params={"wait": _FINISHED_SECONDS})
        found: Workflow = answer.json()
        assert found["finishedAt"] is not None, f"not finished: {found}"
        return found

    async def history(self, workflow: Workflow) -> Sequence[Mapping[str, Any]]:
        """Return all that happened to a workflow, in order."""
        answer = await self.client.get(workflow["links"]["history"], params={"limit": 200})
        page = answer.json()
        assert page["nextCursor"] is None
        entries: Sequence[Mapping[str, Any]] = page["items"]
        return entries

    async def order(self, path: str, **body: Any) -> Workflow:
        """Have a lifecycle accepted and return its workflow."""
        answer = await self.client.post(path, json=body)
        assert answer.status_code == httpx2.codes.ACCEPTED, answer.text
        accepted: Workflow = answer.json()
        return accepted

    async def act(self, workflow: Workflow, action: str, **body: Any) -> Workflow:
        """Step in as an operator and return the workflow."""
        answer = await self.client.post(f"{workflow['links']['self']}/{action}", json={"reason": "a test"} | body)
        assert answer.status_code == httpx2.codes.OK, answer.text
        found: Workflow = answer.json()
        return found

    async def items(self, path: str, **parameters: str) -> Sequence[Mapping[str, Any]]:
        """Return the first page of a list."""
        answer = await self.client.get(path, params=parameters)
        assert answer.status_code == httpx2.codes.OK, answer.text
        items: Sequence[Mapping[str, Any]] = answer.json()["items"]
        return items

    async def audit(self) -> Audit:
        """Compare what all databases hold with how every onboarding ended."""
        return await audit(self.audited)


@asynccontextmanager
async def running_system(
    environment: Mapping[str, Mapping[str, str]],
    *,
    audited: Mapping[str, str],
    admin_key: str,
    bus: Callable[[str], Bus] | None = None,
) -> AsyncIterator[System]:
    """Run all six services in this process behind one port, until the end of the block.

    Args:
        environment: what each service is told, as in `Stack.environment`.
        audited: as in `Stack.audited`.
        bus: makes the bus of a service from its name; RabbitMQ where None.
    """
    clock, port, stopping = MovableClock(), free_port(), asyncio.Event()
    async with built_services(environment, Ports(clock=clock, bus=bus)) as services:
        running = asyncio.create_task(
            run_all(services, origin_of(services), host="127.0.0.1", port=port, stopping=stopping)
        )
        try:
            async with administrator(f"http://127.0.0.1:{port}", admin_key) as client:
                await eventually(lambda: _is_ready(client, running), within=_READY_SECONDS, describe="ready")
                yield System({each.name: each for each in services}, environment, audited, client, clock)
        finally:
            stopping.set()
            await running


def administrator(origin: str, key: str) -> httpx2.AsyncClient:
    """Return a client that the system takes for its administrator."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx2.AsyncClient(base_url=origin, headers=headers, timeout=60, trust_env=False)


async def _is_ready(client: httpx2.AsyncClient, running: asyncio.Task[None]) -> bool:
    if running.done():
        running.result()
    try:
        return (await client.get("/readyz")).status_code == httpx2.codes.OK
    except httpx2.TransportError:
        return False


class Subscriber:
    """Somebody outside who listens to what becomes of workflows.

    Attributes:
        messages: in the order of arrival.
    """

    def __init__(self) -> None:
        self.messages: list[AbstractIncomingMessage] = []

    def about(self, workflow: Workflow) -> list[AbstractIncomingMessage]:
        """Return what was told of one workflow."""
        return [message for message in self.messages if message.headers.get("ce-correlationid") == workflow["id"]]

    async def told(self, workflow: Workflow, *, count: int) -> list[AbstractIncomingMessage]:
        """Wait until so much was told of a workflow, and return it."""
        await eventually(
            lambda: len(self.about(workflow)) >= count,
            describe=lambda: f"{count} events, but: {[message.routing_key for message in self.about(workflow)]}",
        )
        return self.about(workflow)


@asynccontextmanager
async def subscribed(watcher_url: str, queue_name: str) -> AsyncIterator[Subscriber]:
    """Listen to everything on the status exchange with a queue of one's own.

    Args:
        queue_name: begins with ``sub.``; only such a queue may be made.
    """
    subscriber = Subscriber()

    async def keep(message: AbstractIncomingMessage) -> None:
        subscriber.messages.append(message)

    async with await aio_pika.connect(watcher_url, timeout=10) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(queue_name, exclusive=True)
        await queue.bind(STATUS_EXCHANGE, "#")
        await queue.consume(keep, no_ack=True)
        yield subscriber


async def let_time_run_out(
    system: System, workflow: Workflow, step: str, attempt: int, *, seconds: float, unsaid: Sequence[Outgoing]
) -> None:
    """Wait until nothing but an attempt of one step is under way, then let its time be up.

    Args:
        unsaid: what the participant would have answered; its answer to this attempt is waited for.
    """

    async def is_waiting_for_it_alone() -> bool:
        if len(unsaid) < attempt:
            return False
        found = (await system.client.get(workflow["links"]["self"])).json()
        running = [(each["name"], each["attempts"]) for each in found["steps"] if each["status"] == "running"]
        return running == [(step, attempt)]

    await eventually(is_waiting_for_it_alone, describe=f"attempt {attempt} of {step} alone")
    system.clock.put_forward(seconds)


@asynccontextmanager
async def withheld(system: System, ask: type[Ask]) -> AsyncIterator[list[Outgoing]]:
    """Let a participant do what it is asked and say nothing of it; yield what it would have said, at once or later."""
    dispatch = system.services[ask.owner].kernel.dispatch
    handle, settle = dispatch.handle, Settling.answers
    causes: set[str] = set()
    unsaid: list[Outgoing] = []

    def withhold(said: Sequence[Outgoing]) -> list[Outgoing]:
        answers = [each for each in said if json.loads(each.event).get("causationid") in causes]
        unsaid.extend(each for each in answers if each.routing_key != StepProgressed.routing_key())
        return [each for each in said if each not in answers]

    async def handle_silently(connection: Connection, events: Sequence[Event]) -> list[Outgoing]:
        causes.update(str(event.id) for event in events if isinstance(event.message, ask))
        return withhold(await handle(connection, events))

    async def settle_silently(settling: Settling, *args: Any) -> list[Outgoing]:
        return withhold(await settle(settling, *args))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "handle", handle_silently)
        patch.setattr(Settling, "answers", settle_silently)
        yield unsaid
