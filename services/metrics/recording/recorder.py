"""Records usage events: the submissions of all requests in few transactions, each event once."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import asyncpg
import structlog

from services.metrics.meter import Meter
from services.metrics.queries import recording as queries
from services.metrics.quotas import Arrival, Quotas
from services.metrics.recording.evaluation import Measure, measure
from services.metrics.recording.event import Event
from services.metrics.recording.refusal import RefusedError
from services.metrics.recording.rollup import Rollup, hour_of
from shared.clock import Clock
from shared.failpoints import failpoint
from shared.http import Problem, overloaded
from shared.postgres import CONTENTION, Connection, Pool, is_unavailable, transaction

log = structlog.get_logger(__name__)

MOST_WAITING: Final = 20_000
"""How many events may wait for a transaction; more are turned away."""

MOST_BYTES: Final = 8 * 1024 * 1024
"""How many bytes their data may have together."""

MOST_AT_ONCE: Final = 2_000
"""How many events are recorded in one transaction, where they came in more than one request."""

TRANSACTIONS: Final = 2
"""How many transactions there are at a time."""

ACCEPTED, DUPLICATE, CONFLICT = "accepted", "duplicate", "conflict"

CONFLICT_DETAIL: Final = "Another event with this `source` and `id` was accepted before."

_ATTEMPTS = 3
_BLOCKED = RefusedError("spending_limit", "The tenant has spent what it may in this month.")

Outcome = str | RefusedError
"""What became of an event: `ACCEPTED`, `DUPLICATE`, `CONFLICT`, or why it was refused."""


@dataclass(frozen=True, slots=True)
class _Submission:
    """The events of one request.

    Attributes:
        outcomes: of each event, when they are durable.
    """

    events: Sequence[Event]
    outcomes: asyncio.Future[Sequence[Outcome]]

    @property
    def size(self) -> int:
        return sum(len(event.json) for event in self.events)


class _Taken(NamedTuple):
    """An event that can be recorded, and what it adds."""

    event: Event
    measures: list[Measure]

    @property
    def place(self) -> queries.Key:
        """What no two events share."""
        return self.event.tenant_id, self.event.key


class Recorder:
    """Records what is submitted, in the order of arrival; what has been answered is durable."""

    def __init__(self, pool: Pool, quotas: Quotas, *, clock: Clock) -> None:
        self._pool = pool
        self._quotas = quotas
        self._clock = clock
        self._meters: dict[str, Meter] = {}
        self._submissions: deque[_Submission] = deque()
        self._waiting = 0
        self._waiting_bytes = 0
        self._working = 0
        self._tasks: set[asyncio.Task[None]] = set()  # nobody else holds them

    async def record(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Record events and return what became of each.

        Raises:
            Problem: 503, too much is waiting already; nothing was taken.
            OSError: or another error of an outage. The events may have been recorded, and can be sent again.
        """
        if not events:
            return []
        submission = _Submission(events, asyncio.get_running_loop().create_future())
        self._enqueue(submission)
        if self._working < TRANSACTIONS:
            self._working += 1
            task = asyncio.create_task(self._work(), name="usage recorder")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await submission.outcomes

    def _enqueue(self, submission: _Submission) -> None:
        size = submission.size
        if self._submissions and (
            self._waiting + len(submission.events) > MOST_WAITING or self._waiting_bytes + size > MOST_BYTES
        ):
            raise overloaded()
        self._submissions.append(submission)
        self._waiting += len(submission.events)
        self._waiting_bytes += size

    def _next(self) -> list[_Submission]:
        """Take from the queue what goes into one transaction."""
        taken: list[_Submission] = []
        room = MOST_AT_ONCE
        while self._submissions and (not taken or len(self._submissions[0].events) <= room):
            submission = self._submissions.popleft()
            room -= len(submission.events)
            self._waiting -= len(submission.events)
            self._waiting_bytes -= submission.size
            taken.append(submission)
        return taken

    async def _work(self) -> None:
        try:
            while self._submissions:
                await self._settle(self._next())
        finally:
            # At once: whoever submits before the task's callbacks run must not count on it.
            self._working -= 1

    async def _settle(self, submissions: Sequence[_Submission]) -> None:
        """Record submissions together; where that fails for what one of them says, each by itself."""
        try:
            outcomes = await self._record([event for each in submissions for event in each.events])
        except Exception as error:
            if len(submissions) > 1 and not _is_outage(error):
                log.exception("usage recorded apart", action="usage_apart")
                for each in submissions:
                    await self._settle([each])
                return
            for each in submissions:
                _fail(each, error)
            return
        begin = 0
        for each in submissions:
            end = begin + len(each.events)
            if not each.outcomes.done():  # it is when nobody waits any more
                each.outcomes.set_result(outcomes[begin:end])
            begin = end

    async def _record(self, events: Sequence[Event]) -> list[Outcome]:
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._record_once(events)
            except CONTENTION as error:
                log.warning("usage recorded again", action="usage_contention", error=repr(error))
        return await self._record_once(events)

    async def _record_once(self, events: Sequence[Event]) -> list[Outcome]:
        try:
            async with transaction(self._pool) as connection:
                outcomes = await self._record_in(connection, events)
                await failpoint("usage_inserted")
        except asyncpg.CheckViolationError as error:
            if error.constraint_name is not None:
                raise
            raise _no_partition() from error
        await failpoint("usage_committed")
        return outcomes

    async def _record_in(self, connection: Connection, events: Sequence[Event]) -> list[Outcome]:
        catalog = await self._catalog(connection)
        tracked = await queries.tracked(connection, {event.tenant_id for event in events})
        zones = {tenant_id: zone for tenant_id, (zone, _) in tracked.items()}
        judged = [_judged(event, catalog, zones) for event in events]
        taken = [each for each in judged if isinstance(each, _Taken)]
        firsts = {each.place: each for each in reversed(taken)}
        now = self._clock.now()
        barred = {place for place in firsts if tracked[place[0]][1]}
        sent = {place: each.event for place, each in firsts.items() if place not in barred}
        fresh = await queries.admit(connection, sent, now=now)
        said: dict[queries.Key, bytes | None] = {place: firsts[place].event.digest for place in fresh}
        if repeated := firsts.keys() - fresh:
            said |= await queries.digests(connection, repeated)
        arrived = [each for each in taken if each.place in fresh and firsts[each.place] is each]
        refused = dict(await self._keep(connection, arrived, Arrival(now, zones)))
        # What was accepted before stays so: whoever sends it again must not take it for lost.
        refused |= dict.fromkeys((place for place in barred if said[place] is None), _BLOCKED)
        return [_outcome(each, fresh, firsts, said, refused) for each in judged]

    async def _keep(
        self, connection: Connection, arrived: Sequence[_Taken], arrival: Arrival
    ) -> Mapping[queries.Key, RefusedError]:
        """Keep events that were let in, and add them up; return those that quotas keep out."""
        rollup = _rollup(arrived, arrival)
        refused = await self._quotas.take(connection, arrived, rollup, arrival)
        if refused:
            arrived = [each for each in arrived if each.place not in refused]
            rollup = _rollup(arrived, arrival)
        if arrived:
            await queries.insert(connection, [event for event, _ in arrived], now=arrival.now)
            if rollup.values:
                rollup.totals |= await queries.add_values(connection, rollup.values)
            await queries.add_hours(connection, rollup.totals)
            await queries.add_dimensions(connection, rollup.totals)
        return refused

    async def _catalog(self, connection: Connection) -> Mapping[str, Sequence[Meter]]:
        """Return the meters by the type of the events that they take; each is read once, because it never changes."""
        catalog: defaultdict[str, list[Meter]] = defaultdict(list)
        for row in await queries.meters(connection):
            if row["name"] not in self._meters:
                self._meters[row["name"]] = Meter.of(row)
            catalog[row["event_type"]].append(self._meters[row["name"]])
        return catalog


def _judged(event: Event, catalog: Mapping[str, Sequence[Meter]], zones: Mapping[str, str]) -> _Taken | RefusedError:
    if event.tenant_id not in zones:
        return RefusedError("unknown_tenant", f"Tenant {event.tenant_id} is not metered.", "/subject")
    try:
        return _Taken(event, measure(event, catalog))
    except RefusedError as error:
        return error


def _rollup(taken: Sequence[_Taken], arrival: Arrival) -> Rollup:
    rollup = Rollup()
    for event, measures in taken:
        rollup.add(event, hour_of(event.happened_at, arrival.time_zones[event.tenant_id]), measures)
    return rollup


def _outcome(
    judged: _Taken | RefusedError,
    fresh: Collection[queries.Key],
    firsts: Mapping[queries.Key, _Taken],
    said: Mapping[queries.Key, bytes | None],
    refused: Mapping[queries.Key, RefusedError],
) -> Outcome:
    if isinstance(judged, RefusedError):
        return judged
    place = judged.place
    if place in refused:
        return refused[place]
    if place in fresh and firsts[place] is judged:
        return ACCEPTED
    return DUPLICATE if said[place] == judged.event.digest else CONFLICT


def _no_partition() -> Problem:
    """Return the problem of a day whose partition is still to be made, as at the very first start."""
    detail = "What is needed to take usage is still being made. Nothing was taken; try again."
    return Problem(503, code="unavailable", detail=detail, headers={"Retry-After": "1"})


def _is_outage(error: Exception) -> bool:
    return is_unavailable(error) or isinstance(error, (*CONTENTION, Problem))


def _fail(submission: _Submission, error: Exception) -> None:
    if not submission.outcomes.done():
        submission.outcomes.set_exception(error)
