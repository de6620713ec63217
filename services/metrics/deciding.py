"""What somebody decides at this service: it keeps the audit trail itself, so nobody has to be told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from services.metrics import audit
from shared.audit import Decider, Details, decision
from shared.clock import Clock
from shared.contracts.base import Decision
from shared.ids import Ids
from shared.postgres import Connection, Pool, transaction


class MetricsDecision(Decision):
    """Somebody has decided something at the metrics service; never a message."""

    owner = "metrics"


class Act:
    """What is being decided, and its transaction.

    Attributes:
        connection: in its transaction.
        now: when it is decided.
        asker: who decides.
        decisions: what goes into the audit trail with it.
    """

    def __init__(self, connection: Connection, asker: Decider, clock: Clock, ids: Ids) -> None:
        self.connection = connection
        self.asker = asker
        self.now: datetime = clock.now()
        self.decisions: list[Decision] = []
        self._clock = clock
        self._ids = ids

    def new_id(self) -> UUID:
        """Return an id for what is made."""
        return self._ids.new()

    def decided(
        self, action: str, subject: str, *, tenant_id: str, after: Details | None = None, reason: str | None = None
    ) -> None:
        """Have a decision put into the audit trail; see `shared.audit.decision`."""
        made = decision(
            MetricsDecision,
            self.asker,
            tenant_id=tenant_id,
            action=action,
            subject=subject,
            after=after or None,
            reason=reason,
            clock=self._clock,
            ids=self._ids,
        )
        self.decisions.append(made)


class Deciding:
    """Lets somebody decide something."""

    def __init__(self, pool: Pool, *, clock: Clock, ids: Ids) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids

    @asynccontextmanager
    async def by(self, asker: Decider) -> AsyncIterator[Act]:
        """Decide something; an exception takes it back, and the trail has nothing of it."""
        async with transaction(self._pool) as connection:
            act = Act(connection, asker, self._clock, self._ids)
            yield act
            if act.decisions:
                # Last: whoever appends holds the ends of chains, and takes no other lock afterwards.
                await audit.append(connection, act.decisions, now=self._clock.now())
