"""What is done again and again in the background."""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from shared.clock import Clock
from shared.messaging.consumer import backoff
from shared.postgres import CONTENTION, is_unavailable

log = structlog.get_logger(__name__)


async def repeat(work: Callable[[], Awaitable[Any]], *, every: float, clock: Clock) -> None:
    """Do something every so many seconds, for ever; outages of the database are waited out."""
    outages = 0
    while True:
        try:
            await work()
            outages = 0
        except Exception as error:
            if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                raise
            outages += 1
            log.warning("mail waits for the database", action="mail_unavailable", error=repr(error))
            await clock.sleep(backoff(outages))
        await clock.sleep(every)
