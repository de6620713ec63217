"""The broker between the services: the in-memory twin, under a scheduler that does whatever a network may do."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import orjson

from shared.messaging.bus import Consumption, Outcome, Parcel
from shared.messaging.event import BATCH
from shared.messaging.topology import STATUS_EXCHANGE, Manifest, exchange_of
from shared.testing.memory_bus import MemoryBroker, MemoryBus, MemoryConsumption
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import Process
from tests.simulation.trace import Trace


@dataclass(frozen=True)
class Fate:
    """What becomes of one parcel.

    Attributes:
        arrivals: after how many seconds a copy arrives, for each copy; none if it is lost.
        answer: after how many seconds its publisher learns something.
        is_confirmed: whether that is what became of it; else it learns only that it cannot know.
        name: for the trace; empty if nothing special happens to it.
    """

    arrivals: tuple[float, ...]
    answer: float
    is_confirmed: bool = True
    name: str = ""


class Troubles(Protocol):
    """What may go wrong with messages."""

    def fate(self, service: str) -> Fate:
        """Choose what becomes of a parcel."""
        ...

    async def accepted(self, service: str) -> None:
        """Go on after the broker has some parcels and their publisher does not know yet; it may crash here."""
        ...


@dataclass
class Tap:
    """What went over the wires, read beside them.

    Attributes:
        said: the events that were handed to the broker, by publishing service.
        routed: the events that the broker has put into the work queue of a service, by that service.
    """

    said: dict[str, set[UUID]] = field(default_factory=dict)
    routed: dict[str, set[UUID]] = field(default_factory=dict)


class Wires:
    """The broker and all connections to it."""

    def __init__(self, manifest: Manifest, clock: Any, loop: VirtualLoop, troubles: Troubles, trace: Trace) -> None:
        self.manifest = manifest
        self.broker = MemoryBroker(manifest, clock)
        self.loop = loop
        self.troubles = troubles
        self.trace = trace
        self.tap = Tap({name: set() for name in manifest.services}, {name: set() for name in manifest.services})
        self.under_way = 0
        self._context = contextvars.copy_context()
        self._listeners = {
            (exchange_of(publisher), key): [each for each in manifest.services if key in manifest.subscribes[each]]
            for publisher, keys in manifest.publishes.items()
            for key in keys
        }

    def outside(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do something in the name of the broker, not of the process that is the occasion for it."""
        return self._context.copy().run(work, *args)

    def carry(self, login: str, parcel: Parcel, fate: Fate, connection: "_Connection") -> asyncio.Future[Outcome]:
        """Send a parcel on its way; return what its publisher will learn."""
        learned: asyncio.Future[Outcome] = self.loop.create_future()
        ids = event_ids(parcel)
        self.tap.said[login] |= ids
        journey = _Journey(self, login, parcel, ids, connection, (connection.breaks, self.broker.breaks))
        for seconds in fate.arrivals:
            self.under_way += 1
            self.loop.call_later(seconds, journey.arrive, context=self._context.copy())
        self.loop.call_later(fate.answer, journey.answer, learned, fate, context=self._context.copy())
        return learned

    def note_routed(self, parcel: Parcel, ids: set[UUID]) -> None:
        """Remember which services have a parcel's events in their queues."""
        for service in self._listeners.get((parcel.exchange, parcel.routing_key), ()):
            self.tap.routed[service] |= ids


class _Connection:
    """A process's connection to the broker: how often it broke, and what it consumes."""

    def __init__(self) -> None:
        self.breaks = 0
        self.consumptions: list[MemoryConsumption] = []


@dataclass(eq=False)
class _Journey:
    """A parcel under way, and its confirm."""

    wires: Wires
    login: str
    parcel: Parcel
    ids: set[UUID]
    connection: _Connection
    breaks: tuple[int, int]
    outcome: Outcome = Outcome.UNKNOWN
    copies: int = 0

    def arrive(self) -> None:
        """Reach the broker, if it is there."""
        wires = self.wires
        wires.under_way -= 1
        if wires.broker.is_away:
            return
        self.copies += 1
        self.outcome = wires.broker.accept(self.login, self.parcel)
        wires.trace.add(self.login, "arrived", self.parcel.routing_key, _shown(self.parcel, self.ids), self.copies)
        if self.outcome is not Outcome.UNROUTABLE:
            wires.note_routed(self.parcel, self.ids)

    def answer(self, learned: asyncio.Future[Outcome], fate: Fate) -> None:
        """Let the publisher learn what its connection lets through."""
        if not learned.done():
            is_clear = fate.is_confirmed and self.breaks == (self.connection.breaks, self.wires.broker.breaks)
            learned.set_result(self.outcome if is_clear else Outcome.UNKNOWN)


class SimulatedBus:
    """One process's bus."""

    def __init__(self, wires: Wires, process: Process) -> None:
        self._wires = wires
        self._process = process
        self._bus = MemoryBus(wires.broker, process.service)
        self._connection = _Connection()
        process.on_death.append(self.cut)

    async def publish(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Publish all parcels; each has its own fate."""
        self._process.require_alive()
        wires, service = self._wires, self._process.service
        if not parcels:
            return []
        learned = []
        for parcel in parcels:
            fate = wires.troubles.fate(service)
            wires.trace.add(service, "publishes", parcel.routing_key, fate.name)
            learned.append(wires.carry(service, parcel, fate, self._connection))
        outcomes = [await each for each in learned]
        await wires.troubles.accepted(service)
        return outcomes

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumption]:
        """Subscribe until the end of the block."""
        self._process.require_alive()
        async with self._bus.consume(queue, prefetch=prefetch) as consumption:
            assert isinstance(consumption, MemoryConsumption)
            self._connection.consumptions.append(consumption)
            try:
                yield consumption
            finally:
                self._connection.consumptions.remove(consumption)

    async def depths(self, queues: Sequence[str]) -> Sequence[int]:
        """Count what nobody has."""
        self._process.require_alive()
        return await self._bus.depths(queues)

    async def check(self) -> None:
        """Return unless the broker is away."""
        self._process.require_alive()
        await self._bus.check()

    async def close(self) -> None:
        """Do nothing: there is no connection to let go of."""

    def cut(self) -> None:
        """Let the connection break: deliveries return to their queue, and what was published has an unknown outcome."""
        self._connection.breaks += 1
        for consumption in self._connection.consumptions:
            consumption.lose("connection closed")
            self._wires.outside(self._wires.broker.unsubscribe, consumption.queue, consumption)


def event_ids(parcel: Parcel) -> set[UUID]:
    """Return the ids of the events that a parcel between services carries; none of what is for others."""
    if parcel.content_type != BATCH or parcel.exchange == STATUS_EXCHANGE or parcel.exchange.endswith(".retry"):
        return set()
    return {UUID(event["id"]) for event in orjson.loads(parcel.body)}


def _shown(parcel: Parcel, ids: set[UUID]) -> str:
    return ",".join(str(each) for each in sorted(ids)) or parcel.message_id
