"""The books: payments, credit notes and credit. Nothing in them is ever changed or deleted."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.billing.queries.narrowing import narrowed
from shared.postgres import Connection

# What a reader sees; statements continue after the FROM. Amounts are in the digits of their currency.
_PAYMENT = """
    SELECT payment_id, tenant_id, invoice_id, provider, reference, currency, round(amount, currency.digits) AS amount,
           received_at, recorded_at
    FROM payment JOIN currency ON currency.code = payment.currency
"""
_NOTE = """
    SELECT credit_note_id, number, invoice_id, tenant_id, currency, round(amount, currency.digits) AS amount, reason,
           issued_at
    FROM credit_note JOIN currency ON currency.code = credit_note.currency
"""
_ENTRY = """
    SELECT entry_id, tenant_id, kind, currency, round(amount, currency.digits) AS amount, invoice_id, payment_id,
           reason, recorded_at
    FROM credit_entry JOIN currency ON currency.code = credit_entry.currency
"""


async def add_payments(connection: Connection, payments: Sequence[Mapping[str, Any]], *, now: datetime) -> set[UUID]:
    """Append payments whose references are not known of their providers, and return the ``payment_id`` of these."""
    rows = await connection.fetch(
        """
        INSERT INTO payment (payment_id, tenant_id, invoice_id, provider, reference, currency, amount, received_at,
                             recorded_at)
        SELECT new.*, $2
        FROM jsonb_to_recordset($1) AS new (
            payment_id uuid, tenant_id text, invoice_id uuid, provider text, reference text, currency text,
            amount numeric, received_at timestamptz
        )
        ORDER BY provider, reference  -- concurrent batches wait for each other's references in one order
        ON CONFLICT (provider, reference) DO NOTHING
        RETURNING payment_id
        """,
        payments,
        now,
    )
    return {row["payment_id"] for row in rows}


async def payments_of(connection: Connection, references: Sequence[tuple[str, str]]) -> list[asyncpg.Record]:
    """Return the payments that providers know by these references."""
    return await connection.fetch(
        _PAYMENT + "JOIN unnest($1::text[], $2::text[]) AS known (provider, reference) USING (provider, reference)",
        [provider for provider, _ in references],
        [reference for _, reference in references],
    )


async def payments(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List payments that come after ``after``, all or one tenant's, in the order in which they were recorded."""
    return await _page(connection, _PAYMENT, "payment_id", after=after, limit=limit, tenant_id=tenant_id)


async def add_note(connection: Connection, note: Mapping[str, Any], *, now: datetime) -> int:
    """Append a credit note, and return its number: the next one, so that there is no gap."""
    number: int = await connection.fetchval(
        """
        WITH taken AS (
            UPDATE invoice_series SET last = last + 1 WHERE name = 'credit_note' RETURNING last
        )
        INSERT INTO credit_note (credit_note_id, number, invoice_id, tenant_id, currency, amount, reason, issued_at)
        SELECT $1, last, $2, $3, $4, $5, $6, $7 FROM taken
        RETURNING number
        """,
        *(note[name] for name in ("credit_note_id", "invoice_id", "tenant_id", "currency", "amount", "reason")),
        now,
    )
    return number


async def note(connection: Connection, credit_note_id: UUID) -> asyncpg.Record | None:
    """Return a credit note."""
    return await connection.fetchrow(_NOTE + "WHERE credit_note_id = $1", credit_note_id)


async def notes(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List credit notes that come after ``after``, all or one tenant's."""
    return await _page(connection, _NOTE, "credit_note_id", after=after, limit=limit, tenant_id=tenant_id)


async def add_entries(connection: Connection, entries: Sequence[Mapping[str, Any]], *, now: datetime) -> None:
    """Append changes of credit."""
    await connection.execute(
        """
        INSERT INTO credit_entry (entry_id, tenant_id, kind, currency, amount, invoice_id, payment_id, reason,
                                  recorded_at)
        SELECT new.*, $2
        FROM jsonb_to_recordset($1) AS new (
            entry_id uuid, tenant_id text, kind text, currency text, amount numeric, invoice_id uuid, payment_id uuid,
            reason text
        )
        """,
        entries,
        now,
    )


async def entry(connection: Connection, entry_id: UUID) -> asyncpg.Record | None:
    """Return a change of credit."""
    return await connection.fetchrow(_ENTRY + "WHERE entry_id = $1", entry_id)


async def entries(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List changes of credit that come after ``after``, all or one tenant's, in their order."""
    return await _page(connection, _ENTRY, "entry_id", after=after, limit=limit, tenant_id=tenant_id)


async def claim(
    connection: Connection, *, principal: str, key: str, fingerprint: bytes, made: UUID, now: datetime
) -> asyncpg.Record:
    """Have a key stand for a request and for what it makes.

    Returns:
        The ``fingerprint`` and what was ``made`` of the request that has the key: of this one, or of an earlier one.
    """
    await connection.execute(
        """
        INSERT INTO money_request (principal, idempotency_key, fingerprint, made, requested_at)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING
        """,
        principal,
        key,
        fingerprint,
        made,
        now,
    )
    row = await connection.fetchrow(
        "SELECT fingerprint, made FROM money_request WHERE principal = $1 AND idempotency_key = $2", principal, key
    )
    assert row is not None
    return row


async def _page(
    connection: Connection, select: str, identity: str, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    narrowing, tenant_ids = narrowed("tenant_id = $3", tenant_id)
    return await connection.fetch(
        f"{select} WHERE ($1::uuid IS NULL OR {identity} > $1) AND {narrowing} ORDER BY {identity} LIMIT $2",
        after,
        limit,
        *tenant_ids,
    )
