"""Logins end by themselves; what they leave behind is removed in the background."""

import structlog

from services.provisioning.drivers.port import PoolDriver
from shared.clock import Clock
from shared.postgres import is_unavailable

log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 60.0


async def sweep_expired_logins(driver: PoolDriver, clock: Clock) -> None:
    """Drop expired logins every minute, for ever; an outage of the database is waited out."""
    while True:
        try:
            if swept := await driver.sweep_logins():
                log.info("expired logins dropped", action="logins_swept", count=swept)
        except Exception as error:
            if not is_unavailable(error):
                raise
            log.warning("expired logins stay for now", action="logins_not_swept", error=repr(error))
        await clock.sleep(_SWEEP_SECONDS)
