"""A tenant that has spent what it may: its usage is refused, each event by itself, until it is to be taken again."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import orjson
import pytest

from services.metrics import handlers
from services.metrics.recording.body import BATCH
from services.metrics.recording.event import Event, Reception, parse
from services.metrics.recording.recorder import Recorder
from services.metrics.recording.refusal import RefusedError
from services.metrics.tests.bus_kit import MANIFEST, consuming_from
from services.metrics.tests.quota_kit import Shop
from services.metrics.tests.support import KEY, api_of, hours_of, quotas_of, take_usage_of, usage_event
from shared.clock import ManualClock
from shared.contracts.billing import SpendingBlockChanged
from shared.contracts.metrics import PurgeMetrics, UntrackTenant
from shared.contracts.provisioning import MailReported
from shared.messaging.bus import Parcel
from shared.messaging.topology import USAGE_EXCHANGE, USAGE_QUEUE, parking_queue_of
from shared.postgres import Pool, transaction
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker, MemoryBus

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
HOUR = "2026-03-01T12:00"


@pytest.fixture
async def recorder(pool: Pool) -> Recorder:
    await take_usage_of(pool, "t1", "t2", now=NOW)
    return _recorder(pool)


@pytest.fixture
async def client(pool: Pool, recorder: Recorder) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api_of(pool, clock=ManualClock(NOW))),
        base_url="http://test",
        headers={"Authorization": f"Bearer {KEY}"},
    ) as client:
        yield client


def _recorder(pool: Pool) -> Recorder:
    clock = ManualClock(NOW)
    return Recorder(pool, quotas_of(clock), clock=clock)


async def tell(pool: Pool, *told: tuple[str, bool, int]) -> None:
    """Hear of tenants whether they are blocked, and the edition of that, in one batch."""
    facts = [SpendingBlockChanged(tenant_id=each[0], is_blocked=each[1], edition=each[2]) for each in told]
    async with transaction(pool) as connection:
        assert await handlers.block_tenants(connection, facts) == []


def events(*ids: object, tenant_id: str = "t1", **members: Any) -> list[Event]:
    reception = Reception.at(NOW, tenant_id=None)
    return [parse(usage_event(each, tenant_id=tenant_id, **members), reception) for each in ids]


async def became(recorder: Recorder, *sent: Event) -> list[str]:
    return [each.code if isinstance(each, RefusedError) else each for each in await recorder.record(sent)]


async def is_blocked(pool: Pool, tenant_id: str = "t1") -> bool | None:
    found: bool | None = await pool.fetchval("SELECT is_blocked FROM tracked_tenant WHERE tenant_id = $1", tenant_id)
    return found


async def test_events_of_a_blocked_tenant_are_refused_one_by_one_and_those_of_others_taken(
    pool: Pool, recorder: Recorder
) -> None:
    await tell(pool, ("t1", True, 1))

    outcomes = await became(recorder, *events(1), *events(2, tenant_id="t2"), *events(1, 3))

    assert outcomes == ["spending_limit", "accepted", "spending_limit", "spending_limit"]
    assert await hours_of(pool) == {}
    assert await hours_of(pool, "t2") == {("api_calls", HOUR): 1}
    assert await pool.fetchval("SELECT count(*) FROM usage_key WHERE tenant_id = 't1'") == 0


async def test_what_was_accepted_before_is_a_duplicate_or_in_conflict_as_ever(pool: Pool, recorder: Recorder) -> None:
    await became(recorder, *events(1))
    await tell(pool, ("t1", True, 1))

    assert await became(recorder, *events(1), *events(1, data={"other": 1}), *events(2)) == [
        "duplicate",
        "conflict",
        "spending_limit",
    ]


async def test_what_was_refused_can_be_sent_again_when_usage_is_taken_again(pool: Pool, recorder: Recorder) -> None:
    await tell(pool, ("t1", True, 1))
    await became(recorder, *events(1))

    await tell(pool, ("t1", False, 2))

    assert await became(recorder, *events(1)) == ["accepted"]


async def test_the_newest_edition_counts_whatever_comes_last(pool: Pool, recorder: Recorder) -> None:
    await tell(pool, ("t1", False, 2), ("t1", True, 3), ("t1", True, 1), ("t2", True, 5))
    assert (await is_blocked(pool), await is_blocked(pool, "t2")) == (True, True)

    await tell(pool, ("t1", False, 2))
    await tell(pool, ("t2", False, 6), ("t2", True, 5))
    assert (await is_blocked(pool), await is_blocked(pool, "t2")) == (True, False)

    await tell(pool, ("t1", False, 4))
    assert await is_blocked(pool) is False


async def test_over_http_a_batch_says_it_of_each_and_a_single_event_with_a_problem(
    pool: Pool, client: httpx2.AsyncClient
) -> None:
    await tell(pool, ("t1", True, 1))

    batch = (await client.post("/v1/usage", json=[usage_event(1), usage_event(2, tenant_id="t2")])).json()
    single = await client.post("/v1/usage", json=usage_event(1))

    assert (batch["accepted"], batch["refused"]) == (1, 1)
    assert [each["code"] for each in batch["results"]] == ["spending_limit", None]
    assert (single.status_code, single.json()["code"]) == (422, "spending_limit")


async def test_on_the_bus_it_is_parked_with_its_code(pool: Pool, recorder: Recorder) -> None:
    await tell(pool, ("t1", True, 1))
    broker = MemoryBroker(MANIFEST, ManualClock(NOW))
    body = b"[%s]" % b",".join(_written(each, tenant_id) for each, tenant_id in ((1, "t1"), (2, "t2")))
    await MemoryBus(broker, "shop").publish([Parcel(USAGE_EXCHANGE, "shop", body, BATCH, "m")])

    async with consuming_from(MemoryBus(broker, "metrics"), recorder, clock=ManualClock(NOW)):
        await eventually(lambda: broker.depth(USAGE_QUEUE) == 0)

    assert broker.depth(parking_queue_of("metrics")) == 1
    assert await hours_of(pool) == {}
    assert await hours_of(pool, "t2") == {("api_calls", HOUR): 1}
    await broker.close()


def _written(id_: int, tenant_id: str) -> bytes:
    return orjson.dumps(usage_event(id_, tenant_id=tenant_id))


async def test_what_tenure_counts_itself_is_not_refused(pool: Pool, recorder: Recorder) -> None:
    await tell(pool, ("t1", True, 1))

    async with transaction(pool) as connection:
        fact = MailReported(tenant_id="t1", hour=NOW.replace(minute=0), counts={"send": 3})
        await handlers.meter_mail(connection, [fact], clock=ManualClock(NOW))

    assert await hours_of(pool) == {("mail_sends", HOUR): 3}


async def test_nothing_is_taken_after_a_block_that_is_committed_however_many_write(pool: Pool) -> None:
    await take_usage_of(pool, "t1", "t2", now=NOW)
    recorders = [_recorder(pool) for _ in range(4)]

    async def write(number: int) -> list[str]:
        return [
            outcome for each in range(20) for outcome in await became(recorders[number], *events(f"{number}-{each}"))
        ]

    async def block() -> int:
        await asyncio.sleep(0.05)
        await tell(pool, ("t1", True, 1))
        return int(await pool.fetchval("SELECT count(*) FROM usage_event"))

    written, known = await asyncio.gather(asyncio.gather(*(write(number) for number in range(4))), block())

    outcomes = [outcome for each in written for outcome in each]
    assert outcomes.count("accepted") == known == await pool.fetchval("SELECT count(*) FROM usage_event")
    assert await became(recorders[0], *events("late")) == ["spending_limit"]


@pytest.mark.parametrize("ask", [PurgeMetrics, UntrackTenant])
async def test_nothing_of_it_is_left_of_a_tenant_that_goes_nor_kept_of_one_that_is_not_there(
    pool: Pool, ask: Any
) -> None:
    await take_usage_of(pool, "t1", "t2", now=NOW)
    await tell(pool, ("t1", True, 7), ("t9", True, 1))
    async with transaction(pool) as connection:
        handler = handlers.purge_metrics if ask is PurgeMetrics else handlers.untrack_tenants
        await handler(connection, [ask(tenant_id="t1")])

    await tell(pool, ("t1", True, 8))

    rows = await pool.fetch("SELECT DISTINCT tenant_id FROM live_record")
    assert [row["tenant_id"] for row in rows] == ["t2"]


async def test_a_blocked_tenant_takes_nothing_from_its_quotas(pool: Pool) -> None:
    shop = Shop(pool)
    await shop.open()
    await shop.track(calls=10)
    await tell(pool, ("t1", True, 1))

    refused = await shop.recorder.record([shop.event("tokens", 1)])

    assert [each.code for each in refused if isinstance(each, RefusedError)] == ["spending_limit"]
    assert await shop.used() == {}
