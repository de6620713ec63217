from datetime import UTC, datetime

import asyncpg
import pytest

from services.metrics import queries
from services.metrics.queries.quotas import Limit
from shared.postgres import Connection, Pool

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def track(connection: Connection, tenant_id: str, **limits: int) -> None:
    await queries.tenants.track(connection, [tenant_id], now=NOW)
    await queries.quotas.put(connection, {(tenant_id, meter): limit for meter, limit in limits.items()})


async def test_the_catalog_comes_in_pages_by_name(pool: Pool) -> None:
    async with pool.acquire() as connection:
        first = await queries.meters.page(connection, after="", limit=2)
        rest = await queries.meters.page(connection, after=first[-1]["name"], limit=50)

    rows = [tuple(row) for row in (*first, *rest)]
    assert [row for row in rows if not row[0].startswith("mail_")] == [
        ("api_calls", "call", "soft"),
        ("seats", "seat", "hard"),
        ("storage_gb", "GB", "soft"),
    ]
    assert rows == sorted(rows)


async def test_only_meters_of_the_catalog_are_enforced(pool: Pool) -> None:
    async with pool.acquire() as connection:
        assert await queries.meters.enforcements(connection, ["seats", "api_calls", "dreams", "SEATS"]) == {
            "seats": "hard",
            "api_calls": "soft",
        }
        assert await queries.meters.enforcements(connection, []) == {}


async def test_limits_are_those_of_the_tenants_that_are_named(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await track(connection, "t1", seats=3, api_calls=10)
        await track(connection, "t2")
        await track(connection, "t3", seats=4)

        assert await queries.quotas.limits_of(connection, ["t1", "t2"]) == {
            "t1": {"seats": (3, "hard"), "api_calls": (10, "soft")},
            "t2": {},
        }


async def test_quotas_are_replaced_only_of_the_tenants_that_are_named(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await track(connection, "t1", seats=3, api_calls=10)
        await track(connection, "t2", seats=3)
        await track(connection, "t3", seats=3)

        await queries.quotas.replace(connection, {"t1": {"seats": Limit(5, "soft")}, "t2": {}})

        assert await queries.quotas.limits_of(connection, ["t1", "t2", "t3"]) == {
            "t1": {"seats": (5, "soft")},
            "t2": {},
            "t3": {"seats": (3, "hard")},
        }


async def test_a_quota_that_is_there_already_is_not_written_again(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await track(connection, "t1", seats=3, api_calls=10)
        written = await connection.fetchval("SELECT xmin FROM quota WHERE meter = 'seats'")

        await queries.quotas.replace(connection, {"t1": {"seats": Limit(3, "hard"), "api_calls": Limit(11, "soft")}})

        assert await connection.fetchval("SELECT xmin FROM quota WHERE meter = 'seats'") == written
        assert await connection.fetchval("SELECT xmin FROM quota WHERE meter = 'api_calls'") != written


async def test_the_quotas_of_one_tenant_come_in_pages_by_meter_with_units(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await track(connection, "t1", storage_gb=1, seats=3, api_calls=10)
        await track(connection, "t2", seats=4)

        first = await queries.quotas.page(connection, "t1", after="", limit=2)
        rest = await queries.quotas.page(connection, "t1", after=first[-1]["meter"], limit=2)

    assert [(row["meter"], row["limit_value"], row["unit"]) for row in (*first, *rest)] == [
        ("api_calls", 10, "call"),
        ("seats", 3, "seat"),
        ("storage_gb", 1, "GB"),
    ]


async def test_every_table_that_knows_a_tenant_is_audited_for_residue(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await track(connection, "t1", seats=3)
        await connection.execute("INSERT INTO usage_hour VALUES ('t1', 'seats', '2026-01-01 00:00Z', 1)")
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.columns JOIN information_schema.tables "
            "USING (table_schema, table_name) "
            "WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND column_name = 'tenant_id'"
        )
        places = await connection.fetch("SELECT DISTINCT place FROM live_record WHERE tenant_id = 't1'")

    forgotten_in_time = {"access_tenant", "access_api_key"}  # see `shared.access.replica.forget`
    kept = {"audit_entry", "audit_chain"}  # the trail outlives the tenant
    assert {row["place"] for row in places} | forgotten_in_time | kept == {row["table_name"] for row in tables}


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE quota SET limit_value = -1", asyncpg.CheckViolationError),
        ("UPDATE quota SET enforcement = 'gentle'", asyncpg.CheckViolationError),
        ("UPDATE quota SET meter = 'dreams'", asyncpg.ForeignKeyViolationError),
        ("UPDATE meter SET name = 'API Calls'", asyncpg.CheckViolationError),
        ("DELETE FROM tracked_tenant", asyncpg.ForeignKeyViolationError),
        ("DELETE FROM meter", asyncpg.ForeignKeyViolationError),
        ("INSERT INTO usage_hour VALUES ('t1', 'seats', '2026-01-01 00:01Z', 1)", asyncpg.CheckViolationError),
        ("INSERT INTO usage_hour VALUES ('t1', 'dreams', '2026-01-01 00:00Z', 1)", asyncpg.ForeignKeyViolationError),
        ("INSERT INTO usage_hour VALUES ('t0', 'seats', '2026-01-01 00:00Z', 1)", asyncpg.ForeignKeyViolationError),
    ],
)
async def test_the_schema_refuses_what_must_never_be(
    pool: Pool, statement: str, error: type[asyncpg.PostgresError]
) -> None:
    async with pool.acquire() as connection:
        await track(connection, "t1", seats=3)

        with pytest.raises(error):
            await connection.execute(statement)
