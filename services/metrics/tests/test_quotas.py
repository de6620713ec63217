"""Hard limits are used to the full and never exceeded, whatever comes at once; what is refused leaves nothing."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from asyncpg.connection import LoggedQuery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.local.throwaway import FreshDatabases
from services.metrics import handlers
from services.metrics.recording.recorder import Recorder
from services.metrics.recording.refusal import RefusedError
from services.metrics.tests.quota_kit import NOON, Shop, outcomes
from services.metrics.tests.support import quotas_of
from shared.contracts.metrics import PurgeMetrics, UntrackTenant
from shared.postgres import Pool, open_pool, transaction
from shared.testing import eventually

MARCH = "2026-03"


@pytest.fixture
async def shop(pool: Pool) -> Shop:
    shop = Shop(pool)
    await shop.open()
    return shop


@pytest.fixture
async def crowd(fresh_database: FreshDatabases) -> AsyncIterator[Shop]:
    """A shop in which fifty transactions can be at work at once."""
    pool = await open_pool(await fresh_database("metrics"), size=50)
    shop = Shop(pool)
    await shop.open()
    yield shop
    await pool.close()


async def rush(shop: Shop, type_: str, values: list[list[object]]) -> str:
    """Record requests by as many writers, who know nothing of each other."""
    recorders = [Recorder(shop.pool, quotas_of(shop.clock), clock=shop.clock) for _ in values]
    requests = [[shop.event(type_, value) for value in each] for each in values]
    found = await asyncio.gather(*(recorder.record(each) for recorder, each in zip(recorders, requests, strict=True)))
    return outcomes([outcome for each in found for outcome in each])


async def test_fifty_writers_use_a_hard_limit_to_the_last_unit_and_never_beyond(crowd: Shop) -> None:
    await crowd.track(calls=120)

    found = await rush(crowd, "tokens", [[1] * 4] * 50)

    assert (found.count("a"), found.count("x")) == (120, 80)
    assert await crowd.used() == {("calls", MARCH): 120}
    assert [await crowd.count(table) for table in ("usage_event", "usage_key")] == [120, 120]
    assert sorted(percent for _, percent, _, _ in await crowd.told()) == [80, 100]


async def test_fifty_writers_let_no_more_different_values_in_than_a_hard_limit(crowd: Shop) -> None:
    await crowd.track(users=10)

    found = await rush(crowd, "users", [[f"u{number % 20}", f"u{(number + 7) % 20}"] for number in range(50)])

    assert 0 < found.count("a") < 100
    assert await crowd.used() == {("users", MARCH): 10}
    assert await crowd.count("usage_value") == 10
    assert await crowd.count("usage_event") == found.count("a")


async def test_of_a_batch_is_taken_what_fits_in_the_order_of_its_arrival(shop: Shop) -> None:
    await shop.track(tokens=10)

    assert await shop.use("tokens", 4, 5, 3, 1, 1) == "aaxax"

    assert await shop.used() == {("tokens", MARCH): 10}
    assert await shop.count("usage_event") == 3


async def test_what_is_refused_names_the_meter_and_the_limit(shop: Shop) -> None:
    await shop.track(tokens=10)

    (refusal,) = await shop.recorder.record([shop.event("tokens", 11)])

    assert isinstance(refusal, RefusedError)
    assert (refusal.code, refusal.pointer) == ("quota_exceeded", None)
    assert refusal.detail == "It exceeds the quota of the meter tokens, which is 10 in 2026-03."


async def test_what_was_refused_can_be_sent_again_when_there_is_room(shop: Shop) -> None:
    await shop.track(tokens=10)
    event, other = shop.event("tokens", 11), shop.event("tokens", 1)
    assert outcomes(await shop.recorder.record([event, event, other])) == "xxa"

    await shop.change(tokens=12)

    assert outcomes(await shop.recorder.record([event, event, other])) == "add"
    assert await shop.used() == {("tokens", MARCH): 12}


async def test_duplicates_and_conflicts_use_nothing(shop: Shop) -> None:
    await shop.track(tokens=10)
    event = shop.event("tokens", 4, id_="e")

    assert outcomes(await shop.recorder.record([event, event, shop.event("tokens", 5, id_="e")])) == "adc"
    assert outcomes(await shop.recorder.record([event])) == "d"

    assert await shop.used() == {("tokens", MARCH): 4}
    assert await shop.use("tokens", 6) == "a"


async def test_an_event_of_two_meters_is_taken_by_both_or_by_none(shop: Shop) -> None:
    await shop.track(calls=3, tokens=10)

    assert await shop.use("tokens", 9, 5, 1, 0, 0) == "axaax"

    assert await shop.used() == {("calls", MARCH): 3, ("tokens", MARCH): 10}
    assert await shop.pool.fetchval("SELECT sum(quantity) FROM usage_hour WHERE meter = 'calls'") == 3


async def test_a_soft_limit_keeps_nothing_out(shop: Shop) -> None:
    await shop.track(hard=False, tokens=10, users=1, level=3)

    assert await shop.use("tokens", 9, 90) == "aa"
    assert await shop.use("users", "a", "b") == "aa"
    assert await shop.use("level", 5) == "a"
    assert await shop.use("level", 9, at=NOON - timedelta(hours=1)) == "a"

    assert await shop.used() == {("tokens", MARCH): 99, ("users", MARCH): 2, ("level", MARCH): 5}


async def test_a_soft_limit_keeps_nothing_out_beside_a_hard_one(shop: Shop) -> None:
    await shop.track(calls=3, tokens=10)
    await shop.pool.execute("UPDATE quota SET enforcement = 'soft' WHERE meter = 'tokens'")

    assert await shop.use("tokens", 9, 90, 0, 0) == "aaax"

    assert await shop.used() == {("calls", MARCH): 3, ("tokens", MARCH): 99}


async def test_what_goes_down_is_never_refused_not_even_above_the_limit(shop: Shop) -> None:
    await shop.track(balance=10, level=10, depth=10)
    assert await shop.use("balance", 10) == "a"
    assert await shop.use("level", 10) == "a"
    assert await shop.use("depth", 10) == "a"
    await shop.change(balance=5, level=5, depth=5)

    assert await shop.use("balance", -2, 1, -1, -4, 1) == "axaaa"
    await shop.clock.advance(60)
    assert await shop.use("level", 8) == "a"
    assert await shop.use("depth", 9, 10, 11) == "aax"

    assert await shop.used() == {("balance", MARCH): 4, ("level", MARCH): 8, ("depth", MARCH): 10}


async def test_what_is_above_a_limit_on_the_way_is_refused(shop: Shop) -> None:
    await shop.track(balance=10)

    assert await shop.use("balance", 8, 3, -5, 7) == "axaa"

    assert await shop.used() == {("balance", MARCH): 10}


async def test_a_limit_of_different_values_keeps_out_only_new_ones(shop: Shop) -> None:
    await shop.track(users=2)

    assert await shop.use("users", "a", "a", "b", "c", "a") == "aaaxa"
    await shop.clock.advance(timedelta(days=1).total_seconds())
    assert await shop.use("users", "b", "d") == "ax"

    assert await shop.used() == {("users", MARCH): 2}


async def test_a_limit_of_the_greatest_value_keeps_out_what_is_greater(shop: Shop) -> None:
    await shop.track(depth=10)

    assert await shop.use("depth", -5) == "a"
    assert await shop.used() == {("depth", MARCH): -5}
    assert await shop.use("depth", 10, 11, 3) == "axa"
    assert await shop.used() == {("depth", MARCH): 10}


async def test_a_limit_of_the_latest_value_keeps_out_what_is_later_and_greater(shop: Shop) -> None:
    await shop.track(level=10)
    hour = timedelta(hours=1)

    assert await shop.use("level", 8, at=NOON - hour) == "a"
    assert await shop.use("level", 11, at=NOON) == "x"
    assert await shop.use("level", 99, at=NOON - 2 * hour) == "a"  # it was that full before, and is not any more
    assert await shop.use("level", 10, at=NOON) == "a"

    assert await shop.used() == {("level", MARCH): 10}


async def test_a_month_begins_and_ends_in_the_time_zone_of_the_tenant(shop: Shop) -> None:
    await shop.track(time_zone="America/New_York", tokens=10)
    await shop.clock.advance((datetime(2026, 4, 1, 12, tzinfo=UTC) - NOON).total_seconds())
    await shop.make_room()

    assert await shop.use("tokens", 10, at=datetime(2026, 4, 1, 3, 59, tzinfo=UTC)) == "a"
    assert await shop.use("tokens", 1, at=datetime(2026, 4, 1, 3, 59, tzinfo=UTC)) == "x"
    assert await shop.use("tokens", 7, at=datetime(2026, 4, 1, 4, 0, tzinfo=UTC)) == "a"

    assert await shop.used() == {("tokens", "2026-03"): 10, ("tokens", "2026-04"): 7}


async def test_a_quota_counts_what_was_used_before_there_was_one(shop: Shop) -> None:
    await shop.track()
    await shop.use("tokens", 8)
    await shop.use("users", "a")

    await shop.track(tokens=10, users=1)

    assert await shop.use("tokens", 3, 2) == "xa"
    assert await shop.use("users", "b", "a") == "xa"
    assert await shop.used() == {("tokens", MARCH): 10, ("users", MARCH): 1}


async def test_what_was_used_before_is_that_of_the_month_alone(shop: Shop) -> None:
    february = NOON - timedelta(days=20)
    await shop.track()
    for meter in ("tokens", "depth", "level"):
        await shop.use(meter, 2, at=february - timedelta(hours=1))
        await shop.use(meter, 1, at=february)
        await shop.use(meter, 8, at=NOON - timedelta(hours=1))
        await shop.use(meter, 4)
    await shop.use("users", "a", "b", at=february)
    await shop.use("users", "b", "c", "d")

    await shop.track(tokens=99, depth=99, level=99, users=99)
    for at in (february, NOON):
        for meter in ("tokens", "depth"):
            await shop.use(meter, 0, at=at)
        await shop.use("level", 99, at=at - timedelta(hours=9))
        await shop.use("users", "b", at=at)

    assert await shop.used() == {
        ("tokens", "2026-02"): 3, ("tokens", MARCH): 12, ("depth", "2026-02"): 2, ("depth", MARCH): 8,
        ("level", "2026-02"): 1, ("level", MARCH): 4, ("users", "2026-02"): 2, ("users", MARCH): 3,
    }  # fmt: skip


async def test_a_quota_that_was_gone_for_a_while_counts_what_was_used_meanwhile(shop: Shop) -> None:
    await shop.track(tokens=10)
    await shop.use("tokens", 2)
    await shop.change()
    await shop.use("tokens", 7)

    await shop.track(tokens=10)

    assert await shop.use("tokens", 2, 1) == "xa"


async def test_tenants_do_not_use_each_others_quotas(shop: Shop) -> None:
    for tenant_id in ("t1", "t2"):
        await shop.track(tenant_id, tokens=10)
    events = [
        shop.event("tokens", value, tenant_id=tenant_id) for tenant_id, value in (("t1", 11), ("t2", 10), ("t1", 9))
    ]

    assert outcomes(await shop.recorder.record(events)) == "xaa"

    assert await shop.used("t1") == {("tokens", MARCH): 9}
    assert await shop.used("t2") == {("tokens", MARCH): 10}


@pytest.mark.parametrize("forgets", ["untrack", "purge"])
async def test_of_a_tenant_that_is_gone_nothing_is_left(shop: Shop, forgets: str) -> None:
    await shop.track(tokens=10, users=1)
    await shop.use("tokens", 8, 9)
    await shop.use("users", "a", "b")
    assert await shop.count("quota_value") == 1
    assert await shop.count("quota_crossing") > 0

    async with transaction(shop.pool) as connection:
        if forgets == "purge":
            await handlers.purge_metrics(connection, [PurgeMetrics(tenant_id="t1")])
        else:
            await handlers.untrack_tenants(connection, [UntrackTenant(tenant_id="t1")])

    assert await shop.count("live_record") == 0


async def statements(shop: Shop, *events: tuple[str, object]) -> int:
    sent: list[LoggedQuery] = []
    measured = [shop.event(type_, value) for type_, value in events]
    async with transaction(shop.pool) as connection:
        with connection.query_logger(sent.append):
            assert await shop.recorder._record_in(connection, measured) == ["accepted"] * len(events)
    return len(sent)


async def test_quotas_cost_one_statement_where_there_are_none_and_two_where_there_are(shop: Shop) -> None:
    await shop.track()
    await shop.use("tokens", 1)
    without = await statements(shop, ("tokens", 1))
    await shop.track(calls=1000, peak=1000)
    await shop.use("tokens", 1)
    await shop.use("peak", 1)

    assert await statements(shop, ("tokens", 1)) == without + 1
    assert await statements(shop, *[("tokens", 1), ("peak", 1)] * 100) == without + 1

    await shop.track(hard=False, calls=1, peak=1000)
    await shop.use("tokens", 1)
    assert await statements(shop, ("tokens", 1)) == without + 1


VALUES = {
    "tokens": st.integers(0, 8) | st.decimals(0, 6, places=1).map(str),
    "balance": st.integers(-3, 8) | st.decimals(-2, 6, places=1).map(str),
    "users": st.sampled_from("abcde"),
    "depth": st.integers(-3, 12),
    "level": st.integers(-3, 12),
}
EVENTS = st.sampled_from(sorted(VALUES)).flatmap(
    lambda type_: st.tuples(st.just(type_), VALUES[type_], st.integers(0, 40), st.sampled_from(["t1", "t2"]))
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(EVENTS, min_size=1, max_size=12), min_size=1, max_size=6), limit=st.integers(0, 12))
async def test_whatever_comes_what_is_kept_is_what_the_hours_come_to_and_within_the_limit(
    pool: Pool, batches: list[list[tuple[str, object, int, str]]], limit: int
) -> None:
    shop = Shop(pool)
    async with transaction(pool) as connection:
        asks = [PurgeMetrics(tenant_id=tenant_id) for tenant_id in ("t1", "t2")]
        await handlers.purge_metrics(connection, asks)
        await connection.execute("DELETE FROM meter WHERE event_type = ANY ($1)", [*VALUES, "peak"])
    await shop.open()
    await shop.track("t1", tokens=limit, balance=limit, users=limit, depth=limit, level=limit, calls=limit)
    await shop.track("t2", hard=False, tokens=limit, users=limit, depth=limit, level=limit)

    for batch in batches:
        events = [
            shop.event(type_, value, tenant_id=tenant_id, at=NOON - timedelta(hours=hours))
            for type_, value, hours, tenant_id in batch
        ]
        found = await shop.recorder.record(events)
        assert all(event.tenant_id == "t1" for event, each in zip(events, found, strict=True) if each != "accepted")
        assert all((each or 0) <= limit for each in (await shop.used("t1")).values())
        await shop.used("t2")


async def test_a_quota_waits_for_whoever_records_and_counts_that(shop: Shop) -> None:
    await shop.track()
    async with asyncio.TaskGroup() as group, transaction(shop.pool) as recording:
        assert await shop.recorder._record_in(recording, [shop.event("tokens", 8)]) == ["accepted"]
        tracking = group.create_task(shop.track(tokens=10))
        await eventually(shop.has_waiting, describe="one waits for a lock")
        assert not tracking.done()

    assert await shop.use("tokens", 3, 2) == "xa"
