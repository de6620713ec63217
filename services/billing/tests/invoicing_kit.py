"""A billing service whose invoices are made, on a clock that the test moves, beside metrics that can be away."""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import orjson

from services.billing import handlers
from services.billing.invoicing import Invoicing
from services.billing.settings import BillingSettings
from services.billing.tests.support import ask
from services.billing.usage import keep_reports
from shared.clock import ManualClock
from shared.contracts.base import Ask, Fact, Message
from shared.contracts.billing import UsageRequested
from shared.contracts.metrics import PeriodUsage, UsageReported
from shared.contracts.tenant import TenantActivated, TenantDeactivated
from shared.ids import SeededIds
from shared.messaging.event import Event, Outgoing, decode
from shared.messaging.subscriptions import Answered, Changed, Restoration, bind
from shared.messaging.topology import Manifest
from shared.postgres import Pool, transaction
from shared.service import Kernel, Ports
from shared.testing.memory_bus import MemoryBroker, MemoryBus

GRACE = timedelta(hours=24)
PER_CALL = {"model": "per_unit", "unitAmount": "0.01"}

Told = TypeVar("Told", bound=Message)

_ranks = itertools.count(100)


async def publish(
    pool: Pool,
    plan: str,
    amount: str,
    *,
    version: int = 1,
    pays: str = "arrears",
    trial_days: int = 0,
    reaches_at: datetime | None = None,
    charges: Iterable[tuple[str, dict[str, Any]]] = (),
) -> None:
    """Have a version of a plan in the catalog, in USD."""
    async with transaction(pool) as connection:
        await connection.execute(
            "INSERT INTO plan VALUES ($1, $2, 'month', 'USD') ON CONFLICT DO NOTHING", plan, next(_ranks)
        )
        await connection.execute(
            "INSERT INTO plan_price VALUES ($1, 'USD', $2) ON CONFLICT DO NOTHING", plan, Decimal(amount)
        )
        await connection.execute(
            """
            INSERT INTO plan_version (plan, version, pays, trial_days, starts_at, reaches_at)
            VALUES ($1, $2, $3, $4, coalesce($5, '-infinity'::timestamptz), $5)
            """,
            plan,
            version,
            pays,
            trial_days,
            reaches_at,
        )
        await connection.execute(
            "INSERT INTO plan_version_price VALUES ($1, $2, 'USD', $3)", plan, version, Decimal(amount)
        )
        await connection.executemany(
            "INSERT INTO plan_charge (plan, version, currency, meter, price) VALUES ($1, $2, 'USD', $3, $4)",
            [(plan, version, meter, price) for meter, price in charges],
        )


@dataclass
class Metrics:
    """What metrics would report.

    Attributes:
        used: who has used how much of which meter, when, and when that was stored.
        is_away: whether it answers nothing.
    """

    used: list[tuple[str, str, Decimal, datetime, datetime]] = field(default_factory=list)
    is_away: bool = False

    def use(
        self, tenant_id: str, meter: str, quantity: str, *, at: datetime, stored_at: datetime | None = None
    ) -> None:
        self.used.append((tenant_id, meter, Decimal(quantity), at, stored_at or at))

    def report(self, request: UsageRequested, *, now: datetime) -> UsageReported:
        return UsageReported(
            tenant_id=request.tenant_id,
            requested_at=request.requested_at,
            stated_at=now,
            periods=tuple(
                PeriodUsage(
                    since=period.since,
                    until=period.until,
                    quantities=self._quantities(request.tenant_id, period.since, period.until, now),
                )
                for period in request.periods
            ),
        )

    def _quantities(self, tenant_id: str, since: datetime, until: datetime, now: datetime) -> dict[str, str]:
        found: dict[str, Decimal] = {}
        for used_by, meter, quantity, at, stored_at in self.used:
            if used_by == tenant_id and since <= at < until and stored_at <= now:
                found[meter] = found.get(meter, Decimal()) + quantity
        return {meter: f"{quantity:f}" for meter, quantity in found.items()}


class House:
    """The service on a database; nothing happens but by the test."""

    def __init__(self, pool: Pool, *, start: datetime, grace: timedelta = GRACE) -> None:
        self.pool = pool
        self.clock = ManualClock(start)
        self.ids = SeededIds(1, self.clock)
        self.broker = MemoryBroker(Manifest.load(), self.clock)
        self.metrics = Metrics()
        self._heard = 0
        self.invoicing = self.replica(grace=grace)

    def replica(self, *, grace: timedelta = GRACE) -> Invoicing:
        """Return another loop on the same database."""
        return Invoicing(self.kernel(), grace=grace)

    def kernel(self) -> Kernel:
        """Return what loops on the database work with."""
        bus = MemoryBus(self.broker, "billing")
        return Kernel(
            service="billing",
            settings=BillingSettings(database_url="postgresql://x", amqp_url="amqp://127.0.0.1/", admin_key="k" * 24),
            pool=self.pool,
            bus=bus,
            ports=Ports(clock=self.clock, ids=self.ids),
            subscriptions=handlers.SUBSCRIPTIONS,
            dependencies={"clock": self.clock, "ids": self.ids},
        )

    async def at(self, moment: datetime) -> None:
        """Let everything happen that is due until a moment, each thing at its time."""
        await self.settle()
        while (due_at := await self._due_at()) is not None and due_at <= moment:
            await self.move_to(due_at)
            await self.settle()
        await self.move_to(moment)
        await self.settle()

    async def settle(self) -> None:
        """Do all that is due now, and have metrics answer what it is asked."""
        while await self.invoicing.round() or await self._answer():
            pass

    async def _answer(self) -> bool:
        if self.metrics.is_away:
            return False
        requests = (await self.told(UsageRequested))[self._heard :]
        self._heard += len(requests)
        if requests:
            await self.report(*requests)
        return bool(requests)

    async def report(self, *requests: UsageRequested) -> None:
        """Hear what metrics says to requests now."""
        await self.keep(*(self.metrics.report(each, now=self.clock.now()) for each in requests))

    async def keep(self, *reports: UsageReported) -> None:
        """Hear reports in one batch."""
        async with transaction(self.pool) as connection:
            assert await keep_reports(connection, reports) == []

    async def _due_at(self) -> datetime | None:
        found: datetime | None = await self.pool.fetchval(
            "SELECT min(look_at) FROM account WHERE look_at BETWEEN $1 AND 'infinity'::timestamptz - interval '1 day'",
            self.clock.now(),
        )
        return found

    async def move_to(self, moment: datetime) -> None:
        await self.clock.advance((moment - self.clock.now()).total_seconds())

    async def open(self, *tenant_ids: str, plan: str = "standard", **details: Any) -> None:
        """Open accounts that are charged from now on."""
        await self.open_only(*tenant_ids, plan=plan, **details)
        await self.activate(*tenant_ids)

    async def open_only(self, *tenant_ids: str, **details: Any) -> None:
        async with transaction(self.pool) as connection:
            asks = [ask(each, **details) for each in tenant_ids]
            await handlers.open_accounts(connection, asks, clock=self.clock, ids=self.ids)

    async def activate(self, *tenant_ids: str) -> list[Event]:
        return await self._follow(*(TenantActivated(tenant_id=each) for each in tenant_ids))

    async def deactivate(self, *tenant_ids: str) -> list[Event]:
        return await self._follow(*(TenantDeactivated(tenant_id=each) for each in tenant_ids))

    async def _follow(self, *facts: Fact) -> list[Event]:
        events = [
            Event(self.ids.new(), "tenant", self.clock.now(), fact, workflow_id=self.ids.new(), step="activate")
            for fact in facts
        ]
        handler = bind(handlers.SUBSCRIPTIONS, clock=self.clock, ids=self.ids)[type(facts[0])].handler
        async with transaction(self.pool) as connection:
            told: Sequence[Outgoing] = await handler(connection, events)
        return [decode(orjson.loads(each.event)) for each in told]

    async def do(self, asked: Ask) -> Changed:
        """Do one ask."""
        (done,) = await self.do_all(asked)
        assert isinstance(done, Changed)
        return done

    async def do_all(self, *asks: Ask) -> Sequence[Answered | Fact]:
        """Do asks of one type in one batch."""
        return await self._handle(type(asks[0]), asks)

    async def undo(self, kind: type[Ask], tenant_id: str, done: Changed) -> Answered | Fact:
        """Undo what one ask has done."""
        before = orjson.loads(orjson.dumps(done.before))
        (answer,) = await self._handle(kind, [Restoration(tenant_id, before)])
        return answer

    async def answer(self, asked: Ask) -> Answered | Fact:
        """Do one ask, or undo, that changes nothing which is kept."""
        (answer,) = await self.do_all(asked)
        return answer

    async def _handle(self, kind: type[Ask], given: Sequence[Any]) -> Sequence[Answered | Fact]:
        handler = bind(handlers.SUBSCRIPTIONS, clock=self.clock, ids=self.ids)[kind].handler
        async with transaction(self.pool) as connection:
            said: Sequence[Answered | Fact] = await handler(connection, given)
        return said

    async def told(self, kind: type[Told]) -> list[Told]:
        """Return all that the loop has ever told of a kind: nobody deletes what the broker has."""
        rows = await self.pool.fetch("SELECT event FROM outbox ORDER BY id")
        messages = [decode(orjson.loads(row["event"])).message for row in rows]
        return [each for each in messages if isinstance(each, kind)]

    async def invoices(self, tenant_id: str | None = None) -> list[tuple[str, int, datetime, str]]:
        """Return tenant, number, end and total of all invoices that were issued, by number."""
        rows = await self.pool.fetch(
            """
            SELECT tenant_id, number, closes_at, round(total, 2)::text AS total FROM invoice
            WHERE state = 'final' AND ($1::text IS NULL OR tenant_id = $1) ORDER BY number
            """,
            tenant_id,
        )
        return [tuple(row) for row in rows]

    async def totals(self, tenant_id: str = "t1") -> list[tuple[datetime, str]]:
        """Return end and total of a tenant's invoices, in their order."""
        return [(closes_at, total) for _, _, closes_at, total in await self.invoices(tenant_id)]

    async def lines(self, number: int) -> list[tuple[str, str]]:
        """Return description and amount of the lines of an invoice."""
        rows = await self.pool.fetch(
            """
            SELECT description, round(amount, 2)::text FROM invoice_line JOIN invoice USING (invoice_id)
            WHERE number = $1 ORDER BY position
            """,
            number,
        )
        return [tuple(row) for row in rows]

    async def content(self) -> list[tuple[Any, ...]]:
        """Return every row of every invoice and line, but for its number and when it was written down."""
        rows = await self.pool.fetch(
            """
            SELECT invoice_id, tenant_id, state, kind, closes_at, total, line.*
            FROM invoice LEFT JOIN invoice_line AS line USING (invoice_id) ORDER BY tenant_id, closes_at, position
            """
        )
        return [tuple(row) for row in rows]


async def both(*loops: Invoicing) -> None:
    """Let loops do all that is due at once."""

    async def all_rounds(loop: Invoicing) -> None:
        while await loop.round(3):
            pass

    await asyncio.gather(*map(all_rounds, loops))
