"""What a workflow is: the plan it was started with, and what has become of each step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class Status(StrEnum):
    """Where a workflow stands."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    NEEDS_ATTENTION = "needs_attention"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    ABANDONED = "abandoned"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows it."""
        return self in {Status.COMPLETED, Status.COMPENSATED, Status.ABANDONED}


class StepStatus(StrEnum):
    """Where a step of a workflow stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    SKIPPED = "skipped"


class Due(StrEnum):
    """What a step's timer means when it goes off."""

    TIMEOUT = "timeout"
    RETRY = "retry"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step as the workflow will run it, frozen when it starts.

    Attributes:
        after: the steps that must have succeeded before.
        ask: routing key of what is asked; None for a step that only lets time pass.
        undo: routing key of what takes it back; None for a step that only lets time pass, or is never taken back.
        timeout: seconds to wait for an answer, or to let pass.
        attempts: how often it is asked before it has failed.
        backoff: seconds before the second attempt; doubled for each further one.
        pivot: whether the workflow only goes forward once this step may have taken effect.
    """

    name: str
    service: str
    after: tuple[str, ...]
    ask: str | None
    undo: str | None
    timeout: float
    attempts: int
    backoff: float
    pivot: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a participant is with what it was asked, as the history has it.

    Attributes:
        detail: a few words for people.
        at: when it told this first; it may have repeated it since.
        lines: how many lines of the history tell of what it was asked.
    """

    stage: str
    detail: str | None
    at: datetime
    lines: int


@dataclass(frozen=True, slots=True)
class Step:
    """What has become of one step.

    Attributes:
        attempts: how often it was asked; ``undo_attempts``: how often its undo was.
        may_have_effect: whether the participant may have done something that is not undone.
        ask_id: the message of the latest attempt, or of the latest attempt of the undo.
        due_at: when its timer goes off; None while there is nothing to wait for.
        result: what the participant answered.
        progress: how far it was when it last told something new, of what it was asked last: the step or its undo.
        traceparent: of what it was asked last, where that was traced.
    """

    status: StepStatus = StepStatus.PENDING
    attempts: int = 0
    undo_attempts: int = 0
    may_have_effect: bool = False
    ask_id: UUID | None = None
    due_at: datetime | None = None
    due: Due | None = None
    result: Mapping[str, Any] | None = None
    error: "Failure | None" = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step failed, and with it the workflow."""

    step: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Workflow:
    """One running or finished saga.

    Attributes:
        plan: the steps it started with; a later version of the definition does not change them.
        failure: why it is undone; None while it goes forward.
        seq: the number of its last history entry.
        deadline_at: when it must have ended; None once that was taken into account.
    """

    id: UUID
    kind: str
    tenant_id: str
    plan: tuple[PlannedStep, ...]
    steps: Mapping[str, Step]
    status: Status = Status.RUNNING
    failure: Failure | None = None
    seq: int = 0
    updated_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None


def planned(
    workflow_id: UUID, kind: str, tenant_id: str, plan: Sequence[PlannedStep], *, deadline_at: datetime | None = None
) -> Workflow:
    """Return a workflow of which no step has begun."""
    steps = {step.name: Step() for step in plan}
    return Workflow(workflow_id, kind, tenant_id, tuple(plan), steps, deadline_at=deadline_at)
