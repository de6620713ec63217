"""The broker as a port: what the kernel needs of one, and nothing more.

Two things pass the same suite (`shared.testing.bus_suite`): RabbitMQ (`shared.messaging.rabbitmq`) and the in-memory
twin (`shared.testing.memory_bus`).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class BusUnavailableError(ConnectionError):
    """The broker is away, or took the subscription away. Whatever was not acknowledged is delivered again."""


class Outcome(Enum):
    """What became of a published message."""

    CONFIRMED = "confirmed"
    """The broker has it, safely."""
    UNROUTABLE = "unroutable"
    """It was mandatory and no queue is bound for it."""
    UNKNOWN = "unknown"
    """Timed out, refused or cut off: it may have arrived. Publish it again under the same id."""
    HELD = "held"
    """The broker takes nothing for want of memory or disk. It may arrive when that is over; publish it again then."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One AMQP message on its way to the broker: persistent, signed with the publisher's login.

    Attributes:
        message_id: no two parcels in flight have the same.
        mandatory: whether a parcel that reaches no queue is a mistake.
    """

    exchange: str
    routing_key: str
    body: bytes
    content_type: str
    message_id: str
    headers: Mapping[str, str | int] = field(default_factory=dict)
    mandatory: bool = True


@dataclass(frozen=True, slots=True)
class Delivery:
    """One AMQP message from the broker, unsettled until it is acknowledged.

    Attributes:
        tag: grows with each delivery of one consumption.
        exchange: where it was published; empty after the broker itself moved it from a retry queue.
        user_id: the login that published it, as checked by the broker.
        redelivered: whether somebody had it before and did not settle it.
    """

    tag: int
    exchange: str
    routing_key: str
    user_id: str | None
    body: bytes
    content_type: str
    message_id: str | None
    headers: Mapping[str, object]
    redelivered: bool


class Consumption(Protocol):
    """A running subscription to one queue."""

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Wait for a delivery, then take what else has already arrived, up to ``limit``; empty after `stop`.

        Raises:
            BusUnavailableError: the subscription is gone.
        """
        ...

    async def acknowledge(self, up_to: Delivery) -> None:
        """Settle this delivery and all before it.

        Raises:
            BusUnavailableError: the subscription is gone; they are delivered again.
        """
        ...

    def stop(self) -> None:
        """End the next `receive`; what was not received goes back to the queue."""
        ...


class Bus(Protocol):
    """A broker, seen by one login."""

    async def publish(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Publish all at once and wait until the fate of each is known; never raises for a broker that is away."""
        ...

    def consume(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[Consumption]:
        """Subscribe to a queue; at most ``prefetch`` deliveries are unsettled at a time.

        Raises:
            BusUnavailableError: the broker is away or refuses.
        """
        ...

    async def depths(self, queues: Sequence[str]) -> Sequence[int]:
        """Count the messages of each queue that nobody has; what is delivered and not settled is not among them.

        Only while something is consumed: a broker that runs full stops reading from whoever publishes, and answers
        only those who do not.

        Raises:
            BusUnavailableError: the broker is away, has no such queue or does not tell, or nothing is consumed.
        """
        ...

    async def check(self) -> None:
        """Return if messages can be published now.

        Raises:
            BusUnavailableError: they cannot.
        """
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...
