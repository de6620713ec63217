"""The two places where `shared.testing.bus_suite` is played: a broker in memory, and a real one."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel

from shared.clock import ManualClock
from shared.messaging.bus import Bus, Outcome, Parcel
from shared.messaging.rabbitmq import RabbitBus
from shared.messaging.topology import queues
from shared.testing.eventually import eventually
from shared.testing.memory_bus import MemoryBroker, MemoryBus
from shared.testing.three_services import MANIFEST
from shared.testing.wire import Wire

_OUTSIDER = "outsider"


class MemorySite:
    """A broker in memory, on a clock that the suite moves."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker(MANIFEST, self.clock)

    def bus(self, login: str) -> Bus:
        """Return a bus for a login."""
        return MemoryBus(self.broker, login)

    def outsider(self) -> Bus:
        """Return the bus of a login that is no service."""
        return self.bus(_OUTSIDER)

    async def ready(self, queue: str) -> int:
        """Count the messages of a queue that nobody has."""
        return len(self.broker.messages(queue))

    async def listen(self, exchange: str, pattern: str) -> str:
        """Make a queue and bind it."""
        name = f"sub.{uuid4()}"
        self.broker.declare_queue(name)
        self.broker.bind(exchange, name, pattern)
        return name

    async def pass_time(self, seconds: float) -> None:
        """Advance the clock."""
        await self.clock.advance(seconds)

    def cut(self) -> None:
        """Break all connections."""
        self.broker.break_connections()

    def go_away(self) -> None:
        """Break all connections and take no new ones."""
        self.broker.go_away()

    async def come_back(self) -> None:
        """Take connections again."""
        self.broker.come_back()

    async def publish_unheard(self, login: str, parcel: Parcel) -> Outcome:
        """Publish without hearing of the arrival."""
        self.broker.lose_confirms(1)
        [outcome] = await self.bus(login).publish([parcel])
        return outcome


class RabbitSite:
    """A real broker behind a wire that can be cut.

    Args:
        wire: between the buses and the broker.
        urls: the broker's URL for each login.
        channel: the administrator's, beside the wire.
        admin_url: of the administrator.
    """

    def __init__(self, wire: Wire, urls: Mapping[str, str], channel: AbstractChannel, admin_url: str) -> None:
        self.wire = wire
        self._urls = {**urls, _OUTSIDER: admin_url}
        self._channel = channel
        self._buses: dict[str, RabbitBus] = {}

    def bus(self, login: str) -> RabbitBus:
        """Return a bus for a login, with connections of its own."""
        if login not in self._buses:
            self._buses[login] = RabbitBus(self.url(login), name=f"test {login}")
        return self._buses[login]

    def url(self, login: str) -> str:
        """Return the URL of a login, through the wire."""
        return self.wire.through(self._urls[login])

    def outsider(self) -> Bus:
        """Return the administrator's bus."""
        return self.bus(_OUTSIDER)

    async def ready(self, queue: str) -> int:
        """Count the messages of a queue that nobody has."""
        found = await self._channel.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0

    async def listen(self, exchange: str, pattern: str) -> str:
        """Make a queue that ends with the test, and bind it."""
        queue = await self._channel.declare_queue(f"sub.{uuid4()}", auto_delete=True)
        await queue.bind(exchange, pattern)
        return queue.name

    async def pass_time(self, seconds: float) -> None:
        """Do nothing: here time passes by itself, and readers wait for it."""

    def cut(self) -> None:
        """Break all connections."""
        self.wire.cut()

    def go_away(self) -> None:
        """Break all connections and take no new ones."""
        self.wire.break_off()

    async def come_back(self) -> None:
        """Take connections again."""
        await self.wire.mend()

    async def publish_unheard(self, login: str, parcel: Parcel) -> Outcome:
        """Publish, and cut the wire when the parcel is in the queue."""
        bus = self.bus(login)
        await bus.check()
        self.wire.hold_answers()
        publishing = asyncio.create_task(bus.publish([parcel]))

        async def has_arrived() -> bool:
            return await self.ready("billing.work") == 1

        await eventually(has_arrived, describe="the parcel is in the queue")
        self.cut()
        [outcome] = await publishing
        return outcome

    async def delete_queue(self, queue: str) -> None:
        """Take a queue away from whoever reads it."""
        await self._channel.queue_delete(queue)

    async def close(self) -> None:
        """Close what was opened, and empty the queues for the next test."""
        for bus in self._buses.values():
            await bus.close()
        for each in queues(MANIFEST):
            queue = await self._channel.get_queue(each["name"], ensure=False)
            await queue.purge()


@asynccontextmanager
async def rabbit_site(admin_url: str, urls: Mapping[str, str]) -> AsyncIterator[RabbitSite]:
    """Open a site on a broker that has the topology and the logins of `MANIFEST`.

    Args:
        admin_url: a login that may do everything.
        urls: the URL of each service's login.
    """
    async with (
        await aio_pika.connect(admin_url) as connection,
        connection.channel() as channel,
        Wire(admin_url) as wire,
    ):
        site = RabbitSite(wire, urls, channel, admin_url)
        yield site
        await wire.mend()
        await site.close()
