"""What payment providers are asked to take for invoices, for many invoices at once."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from shared.postgres import Connection


async def unbilled(connection: Connection, *, now: datetime, limit: int) -> list[asyncpg.Record]:
    """Return ``invoice_id`` and ``tenant_id`` of receivables that are to be collected, which have waited longest."""
    return await connection.fetch(
        """
        SELECT invoice_id, tenant_id FROM receivable WHERE collect_at <= $1
        ORDER BY collect_at, invoice_id LIMIT $2
        """,
        now,
        limit,
    )


async def to_look_at(connection: Connection, provider: str, *, now: datetime, limit: int) -> list[asyncpg.Record]:
    """Return ``invoice_id`` and ``tenant_id`` of bills of which there may be something to do and nobody does it."""
    return await connection.fetch(
        """
        SELECT invoice_id, tenant_id FROM bill WHERE look_at <= $2 AND held_until <= $2 AND provider = $1
        ORDER BY look_at, invoice_id LIMIT $3
        """,
        provider,
        now,
        limit,
    )


async def lock(connection: Connection, tenant_ids: Iterable[str]) -> None:
    """Keep what tenants owe from being changed by others."""
    await connection.execute(
        "SELECT 1 FROM debtor WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR NO KEY UPDATE",
        sorted(set(tenant_ids)),
    )


async def make(connection: Connection, provider: str, invoice_ids: Sequence[UUID], *, now: datetime) -> None:
    """Have a bill of what is due of each invoice, unless one is open; it goes on where one that was withdrawn stopped.

    The debtors are locked.
    """
    await connection.execute(
        """
        WITH found AS (
            UPDATE receivable SET collect_at = NULL
            WHERE invoice_id = ANY ($2::uuid[]) AND collect_at <= $3
            RETURNING invoice_id, tenant_id, currency, due
        )
        INSERT INTO bill (invoice_id, edition, tenant_id, provider, currency, amount, ask_at, look_at, made_at)
        SELECT found.invoice_id, coalesce(last.edition, 0) + 1, found.tenant_id, $1, found.currency, found.due,
               CASE WHEN last.state = 'void' THEN last.ask_at ELSE $3 END, $3, $3
        FROM found LEFT JOIN LATERAL (
            SELECT edition, ask_at, state FROM bill WHERE bill.invoice_id = found.invoice_id
            ORDER BY edition DESC LIMIT 1
        ) AS last ON true
        WHERE found.due > 0 AND last.state IS DISTINCT FROM 'open'
        """,
        provider,
        invoice_ids,
        now,
    )


async def hold(
    connection: Connection, provider: str, invoice_ids: Sequence[UUID], *, now: datetime, until: datetime
) -> list[asyncpg.Record]:
    """Keep others from looking at bills for a while, and return all that matters of them.

    The debtors are locked. What somebody else holds is left out.
    """
    return await connection.fetch(
        """
        UPDATE bill SET held_until = $4
        FROM receivable JOIN invoice USING (invoice_id)
        LEFT JOIN provider_customer AS customer
            ON customer.provider = $1 AND customer.tenant_id = receivable.tenant_id
        WHERE bill.invoice_id = ANY ($2::uuid[]) AND bill.provider = $1
          AND bill.look_at <= $3 AND bill.held_until <= $3 AND receivable.invoice_id = bill.invoice_id
        RETURNING bill.invoice_id, bill.edition, bill.tenant_id, bill.currency, bill.amount, bill.reference, bill.state,
                  bill.is_known, bill.ask_at, bill.asked_at, bill.failures, bill.news, bill.held_until,
                  receivable.number, receivable.due, receivable.attempts, receivable.issued_at,
                  invoice.customer_name, customer.reference AS customer
        """,
        provider,
        invoice_ids,
        now,
        until,
    )


async def ask(connection: Connection, bills: Sequence[tuple[UUID, int]], *, now: datetime) -> None:
    """Write down that the money for bills is asked for; what becomes of that is not known until it is answered."""
    await connection.execute(
        """
        UPDATE bill SET asked_at = coalesce(asked_at, $3), is_known = false
        FROM unnest($1::uuid[], $2::integer[]) AS asked (invoice_id, edition)
        WHERE bill.invoice_id = asked.invoice_id AND bill.edition = asked.edition
        """,
        [invoice_id for invoice_id, _ in bills],
        [edition for _, edition in bills],
        now,
    )


async def let_go(connection: Connection, bills: Iterable[Mapping[str, Any]], *, now: datetime) -> set[tuple[UUID, int]]:
    """Write what became of bills that are held, and return which still were.

    One of which there was news meanwhile is looked at again now. A bill has ``invoice_id``, ``edition``,
    ``held_until``, ``news``, ``reference``, ``state``, ``is_known``, ``ask_at``, ``asked_at``, ``failures`` and
    ``look_at``.
    """
    made = list(bills)
    rows = await connection.fetch(
        """
        UPDATE bill
        SET reference = new.reference, state = new.state, ask_at = new.ask_at, asked_at = new.asked_at,
            failures = new.failures, held_until = '-infinity',
            is_known = new.is_known AND bill.news = new.news,
            look_at = CASE WHEN bill.news = new.news THEN new.look_at ELSE $12 END
        FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::integer[], $5::text[], $6::text[], $7::boolean[],
                    $8::timestamptz[], $9::timestamptz[], $10::integer[], $11::timestamptz[])
            AS new (invoice_id, edition, held_until, news, reference, state, is_known, ask_at, asked_at, failures,
                    look_at)
        WHERE bill.invoice_id = new.invoice_id AND bill.edition = new.edition AND bill.held_until = new.held_until
        RETURNING bill.invoice_id, bill.edition
        """,
        *(
            [each[column] for each in made]
            for column in (
                "invoice_id",
                "edition",
                "held_until",
                "news",
                "reference",
                "state",
                "is_known",
                "ask_at",
                "asked_at",
                "failures",
                "look_at",
            )
        ),
        now,
    )
    return {(row["invoice_id"], row["edition"]) for row in rows}


async def count(connection: Connection, attempts: Mapping[UUID, int], *, again: Sequence[UUID], now: datetime) -> None:
    """Write how often a provider has answered for invoices, and which of them to bill again where something is due."""
    await connection.execute(
        """
        UPDATE receivable
        SET attempts = new.attempts,
            collect_at = CASE WHEN receivable.invoice_id = ANY ($3::uuid[]) AND due > 0 THEN $4 ELSE collect_at END
        FROM unnest($1::uuid[], $2::integer[]) AS new (invoice_id, attempts)
        WHERE receivable.invoice_id = new.invoice_id
        """,
        list(attempts),
        list(attempts.values()),
        again,
        now,
    )


async def know_customers(
    connection: Connection, provider: str, references: Mapping[str, str], *, now: datetime
) -> None:
    """Write by which references a provider knows tenants; the first one stays."""
    await connection.execute(
        """
        INSERT INTO provider_customer (provider, tenant_id, reference, made_at)
        SELECT $1, tenant_id, reference, $4 FROM unnest($2::text[], $3::text[]) AS new (tenant_id, reference)
        ON CONFLICT (provider, tenant_id) DO NOTHING
        """,
        provider,
        list(references),
        list(references.values()),
        now,
    )


async def hear(
    connection: Connection, provider: str, event_id: str, kind: str, reference: str | None, *, now: datetime
) -> bool:
    """Write down what a provider has told, and have the bill that it is about looked at; tell whether it is new."""
    is_new: bool = await connection.fetchval(
        """
        WITH heard AS (
            INSERT INTO provider_event (provider, event_id, type, received_at) VALUES ($1, $2, $3, $5)
            ON CONFLICT (provider, event_id) DO NOTHING RETURNING event_id
        ), told AS (
            UPDATE bill SET is_known = false, news = news + 1, look_at = least(look_at, $5)
            WHERE provider = $1 AND reference = $4 AND EXISTS (SELECT 1 FROM heard)
        )
        SELECT EXISTS (SELECT 1 FROM heard)
        """,
        provider,
        event_id,
        kind,
        reference,
        now,
    )
    return is_new
