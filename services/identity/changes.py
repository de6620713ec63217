"""What a request changes here, and what is told of it, in one transaction: all of it happens, or nothing."""

from collections.abc import Sequence
from itertools import groupby

from shared import changes
from shared.access import replica
from shared.changes import Change
from shared.contracts.base import Fact
from shared.contracts.identity import DecisionRecorded
from shared.messaging.subscriptions import Subscription
from shared.postgres import Connection
from shared.service import Kernel

__all__ = ["Change", "Changes", "know"]


class Changes(changes.Changes):
    """Makes changes and tells of them; what is about access is known here at the same moment."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, DecisionRecorded)

    async def _know(self, connection: Connection, facts: Sequence[Fact]) -> None:
        await know(connection, facts)


async def know(connection: Connection, facts: Sequence[Fact]) -> None:
    """Let this service know of its own facts about access what it tells all others."""
    in_order = sorted(facts, key=lambda fact: fact.routing_key())
    for kind, group in groupby(in_order, key=type):
        if subscription := _access(kind):
            await subscription.handler(connection, list(group))


def _access(kind: type[Fact]) -> Subscription | None:
    return replica.SUBSCRIPTIONS.get(kind)
