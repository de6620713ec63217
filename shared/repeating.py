"""What a service does again and again in the background."""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import structlog

from shared.clock import Clock
from shared.messaging.consumer import backoff
from shared.postgres import is_transient

log = structlog.get_logger(__name__)


async def repeat(
    what: str,
    work: Callable[[], Awaitable[Any]],
    rest: Callable[[], Awaitable[None]],
    *,
    clock: Clock,
    awaited: tuple[type[Exception], ...] = (),
) -> NoReturn:
    """Do something and rest, in turns, for ever; outages of the service's own database are waited out.

    Args:
        what: the name under which the log has it.
        awaited: what else is waited out.
    """
    outages = 0
    while True:
        try:
            await work()
            outages = 0
        except Exception as error:
            if not (is_transient(error) or isinstance(error, awaited)):
                raise
            outages += 1
            log.warning("what is away is waited for", action=f"{what}_unavailable", error=repr(error))
            await clock.sleep(backoff(outages))
        await rest()


async def repeat_rounds(
    what: str, work: Callable[[], Awaitable[int]], rest: Callable[[], Awaitable[None]], *, clock: Clock
) -> NoReturn:
    """Do rounds until one has found nothing to do, and rest, in turns, for ever, as `repeat` does.

    Args:
        work: does a round, and returns how much there was to do.
    """

    async def exhaust() -> None:
        while await work():
            pass

    await repeat(what, exhaust, rest, clock=clock)
