"""Provisioning as one process that makes accounts for tenants, and dies: what it was at, and what must hold then."""

import asyncio
import functools
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import asyncpg

from deploy.local.stack import Stack, running_stack
from services.provisioning.tests.cloud import MANAGEMENT_ROLE, TOPIC
from shared.clock import SystemClock
from shared.contracts.base import Ask
from shared.contracts.provisioning import StepProgressed
from shared.ids import TimeOrderedIds
from shared.messaging.bus import Outcome, Parcel
from shared.messaging.event import BATCH, Event, decode, join_batch, parse_batch
from shared.messaging.rabbitmq import RabbitBus
from shared.messaging.topology import exchange_of, work_queue_of
from shared.postgres import Pool, open_pool
from shared.testing import eventually
from shared.testing.amazon import REGION
from tests.chaos.accounts import lacks_of, orphans_of
from tests.chaos.amazon import HoldingCloud, Place
from tests.chaos.processes import ServiceProcess

HOLDING_SECONDS = 11.0
"""How long calls are held up until their caller is killed; it gives them up after fifteen."""

_GIVEN_UP_SECONDS = 15.0
_DEATH_SECONDS = 30.0
_ROUND_SECONDS = 120.0
_SOON_SECONDS = 3.0
_LOOK_SECONDS = 0.05
_PREFETCH = 100
_CLAIMED = "SELECT tenant_id, state, operation, stage FROM job WHERE claim IS NOT NULL"
_AT_WORK = """
    SELECT count(*) FROM job
    WHERE due_at IS NOT NULL AND (claim IS NOT NULL OR due_at < now() + make_interval(secs => $1))
"""
_END_CLAIMS = "UPDATE job SET due_at = now() WHERE claim IS NOT NULL"
_READY = "SELECT tenant_id, resources FROM environment WHERE status = 'ready' AND tenant_id <> ALL ($1::text[])"
_TRIED = "SELECT tenant_id, attempts, said FROM job WHERE tenant_id = ANY ($1::text[]) AND due_at IS NOT NULL"
_RECORDED = "SELECT environment_id::text, resources ->> 'email' AS email FROM environment"


@dataclass(frozen=True)
class Death:
    """What a process was at when it was killed.

    Attributes:
        claimed: what it was doing for which tenant.
        held: calls that it had no answer to, with their tenants; nothing where they do not say for which one they are.
        failpoint: where it died; nothing where it was killed from outside.
    """

    claimed: Mapping[str, str]
    held: Mapping[Place, str]
    failpoint: str = ""

    def __str__(self) -> str:
        steps = ", ".join(f"{step} ({count})" for step, count in Counter(self.claimed.values()).most_common())
        where = f"at {self.failpoint}" if self.failpoint else f"in {len(self.held)} of its calls"
        return f"killed {where}, with {len(self.claimed)} jobs: {steps}"


@dataclass
class Silos:
    """The process, what it works on, and what was seen.

    Attributes:
        own: the service's database.
        workflows: the last one of each tenant.
        heard: all that it has said to whoever asks, each message once.
        ready: tenants whose environments were called ready, and what was missing of them at that moment.
        deaths: of the process, the first one first.
    """

    cloud: HoldingCloud
    own: Pool
    bus: RabbitBus
    process: ServiceProcess
    workflows: dict[str, UUID] = field(default_factory=dict)
    heard: dict[UUID, Event] = field(default_factory=dict)
    ready: dict[str, Sequence[str]] = field(default_factory=dict)
    deaths: list[Death] = field(default_factory=list)

    def forget(self) -> None:
        """Know nothing of what was seen before; the process is dead."""
        self.process.kill()
        self.cloud.let_go()
        for seen in (self.heard, self.ready, self.deaths, self.cloud.struck):
            seen.clear()

    async def ask(self, asks: Sequence[Ask]) -> None:
        """Ask what workflows would, all of the same kind: each in one of its own, but for undos."""
        if not asks:
            return
        ids, now = TimeOrderedIds(), SystemClock().now()
        if type(asks[0]).undoes is None:
            self.workflows |= {ask.tenant_id: ids.new() for ask in asks}
        events = [
            Event(ids.new(), "onboarding", now, ask, workflow_id=self.workflows[ask.tenant_id], step="environment")
            for ask in asks
        ]
        body = join_batch(event.encode() for event in events)
        parcel = Parcel(exchange_of("onboarding"), events[0].type, body, BATCH, str(events[0].id))
        assert await self.bus.publish([parcel]) == [Outcome.CONFIRMED]

    def answers(self) -> Counter[tuple[str, str]]:
        """Return how often each tenant's workflow has got which answer."""
        return Counter(
            (event.message.tenant_id, type(event.message).__name__)
            for event in self.heard.values()
            if not isinstance(event.message, StepProgressed)
        )

    async def die_at(self, failpoint: str) -> None:
        """Start the process, and let it die at a failpoint."""
        self.process.start(fail=f"{failpoint}=kill")
        assert await self.process.ended(within=_DEATH_SECONDS) == -signal.SIGKILL
        assert f"failpoint {failpoint}: kill" in self.process.last_words()
        await self._note_death(Death(await claimed_steps(self.own), {}, failpoint))

    async def die_in_calls(self, is_over: Callable[[], Awaitable[bool]]) -> bool:
        """Start the process, and kill it when all that it does, or enough of it, is held up in calls of new kinds.

        Returns:
            Whether it has died; if not, everything was over, and it was never held up.
        """
        self.cloud.hold()
        if self.process.exit_code is not None:
            self.process.start()

        async def holds_enough() -> bool:
            await asyncio.sleep(_LOOK_SECONDS)
            assert self.process.exit_code is None, self.process.last_words()
            return await self._holds_enough() or (not self.cloud.held and await is_over())

        await eventually(holds_enough, within=_ROUND_SECONDS, describe=self.process.last_words)
        if not self.cloud.held:
            return False
        claimed = await claimed_steps(self.own)
        # A job that is turned back leaves its call alone; that is nothing to die in.
        held = {place: tenant for place, tenant in self.cloud.held.items() if claimed.get(tenant, "") == place.step}
        self.process.kill()
        assert self.process.exit_code == -signal.SIGKILL, "it had ended already"
        assert self.cloud.held_seconds < _GIVEN_UP_SECONDS, "it had given its calls up already"
        await self._note_death(Death(claimed, held))
        return True

    async def are_ready(self, tenant_ids: Sequence[str]) -> bool:
        """Tell whether the environments of all of these were called ready, and looked at."""
        return self.ready.keys() >= set(tenant_ids)

    async def is_empty(self) -> bool:
        """Tell whether there is no environment and nothing to do."""
        left = "SELECT EXISTS (SELECT FROM environment) OR EXISTS (SELECT FROM job)"
        return not await self.own.fetchval(left)

    async def has_come_to(self, stage: str) -> bool:
        """Tell whether any job has come to a stage."""
        return bool(await self.own.fetchval("SELECT EXISTS (SELECT FROM job WHERE stage = $1)", stage))

    async def tried(self, tenant_ids: Sequence[str]) -> Mapping[str, tuple[int, str]]:
        """Return how often the step was tried at which the job of each of these is, and what is told of it."""
        rows = await self.own.fetch(_TRIED, tenant_ids)
        return {row["tenant_id"]: (row["attempts"], row["said"] or "") for row in rows}

    async def watch(self) -> None:
        """Look at each tenant's account as soon as its environment is called ready."""
        while True:
            for row in await self.own.fetch(_READY, list(self.ready)):
                lacks = await asyncio.to_thread(lacks_of, self.cloud, row["tenant_id"], row["resources"])
                self.ready[row["tenant_id"]] = lacks
            await asyncio.sleep(_LOOK_SECONDS)

    async def listen(self) -> None:
        """Hear what the service answers."""
        async with self.bus.consume(work_queue_of("onboarding"), prefetch=_PREFETCH) as consumption:
            while deliveries := await consumption.receive(_PREFETCH):
                events = [decode(raw) for each in deliveries for raw in parse_batch(each.body)]
                self.heard |= {event.id: event for event in events}
                await consumption.acknowledge(deliveries[-1])

    async def _holds_enough(self) -> bool:
        held = len(self.cloud.held)
        if not held:
            return False
        return self.cloud.held_seconds > HOLDING_SECONDS or held >= await self.own.fetchval(_AT_WORK, _SOON_SECONDS)

    async def _note_death(self, death: Death) -> None:
        """Keep what the process died with, and see that every account is known of that it has asked for."""
        self.deaths.append(death)
        self.cloud.let_go(death.held)
        if len(self.deaths) > 1:  # the first time whoever comes next waits in earnest
            await self.own.execute(_END_CLAIMS)
        recorded = {row["environment_id"]: row["email"] for row in await self.own.fetch(_RECORDED)}
        orphans = await asyncio.to_thread(orphans_of, self.cloud, recorded)
        assert not orphans, f"accounts of which there is no record: {orphans}"


async def claimed_steps(own: Pool) -> dict[str, str]:
    """Return what is being done at this moment, by tenant."""
    return {row["tenant_id"]: _step(row) for row in await own.fetch(_CLAIMED)}


def _step(row: asyncpg.Record) -> str:
    what = "undo" if row["state"] == "undoing" else row["operation"]
    return f"{what} {row['stage'] or 'begin'}"


@asynccontextmanager
async def running_silos(folder: Path) -> AsyncIterator[Silos]:
    """Start servers, and on them the provisioning service, or let a test do that; end all of it at the end."""
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(running_stack(folder, say=print, durable=False))
        own = await open_pool(stack.databases["provisioning"].app)
        exits.push_async_callback(own.close)
        cloud = HoldingCloud(functools.partial(claimed_steps, own))
        exits.callback(cloud.close)
        exits.callback(cloud.forget)
        cloud.found()
        process = ServiceProcess("provisioning", _told(stack, cloud), folder)
        exits.callback(process.kill)
        bus = RabbitBus(stack.environment["onboarding"]["TENURE_ONBOARDING_AMQP_URL"], name="silos")
        exits.push_async_callback(bus.close)
        silos = Silos(cloud, own, bus, process)
        for work in (silos.watch(), silos.listen()):
            exits.push_async_callback(_ended, asyncio.create_task(work))
        exits.callback(cloud.let_go)
        yield silos


async def _ended(task: asyncio.Task[None]) -> None:
    """End what went on beside the test, and say why if it has ended by itself."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _told(stack: Stack, cloud: HoldingCloud) -> dict[str, str]:
    of_the_driver = {
        "REGION": REGION,
        "ENDPOINT_URL": cloud.url,
        "MANAGEMENT_ROLE_ARN": MANAGEMENT_ROLE,
        "MAIL_PREFIX": "aws",
        "MAIL_DOMAIN": "example.org",
        "ORGANIZATIONAL_UNIT_ID": cloud.unit_id,
        "TOPIC_ARN": TOPIC,
    }
    return {
        **stack.environment["provisioning"],
        **{f"TENURE_PROVISIONING_AWS_{name}": value for name, value in of_the_driver.items()},
        "AWS_ACCESS_KEY_ID": "ours",
        "AWS_SECRET_ACCESS_KEY": "ours",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
