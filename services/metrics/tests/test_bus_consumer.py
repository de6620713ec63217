"""How the consumer of the bus goes about it, on a broker in memory: how much at a time, and what it does with bugs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from deploy.local.throwaway import FreshDatabases
from services.metrics.app import build
from services.metrics.bus.consumer import PORTION_BYTES, PORTION_EVENTS, PREFETCH
from services.metrics.recording.body import BATCH
from services.metrics.recording.event import Event
from services.metrics.recording.recorder import ACCEPTED, Outcome
from services.metrics.settings import MetricsSettings
from services.metrics.tests.bus_kit import MANIFEST, consuming_from
from services.metrics.tests.support import hours_of, take_usage_of, usage_event
from shared.clock import SystemClock
from shared.http import overloaded
from shared.messaging.bus import Outcome as Published
from shared.messaging.bus import Parcel
from shared.messaging.ladder import DETAIL, REASON
from shared.messaging.topology import USAGE_EXCHANGE, USAGE_QUEUE, Manifest
from shared.postgres import open_pool
from shared.service import Ports
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker, MemoryBus


class Recording:
    """Takes note of what it is given, and takes its time.

    Attributes:
        under_way: how many events, and bytes of their data, were being recorded together, each time something came.
        troubles: raised one after the other before anything is taken.
        bad: the id of an event that nothing can be done with.
        may_go_on: it takes nothing before this is set.
    """

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.under_way: list[tuple[int, int]] = []
        self.troubles: list[Exception] = []
        self.bad = ""
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self._now = (0, 0)

    async def record(self, events: Sequence[Event]) -> Sequence[Outcome]:
        count, size = len(events), sum(len(event.json) for event in events)
        self._now = (self._now[0] + count, self._now[1] + size)
        self.under_way.append(self._now)
        await asyncio.sleep(0)
        await self.may_go_on.wait()
        self._now = (self._now[0] - count, self._now[1] - size)
        if self.troubles:
            raise self.troubles.pop(0)
        if self.bad in {event.id for event in events}:
            raise ValueError("a bug")
        self.taken += [event.id for event in events]
        return [ACCEPTED for _ in events]


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    broker = MemoryBroker(MANIFEST, SystemClock())
    yield broker
    await broker.close()


async def publish(broker: MemoryBroker, *documents: Any) -> None:
    parcel = Parcel(USAGE_EXCHANGE, "shop", orjson.dumps(documents), BATCH, "m")
    assert await MemoryBus(broker, "shop").publish([parcel]) == [Published.CONFIRMED]


async def settled(broker: MemoryBroker, recording: Recording) -> None:
    async with consuming_from(MemoryBus(broker, "metrics"), recording):  # type: ignore[arg-type] # its twin
        await eventually(lambda: broker.depth(USAGE_QUEUE) == 0)


async def test_messages_are_recorded_together_up_to_a_bound_of_events(broker: MemoryBroker) -> None:
    for number in range(7):
        await publish(broker, *(usage_event(f"{number}-{each}") for each in range(400)))
    recording = Recording()

    await settled(broker, recording)

    assert len(recording.taken) == 7 * 400
    assert max(count for count, _ in recording.under_way) == 1200 < 2 * PORTION_EVENTS


async def test_messages_are_recorded_together_up_to_a_bound_of_bytes(broker: MemoryBroker) -> None:
    for number in range(40):
        await publish(broker, usage_event(number, data={"text": "x" * 60_000}))
    recording = Recording()

    await settled(broker, recording)

    assert len(recording.taken) == 40
    assert 16 * 60_000 < max(size for _, size in recording.under_way) < PORTION_BYTES + 60_100


async def test_no_more_messages_are_taken_than_may_be_unsettled(broker: MemoryBroker) -> None:
    for number in range(PREFETCH + 5):
        await publish(broker, usage_event(number))
    recording = Recording()
    recording.may_go_on.clear()

    async with consuming_from(MemoryBus(broker, "metrics"), recording):  # type: ignore[arg-type] # its twin
        await eventually(lambda: bool(recording.under_way))
        await asyncio.sleep(0.05)
        assert len(broker.messages(USAGE_QUEUE)) == 5
        recording.may_go_on.set()
        await eventually(lambda: broker.depth(USAGE_QUEUE) == 0)

    assert len(recording.taken) == PREFETCH + 5


@pytest.mark.parametrize("trouble", [OSError("away"), overloaded()])
async def test_what_cannot_be_recorded_now_is_recorded_later(broker: MemoryBroker, trouble: Exception) -> None:
    await publish(broker, usage_event(1))
    recording = Recording()
    recording.troubles = [trouble, trouble]

    await settled(broker, recording)

    assert (recording.taken, broker.depth("metrics.parking")) == (["1"], 0)


async def test_a_message_that_meets_a_bug_is_parked_and_holds_up_no_other(broker: MemoryBroker) -> None:
    for number in range(3):
        await publish(broker, usage_event(number))
    recording = Recording()
    recording.bad = "1"

    await settled(broker, recording)

    assert recording.taken == ["0", "2"]
    [parked] = broker.messages("metrics.parking")
    assert (parked.headers[REASON], parked.headers[DETAIL]) == ("failed", "ValueError: a bug")
    assert (parked.body, parked.content_type) == (orjson.dumps([usage_event(1)]), BATCH)


async def test_the_service_reads_what_applications_publish(fresh_database: FreshDatabases) -> None:
    url, clock = await fresh_database("metrics"), SystemClock()
    broker = MemoryBroker(Manifest.load(), clock)
    pool = await open_pool(url)
    await take_usage_of(pool, "t1", now=datetime.now(UTC))
    settings = MetricsSettings.from_environment(
        {
            "TENURE_METRICS_DATABASE_URL": url,
            "TENURE_AMQP_URL": "amqp://127.0.0.1/",
            "TENURE_ADMIN_KEY": "key",
        }
    )
    await publish(broker, usage_event(1))

    async def is_counted() -> bool:
        return list((await hours_of(pool)).values()) == [Decimal(1)]

    async with build(settings, Ports(bus=lambda service: MemoryBus(broker, service))) as service:
        stopping = asyncio.Event()
        running = asyncio.create_task(service.run(stopping))
        await eventually(is_counted)
        stopping.set()
        await running
    await broker.close()
    await pool.close()
