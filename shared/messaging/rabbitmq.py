"""The bus on RabbitMQ 3.10 and 4.x.

Plain aio-pika connections under our own supervision: the library's own recovery has left consumers without a
subscription too often (aio-pika#231, #632). Publishing and consuming use connections of their own, because a broker
alarm blocks whole connections.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, PublishError
from aiormq.exceptions import AMQPError as ProtocolError

from shared.messaging.bus import BusUnavailableError, Consumption, Delivery, Outcome, Parcel

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 10
"""A frozen broker is noticed after about twice this; the default of 60 takes minutes."""

_CONNECT_SECONDS = 10.0
_PUBLISH_SECONDS = 15.0
_HELD_SECONDS = 0.25
_WATCH_SECONDS = 10.0
Value = TypeVar("Value")

# The last one comes out of a handshake that the other side ends, such as a proxy whose broker is away.
_BROKEN = (AMQPError, ProtocolError, OSError, TimeoutError, RuntimeError, StopAsyncIteration)


def login_of(url: str) -> str:
    """Return the user name in an AMQP URL."""
    return unquote(urlsplit(url).username or "guest")


class RabbitBus:
    """One service's two connections to RabbitMQ, each made when it is first needed and again when it breaks.

    Args:
        url: ``amqp://login:password@host:port/vhost``.
        name: shown by the broker as the connection's name.
    """

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._login = login_of(url)
        self._publishing: _PublishingLink | None = None
        self._consuming: list[AbstractConnection] = []
        self._opening = asyncio.Lock()

    async def publish(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Publish all parcels over one channel, pipelined, and wait for their confirms."""
        if not parcels:
            return []
        try:
            link = await self._open_publishing()
        except BusUnavailableError:
            return [Outcome.UNKNOWN] * len(parcels)
        outcomes = await link.publish(parcels)
        if Outcome.UNKNOWN in outcomes:
            await self._drop_publishing(link)
        return outcomes

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumption]:
        """Subscribe over a connection of its own, closed at the end."""
        connection = await _connect(self._url, f"{self._name} consuming")
        consumption = _RabbitConsumption(queue)
        try:
            await _guarded(consumption.start(connection, prefetch))
            self._consuming.append(connection)
            yield consumption
            await consumption.cancel()
        finally:
            if connection in self._consuming:
                self._consuming.remove(connection)
            consumption.unwatch()
            await _close(connection)

    async def depths(self, queues: Sequence[str]) -> Sequence[int]:
        """Declare each queue passively, which needs no permission, on a connection that consumes."""
        connection = next((each for each in self._consuming if not each.is_closed), None)
        if connection is None:
            raise BusUnavailableError("nothing is consumed")
        return await _guarded(_depths(connection, queues))

    async def check(self) -> None:
        """Return if the publishing connection is open or can be opened."""
        await self._open_publishing()

    async def close(self) -> None:
        """Close the publishing connection; consumptions close their own."""
        if self._publishing is not None:
            await self._drop_publishing(self._publishing)

    async def _open_publishing(self) -> "_PublishingLink":
        async with self._opening:
            if self._publishing is None or self._publishing.is_closed:
                connection = await _connect(self._url, f"{self._name} publishing")
                try:
                    channel = await _guarded(connection.channel(publisher_confirms=True, on_return_raises=True))
                except BusUnavailableError:
                    await _close(connection)
                    raise
                self._publishing = _PublishingLink(connection, channel, self._login)
            return self._publishing

    async def _drop_publishing(self, link: "_PublishingLink") -> None:
        if self._publishing is link:
            self._publishing = None
        await _close(link.connection)


class _PublishingLink:
    def __init__(self, connection: AbstractConnection, channel: AbstractChannel, login: str) -> None:
        self.connection = connection
        self._channel = channel
        self._login = login
        self._exchanges: dict[str, AbstractExchange] = {}

    @property
    def is_closed(self) -> bool:
        return self.connection.is_closed or self._channel.is_closed

    async def publish(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Publish all parcels; give up at once, and keep the link, where the broker says that it takes nothing.

        Whoever waited then would hold up what he has handled already, and the broker hopes for just that to be settled.
        """
        if await self._is_held():
            return [Outcome.HELD] * len(parcels)
        publishing = [asyncio.create_task(self._publish(parcel)) for parcel in parcels]
        results = asyncio.gather(*publishing, return_exceptions=True)
        # A frozen broker makes aiormq cancel the waiting publish: a CancelledError that nobody asked for.
        otherwise = Outcome.UNKNOWN
        try:
            while not (await asyncio.wait((results,), timeout=_HELD_SECONDS))[0]:
                if await self._is_held():
                    otherwise = Outcome.HELD
                    for each in publishing:
                        each.cancel()
        finally:
            results.cancel()
        return [result if isinstance(result, Outcome) else otherwise for result in results.result()]

    async def _is_held(self) -> bool:
        """Tell whether the broker has said that it takes nothing: ``connection.blocked``."""
        transport = self.connection.transport
        if transport is None:
            return False
        try:
            async with asyncio.timeout(0):
                await transport.connection.ready()
        except TimeoutError:
            return True
        return False

    async def _publish(self, parcel: Parcel) -> Outcome:
        message = aio_pika.Message(
            parcel.body,
            content_type=parcel.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=parcel.message_id,
            user_id=self._login,
            headers=dict(parcel.headers),
        )
        try:
            exchange = await self._exchange(parcel.exchange)
            await exchange.publish(message, parcel.routing_key, mandatory=parcel.mandatory, timeout=_PUBLISH_SECONDS)
        except PublishError:
            return Outcome.UNROUTABLE
        except _BROKEN as error:
            log.warning("publish failed", action="publish_failed", exchange=parcel.exchange, error=str(error))
            return Outcome.UNKNOWN
        return Outcome.CONFIRMED

    async def _exchange(self, name: str) -> AbstractExchange:
        if name not in self._exchanges:
            self._exchanges[name] = await self._channel.get_exchange(name, ensure=False)
        return self._exchanges[name]


class _RabbitConsumption:
    """Deliveries of one queue, kept in the order of arrival until they are received."""

    def __init__(self, queue: str) -> None:
        self._queue_name = queue
        self._arrived: asyncio.Queue[Delivery | BusUnavailableError | None] = asyncio.Queue()
        self._channel: AbstractChannel | None = None
        self._queue: Any = None
        self._tag = ""
        self._watchdog: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self, connection: AbstractConnection, prefetch: int) -> None:
        self._channel = await connection.channel(publisher_confirms=False)
        await self._channel.set_qos(prefetch_count=prefetch, global_=False)
        connection.close_callbacks.add(self._lost("connection closed"))
        self._channel.close_callbacks.add(self._lost("channel closed"))
        underlay = await self._channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(self._lost("cancelled by the broker"))
        self._queue = await self._channel.get_queue(self._queue_name, ensure=False)
        self._tag = await self._queue.consume(self._on_message, timeout=_CONNECT_SECONDS)
        watching = await connection.channel(publisher_confirms=False)
        self._watchdog = asyncio.create_task(self._watch(watching), name=f"watchdog {self._queue_name}")

    async def receive(self, limit: int) -> Sequence[Delivery]:
        deliveries: list[Delivery] = []
        item = await self._arrived.get()
        while True:
            if isinstance(item, BusUnavailableError):
                raise item
            if item is None or self._stopped:
                self._arrived.put_nowait(None)
                return deliveries
            deliveries.append(item)
            if len(deliveries) == limit or self._arrived.empty():
                return deliveries
            item = self._arrived.get_nowait()

    async def acknowledge(self, up_to: Delivery) -> None:
        assert self._channel is not None
        try:
            underlay = await self._channel.get_underlay_channel()
            await underlay.basic_ack(up_to.tag, multiple=True)
        except _BROKEN as error:
            raise BusUnavailableError(str(error)) from error

    def stop(self) -> None:
        self._stopped = True
        self._arrived.put_nowait(None)

    def unwatch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()

    async def cancel(self) -> None:
        with suppress(*_BROKEN, asyncio.CancelledError):
            await self._queue.cancel(self._tag, timeout=_CONNECT_SECONDS)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        assert message.delivery_tag is not None
        self._arrived.put_nowait(
            Delivery(
                tag=message.delivery_tag,
                exchange=message.exchange or "",
                routing_key=message.routing_key or "",
                user_id=message.user_id,
                body=message.body,
                content_type=message.content_type or "",
                message_id=message.message_id,
                headers=message.headers,
                redelivered=bool(message.redelivered),
            )
        )

    def _lost(self, reason: str) -> Callable[..., None]:
        def lost(*_: object) -> None:
            self._arrived.put_nowait(BusUnavailableError(f"{self._queue_name}: {reason}"))

        return lost

    async def _watch(self, channel: AbstractChannel) -> None:
        """Ask the broker now and then whether it still knows this consumer; silence is the worst failure."""
        try:
            while True:
                await asyncio.sleep(_WATCH_SECONDS)
                queue = await channel.declare_queue(self._queue_name, passive=True, timeout=_CONNECT_SECONDS)
                if queue.declaration_result.consumer_count == 0:
                    self._lost("the broker has no consumer")()
                    return
        except _BROKEN as error:
            self._lost(f"watchdog: {str(error) or type(error).__name__}")()


async def _depths(connection: AbstractConnection, queues: Sequence[str]) -> list[int]:
    async with asyncio.timeout(_CONNECT_SECONDS), connection.channel(publisher_confirms=False) as channel:
        found = [await channel.declare_queue(name, passive=True) for name in queues]
    return [each.declaration_result.message_count or 0 for each in found]


async def _connect(url: str, name: str) -> AbstractConnection:
    return await _guarded(
        aio_pika.connect(
            url,
            timeout=_CONNECT_SECONDS,
            client_properties={"connection_name": name},
            heartbeat=HEARTBEAT_SECONDS,
        )
    )


async def _guarded(awaitable: Awaitable[Value]) -> Value:
    try:
        return await awaitable
    except _BROKEN as error:
        raise BusUnavailableError(f"broker: {str(error) or type(error).__name__}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise BusUnavailableError("broker: connection cancelled") from error


async def _close(connection: AbstractConnection) -> None:
    with suppress(*_BROKEN, asyncio.CancelledError):
        async with asyncio.timeout(_CONNECT_SECONDS):
            await connection.close()
