"""What an invoice for people says."""

from uuid import UUID

import asyncpg

from shared.postgres import Connection


async def invoice(connection: Connection, invoice_id: UUID, *, within: str | None) -> asyncpg.Record | None:
    """Find one invoice with all that is written on it, of any tenant or if it is the one ``within``.

    Amounts are in the currency's ``digits``. Each of the ``lines`` has a ``description``, ``quantity`` and ``amount``
    as text, the ``unit`` of the quantity or nothing, and ``since`` and ``until`` as RFC 3339 or null.
    """
    return await connection.fetchrow(
        """
        SELECT invoice.tenant_id, invoice.customer_name, invoice.billing_address, invoice.currency, currency.digits,
               invoice.state, invoice.number, invoice.time_zone, invoice.drafted_at, invoice.issued_at,
               invoice.usage_stated_at, round(invoice.total, currency.digits) AS total,
               (SELECT coalesce(jsonb_agg(jsonb_build_object('description', line.description,
                                                             'quantity', line.quantity::text,
                                                             'unit', line.unit,
                                                             'amount', round(line.amount, currency.digits)::text,
                                                             'since', line.since,
                                                             'until', line.until)
                                          ORDER BY line.position), '[]')
                FROM invoice_line AS line WHERE line.invoice_id = invoice.invoice_id) AS lines
        FROM invoice JOIN currency ON currency.code = invoice.currency
        WHERE invoice.invoice_id = $1 AND ($2::text IS NULL OR invoice.tenant_id = $2)
        """,
        invoice_id,
        within,
    )
