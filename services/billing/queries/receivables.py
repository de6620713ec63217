"""What is owed of invoices, and what is owed to tenants."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from services.billing.queries.narrowing import narrowed
from shared.postgres import Connection

# What a reader sees of a balance; a statement continues after its FROM.
_BALANCE = """
    SELECT balance.tenant_id, balance.currency, debtor.overdue, round(balance.credit, currency.digits) AS credit,
           round((
               SELECT coalesce(sum(due), 0) FROM receivable
               WHERE receivable.tenant_id = balance.tenant_id AND receivable.currency = balance.currency AND due > 0
           ), currency.digits) AS due
    FROM balance JOIN debtor USING (tenant_id) JOIN currency ON currency.code = balance.currency
"""


async def is_behind(connection: Connection) -> bool:
    """Tell whether there are final invoices that are not booked."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM invoice WHERE number > (SELECT last FROM booking))"
    )
    return found


async def booked_until(connection: Connection) -> int:
    """Return up to which number invoices are booked; nobody else books any until the transaction ends."""
    last: int = await connection.fetchval("SELECT last FROM booking FOR NO KEY UPDATE")
    return last


async def issued_after(connection: Connection, number: int, *, limit: int) -> list[asyncpg.Record]:
    """Return final invoices with higher numbers, in their order."""
    return await connection.fetch(
        """
        SELECT invoice_id, tenant_id, currency, number, total, issued_at
        FROM invoice WHERE number > $1 ORDER BY number LIMIT $2
        """,
        number,
        limit,
    )


async def book_until(connection: Connection, number: int) -> None:
    """Write up to which number invoices are booked."""
    await connection.execute("UPDATE booking SET last = $1", number)


async def lock(connection: Connection, tenant_ids: Iterable[str]) -> None:
    """Keep what tenants owe from being changed by others, and have it looked at how far behind they are.

    Whoever owed nothing before is a debtor from now on.
    """
    await connection.execute(
        """
        INSERT INTO debtor (tenant_id, look_at) SELECT DISTINCT unnest($1::text[]), '-infinity'::timestamptz ORDER BY 1
        ON CONFLICT (tenant_id) DO UPDATE SET look_at = excluded.look_at
        """,
        list(tenant_ids),
    )


async def add_balances(connection: Connection, balances: Sequence[tuple[str, str]]) -> None:
    """Have balances of these debtors in these currencies, with no credit where there were none."""
    await connection.execute(
        """
        INSERT INTO balance (tenant_id, currency) SELECT * FROM unnest($1::text[], $2::text[])
        ON CONFLICT DO NOTHING
        """,
        *_columns(balances, 2),
    )


async def balances(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return ``tenant_id``, ``currency``, its ``digits`` and ``credit`` of debtors who are locked."""
    return await connection.fetch(
        """
        SELECT balance.tenant_id, balance.currency, currency.digits, balance.credit
        FROM balance JOIN currency ON currency.code = balance.currency
        WHERE balance.tenant_id = ANY ($1::text[])
        """,
        tenant_ids,
    )


async def of_invoices(connection: Connection, invoice_ids: Sequence[UUID]) -> list[asyncpg.Record]:
    """Return ``invoice_id``, ``tenant_id`` and ``currency``, with its ``digits``, of receivables."""
    return await connection.fetch(
        """
        SELECT receivable.invoice_id, receivable.tenant_id, receivable.currency, currency.digits
        FROM receivable JOIN currency ON currency.code = receivable.currency
        WHERE receivable.invoice_id = ANY ($1::uuid[])
        """,
        invoice_ids,
    )


async def standing(connection: Connection, invoice_id: UUID) -> asyncpg.Record | None:
    """Return whose an invoice is, its ``currency`` and ``state``, and whether it is booked, or will be."""
    return await connection.fetchrow(
        """
        SELECT invoice.tenant_id, invoice.currency, invoice.state, receivable.invoice_id IS NOT NULL AS is_booked,
               coalesce(invoice.number > booking.last, false) AS is_waiting
        FROM invoice LEFT JOIN receivable USING (invoice_id) CROSS JOIN booking
        WHERE invoice.invoice_id = $1
        """,
        invoice_id,
    )


async def currencies(connection: Connection, tenant_id: str) -> list[str]:
    """Return the currencies that a tenant is charged in, now or before; none of one that is not known."""
    rows = await connection.fetch(
        """
        SELECT currency FROM account WHERE tenant_id = $1 UNION SELECT currency FROM balance WHERE tenant_id = $1
        ORDER BY currency
        """,
        tenant_id,
    )
    return [row["currency"] for row in rows]


async def open_receivables(
    connection: Connection, tenant_ids: Sequence[str], invoice_ids: Sequence[UUID]
) -> list[asyncpg.Record]:
    """Return, and lock, all of which something is due from debtors who are locked, and the named ones of theirs."""
    return await connection.fetch(
        """
        SELECT invoice_id, tenant_id, currency, number, total, noted, credited, paid FROM receivable
        WHERE invoice_id IN (
            SELECT invoice_id FROM receivable WHERE tenant_id = ANY ($1::text[]) AND due > 0
            UNION
            SELECT unnest($2::uuid[])
        )
        ORDER BY invoice_id FOR NO KEY UPDATE
        """,
        tenant_ids,
        invoice_ids,
    )


async def add(connection: Connection, invoice_ids: Sequence[UUID], *, collects: bool) -> None:
    """Book invoices of debtors, of which everything is due.

    Args:
        collects: whether a payment provider is asked for it, at once.
    """
    await connection.execute(
        """
        INSERT INTO receivable (invoice_id, tenant_id, number, currency, total, issued_at, collect_at)
        SELECT invoice_id, tenant_id, number, currency, total, issued_at, CASE WHEN $2 THEN issued_at END
        FROM invoice WHERE invoice_id = ANY ($1::uuid[])
        """,
        invoice_ids,
        collects,
    )


async def save(
    connection: Connection, receivables: Sequence[tuple[UUID, Decimal, Decimal, Decimal]], *, now: datetime
) -> None:
    """Write what is ``noted``, ``credited`` and ``paid`` of receivables; of what is settled nothing is collected."""
    await connection.execute(
        """
        UPDATE receivable
        SET noted = new.noted, credited = new.credited, paid = new.paid,
            settled_at = CASE WHEN total = new.noted + new.credited + new.paid THEN coalesce(settled_at, $5) END,
            collect_at = CASE WHEN total > new.noted + new.credited + new.paid THEN collect_at END
        FROM unnest($1::uuid[], $2::numeric[], $3::numeric[], $4::numeric[]) AS new (invoice_id, noted, credited, paid)
        WHERE receivable.invoice_id = new.invoice_id
        """,
        *_columns(receivables, 4),
        now,
    )


async def save_credit(connection: Connection, balances: Sequence[tuple[str, str, Decimal]]) -> None:
    """Write the credit of balances."""
    await connection.execute(
        """
        UPDATE balance SET credit = new.credit
        FROM unnest($1::text[], $2::text[], $3::numeric[]) AS new (tenant_id, currency, credit)
        WHERE balance.tenant_id = new.tenant_id AND balance.currency = new.currency
        """,
        *_columns(balances, 3),
    )


async def page(
    connection: Connection, *, after: tuple[str, str] | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List balances that come after a tenant and a currency, all or one tenant's, with what is ``due``."""
    narrowing, tenant_ids = narrowed("balance.tenant_id = $4", tenant_id)
    return await connection.fetch(
        _BALANCE
        + f"""
        WHERE ($1::text IS NULL OR (balance.tenant_id, balance.currency) > ($1, $2)) AND {narrowing}
        ORDER BY balance.tenant_id, balance.currency LIMIT $3
        """,
        *(after or (None, None)),
        limit,
        *tenant_ids,
    )


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """Return the columns of rows, that many also where there is no row."""
    return [[row[column] for row in rows] for column in range(count)]
