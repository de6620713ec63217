"""Every tenant that does not pay is told to be as far behind as it is; what follows from that others decide.

Every debtor has a moment at which to look at it next: at once where an invoice of it was booked, settled or changed,
else when it may be further behind. What is told is a level, not an event: whoever hears it acts on how it is, and has
nothing to catch up with. With dunning switched off nobody is behind, and whoever was is told not to be any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import structlog

from services.billing import queries
from services.billing.overdue import CLEAR, Review, Standing, Terms, review
from shared.contracts.billing import OverdueChanged
from shared.messaging import outbox
from shared.postgres import Connection, transaction
from shared.repeating import repeat_rounds
from shared.service import Kernel

log = structlog.get_logger(__name__)

_LIMIT = 500
_POLL_SECONDS = 5.0


class Dunning:
    """Finds and tells how far tenants are behind with their payments.

    Args:
        terms: how long after its issue an invoice may be unpaid; None where nobody is ever behind.
    """

    def __init__(self, kernel: Kernel, terms: Terms | None) -> None:
        self._kernel = kernel
        self._terms = terms

    async def run(self) -> None:
        """Look for ever; an outage of the database is waited out, and what was due then is due afterwards."""
        clock = self._kernel.ports.clock
        await repeat_rounds("dunning", self.round, lambda: clock.sleep(_POLL_SECONDS), clock=clock)

    async def round(self, limit: int = _LIMIT) -> int:
        """Look at the debtors that are due, up to a limit; return how many there were."""
        now = self._kernel.ports.clock.now()
        async with transaction(self._kernel.pool) as connection:
            found = await self._due(connection, now, limit)
            if not found:
                return 0
            made = await self._review(connection, found, now)
            await queries.dunning.reschedule(connection, [each.row for each in made])
            outgoing = [self._kernel.dispatch.tell(each.fact) for each in made if each.is_told]
            await outbox.insert(connection, outgoing, now=now)
        await self._kernel.relay.send(outgoing)
        return len(found)

    async def _due(self, connection: Connection, now: datetime, limit: int) -> Sequence[str]:
        if self._terms is None:
            return await queries.dunning.behind(connection, limit=limit)
        return await queries.dunning.due(connection, now=now, limit=limit)

    async def _review(self, connection: Connection, tenant_ids: Sequence[str], now: datetime) -> Sequence["_Reviewed"]:
        locked = await queries.dunning.lock(connection, tenant_ids)
        owed = await queries.dunning.oldest(connection, [row["tenant_id"] for row in locked])
        return [
            _Reviewed(debtor, self._decide(debtor, each["issued_at"], now), now, has_account=each["has_account"])
            for debtor, each in zip(locked, owed, strict=True)
        ]

    def _decide(self, debtor: asyncpg.Record, oldest: datetime | None, now: datetime) -> Review:
        if self._terms is None:
            return Review(CLEAR, now)  # so that whoever owes something is looked at when dunning is switched on
        standing = Standing(debtor["overdue"], debtor["overdue_since"])
        return review(standing, oldest, now=now, terms=self._terms)


@dataclass(frozen=True, slots=True)
class _Reviewed:
    """A debtor, and what was found of it.

    Attributes:
        has_account: whether there is somebody to tell it of: money is owed by those too that have gone.
    """

    debtor: asyncpg.Record
    made: Review
    now: datetime
    has_account: bool

    @property
    def has_changed(self) -> bool:
        return bool(self.made.overdue != self.debtor["overdue"])

    @property
    def is_told(self) -> bool:
        return self.has_changed and self.has_account

    @property
    def row(self) -> dict[str, Any]:
        return {
            "tenant_id": self.debtor["tenant_id"],
            "overdue": self.made.overdue,
            "overdue_since": self.now if self.has_changed else self.debtor["overdue_since"],
            "overdue_edition": self._edition,
            "look_at": self.made.next_at,
        }

    @property
    def fact(self) -> OverdueChanged:
        return OverdueChanged(
            tenant_id=self.debtor["tenant_id"],
            overdue=self.made.overdue,
            edition=self._edition,
            changed_at=self.now,
        )

    @property
    def _edition(self) -> int:
        edition: int = self.debtor["overdue_edition"]
        return edition + self.is_told
