"""What the tests of this service say again and again."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from services.billing import handlers
from shared.clock import Clock, ManualClock
from shared.contracts import Fact
from shared.contracts.base import Message
from shared.contracts.billing import OpenAccount, VoidAccount
from shared.contracts.tenant import TenantActivated, TenantDeactivated
from shared.ids import TimeOrderedIds
from shared.messaging.event import Event, Outgoing, decode
from shared.postgres import Pool, transaction

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ask(tenant_id: str, **details: Any) -> OpenAccount:
    """Ask for an account on the standard plan unless another is given."""
    return OpenAccount.model_validate({"tenant_id": tenant_id, "customer_name": "Acme", "plan": "standard"} | details)


async def open_accounts(pool: Pool, *asks: OpenAccount, clock: Clock | None = None) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        return await handlers.open_accounts(connection, asks, clock=clock or ManualClock(), ids=TimeOrderedIds())


async def void_accounts(pool: Pool, *tenant_ids: str) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        return await handlers.void_accounts(connection, [VoidAccount(tenant_id=tenant_id) for tenant_id in tenant_ids])


def activated(tenant_id: str, workflow: int | None = 1, *, minutes: int = 0) -> Event:
    return _event(TenantActivated(tenant_id=tenant_id), workflow, minutes)


def deactivated(tenant_id: str, workflow: int | None = 1, *, minutes: int = 0) -> Event:
    return _event(TenantDeactivated(tenant_id=tenant_id), workflow, minutes)


def _event(message: Message, workflow: int | None, minutes: int) -> Event:
    return Event(
        id=TimeOrderedIds().new(),
        publisher="tenant",
        time=NOON + timedelta(minutes=minutes),
        message=message,
        workflow_id=None if workflow is None else UUID(int=workflow),
    )


async def hear(pool: Pool, *events: Event) -> list[Event]:
    """Hear facts of one type in one batch, and return what was told."""
    async with transaction(pool) as connection:
        if isinstance(events[0].message, TenantDeactivated):
            told = await handlers.stop_charging(connection, events)
        else:
            told = await handlers.start_charging(connection, events, clock=ManualClock(), ids=TimeOrderedIds())
    return [_opened(each) for each in told]


def _opened(outgoing: Outgoing) -> Event:
    event = decode(orjson.loads(outgoing.event))
    assert (outgoing.id, outgoing.exchange, outgoing.routing_key) == (event.id, "tenure.billing", event.type)
    return event


async def subscriptions(pool: Pool) -> dict[str, tuple[str, datetime | None]]:
    """Return the state of each tenant's subscription, and since when it is charged."""
    rows = await pool.fetch("SELECT tenant_id, state, started_at FROM subscription JOIN account USING (account_id)")
    return {row["tenant_id"]: (row["state"], row["started_at"]) for row in rows}


async def residue(pool: Pool) -> list[tuple[str, str]]:
    return [tuple(row) for row in await pool.fetch("SELECT tenant_id, place FROM live_record ORDER BY 1, 2")]
