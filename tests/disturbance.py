"""Messages that come twice, late and in another order: a bus that does on purpose what a network does now and then."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson

from deploy.local.system import SERVICES, told
from shared.messaging.bus import Bus, Consumption, Outcome, Parcel
from shared.messaging.event import BATCH, join_batch, parse_batch
from shared.messaging.rabbitmq import RabbitBus

_AGAIN_SECONDS = 0.05


@dataclass
class Traffic:
    """What was done to the messages of a block.

    Attributes:
        events: how many different messages there were.
        deliveries: how many were handed to the broker.
        overtaken: how many came, at their first copy, after a message that was said later on the same exchange.
        overtaken_in_step: how many came after one that was said later of the same workflow step, such as its undo.
    """

    events: int = 0
    deliveries: int = 0
    overtaken: int = 0
    overtaken_in_step: int = 0


class Disturbance:
    """Off, it passes everything on as it is. In a block of `striking` every event travels alone, twice, and late."""

    def __init__(self) -> None:
        self._random: random.Random | None = None
        self._longest = 0.0
        self._traffic = Traffic()
        self._latest: dict[tuple[str, ...], int] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def is_striking(self) -> bool:
        """Whether messages are disturbed now."""
        return self._random is not None

    @asynccontextmanager
    async def striking(self, seed: int, *, longest: float) -> AsyncIterator[Traffic]:
        """Disturb all messages of a block; at its end wait until the last copy was delivered.

        Args:
            seed: determines each delay.
            longest: seconds that a copy may be late.
        """
        self._random, self._longest = random.Random(seed), longest
        self._traffic, self._latest = Traffic(), {}
        try:
            yield self._traffic
        finally:
            await self.settle()
            self._random = None

    async def settle(self) -> None:
        """Wait until everything that is under way has been delivered."""
        while self._under_way:
            await asyncio.gather(*self._under_way)

    def take(self, bus: Bus, parcel: Parcel) -> None:
        """Take over a parcel: deliver each of its events by itself and twice, sooner or later."""
        for event in parse_batch(parcel.body):
            self._traffic.events += 1
            number = self._traffic.events
            single = replace(parcel, body=join_batch([orjson.dumps(event)]), message_id=event["id"])
            task = asyncio.create_task(self._deliver_twice(bus, single, number, event), name=f"delivery {number}")
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _deliver_twice(self, bus: Bus, parcel: Parcel, number: int, event: Mapping[str, Any]) -> None:
        first, second = self._delay(), self._delay()
        await asyncio.sleep(first)
        self._note(number, event, parcel.exchange)
        await self._deliver(bus, parcel)
        await asyncio.sleep(second)
        await self._deliver(bus, parcel)

    def _delay(self) -> float:
        """Make most delays short and some long: the long ones are overtaken by what follows from the short ones."""
        assert self._random is not None
        return self._longest * self._random.random() ** 3

    def _note(self, number: int, event: Mapping[str, Any], exchange: str) -> None:
        self._traffic.overtaken += self._is_late((exchange,), number)
        if "workflowstep" in event:
            place = (exchange, event["correlationid"], event["workflowstep"])
            self._traffic.overtaken_in_step += self._is_late(place, number)

    def _is_late(self, place: tuple[str, ...], number: int) -> bool:
        latest = self._latest.get(place, 0)
        self._latest[place] = max(latest, number)
        return number < latest

    async def _deliver(self, bus: Bus, parcel: Parcel) -> None:
        self._traffic.deliveries += 1
        while True:
            (outcome,) = await bus.publish([parcel])
            if outcome is not Outcome.UNKNOWN:
                return
            await asyncio.sleep(_AGAIN_SECONDS)


class DisturbedBus:
    """A bus whose parcels between services are subjected to a disturbance; what is for outsiders passes."""

    def __init__(self, inner: Bus, disturbance: Disturbance) -> None:
        self._inner = inner
        self._disturbance = disturbance

    async def publish(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Publish; a parcel that is taken over counts as confirmed, because it will arrive."""
        if not self._disturbance.is_striking:
            return await self._inner.publish(parcels)
        passed = [parcel for parcel in parcels if parcel.content_type != BATCH]
        outcomes = iter(await self._inner.publish(passed))
        for parcel in parcels:
            if parcel.content_type == BATCH:
                self._disturbance.take(self._inner, parcel)
        return [Outcome.CONFIRMED if parcel.content_type == BATCH else next(outcomes) for parcel in parcels]

    def consume(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[Consumption]:
        """Subscribe, undisturbed."""
        return self._inner.consume(queue, prefetch=prefetch)

    async def depths(self, queues: Sequence[str]) -> Sequence[int]:
        """Count what nobody has."""
        return await self._inner.depths(queues)

    async def check(self) -> None:
        """Return if messages can be published now."""
        await self._inner.check()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._inner.close()


def rabbit_buses(environment: Mapping[str, Mapping[str, str]], disturbance: Disturbance) -> Callable[[str], Bus]:
    """Return what makes each service's bus on RabbitMQ, with the service's own login, subject to a disturbance."""

    def bus(service: str) -> Bus:
        settings = told(SERVICES[service][1], environment[service])
        return DisturbedBus(RabbitBus(settings.broker_url, name=f"tenure {service}"), disturbance)

    return bus
