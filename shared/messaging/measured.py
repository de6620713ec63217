"""What is measured of messages: what a service takes in, and what it gives to the broker.

No label is a tenant, a workflow or anything else that a client chooses: there are as many types and destinations as the
manifest has.
"""

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.contracts.base import Message
from shared.messaging.bus import Bus, Consumption, Outcome, Parcel
from shared.messaging.event import Event
from shared.postgres import is_transient

_PRIVATE = ".retry"
"""How the name of a service's private exchange ends."""

_OUTCOMES = ("handled", "failed", "interrupted")
_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)


class Handling:
    """What becomes of messages in the handlers of one service.

    Args:
        registry: where ``tenure_handler_seconds``, by type, and ``tenure_inbox_messages_total``, by type and outcome,
            are kept. Messages are counted at each attempt: ``handled``, ``failed`` when their handler raised, and
            ``interrupted`` when the database went away under it. What came twice never gets so far.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._seconds = Histogram(
            "tenure_handler_seconds",
            "How long a batch was in a handler, the barrier included, by each type of message in it.",
            ("type",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._messages = Counter(
            "tenure_inbox_messages",
            "Messages that were new and went into a handler, by type and outcome.",
            ("type", "outcome"),
            registry=registry,
        )
        self._handled: dict[type[Message], _Handled] = {}

    @contextmanager
    def of(self, events: Sequence[Event]) -> Iterator[None]:
        """Measure a block that handles some events together."""
        started = time.perf_counter()
        try:
            yield
        except Exception as error:
            self._note(events, "interrupted" if is_transient(error) else "failed", started)
            raise
        self._note(events, "handled", started)

    def _note(self, events: Sequence[Event], outcome: str, started: float) -> None:
        seconds = time.perf_counter() - started
        for message, count in Tally(type(event.message) for event in events).items():
            handled = self._of_type(message)
            handled.seconds.observe(seconds)
            handled.outcomes[outcome].inc(count)

    def _of_type(self, message: type[Message]) -> "_Handled":
        if message not in self._handled:
            name = message.routing_key()
            # All at once: what a counter's first value comes after nobody can tell, and a rate leaves it out.
            outcomes = {outcome: self._messages.labels(name, outcome) for outcome in _OUTCOMES}
            self._handled[message] = _Handled(self._seconds.labels(name), outcomes)
        return self._handled[message]


@dataclass(frozen=True, slots=True)
class _Handled:
    """What is known of one type of message."""

    seconds: Histogram
    outcomes: Mapping[str, Counter]


class MeasuredBus:
    """A bus, and how much is published through it.

    Args:
        inner: does the work.
        registry: where ``tenure_published_messages_total`` is kept, by destination and outcome. A destination is an
            exchange; of what goes to the service's own queues it is ``parking``, ``retry.<delay>s``, ``work`` or
            ``usage``. These are AMQP messages: between services each is a batch.
    """

    def __init__(self, inner: Bus, registry: CollectorRegistry) -> None:
        self._inner = inner
        self._published = Counter(
            "tenure_published_messages",
            "AMQP messages that were published, by destination and outcome.",
            ("destination", "outcome"),
            registry=registry,
        )
        self._destinations: dict[str, Mapping[Outcome, Counter]] = {}
        self.on_confirmed: Callable[[Parcel], None] = _nothing
        """Called with each parcel that the broker has: once, unless its confirm had been lost."""

    async def publish(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Publish as the inner bus does."""
        outcomes = await self._inner.publish(parcels)
        for parcel, outcome in zip(parcels, outcomes, strict=True):
            self._to(_destination(parcel))[outcome].inc()
            if outcome is Outcome.CONFIRMED:
                self.on_confirmed(parcel)
        return outcomes

    def _to(self, destination: str) -> Mapping[Outcome, Counter]:
        if destination not in self._destinations:
            self._destinations[destination] = {
                each: self._published.labels(destination, each.value) for each in Outcome
            }
        return self._destinations[destination]

    def consume(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[Consumption]:
        """Subscribe as the inner bus does."""
        return self._inner.consume(queue, prefetch=prefetch)

    async def depths(self, queues: Sequence[str]) -> Sequence[int]:
        """Count as the inner bus does."""
        return await self._inner.depths(queues)

    async def check(self) -> None:
        """Return if the inner bus can publish now."""
        await self._inner.check()

    async def close(self) -> None:
        """Close the inner bus."""
        await self._inner.close()


def _destination(parcel: Parcel) -> str:
    return parcel.routing_key if parcel.exchange.endswith(_PRIVATE) else parcel.exchange


def _nothing(_: Parcel) -> None:
    """Tell nobody."""
