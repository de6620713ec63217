"""Timers are rows: whichever replica finds one due lets it take effect, in the transaction that clears it."""

import structlog

from services.onboarding.engine import Engine
from services.onboarding.watch import Watch
from shared.failpoints import failpoint
from shared.messaging import outbox
from shared.postgres import CONTENTION, is_unavailable, transaction
from shared.service import Kernel

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.25
_LIMIT = 200


class Timers:
    """Looks for steps whose time is up."""

    def __init__(self, kernel: Kernel, engine: Engine, watch: Watch) -> None:
        self._kernel = kernel
        self._engine = engine
        self._watch = watch

    async def run(self) -> None:
        """Look for ever; an outage of the database is waited out, and what was due then is due afterwards."""
        while True:
            try:
                while await self.fire() == _LIMIT:
                    pass
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    raise
                log.warning("timers wait for the database", action="timers_unavailable", error=repr(error))
            await self._kernel.ports.clock.sleep(_POLL_SECONDS)

    async def fire(self) -> int:
        """Let what is due now take effect, up to a limit; return how many workflows that were."""
        async with transaction(self._kernel.pool) as connection:
            count, outgoing = await self._engine.take_due(connection, limit=_LIMIT)
            await failpoint("due_claimed")
            await outbox.insert(connection, outgoing, now=self._kernel.ports.clock.now())
        if count:
            self._watch.wake()
            await self._kernel.relay.send(outgoing)
        return count
