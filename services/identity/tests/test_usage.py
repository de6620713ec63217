"""How many requests pass: exactly as many as a plan says, a second and a day, over restarts and on several replicas."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity.queries import authorize as queries
from services.identity.queries.plans import delete_plans
from services.identity.tests.gatehouse import Gatehouse, Replica
from services.identity.usage import Bucket
from shared.clock import ManualClock
from shared.postgres import Connection, Pool, transaction
from shared.testing import eventually

SECOND = 1_000_000
JUST_BEFORE_MIDNIGHT = datetime(2026, 2, 28, 23, 59, 0, tzinfo=UTC)


@pytest.fixture
async def house(pool: Pool) -> Gatehouse:
    """A gatehouse a minute before midnight, that has a signing key."""
    house = Gatehouse(pool, ManualClock(JUST_BEFORE_MIDNIGHT))
    await house.publish()
    return house


def clock_of(house: Gatehouse) -> ManualClock:
    assert isinstance(house.clock, ManualClock)
    return house.clock


async def counts(house: Gatehouse) -> dict[tuple[str, date], int]:
    rows = await house.pool.fetch("SELECT * FROM usage_day")
    return {(row["tenant_id"], row["day"]): row["count"] for row in rows}


async def write(*replicas: Replica) -> None:
    """Let replicas write what they have counted, one after the other."""
    for each in replicas:
        writing = asyncio.create_task(each.usage.run())
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


# The second


def passed(bucket: Bucket, rate: int, moments: Sequence[int]) -> list[int]:
    """Take whenever that is possible, and return when it was."""
    taken = []
    for moment in moments:
        bucket.refill(rate, at=moment)
        if bucket.remaining:
            bucket.take()
            taken.append(moment)
    return taken


@given(
    rate=st.integers(1, 1000),
    waits=st.lists(st.one_of(st.integers(0, 2000), st.integers(0, 3 * SECOND)), min_size=1, max_size=300),
)
def test_in_no_time_do_more_pass_than_the_rate_and_one_seconds_worth(rate: int, waits: list[int]) -> None:
    moments = [sum(waits[: number + 1]) for number in range(len(waits))]

    taken = passed(Bucket(rate, at=0), rate, moments)

    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            assert (last - first + 1) * SECOND <= rate * (taken[last] - begin + SECOND)


@given(rate=st.integers(1, 1000), waits=st.lists(st.integers(0, 2 * SECOND), min_size=1, max_size=100))
def test_whoever_keeps_to_the_rate_always_passes(rate: int, waits: list[int]) -> None:
    apart = -(-SECOND // rate)
    moments = [sum(waits[: number + 1]) + apart * number for number in range(len(waits))]

    assert passed(Bucket(rate, at=0), rate, moments) == moments


@given(rate=st.integers(1, 1000), moments=st.lists(st.integers(0, 10 * SECOND), max_size=100))
def test_a_clock_that_is_set_back_gives_nothing(rate: int, moments: list[int]) -> None:
    falling = sorted(moments, reverse=True)

    assert len(passed(Bucket(rate, at=10 * SECOND), rate, falling)) <= rate


async def test_a_second_is_exact_and_says_when_to_come_back(house: Gatehouse) -> None:
    await house.plan(10, None)
    gate, token, clock = house.replica(), house.token(), clock_of(house)

    assert await gate.passing(token, most=15) == 10
    refused = await gate.ask(token)
    assert refused.status_code == 429
    told = {name: refused.headers[name] for name in ("retry-after", "x-ratelimit-limit", "x-ratelimit-remaining")}
    assert told == {"retry-after": "1", "x-ratelimit-limit": "10", "x-ratelimit-remaining": "0"}
    assert refused.json()["detail"] == "The tenant's tier lets no more than 10 requests pass a second."

    await clock.advance(0.099999)
    assert await gate.passing(token, most=5) == 0
    await clock.advance(0.000001)
    assert await gate.passing(token, most=5) == 1
    await clock.advance(60)
    assert await gate.passing(token, most=15) == 10


async def test_tenants_do_not_take_from_each_other_and_users_of_one_do(house: Gatehouse) -> None:
    await house.plan(3, None)
    await house.plan(3, None, tenant_id="t2")
    gate = house.replica()

    assert await gate.passing(house.token(sub="u1", sid="s1"), most=2) == 2
    assert await gate.passing(house.token(sub="u2", sid="s2"), most=5) == 1
    assert await gate.passing(house.token(tenant_id="t2"), most=5) == 3


async def test_another_plan_is_in_force_a_second_later(house: Gatehouse) -> None:
    await house.plan(2, None)
    gate, token = house.replica(), house.token()
    assert await gate.passing(token, most=5) == 2

    await house.plan(20, None, version=2)
    await clock_of(house).advance(1.001)

    assert await gate.passing(token, most=50) == 20


# The day


async def test_a_day_is_exact_and_ends_at_midnight_in_utc(house: Gatehouse) -> None:
    await house.plan(None, 3)
    gate, token, clock = house.replica(), house.token(), clock_of(house)

    assert [(await gate.ask(token)).headers["x-ratelimit-remaining"] for _ in range(3)] == ["2", "1", "0"]
    refused = await gate.ask(token)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert refused.json()["detail"] == "The tenant's tier lets no more than 3 requests pass a day."
    await clock.advance(59.5)
    assert (await gate.ask(token)).headers["retry-after"] == "1"
    await clock.advance(0.5)

    assert await gate.passing(token, most=5) == 3


async def test_of_two_limits_the_nearer_is_told_and_either_holds(house: Gatehouse) -> None:
    await house.plan(2, 3)
    gate, token, clock = house.replica(), house.token(), clock_of(house)

    assert (await gate.ask(token)).headers["x-ratelimit-limit"] == "2"
    assert await gate.passing(token, most=5) == 1
    await clock.advance(1)
    assert (await gate.ask(token)).headers["x-ratelimit-limit"] == "3"
    refused = await gate.ask(token)
    assert (refused.headers["x-ratelimit-limit"], refused.headers["retry-after"]) == ("3", "59")


async def test_a_day_goes_on_after_a_restart(house: Gatehouse) -> None:
    await house.plan(None, 10)
    before, token = house.replica(), house.token()
    assert await before.passing(token, most=4) == 4
    await write(before)

    assert await counts(house) == {("t1", JUST_BEFORE_MIDNIGHT.date()): 4}
    assert await house.replica().passing(token, most=20) == 6


async def test_replicas_share_a_day_and_overshoot_by_no_more_than_what_was_not_written(house: Gatehouse) -> None:
    await house.plan(None, 10)
    one, two, token = house.replica(), house.replica(), house.token()

    assert await one.passing(token, most=4) == 4
    assert await two.passing(token, most=3) == 3
    await write(one, two)
    await clock_of(house).advance(1.001)

    assert await one.passing(token, most=20) == 3
    assert await two.passing(token, most=20) == 3, "it has not heard yet of what the other has let pass since"
    await write(one, two)
    assert await counts(house) == {("t1", JUST_BEFORE_MIDNIGHT.date()): 13}
    assert [await each.passing(token, most=5) for each in (one, two)] == [0, 0]


async def test_a_replica_hears_of_what_others_let_pass_though_it_counts_nothing_itself(house: Gatehouse) -> None:
    await house.plan(None, 10)
    one, two, token = house.replica(), house.replica(), house.token()
    assert await one.passing(token, most=1) == 1
    await write(one)
    assert await two.passing(token, most=20) == 9
    await write(two)

    await clock_of(house).advance(1.001)

    assert await one.passing(token, most=20) == 0


async def test_what_is_being_written_is_not_counted_twice(house: Gatehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.plan(None, 10)
    gate, token, clock = house.replica(), house.token(), clock_of(house)
    assert await gate.passing(token, most=5) == 5
    add_usage = queries.add_usage

    async def and_wait(connection: Connection, made: queries.Counts) -> dict[tuple[str, date], int]:
        async with transaction(house.pool) as other:
            totals = await add_usage(other, made)
        await clock.advance(1.001)
        assert await gate.passing(token, most=3) == 3
        return totals

    with monkeypatch.context() as patched:
        patched.setattr(queries, "add_usage", and_wait)
        await write(gate)

    assert await gate.passing(token, most=5) == 2


async def test_what_is_counted_is_written_once_a_second_in_one_statement(house: Gatehouse) -> None:
    for tenant_id in ("t1", "t2", "t3"):
        await house.plan(None, 100, tenant_id=tenant_id)
    gate, clock = house.replica(), clock_of(house)
    writing = asyncio.create_task(gate.usage.run())
    await asyncio.sleep(0)
    for tenant_id in ("t1", "t2", "t2"):
        await gate.ask(house.token(tenant_id=tenant_id))
    await clock.advance(0.9)
    assert await counts(house) == {}

    await clock.advance(0.1)
    day = JUST_BEFORE_MIDNIGHT.date()
    await eventually(lambda: _has(house, {("t1", day): 1, ("t2", day): 2}))
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def _has(house: Gatehouse, wanted: dict[tuple[str, date], int]) -> bool:
    return await counts(house) == wanted


async def test_days_that_are_long_over_are_deleted(house: Gatehouse) -> None:
    await house.plan(None, 100)
    await house.pool.execute("INSERT INTO usage_day VALUES ('t1', '2026-02-26', 1), ('t1', '2026-02-27', 2)")
    gate = house.replica()
    running = asyncio.create_task(gate.usage.run())
    await asyncio.sleep(0)

    await clock_of(house).advance(1)
    await eventually(lambda: _has(house, {("t1", date(2026, 2, 27)): 2}))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_could_not_be_written_is_written_later_and_counts_meanwhile(
    house: Gatehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.plan(None, 5)
    gate, token = house.replica(), house.token()
    assert await gate.passing(token, most=3) == 3

    async def away(*_: object) -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as patched:
        patched.setattr(queries, "add_usage", away)
        await write(gate)
    assert await gate.passing(token, most=1) == 1
    await write(gate)

    assert await counts(house) == {("t1", JUST_BEFORE_MIDNIGHT.date()): 4}
    assert await gate.passing(token, most=5) == 1


async def test_nothing_is_counted_of_a_tenant_that_is_gone(house: Gatehouse) -> None:
    await house.plan(None, 5)
    gate = house.replica()
    await gate.ask(house.token())
    async with transaction(house.pool) as connection:
        await delete_plans(connection, ["t1"])

    await write(gate)

    assert await counts(house) == {}


async def test_only_a_day_that_is_limited_is_counted(house: Gatehouse) -> None:
    await house.plan(5, None)
    gate = house.replica()
    await gate.ask(house.token())

    await write(gate)

    assert await counts(house) == {}
