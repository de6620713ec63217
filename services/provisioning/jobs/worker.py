"""Who works on jobs: every replica, each job one at a time, under a claim that ends when its holder does."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

import structlog

from services.provisioning.drivers import Outcome
from services.provisioning.drivers.registry import Drivers
from services.provisioning.jobs.calls import Calls
from services.provisioning.jobs.course import PATIENCE
from services.provisioning.jobs.job import Job
from services.provisioning.jobs.settling import Held, Settling, environment_of
from services.provisioning.queries import jobs as queries
from shared.clock import Clock
from shared.failpoints import failpoint
from shared.ids import Ids
from shared.messaging.consumer import backoff
from shared.messaging.event import Outgoing
from shared.postgres import CONTENTION, Pool, is_unavailable
from shared.repeating import repeat

Send: TypeAlias = Callable[[Sequence[Outgoing]], Awaitable[None]]

log = structlog.get_logger(__name__)

CLAIM = timedelta(seconds=15)
"""How long after its holder has died a job can be taken over."""

TOLD_EVERY = timedelta(seconds=10)
"""How often whoever waits hears of a job: well within the patience of a workflow's step."""

_HOLD_SECONDS = 4.0
_POLL_SECONDS = 1.0
_TOLD_AT_ONCE = 500
_END_SECONDS = 12.0
_RELEASE_SECONDS = 2.0


class Worker:
    """Takes jobs that are due, asks their drivers for one step after the other, and stores what they say.

    Args:
        send: sends what was committed.
    """

    def __init__(
        self, pool: Pool, drivers: Drivers, calls: Calls, settling: Settling, send: Send, *, clock: Clock, ids: Ids
    ) -> None:
        self._pool = pool
        self._drivers = drivers
        self._calls = calls
        self._settling = settling
        self._send = send
        self._clock = clock
        self._ids = ids
        self._wake = asyncio.Event()
        self._held: dict[UUID, Held] = {}
        self._running: dict[asyncio.Task[None], Sequence[Held]] = {}
        self._at_driver: dict[asyncio.Task[None], str] = {}

    def wake(self) -> None:
        """Look for jobs now: there may be new ones."""
        self._wake.set()

    @property
    def running(self) -> Collection[asyncio.Task[None]]:
        """The calls that are under way."""
        return self._running.keys()

    async def run(self) -> None:
        """Work for ever; outages of the service's own database are waited out."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat(self._work_off, self._rest))
                group.create_task(self._repeat(self.hold, lambda: self._clock.sleep(_HOLD_SECONDS)))
                group.create_task(self._repeat(self.tell, lambda: self._clock.sleep(_HOLD_SECONDS)))
        finally:
            await self._stop()

    async def _repeat(self, work: Callable[[], Awaitable[Any]], rest: Callable[[], Awaitable[None]]) -> None:
        await repeat("jobs", work, rest, clock=self._clock)

    async def _rest(self) -> None:
        """Wait for news, for a call to end, or for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self._wake.wait()

    async def _work_off(self) -> None:
        while await self.look():
            pass

    async def look(self) -> int:
        """Take what is due, as much as there is room for, and begin to work on it; return how many jobs that were."""
        self._wake.clear()
        room = self._room()
        if not room:
            return 0
        now, claim = self._clock.now(), self._ids.new()
        async with self._pool.acquire() as connection:
            rows = await queries.claim(connection, room, now=now, until=now + CLAIM, claim=claim)
        if rows:
            await failpoint("job_claimed")
        for call in self._calls.group([Held(Job.of(row), environment_of(row), claim) for row in rows]):
            self._begin(call)
        return len(rows)

    def _room(self) -> dict[str, int]:
        """Return how many jobs each lane can take: as many calls as its driver is not asked yet.

        What its driver has answered is stored meanwhile; as many calls again may wait for that, and no more.
        """
        asked = Counter(self._at_driver.values())
        begun = Counter(call[0].job.lane for call in self._running.values())
        free = {
            lane: (min(capacity.at_once - asked[lane], 2 * capacity.at_once - begun[lane]), capacity.batch)
            for lane, capacity in self._drivers.lanes().items()
        }
        return {lane: calls * batch for lane, (calls, batch) in free.items() if calls > 0}

    def _begin(self, call: Sequence[Held]) -> None:
        self._held |= {held.job.job_id: held for held in call}
        task = asyncio.create_task(self._make(call), name="provisioning call")
        self._running[task] = call
        self._at_driver[task] = call[0].job.lane
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._leave_driver(task)
        self._let_go(self._running.pop(task))
        if not task.cancelled() and (error := task.exception()):
            log.error("jobs are left to their claims' end", action="call_failed", exc_info=error)
        self._wake.set()

    async def _make(self, call: Sequence[Held]) -> None:
        outcomes = await self._calls.make(call)
        self._leave_driver(asyncio.current_task())
        await self._settle(outcomes)

    def _leave_driver(self, task: asyncio.Task[Any] | None) -> None:
        """Let the driver be asked for more: it need not wait until what it said is stored."""
        if task in self._at_driver:
            del self._at_driver[task]
            self._wake.set()

    async def _settle(self, outcomes: Sequence[tuple[Held, Outcome]]) -> None:
        """Store what was said, however long the database is away; what cannot be stored holds up no other job."""
        outages = 0
        while True:
            try:
                outgoing = await self._settling.settle(outcomes)
                break
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the claim's end where it ends
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    await self._settle_one_by_one(outcomes, error)
                    return
                outages += 1
                log.warning("a step waits for the database", action="settling_unavailable", error=repr(error))
                await self._clock.sleep(backoff(outages))
        self._let_go([held for held, _ in outcomes])
        await self._send(outgoing)

    def _let_go(self, call: Sequence[Held]) -> None:
        for held in call:
            if self._held.get(held.job.job_id) is held:
                del self._held[held.job.job_id]

    async def _settle_one_by_one(self, outcomes: Sequence[tuple[Held, Outcome]], error: Exception) -> None:
        if len(outcomes) == 1:
            tenant_id = outcomes[0][0].job.tenant_id
            log.error("a job is left to its claim's end", action="not_settled", tenant_id=tenant_id, exc_info=error)
            return
        log.warning("steps not stored together, one by one", action="settling_split", error=repr(error))
        for each in outcomes:
            await self._settle([each])

    async def hold(self) -> None:
        """Keep the claims of all that is at work; end the calls of which nothing is wanted any more."""
        held = dict(self._held)
        if not held:
            return
        claims = [each.claim for each in held.values()]
        async with self._pool.acquire() as connection:
            states = await queries.hold(connection, list(held), claims, until=self._clock.now() + CLAIM)
        unwanted = {task: call for task, call in self._running.items() if self._is_unwanted(call, held, states)}
        if unwanted:
            log.info("calls ended", action="calls_ended", jobs=sum(map(len, unwanted.values())))
            await self._end(list(unwanted))
            await self._release([each for call in unwanted.values() for each in call])

    def _is_unwanted(self, call: Sequence[Held], asked: Mapping[UUID, Held], states: Mapping[UUID, str]) -> bool:
        """Tell whether a call has lost all its jobs, of those that were asked about and are still at work."""
        at_work = [each.job for each in call if asked.get(each.job.job_id) is self._held.get(each.job.job_id) is each]
        return bool(at_work) and not any(states.get(job.job_id) == job.state for job in at_work)

    async def tell(self) -> None:
        """Say of jobs that take long that they are at work, those included that wait for a worker."""
        outgoing = await self._settling.tell(
            before=self._clock.now() - TOLD_EVERY, patience=PATIENCE, limit=_TOLD_AT_ONCE
        )
        await self._send(outgoing)

    async def settle_down(self) -> None:
        """Work until nothing is due any more; for tests."""
        while await self.look() or self._running:
            if self._running:
                await asyncio.wait(self._running)

    async def _stop(self) -> None:
        """End all calls, and give their jobs back, so that nobody has to wait for the end of their claims."""
        held = list(self._held.values())
        await self._end(list(self._running))
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self._release(held)
        except Exception as error:  # noqa: BLE001 - the claims end by themselves
            log.warning("jobs are left to their claims' end", action="jobs_not_released", error=repr(error))

    async def _end(self, calls: Sequence[asyncio.Task[None]]) -> None:
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls, timeout=_END_SECONDS)

    async def _release(self, held: Sequence[Held]) -> None:
        if held:
            ids, claims = [each.job.job_id for each in held], [each.claim for each in held]
            async with self._pool.acquire() as connection:
                await queries.release(connection, ids, claims, now=self._clock.now())
        self._wake.set()
