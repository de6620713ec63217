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
           round(invoice.total, currency.digits) AS total, invoice.drafted_at, invoice.issued_at,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('description', line.description,
                                                         'quantity', line.quantity::text,
                                                         'amount', round(line.amount, currency.digits)::text)
                                      ORDER BY line.position), '[]')
            FROM invoice_line AS line WHERE line.invoice_id = invoice.invoice_id) AS lines
    FROM invoice JOIN currency ON currency.code = invoice.currency
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
    """Draft invoices with their lines, made out as the accounts say at this moment.

    An invoice has a fresh ``invoice_id``, the ``tenant_id``, the ``total`` and ``lines`` as
    `services.billing.final_invoice.Line` has them.
    """
    await connection.execute(
        """
        WITH fresh AS (
            SELECT * FROM jsonb_to_recordset($1)
                AS fresh (invoice_id uuid, tenant_id text, total numeric, lines jsonb)
        ), drafted AS (
            INSERT INTO invoice (invoice_id, tenant_id, customer_name, billing_address, currency, total, drafted_at)
            SELECT fresh.invoice_id, tenant_id, account.customer_name, account.billing_address, account.currency,
                   fresh.total, $2
            FROM fresh JOIN account USING (tenant_id)
        )
        INSERT INTO invoice_line (invoice_id, position, description, quantity, amount)
        SELECT fresh.invoice_id, line.position, line.description, line.quantity, line.amount
        FROM fresh
        CROSS JOIN LATERAL ROWS FROM (
            jsonb_to_recordset(fresh.lines) AS (description text, quantity numeric, amount numeric)
        ) WITH ORDINALITY AS line (description, quantity, amount, position)
        """,
        invoices,
        now,
    )


async def delete_drafts(connection: Connection, invoice_ids: Sequence[UUID]) -> None:
    """Delete drafts with their lines; those that were issued stay."""
    await connection.execute("DELETE FROM invoice WHERE invoice_id = ANY ($1::uuid[]) AND state = 'draft'", invoice_ids)


async def page(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List invoices, all or one tenant's, drafted after ``after``, amounts in their currency's digits."""
    narrowing, tenant_ids = narrowed("invoice.tenant_id = $3", tenant_id)
    return await connection.fetch(
        _INVOICE
        + f"""
        WHERE ($1::uuid IS NULL OR invoice.invoice_id > $1) AND {narrowing}
        ORDER BY invoice.invoice_id LIMIT $2
        """,
        after,
        limit,
        *tenant_ids,
    )


async def invoice(connection: Connection, invoice_id: UUID, *, within: str | None) -> asyncpg.Record | None:
    """Find one invoice by its identity, of any tenant or if it is the one ``within``."""
    return await connection.fetchrow(
        _INVOICE + "WHERE invoice.invoice_id = $1 AND ($2::text IS NULL OR invoice.tenant_id = $2)", invoice_id, within
    )
