"""What a tenant is charged a month, by all that it is subscribed to: told whenever that has become another amount.

It is the sum of the agreed base fees of what is charged; of usage it says nothing. What was told last is kept with the
account, so that whatever was written is compared with it at the end, in the same transaction.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import asyncpg

from services.billing import queries
from shared.clock import Clock
from shared.contracts.base import Fact
from shared.contracts.billing import RecurringRevenueChanged
from shared.messaging.subscriptions import Answered
from shared.postgres import Connection

Handler = Callable[..., Awaitable[Sequence[Any]]]


def telling(handler: Handler) -> Handler:
    """Have a handler that answers asks, or undoes them, tell of other amounts too that its tenants are charged.

    Their accounts are looked at afterwards, because something else may be due of them.
    """
    parameters = inspect.signature(handler).parameters
    takes_clock = "clock" in parameters

    @wraps(handler)
    async def told(connection: Connection, messages: Sequence[Any], *, clock: Clock, **others: Any) -> Sequence[Any]:
        if takes_clock:
            others["clock"] = clock
        said = await handler(connection, messages, **others)
        return _with(said, await settled(connection, (message.tenant_id for message in messages), clock=clock))

    if not takes_clock:
        clock = inspect.Parameter("clock", inspect.Parameter.KEYWORD_ONLY, annotation=Clock)
        told.__signature__ = inspect.Signature([*parameters.values(), clock])  # type: ignore[attr-defined] # what `bind` reads
    return told


async def settled(
    connection: Connection, tenant_ids: Iterable[str], *, clock: Clock
) -> Sequence[RecurringRevenueChanged]:
    """Return what is told of tenants whose subscriptions are locked and written; those accounts are looked at."""
    rows = await queries.revenue.settle(connection, sorted(set(tenant_ids)))
    return [_changed(row, clock) for row in rows]


async def ended(
    connection: Connection, tenant_ids: Iterable[str], *, clock: Clock
) -> Sequence[RecurringRevenueChanged]:
    """Return what is told of tenants whose accounts are about to be deleted."""
    rows = await queries.revenue.end(connection, sorted(set(tenant_ids)))
    return [_changed(row, clock) for row in rows]


def _changed(row: asyncpg.Record, clock: Clock) -> RecurringRevenueChanged:
    return RecurringRevenueChanged(
        tenant_id=row["tenant_id"],
        currency=row["currency"],
        amount=f"{row['amount']:f}",
        changed_at=clock.now(),
        edition=row["edition"],
    )


def _with(said: Sequence[Fact | Answered], changes: Sequence[RecurringRevenueChanged]) -> Sequence[Fact | Answered]:
    """Have each change told with the last answer to its tenant."""
    by_tenant = {each.tenant_id: each for each in changes}
    told: list[Fact | Answered] = []
    for each in reversed(said):
        answered = each if isinstance(each, Answered) else Answered(each)
        change = by_tenant.pop(answered.answer.tenant_id, None)
        told.append(each if change is None else replace(answered, tells=(*answered.tells, change)))
    return told[::-1]
