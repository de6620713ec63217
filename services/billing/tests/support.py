"""What the tests of this service say again and again."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter

from services.billing import handlers
from services.billing.api import routes
from shared.clock import Clock, ManualClock
from shared.contracts import Fact
from shared.contracts.base import Ask, Message
from shared.contracts.billing import (
    ChangeLicences,
    ChangePlan,
    CloseAccount,
    DecisionRecorded,
    OpenAccount,
    PauseBilling,
    PurgeAccount,
    RecurringRevenueChanged,
    ReopenAccount,
    RestoreAccount,
    RestoreLicences,
    RestorePlan,
    ResumeBilling,
    UnpauseBilling,
    UpdateAccount,
    VoidAccount,
    WithdrawResumption,
)
from shared.contracts.tenant import TenantActivated, TenantDeactivated
from shared.ids import TimeOrderedIds
from shared.messaging.event import Event, Outgoing, decode
from shared.messaging.subscriptions import Answered, Changed, Restoration, bind
from shared.postgres import Pool, transaction
from shared.testing.decisions import changes_on

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

UNDO: dict[type[Ask], type[Ask]] = {
    ChangePlan: RestorePlan,
    ChangeLicences: RestoreLicences,
    PauseBilling: UnpauseBilling,
    ResumeBilling: WithdrawResumption,
    UpdateAccount: RestoreAccount,
    CloseAccount: ReopenAccount,
}

Books = dict[str, list[tuple[Any, ...]]]


def on(day: int, hour: int = 12, *, month: int = 3) -> datetime:
    """Return a moment of the year in which the tests play; noon unless another hour is given."""
    return datetime(2026, month, day, hour, tzinfo=UTC)


def ask(tenant_id: str, **details: Any) -> OpenAccount:
    """Ask for an account on the standard plan unless another is given."""
    return OpenAccount.model_validate({"tenant_id": tenant_id, "customer_name": "Acme", "plan": "standard"} | details)


def licences(tenant_id: str, **plans: str) -> ChangeLicences:
    """Ask for licences of products by these plans, and of no others."""
    wanted = [{"product": product, "plan": plan} for product, plan in plans.items()]
    return ChangeLicences.model_validate({"tenant_id": tenant_id, "licences": wanted})


def all_routes(pool: Pool, *, clock: Clock | None = None) -> APIRouter:
    """Return every route of the service; what is told of changes stays in the outbox."""
    clock = clock or ManualClock()
    return routes(pool, changes=changes_on(pool, DecisionRecorded, clock=clock), clock=clock)


async def open_accounts(pool: Pool, *asks: OpenAccount, clock: Clock | None = None) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        return await handlers.open_accounts(connection, asks, clock=clock or ManualClock(), ids=TimeOrderedIds())


async def void_accounts(pool: Pool, *tenant_ids: str) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        asks = [VoidAccount(tenant_id=tenant_id) for tenant_id in tenant_ids]
        return _answers(await handlers.void_accounts(connection, asks, clock=ManualClock(NOON)))


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
    """Hear facts of one type in one batch, and return what was told, but for amounts a month."""
    async with transaction(pool) as connection:
        if isinstance(events[0].message, TenantDeactivated):
            told = await handlers.stop_charging(connection, events, clock=ManualClock(), ids=TimeOrderedIds())
        else:
            told = await handlers.start_charging(connection, events, clock=ManualClock(), ids=TimeOrderedIds())
    opened = [_opened(each) for each in told]
    return [each for each in opened if not isinstance(each.message, RecurringRevenueChanged)]


def _opened(outgoing: Outgoing) -> Event:
    event = decode(orjson.loads(outgoing.event))
    assert (outgoing.id, outgoing.exchange, outgoing.routing_key) == (event.id, "tenure.billing", event.type)
    return event


async def subscriptions(pool: Pool) -> dict[str, tuple[str, datetime | None]]:
    """Return the state of each tenant's subscription, and since when it is charged; licences are ``t1/product``."""
    rows = await pool.fetch(
        "SELECT tenant_id, product, state, started_at FROM subscription JOIN account USING (account_id)"
    )
    return {f"{row['tenant_id']}/{row['product']}".rstrip("/"): (row["state"], row["started_at"]) for row in rows}


async def residue(pool: Pool) -> list[tuple[str, str]]:
    return [tuple(row) for row in await pool.fetch("SELECT tenant_id, place FROM live_record ORDER BY 1, 2")]


async def do_all(pool: Pool, *asks: Ask, at: datetime = NOON) -> Sequence[Changed]:
    """Do asks of one type in one batch, and return what is answered, without what else is told."""
    handler = _handler(type(asks[0]), at)
    async with transaction(pool) as connection:
        done: Sequence[Changed] = await handler(connection, asks)
    assert len(done) == len(asks)
    return [replace(each, tells=()) for each in done]


async def do_it(pool: Pool, ask: Ask, *, at: datetime = NOON) -> Changed:
    (done,) = await do_all(pool, ask, at=at)
    return done


async def undo_all(pool: Pool, kind: type[Ask], *undos: tuple[str, Changed | None]) -> Sequence[Fact]:
    """Undo what was done of one type to tenants, in one batch, after the before-images have been stored as JSON."""
    handler = _handler(UNDO[kind], NOON)
    restorations = [
        Restoration(tenant_id, None if done is None else orjson.loads(orjson.dumps(done.before)))
        for tenant_id, done in undos
    ]
    async with transaction(pool) as connection:
        facts = _answers(await handler(connection, restorations))
    assert [type(fact).answers for fact in facts] == [UNDO[kind]] * len(undos)
    assert [fact.tenant_id for fact in facts] == [tenant_id for tenant_id, _ in undos]
    return facts


async def purge(pool: Pool, *tenant_ids: str, at: datetime = NOON) -> Sequence[Fact]:
    handler = _handler(PurgeAccount, at)
    async with transaction(pool) as connection:
        return _answers(await handler(connection, [PurgeAccount(tenant_id=each) for each in tenant_ids]))


def _answers(said: Sequence[Fact | Answered]) -> Sequence[Fact]:
    return [each.answer if isinstance(each, Answered) else each for each in said]


def _handler(kind: type[Ask], at: datetime) -> Any:
    bound = bind(handlers.SUBSCRIPTIONS, clock=ManualClock(at), ids=TimeOrderedIds())
    return bound[kind].handler


async def open_active(pool: Pool, *tenant_ids: str, **details: Any) -> None:
    """Open accounts that are charged since `NOON`."""
    await open_accounts(pool, *(ask(tenant_id, **details) for tenant_id in tenant_ids))
    await hear(pool, *(activated(tenant_id) for tenant_id in tenant_ids))


async def books(pool: Pool) -> Books:
    """Return every row of everything that tells who owes what, without the edition of what was told of it."""
    tables = ("account", "subscription", "charged_period", "invoice", "invoice_line")
    rows = {table: await pool.fetch(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables}
    return {
        table: [tuple(value for name, value in row.items() if name != "revenue_edition") for row in found]
        for table, found in rows.items()
    }


async def charged(pool: Pool) -> list[tuple[str, str, datetime, datetime | None]]:
    """Return who was charged for which plan from when to when; the stretches that still run have no end.

    Those of licences come after those of the accounts' plans, as ``plan for product``.
    """
    rows = await pool.fetch(
        """
        SELECT tenant_id, concat_ws(' for ', plan, nullif(product, '')), since, until
        FROM (
            SELECT tenant_id, product, charged_period.plan, charged_period.started_at AS since, ended_at AS until
            FROM charged_period JOIN subscription USING (subscription_id) JOIN account USING (account_id)
            UNION ALL
            SELECT tenant_id, product, plan, greatest(started_at, charged_since), NULL
            FROM subscription JOIN account USING (account_id) WHERE state = 'active'
        ) AS stretch
        ORDER BY tenant_id, product, since
        """
    )
    return [tuple(row) for row in rows]


async def owed(pool: Pool, tenant_id: str = "t1", *, at: datetime) -> str:
    """Return the total of the final invoice if the account were closed at a time, and leave it open."""
    done = await do_it(pool, CloseAccount(tenant_id=tenant_id), at=at)
    await undo_all(pool, CloseAccount, (tenant_id, done))
    total: str = done.answer.model_dump()["total"]
    return total


async def charged_tenants(pool: Pool) -> list[str]:
    return [row["tenant_id"] for row in await pool.fetch("SELECT tenant_id FROM charged_tenant ORDER BY 1")]


async def are_waiting(pool: Pool, count: int) -> bool:
    """Tell whether so many transactions wait for a lock."""
    waiting = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(waiting == count)
