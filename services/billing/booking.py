"""Invoices become receivables as they are issued, and the credit that there is, is used for them.

Invoices are numbered without gaps and in the order in which they are committed. So it is enough to know up to which
number they are booked: that moves on in the transaction that books them, and whatever interrupts it, each is booked
once. One that is below zero is credit; one of nothing leaves nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg
import structlog

from services.billing import queries
from services.billing.receivables import Accounts
from shared.contracts.base import Fact
from shared.ids import Ids
from shared.messaging import outbox
from shared.postgres import Connection, transaction
from shared.repeating import repeat_rounds
from shared.service import Kernel

log = structlog.get_logger(__name__)

_LIMIT: Final = 500
_POLL_SECONDS = 1.0


class Booking:
    """Books the invoices that are issued.

    Args:
        collects: whether a payment provider is asked for what is due.
    """

    def __init__(self, kernel: Kernel, *, collects: bool) -> None:
        self._kernel = kernel
        self._collects = collects

    async def run(self) -> None:
        """Book for ever; an outage of the database is waited out."""
        clock = self._kernel.ports.clock
        await repeat_rounds("booking", self.round, lambda: clock.sleep(_POLL_SECONDS), clock=clock)

    async def round(self, limit: int = _LIMIT) -> int:
        """Book the invoices that are issued and not booked, up to a limit; return how many there were."""
        ports = self._kernel.ports
        now = ports.clock.now()
        async with transaction(self._kernel.pool) as connection:
            if not await queries.receivables.is_behind(connection):
                return 0  # and nobody was kept waiting
            last = await queries.receivables.booked_until(connection)
            invoices = await queries.receivables.issued_after(connection, last, limit=limit)
            if not invoices:
                return 0
            facts = await book(connection, invoices, collects=self._collects, now=now, ids=ports.ids)
            await queries.receivables.book_until(connection, invoices[-1]["number"])
            outgoing = [self._kernel.dispatch.tell(fact) for fact in facts]
            await outbox.insert(connection, outgoing, now=now)
        await self._kernel.relay.send(outgoing)
        return len(invoices)


async def book(
    connection: Connection, invoices: Sequence[asyncpg.Record], *, collects: bool, now: datetime, ids: Ids
) -> Sequence[Fact]:
    """Book invoices that are not booked yet, in the order of their numbers; return what is told.

    Args:
        invoices: rows of `queries.receivables.issued_after`.
        collects: whether a payment provider is asked for what is due.
    """
    counting = [each for each in invoices if each["total"]]
    if not counting:
        return []
    accounts = await Accounts.open(
        connection,
        [(each["tenant_id"], each["currency"]) for each in counting],
        getting=[each["tenant_id"] for each in counting if each["total"] < 0],
        ids=ids,
    )
    await queries.receivables.add(
        connection, [each["invoice_id"] for each in counting if each["total"] > 0], collects=collects
    )
    for each in counting:
        accounts.of(each["tenant_id"], each["currency"]).charge(each["invoice_id"], each["number"], each["total"])
    return await accounts.write(connection, now=now)
