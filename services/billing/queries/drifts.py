"""How the books of a payment provider are compared with ours."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg

from shared.postgres import Connection


async def begin(connection: Connection, provider: str, *, now: datetime, until: datetime) -> bool:
    """Tell whether it is time to compare; then nobody else does until a time, and nothing is left of the last time."""
    begun: bool = await connection.fetchval(
        """
        WITH begun AS (
            INSERT INTO reconciliation (provider, compare_at) VALUES ($1, $3)
            ON CONFLICT (provider) DO UPDATE SET compare_at = excluded.compare_at
            WHERE reconciliation.compare_at <= $2
            RETURNING provider
        ), swept AS (
            DELETE FROM taken_payment WHERE provider IN (SELECT provider FROM begun)
        )
        SELECT EXISTS (SELECT 1 FROM begun)
        """,
        provider,
        now,
        until,
    )
    return begun


async def keep_taken(
    connection: Connection, provider: str, taken: Sequence[tuple[str, str, Decimal, datetime]]
) -> None:
    """Keep what a provider says it has taken: reference, currency, amount and when."""
    await connection.execute(
        """
        INSERT INTO taken_payment (provider, reference, currency, amount, received_at)
        SELECT $1, * FROM unnest($2::text[], $3::text[], $4::numeric[], $5::timestamptz[])
        ON CONFLICT (provider, reference) DO NOTHING
        """,
        provider,
        *([each[place] for each in taken] for place in range(4)),
    )


async def compare(
    connection: Connection, provider: str, *, since: datetime, until: datetime, now: datetime
) -> list[asyncpg.Record]:
    """Replace what is known of drifts by what they are now, and return those that are new.

    Args:
        since: of bills that were made before nothing is expected of the provider to have been said.
        until: of money that was taken later nothing is expected to be booked, nor the other way round.
    """
    return await connection.fetch(
        """
        WITH booked AS (
            SELECT payment.reference, payment.tenant_id, payment.invoice_id, payment.currency, payment.amount
            FROM bill JOIN payment USING (provider, reference)
            WHERE bill.provider = $1 AND bill.made_at >= $2 AND payment.recorded_at < $3
        ), different AS (
            SELECT taken.reference, bill.tenant_id, bill.invoice_id, taken.currency, taken.amount AS taken,
                   coalesce(payment.amount, 0) AS booked,
                   CASE WHEN payment.reference IS NULL THEN 'unbooked' ELSE 'amount' END AS kind
            FROM taken_payment AS taken
            LEFT JOIN bill ON bill.provider = taken.provider AND bill.reference = taken.reference
            LEFT JOIN payment ON payment.provider = taken.provider AND payment.reference = taken.reference
            WHERE taken.provider = $1
              AND (payment.reference IS NULL AND taken.received_at < $3
                   OR (payment.currency, payment.amount) <> (taken.currency, taken.amount))
            UNION ALL
            SELECT reference, tenant_id, invoice_id, currency, 0, amount, 'untaken' FROM booked
            WHERE NOT EXISTS (
                SELECT 1 FROM taken_payment AS taken WHERE taken.provider = $1 AND taken.reference = booked.reference
            )
        ), gone AS (
            DELETE FROM payment_drift
            WHERE provider = $1 AND reference NOT IN (SELECT reference FROM different)
        ), written AS (
            INSERT INTO payment_drift
                (provider, reference, kind, tenant_id, invoice_id, currency, taken, booked, found_at)
            SELECT $1, reference, kind, tenant_id, invoice_id, currency, taken, booked, $4 FROM different
            ON CONFLICT (provider, reference) DO UPDATE
            SET kind = excluded.kind, currency = excluded.currency, taken = excluded.taken, booked = excluded.booked
            RETURNING *
        )
        SELECT reference, kind, tenant_id, invoice_id, currency, taken, booked FROM written WHERE found_at = $4
        """,
        provider,
        since,
        until,
        now,
    )


async def finish(connection: Connection, provider: str, *, compare_at: datetime, events_before: datetime) -> None:
    """Write when to compare next, and forget what was kept for it and what the provider told long ago."""
    await connection.execute("UPDATE reconciliation SET compare_at = $2 WHERE provider = $1", provider, compare_at)
    await connection.execute("DELETE FROM taken_payment WHERE provider = $1", provider)
    await connection.execute(
        "DELETE FROM provider_event WHERE provider = $1 AND received_at < $2", provider, events_before
    )


async def count(connection: Connection, provider: str) -> int:
    """Return how many drifts there are."""
    found: int = await connection.fetchval("SELECT count(*) FROM payment_drift WHERE provider = $1", provider)
    return found


async def page(connection: Connection, *, after: tuple[Any, Any] | None, limit: int) -> list[asyncpg.Record]:
    """Return drifts in the order of ``provider`` and ``reference``, amounts in the digits of their currencies.

    Args:
        after: the last provider and reference of the page before.
    """
    provider, reference = after or ("", "")
    return await connection.fetch(
        """
        SELECT provider, reference, kind, tenant_id, invoice_id, drift.currency,
               round(taken, coalesce(currency.digits, 4)) AS taken,
               round(booked, coalesce(currency.digits, 4)) AS booked, found_at
        FROM payment_drift AS drift LEFT JOIN currency ON currency.code = drift.currency
        WHERE (provider, reference) > ($1, $2) ORDER BY provider, reference LIMIT $3
        """,
        provider,
        reference,
        limit,
    )
