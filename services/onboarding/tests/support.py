"""What the tests of this service say again and again."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
import orjson
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from services.onboarding import handlers, queries
from services.onboarding.app import build
from services.onboarding.definition import Definition
from services.onboarding.engine import Engine
from services.onboarding.intake import Accepted, Application, Intake
from services.onboarding.lifecycles import DEFINITIONS
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.orders import Order
from services.onboarding.pressure import Pressure
from services.onboarding.saga import TimerDue
from services.onboarding.settings import OnboardingSettings
from services.onboarding.storage import Stored, load
from services.onboarding.tests.catalogue import CATALOG, REQUEST, answers, refusals, undone
from services.onboarding.watch import Watch
from shared.audit import Actor
from shared.clock import Clock, ManualClock, SystemClock
from shared.contracts.base import Fact
from shared.contracts.tenant import CatalogPublished
from shared.ids import TimeOrderedIds
from shared.messaging import outbox
from shared.messaging.event import Event, decode
from shared.postgres import Pool, open_pool, transaction
from shared.service import Kernel, Ports, Service
from shared.testing.memory_bus import MemoryBroker, MemoryBus

KEY = "a-key-of-the-administrator"
IDS = TimeOrderedIds()


def settings(database_url: str, **given: Any) -> OnboardingSettings:
    """Return settings for a database; the broker is one of this process."""
    return OnboardingSettings(database_url=database_url, amqp_url="amqp://127.0.0.1/", admin_key=KEY, **given)


def ports(broker: MemoryBroker, clock: Clock | None = None) -> Ports:
    return Ports(clock=clock or SystemClock(), ids=IDS, bus=lambda service: MemoryBus(broker, service))


@dataclass
class Desk:
    """Where onboardings are accepted by one replica."""

    pool: Pool
    kernel: Kernel
    engine: Engine
    watch: Watch
    intake: Intake
    pressure: Pressure

    async def submit(
        self, name: str = "Acme", *, key: str | None = None, principal: str = "root", **details: Any
    ) -> Accepted:
        """Ask for an onboarding, as the API does after its checks."""
        request = {**REQUEST, "customerName": name, **details}
        return await self.order(Order(ONBOARD, request), key=key, principal=principal)

    async def order(self, order: Order, *, key: str | None = None, principal: str = "root") -> Accepted:
        """Ask for anything, as the API does after its checks."""
        application = Application(order, principal, key, fingerprint(order.request), Actor(principal))
        return await self.intake.submit(application)

    async def start(self, name: str = "Acme", **details: Any) -> UUID:
        """Have an onboarding accepted; return its workflow."""
        return UUID((await self.submit(name, **details)).workflow["id"])

    async def tenant(self, name: str = "Acme", **details: Any) -> str:
        """Have a customer onboarded; return the tenant that it has become."""
        accepted = await self.submit(name, **details)
        await self.go_on(UUID(accepted.workflow["id"]))
        tenant_id: str = accepted.workflow["tenantId"]
        return tenant_id

    async def begin(self, definition: Definition, tenant_id: str, **request: Any) -> UUID:
        """Have something done with a tenant; return the workflow that does it."""
        accepted = await self.order(Order(definition, {"tenantId": tenant_id, **request}))
        return UUID(accepted.workflow["id"])

    async def finish(
        self, definition: Definition, tenant_id: str, *, refuse: str | None = None, **request: Any
    ) -> None:
        """Have something done with a tenant, to its end."""
        await self.go_on(await self.begin(definition, tenant_id, **request), refuse=refuse)

    async def go_on(self, workflow_id: UUID, *, until: Sequence[str] = (), refuse: str | None = None) -> None:
        """Play the other services, at this replica's time."""
        await go_on(self.pool, workflow_id, until=until, refuse=refuse, engine=self.engine)


@asynccontextmanager
async def open_desk(
    url: str,
    broker: MemoryBroker,
    *,
    clock: Clock | None = None,
    backlog: int = 2000,
    under_way: int = 5000,
    is_open: bool = True,
    definitions: Mapping[tuple[str, int], Definition] = DEFINITIONS,
) -> AsyncIterator[Desk]:
    """Open a replica's intake on a database of its own connections; ``is_open`` says whether anything is accepted."""
    pool = await open_pool(url, size=4)
    world = ports(broker, clock)
    engine, watch = Engine(clock=world.clock, ids=world.ids, definitions=definitions), Watch(pool)
    kernel = Kernel(
        service="onboarding",
        settings=settings(url),
        pool=pool,
        bus=MemoryBus(broker, "onboarding"),
        ports=world,
        subscriptions=handlers.SUBSCRIPTIONS,
        dependencies={"engine": engine, "clock": world.clock, "ids": world.ids},
    )
    pressure = Pressure(pool, world.clock, most=under_way, registry=CollectorRegistry())
    intake = Intake(kernel, engine, watch, pressure=pressure, backlog=backlog)
    running = [asyncio.create_task(intake.run())] if is_open else []
    try:
        yield Desk(pool, kernel, engine, watch, intake, pressure)
    finally:
        for task in running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        pool.terminate()


def fingerprint(request: Any) -> bytes:
    return hashlib.sha256(orjson.dumps(request)).digest()


def told(workflow_id: UUID, step: str, fact: Fact, *, ask_id: UUID | None = None) -> Event:
    """Return what a service tells of a step; by default it names no ask, as after the ask was asked again."""
    return Event(
        id=IDS.new(),
        publisher=fact.owner,
        time=SystemClock().now(),
        message=fact,
        workflow_id=workflow_id,
        step=step,
        causation_id=ask_id,
    )


async def hear(pool: Pool, *events: Event, clock: Clock | None = None, engine: Engine | None = None) -> list[Event]:
    """Let a batch of answers move workflows, as the consumer does; return what was said, routing keys checked."""
    engine = engine or Engine(clock=clock or SystemClock(), ids=IDS)
    async with transaction(pool) as connection:
        outgoing = await handlers.continue_workflows(connection, events, engine=engine)
        await outbox.insert(connection, outgoing, now=engine._clock.now())
    said = [decode(orjson.loads(each.event)) for each in outgoing]
    assert [each.id for each in outgoing] == [event.id for event in said]
    return said


async def stored(pool: Pool, workflow_id: UUID) -> Stored:
    """Return a workflow as the database has it."""
    async with pool.acquire() as connection:
        row = await queries.workflow(connection, workflow_id)
        assert row is not None
        return (await load(connection, [row]))[workflow_id]


async def waiting(pool: Pool, workflow_id: UUID, status: str) -> dict[str, UUID]:
    """Return the steps in a status and the ask that each of them waits for."""
    rows = await pool.fetch(
        "SELECT name, ask_id FROM step WHERE workflow_id = $1 AND status = $2 ORDER BY name", workflow_id, status
    )
    return {row["name"]: row["ask_id"] for row in rows}


async def go_on(
    pool: Pool,
    workflow_id: UUID,
    *,
    until: Sequence[str] = (),
    refuse: str | None = None,
    engine: Engine | None = None,
) -> None:
    """Play the other services: answer everything that is asked, except the steps in ``until``, and refuse one step.

    The time that a workflow waits passes for it alone.
    """
    tenant_id = (await stored(pool, workflow_id)).workflow.tenant_id
    good, bad, back = answers(tenant_id), refusals(tenant_id, code="no_room"), undone(tenant_id)
    while True:
        asked = {k: v for k, v in (await waiting(pool, workflow_id, "running")).items() if k not in until}
        undos = await waiting(pool, workflow_id, "undoing")
        pauses = [step for step in asked if step not in good]
        events = [
            told(workflow_id, step, (bad if step == refuse else good)[step], ask_id=ask_id)
            for step, ask_id in asked.items()
            if step not in pauses
        ] + [told(workflow_id, step, back[step], ask_id=ask_id) for step, ask_id in undos.items()]
        if not events and not pauses:
            return
        await hear(pool, *events, engine=engine)
        for step in pauses:
            await pass_time(pool, workflow_id, step)


async def pass_time(pool: Pool, workflow_id: UUID, step: str) -> None:
    """Let the timer of a workflow's step go off, at its time, and no other."""
    due_at = (await stored(pool, workflow_id)).workflow.steps[step].due_at
    assert due_at is not None
    engine = Engine(clock=ManualClock(due_at), ids=IDS)
    async with transaction(pool) as connection:
        locked = await load(connection, await queries.lock_workflows(connection, [workflow_id]))
        outgoing = await engine._run(connection, locked, [(workflow_id, TimerDue(step), None)])
        await outbox.insert(connection, outgoing, now=due_at)


async def account(pool: Pool, tenant_id: str) -> dict[str, Any]:
    """Return what is known of a customer; nothing if it is none."""
    row = await pool.fetchrow("SELECT * FROM account WHERE tenant_id = $1", tenant_id)
    return dict(row) if row else {}


async def kinds(pool: Pool, workflow_id: UUID) -> list[str]:
    """Return the kinds of the lines of a workflow's history."""
    rows = await pool.fetch("SELECT kind FROM history WHERE workflow_id = $1 ORDER BY seq", workflow_id)
    return [row["kind"] for row in rows]


async def blocked(pool: Pool) -> int:
    """Return how many sessions of this database wait for a lock."""
    count: int = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return count


@dataclass
class Replica:
    """The whole service as one process runs it, and a client with the administrator's key."""

    service: Service
    client: httpx2.AsyncClient

    @property
    def pool(self) -> Pool:
        return self.service.kernel.pool

    def is_closed(self, method: str, path: str) -> bool:
        """Tell whether the server turns a request away unread."""
        assert self.service.is_closed is not None
        return self.service.is_closed(method, path)


@asynccontextmanager
async def open_replica(
    url: str, broker: MemoryBroker, *, clock: Clock | None = None, **given: Any
) -> AsyncIterator[Replica]:
    """Run the service on a database and a broker."""
    async with build(settings(url, **given), ports(broker, clock)) as service, client_of(service.api) as client:
        stopping = asyncio.Event()
        running = asyncio.create_task(service.run(stopping))
        try:
            yield Replica(service, client)
        finally:
            stopping.set()
            await running


def client_of(api: ASGIApp) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    )


async def publish_catalog(pool: Pool, catalog: CatalogPublished = CATALOG) -> None:
    async with transaction(pool) as connection:
        await handlers.keep_catalog(connection, [catalog])
