"""What is told to whoever makes invoices: the quantities that `GET /v1/usage` tells."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
from asyncpg.connection import LoggedQuery

from deploy.local.throwaway import FreshDatabases
from services.metrics.queries.reporting import Wanted, quantities
from services.metrics.reporting import report_usage
from services.metrics.tests.metering import Office
from shared.clock import ManualClock
from shared.contracts import Fact
from shared.contracts.billing import UsagePeriod, UsageRequested
from shared.contracts.metrics import UsageReported
from shared.postgres import Connection, Pool, transaction

MARCH = datetime(2026, 2, 28, 23, tzinfo=UTC), datetime(2026, 3, 31, 22, tzinfo=UTC)
"""The month in Berlin."""

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
ASKED_AT = NOON - timedelta(minutes=1)


def request(tenant_id: str, *periods: tuple[datetime, datetime]) -> UsageRequested:
    wanted = tuple(UsagePeriod(since=since, until=until) for since, until in periods)
    return UsageRequested(tenant_id=tenant_id, periods=wanted, requested_at=ASKED_AT)


async def reports(pool: Pool, *requests: UsageRequested, clock: ManualClock | None = None) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        return await report_usage(connection, requests, clock=clock or ManualClock(NOON))


async def told(pool: Pool, *requests: UsageRequested) -> list[list[Mapping[str, str]]]:
    """Return the quantities of each period of each request."""
    facts = await reports(pool, *requests)
    assert all(isinstance(fact, UsageReported) for fact in facts)
    return [[period.quantities for period in fact.periods] for fact in facts if isinstance(fact, UsageReported)]


async def test_the_report_is_what_is_read_over_http_of_every_aggregation(office: Office, pool: Pool) -> None:
    for aggregation in ("count", "sum", "max", "unique", "latest"):
        await office.define(aggregation, aggregation)
    await office.define("low", "sum", allowsNegative=True, dimensions={"d": "$.d"})
    for hours, value in ((-20, 4), (-3, 9), (-2, 2), (-2, 2), (1, 3)):
        await office.send(min(NOON + timedelta(hours=hours), NOON + timedelta(minutes=4)), v=value, d="x")
    void = await office.send(NOON - timedelta(hours=1), v=70)
    await office.void(void)
    for meter, quantity in (("count", "2"), ("low", "-100")):
        assert (await office.amend(meter=meter, time=NOON.isoformat(), quantity=quantity)).status_code == 201

    assert await told(pool, request("t1", MARCH)) == [[await office.quantities()]]
    assert await office.quantities() == {
        "count": "7", "sum": "20", "max": "9", "unique": "4", "latest": "3", "low": "-80",
    }  # fmt: skip


async def test_a_sum_below_zero_is_no_credit_and_what_is_zero_is_not_listed(office: Office, pool: Pool) -> None:
    await office.define("sum", "sum")
    await office.send(v=10)
    await office.send(v=0, source="/zero")
    await office.amend(meter="sum", time=NOON.isoformat(), quantity="-30")

    assert await told(pool, request("t1", MARCH)) == [[{}]]


async def test_each_period_has_the_hours_that_begin_in_it(office: Office, pool: Pool) -> None:
    await office.define("sum", "sum")
    noon = NOON
    for minutes, value in ((-1, 1), (0, 10), (59, 100), (60, 1000)):
        await office.clock.advance(max(0.0, (noon + timedelta(minutes=minutes) - office.clock.now()).total_seconds()))
        await office.send(noon + timedelta(minutes=minutes), v=value)
    hour = timedelta(hours=1)

    assert await told(pool, request("t1", (noon, noon + hour), (noon - hour, noon), MARCH, (noon, noon))) == [
        [{"sum": "110"}, {"sum": "1"}, {"sum": "1111"}, {}]
    ]


async def test_a_report_answers_each_request_in_order_and_nobody_elses_usage_is_in_it(
    office: Office, pool: Pool
) -> None:
    await office.define("sum", "sum")
    await office.send(v=1)
    await pool.execute("INSERT INTO tracked_tenant (tenant_id, tracked_at) VALUES ('t2', now()), ('t3', now())")
    office.tenant_id = "t2"
    await office.send(v=2)
    clock = ManualClock(NOON)

    facts = await reports(
        pool, request("t2", MARCH), request("nobody", MARCH), request("t3"), request("t1", MARCH), clock=clock
    )

    assert [fact.tenant_id for fact in facts] == ["t2", "nobody", "t3", "t1"]
    assert await told(pool, request("t2", MARCH), request("nobody", MARCH), request("t3"), request("t1", MARCH)) == [
        [{"sum": "2"}], [{}], [], [{"sum": "1"}],
    ]  # fmt: skip
    first = facts[0]
    assert isinstance(first, UsageReported)
    assert (first.requested_at, first.stated_at) == (ASKED_AT, NOON)
    assert [(period.since, period.until) for period in first.periods] == [MARCH]
    assert await reports(pool) == []


A_YEAR_OF_A_HUNDRED = """
    INSERT INTO tracked_tenant (tenant_id, tracked_at)
    SELECT 't' || tenant, now() FROM generate_series(1, 100) AS tenant;
    INSERT INTO usage_hour (tenant_id, meter, hour, quantity)
    SELECT 't' || tenant, name, timestamptz '2025-06-01' + hour * interval '4 hours', 1
    FROM generate_series(1, 100) AS tenant, unnest(ARRAY['api_calls', 'storage_gb', 'mail_sends']) AS name,
         generate_series(0, 2100, 10) AS hour;
    INSERT INTO usage_value (tenant_id, meter, hour, value)
    SELECT 't' || tenant, 'seats', timestamptz '2025-06-01' + hour * interval '4 hours', decode(md5(hour::text), 'hex')
    FROM generate_series(1, 100) AS tenant, generate_series(0, 2100, 10) AS hour;
    ANALYZE usage_hour, usage_value, meter
"""


async def test_the_hours_of_a_whole_batch_are_found_by_one_statement_that_reads_no_others(
    fresh_database: FreshDatabases,
) -> None:
    urls = await fresh_database.urls("metrics")
    wanted = [Wanted(f"t{number}", *MARCH) for number in range(1, 31)]
    connection: Connection = await asyncpg.connect(urls.owner)
    try:
        await connection.execute(A_YEAR_OF_A_HUNDRED)
        await quantities(connection, wanted[:1])  # makes the driver look up what it does not know of types
        seen: list[LoggedQuery] = []
        with connection.query_logger(seen.append):
            found = await quantities(connection, wanted)
            await asyncio.sleep(0)  # the logger is called in the loop's next turn
        [asked] = seen
        rows = await connection.fetch(f"EXPLAIN {asked.query}", *asked.args)
    finally:
        await connection.close()

    assert len(found) == 30 * 4
    plan = [row[0].strip() for row in rows]
    conditions = [line for line in plan if line.startswith("Index Cond")]
    assert len(conditions) == 2
    for condition in conditions:
        for column in ("tenant_id", "meter", "hour >=", "hour <"):
            assert column in condition
    assert not any("Seq Scan on usage" in line for line in plan)
