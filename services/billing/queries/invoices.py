"""What is owed."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.billing.queries.narrowing import narrowed
from shared.postgres import Connection

# What a reader sees of an invoice; a statement continues after its FROM.
_INVOICE = """
    SELECT invoice.invoice_id, invoice.tenant_id, invoice.customer_name, invoice.currency, invoice.state,
           invoice.number, invoice.kind, invoice.closes_at, round(invoice.total, currency.digits) AS total,
           invoice.drafted_at, invoice.issued_at,
           round(receivable.due, currency.digits) AS due, receivable.settled_at,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('description', line.description,
                                                         'quantity', line.quantity::text,
                                                         'unit', line.unit,
                                                         'since', line.since,
                                                         'until', line.until,
                                                         'amount', round(line.amount, currency.digits)::text)
                                      ORDER BY line.position), '[]')
            FROM invoice_line AS line WHERE line.invoice_id = invoice.invoice_id) AS lines
    FROM invoice JOIN currency ON currency.code = invoice.currency LEFT JOIN receivable USING (invoice_id)
"""


async def drafts(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return ``tenant_id``, ``invoice_id``, ``currency`` and ``total`` of the tenants' drafts, in its digits."""
    return await connection.fetch(
        """
        SELECT invoice.tenant_id, invoice.invoice_id, invoice.currency, round(invoice.total, currency.digits) AS total
        FROM invoice JOIN currency ON currency.code = invoice.currency
        WHERE invoice.tenant_id = ANY ($1::text[]) AND invoice.state = 'draft'
        """,
        tenant_ids,
    )


async def draft(connection: Connection, invoices: Sequence[Mapping[str, Any]], *, now: datetime) -> None:
    """Draft invoices with their lines, made out as the accounts say at this moment; see `services.billing.issuing`."""
    await connection.execute(
        """
        WITH fresh AS (
            SELECT * FROM jsonb_to_recordset($1) AS fresh (
                invoice_id uuid, tenant_id text, kind text, closes_at timestamptz, usage_stated_at timestamptz,
                total numeric, lines jsonb
            )
        ), drafted AS (
            INSERT INTO invoice (invoice_id, tenant_id, customer_name, billing_address, currency, time_zone, kind,
                                 closes_at, usage_stated_at, total, drafted_at)
            SELECT fresh.invoice_id, tenant_id, account.customer_name, account.billing_address, account.currency,
                   account.time_zone, fresh.kind, fresh.closes_at, fresh.usage_stated_at, fresh.total, $2
            FROM fresh JOIN account USING (tenant_id)
        )
        INSERT INTO invoice_line (invoice_id, position, item_key, description, quantity, unit, amount, since, until)
        SELECT fresh.invoice_id, line.position, line.key, line.description, line.quantity, line.unit, line.amount,
               line.since, line.until
        FROM fresh
        CROSS JOIN LATERAL ROWS FROM (jsonb_to_recordset(fresh.lines) AS (
            key text, description text, quantity numeric, unit text, amount numeric, since timestamptz,
            until timestamptz
        )) WITH ORDINALITY AS line (key, description, quantity, unit, amount, since, until, position)
        """,
        invoices,
        now,
    )


async def issue(connection: Connection, numbers: Mapping[UUID, int], *, now: datetime) -> None:
    """Make drafts final, each with its number."""
    await connection.execute(
        """
        UPDATE invoice SET state = 'final', number = issued.number, issued_at = $3
        FROM unnest($1::uuid[], $2::bigint[]) AS issued (invoice_id, number)
        WHERE invoice.invoice_id = issued.invoice_id
        """,
        list(numbers),
        list(numbers.values()),
        now,
    )


async def take_numbers(connection: Connection, count: int) -> range:
    """Take so many numbers; whoever wants one after that waits until the transaction ends, so that there is no gap."""
    last: int = await connection.fetchval(
        "UPDATE invoice_series SET last = last + $1 WHERE name = 'invoice' RETURNING last", count
    )
    return range(last - count + 1, last + 1)


async def delete_drafts(connection: Connection, invoice_ids: Sequence[UUID]) -> None:
    """Delete drafts with their lines; those that were issued stay."""
    await connection.execute("DELETE FROM invoice WHERE invoice_id = ANY ($1::uuid[]) AND state = 'draft'", invoice_ids)


async def page(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None, state: str | None = None
) -> list[asyncpg.Record]:
    """List invoices that come after ``after``, all or one tenant's, in every state or in one.

    Amounts are in the digits of their currency.
    """
    narrowing, tenant_ids = narrowed("invoice.tenant_id = $4", tenant_id)
    return await connection.fetch(
        _INVOICE
        + f"""
        WHERE ($1::uuid IS NULL OR invoice.invoice_id > $1) AND ($3::text IS NULL OR invoice.state = $3) AND {narrowing}
        ORDER BY invoice.invoice_id LIMIT $2
        """,
        after,
        limit,
        state,
        *tenant_ids,
    )


async def invoice(connection: Connection, invoice_id: UUID, *, within: str | None) -> asyncpg.Record | None:
    """Find one invoice by its identity, of any tenant or if it is the one ``within``."""
    return await connection.fetchrow(
        _INVOICE + "WHERE invoice.invoice_id = $1 AND ($2::text IS NULL OR invoice.tenant_id = $2)", invoice_id, within
    )
