"""Usage by the hour, the day and the month of a time zone, as each meter makes it of its events."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import available_timezones

import pytest

from services.metrics import handlers, queries
from services.metrics.partitions import keep_partitions
from services.metrics.queries.usage import UsageFilter, Windows
from services.metrics.tests.metering import Office
from shared.clock import ManualClock
from shared.contracts.metrics import MetricsPurged, PurgeMetrics, TenantTracked, TenantTrackingRefused, TrackTenant
from shared.postgres import Pool, transaction
from shared.testing.plans import general_plan
from shared.text import is_time_zone

MIDNIGHT = datetime(2026, 3, 14, 23, tzinfo=UTC)
"""The beginning of the 15th of March in Berlin."""


async def at_home(pool: Pool, time_zone: str) -> None:
    await pool.execute("UPDATE tracked_tenant SET time_zone = $1 WHERE tenant_id = 't1'", time_zone)


async def used(office: Office, **query: Any) -> list[tuple[str, str]]:
    return [(item["from"], item["quantity"]) for item in await office.usage(**query)]


MADE: Mapping[str, tuple[list[str], list[str], str]] = {
    "count": (["1", "2", "2"], ["3", "2"], "5"),
    "sum": (["4", "6", "7"], ["10", "7"], "17"),
    "max": (["4", "5", "4"], ["5", "4"], "5"),
    "unique": (["1", "2", "2"], ["3", "2"], "4"),
    "latest": (["4", "1", "3"], ["1", "3"], "3"),
}
"""Of the values below: what they make of the hours, of the two days, and of the month."""


async def test_a_window_is_what_the_meter_makes_of_all_its_events(office: Office) -> None:
    for aggregation in MADE:
        await office.define(aggregation, aggregation)
    for minutes, value in ((-90, 4), (-30, 5), (-20, 1), (10, 4), (20, 3)):
        await office.send(MIDNIGHT + timedelta(minutes=minutes), v=value)

    for meter, (hours, days, month) in MADE.items():
        assert [item["quantity"] for item in await office.usage(meter=meter)] == hours
        assert await used(office, meter=meter, window="day") == [
            ("2026-03-13T23:00:00Z", days[0]),
            ("2026-03-14T23:00:00Z", days[1]),
        ]
        assert await used(office, meter=meter, window="month") == [("2026-02-28T23:00:00Z", month)]
        assert await used(office, meter=meter, window="month", timeZone="UTC") == [("2026-03-01T00:00:00Z", month)]


async def test_the_time_zone_is_the_tenants_unless_another_one_is_asked_for(office: Office) -> None:
    await office.define("m", "sum")
    await office.send(datetime(2026, 2, 28, 22, 59, tzinfo=UTC), v=1)
    await office.send(datetime(2026, 2, 28, 23, 0, tzinfo=UTC), v=10)
    await office.send(datetime(2026, 3, 1, 0, 0, tzinfo=UTC), v=100)

    assert await used(office, window="month") == [("2026-01-31T23:00:00Z", "1"), ("2026-02-28T23:00:00Z", "110")]
    assert await used(office, window="month", timeZone="UTC") == [
        ("2026-02-01T00:00:00Z", "11"),
        ("2026-03-01T00:00:00Z", "100"),
    ]
    assert await used(office, window="month", timeZone="America/New_York") == [("2026-02-01T05:00:00Z", "111")]


async def test_hours_and_days_of_half_hour_zones_are_cut_where_they_begin_there(office: Office, pool: Pool) -> None:
    await at_home(pool, "Asia/Kolkata")  # 5:30 ahead
    await office.define("m", "sum")
    await office.send(datetime(2026, 3, 14, 18, 29, 59, tzinfo=UTC), v=1)
    await office.send(datetime(2026, 3, 14, 18, 30, tzinfo=UTC), v=10)
    await office.send(datetime(2026, 3, 14, 19, 29, tzinfo=UTC), v=100)

    assert await used(office) == [("2026-03-14T17:30:00Z", "1"), ("2026-03-14T18:30:00Z", "110")]
    assert await used(office, window="day") == [("2026-03-13T18:30:00Z", "1"), ("2026-03-14T18:30:00Z", "110")]


async def test_the_days_on_which_clocks_change_have_23_and_25_hours(office: Office, pool: Pool) -> None:
    await office.define("m", "count")
    async with transaction(pool) as connection:
        for now in (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)):
            await keep_partitions(connection, now=now)
    for day in (datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)):
        await office.clock.advance((day + timedelta(hours=26) - office.clock.now()).total_seconds())
        for hour in range(26):
            await office.send(day + timedelta(hours=hour))

    assert await used(office, window="day") == [
        ("2026-03-28T23:00:00Z", "23"),
        ("2026-03-29T22:00:00Z", "3"),
        ("2026-10-24T22:00:00Z", "25"),
        ("2026-10-25T23:00:00Z", "1"),
    ]
    assert len(await used(office, limit=200)) == 52


async def test_a_day_whose_midnight_comes_twice_is_in_no_page_twice(office: Office, pool: Pool) -> None:
    await at_home(pool, "America/Havana")  # 1:00 becomes 0:00 on the first of November
    await office.define("m", "count")
    await office.define("n", "count")
    day = datetime(2026, 11, 1, 3, tzinfo=UTC)
    await office.clock.advance((day + timedelta(days=2) - office.clock.now()).total_seconds())
    async with transaction(pool) as connection:
        await keep_partitions(connection, now=office.clock.now())
    for hour in range(30):
        await office.send(day + timedelta(hours=hour))

    query: dict[str, Any] = {"tenantId": "t1", "window": "day", "limit": 1}
    seen = []
    for _ in range(6):
        answer = (await office.client.get("/v1/usage", params=query)).json()
        seen += [item["quantity"] for item in answer["items"]]
        query["cursor"] = answer["nextCursor"]

    assert query["cursor"] is None
    assert seen == ["1", "1", "25", "25", "4", "4"]


async def test_usage_is_told_apart_by_a_dimension(office: Office) -> None:
    await office.define("a_sum", "sum", dimensions={"model": "$.model", "region": "$.region"})
    await office.define("people", "unique", valuePath="$.user", dimensions={"model": "$.model"})
    await office.define("plain", "count")
    for model, region, user, value in (
        ("s", "eu", "a", 1),
        ("s", "us", "b", 2),
        ("l", "eu", "a", 4),
        (None, "eu", "a", 8),
    ):
        await office.send(v=value, model=model, region=region, user=user)

    assert await office.quantities() == {"a_sum": "15", "people": "2", "plain": "4"}
    assert await office.quantities(meter="a_sum", groupBy="model") == {"": "8", "l": "4", "s": "3"}
    assert await office.quantities(meter="a_sum", groupBy="region") == {"eu": "13", "us": "2"}
    assert await office.quantities(meter="people", groupBy="model") == {"": "1", "l": "1", "s": "2"}
    by_model = await office.usage(groupBy="model")
    assert [(item["meter"], item["group"]) for item in by_model] == [
        *(("a_sum", group) for group in ("", "l", "s")),
        *(("people", group) for group in ("", "l", "s")),
    ]
    assert {item["group"] for item in await office.usage()} == {None}


async def test_groups_come_in_pages(office: Office) -> None:
    await office.define("m", "sum", dimensions={"model": "$.model"})
    for hours in range(2):
        for model in ("a", "b", "c"):
            await office.send(office.clock.now() - timedelta(hours=hours), v=1, model=model)

    query: dict[str, Any] = {"tenantId": "t1", "groupBy": "model", "limit": 2}
    seen = []
    for _ in range(3):
        answer = (await office.client.get("/v1/usage", params=query)).json()
        seen += [(item["from"], item["group"]) for item in answer["items"]]
        query["cursor"] = answer["nextCursor"]

    assert query["cursor"] is None
    assert len(seen) == 6
    assert seen == sorted(set(seen))


async def test_usage_between_two_moments(office: Office) -> None:
    await office.define("people", "unique")
    for hours in range(4):
        await office.send(office.clock.now() - timedelta(hours=hours), v=hours)

    between = {"from": "2026-03-15T10:00:00Z", "to": "2026-03-15T12:00:00Z"}
    assert await office.quantities(**between) == {"people": "2"}


WRONG: Sequence[tuple[dict[str, str], str, str]] = [
    ({"timeZone": "Europe/Bonn"}, "timeZone", "validation_failed"),
    ({"timeZone": ""}, "timeZone", "validation_failed"),
    ({"timeZone": "../../etc/passwd"}, "timeZone", "validation_failed"),
    ({"timeZone": "x" * 10_000}, "timeZone", "validation_failed"),
    ({"window": "week"}, "window", "validation_failed"),
    ({"groupBy": "no such"}, "groupBy", "validation_failed"),
    ({"groupBy": "region", "meter": "m"}, "groupBy", "unknown_dimension"),
    ({"from": "yesterday"}, "from", "validation_failed"),
    ({"cursor": "made-up"}, "cursor", "invalid_cursor"),
]


async def test_a_malformed_question_is_refused_by_name(office: Office) -> None:
    await office.define("m", "sum", dimensions={"model": "$.model"})

    for query, name, code in WRONG:
        answer = await office.client.get("/v1/usage", params={"tenantId": "t1", **query})
        assert (answer.status_code, answer.json()["code"]) == (422, code), query
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"], query


async def test_a_cursor_of_another_list_is_refused(office: Office) -> None:
    await office.define("m", "sum", dimensions={"model": "$.model"})
    for hours in range(2):
        await office.send(office.clock.now() - timedelta(hours=hours), v=1, model="a")
    plain = (await office.client.get("/v1/usage", params={"tenantId": "t1", "limit": 1})).json()["nextCursor"]

    answer = await office.client.get("/v1/usage", params={"tenantId": "t1", "groupBy": "model", "cursor": plain})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")


async def test_every_time_zone_that_is_taken_is_one_of_the_databases(pool: Pool) -> None:
    names = sorted(name for name in available_timezones() if is_time_zone(name))
    unknown = await pool.fetch(
        "SELECT name FROM unnest($1::text[]) AS name WHERE name NOT IN (SELECT name FROM pg_timezone_names)", names
    )
    assert len(names) > 400
    assert [row["name"] for row in unknown] == []


async def test_a_tenant_keeps_the_time_zone_that_it_was_first_tracked_in(pool: Pool) -> None:
    asks = [
        TrackTenant(tenant_id="t1", quotas={}, time_zone="Asia/Tokyo"),
        TrackTenant(tenant_id="t1", quotas={}, time_zone="Europe/Paris"),
        TrackTenant(tenant_id="t2", quotas={}),
        TrackTenant(tenant_id="t3", quotas={}, time_zone="Europe/Bonn"),
    ]
    async with transaction(pool) as connection:
        facts = await handlers.track_tenants(connection, asks, clock=ManualClock())
    async with transaction(pool) as connection:
        again = [TrackTenant(tenant_id="t2", quotas={}, time_zone="Europe/Paris")]
        assert await handlers.track_tenants(connection, again, clock=ManualClock()) == [TenantTracked(tenant_id="t2")]

    assert facts == [
        TenantTracked(tenant_id="t1"),
        TenantTracked(tenant_id="t1"),
        TenantTracked(tenant_id="t2"),
        TenantTrackingRefused(tenant_id="t3", code="unknown_time_zone", detail="There is no time zone Europe/Bonn."),
    ]
    rows = await pool.fetch("SELECT tenant_id, time_zone FROM tracked_tenant ORDER BY tenant_id")
    assert [tuple(row) for row in rows] == [("t1", "Asia/Tokyo"), ("t2", "UTC")]


@pytest.mark.parametrize("dimension", [None, "model"])
@pytest.mark.parametrize("after", [None, (MIDNIGHT, "m", "a")])
async def test_usage_is_found_by_the_tenant_the_meter_and_the_time(
    pool: Pool, dimension: str | None, after: tuple[datetime, str, str] | None
) -> None:
    async with pool.acquire() as connection:
        wanted = UsageFilter("t1", "m", MIDNIGHT, MIDNIGHT + timedelta(days=31), dimension)
        plan = await general_plan(
            connection,
            queries.usage.usage(connection, wanted, windows=Windows("day", "Europe/Berlin"), after=after, limit=50),
        )

    assert "Seq Scan" not in plan
    for table in ("usage_value", "usage_hour" if dimension is None else "usage_dimension_hour"):
        (line,) = [line for line in plan.splitlines() if f"{table}_pkey" in line]
        following = plan.splitlines()[plan.splitlines().index(line) + 1]
        assert all(name in following for name in ("tenant_id", "meter", "hour")), plan


async def test_a_purge_counts_events_and_leaves_nothing(office: Office, pool: Pool) -> None:
    await office.define("m", "sum", dimensions={"model": "$.model"})
    await office.define("people", "unique", dimensions={"model": "$.model"})
    await pool.execute("INSERT INTO tracked_tenant VALUES ('t2', now())")
    other = Office(office.client, office.clock, "t2")
    for _ in range(3):
        await office.send(v=1, model="a")
        await other.send(v=1, model="a")
    await office.void(await office.send(v=2))

    async with transaction(pool) as connection:
        (fact,) = await handlers.purge_metrics(connection, [PurgeMetrics(tenant_id="t1")])

    assert isinstance(fact, MetricsPurged)
    assert fact.deleted == {"quotas": 0, "usage_hours": 2, "usage_events": 4, "tracked_tenants": 1}
    assert await pool.fetchval("SELECT count(*) FROM live_record WHERE tenant_id = 't1'") == 0
    assert await other.quantities(meter="m") == {"m": "3"}


async def test_usage_goes_with_a_tenant_that_is_deleted_by_code_that_does_not_know_it(
    office: Office, pool: Pool
) -> None:
    """The release before forgets quotas, hours and then the tenant."""
    await office.define("people", "unique", dimensions={"model": "$.model"})
    await office.void(await office.send(v=1, model="a"))
    await office.send(v=1, model="a")
    places = {row["place"] for row in await pool.fetch("SELECT place FROM live_record")}
    assert places >= {"usage_event", "usage_key", "usage_dimension_hour", "usage_value", "usage_amendment"}

    await pool.execute("DELETE FROM tracked_tenant")

    assert await pool.fetchval("SELECT count(*) FROM live_record") == 0


async def test_a_purge_waits_for_what_is_being_corrected(office: Office, pool: Pool) -> None:
    await office.define("m", "sum")
    wrong = [await office.send(v=1) for _ in range(4)]

    async def purge() -> None:
        async with transaction(pool) as connection:
            await handlers.purge_metrics(connection, [PurgeMetrics(tenant_id="t1")])

    answers = await asyncio.gather(*(office.amend(source="/app", id=each) for each in wrong), purge())

    assert {answer.status_code for answer in answers if answer is not None} <= {201, 404}
    assert await pool.fetchval("SELECT count(*) FROM live_record") == 0
