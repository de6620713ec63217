"""What a service tells Prometheus of itself, besides its requests."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from deploy.databases import DatabaseUrls
from shared.clock import ManualClock, SystemClock
from shared.contracts.base import Message
from shared.contracts.billing import OpenAccount
from shared.contracts.tenant import TenantActivated, TenantDeactivated
from shared.ids import SeededIds, moment_of, uuid7_at
from shared.measurements import FIRST_SECONDS, POLL_SECONDS, Measurements
from shared.messaging import outbox
from shared.messaging.bus import BusUnavailableError, Outcome, Parcel
from shared.messaging.event import Event, Outgoing
from shared.messaging.measured import Handling, MeasuredBus
from shared.messaging.topology import exchange_of, retry_exchange_of
from shared.postgres import Connection, MeasuredPool, Pool, open_pool, transaction
from shared.testing import eventually, hurry
from shared.testing.memory_bus import MemoryBroker, MemoryBus
from shared.testing.one_service import OneService
from shared.testing.three_services import ANSWER, MANIFEST, asked, parcel_of, told

OPEN = OpenAccount.routing_key()
VOID = TenantDeactivated.routing_key()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def measured(service: OneService, registry: CollectorRegistry) -> OneService:
    """A service whose handlers are measured."""
    service.dispatch._handling = Handling(registry)
    return service


@pytest.fixture
async def office(pool: Pool, registry: CollectorRegistry) -> AsyncIterator["Office"]:
    office = Office(pool, registry)
    yield office
    await office.broker.close()


class Office:
    """The measurements of ``billing`` on a broker in memory."""

    def __init__(self, pool: Pool, registry: CollectorRegistry) -> None:
        self.pool = pool
        self.clock = ManualClock()
        self.broker = MemoryBroker(MANIFEST, self.clock)
        self.bus = MemoryBus(self.broker, "billing")
        self.registry = registry
        self.measurements = Measurements(
            service="billing", version="7", pool=pool, bus=self.bus, clock=self.clock, registry=registry
        )

    async def write(self, count: int) -> None:
        """Put messages into the outbox."""
        ids = SeededIds(1, self.clock)
        rows = [Outgoing(ids.new(), "tenure.billing", "a.b", b"{}") for _ in range(count)]
        async with transaction(self.pool) as connection:
            await outbox.insert(connection, rows, now=self.clock.now())

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def open_account(tenant_id: str) -> Event:
    return asked(OpenAccount(tenant_id=tenant_id, customer_name="Ada", plan="pro"))


def counted(registry: CollectorRegistry, name: str) -> dict[str, float]:
    """Return how many messages of a type came to what; none of the outcomes that there were none of."""
    samples = {
        outcome: registry.get_sample_value("tenure_inbox_messages_total", {"type": name, "outcome": outcome})
        for outcome in ("handled", "failed", "interrupted")
    }
    return {outcome: value for outcome, value in samples.items() if value}


def batches(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value("tenure_handler_seconds_count", {"type": name})


async def test_messages_are_counted_by_type_and_batches_measured(
    measured: OneService, registry: CollectorRegistry
) -> None:
    async with measured.consuming():
        await measured.publish(open_account("t1"), open_account("t2"), open_account("t3"))
        await hurry(measured.clock, lambda: counted(registry, OPEN) == {"handled": 3})

    assert batches(registry, OPEN) == 1
    assert counted(registry, TenantActivated.routing_key()) == {}


async def test_what_comes_twice_is_counted_once(measured: OneService, registry: CollectorRegistry) -> None:
    ask = open_account("t1")
    async with measured.consuming():
        await measured.publish(ask)
        await measured.publish(ask)
        await measured.publish(told(TenantActivated(tenant_id="last")))
        await hurry(measured.clock, lambda: counted(registry, TenantActivated.routing_key()) == {"handled": 1})

    assert counted(registry, OPEN) == {"handled": 1}


async def test_each_attempt_that_fails_is_counted(measured: OneService, registry: CollectorRegistry) -> None:
    async def trouble(_: Connection, messages: Sequence[Message]) -> None:
        if any(message.tenant_id == "bad" for message in messages):
            raise LookupError("a bug")

    measured.script.trouble = trouble
    async with measured.consuming():
        await measured.publish(open_account("good"), open_account("bad"))
        await hurry(measured.clock, lambda: measured.broker.depth("billing.parking") == 1)

    # Both together, then each alone, and the bad one at each rung of the ladder.
    assert counted(registry, OPEN) == {"handled": 1, "failed": 2 + 1 + 3}


async def test_an_outage_is_nobodys_failure(measured: OneService, registry: CollectorRegistry) -> None:
    outages = iter([asyncpg.ConnectionDoesNotExistError("connection was closed")])

    async def trouble(_connection: Connection, _messages: Sequence[Message]) -> None:
        for outage in outages:
            raise outage

    measured.script.trouble = trouble
    async with measured.consuming():
        await measured.publish(open_account("t1"))
        await hurry(measured.clock, lambda: counted(registry, OPEN) == {"interrupted": 1, "handled": 1})


async def test_a_batch_of_several_types_is_measured_for_each() -> None:
    registry = CollectorRegistry()
    handling = Handling(registry)

    with handling.of([open_account("t1"), open_account("t2"), told(TenantDeactivated(tenant_id="t3"))]):
        await asyncio.sleep(0.01)

    assert counted(registry, OPEN) == {"handled": 2}
    assert counted(registry, VOID) == {"handled": 1}
    for name in (OPEN, VOID):
        assert batches(registry, name) == 1
        assert (registry.get_sample_value("tenure_handler_seconds_sum", {"type": name}) or 0) >= 0.01


async def test_what_is_published_is_counted_by_destination_and_outcome(registry: CollectorRegistry) -> None:
    broker = MemoryBroker(MANIFEST, SystemClock())
    bus = MeasuredBus(MemoryBus(broker, "billing"), registry)
    confirmed: list[Parcel] = []
    bus.on_confirmed = confirmed.append
    said = parcel("billing", ANSWER)
    parked = Parcel(retry_exchange_of("billing"), "parking", b"", "text/plain", str(uuid4()))
    nowhere = parcel("billing", "no.such.key")

    assert await bus.publish([said, parked, nowhere]) == [Outcome.CONFIRMED, Outcome.CONFIRMED, Outcome.UNROUTABLE]
    broker.go_away()
    assert await bus.publish([said]) == [Outcome.UNKNOWN]

    def count(destination: str, outcome: str) -> float | None:
        labels = {"destination": destination, "outcome": outcome}
        return registry.get_sample_value("tenure_published_messages_total", labels)

    assert count("tenure.billing", "confirmed") == 1
    assert count("tenure.billing", "unroutable") == 1
    assert count("tenure.billing", "unknown") == 1
    assert count("parking", "confirmed") == 1
    assert count("parking", "unroutable") == 0  # there from the first parcel on, or its first rise would not be seen
    assert confirmed == [said, parked]


def parcel(service: str, key: str) -> Parcel:
    return Parcel(exchange_of(service), key, b"[]", "text/plain", str(uuid4()))


async def test_the_outbox_is_looked_into(office: Office) -> None:
    await office.write(2)
    await office.clock.advance(90)
    await office.write(1)

    async with polling(office):
        assert office.value("tenure_outbox_messages") == 3
        assert office.value("tenure_outbox_oldest_seconds") == pytest.approx(90 + FIRST_SECONDS, abs=0.01)

        await office.pool.execute("DELETE FROM outbox")
        await office.clock.advance(POLL_SECONDS)
        await eventually(lambda: office.value("tenure_outbox_messages") == 0)
        assert office.value("tenure_outbox_oldest_seconds") == 0


async def test_a_full_outbox_is_not_counted_to_its_end(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.measurements.MOST_COUNTED", 2)
    await office.write(5)

    async with polling(office):
        assert office.value("tenure_outbox_messages") == 2


async def test_the_depth_of_own_queues_is_known(office: Office) -> None:
    onboarding = MemoryBus(office.broker, "onboarding")
    async with office.bus.consume("billing.parking", prefetch=1):
        await onboarding.publish([parcel_of(open_account("t1")), parcel_of(open_account("t2"))])
        async with polling(office):
            assert office.value("tenure_queue_messages", queue="billing.work") == 2
            assert office.value("tenure_queue_messages", queue="billing.parking") == 0
            assert office.value("tenure_queue_messages", queue="billing.retry.30s") == 0
            assert office.value("tenure_queue_messages", queue="onboarding.work") is None


async def test_what_cannot_be_looked_at_stays_as_it_was_and_ends_nothing(office: Office) -> None:
    def polled(what: str) -> float:
        return office.value("tenure_polled_timestamp_seconds", what=what) or 0

    async with office.bus.consume("billing.parking", prefetch=1), polling(office):
        await eventually(lambda: polled("queues") > 0)
        before = polled("queues")
        office.broker.go_away()
        await office.clock.advance(POLL_SECONDS)
        await eventually(lambda: polled("outbox") > before)
        assert polled("queues") == before
        assert office.value("tenure_queue_messages", queue="billing.work") == 0

    office.broker.come_back()
    async with office.bus.consume("billing.parking", prefetch=1), polling(office):
        await eventually(lambda: polled("queues") > before)


async def test_a_mistake_in_one_poll_does_not_end_the_others(office: Office) -> None:
    looks = 0

    async def mistaken() -> None:
        nonlocal looks
        looks += 1
        raise ZeroDivisionError

    office.measurements.poll("nonsense", mistaken)
    async with polling(office):
        await office.clock.advance(POLL_SECONDS)
        await eventually(lambda: looks == 2)

    assert office.value("tenure_polled_timestamp_seconds", what="nonsense") is None


@asynccontextmanager
async def polling(office: Office) -> AsyncIterator[None]:
    """Ask for everything for a block, which begins when everything was asked for once."""
    rounds = 0

    async def note() -> None:
        nonlocal rounds
        rounds += 1

    office.measurements.poll("rounds", note)
    task = asyncio.create_task(office.measurements.run())
    await asyncio.sleep(0)
    await office.clock.advance(FIRST_SECONDS)
    await eventually(lambda: rounds == 1)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_service_tells_its_version(office: Office) -> None:
    assert office.value("tenure_build_info", version="7") == 1


async def test_the_use_of_a_pool_is_known(kernel_database: DatabaseUrls, registry: CollectorRegistry) -> None:
    pool = await open_pool(kernel_database.app, size=2)
    assert isinstance(pool, MeasuredPool)
    office = Office(pool, registry)

    def value(name: str) -> float | None:
        return office.value(name, pool="service")

    async with pool.acquire(), transaction(pool):
        waiting = asyncio.create_task(pool.fetchval("SELECT 1"))
        await eventually(lambda: value("tenure_pool_waiting") == 1)
        assert value("tenure_pool_connections") == 2
        assert value("tenure_pool_idle_connections") == 0
        assert value("tenure_pool_max_connections") == 2
        assert value("tenure_pool_wait_seconds_count") == 2
        await asyncio.sleep(0.03)
    assert await waiting == 1

    assert value("tenure_pool_waiting") == 0
    assert value("tenure_pool_idle_connections") == 2
    assert value("tenure_pool_wait_seconds_count") == 3
    assert (value("tenure_pool_wait_seconds_sum") or 0) > 0.03
    await pool.close()


async def test_whoever_waits_in_vain_is_measured_too(
    kernel_database: DatabaseUrls, registry: CollectorRegistry
) -> None:
    pool = await open_pool(kernel_database.app, size=1)
    office = Office(pool, registry)
    async with pool.acquire():
        with pytest.raises(TimeoutError):
            await pool.acquire(timeout=0.02)

    assert office.value("tenure_pool_wait_seconds_count", pool="service") == 2
    assert office.value("tenure_pool_waiting", pool="service") == 0
    await pool.close()


def test_an_identity_tells_when_it_was_made() -> None:
    moment = SystemClock().now()
    assert abs(moment_of(uuid7_at(moment, 1 << 73)) - moment) < timedelta(milliseconds=1)


async def test_a_bus_that_is_measured_is_still_the_bus(registry: CollectorRegistry) -> None:
    broker = MemoryBroker(MANIFEST, SystemClock())
    bus = MeasuredBus(MemoryBus(broker, "billing"), registry)

    await MemoryBus(broker, "onboarding").publish([parcel_of(open_account("t1"))])
    async with bus.consume("billing.work", prefetch=1) as consumption:
        [taken] = await consumption.receive(1)
        assert list(await bus.depths(["billing.work"])) == [0]
        await consumption.acknowledge(taken)
    await bus.check()
    broker.go_away()
    with pytest.raises(BusUnavailableError):
        await bus.check()
    await bus.close()
