"""What ends by itself leaves something behind: it is removed in the background."""

from collections.abc import Awaitable, Callable

import structlog

from services.provisioning.drivers import DriverUnavailableError
from shared.clock import Clock
from shared.postgres import CONTENTION, is_unavailable

log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 60.0


async def sweep_every_minute(what: str, sweep: Callable[[], Awaitable[int]], clock: Clock) -> None:
    """Remove what has expired every minute, for ever; an outage is waited out.

    Args:
        what: the name under which the log has it.
        sweep: removes it and returns how many there were.
    """
    while True:
        try:
            if swept := await sweep():
                log.info("swept", action=f"{what}_swept", count=swept)
        except Exception as error:
            if not (is_unavailable(error) or isinstance(error, (*CONTENTION, DriverUnavailableError))):
                raise
            log.warning("not swept for now", action=f"{what}_not_swept", error=repr(error))
        await clock.sleep(_SWEEP_SECONDS)
