"""What the tests of this service say again and again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from asyncpg.connection import LoggedQuery

from services.tenant import handlers
from shared.clock import Clock, ManualClock
from shared.contracts import Fact
from shared.contracts.tenant import ActivateTenant, DeactivateTenant, DeregisterTenant, RegisterTenant
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


@asynccontextmanager
async def statements(connection: Connection) -> AsyncIterator[list[LoggedQuery]]:
    """Collect what is sent to the database meanwhile."""
    seen: list[LoggedQuery] = []
    with connection.query_logger(seen.append):
        yield seen
        await asyncio.sleep(0)  # the logger is called in the loop's next turn
