from datetime import UTC, datetime

import asyncpg
import pytest

from services.metrics import queries
from services.metrics.partitions import keep_partitions
from services.metrics.queries.quotas import Limit
from shared.postgres import Connection, Pool

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def track(connection: Connection, tenant_id: str, **limits: int) -> None:
    await queries.tenants.track(connection, {tenant_id: "UTC"}, now=NOW)
    await queries.quotas.put(connection, {(tenant_id, meter): limit for meter, limit in limits.items()})


async def test_the_catalog_comes_in_pages_by_name(pool: Pool) -> None:
    async with pool.acquire() as connection:
        first = await queries.meters.page(connection, after="", limit=2)
        rest = await queries.meters.page(connection, after=first[-1]["name"], limit=50)

    rows = [(row["name"], row["unit"], row["enforcement"]) for row in (*first, *rest)]
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

        first = await queries.quotas.page(connection, "t1", now=NOW, after="", limit=2)
        rest = await queries.quotas.page(connection, "t1", now=NOW, after=first[-1]["meter"], limit=2)

    assert [(row["meter"], row["limit_value"], row["unit"]) for row in (*first, *rest)] == [
        ("api_calls", 10, "call"),
        ("seats", 3, "seat"),
        ("storage_gb", 1, "GB"),
    ]


LEAVE_SOMETHING_EVERYWHERE = """
INSERT INTO usage_hour VALUES ('t1', 'seats', '2026-03-01 00:00Z', 1);
INSERT INTO usage_event VALUES ('t1', '/s', '1', 'seat', '2026-03-01 00:00Z', '2026-03-01 00:00Z', '{}');
INSERT INTO usage_key VALUES ('t1', '0123456789abcdef', '0123456789abcdef', '2026-03-01 00:00Z');
INSERT INTO usage_dimension_hour VALUES ('t1', 'seats', '2026-03-01 00:00Z', '{"region": "eu"}', 1);
INSERT INTO usage_value VALUES ('t1', 'seats', '2026-03-01 00:00Z', '{}', decode(repeat('0', 32), 'hex'));
INSERT INTO quota_use VALUES ('t1', 'seats', '2026-03-01', 1);
INSERT INTO quota_value VALUES ('t1', 'seats', '2026-03-01', decode(repeat('0', 32), 'hex'));
INSERT INTO quota_crossing VALUES ('t1', 'seats', '2026-03-01', 3, 80, 3, '2026-03-01 00:00Z');
INSERT INTO usage_amendment (amendment_id, tenant_id, meter, happened_at, quantity, reason, actor, amended_at)
VALUES (gen_random_uuid(), 't1', 'seats', '2026-03-01 00:00Z', 1, 'a mistake', 'user:ada', '2026-03-01 00:00Z');
"""


async def test_every_table_that_knows_a_tenant_is_audited_for_residue(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await track(connection, "t1", seats=3)
        await keep_partitions(connection, now=NOW)
        await connection.execute(LEAVE_SOMETHING_EVERYWHERE)
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.columns JOIN information_schema.tables "
            "USING (table_schema, table_name) "
            "WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND column_name = 'tenant_id' "
            "AND NOT (SELECT relispartition FROM pg_class WHERE oid = table_name::regclass)"
        )
        places = await connection.fetch("SELECT DISTINCT place FROM live_record WHERE tenant_id = 't1'")

    forgotten_in_time = {"access_tenant", "access_api_key"}  # see `shared.access.replica.forget`
    kept = {"audit_entry", "audit_chain"}  # the trail outlives the tenant
    kept |= {"tenant_change", "recurring_revenue"}  # and so do the figures of the business,
    kept |= {"lake_tenant_fact"}  # and what became of it, for the lake
    assert {row["place"] for row in places} | forgotten_in_time | kept == {row["table_name"] for row in tables}


HASH = "decode(repeat('0', 32), 'hex')"
TWICE = asyncpg.UniqueViolationError
NO_PARTITION = asyncpg.CheckViolationError


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE quota SET limit_value = -1", asyncpg.CheckViolationError),
        ("UPDATE quota SET enforcement = 'gentle'", asyncpg.CheckViolationError),
        ("UPDATE quota SET meter = 'dreams'", asyncpg.ForeignKeyViolationError),
        ("UPDATE meter SET name = 'API Calls'", asyncpg.CheckViolationError),
        ("DELETE FROM tracked_tenant", asyncpg.ForeignKeyViolationError),
        ("DELETE FROM meter", asyncpg.ForeignKeyViolationError),
        ("INSERT INTO usage_hour VALUES ('t1', 'dreams', '2026-01-01 00:00Z', 1)", asyncpg.ForeignKeyViolationError),
        ("INSERT INTO usage_hour VALUES ('t0', 'seats', '2026-01-01 00:00Z', 1)", asyncpg.ForeignKeyViolationError),
        ("UPDATE meter SET aggregation = 'mean'", asyncpg.CheckViolationError),
        ("UPDATE meter SET event_type = ''", asyncpg.CheckViolationError),
        ("UPDATE meter SET value_path = '$.calls' WHERE aggregation = 'count'", asyncpg.CheckViolationError),
        ("UPDATE meter SET value_path = NULL WHERE aggregation = 'max'", asyncpg.CheckViolationError),
        (f"INSERT INTO usage_key VALUES ('t1', '', {HASH}, now())", asyncpg.CheckViolationError),
        (f"INSERT INTO usage_key VALUES ('t1', {HASH}, '', now())", asyncpg.CheckViolationError),
        (f"INSERT INTO usage_key SELECT 't1', {HASH}, {HASH}, now() FROM generate_series(1, 2)", TWICE),
        ("INSERT INTO usage_value VALUES ('t1', 'seats', now(), '{}', '')", asyncpg.CheckViolationError),
        ("INSERT INTO usage_event VALUES ('t1', '/s', '1', 'x', '2000-01-01 00:00Z', now(), '{}')", NO_PARTITION),
    ],
)
async def test_the_schema_refuses_what_must_never_be(
    pool: Pool, statement: str, error: type[asyncpg.PostgresError]
) -> None:
    async with pool.acquire() as connection:
        await track(connection, "t1", seats=3)

        with pytest.raises(error):
            await connection.execute(statement)
