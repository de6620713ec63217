import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from shared.clock import ManualClock
from shared.contracts.billing import OpenAccount
from shared.ids import SeededIds
from shared.messaging.admission import ATTEMPT, ORIGIN, Arrival, Rejected, Unknown
from shared.messaging.bus import BusUnavailableError, Outcome, Parcel
from shared.messaging.event import BATCH
from shared.messaging.ladder import DETAIL, LOOKS_AT_UNKNOWN, PARKED_AT, REASON, USER, Ladder
from shared.messaging.topology import RETRY_DELAYS, retry_queue_of
from shared.testing import hurry
from shared.testing.memory_bus import MemoryBroker, MemoryBus
from shared.testing.three_services import MANIFEST, asked

ASK = asked(OpenAccount(tenant_id="t1", customer_name="Ada", plan="pro"))
ERROR = RuntimeError("the handler is broken")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def broker(clock: ManualClock) -> AsyncIterator[MemoryBroker]:
    broker = MemoryBroker(MANIFEST, clock)
    yield broker
    await broker.close()


@pytest.fixture
def ladder(broker: MemoryBroker, clock: ManualClock) -> Ladder:
    return Ladder(service="billing", bus=MemoryBus(broker, "billing"), clock=clock, ids=SeededIds(1, clock))


def arrival(attempt: int) -> Arrival:
    return Arrival(event=ASK, raw=ASK.encode(), origin="tenure.onboarding", attempt=attempt)


def unknown(attempt: int) -> Unknown:
    return Unknown(raw=ASK.encode(), origin="tenure.onboarding", attempt=attempt, detail="unknown type newer")


@pytest.mark.parametrize(("attempt", "delay"), [*enumerate(RETRY_DELAYS)])
async def test_each_failure_waits_longer(broker: MemoryBroker, ladder: Ladder, attempt: int, delay: int) -> None:
    await ladder.climb(arrival(attempt), ERROR)

    [waiting] = broker.messages(retry_queue_of("billing", delay))
    assert waiting.headers == {ATTEMPT: attempt + 1, ORIGIN: "tenure.onboarding"}
    assert (waiting.body, waiting.content_type) == (b"[" + ASK.encode() + b"]", BATCH)
    assert broker.total_depth() == 1


async def test_after_the_last_attempt_it_is_parked_with_the_reason(
    broker: MemoryBroker, ladder: Ladder, clock: ManualClock
) -> None:
    await ladder.climb(arrival(len(RETRY_DELAYS)), ERROR)

    [parked] = broker.messages("billing.parking")
    assert parked.headers == {
        REASON: "failed",
        DETAIL: "RuntimeError: the handler is broken",
        PARKED_AT: clock.now().isoformat(),
        ORIGIN: "tenure.onboarding",
        ATTEMPT: len(RETRY_DELAYS),
    }
    assert (parked.body, parked.content_type) == (b"[" + ASK.encode() + b"]", BATCH)
    assert broker.total_depth() == 1


async def test_a_type_without_a_handler_waits_for_minutes_for_newer_code(broker: MemoryBroker, ladder: Ladder) -> None:
    for attempt in range(LOOKS_AT_UNKNOWN):
        await ladder.wait_for_newer_code(unknown(attempt))

    depths = {delay: broker.depth(retry_queue_of("billing", delay)) for delay in RETRY_DELAYS}
    assert depths == {1: 1, 5: 1, 30: LOOKS_AT_UNKNOWN - 2}
    assert sum(delay * depth for delay, depth in depths.items()) > 5 * 60
    [waiting] = broker.messages(retry_queue_of("billing", 1))
    assert waiting.headers == {ATTEMPT: 1, ORIGIN: "tenure.onboarding"}
    assert (waiting.body, waiting.content_type) == (b"[" + ASK.encode() + b"]", BATCH)


async def test_a_type_for_which_no_newer_code_comes_is_parked(broker: MemoryBroker, ladder: Ladder) -> None:
    await ladder.wait_for_newer_code(unknown(LOOKS_AT_UNKNOWN))

    [parked] = broker.messages("billing.parking")
    assert (parked.headers[REASON], parked.headers[DETAIL]) == ("unknown", "unknown type newer")
    assert (parked.headers[ORIGIN], parked.headers[ATTEMPT]) == ("tenure.onboarding", LOOKS_AT_UNKNOWN)
    assert broker.total_depth() == 1


async def test_the_rejected_are_parked_at_once_with_all_that_is_known(broker: MemoryBroker, ladder: Ladder) -> None:
    await ladder.park(Rejected(b"\xff", "text/plain", "undecodable", "é" * 1000, "tenure.tenant", "tenant"))

    [parked] = broker.messages("billing.parking")
    assert (parked.body, parked.content_type) == (b"\xff", "text/plain")
    assert parked.headers[REASON] == "undecodable"
    assert parked.headers[DETAIL] == "é" * 500
    assert (parked.headers[ORIGIN], parked.headers[USER], parked.headers[ATTEMPT]) == ("tenure.tenant", "tenant", 0)


async def test_a_broker_that_is_away_for_a_moment_is_waited_for(
    broker: MemoryBroker, ladder: Ladder, clock: ManualClock
) -> None:
    broker.go_away()
    climbing = asyncio.create_task(ladder.climb(arrival(0), ERROR))
    await clock.advance(2)
    assert not climbing.done()

    broker.come_back()
    await hurry(clock, climbing.done)
    await climbing

    assert broker.depth("billing.retry.1s") == 1


async def test_a_broker_that_takes_nothing_is_waited_for_as_long_as_that_lasts(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    """Given back, the message would be delivered again and again, and the broker parks what comes too often."""
    bus = Full(broker, times=100)
    ladder = Ladder(service="billing", bus=bus, clock=clock, ids=SeededIds(1, clock))
    climbing = asyncio.create_task(ladder.climb(arrival(0), ERROR))
    await hurry(clock, climbing.done)
    await climbing

    assert bus.times == 0
    assert broker.depth("billing.retry.1s") == 1


class Full(MemoryBus):
    """A bus to a broker that is short of memory for a number of times."""

    def __init__(self, broker: MemoryBroker, *, times: int) -> None:
        super().__init__(broker, "billing")
        self.times = times

    async def publish(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        if self.times:
            self.times -= 1
            return [Outcome.HELD] * len(parcels)
        return await super().publish(parcels)


async def test_a_message_that_can_be_put_nowhere_is_not_given_up(
    broker: MemoryBroker, ladder: Ladder, clock: ManualClock
) -> None:
    broker.go_away()
    climbing = asyncio.create_task(ladder.climb(arrival(0), ERROR))
    await hurry(clock, climbing.done)

    with pytest.raises(BusUnavailableError):
        await climbing
