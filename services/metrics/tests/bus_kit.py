"""An application that publishes usage, and the part of the service that reads it, as the tests of the bus have them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aio_pika
import orjson
from aio_pika.abc import AbstractChannel

from deploy.parking import Parked, open_parking
from services.metrics.bus.consumer import UsageConsumer
from services.metrics.recording.body import EVENT
from services.metrics.recording.recorder import Recorder
from services.metrics.tests.support import quotas_of
from shared.clock import Clock, SystemClock
from shared.ids import TimeOrderedIds
from shared.messaging.bus import Bus
from shared.messaging.ladder import Ladder
from shared.messaging.rabbitmq import RabbitBus
from shared.messaging.topology import USAGE_EXCHANGE, USAGE_QUEUE, Manifest, parking_queue_of
from shared.postgres import Pool

MANIFEST = Manifest.of(publishes={"metrics": ()}, subscribes={"metrics": ()})
"""Of metrics alone: nothing is bound on the common broker that other tests would notice."""

PUBLISHER = "shop"
"""The login of the application."""

PUBLISHES_USAGE = {"user": PUBLISHER, "vhost": "/", "configure": "^$", "write": r"^tenure\.usage$", "read": "^$"}
"""What it may do: `docs/metering.md` tells operators to allow it this."""


@dataclass
class Site:
    """A broker with an application, the service's login, and an administrator who looks.

    Attributes:
        url: of the service's login.
        shop_url: of the application's.
    """

    url: str
    shop_url: str
    admin: AbstractChannel

    async def send(self, sent: Any, content_type: str = EVENT, **properties: Any) -> None:
        """Publish a message as the application, and return when the broker has it."""
        body = sent if isinstance(sent, bytes) else orjson.dumps(sent)
        async with await aio_pika.connect(self.shop_url) as connection:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            exchange = await channel.get_exchange(USAGE_EXCHANGE, ensure=False)
            message = aio_pika.Message(body, content_type=content_type, **properties)
            await exchange.publish(message, "shop", mandatory=True)

    async def waiting(self, queue: str = USAGE_QUEUE) -> int:
        """Return how many messages of a queue nobody has."""
        found = await self.admin.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0

    async def is_parked(self, count: int) -> bool:
        """Tell whether so many messages are parked."""
        return await self.waiting(parking_queue_of("metrics")) == count

    async def parked(self) -> Sequence[tuple[Parked, Sequence[dict[str, Any]]]]:
        """Return what is parked and the events in it; it stays there."""
        async with open_parking("metrics", self.url) as parking:
            return [(each, each.events()) async for each in parking.messages()]

    async def replay(self) -> None:
        """Send everything again that is parked, as an operator does."""
        async with open_parking("metrics", self.url) as parking:
            async for each in parking.messages():
                await parking.replay(each)


@asynccontextmanager
async def consuming(pool: Pool, url: str, *, clock: Clock | None = None) -> AsyncIterator[None]:
    """Consume for a block, then end as a process does that is killed."""
    bus = RabbitBus(url, name="test metrics")
    try:
        async with consuming_from(bus, Recorder(pool, quotas_of(clock or SystemClock()), clock=clock or SystemClock())):
            yield
    finally:
        await bus.close()


@asynccontextmanager
async def consuming_from(bus: Bus, recorder: Recorder, *, clock: Clock | None = None) -> AsyncIterator[None]:
    """Consume from a bus for a block."""
    clock = clock or SystemClock()
    ladder = Ladder(service="metrics", bus=bus, clock=clock, ids=TimeOrderedIds())
    running = asyncio.create_task(UsageConsumer(bus, recorder, ladder, clock=clock).run())
    try:
        yield
    finally:
        assert not running.done(), running
        for task in (running, *getattr(recorder, "_tasks", ())):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
