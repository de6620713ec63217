"""What is done again and again in the background."""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from shared.clock import Clock
from shared.messaging.consumer import backoff
from shared.postgres import CONTENTION, is_unavailable

log = structlog.get_logger(__name__)


async def repeat(
    what: str, work: Callable[[], Awaitable[Any]], rest: Callable[[], Awaitable[None]], *, clock: Clock
) -> None:
    """Do something and rest, in turns, for ever; outages of the service's own database are waited out.

    Args:
        what: the name under which the log has it.
    """
    outages = 0
    while True:
        try:
            await work()
            outages = 0
        except Exception as error:
            if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                raise
            outages += 1
            log.warning("the database is waited for", action=f"{what}_unavailable", error=repr(error))
            await clock.sleep(backoff(outages))
        await rest()
