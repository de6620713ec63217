"""From the broker to the recorder: a message is acknowledged when its events are committed, and not before.

One that comes again because it was not counts once. What is refused is parked first, and may be parked twice when the
acknowledgement is lost: sent again, it is judged anew.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

import structlog

from services.metrics.bus.message import Message, failed, read_message, refused
from services.metrics.recording.body import outcomes_of
from services.metrics.recording.event import Reception
from services.metrics.recording.recorder import Outcome, Recorder
from shared.clock import Clock
from shared.http import Problem
from shared.http.body import MAXIMUM_BODY
from shared.messaging.admission import Rejected
from shared.messaging.bus import Bus, Consumption, Delivery
from shared.messaging.consumer import Behind, backoff
from shared.messaging.ladder import Ladder
from shared.messaging.topology import USAGE_QUEUE
from shared.postgres import CONTENTION, is_unavailable

log = structlog.get_logger(__name__)

PREFETCH: Final = 50
"""Messages unsettled at a time; each may have a megabyte, so this bounds the memory of what waits in this process."""

PORTION_EVENTS: Final = 1_000
"""So many events are recorded before another message is read; a message may bring as many, so it is twice at most."""

PORTION_BYTES: Final = MAXIMUM_BODY
"""Of the messages of such a portion, likewise."""


class UsageConsumer:
    """Reads what applications send, for ever.

    It belongs into the service's ``background`` as ``UsageConsumer(…).run``.

    Args:
        recorder: that of HTTP, so that both share its transactions.
        ladder: the service's own, into whose parking goes what is refused.
    """

    def __init__(self, bus: Bus, recorder: Recorder, ladder: Ladder, *, clock: Clock) -> None:
        self._bus = bus
        self._recorder = recorder
        self._ladder = ladder
        self._clock = clock

    async def run(self) -> NoReturn:
        """Consume for ever, subscribing again whenever the broker was away."""
        attempt = 0
        while True:
            try:
                async with self._bus.consume(USAGE_QUEUE, prefetch=PREFETCH) as consumption:
                    attempt = 0
                    await self._pump(consumption)
            except ConnectionError as error:
                attempt += 1
                log.warning("usage waits for the broker", action="usage_consumer_unavailable", error=str(error))
                await self._clock.sleep(backoff(attempt))

    async def _pump(self, consumption: Consumption) -> None:
        """Settle portion after portion; the next one is read while the one before it is recorded."""
        async with Behind(on_failure=consumption.stop) as behind:
            while deliveries := await consumption.receive(PREFETCH):
                for portion in self._portions(deliveries):
                    await behind.run(self._finish(consumption, portion))

    async def _finish(self, consumption: Consumption, portion: Sequence[tuple[Delivery, Message | Rejected]]) -> None:
        await self._settle(portion)
        await consumption.acknowledge(portion[-1][0])

    def _portions(self, deliveries: Sequence[Delivery]) -> Iterator[list[tuple[Delivery, Message | Rejected]]]:
        """Read messages, no more at a time than are recorded together."""
        portion: list[tuple[Delivery, Message | Rejected]] = []
        events = size = 0
        for delivery in deliveries:
            read = read_message(delivery, Reception.at(self._clock.now(), tenant_id=None))
            portion.append((delivery, read))
            events += len(read.sent) if isinstance(read, Message) else 0
            size += len(delivery.body)
            if events >= PORTION_EVENTS or size >= PORTION_BYTES:
                yield portion
                portion, events, size = [], 0, 0
        if portion:
            yield portion

    async def _settle(self, portion: Sequence[tuple[Delivery, Message | Rejected]]) -> None:
        """Record a portion, and park what is not taken of it.

        Raises:
            BusUnavailableError: it could be parked nowhere; it must not be acknowledged.
        """
        parked = [read for _, read in portion if isinstance(read, Rejected)]
        messages = [read for _, read in portion if isinstance(read, Message)]
        for message, became in zip(messages, await self._record(messages), strict=True):
            parked += [failed(message, became)] if isinstance(became, Exception) else refused(message, became)
        if parked:
            await self._ladder.park(*parked)

    async def _record(self, messages: Sequence[Message]) -> Sequence[Sequence[Outcome] | Exception]:
        """Record messages, each as a request of its own, and return what became of each; outages are waited out.

        Those that were taken before an outage are duplicates after it.
        """
        attempt = 0
        while True:
            results = await asyncio.gather(*map(self._try, messages))
            outage = next((each for each in results if isinstance(each, Exception) and _is_outage(each)), None)
            if outage is None:
                return results
            attempt += 1
            log.warning("usage waits for the database", action="usage_unavailable", error=repr(outage))
            await self._clock.sleep(backoff(attempt))

    async def _try(self, message: Message) -> Sequence[Outcome] | Exception:
        try:
            return await outcomes_of(self._recorder, message.sent)
        except Exception as error:
            if not _is_outage(error):
                log.exception("usage failed", action="usage_failed")
            return error


def _is_outage(error: Exception) -> bool:
    """Tell whether something may be recorded later: the database is away, or there is too much to do."""
    return is_unavailable(error) or isinstance(error, (*CONTENTION, Problem))
