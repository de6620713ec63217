"""What is over is deleted: sessions and codes that have expired, and attempts that nobody remembers."""

import structlog

from services.identity import throttle
from services.identity.queries import sessions
from services.identity.queries import throttle as attempts
from shared.clock import Clock
from shared.postgres import CONTENTION, Pool, is_unavailable, transaction

log = structlog.get_logger(__name__)

_SECONDS = 300.0


class Sweeper:
    """Deletes what is over, every few minutes."""

    def __init__(self, pool: Pool, *, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def run(self) -> None:
        """Sweep for ever; an outage is waited out until the next time."""
        while True:
            await self._clock.sleep(_SECONDS)
            try:
                await self.sweep()
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    raise
                log.warning("not swept", action="sweep_unavailable", error=repr(error))

    async def sweep(self) -> None:
        """Delete what is over now."""
        now = self._clock.now()
        async with transaction(self._pool) as connection:
            await sessions.sweep(connection, now=now)
            await attempts.sweep(connection, before=now - throttle.MEMORY)
