"""The broker's twin in memory: the same exchanges, queues, bindings and permissions, and the same failures on demand.

`shared.testing.bus_suite` holds it and `shared.messaging.rabbitmq` to the same behaviour. Whatever waits here waits on
the injected clock, so that a retry ladder of half a minute passes in no time where time is virtual.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from shared.clock import Clock
from shared.messaging.bus import BusUnavailableError, Consumption, Delivery, Outcome, Parcel
from shared.messaging.topology import Manifest, bindings, exchanges, queues, read_by, written_by


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message in a queue.

    Attributes:
        exchange: where it was last published; empty after it came out of a retry queue.
        user_id: the login that published it, wherever the broker moved it since.
        returns: how often it was delivered and not settled.
    """

    exchange: str
    routing_key: str
    user_id: str
    body: bytes
    content_type: str
    message_id: str
    headers: Mapping[str, str | int]
    returns: int = 0


class MemoryBroker:
    """A broker in this process, with the topology that follows from a manifest.

    A login that is named like a service may do what that service may; every other login may do everything.

    Args:
        clock: what delays are measured with.
        latency: seconds that a parcel takes to the broker, and its confirm back; asked anew for each journey.
    """

    def __init__(self, manifest: Manifest, clock: Clock, *, latency: Callable[[], float] = lambda: 0.0) -> None:
        self.clock = clock
        self.latency = latency
        self.is_away = False
        self.breaks = 0
        self._services = manifest.services
        self._exchanges = {each["name"]: _Exchange(each["type"]) for each in exchanges(manifest)}
        self._queues = {each["name"]: _Queue(each["name"], each["arguments"]) for each in queues(manifest)}
        for each in bindings(manifest):
            self.bind(each["source"], each["destination"], each["routing_key"])
        self._expiring: set[asyncio.Task[None]] = set()
        self._back = asyncio.Event()
        self._confirms_to_lose = 0

    def depth(self, queue: str) -> int:
        """Return how many messages a queue holds, those included that are delivered and not yet settled."""
        found = self._queues[queue]
        return len(found.ready) + sum(len(consumer.unsettled) for consumer in found.consumers)

    def ready(self, queues: Sequence[str]) -> Sequence[int]:
        """Return how many messages of each queue nobody has.

        Raises:
            BusUnavailableError: there is no such queue.
        """
        if missing := [queue for queue in queues if queue not in self._queues]:
            raise BusUnavailableError(f"no queue {missing[0]}")
        return [len(self._queues[queue].ready) for queue in queues]

    def messages(self, queue: str) -> Sequence[StoredMessage]:
        """Return the messages of a queue that nobody has, the next one first."""
        return tuple(self._queues[queue].ready)

    def total_depth(self, queues: Sequence[str] | None = None) -> int:
        """Return how many messages all queues hold together, or the named ones."""
        return sum(self.depth(name) for name in (self._queues if queues is None else queues))

    def declare_queue(self, name: str) -> None:
        """Make a queue that the manifest does not have, for a listener from outside."""
        self._queues.setdefault(name, _Queue(name, {}))

    def bind(self, exchange: str, queue: str, pattern: str) -> None:
        """Let messages of an exchange reach a queue; in a topic exchange ``*`` is one word and ``#`` any number."""
        self._exchanges[exchange].bindings.append((pattern.split("."), queue))

    def break_connections(self) -> None:
        """Cut every connection: consumptions end, publishes on their way have an unknown outcome."""
        self.breaks += 1
        lost = [consumer for queue in self._queues.values() for consumer in queue.consumers]
        for consumer in lost:  # all before any: nobody gets what another has just lost
            consumer.lose("connection closed")
        for consumer in lost:
            self.unsubscribe(consumer.queue, consumer)

    def go_away(self) -> None:
        """Stop serving, as after a crash: connections break, none can be made; what was confirmed stays."""
        self.is_away = True
        self._back.clear()
        self.break_connections()

    def come_back(self) -> None:
        """Serve again."""
        self.is_away = False
        self._back.set()

    def lose_confirms(self, count: int) -> None:
        """Let the next ``count`` parcels arrive without their publishers learning of it."""
        self._confirms_to_lose = count

    async def close(self) -> None:
        """Forget the delays that are still running."""
        for task in self._expiring:
            task.cancel()
        await asyncio.gather(*self._expiring, return_exceptions=True)

    def may_write(self, login: str, exchange: str) -> bool:
        """Tell whether a login may publish to an exchange."""
        return exchange in self._exchanges and (login not in self._services or exchange in written_by(login))

    def may_read(self, login: str, queue: str) -> bool:
        """Tell whether a login may consume from a queue."""
        return queue in self._queues and (login not in self._services or queue in read_by(login))

    def accept(self, login: str, parcel: Parcel) -> Outcome:
        """Take a parcel from a connection of a login into every queue that is bound for it."""
        if not self.may_write(login, parcel.exchange):
            return Outcome.UNKNOWN
        message = StoredMessage(
            exchange=parcel.exchange,
            routing_key=parcel.routing_key,
            user_id=login,
            body=parcel.body,
            content_type=parcel.content_type,
            message_id=parcel.message_id,
            headers=dict(parcel.headers),
        )
        if not self._route(message) and parcel.mandatory:
            return Outcome.UNROUTABLE
        if self._confirms_to_lose:
            self._confirms_to_lose -= 1
            return Outcome.UNKNOWN
        return Outcome.CONFIRMED

    def subscribe(self, queue: str, consumer: "MemoryConsumption") -> None:
        """Give a consumption its share of a queue's messages."""
        found = self._queues[queue]
        found.consumers.append(consumer)
        found.hand_out()

    def settle(self, queue: str) -> None:
        """Hand out more after a consumption has settled some."""
        self._queues[queue].hand_out()

    def unsubscribe(self, queue: str, consumer: "MemoryConsumption") -> None:
        """End a consumption's share; what it has not settled returns, and dies after too many returns."""
        found = self._queues[queue]
        if consumer not in found.consumers:
            return
        found.consumers.remove(consumer)
        returned = [replace(message, returns=message.returns + 1) for message in consumer.unsettled.values()]
        consumer.unsettled.clear()
        dead = [message for message in returned if found.is_exhausted(message)]
        found.ready.extendleft(message for message in reversed(returned) if not found.is_exhausted(message))
        for message in dead:
            self._dead_letter(found, message)
        found.hand_out()

    def _route(self, message: StoredMessage) -> bool:
        names = self._targets(message.exchange, message.routing_key)
        for name in names:
            self._put(self._queues[name], message)
        return bool(names)

    def _targets(self, exchange: str, routing_key: str) -> list[str]:
        if exchange == "":
            return [routing_key] if routing_key in self._queues else []
        return self._exchanges[exchange].targets(routing_key)

    def _put(self, queue: "_Queue", message: StoredMessage) -> None:
        queue.ready.append(message)
        queue.hand_out()
        if queue.ttl is not None:
            task = asyncio.get_running_loop().create_task(self._expire(queue, message), name=f"ttl of {queue.name}")
            self._expiring.add(task)
            task.add_done_callback(self._expiring.discard)

    async def _expire(self, queue: "_Queue", message: StoredMessage) -> None:
        assert queue.ttl is not None
        await self.clock.sleep(queue.ttl)
        while self.is_away:
            await self._back.wait()
        with suppress(ValueError):  # somebody consumed it
            queue.ready.remove(message)
            self._dead_letter(queue, message)

    def _dead_letter(self, queue: "_Queue", message: StoredMessage) -> None:
        if queue.dead_letter_exchange is not None:
            self._route(
                replace(message, exchange=queue.dead_letter_exchange, routing_key=queue.dead_letter_key, returns=0)
            )


class MemoryBus:
    """One login's view of a `MemoryBroker`; the twin of `shared.messaging.rabbitmq.RabbitBus`."""

    def __init__(self, broker: MemoryBroker, login: str) -> None:
        self._broker = broker
        self._login = login
        self._consuming: list[MemoryConsumption] = []

    async def publish(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Publish all parcels in their order; each travels to the broker and its confirm travels back."""
        broker = self._broker
        breaks = broker.breaks
        await broker.clock.sleep(broker.latency())
        if broker.is_away or broker.breaks != breaks:
            return [Outcome.UNKNOWN] * len(parcels)
        outcomes = [broker.accept(self._login, parcel) for parcel in parcels]
        await broker.clock.sleep(broker.latency())
        return outcomes if broker.breaks == breaks else [Outcome.UNKNOWN] * len(parcels)

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumption]:
        """Subscribe until the end of the block."""
        await self._broker.clock.sleep(self._broker.latency())
        await self.check()
        if not self._broker.may_read(self._login, queue):
            raise BusUnavailableError(f"{self._login} may not read {queue}")
        consumption = MemoryConsumption(self._broker, queue, prefetch)
        self._broker.subscribe(queue, consumption)
        self._consuming.append(consumption)
        try:
            yield consumption
        finally:
            self._consuming.remove(consumption)
            self._broker.unsubscribe(queue, consumption)

    async def depths(self, queues: Sequence[str]) -> Sequence[int]:
        """Count what nobody has."""
        broker = self._broker
        await broker.clock.sleep(broker.latency())
        await self.check()
        if all(each.is_lost for each in self._consuming):
            raise BusUnavailableError("nothing is consumed")
        return broker.ready(queues)

    async def check(self) -> None:
        """Return unless the broker is away."""
        if self._broker.is_away:
            raise BusUnavailableError("the broker is away")

    async def close(self) -> None:
        """Do nothing: there is no connection to let go of."""


class MemoryConsumption:
    """A running subscription, made by `MemoryBus.consume`.

    Attributes:
        queue: the name of the queue that it reads.
        unsettled: by delivery tag, in the order of delivery.
    """

    def __init__(self, broker: MemoryBroker, queue: str, prefetch: int) -> None:
        self.unsettled: dict[int, StoredMessage] = {}
        self._broker = broker
        self.queue = queue
        self._prefetch = prefetch
        self._arrived: asyncio.Queue[Delivery | BusUnavailableError | None] = asyncio.Queue()
        self._tags = 0
        self._lost: BusUnavailableError | None = None
        self._stopped = False

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone."""
        return self._lost is not None

    @property
    def has_room(self) -> bool:
        """Whether another delivery may be on its way before one is settled."""
        return self._lost is None and len(self.unsettled) < self._prefetch

    def deliver(self, message: StoredMessage) -> None:
        """Take one message from the broker."""
        self._tags += 1
        self.unsettled[self._tags] = message
        self._arrived.put_nowait(
            Delivery(
                tag=self._tags,
                exchange=message.exchange,
                routing_key=message.routing_key,
                user_id=message.user_id,
                body=message.body,
                content_type=message.content_type,
                message_id=message.message_id,
                headers=message.headers,
                redelivered=message.returns > 0,
            )
        )

    def lose(self, reason: str) -> None:
        """Hear that the connection is gone; the broker takes back what is unsettled."""
        self._lost = BusUnavailableError(f"{self.queue}: {reason}")
        self._arrived.put_nowait(self._lost)

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Wait for a delivery, then take what else has already arrived, up to ``limit``; empty after `stop`."""
        deliveries: list[Delivery] = []
        while not self._stopped and len(deliveries) < limit and not (deliveries and self._arrived.empty()):
            item = await self._arrived.get()
            if isinstance(item, BusUnavailableError):
                raise item
            if item is not None:
                deliveries.append(item)
        return deliveries

    async def acknowledge(self, up_to: Delivery) -> None:
        """Settle this delivery and all before it."""
        if self._lost is not None:
            raise self._lost
        for tag in [tag for tag in self.unsettled if tag <= up_to.tag]:
            del self.unsettled[tag]
        self._broker.settle(self.queue)

    def stop(self) -> None:
        """End the next `receive`."""
        self._stopped = True
        self._arrived.put_nowait(None)


@dataclass
class _Exchange:
    kind: str
    bindings: list[tuple[list[str], str]] = field(default_factory=list)

    def targets(self, routing_key: str) -> list[str]:
        """Name each queue once, however many of its bindings match."""
        words = routing_key.split(".")
        matches = _matches if self.kind == "topic" else list.__eq__
        return list(dict.fromkeys(queue for pattern, queue in self.bindings if matches(pattern, words)))


class _Queue:
    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.name = name
        self.ready: deque[StoredMessage] = deque()
        self.consumers: deque[MemoryConsumption] = deque()
        ttl = arguments.get("x-message-ttl")
        self.ttl: float | None = None if ttl is None else ttl / 1000
        self.dead_letter_exchange: str | None = arguments.get("x-dead-letter-exchange")
        self.dead_letter_key: str = arguments.get("x-dead-letter-routing-key", "")
        self._delivery_limit: int | None = arguments.get("x-delivery-limit")

    def is_exhausted(self, message: StoredMessage) -> bool:
        return self._delivery_limit is not None and message.returns > self._delivery_limit

    def hand_out(self) -> None:
        """Deliver in turn to the consumers that have room."""
        while self.ready and any(consumer.has_room for consumer in self.consumers):
            while not self.consumers[0].has_room:
                self.consumers.rotate(-1)
            self.consumers[0].deliver(self.ready.popleft())
            self.consumers.rotate(-1)


def _matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Match a routing key against a topic pattern (AMQP 0-9-1, section 3.1.3.3)."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_matches(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in {"*", words[0]} and _matches(pattern[1:], words[1:])
