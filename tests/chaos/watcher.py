"""A subscriber from outside: hears every status through its own durable queue, whatever happens to the broker."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika
import orjson

from shared.messaging.bus import Delivery
from shared.messaging.rabbitmq import RabbitBus
from shared.messaging.topology import STATUS_EXCHANGE

QUEUE = "sub.chaos"

_FINAL = {"completed", "compensated", "abandoned"}
_PREFETCH = 500
_PAUSE_SECONDS = 0.2
_Status = tuple[str, str, str]  # when it came to be, the id of the message, which grows with time, and the status


class Watcher:
    """Keeps each message once, by its id.

    Attributes:
        repeated: how many messages came more than once.
    """

    def __init__(self) -> None:
        self.repeated = 0
        self._seen: set[str] = set()
        self._told: dict[str, list[_Status]] = defaultdict(list)

    def finals(self, workflow_id: str) -> list[str]:
        """Return the final statuses that were told of a workflow."""
        return [status for status in self.path(workflow_id) if status in _FINAL]

    def path(self, workflow_id: str) -> list[str]:
        """Return every status that was told of a workflow, in the order in which it came to be."""
        return [status for _, _, status in sorted(self._told.get(workflow_id, []))]

    @property
    def heard(self) -> int:
        """How many different messages have come."""
        return len(self._seen)

    @property
    def workflows(self) -> set[str]:
        """Everything of which a status was told."""
        return set(self._told)

    def hear(self, delivery: Delivery) -> None:
        """Take a message into account, unless it was heard before."""
        assert delivery.message_id is not None
        if delivery.message_id in self._seen:
            self.repeated += 1
            return
        self._seen.add(delivery.message_id)
        told = orjson.loads(delivery.body)
        if delivery.routing_key.startswith("status."):
            self._told[told["workflowId"]].append((told["occurredAt"], delivery.message_id, told["status"]))


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[Watcher]:
    """Listen to the status exchange for the length of a block."""
    await _declare(url)
    watcher, bus = Watcher(), RabbitBus(url, name="chaos watcher")
    listening = asyncio.create_task(_listen(bus, watcher))
    try:
        yield watcher
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        await bus.close()


async def _declare(url: str) -> None:
    async with await aio_pika.connect(url, timeout=10.0) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(STATUS_EXCHANGE, "#")


async def _listen(bus: RabbitBus, watcher: Watcher) -> None:
    while True:
        with suppress(ConnectionError):
            async with bus.consume(QUEUE, prefetch=_PREFETCH) as consumption:
                while deliveries := await consumption.receive(_PREFETCH):
                    for delivery in deliveries:
                        watcher.hear(delivery)
                    await consumption.acknowledge(deliveries[-1])
        await asyncio.sleep(_PAUSE_SECONDS)
