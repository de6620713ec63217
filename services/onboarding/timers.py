"""Timers are rows: whichever replica finds one due lets it take effect, in the transaction that clears it."""

from datetime import timedelta

import structlog

from services.onboarding import queries
from services.onboarding.engine import Engine
from services.onboarding.watch import Watch
from shared.failpoints import failpoint
from shared.messaging import outbox
from shared.postgres import CONTENTION, is_unavailable, transaction
from shared.repeating import repeat
from shared.service import Kernel

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.25
_LIMIT = 200
_POSTPONED_SECONDS = 60.0


class Timers:
    """Looks for steps whose time is up."""

    def __init__(self, kernel: Kernel, engine: Engine, watch: Watch) -> None:
        self._kernel = kernel
        self._engine = engine
        self._watch = watch

    async def run(self) -> None:
        """Look for ever; an outage of the database is waited out, and what was due then is due afterwards."""
        clock = self._kernel.ports.clock
        await repeat("timers", self._work, lambda: clock.sleep(_POLL_SECONDS), clock=clock)

    async def _work(self) -> None:
        while await self.fire() == _LIMIT:
            pass

    async def fire(self) -> int:
        """Let what is due now take effect, up to a limit; return how many workflows that were.

        A workflow that cannot go on is put off by a minute, again and again, and never holds up the others.
        """
        try:
            return await self._fire(_LIMIT)
        except Exception as error:
            if is_unavailable(error) or isinstance(error, CONTENTION):
                raise
            log.exception("timers failed, one by one", action="timers_split")
        return await self._fire_one_by_one()

    async def _fire_one_by_one(self) -> int:
        for fired in range(_LIMIT):
            try:
                if not await self._fire(1):
                    return fired
            except Exception as error:
                if is_unavailable(error) or isinstance(error, CONTENTION):
                    raise
                await self._postpone(error)
        return _LIMIT

    async def _postpone(self, error: Exception) -> None:
        now = self._kernel.ports.clock.now()
        async with transaction(self._kernel.pool) as connection:
            workflow_id = await queries.postpone_first_due(
                connection, now=now, until=now + timedelta(seconds=_POSTPONED_SECONDS)
            )
        log.error("workflow cannot go on", action="timer_postponed", workflow_id=str(workflow_id), error=repr(error))

    async def _fire(self, limit: int) -> int:
        async with transaction(self._kernel.pool) as connection:
            count, outgoing = await self._engine.take_due(connection, limit=limit)
            await failpoint("due_claimed")
            await outbox.insert(connection, outgoing, now=self._kernel.ports.clock.now())
        if count:
            self._watch.wake()
            await self._kernel.relay.send(outgoing)
        return count
