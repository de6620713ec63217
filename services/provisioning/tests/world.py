"""The service behind the kernel's barrier, its worker, and everything that its databases hold."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from services.provisioning.drivers import Driver, Lender, Login, NoEnvironmentError
from services.provisioning.drivers.registry import Drivers
from services.provisioning.drivers.webhook import Keys, PostgresCallbacks
from services.provisioning.exports import Exports
from services.provisioning.handlers import SUBSCRIPTIONS
from services.provisioning.jobs.calls import Calls
from services.provisioning.jobs.exporting import Exporting
from services.provisioning.jobs.job import Settings
from services.provisioning.jobs.settling import Settling
from services.provisioning.jobs.worker import CLAIM, Worker
from services.provisioning.mail import Limits
from services.provisioning.queries import environments
from services.provisioning.tests.support import REGIONS, Application, ask
from shared.clock import ManualClock
from shared.contracts import CATALOGUE, Ask
from shared.contracts.base import Message, Refusal
from shared.contracts.provisioning import StepProgressed
from shared.failpoints import armed, hits
from shared.ids import TimeOrderedIds
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Event, Outgoing, decode
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
    """The service, without a broker, on a driver of any kind.

    Attributes:
        said: what the worker has said, in order.
    """

    pool: Pool
    driver: Driver
    clock: ManualClock = field(default_factory=ManualClock)
    said: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.drivers = Drivers([self.driver])
        ids = TimeOrderedIds()
        table = bind(SUBSCRIPTIONS, clock=self.clock, ids=ids, drivers=self.drivers, regions=REGIONS)
        self._dispatch = Dispatch(service="provisioning", subscriptions=table, clock=self.clock, ids=ids)
        self.worker = self.another_worker()

    def another_worker(self) -> Worker:
        """Return the worker of another replica."""
        exports = Exports(self.pool, clock=self.clock, lifetime=LIFETIME)
        exporting = Exporting(self.pool, exports, self.drivers)
        calls = Calls(self.drivers, {"export": exporting.export, "discard": exporting.discard})
        settling = Settling(self.pool, self._dispatch, clock=self.clock)
        return Worker(self.pool, self.drivers, calls, settling, self.keep, clock=self.clock, ids=TimeOrderedIds())

    async def keep(self, outgoing: Sequence[Outgoing]) -> None:
        """Keep what a worker says."""
        self.said += [decode(orjson.loads(each.event)) for each in outgoing]

    async def take(self, *events: Event) -> list[Message]:
        """Handle a batch in one transaction, and return what was said at once."""
        async with transaction(self.pool) as connection:
            outgoing = await self._dispatch.handle(connection, events)
        return [decode(orjson.loads(each.event)).message for each in outgoing]

    async def work(self) -> list[Message]:
        """Work off what is due now, and return what was said, progress left out."""
        before = len(self.said)
        await self.worker.settle_down()
        return [each.message for each in self.said[before:] if not isinstance(each.message, StepProgressed)]

    async def wait(self, seconds: float) -> list[Message]:
        """Let time pass, and work off what is due then."""
        await self.clock.advance(seconds)
        return await self.work()

    async def handle(self, *events: Event) -> list[Message]:
        """Handle a batch, work it off, and return the answers."""
        return await self.take(*events) + await self.work()

    async def lose(self, *events: Event) -> None:
        """Handle a batch, and die before the commit."""
        with suppress(CrashError):
            async with transaction(self.pool) as connection:
                await self._dispatch.handle(connection, events)
                raise CrashError

    async def crash(self, *events: Event) -> None:
        """Handle a batch, and let the worker die when the effects of a step are there, before any of it is stored.

        Its claim has ended when this returns.
        """
        await self.take(*events)
        with armed("job_stepped=raise"):
            await self.worker.look()
            await asyncio.wait(list(self.worker.running))
            assert hits("job_stepped"), "no worker has died"
        await self.clock.advance(CLAIM.total_seconds())

    async def provision(self, *tenant_ids: str, **details: Any) -> None:
        """Make environments."""
        details = {"driver": self.driver.name} | details
        await self.do(*(ask(tenant_id, **details) for tenant_id in tenant_ids))

    async def do(self, *messages: Ask) -> list[Event]:
        """Handle asks, which must not be refused, and return them for `undo`."""
        events = [asked(message) for message in messages]
        answers = await self.handle(*events)
        assert sorted(answer.tenant_id for answer in answers) == sorted(message.tenant_id for message in messages)
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

    @property
    def routed(self) -> dict[str, Any]:
        """What the routes are given besides the pool and who records decisions."""
        callbacks = PostgresCallbacks(self.pool)
        return {
            "drivers_": self.drivers,
            "callbacks": callbacks,
            "keys": Keys(()),
            "limits": Limits(),
            "clock": self.clock,
        }

    async def jobs(self) -> list[tuple[str, str, str]]:
        """Return the operation, the state and the stage of each job, in the order in which they were asked for."""
        rows = await self.pool.fetch("SELECT operation, state, stage FROM job ORDER BY job_id")
        return [(row["operation"], row["state"], row["stage"]) for row in rows]

    async def snapshot(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all that the service knows of tenants, and what was done for them left out."""
        return {
            table: [tuple(row) for row in await self.pool.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")]
            for table in ("environment", "deployment", "export", "export_chunk")
        }

    async def login(self, tenant_id: str) -> Login:
        """Issue a login to a tenant's environment, as the API does.

        Raises:
            NoEnvironmentError: there is none.
        """
        async with self.pool.acquire() as connection:
            row = await environments.get(connection, tenant_id)
        if row is None:
            raise NoEnvironmentError(tenant_id)
        assert isinstance(self.driver, Lender)
        login = await self.driver.issue(Settings.of(row).for_driver())
        assert isinstance(login, Login)
        return login


@dataclass
class PostgresWorld(World):
    """The service on the driver that makes environments in Postgres."""

    application: Application = field(kw_only=True)

    async def snapshot(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all that the service and the driver know of tenants, moments of the driver's own left out."""
        partitions = await self.application.pool.fetch(
            """
            SELECT tenant_id, connections, throttled_at IS NOT NULL, closed_at IS NOT NULL FROM tenancy.tenant
            ORDER BY tenant_id
            """
        )
        return {**await super().snapshot(), "partition": [tuple(row) for row in partitions]}

    async def limits(self) -> list[int]:
        """Return how many connections each login of a tenant may hold, in the order of its name."""
        rows = await self.application.pool.fetch(
            "SELECT rolconnlimit FROM pg_roles JOIN tenancy.login ON login = rolname ORDER BY login"
        )
        return [row["rolconnlimit"] for row in rows]
