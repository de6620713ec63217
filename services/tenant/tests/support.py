"""What the tests of this service say again and again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import orjson
from asyncpg.connection import LoggedQuery

from services.tenant import handlers
from shared.clock import Clock, ManualClock
from shared.contracts import Ask, Fact, Message
from shared.contracts.tenant import (
    ActivateTenant,
    ArchiveTenant,
    BeginOffboarding,
    DeactivateTenant,
    DeregisterTenant,
    RegisterTenant,
)
from shared.ids import SeededIds
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Event, decode
from shared.messaging.subscriptions import bind
from shared.postgres import Connection, Pool, transaction


def ask(tenant_id: str, customer_name: str | None = None, **details: Any) -> RegisterTenant:
    """Ask for a free tenant; its name is made of its identity unless another is given."""
    given = {"tenant_id": tenant_id, "customer_name": customer_name or f"Customer {tenant_id}"} | details
    return RegisterTenant.model_validate({"tier": "free", "email": "ada@example.com"} | given)


async def register(pool: Pool, *asks: RegisterTenant, clock: Clock | None = None) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        return await handlers.register_tenants(connection, asks, clock=clock or ManualClock())


async def deregister(pool: Pool, *tenant_ids: str) -> Sequence[Fact]:
    asks = [DeregisterTenant(tenant_id=tenant_id) for tenant_id in tenant_ids]
    async with transaction(pool) as connection:
        return await handlers.deregister_tenants(connection, asks)


async def activate(pool: Pool, *tenant_ids: str, clock: Clock | None = None) -> Sequence[Fact]:
    asks = [ActivateTenant(tenant_id=tenant_id) for tenant_id in tenant_ids]
    async with transaction(pool) as connection:
        return await handlers.activate_tenants(connection, asks, clock=clock or ManualClock())


async def deactivate(pool: Pool, *tenant_ids: str, clock: Clock | None = None) -> Sequence[Fact]:
    asks = [DeactivateTenant(tenant_id=tenant_id) for tenant_id in tenant_ids]
    async with transaction(pool) as connection:
        return await handlers.deactivate_tenants(connection, asks, clock=clock or ManualClock())


async def deliver(
    pool: Pool, *asks: Ask, workflow: str = "first", workflows: Sequence[str] = (), clock: Clock | None = None
) -> list[Message]:
    """Hand a batch of asks to the service as the kernel does, past the barrier, and return its answers.

    Args:
        workflow: on whose behalf all of them are; each tenant's is another. An undo meets its ask in the same one.
        workflows: on whose behalf each of them is.
    """
    time = clock or ManualClock()
    subscriptions = bind(handlers.SUBSCRIPTIONS, clock=time)
    ids = SeededIds(0, time)
    dispatch = Dispatch(service="tenant", subscriptions=subscriptions, clock=time, ids=ids)
    events = [
        Event(
            id=ids.new(),
            publisher="onboarding",
            time=time.now(),
            message=ask,
            workflow_id=uuid5(NAMESPACE_OID, f"{name} of {ask.tenant_id}"),
            step=(type(ask).undoes or type(ask)).__name__,
        )
        for ask, name in zip(asks, workflows or [workflow] * len(asks), strict=True)
    ]
    async with transaction(pool) as connection:
        outgoing = await dispatch.handle(connection, events)
    return [decode(orjson.loads(each.event)).message for each in outgoing]


async def open_for_business(pool: Pool, *asks: RegisterTenant) -> None:
    """Register and activate tenants."""
    await register(pool, *asks)
    await activate(pool, *(ask.tenant_id for ask in asks))


async def archive(pool: Pool, *tenant_ids: str, clock: Clock | None = None, **details: Any) -> Sequence[Message]:
    """Off-board active or suspended tenants and archive them."""
    given = {"workflow_id": "w1", "deletions": ()} | details
    await deliver(pool, *(BeginOffboarding(tenant_id=tenant_id) for tenant_id in tenant_ids), workflow="archiving")
    asks = [ArchiveTenant(tenant_id=tenant_id, **given) for tenant_id in tenant_ids]
    return await deliver(pool, *asks, workflow="archiving", clock=clock)


async def are_waiting(pool: Pool, count: int) -> bool:
    """Tell whether so many connections wait for a lock."""
    waiting = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(waiting == count)


@asynccontextmanager
async def statements(connection: Connection) -> AsyncIterator[list[LoggedQuery]]:
    """Collect what is sent to the database meanwhile."""
    seen: list[LoggedQuery] = []
    with connection.query_logger(seen.append):
        yield seen
        await asyncio.sleep(0)  # the logger is called in the loop's next turn
