"""What a request changes, and what is told of it, in one transaction: all of it happens, or nothing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from shared.audit import Decider, Details, decision
from shared.contracts.base import Decision, Fact
from shared.messaging import outbox
from shared.postgres import Connection, transaction
from shared.service import Kernel, Ports


class Change:
    """A change that is being made.

    Attributes:
        connection: in its transaction.
        facts: what is told when it is committed.
    """

    def __init__(self, connection: Connection, decisions: type[Decision], ports: Ports) -> None:
        self.connection = connection
        self.facts: list[Fact] = []
        self._decisions = decisions
        self._ports = ports

    def tell(self, *facts: Fact) -> None:
        """Have something told when the change is committed."""
        self.facts += facts

    def decided(
        self,
        decider: Decider,
        action: str,
        subject: str,
        *,
        tenant_id: str,
        before: Details | None = None,
        after: Details | None = None,
        reason: str | None = None,
    ) -> None:
        """Have a decision put into the audit trail when the change is committed; see `shared.audit.decision`."""
        made = decision(
            self._decisions,
            decider,
            tenant_id=tenant_id,
            action=action,
            subject=subject,
            before=before,
            after=after,
            reason=reason,
            clock=self._ports.clock,
            ids=self._ports.ids,
        )
        self.tell(made)


class Changes:
    """Makes changes and tells of them.

    Args:
        decisions: the service's own fact about decisions.
    """

    def __init__(self, kernel: Kernel, decisions: type[Decision]) -> None:
        self._kernel = kernel
        self._decisions = decisions

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Change]:
        """Change something; an exception takes it back and nothing is told."""
        async with transaction(self._kernel.pool) as connection:
            change = Change(connection, self._decisions, self._kernel.ports)
            yield change
            await self._know(connection, change.facts)
            outgoing = [self._kernel.dispatch.tell(fact) for fact in change.facts]
            await outbox.insert(connection, outgoing, now=self._kernel.ports.clock.now())
        await self._kernel.relay.send(outgoing)

    async def _know(self, connection: Connection, facts: Sequence[Fact]) -> None:
        """Do what this service itself does about its facts: nothing."""
