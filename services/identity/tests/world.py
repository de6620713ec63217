"""The service behind the kernel's barrier, and everything that its database holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
from asyncpg import Record

from services.identity.handlers import SUBSCRIPTIONS
from shared.clock import ManualClock
from shared.contracts import CATALOGUE, Ask, Fact
from shared.contracts.base import Message
from shared.ids import TimeOrderedIds
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Event, decode
from shared.messaging.subscriptions import bind
from shared.postgres import Pool, transaction
from shared.testing.three_services import asked

ANNA, BELA, CLEO = "anna@example.org", "bela@example.org", "cleo@example.org"
WEEK = timedelta(days=7)

Snapshot = Mapping[str, frozenset[tuple[Any, ...]]]

_UNDO = {
    message.undoes: message for message in CATALOGUE.values() if issubclass(message, Ask) and message.undoes is not None
}


def undo_of(ask: Event) -> Event:
    """Wrap what undoes an ask."""
    assert isinstance(ask.message, Ask)
    undo = _UNDO[type(ask.message)]
    return asked(undo(tenant_id=ask.message.tenant_id), workflow_id=ask.workflow_id)


@dataclass
class World:
    """The service, without a broker."""

    pool: Pool
    clock: ManualClock = field(default_factory=ManualClock)
    told: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        ids = TimeOrderedIds()
        table = bind(SUBSCRIPTIONS, clock=self.clock, ids=ids, invitation_lifetime=WEEK, in_cognito=False)
        self._dispatch = Dispatch(service="identity", subscriptions=table, clock=self.clock, ids=ids)

    async def handle(self, *events: Event) -> list[Message]:
        """Handle a batch in one transaction and return what was answered; what else was told is kept in ``told``."""
        async with transaction(self.pool) as connection:
            outgoing = await self._dispatch.handle(connection, events)
        said = [decode(orjson.loads(each.event)).message for each in outgoing]
        self.told += [message for message in said if isinstance(message, Fact) and message.answers is None]
        return [message for message in said if message not in self.told]

    async def do(self, ask: Ask) -> Event:
        """Handle an ask, which must not be refused, and return it for `undo`."""
        event = asked(ask)
        (answer,) = await self.handle(event)
        assert isinstance(answer, Fact)
        assert type(answer).answers is type(ask)
        assert not hasattr(answer, "code"), answer
        return event

    async def undo(self, ask: Event) -> Message:
        """Handle the undo of an ask and return the answer."""
        (answer,) = await self.handle(undo_of(ask))
        return answer

    async def members(self) -> set[tuple[str, str, str]]:
        """Return all memberships as tenant, address and role."""
        rows = await self.pool.fetch("SELECT tenant_id, email, role FROM membership JOIN users USING (user_id)")
        return {(row["tenant_id"], row["email"], row["role"]) for row in rows}

    async def emails(self) -> set[str]:
        """Return the addresses of all users."""
        return {row["email"] for row in await self.pool.fetch("SELECT email FROM users")}

    async def set_role(self, tenant_id: str, email: str, role: str) -> None:
        """Give a member another role."""
        await self.pool.execute(
            "UPDATE membership SET role = $3 FROM users "
            "WHERE users.user_id = membership.user_id AND tenant_id = $1 AND email = $2",
            tenant_id,
            email,
            role,
        )

    async def accept_invitations(self) -> None:
        """Let everybody in who is invited and has not accepted yet."""
        await self.pool.execute(
            "UPDATE invitation SET accepted_at = created_at, delivery = 'sent' WHERE accepted_at IS NULL"
        )

    async def invitation_of(self, tenant_id: str, email: str) -> Record:
        """Return the invitation of a member that has one."""
        (row,) = await self.pool.fetch(
            "SELECT invitation.* FROM invitation JOIN users USING (user_id) WHERE tenant_id = $1 AND email = $2",
            tenant_id,
            email,
        )
        return row

    async def withdraw_invitation(self, tenant_id: str, email: str) -> None:
        """Take a member's invitation away."""
        await self.pool.execute(
            "DELETE FROM invitation USING users "
            "WHERE users.user_id = invitation.user_id AND tenant_id = $1 AND email = $2",
            tenant_id,
            email,
        )

    async def expel(self, tenant_id: str, email: str) -> None:
        """End a membership and its invitation."""
        await self.withdraw_invitation(tenant_id, email)
        await self.pool.execute(
            "DELETE FROM membership USING users "
            "WHERE users.user_id = membership.user_id AND tenant_id = $1 AND email = $2",
            tenant_id,
            email,
        )

    async def has_waiting(self, count: int) -> bool:
        """Tell whether exactly so many connections wait for a lock."""
        waiting = await self.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(waiting == count)

    async def snapshot(self) -> Snapshot:
        """Return every row of every table of the service."""
        tables = ("users", "membership", "invitation", "tenant_block", "tenant_plan")
        return {
            table: frozenset(tuple(row) for row in await self.pool.fetch(f"SELECT * FROM {table}")) for table in tables
        }
