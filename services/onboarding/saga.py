"""The saga engine: a pure function from a workflow and an input to the workflow and what to send, remember and tell.

    advance(workflow, input, now, ids) -> Advanced(workflow, sends, history, notices)

No I/O, no clock, no contracts: it is tested over every order of replies, timeouts and duplicates. Steps run as soon as
all that they come ``after`` have succeeded; they are undone as soon as all that came after them are. An unknown
outcome (a step that did not answer in time) is undone too; participants guard against the rest with their barrier.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

NEEDS_ATTENTION_AFTER = 8
"""Attempts of one undo after which a person is called; it goes on being tried."""

_LONGEST_BACKOFF = 600.0
_MOST_DOUBLINGS = 60


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


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step as the workflow will run it, frozen when it starts.

    Attributes:
        after: the steps that must have succeeded before.
        ask: routing key of what is asked; ``undo`` of what takes it back.
        timeout: seconds to wait for an answer.
        attempts: how often it is asked before it has failed.
        backoff: seconds before the second attempt; doubled for each further one.
    """

    name: str
    service: str
    after: tuple[str, ...]
    ask: str
    undo: str
    timeout: float
    attempts: int
    backoff: float


@dataclass(frozen=True, slots=True)
class Step:
    """What has become of one step.

    Attributes:
        attempts: how often it was asked; ``undo_attempts``: how often its undo was.
        may_have_effect: whether the participant may have done something that is not undone.
        ask_id: the message of the latest attempt, or of the latest attempt of the undo.
        due_at: when its timer goes off; None while there is nothing to wait for.
        result: what the participant answered.
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
        seq: the number of its last history entry.
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


@dataclass(frozen=True, slots=True)
class Started:
    """Input: the workflow was accepted."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Input: a participant did what was asked."""

    step: str
    ask_id: UUID | None
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """Input: a participant refused, and nothing has changed there.

    Attributes:
        retryable: whether asking again may succeed; then an earlier attempt that is still under way may succeed too.
    """

    step: str
    ask_id: UUID | None
    code: str
    detail: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Undone:
    """Input: a participant took a step back, or found that there was nothing to take back."""

    step: str
    ask_id: UUID | None


@dataclass(frozen=True, slots=True)
class TimerDue:
    """Input: a step's timer went off."""

    step: str


Input = Started | Succeeded | Refused | Undone | TimerDue


@dataclass(frozen=True, slots=True)
class Send:
    """Output: ask a participant, or ask it to undo."""

    step: str
    ask: str
    message_id: UUID
    attempt: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Output: a line of the history; never changed, never removed."""

    seq: int
    at: datetime
    kind: str
    step: str | None = None
    attempt: int | None = None
    message_id: UUID | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notice:
    """Output: something that everybody outside is told.

    Attributes:
        topic: ``status``, ``error`` or ``retry``.
        status: of the workflow; ``started`` is told first.
    """

    topic: str
    status: str
    step: str | None = None
    attempt: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Advanced:
    """What `advance` makes of a workflow and an input."""

    workflow: Workflow
    sends: Sequence[Send]
    history: Sequence[Entry]
    notices: Sequence[Notice]


def planned(workflow_id: UUID, kind: str, tenant_id: str, plan: Sequence[PlannedStep]) -> Workflow:
    """Return a workflow of which no step has begun."""
    return Workflow(workflow_id, kind, tenant_id, tuple(plan), {step.name: Step() for step in plan})


def advance(workflow: Workflow, happened: Input, *, now: datetime, new_id: Callable[[], UUID]) -> Advanced:
    """Take one input into account.

    An answer that changes nothing (late, repeated, of a finished workflow) is still recorded in the history; a timer
    that is early or has nothing to wait for is not.

    Args:
        new_id: gives each message that is sent its id.
    """
    turn = _Turn(workflow, now, new_id)
    match happened:
        case Started():
            turn.start()
        case Succeeded():
            turn.succeed(happened)
        case Refused():
            turn.refuse(happened)
        case Undone():
            turn.undone(happened)
        case TimerDue():
            turn.timer_due(happened.step)
    return turn.result()


class _Turn:
    """One call of `advance`: collects what is sent, remembered and told."""

    def __init__(self, workflow: Workflow, now: datetime, new_id: Callable[[], UUID]) -> None:
        self._workflow = workflow
        self._steps = dict(workflow.steps)
        self._plan = {step.name: step for step in workflow.plan}
        self._status = workflow.status
        self._failure = workflow.failure
        self._now = now
        self._new_id = new_id
        self._sends: list[Send] = []
        self._history: list[Entry] = []
        self._notices: list[Notice] = []

    def result(self) -> Advanced:
        changed = replace(
            self._workflow,
            steps=self._steps,
            status=self._status,
            failure=self._failure,
            seq=self._workflow.seq + len(self._history),
            updated_at=self._now if self._history else self._workflow.updated_at,
            finished_at=self._workflow.finished_at or (self._now if self._status.is_final else None),
        )
        return Advanced(changed, self._sends, self._history, self._notices)

    # What can happen

    def start(self) -> None:
        if self._workflow.seq:
            self._record("late_start")
            return
        self._record("started")
        self._notices.append(Notice("status", "started"))
        self._go_forward()

    def succeed(self, answer: Succeeded) -> None:
        step = self._steps[answer.step]
        if step.status is not StepStatus.RUNNING or self._status is not Status.RUNNING:
            self._record("late_success", answer.step, message_id=answer.ask_id)
            return
        self._change(
            answer.step,
            status=StepStatus.SUCCEEDED,
            result=answer.result,
            error=None,
            due_at=None,
            due=None,
            finished_at=self._now,
        )
        self._record("succeeded", answer.step, attempt=step.attempts, message_id=answer.ask_id)
        self._go_forward()

    def refuse(self, answer: Refused) -> None:
        step = self._steps[answer.step]
        stale = answer.retryable and (answer.ask_id != step.ask_id or step.due is Due.RETRY)
        if step.status is not StepStatus.RUNNING or self._status is not Status.RUNNING or stale:
            self._record("late_refusal", answer.step, message_id=answer.ask_id, code=answer.code)
            return
        failure = Failure(answer.step, answer.code, answer.detail)
        self._record(
            "refused",
            answer.step,
            attempt=step.attempts,
            message_id=answer.ask_id,
            code=answer.code,
            detail=answer.detail,
        )
        if answer.retryable and step.attempts < self._plan[answer.step].attempts:
            self._retry_later(answer.step, failure)
        else:
            self._change(answer.step, may_have_effect=answer.retryable)
            self._fail(failure)

    def undone(self, answer: Undone) -> None:
        if self._steps[answer.step].status is not StepStatus.UNDOING or self._status.is_final:
            self._record("late_undo", answer.step, message_id=answer.ask_id)
            return
        self._change(
            answer.step,
            status=StepStatus.UNDONE,
            may_have_effect=False,
            due_at=None,
            due=None,
            finished_at=self._now,
        )
        self._record("undone", answer.step, message_id=answer.ask_id)
        self._go_back()

    def timer_due(self, name: str) -> None:
        step = self._steps[name]
        if step.due_at is None or step.due_at > self._now or self._status.is_final:
            return
        if step.status is StepStatus.UNDOING:
            self._undo_again(name)
        elif step.due is Due.RETRY:
            self._ask(name)
        elif step.attempts < self._plan[name].attempts:
            self._record("timed_out", name, attempt=step.attempts)
            self._tell_retry(name, step.attempts + 1, "no answer in time")
            self._ask(name)
        else:
            self._record("timed_out", name, attempt=step.attempts)
            self._fail(Failure(name, "timed_out", f"{self._plan[name].service} did not answer in time"))

    # Forward

    def _go_forward(self) -> None:
        for planned_step in self._workflow.plan:
            if self._steps[planned_step.name].status is StepStatus.PENDING and self._has_all(planned_step.after):
                self._ask(planned_step.name)
        if all(step.status in {StepStatus.SUCCEEDED, StepStatus.SKIPPED} for step in self._steps.values()):
            self._enter(Status.COMPLETED)

    def _has_all(self, names: Sequence[str]) -> bool:
        return all(self._steps[name].status in {StepStatus.SUCCEEDED, StepStatus.SKIPPED} for name in names)

    def _ask(self, name: str) -> None:
        plan, step = self._plan[name], self._steps[name]
        message_id = self._new_id()
        self._change(
            name,
            status=StepStatus.RUNNING,
            attempts=step.attempts + 1,
            may_have_effect=True,
            ask_id=message_id,
            due_at=self._now + timedelta(seconds=plan.timeout),
            due=Due.TIMEOUT,
            started_at=step.started_at or self._now,
        )
        self._sends.append(Send(name, plan.ask, message_id, step.attempts + 1))
        self._record("asked", name, attempt=step.attempts + 1, message_id=message_id)

    def _retry_later(self, name: str, failure: Failure) -> None:
        step = self._steps[name]
        wait = _doubled(self._plan[name].backoff, step.attempts)
        self._change(name, error=failure, due_at=self._now + timedelta(seconds=wait), due=Due.RETRY)
        self._record("retry_scheduled", name, attempt=step.attempts + 1, seconds=wait)
        self._tell_retry(name, step.attempts + 1, failure.detail)

    # Backward

    def _fail(self, failure: Failure) -> None:
        step = self._steps[failure.step]
        self._change(
            failure.step, status=StepStatus.FAILED, error=failure, due_at=None, due=None, finished_at=self._now
        )
        self._failure = failure
        self._record("failed", failure.step, attempt=step.attempts, code=failure.code, detail=failure.detail)
        self._notices.append(
            Notice("error", Status.COMPENSATING, failure.step, step.attempts, f"{failure.code}: {failure.detail}")
        )
        self._enter(Status.COMPENSATING)
        self._go_back()

    def _go_back(self) -> None:
        """Undo every step that may have had an effect and whose followers have none any more."""
        for planned_step in reversed(self._workflow.plan):
            step = self._steps[planned_step.name]
            if step.may_have_effect and step.status is not StepStatus.UNDOING and self._is_last(planned_step.name):
                self._ask_undo(planned_step.name)
        if not any(step.may_have_effect for step in self._steps.values()):
            self._enter(Status.COMPENSATED)

    def _is_last(self, name: str) -> bool:
        return not any(self._steps[other.name].may_have_effect for other in self._workflow.plan if name in other.after)

    def _ask_undo(self, name: str) -> None:
        plan, step = self._plan[name], self._steps[name]
        message_id = self._new_id()
        attempt = step.undo_attempts + 1
        wait = max(plan.timeout, _doubled(plan.backoff, attempt))
        self._change(
            name,
            status=StepStatus.UNDOING,
            undo_attempts=attempt,
            ask_id=message_id,
            due_at=self._now + timedelta(seconds=wait),
            due=Due.TIMEOUT,
        )
        self._sends.append(Send(name, plan.undo, message_id, attempt))
        self._record("undo_asked", name, attempt=attempt, message_id=message_id)

    def _undo_again(self, name: str) -> None:
        attempts = self._steps[name].undo_attempts
        self._record("undo_timed_out", name, attempt=attempts)
        if attempts >= NEEDS_ATTENTION_AFTER and self._status is Status.COMPENSATING:
            self._enter(Status.NEEDS_ATTENTION, step=name, error="the undo does not succeed")
        self._tell_retry(name, attempts + 1, "no answer to the undo in time")
        self._ask_undo(name)

    # Bookkeeping

    def _enter(self, status: Status, *, step: str | None = None, error: str | None = None) -> None:
        self._status = status
        self._record(status, step)
        if error is None and self._failure is not None:
            step, error = self._failure.step, f"{self._failure.code}: {self._failure.detail}"
        self._notices.append(Notice("status", status, step, error=error))

    def _tell_retry(self, name: str, attempt: int, error: str) -> None:
        self._notices.append(Notice("retry", self._status, name, attempt, error))

    def _change(self, name: str, **changes: Any) -> None:
        self._steps[name] = replace(self._steps[name], **changes)

    def _record(
        self,
        kind: str,
        step: str | None = None,
        *,
        attempt: int | None = None,
        message_id: UUID | None = None,
        **detail: Any,
    ) -> None:
        seq = self._workflow.seq + len(self._history) + 1
        self._history.append(Entry(seq, self._now, kind, step, attempt, message_id, detail))


def _doubled(seconds: float, attempt: int) -> float:
    return min(_LONGEST_BACKOFF, seconds * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))
