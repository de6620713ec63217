"""Who takes what the queue keeps: receives, has it recorded, and only then has it forgotten."""

import asyncio
from collections.abc import Sequence

import structlog

from services.provisioning.drivers import DriverUnavailableError
from services.provisioning.mail.notices import read
from services.provisioning.mail.queue import MOST, Queue, Received
from services.provisioning.mail.recording import Recorder
from shared.clock import Clock
from shared.messaging.consumer import backoff
from shared.postgres import CONTENTION, is_unavailable

log = structlog.get_logger(__name__)

_AT_ONCE = 8
_IDLE_SECONDS, _BUSY_SECONDS = 5, 1


class Reader:
    """Reads a queue: one long poll at a time while it is empty, some at once while it is not.

    Nothing is received while the database is away, so that no message is received in vain so often that its queue puts
    it aside. What can never be recorded is left alone, for the queue to put aside.
    """

    def __init__(self, queue: Queue, recorder: Recorder, *, clock: Clock, idle_seconds: int = _IDLE_SECONDS) -> None:
        self._queue = queue
        self._recorder = recorder
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._is_busy = False

    async def run(self) -> None:
        """Read for ever; outages of Amazon and of the database are waited out."""
        failures = 0
        while True:
            try:
                await self.look()
                failures = 0
            except DriverUnavailableError as error:
                failures += 1
                log.warning("mail events wait for Amazon", action="mail_queue_unavailable", error=str(error))
                await self._clock.sleep(backoff(failures))

    async def look(self) -> int:
        """Take what there is, up to a limit, and return how much was recorded.

        Raises:
            DriverUnavailableError: Amazon gives nothing, or does not forget what was recorded.
        """
        received = await self._receive()
        self._is_busy = len(received) >= MOST
        recorded = await self._record(received) if received else []
        await self._queue.delete(recorded)
        return len(recorded)

    async def _receive(self) -> list[Received]:
        if not self._is_busy:
            return await self._queue.receive(wait_seconds=self._idle_seconds)
        # What one of them has received is not to be lost for a while because another one has failed.
        asked = (self._queue.receive(wait_seconds=_BUSY_SECONDS) for _ in range(_AT_ONCE))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        failures = [each for each in answers if isinstance(each, BaseException)]
        received = [each for answer in answers if not isinstance(answer, BaseException) for each in answer]
        if failures and not received:
            raise failures[0]
        return received

    async def _record(self, received: Sequence[Received]) -> Sequence[Received]:
        """Have messages recorded, however long the database is away, and return those that were."""
        notices = [read(each.body, queued_at=each.queued_at) for each in received]
        outages = 0
        while True:
            try:
                await self._recorder.record(notices)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one must not hold up the others
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    return await self._record_one_by_one(received, error)
                outages += 1
                log.warning("mail events wait for the database", action="mail_unavailable", error=repr(error))
                await self._clock.sleep(backoff(outages))
            else:
                return received

    async def _record_one_by_one(self, received: Sequence[Received], error: Exception) -> Sequence[Received]:
        if len(received) == 1:
            # The error's text could tell what is in it.
            log.error("a mail event is left to its queue", action="mail_not_recorded", error=type(error).__name__)
            return []
        return [done for each in received for done in await self._record([each])]
