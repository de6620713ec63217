"""How a step is stored: the job, the environment, the answer and what is told of it, in one transaction."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from services.provisioning.drivers import Outcome
from services.provisioning.jobs.answers import answer_of
from services.provisioning.jobs.course import Advanced, advance
from services.provisioning.jobs.job import Job, Settings, State
from services.provisioning.queries import environments, jobs
from shared.clock import Clock
from shared.contracts.base import Fact
from shared.contracts.provisioning import StepProgressed
from shared.messaging import barrier, outbox
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Outgoing
from shared.postgres import Connection, Pool, transaction
from shared.tracing.messages import trace_making


@dataclass(frozen=True, slots=True)
class Held:
    """A job that a worker has claimed.

    Attributes:
        job: as it was claimed.
        environment: as it was then.
        claim: the hold on it.
    """

    job: Job
    environment: Settings | None
    claim: UUID


@dataclass(frozen=True, slots=True)
class Settled:
    """One job of a batch that is being settled: as it was, and what becomes of it."""

    job: Job
    environment: Settings | None
    advanced: Advanced


class Settling:
    """Stores what drivers say, and answers for jobs that have ended."""

    def __init__(self, pool: Pool, dispatch: Dispatch, *, clock: Clock) -> None:
        self._pool = pool
        self._dispatch = dispatch
        self._clock = clock

    async def settle(self, outcomes: Sequence[tuple[Held, Outcome]]) -> list[Outgoing]:
        """Store what was said of some jobs, those left out that this worker does not hold any more.

        Returns:
            What is to be sent, as it stands in the outbox.
        """
        async with transaction(self._pool) as connection:
            settled = await self._advance(connection, outcomes)
            outgoing = await self.answers(connection, settled)
            await self._store(connection, settled)
            await outbox.insert(connection, outgoing, now=self._clock.now())
        return outgoing

    async def _advance(self, connection: Connection, outcomes: Sequence[tuple[Held, Outcome]]) -> list[Settled]:
        # Whoever takes a job back locks in this order too: the operation, then the job.
        states = await barrier.lock(connection, [held.job.key for held, _ in outcomes])
        said = {held.job.job_id: (held, outcome) for held, outcome in outcomes}
        rows = await jobs.lock_claimed(connection, list(said), [held.claim for held, _ in said.values()])
        return [_settled(row, *said[row["job_id"]], is_wanted=_is_wanted(row, states)) for row in rows]

    async def answers(self, connection: Connection, settled: Iterable[Settled]) -> list[Outgoing]:
        """Return what is said of jobs: answers to those that have ended, which the barrier remembers, and progress."""
        ended = [(each.job, answer_of(each.job, each.advanced)) for each in settled if each.advanced.has_ended]
        await barrier.remember(connection, {job.key: answer for job, answer in ended if _is_remembered(job)})
        answers = [self._say(job, answer) for job, answer in ended]
        return answers + [self._say(each.job, _progress(each)) for each in settled if each.advanced.said]

    def _say(self, job: Job, fact: Fact) -> Outgoing:
        answer = self._dispatch.answer(fact, to=job.key, causation_id=job.ask_id)
        trace_making([answer], because=job.traceparent)
        return answer

    async def _store(self, connection: Connection, settled: Sequence[Settled]) -> None:
        now = self._clock.now()
        going_on = [(each.advanced.job, now + each.advanced.after) for each in settled if each.advanced.job]
        if going_on:
            await jobs.store(connection, [_row(*each) for each in going_on])
        if ended := [each.job.job_id for each in settled if each.advanced.job is None]:
            await jobs.delete(connection, ended)
        await _store_environments(connection, settled)

    async def tell(self, *, before: datetime, patience: int, limit: int) -> list[Outgoing]:
        """Say of jobs of which nobody has heard since a moment that they are still at work."""
        async with transaction(self._pool) as connection:
            now = self._clock.now()
            rows = await jobs.take_untold(connection, now=now, before=before, patience=patience, limit=limit)
            outgoing = [self._say(job, _heartbeat(job)) for job in map(Job.of, rows)]
            await outbox.insert(connection, outgoing, now=now)
        return outgoing


def _is_wanted(row: asyncpg.Record, states: Mapping[barrier.Key, str]) -> bool:
    """Tell whether the job was not taken back, by a process of the release before included, which knows no jobs."""
    return states.get((row["workflow_id"], row["step"])) != "undone"


def _settled(row: asyncpg.Record, held: Held, outcome: Outcome, *, is_wanted: bool) -> Settled:
    job = Job.of(row)
    environment = environment_of(row)
    if held.job.is_going_back or (is_wanted and not job.is_going_back):
        return Settled(job, environment, advance(job, environment, outcome))
    # Taken back while this step was under way: what it has made is stored, and goes on the way back.
    reached = advance(held.job, environment, outcome)
    back = replace(reached.job or job, state=State.UNDOING, ask_id=job.ask_id, stage="", attempts=0, failure=None)
    kept = reached.environment or environment
    return Settled(job, environment, Advanced(job=back, environment=kept))


def environment_of(row: asyncpg.Record) -> Settings | None:
    """Read the environment that comes with a job."""
    return Settings.of(row["environment"]) if row["environment"] is not None else None


def _is_remembered(job: Job) -> bool:
    """Tell whether the barrier answers those who ask again: of what was undone it has closed the operation."""
    return job.state is not State.UNDOING


def _progress(settled: Settled) -> Fact:
    advanced = settled.advanced
    stage = advanced.job.stage if advanced.job else ""
    return _told(settled.job, stage, advanced.said)


def _heartbeat(job: Job) -> Fact:
    return _told(job, job.stage, job.said)


def _told(job: Job, stage: str, said: str | None) -> Fact:
    return StepProgressed(tenant_id=job.tenant_id, stage=stage or job.operation, detail=said)


def _row(job: Job, due_at: datetime) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        **dataclasses.asdict(job.leg),
        "ahead": [dataclasses.asdict(leg) for leg in job.ahead],
        "behind": [dataclasses.asdict(leg) for leg in job.behind],
        "state": job.state,
        "stage": job.stage,
        "notes": job.notes,
        "failure": dataclasses.asdict(job.failure) if job.failure else None,
        "attempts": job.attempts,
        "said": job.said,
        "due_at": None if job.state is State.DONE else due_at,
    }


async def _store_environments(connection: Connection, settled: Sequence[Settled]) -> None:
    if removed := [
        each.environment.tenant_id for each in settled if each.environment and not each.advanced.environment
    ]:
        await environments.delete(connection, removed)
        await jobs.forget_done(connection, removed, [])  # of a tenant whose own environment is gone
    changed = [
        (each.environment, each.advanced.environment)
        for each in settled
        if each.environment and each.advanced.environment and each.environment != each.advanced.environment
    ]
    if changed:
        await environments.store(connection, [_columns(after) for _, after in changed])
    deployed = {after.tenant_id: after.products for before, after in changed if before.products != after.products}
    if deployed:
        await environments.set_deployments(connection, deployed)


def _columns(environment: Settings) -> dict[str, Any]:
    columns: dict[str, Any] = orjson.loads(orjson.dumps(dataclasses.asdict(environment), default=str))
    return columns
