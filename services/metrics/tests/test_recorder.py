"""That each event counts once, whatever happens at the same time and whatever fails."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count, permutations
from random import Random
from typing import Any

import pytest
from asyncpg.connection import LoggedQuery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.metrics import handlers, queries
from services.metrics.recording import recorder as recorder_module
from services.metrics.recording.event import Event, Reception, key_of, parse
from services.metrics.recording.recorder import Outcome, Recorder
from services.metrics.recording.refusal import RefusedError
from services.metrics.tests.support import define_meter, hours_of, quotas_of, take_usage_of, usage_event
from shared.clock import ManualClock
from shared.contracts.metrics import PurgeMetrics
from shared.failpoints import FailpointError, armed, hits
from shared.http import Problem
from shared.postgres import Connection, Pool, transaction
from shared.testing import eventually

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
HOUR = "2026-03-01T12:00"
RECEPTION = Reception.at(NOW, tenant_id=None)


@pytest.fixture
async def recorder(pool: Pool) -> Recorder:
    await take_usage_of(pool, "t1", "t2", now=NOW)
    return recorder_of(pool)


def recorder_of(pool: Pool) -> Recorder:
    clock = ManualClock(NOW)
    return Recorder(pool, quotas_of(clock), clock=clock)


def events(*documents: dict[str, Any]) -> list[Event]:
    return [parse(document, RECEPTION) for document in documents]


def calls(*ids: object, **members: Any) -> list[Event]:
    return events(*(usage_event(each, **members) for each in ids))


async def left_of(pool: Pool, tenant_id: str = "t1") -> dict[str, int]:
    """Return how many rows a tenant has, by place."""
    async with pool.acquire() as connection:
        rows = await connection.fetch("SELECT place FROM live_record WHERE tenant_id = $1", tenant_id)
    return dict(Counter(row["place"] for row in rows))


async def test_many_writers_of_the_same_events_count_each_once(pool: Pool, recorder: Recorder) -> None:
    random = Random(7)
    others = [recorder_of(pool) for _ in range(2)]  # as other replicas have them
    all_events = [
        *calls(*range(60)),
        *events(*(usage_event(n, "storage", f"t{n % 2 + 1}", data={"gb": n}) for n in range(100, 160))),
        *events(*(usage_event(n, "seat", f"t{n % 2 + 1}", data={"user": n % 7}) for n in range(200, 260))),
    ]

    async def write(one: Recorder) -> Sequence[Outcome]:
        return await one.record(random.sample(all_events, len(all_events)))

    told = await asyncio.gather(*(write(each) for each in (recorder, *others) * 8))

    assert Counter(outcome for each in told for outcome in each) == {
        "accepted": len(all_events),
        "duplicate": len(all_events) * 23,
    }
    assert await hours_of(pool, "t1") == {("api_calls", HOUR): 60, ("storage_gb", HOUR): 158, ("seats", HOUR): 7}
    assert await hours_of(pool, "t2") == {("storage_gb", HOUR): 159, ("seats", HOUR): 7}


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("usage_key", "tenant_id, key"),
        ("usage_hour", "tenant_id, meter, hour"),
        ("usage_dimension_hour", "tenant_id, meter, hour, dimensions"),
        ("usage_value", "tenant_id, meter, hour, dimensions, value"),
    ],
)
async def test_rows_are_written_in_one_order(pool: Pool, recorder: Recorder, table: str, columns: str) -> None:
    for name in ("users", "people"):
        await define_meter(
            pool, name, event_type="use", aggregation="unique", value_path="$.v", dimensions={"d": "$.d"}
        )
        await define_meter(pool, f"{name}_more", event_type="use", aggregation="count", dimensions={"d": "$.d"})
    hours = [(NOW - timedelta(hours=n % 7)).isoformat() for n in range(100)]
    sent = [
        usage_event(n, "use", f"t{n % 2 + 1}", time=hour, data={"v": n % 9, "d": n % 3}) for n, hour in enumerate(hours)
    ]

    await recorder.record(events(*Random(7).sample(sent, len(sent))))

    async with pool.acquire() as connection:
        written = await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY ctid")
        assert len(written) > 10
        assert written == await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY {columns}")


@pytest.mark.parametrize("is_same", [True, False], ids=["events", "hours"])
async def test_nobody_waits_in_a_circle(
    pool: Pool, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, is_same: bool
) -> None:
    monkeypatch.setattr(recorder_module, "_ATTEMPTS", 1)
    random = Random(7)

    def shuffled(writer: int) -> list[Event]:
        times = [(NOW - timedelta(hours=n % 600)).isoformat() for n in range(1200)]
        return events(*(
            usage_event(n if is_same else (writer, n), tenant_id=f"t{n % 2 + 1}", time=time)
            for n, time in random.sample(list(enumerate(times)), len(times))
        ))  # fmt: skip

    sent = [(recorder_of(pool), shuffled(writer)) for writer in range(6)]
    await asyncio.gather(*(each.record(batch) for each, batch in sent))

    hours = await hours_of(pool)
    assert sum(hours.values()) == 600 * (1 if is_same else 6)


@pytest.mark.parametrize(("place", "is_kept"), [("usage_inserted", False), ("usage_committed", True)])
async def test_what_fails_has_happened_wholly_or_not_at_all(
    pool: Pool, recorder: Recorder, place: str, *, is_kept: bool
) -> None:
    sent = [*calls(1, 2), *events(usage_event(3, "seat", data={"user": "ada"}))]

    with armed(f"{place}=raise"), pytest.raises(FailpointError):
        await recorder.record(sent)
    assert bool((await left_of(pool)).keys() - {"tracked_tenant"}) == is_kept

    assert set(await recorder.record(sent)) == {"duplicate" if is_kept else "accepted"}
    assert await hours_of(pool) == {("api_calls", HOUR): 2, ("seats", HOUR): 1}


async def test_all_that_wait_are_told_of_a_failure(recorder: Recorder) -> None:
    with armed("usage_inserted=raise"):
        told = await asyncio.gather(*(recorder.record(calls(n)) for n in range(4)), return_exceptions=True)
        assert hits("usage_inserted") == 1

    assert [type(each) for each in told] == [FailpointError] * 4
    assert set(await recorder.record(calls(*range(4)))) == {"accepted"}


async def test_what_the_database_refuses_of_one_does_not_concern_the_others(
    pool: Pool, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "TRANSACTIONS", 1)
    (good,), (bad,), (busy,) = calls("good"), calls("bad"), calls("busy")
    unstorable = bad._replace(json=b'{"a":"\\u0000"}')

    told = await asyncio.gather(*(recorder.record([each]) for each in (busy, good, unstorable)), return_exceptions=True)

    assert told[:2] == [["accepted"], ["accepted"]]
    assert type(told[2]).__name__ == "UntranslatableCharacterError"
    assert await hours_of(pool) == {("api_calls", HOUR): 2}


async def test_whoever_does_not_wait_any_more_disturbs_nobody(pool: Pool, recorder: Recorder) -> None:
    impatient = [asyncio.create_task(recorder.record(calls(n))) for n in range(5)]
    patient = asyncio.create_task(recorder.record(calls("patient")))
    await asyncio.sleep(0)
    for each in impatient:
        each.cancel()

    assert await patient == ["accepted"]
    assert set(await recorder.record(calls(*range(5)))) == {"duplicate"}
    assert await hours_of(pool) == {("api_calls", HOUR): 6}


async def test_requests_share_transactions_and_not_too_many_may_wait(
    pool: Pool, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "MOST_WAITING", 40)
    tasks = [asyncio.create_task(recorder.record(calls(f"{n} a", f"{n} b"))) for n in range(30)]
    told = await asyncio.gather(*tasks, return_exceptions=True)

    refused = [each for each in told if isinstance(each, Problem)]
    assert {(each.status, each.code) for each in refused} == {(503, "overloaded")}
    assert len(refused) == 10
    assert await hours_of(pool) == {("api_calls", HOUR): 40}
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM usage_key") <= 2

    monkeypatch.setattr(recorder_module, "MOST_BYTES", 10)
    large = calls(*range(3), data={"text": "long enough"})
    told = await asyncio.gather(*(recorder.record([each]) for each in large), return_exceptions=True)
    assert [isinstance(each, Problem) for each in told] == [False, True, True]


async def test_whoever_comes_when_a_transaction_has_just_ended_does_not_wait_for_the_next_one(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "TRANSACTIONS", 1)

    async with asyncio.timeout(10):
        assert [await recorder.record(calls(n)) for n in range(3)] == [["accepted"]] * 3


async def test_a_purge_leaves_nothing_of_what_is_recorded_meanwhile(pool: Pool, recorder: Recorder) -> None:
    await define_meter(pool, "told_apart", aggregation="unique", value_path="$.v", dimensions={"d": "$.d"})
    told: list[Outcome] = []
    is_over = asyncio.Event()

    async def write(number: int) -> None:
        for n in range(1000):
            told.extend(await recorder.record(calls((number, n, 1), (number, n, 2))))
            told.extend(await recorder.record(events(usage_event((number, n), "told_apart", data={"v": n, "d": "x"}))))
            if is_over.is_set():
                break

    async def purge() -> None:
        await asyncio.sleep(0.2)
        async with transaction(pool) as connection:
            await handlers.purge_metrics(connection, [PurgeMetrics(tenant_id="t1")])
        await asyncio.sleep(0.1)
        is_over.set()

    await asyncio.gather(*map(write, range(4)), purge())

    assert await left_of(pool) == {}
    assert "accepted" in told
    assert {each.code for each in told if isinstance(each, RefusedError)} == {"unknown_tenant"}


@pytest.mark.parametrize(
    ("aggregation", "quantity"), [("max", 3), ("latest", max((1, 2, 3), key=lambda each: key_of("/app", str(each))))]
)
async def test_of_three_events_of_one_moment_the_same_counts_whichever_comes_last(
    pool: Pool, aggregation: str, quantity: int
) -> None:
    await define_meter(pool, "level", aggregation=aggregation, value_path="$.v", dimensions={"d": "$.d"})
    orders = {"".join(map(str, order)): order for order in permutations((1, 2, 3))}
    await take_usage_of(pool, *orders, now=NOW)
    recorder = recorder_of(pool)

    for turn in range(3):
        await recorder.record(
            events(
                *(usage_event(order[turn], "level", name, data={"v": order[turn]}) for name, order in orders.items())
            )
        )

    for name in orders:
        assert await hours_of(pool, name) == {("level", HOUR): quantity}, name
        assert await parts_of(pool, name) == {("level", ""): quantity}, name


TENANTS = count(1)


async def test_who_records_while_a_tenant_is_purged_waits_and_is_refused(pool: Pool, recorder: Recorder) -> None:
    async with transaction(pool) as connection:
        await handlers.purge_metrics(connection, [PurgeMetrics(tenant_id="t1")])
        recording = asyncio.create_task(recorder.record(calls(1) + calls(2, tenant_id="t2")))
        await eventually(lambda: waits_for_lock(pool), describe="the recording waits for the purge")

    first, second = await recording

    assert (isinstance(first, RefusedError) and first.code, second) == ("unknown_tenant", "accepted")
    assert await left_of(pool) == {}


async def waits_for_lock(pool: Pool) -> bool:
    async with pool.acquire() as connection:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )


VALUES = {"most": "max", "last": "latest", "people": "unique", "total": "sum"}


@st.composite
def offers(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Documents, and portions in which they are sent: all of them, shuffled, cut, and some sent again."""
    amounts = draw(st.lists(st.tuples(st.sampled_from([*VALUES]), st.integers(-3, 3), st.integers(0, 2)), min_size=1))
    documents = [
        usage_event(n, name, time=f"{NOW + timedelta(seconds=second):%Y-%m-%dT%H:%M:%SZ}", data={"v": v, "d": v % 2})
        for n, (name, v, second) in enumerate(amounts)
    ]
    numbers = range(len(documents))
    again = draw(st.lists(st.sampled_from(numbers)))
    order = draw(st.permutations([*numbers, *again]))
    cuts = sorted(draw(st.lists(st.integers(0, len(order)), max_size=3)))
    return documents, [order[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]


def expected(documents: Sequence[dict[str, Any]]) -> dict[str, Decimal]:
    """Say what events come to by meter, the simple way."""
    made = {}
    for name, aggregation in VALUES.items():
        if of_it := [each for each in documents if each["type"] == name]:
            values = [each["data"]["v"] for each in of_it]
            latest = max(of_it, key=lambda each: (each["time"], key_of(each["source"], each["id"])))
            results = {
                "max": max(values),
                "latest": latest["data"]["v"],
                "unique": len(set(values)),
                "sum": sum(values),
            }
            made[name] = Decimal(results[aggregation])
    return made


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offer=offers())
async def test_neither_order_nor_portions_nor_repetition_matter(pool: Pool, offer: Any) -> None:
    documents, portions = offer
    tenant_id = f"t{next(TENANTS)}"
    await metered(pool, tenant_id)
    own = [{**each, "subject": tenant_id} for each in documents]
    recorder = recorder_of(pool)

    for portion in portions:
        await recorder.record(events(*(own[number] for number in portion)))

    assert await hours_of(pool, tenant_id) == {(meter, HOUR): each for meter, each in expected(own).items()}
    assert await parts_of(pool, tenant_id) == {
        (meter, str(part)): each
        for part in (0, 1)
        for meter, each in expected([each for each in own if each["data"]["d"] == part]).items()
    }


async def metered(pool: Pool, tenant_id: str) -> None:
    async with pool.acquire() as connection:
        known = {row["name"] for row in await queries.recording.meters(connection)}
    for name in VALUES.keys() - known:
        columns = {"value_path": "$.v", "dimensions": {"d": "$.d"}, "allows_negative": True}
        await define_meter(pool, name, aggregation=VALUES[name], **columns)
    await take_usage_of(pool, tenant_id, now=NOW)


async def parts_of(pool: Pool, tenant_id: str) -> dict[tuple[str, str], Decimal]:
    async with pool.acquire() as connection:
        rows = await connection.fetch("SELECT * FROM usage_dimension_hour WHERE tenant_id = $1", tenant_id)
    return {(row["meter"], row["dimensions"]["d"]): row["quantity"] for row in rows}


@pytest.fixture
async def million(pool: Pool, recorder: Recorder) -> None:
    """As many keys as there are in a day of little use, so that the server would notice a scan."""
    async with pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO usage_key SELECT 't' || n % 100, decode(md5(n::text), 'hex'), decode(md5(n::text), 'hex'), $1 "
            "FROM generate_series(1, 100000) AS n",
            NOW,
        )
        await connection.execute("ANALYZE usage_key")


@pytest.mark.usefixtures("million")
async def test_no_table_that_grows_is_read_as_a_whole(pool: Pool, recorder: Recorder) -> None:
    sent = [*calls(*range(500)), *events(usage_event("new", "seat", data={"user": "ada"}))]
    seen: list[LoggedQuery] = []
    async with pool.acquire() as connection:
        await recorder.record(sent)
    async with pool.acquire() as connection:
        with connection.query_logger(seen.append):
            await recorder._record_in(connection, [*sent, *calls("newer")])
            await asyncio.sleep(0)  # the logger is called in the loop's next turn

        asked = [each for each in seen if " usage_" in each.query and "SELECT" in each.query]
        read = [await plan_of(connection, each) for each in asked]
        assert any("usage_key_pkey" in plan for plan in read), read
        assert not [plan for plan in read if re.search("Seq Scan on usage_", plan)]


async def plan_of(connection: Connection, asked: LoggedQuery) -> str:
    rows = await connection.fetch(f"EXPLAIN {asked.query}", *asked.args)
    return "\n".join(row[0] for row in rows)
