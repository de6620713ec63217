"""Between the pure saga core and the tables: lock, advance, save, and make the messages that follow."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from services.onboarding import accounts, queries, tracing
from services.onboarding.definition import Context, Definition
from services.onboarding.lifecycles import DEFINITIONS
from services.onboarding.saga import (
    Action,
    Advanced,
    DeadlinePassed,
    Input,
    Notice,
    Progressed,
    Send,
    TimerDue,
    advance,
)
from services.onboarding.storage import Stored, history_rows, load, step_row, workflow_row
from services.onboarding.workflow import PlannedStep, Workflow
from shared.clock import Clock
from shared.contracts import onboarding as contracts
from shared.contracts.base import Message
from shared.ids import Ids
from shared.messaging.event import Event, Outgoing
from shared.messaging.subscriptions import NewerCodeNeededError
from shared.messaging.topology import STATUS_EXCHANGE, exchange_of
from shared.postgres import Connection
from shared.service import NotReadyError
from shared.tracing import spans

SERVICE = "onboarding"


class UnknownWorkflowError(Exception):
    """Something was told of nothing that was asked: there is no such workflow or step, or the step asks another."""


@dataclass(frozen=True)
class Acted:
    """What an operator's action has done.

    Attributes:
        before: the workflow as it was found.
        after: the workflow as it is stored.
        outgoing: what follows.
    """

    before: Stored
    after: Stored
    outgoing: Sequence[Outgoing]


@dataclass(frozen=True)
class Answer:
    """What another service told about a step of a workflow.

    Attributes:
        publisher: which service told it.
        to: routing key of the ask or undo that it answers.
        happened: what the core makes of it.
        traceparent: of its handling, where that is traced.
    """

    workflow_id: UUID
    step: str
    publisher: str
    to: str | None
    happened: Input
    traceparent: str | None = None


class Engine:
    """Advances stored workflows and says what follows.

    Args:
        definitions: every definition that a workflow may have started with, by name and version.
    """

    def __init__(
        self, *, clock: Clock, ids: Ids, definitions: Mapping[tuple[str, int], Definition] = DEFINITIONS
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._definitions = definitions

    async def check(self, connection: Connection) -> None:
        """Return if every workflow that has not ended can go on with the definitions that there are.

        Raises:
            NotReadyError: this code lacks a definition or one of its steps; naming them.
        """
        unknown = [
            f"{row['name']} version {row['version']}, {row['step']}"
            for row in await queries.active_definitions(connection)
            if row["step"] not in self._steps(row["name"], row["version"])
        ]
        if unknown:
            raise NotReadyError(f"workflows run steps that this code does not have: {'; '.join(sorted(unknown))}")

    def _steps(self, name: str, version: int) -> Collection[str]:
        definition = self._definitions.get((name, version))
        return definition.steps if definition else ()

    async def take(self, connection: Connection, answers: Sequence[Answer]) -> list[Outgoing]:
        """Take answers into account, in order, under lock.

        Raises:
            UnknownWorkflowError: one is for a workflow or step that does not exist, or that asked something else, or
                somebody else.
            NewerCodeNeededError: one is for a workflow that a newer release has begun.
        """
        rows = await queries.lock_workflows(connection, [answer.workflow_id for answer in answers])
        stored = await load(connection, rows)
        self._leave_to_newer_code(stored.values())
        for answer in answers:
            _refuse_unknown(stored, answer)
        return await self._run(
            connection, stored, [(answer.workflow_id, answer.happened, answer.traceparent) for answer in answers]
        )

    async def act(self, connection: Connection, workflow_id: UUID, action: Action) -> Acted | None:
        """Take an operator's action into account; return what it has done, or None if there is no such workflow.

        Raises:
            ForbiddenError: the state of the workflow forbids it.
            NewerCodeNeededError: a newer release has begun the workflow.
        """
        stored = await load(connection, await queries.lock_workflows(connection, [workflow_id]))
        if not stored:
            return None
        self._leave_to_newer_code(stored.values())
        before = stored[workflow_id]
        outgoing = await self._run(connection, stored, [(workflow_id, action, spans.current())])
        return Acted(before, stored[workflow_id], outgoing)

    async def take_due(self, connection: Connection, *, limit: int) -> tuple[int, list[Outgoing]]:
        """Let timers that have gone off take effect; return of how many workflows, and what follows.

        Raises:
            NewerCodeNeededError: a newer release has begun one of the workflows.
        """
        now = self._clock.now()
        stored = await load(connection, await queries.lock_due_workflows(connection, now=now, limit=limit))
        self._leave_to_newer_code(stored.values())
        inputs = [
            (workflow_id, each, None) for workflow_id in stored for each in _due(stored[workflow_id].workflow, now)
        ]
        return len(stored), await self._run(connection, stored, inputs)

    def _leave_to_newer_code(self, stored: Iterable[Stored]) -> None:
        for each in stored:
            if (each.definition, each.version) not in self._definitions:
                raise NewerCodeNeededError(f"workflow {each.workflow.id} runs {each.definition} version {each.version}")

    def first(self, stored: Stored, happened: Input, *, because: str | None = None) -> tuple[Advanced, list[Outgoing]]:
        """Advance a workflow that is not stored yet.

        Args:
            because: the traceparent of what made this happen.
        """
        advanced = advance(stored.workflow, happened, now=self._clock.now(), new_id=self._ids.new)
        outgoing = self._outgoing(stored, advanced)
        return tracing.trace(stored, advanced, outgoing, because=because), outgoing

    async def _run(
        self, connection: Connection, stored: dict[UUID, Stored], inputs: Sequence[tuple[UUID, Input, str | None]]
    ) -> list[Outgoing]:
        before = dict(stored)
        entries: list[dict[str, Any]] = []
        outgoing: list[Outgoing] = []
        for workflow_id, happened, because in inputs:
            advanced, messages = self.first(stored[workflow_id], happened, because=because)
            stored[workflow_id] = replace(stored[workflow_id], workflow=advanced.workflow)
            entries += history_rows(advanced.workflow, advanced.history)
            outgoing += messages
        if entries or any(stored[key].workflow != each.workflow for key, each in before.items()):
            await _save(connection, before, stored, entries)
        return outgoing

    def _outgoing(self, stored: Stored, advanced: Advanced) -> list[Outgoing]:
        now = self._clock.now()
        asks = [self._ask(stored, advanced.workflow, send, now) for send in advanced.sends]
        return asks + [each for notice in advanced.notices for each in self._notices(advanced.workflow, notice, now)]

    def _ask(self, stored: Stored, workflow: Workflow, send: Send, now: datetime) -> Outgoing:
        definition = self._definitions[stored.definition, stored.version]
        results = {name: step.result for name, step in workflow.steps.items() if step.result is not None}
        context = Context(workflow.id, workflow.tenant_id, stored.request, results)
        message = definition.message(send.step, send.ask, context)
        event = Event(send.message_id, SERVICE, now, message, workflow_id=workflow.id, step=send.step)
        return Outgoing(event.id, exchange_of(SERVICE), event.type, event.encode())

    def _notices(self, workflow: Workflow, notice: Notice, now: datetime) -> list[Outgoing]:
        """Tell everybody outside, and the services that follow workflows."""
        message = _told(workflow, notice, now)
        outside, inside = (Event(self._ids.new(), SERVICE, now, message, workflow_id=workflow.id) for _ in range(2))
        subject = notice.status if notice.topic == "status" else notice.step
        routing_key = f"{notice.topic}.{workflow.kind}.{subject}.{workflow.tenant_id}"
        return [
            Outgoing(outside.id, STATUS_EXCHANGE, routing_key, outside.encode()),
            Outgoing(inside.id, exchange_of(SERVICE), inside.type, inside.encode()),
        ]


def _due(workflow: Workflow, now: datetime) -> Iterable[Input]:
    for name, step in workflow.steps.items():
        if step.due_at is not None and step.due_at <= now:
            yield TimerDue(name)
    if workflow.deadline_at is not None and workflow.deadline_at <= now:
        yield DeadlinePassed()


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
    if isinstance(answer.happened, Progressed):
        _refuse_of_others(plan[answer.step], answer)
        return
    if answer.to is None or answer.to not in {plan[answer.step].ask, plan[answer.step].undo}:
        raise UnknownWorkflowError(f"{answer.step} is not answered by what answers {answer.to}")


def _refuse_of_others(step: PlannedStep, answer: Answer) -> None:
    """Let nobody keep waiting for somebody else."""
    if answer.publisher != step.service:
        raise UnknownWorkflowError(f"{answer.publisher} is not at work on {step.name}, but {step.service}")


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
    was_final = {key for key, each in before.items() if each.workflow.status.is_final}
    if ended := [after[each.id] for each in changed if each.status.is_final and each.id not in was_final]:
        await accounts.settle(connection, ended)
