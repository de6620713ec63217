"""Changes without a broker, and what of them is on its way to the audit trail."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import orjson

from shared.changes import Changes
from shared.clock import Clock
from shared.contracts.base import Decision
from shared.ids import TimeOrderedIds
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Outgoing, decode
from shared.postgres import Pool
from shared.service import Kernel


class _Silence:
    """A relay that leaves everything in the outbox."""

    async def send(self, outgoing: Sequence[Outgoing]) -> None:
        pass


def changes_on(pool: Pool, decisions: type[Decision], *, clock: Clock) -> Changes:
    """Return what makes changes in a service's database and leaves all that is told in its outbox.

    Args:
        decisions: the service's own fact about decisions.
    """
    ids = TimeOrderedIds()
    kernel = SimpleNamespace(
        pool=pool,
        dispatch=Dispatch(service=decisions.owner, subscriptions={}, clock=clock, ids=ids),
        relay=_Silence(),
        ports=SimpleNamespace(clock=clock, ids=ids),
    )
    return Changes(cast("Kernel", kernel), decisions)


async def decided(pool: Pool) -> list[Decision]:
    """Return the decisions in a service's outbox, the first first."""
    rows = await pool.fetch("SELECT event FROM outbox ORDER BY id")
    told = [decode(orjson.loads(row["event"])).message for row in rows]
    return [each for each in told if isinstance(each, Decision)]
