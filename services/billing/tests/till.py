"""Invoices that are paid and credited, on a database and a clock that the test moves."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from services.billing import crediting
from services.billing.booking import Booking
from services.billing.crediting import Credit
from services.billing.receivables import MANUAL, Incoming, receive
from services.billing.tests.invoicing_kit import House, Told
from services.billing.tests.support import NOON
from shared.access import Principal, Role
from shared.contracts.base import Fact
from shared.contracts.billing import DecisionRecorded
from shared.messaging.event import decode
from shared.postgres import Pool, transaction
from shared.testing.decisions import changes_on

OPERATOR = Principal(id="system-administrator", role=Role.SYSTEM_ADMIN)

_references = itertools.count()


def incoming(
    invoice_id: UUID, amount: str, *, reference: str | None = None, received_at: datetime = NOON, provider: str = MANUAL
) -> Incoming:
    """Return a payment, with a reference of its own unless one is given."""
    return Incoming(
        invoice_id=invoice_id,
        provider=provider,
        reference=reference or f"reference {next(_references)}",
        amount=Decimal(amount),
        received_at=received_at,
    )


class Till:
    """The books of the service; nothing is booked but by the test."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.house = House(pool, start=NOON)
        self.clock, self.ids = self.house.clock, self.house.ids
        self.booking = self.replica()
        self._changes = changes_on(pool, DecisionRecorded, clock=self.clock)

    def replica(self, *, collects: bool = False) -> Booking:
        """Return another loop on the same database."""
        return Booking(self.house.kernel(), collects=collects)

    async def issue(self, tenant_id: str, total: str, *, currency: str = "USD") -> UUID:
        """Have a final invoice that is not booked."""
        invoice_id = self.ids.new()
        await self.pool.execute(
            """
            INSERT INTO invoice (invoice_id, tenant_id, customer_name, currency, state, total, drafted_at, issued_at)
            VALUES ($1, $2, 'Acme', $3, 'final', $4, $5, $5)
            """,
            invoice_id,
            tenant_id,
            currency,
            Decimal(total),
            self.clock.now(),
        )
        return invoice_id

    async def book(self) -> None:
        """Book all that is issued."""
        while await self.booking.round():
            pass

    async def invoice(self, tenant_id: str, total: str, *, currency: str = "USD") -> UUID:
        """Have a final invoice that is booked."""
        invoice_id = await self.issue(tenant_id, total, currency=currency)
        await self.book()
        return invoice_id

    async def receive(self, *payments: Incoming) -> Sequence[Fact]:
        """Book payments in one batch, and return what is told."""
        async with transaction(self.pool) as connection:
            return await receive(connection, payments, now=self.clock.now(), ids=self.ids)

    async def pay(self, invoice_id: UUID, amount: str) -> Sequence[Fact]:
        """Book a payment of its own."""
        return await self.receive(incoming(invoice_id, amount))

    async def give(
        self, tenant_id: str, amount: str, *, invoice_id: UUID | None = None, key: str | None = None
    ) -> tuple[asyncpg.Record, bool]:
        """Give credit, or issue a credit note, in USD."""
        asked = Credit(
            tenant_id=tenant_id,
            currency="USD",
            amount=Decimal(amount),
            reason="because",
            invoice_id=invoice_id,
            idempotency_key=key,
            fingerprint=f"{tenant_id} {amount} {invoice_id}".encode(),
        )
        async with self._changes.transaction() as change:
            return await crediting.give(change, OPERATOR, asked, now=self.clock.now(), ids=self.ids)

    async def receivables(self, tenant_id: str = "t1") -> list[tuple[str, ...]]:
        """Return total, noted, credited, paid and due of a tenant's invoices, the oldest first."""
        rows = await self.pool.fetch(
            """
            SELECT round(total, 2), round(noted, 2), round(credited, 2), round(paid, 2), round(due, 2)
            FROM receivable WHERE tenant_id = $1 ORDER BY number
            """,
            tenant_id,
        )
        return [tuple(map(str, row)) for row in rows]

    async def credit(self, tenant_id: str = "t1") -> dict[str, str]:
        """Return a tenant's credit by currency."""
        rows = await self.pool.fetch(
            "SELECT currency, round(credit, 2) AS credit FROM balance WHERE tenant_id = $1", tenant_id
        )
        return {row["currency"]: str(row["credit"]) for row in rows}

    async def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of the books."""
        tables = ("debtor", "balance", "receivable", "payment", "credit_note", "credit_entry", "booking")
        return {
            table: [tuple(row) for row in await self.pool.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")]
            for table in tables
        }

    async def told(self, kind: type[Told]) -> list[Told]:
        """Return all that was ever put into the outbox of a kind."""
        rows = await self.pool.fetch("SELECT event FROM outbox ORDER BY id")
        messages = [decode(orjson.loads(row["event"])).message for row in rows]
        return [each for each in messages if isinstance(each, kind)]

    async def check(self) -> None:
        """Check that no money is lost and none is made up, of any tenant and in any currency."""
        wrong = await self.pool.fetch(
            """
            WITH came (tenant_id, currency, amount) AS (
                SELECT tenant_id, currency, amount FROM payment
                UNION ALL
                SELECT tenant_id, currency, amount FROM credit_entry WHERE kind IN ('granted', 'invoice')
            ), went (tenant_id, currency, amount) AS (
                SELECT tenant_id, currency, paid + credited FROM receivable
                UNION ALL
                SELECT tenant_id, currency, credit FROM balance
            ), differing AS (
                SELECT tenant_id, currency FROM (
                    SELECT * FROM came UNION ALL SELECT tenant_id, currency, -amount FROM went
                ) AS everything GROUP BY tenant_id, currency HAVING sum(amount) <> 0
            )
            SELECT 'sums', tenant_id FROM differing
            UNION ALL
            SELECT 'credit', tenant_id FROM balance
            WHERE credit <> (SELECT coalesce(sum(amount), 0) FROM credit_entry AS entry
                             WHERE entry.tenant_id = balance.tenant_id AND entry.currency = balance.currency)
            UNION ALL
            SELECT 'credit while something is due', tenant_id FROM balance JOIN receivable USING (tenant_id, currency)
            WHERE credit > 0 AND due > 0
            UNION ALL
            SELECT 'notes', tenant_id FROM receivable
            WHERE noted <> (SELECT coalesce(sum(amount), 0) FROM credit_note AS note
                            WHERE note.invoice_id = receivable.invoice_id)
            """
        )
        assert [tuple(row) for row in wrong] == []
