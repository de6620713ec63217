"""The kernel of one service, ``billing``, with handlers that a test can see into, on a broker in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

from shared.clock import ManualClock
from shared.contracts.base import Fact, Message
from shared.contracts.billing import AccountOpened, AccountVoided, OpenAccount, SubscriptionStarted, VoidAccount
from shared.contracts.tenant import TenantActivated, TenantDeactivated
from shared.ids import SeededIds
from shared.messaging.bus import Bus
from shared.messaging.consumer import Consumer
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Event, Outgoing, decode, parse_batch
from shared.messaging.outbox import Relay
from shared.messaging.subscriptions import Subscriptions, bind, do, follow, hear, undo
from shared.messaging.topology import RETRY_DELAYS, retry_queue_of
from shared.postgres import Connection, Pool
from shared.testing.eventually import Condition, hurry
from shared.testing.memory_bus import MemoryBroker, MemoryBus, StoredMessage
from shared.testing.three_services import MANIFEST, parcel_of

SERVICE = "billing"

EFFECT_TABLE = """
    CREATE TABLE effect (
        position bigint GENERATED ALWAYS AS IDENTITY,
        kind text NOT NULL,
        tenant_id text NOT NULL
    )
"""
"""What the handlers have done, a row each time; no constraint hides that it was done twice."""

Effect = tuple[str, str]


async def _no_trouble(_connection: Connection, _messages: Sequence[Message]) -> None:
    """Let the handler have its way."""


@dataclass
class Script:
    """What a test decides about the handlers, and what it learns from them.

    Attributes:
        trouble: runs first in each handler, in its transaction; whatever it raises, the handler raises.
        answers: what an ask is answered with, by tenant; an opened account where it is not named.
        batches: the tenants of each batch that a handler was given, in the order of the calls.
    """

    trouble: Callable[[Connection, Sequence[Message]], Awaitable[None]] = _no_trouble
    answers: dict[str, Fact] = field(default_factory=dict)
    batches: list[tuple[str, list[str]]] = field(default_factory=list)

    async def play(self, connection: Connection, kind: str, messages: Sequence[Message]) -> None:
        """Do what every handler here does: note the batch, make trouble, take effect."""
        tenants = [message.tenant_id for message in messages]
        self.batches.append((kind, tenants))
        await self.trouble(connection, messages)
        await connection.execute(
            "INSERT INTO effect (kind, tenant_id) SELECT $1, tenant FROM unnest($2::text[]) AS tenant", kind, tenants
        )


async def open_accounts(connection: Connection, asks: Sequence[OpenAccount], *, script: Script) -> Sequence[Fact]:
    """Open an account each, unless the script has another answer."""
    await script.play(connection, "opened", asks)
    return [
        script.answers.get(ask.tenant_id) or AccountOpened(tenant_id=ask.tenant_id, account_id=f"of {ask.tenant_id}")
        for ask in asks
    ]


async def void_accounts(connection: Connection, asks: Sequence[VoidAccount], *, script: Script) -> Sequence[Fact]:
    """Void an account each."""
    await script.play(connection, "voided", asks)
    return [AccountVoided(tenant_id=ask.tenant_id) for ask in asks]


async def start(connection: Connection, facts: Sequence[TenantActivated], *, script: Script) -> Sequence[Fact]:
    """Start to charge, and tell so."""
    await script.play(connection, "started", facts)
    return [SubscriptionStarted(tenant_id=fact.tenant_id, plan="pro") for fact in facts]


async def look(connection: Connection, events: Sequence[Event], *, script: Script) -> Sequence[Outgoing]:
    """Note what was told, envelopes and all, and say nothing."""
    await script.play(connection, "looked", [event.message for event in events])
    return []


SUBSCRIPTIONS: Subscriptions = {
    OpenAccount: do(open_accounts),
    VoidAccount: undo(void_accounts),
    TenantActivated: hear(start),
    TenantDeactivated: follow(look),
}


class OneService:
    """The kernel of ``billing`` between a real database and a broker in memory, on a clock that tests move.

    Args:
        pool: of a database with the kernel's tables and `EFFECT_TABLE`.
        clock: another's, to share a broker with it.
        subscriptions: which code this is: older code knows less.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        bus: Bus | None = None,
        broker: MemoryBroker | None = None,
        clock: ManualClock | None = None,
        seed: int = 1,
        subscriptions: Subscriptions = SUBSCRIPTIONS,
    ) -> None:
        self.pool = pool
        self.clock = clock or ManualClock()
        self.ids = SeededIds(seed, self.clock)
        self.broker = broker or MemoryBroker(MANIFEST, self.clock)
        self.script = Script()
        bus = bus or MemoryBus(self.broker, SERVICE)
        self.dispatch = Dispatch(
            service=SERVICE, subscriptions=bind(subscriptions, script=self.script), clock=self.clock, ids=self.ids
        )
        self.relay = Relay(pool=pool, bus=bus, clock=self.clock, ids=self.ids, manifest=MANIFEST)
        self.consumer = Consumer(
            service=SERVICE,
            bus=bus,
            pool=pool,
            dispatch=self.dispatch,
            relay=self.relay,
            manifest=MANIFEST,
            logins={},
            clock=self.clock,
            ids=self.ids,
        )
        self._running: list[asyncio.Task[None]] = []

    async def publish(self, *events: Event) -> None:
        """Send events of one type in one message, as their publisher does."""
        await MemoryBus(self.broker, events[0].publisher).publish([parcel_of(*events)])

    @asynccontextmanager
    async def consuming(self) -> AsyncIterator[None]:
        """Consume for a block, then stop as a service does."""
        consuming = asyncio.create_task(self.consumer.run())
        self._running.append(consuming)
        try:
            yield
        finally:
            self.consumer.stop()
            await hurry(self.clock, consuming.done, describe="the consumer stops")
            self._running.remove(consuming)
        await consuming

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Relay for a block."""
        relaying = asyncio.create_task(self.relay.run())
        self._running.append(relaying)
        try:
            yield
        finally:
            self._running.remove(relaying)
            relaying.cancel()
            with suppress(asyncio.CancelledError):
                await relaying

    async def until(self, condition: Condition) -> None:
        """Let time pass until a condition holds; a part of the kernel that dies meanwhile fails the test."""

        def holds() -> bool | Awaitable[bool]:
            for task in self._running:
                if task.done():
                    task.result()
            return condition()

        await hurry(self.clock, holds, describe=self._describe)

    def is_quiet(self) -> bool:
        """Tell whether everything that was sent to the service is settled, nothing waiting for a retry."""
        waiting = [f"{SERVICE}.work", *(retry_queue_of(SERVICE, delay) for delay in RETRY_DELAYS)]
        return self.broker.total_depth(waiting) == 0

    async def effects(self) -> list[Effect]:
        """Return what took effect, as (kind, tenant), in the order in which it did."""
        rows = await self.pool.fetch("SELECT kind, tenant_id FROM effect ORDER BY position")
        return [(row["kind"], row["tenant_id"]) for row in rows]

    def said(self) -> list[Event]:
        """Return the events that have reached ``onboarding``, each as often as it did."""
        bodies = [message.body for message in self.broker.messages("onboarding.work")]
        return [decode(raw) for body in bodies for raw in parse_batch(body)]

    def parked(self) -> Sequence[StoredMessage]:
        """Return the messages in parking."""
        return self.broker.messages(f"{SERVICE}.parking")

    async def unsent(self) -> int:
        """Count the rows of the outbox."""
        return int(await self.pool.fetchval("SELECT count(*) FROM outbox"))

    def _describe(self) -> str:
        return f"depths {[self.broker.depth(queue) for queue in (f'{SERVICE}.work', f'{SERVICE}.parking')]}"


async def make_effect_table(owner_url: str) -> None:
    """Add `EFFECT_TABLE` to a database, as its owner."""
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.execute(EFFECT_TABLE)
    finally:
        await connection.close()
