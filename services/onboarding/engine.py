"""Between the pure saga core and the tables: lock, advance, save, and make the messages that follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from services.onboarding import queries
from services.onboarding.definition import Context, Definition
from services.onboarding.onboard import ONBOARD
from services.onboarding.saga import (
    Advanced,
    Due,
    Entry,
    Failure,
    Input,
    Notice,
    PlannedStep,
    Send,
    Status,
    Step,
    StepStatus,
    TimerDue,
    Workflow,
    advance,
)
from shared.clock import Clock
from shared.contracts import onboarding as contracts
from shared.contracts.base import Message
from shared.ids import Ids
from shared.messaging.event import Event, Outgoing
from shared.messaging.topology import STATUS_EXCHANGE, exchange_of
from shared.postgres import Connection

DEFINITIONS: Mapping[tuple[str, int], Definition] = {(each.kind, each.version): each for each in (ONBOARD,)}
"""Every definition that a running workflow may have started with, by kind and version."""

SERVICE = "onboarding"


class UnknownWorkflowError(Exception):
    """An answer is to nothing that was asked: there is no such workflow or step, or the step asks something else."""


@dataclass(frozen=True)
class Answer:
    """What another service told about a step of a workflow.

    Attributes:
        to: routing key of the ask or undo that it answers.
        happened: what the core makes of it.
    """

    workflow_id: UUID
    step: str
    to: str | None
    happened: Input


@dataclass(frozen=True)
class Stored:
    """A workflow with what the core does not look at.

    Attributes:
        version: of the definition it started with.
        request: what was accepted, JSON.
        created_at: when it was; None while that is only about to happen.
    """

    workflow: Workflow
    version: int
    request: Mapping[str, Any]
    created_at: datetime | None = None


class Engine:
    """Advances stored workflows and says what follows."""

    def __init__(self, *, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids

    async def take(self, connection: Connection, answers: Sequence[Answer]) -> list[Outgoing]:
        """Take answers into account, in order, under lock.

        Raises:
            UnknownWorkflowError: one is for a workflow or step that does not exist, or that asked something else.
        """
        rows = await queries.lock_workflows(connection, [answer.workflow_id for answer in answers])
        stored = await load(connection, rows)
        for answer in answers:
            _refuse_unknown(stored, answer)
        return await self._run(connection, stored, [(answer.workflow_id, answer.happened) for answer in answers])

    async def take_due(self, connection: Connection, *, limit: int) -> tuple[int, list[Outgoing]]:
        """Let timers that have gone off take effect; return of how many workflows, and what follows."""
        now = self._clock.now()
        stored = await load(connection, await queries.lock_due_workflows(connection, now=now, limit=limit))
        inputs = [
            (workflow_id, TimerDue(name))
            for workflow_id, each in stored.items()
            for name, step in each.workflow.steps.items()
            if step.due_at is not None and step.due_at <= now
        ]
        return len(stored), await self._run(connection, stored, inputs)

    def first(self, stored: Stored, happened: Input) -> tuple[Advanced, list[Outgoing]]:
        """Advance a workflow that is not stored yet."""
        advanced = advance(stored.workflow, happened, now=self._clock.now(), new_id=self._ids.new)
        return advanced, self._outgoing(stored, advanced)

    async def _run(
        self, connection: Connection, stored: dict[UUID, Stored], inputs: Sequence[tuple[UUID, Input]]
    ) -> list[Outgoing]:
        before = dict(stored)
        entries: list[dict[str, Any]] = []
        outgoing: list[Outgoing] = []
        for workflow_id, happened in inputs:
            advanced, messages = self.first(stored[workflow_id], happened)
            stored[workflow_id] = replace(stored[workflow_id], workflow=advanced.workflow)
            entries += history_rows(advanced.workflow, advanced.history)
            outgoing += messages
        if entries:
            await _save(connection, before, stored, entries)
        return outgoing

    def _outgoing(self, stored: Stored, advanced: Advanced) -> list[Outgoing]:
        now = self._clock.now()
        asks = [self._ask(stored, advanced.workflow, send, now) for send in advanced.sends]
        return asks + [self._notice(advanced.workflow, notice, now) for notice in advanced.notices]

    def _ask(self, stored: Stored, workflow: Workflow, send: Send, now: datetime) -> Outgoing:
        definition = DEFINITIONS[workflow.kind, stored.version]
        results = {name: step.result for name, step in workflow.steps.items() if step.result is not None}
        message = definition.message(send.step, send.ask, Context(workflow.tenant_id, stored.request, results))
        event = Event(send.message_id, SERVICE, now, message, workflow_id=workflow.id, step=send.step)
        return Outgoing(event.id, exchange_of(SERVICE), event.type, event.encode())

    def _notice(self, workflow: Workflow, notice: Notice, now: datetime) -> Outgoing:
        event = Event(self._ids.new(), SERVICE, now, _told(workflow, notice, now), workflow_id=workflow.id)
        subject = notice.status if notice.topic == "status" else notice.step
        routing_key = f"{notice.topic}.{workflow.kind}.{subject}.{workflow.tenant_id}"
        return Outgoing(event.id, STATUS_EXCHANGE, routing_key, event.encode())


def _told(workflow: Workflow, notice: Notice, now: datetime) -> Message:
    told: dict[str, type[Message]] = {
        "status": contracts.WorkflowStatusChanged,
        "error": contracts.StepFailed,
        "retry": contracts.StepRetried,
    }
    return told[notice.topic].model_validate(
        {
            "tenant_id": workflow.tenant_id,
            "workflow_id": str(workflow.id),
            "kind": workflow.kind,
            "status": notice.status,
            "step": notice.step,
            "attempt": notice.attempt,
            "error": notice.error,
            "occurred_at": now,
        }
    )


def _refuse_unknown(stored: Mapping[UUID, Stored], answer: Answer) -> None:
    if answer.workflow_id not in stored:
        raise UnknownWorkflowError(f"there is no workflow {answer.workflow_id}")
    plan = {step.name: step for step in stored[answer.workflow_id].workflow.plan}
    if answer.step not in plan:
        raise UnknownWorkflowError(f"workflow {answer.workflow_id} has no step {answer.step}")
    if answer.to not in {plan[answer.step].ask, plan[answer.step].undo}:
        raise UnknownWorkflowError(f"{answer.step} is not answered by what answers {answer.to}")


async def _save(
    connection: Connection,
    before: Mapping[UUID, Stored],
    after: Mapping[UUID, Stored],
    entries: Sequence[Mapping[str, Any]],
) -> None:
    changed = [each.workflow for key, each in after.items() if each is not before[key]]
    await queries.save_workflows(connection, [workflow_row(workflow) for workflow in changed])
    steps = [
        step_row(workflow.id, name, step)
        for workflow in changed
        for name, step in workflow.steps.items()
        if step is not before[workflow.id].workflow.steps[name]
    ]
    if steps:
        await queries.save_steps(connection, steps)
    await queries.append_history(connection, entries)
    if undone := [workflow.id for workflow in changed if workflow.status is Status.COMPENSATED]:
        await queries.free_names(connection, undone)


def workflow_row(workflow: Workflow) -> dict[str, Any]:
    """Return the columns that change while a workflow runs."""
    return {
        "id": workflow.id,
        "status": workflow.status,
        "failure": workflow.failure,
        "seq": workflow.seq,
        "updated_at": workflow.updated_at,
        "finished_at": workflow.finished_at,
    }


def step_row(workflow_id: UUID, name: str, step: Step) -> dict[str, Any]:
    """Return the columns of a step."""
    return {"workflow_id": workflow_id, "name": name, **_columns(step)}


def history_rows(workflow: Workflow, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the columns of history entries."""
    return [{"workflow_id": workflow.id, "tenant_id": workflow.tenant_id, **_columns(entry)} for entry in entries]


def _columns(instance: Step | Entry) -> dict[str, Any]:
    """Name what an instance holds; what is nested stays as it is, because copying it would cost more than the SQL."""
    return {name: getattr(instance, name) for name in instance.__slots__}


async def load(connection: Connection, rows: Sequence[asyncpg.Record]) -> dict[UUID, Stored]:
    """Make workflows of their rows and the rows of their steps, in the order of ``rows``."""
    steps: dict[UUID, dict[str, Step]] = {}
    if rows:
        for row in await queries.steps_of(connection, [row["id"] for row in rows]):
            steps.setdefault(row["workflow_id"], {})[row["name"]] = _step(row)
    return {
        row["id"]: Stored(_workflow(row, steps[row["id"]]), row["version"], row["request"], row["created_at"])
        for row in rows
    }


def _workflow(row: asyncpg.Record, steps: Mapping[str, Step]) -> Workflow:
    plan = _plan(row["plan"])
    return Workflow(
        id=row["id"],
        kind=row["kind"],
        tenant_id=row["tenant_id"],
        plan=plan,
        steps={planned.name: steps[planned.name] for planned in plan},
        status=Status(row["status"]),
        failure=Failure(**row["failure"]) if row["failure"] else None,
        seq=row["seq"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
    )


@lru_cache(maxsize=256)  # there is one text for each version of a definition
def _plan(text: str) -> tuple[PlannedStep, ...]:
    return tuple(PlannedStep(**step | {"after": tuple(step["after"])}) for step in orjson.loads(text))


def _step(row: asyncpg.Record) -> Step:
    return Step(
        status=StepStatus(row["status"]),
        attempts=row["attempts"],
        undo_attempts=row["undo_attempts"],
        may_have_effect=row["may_have_effect"],
        ask_id=row["ask_id"],
        due_at=row["due_at"],
        due=Due(row["due"]) if row["due"] else None,
        result=row["result"],
        error=Failure(**row["error"]) if row["error"] else None,
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )
