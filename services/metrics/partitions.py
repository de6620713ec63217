"""How long what is taken of usage events is kept: partitions that are made in time and dropped, keys that expire."""

from datetime import datetime, timedelta
from typing import NoReturn

import structlog

from services.metrics import queries
from shared.clock import Clock
from shared.postgres import CONTENTION, Connection, Pool, is_unavailable, transaction

log = structlog.get_logger(__name__)

RETENTION = timedelta(days=400)
"""How long events are kept after the day on which they happened: a year's bills can be worked out again from them.

Never less than `WINDOW`, or a bill could not be corrected any more for which an event can still come.
"""

WINDOW = timedelta(days=100)
"""For how long after its reception an event that is sent again is known.

No event counts twice within it. A billing month, the grace after its end and the 35 days that an event may be late end
before it does.
"""

_DAYS_BEHIND = 36
_DAYS_AHEAD = 2
_BLOCKS = 128
_BETWEEN_ROUNDS = timedelta(hours=1)
_TICK_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_BETWEEN_FORGETTING = timedelta(days=1)


async def keep_partitions(connection: Connection, *, now: datetime) -> None:
    """Have a partition for each day on which an event that comes now may have happened, for tomorrow and the day after.

    Those of days that are older than `RETENTION` are dropped. Nothing else makes partitions, so tests that record
    events call this first.
    """
    today = now.date()
    days = [today + timedelta(days=day) for day in range(-_DAYS_BEHIND, _DAYS_AHEAD + 1)]
    await queries.partitions.keep(connection, days, oldest=today - RETENTION)


async def forget_keys(pool: Pool, *, now: datetime) -> int:
    """Forget the keys that are older than `WINDOW`, a part of the table at a time; return how many there were."""
    async with transaction(pool) as connection:
        end = await queries.partitions.key_blocks(connection)
    forgotten = 0
    for start in range(0, end, _BLOCKS):
        async with transaction(pool) as connection:
            blocks = range(start, start + _BLOCKS)
            forgotten += await queries.partitions.forget_keys(connection, blocks, received_before=now - WINDOW)
    return forgotten


async def forget_months(pool: Pool, *, now: datetime) -> int:
    """Forget what was used of quotas in months in which no event can have happened that still comes."""
    async with transaction(pool) as connection:
        return await queries.partitions.forget_months(connection, before=(now - WINDOW).date().replace(day=1))


class Keeping:
    """Keeps partitions, keys and months in order as long as the service runs.

    It belongs into the service's ``background`` as ``Keeping(kernel.pool, ports.clock).run``: its first round makes the
    partitions without which no event can be taken.
    """

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._kept_at: datetime | None = None
        self._forgot_at: datetime | None = None

    async def run(self) -> NoReturn:
        """Keep them in order, for ever; an outage is waited out.

        It looks at the clock often: a machine that wakes after days must not refuse usage until an hour has passed.
        """
        while True:
            try:
                if self._kept_at is None or self._clock.now() - self._kept_at >= _BETWEEN_ROUNDS:
                    await self._round()
                await self._clock.sleep(_TICK_SECONDS)
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    raise
                log.warning("usage partitions wait", action="usage_partitions_unavailable", error=repr(error))
                await self._clock.sleep(_RETRY_SECONDS)

    async def _round(self) -> None:
        now = self._clock.now()
        async with transaction(self._pool) as connection:
            await keep_partitions(connection, now=now)
        self._kept_at = now
        if self._forgot_at is None or now - self._forgot_at >= _BETWEEN_FORGETTING:
            keys, months = await forget_keys(self._pool, now=now), await forget_months(self._pool, now=now)
            if keys or months:
                log.info("what has expired is forgotten", action="usage_forgotten", keys=keys, months=months)
            self._forgot_at = now
