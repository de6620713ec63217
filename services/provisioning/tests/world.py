"""The service behind the kernel's barrier, and everything that its two databases hold."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from services.provisioning.drivers import PostgresPool
from services.provisioning.handlers import SUBSCRIPTIONS
from services.provisioning.tests.support import REGIONS, Application, ask
from shared.clock import ManualClock
from shared.contracts import CATALOGUE, Ask
from shared.contracts.base import Message, Refusal
from shared.ids import TimeOrderedIds
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Event, decode
from shared.messaging.subscriptions import bind
from shared.postgres import Pool, transaction
from shared.testing.three_services import asked

LIFETIME = timedelta(days=30)

_UNDO = {
    message.undoes: message for message in CATALOGUE.values() if issubclass(message, Ask) and message.undoes is not None
}


class CrashError(Exception):
    """Stands for whatever ends a transaction before its commit."""


def undo_of(event: Event) -> Event:
    """Wrap what undoes an ask."""
    assert isinstance(event.message, Ask)
    undo = _UNDO[type(event.message)]
    return asked(undo(tenant_id=event.message.tenant_id), workflow_id=event.workflow_id)


@dataclass
class World:
    """The service, without a broker, and its application database."""

    pool: Pool
    application: Application
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        ids = TimeOrderedIds()
        table = bind(
            SUBSCRIPTIONS,
            clock=self.clock,
            ids=ids,
            driver=self.driver,
            regions=REGIONS,
            export_lifetime=LIFETIME,
        )
        self._dispatch = Dispatch(service="provisioning", subscriptions=table, clock=self.clock, ids=ids)

    @property
    def driver(self) -> PostgresPool:
        return self.application.driver

    async def handle(self, *events: Event) -> list[Message]:
        """Handle a batch in one transaction and return what was said."""
        async with transaction(self.pool) as connection:
            outgoing = await self._dispatch.handle(connection, events)
        return [decode(orjson.loads(each.event)).message for each in outgoing]

    async def crash(self, *events: Event) -> None:
        """Handle a batch, and die when all effects are there, before the commit."""
        with suppress(CrashError):
            async with transaction(self.pool) as connection:
                await self._dispatch.handle(connection, events)
                raise CrashError

    async def provision(self, *tenant_ids: str, **details: Any) -> None:
        """Make environments."""
        await self.handle(*(asked(ask(tenant_id, **details)) for tenant_id in tenant_ids))

    async def do(self, *messages: Ask) -> list[Event]:
        """Handle asks, which must not be refused, and return them for `undo`."""
        events = [asked(message) for message in messages]
        answers = await self.handle(*events)
        assert [answer.tenant_id for answer in answers] == [message.tenant_id for message in messages]
        assert not [answer for answer in answers if isinstance(answer, Refusal)]
        return events

    async def refusal(self, message: Ask) -> str:
        """Handle an ask, which must be refused, and return the code."""
        (answer,) = await self.handle(asked(message))
        assert isinstance(answer, Refusal), answer
        return answer.code

    async def undo(self, *events: Event) -> list[Message]:
        """Handle the undos of some asks and return the answers."""
        return await self.handle(*map(undo_of, events))

    async def snapshot(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all that the service and the driver know of tenants, moments of the driver's own left out."""
        own = {
            table: await self.pool.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")
            for table in ("environment", "deployment", "export", "export_chunk")
        }
        partitions = await self.application.pool.fetch(
            """
            SELECT tenant_id, connections, throttled_at IS NOT NULL, closed_at IS NOT NULL FROM tenancy.tenant
            ORDER BY tenant_id
            """
        )
        return {name: [tuple(row) for row in rows] for name, rows in {**own, "partition": partitions}.items()}

    async def limits(self) -> list[int]:
        """Return how many connections each login of a tenant may hold, in the order of its name."""
        rows = await self.application.pool.fetch(
            "SELECT rolconnlimit FROM pg_roles JOIN tenancy.login ON login = rolname ORDER BY login"
        )
        return [row["rolconnlimit"] for row in rows]
