"""What is taken of events is kept for as long as it is promised, and there is always room for the next one."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from services.metrics import partitions
from services.metrics.partitions import (
    RETENTION,
    WINDOW,
    Keeping,
    forget_keys,
    forget_months,
    keep_partitions,
)
from shared.clock import ManualClock
from shared.postgres import Connection, Pool
from shared.testing.eventually import eventually, hurry

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def happen(connection: Connection, at: datetime) -> None:
    await connection.execute(
        "INSERT INTO usage_event (tenant_id, source, id, type, happened_at, stored_at, data) "
        "VALUES ('t1', 'app', '1', 'api_call', $1, $2, '{}')",
        at,
        NOW,
    )


async def days(connection: Connection) -> list[str]:
    rows = await connection.fetch("SELECT relid::regclass::text FROM pg_partition_tree('usage_event') WHERE isleaf")
    return sorted(row[0].removeprefix("usage_event_") for row in rows)


async def test_there_is_a_partition_for_every_event_that_can_come_today_or_tomorrow(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await keep_partitions(connection, now=NOW)

        await happen(connection, NOW - timedelta(days=35))
        await happen(connection, NOW + timedelta(days=1, minutes=5))
        with pytest.raises(asyncpg.CheckViolationError):
            await happen(connection, NOW - timedelta(days=40))


async def test_keeping_partitions_again_changes_nothing(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await keep_partitions(connection, now=NOW)
        await happen(connection, NOW)
        before = await days(connection)

        await keep_partitions(connection, now=NOW + timedelta(hours=1))

        assert await days(connection) == before
        assert await connection.fetchval("SELECT count(*) FROM usage_event") == 1


async def test_a_day_goes_when_it_is_older_than_the_retention(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await keep_partitions(connection, now=NOW)
        oldest = (await days(connection))[0]

        await keep_partitions(connection, now=NOW - timedelta(days=36) + RETENTION)
        assert (await days(connection))[0] == oldest
        await keep_partitions(connection, now=NOW - timedelta(days=35) + RETENTION)
        assert (await days(connection))[0] > oldest


async def test_keys_are_forgotten_after_their_window_wherever_they_are(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_BLOCKS", 2)
    async with pool.acquire() as connection:
        await connection.execute(
            """
            INSERT INTO usage_key
            SELECT 't1', decode(lpad(to_hex(n), 32, '0'), 'hex'), decode(repeat('00', 16), 'hex'),
                   CASE WHEN n % 2 = 0 THEN $1::timestamptz ELSE $2::timestamptz END
            FROM generate_series(1, 1000) AS n
            """,
            NOW - WINDOW - timedelta(microseconds=1),
            NOW - WINDOW,
        )

        assert await forget_keys(pool, now=NOW) == 500

        assert await connection.fetchval("SELECT array_agg(DISTINCT received_at) FROM usage_key") == [NOW - WINDOW]


async def test_months_of_quotas_are_forgotten_when_no_event_of_them_can_come_any_more(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute(
            """
            INSERT INTO tracked_tenant VALUES ('t1', now());
            INSERT INTO quota VALUES ('t1', 'api_calls', 5, 'soft');
            INSERT INTO quota_use SELECT 't1', 'api_calls', '2025-01-01'::date + n * interval '1 month', n
                FROM generate_series(0, 14) AS n;
            INSERT INTO quota_crossing SELECT tenant_id, meter, month, 5, 80, used, now() FROM quota_use
            """
        )

        assert await forget_months(pool, now=NOW) == 10

        for table in ("quota_use", "quota_crossing"):
            left = await connection.fetchval(f"SELECT array_agg(to_char(month, 'YYYY-MM') ORDER BY month) FROM {table}")
            assert left == ["2025-11", "2025-12", "2026-01", "2026-02", "2026-03"]


async def test_partitions_are_kept_as_long_as_the_service_runs(pool: Pool) -> None:
    clock = ManualClock(NOW)
    running = asyncio.create_task(Keeping(pool, clock).run())
    async with pool.acquire() as connection:
        await connection.execute("INSERT INTO usage_key VALUES ('t1', $1, $1, $2)", bytes(16), NOW - WINDOW)

    async def lasts_until(day: str) -> bool:
        async with pool.acquire() as connection:
            return (await days(connection))[-1:] == [day]

    async def has_keys() -> bool:
        return bool(await pool.fetchval("SELECT count(*) FROM usage_key"))

    async def has_no_keys() -> bool:
        return not await has_keys()

    try:
        await eventually(lambda: lasts_until("20260303"))
        assert await has_keys()
        await hurry(clock, lambda: lasts_until("20260304"), step=1800)
        await hurry(clock, has_no_keys, step=1800)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
