"""The saga engine: a pure function from a workflow and an input to the workflow and what to send, remember and tell.

    advance(workflow, input, now, ids) -> Advanced(workflow, sends, history, notices)

No I/O, no clock, no contracts: it is tested over every order of replies, timeouts and duplicates. Steps run as soon as
all that they come ``after`` have succeeded; they are undone as soon as all that came after them are. An unknown
outcome (a step that did not answer in time) is undone too; participants guard against the rest with their barrier.

Once a pivot may have taken effect, a workflow only goes forward, and what fails is tried again until it succeeds.
Whatever cannot go on, forward or back, is told to a person (`needs_attention`), who has four ways to help.

A participant that needs longer than it is waited for tells how far it is. That renews the patience with it, and is no
success: attempts stay as they are, what needs attention still does, and the workflow's deadline stands.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.onboarding.workflow import Due, Failure, PlannedStep, Progress, Status, Step, StepStatus, Workflow

NEEDS_ATTENTION_AFTER = 8
"""Attempts of an undo, or of a step past the pivot, after which a person is called; it goes on being tried."""

MOST_PROGRESS = 100
"""Lines of the history that tell how far a step is, or its undo. What is told after them counts as nothing new."""

LONGEST_STANDSTILL = 3600.0
"""Seconds for which a participant that tells nothing new is waited for because it tells that it is at work."""

_LONGEST_BACKOFF = 600.0
_MOST_DOUBLINGS = 60


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
class Progressed:
    """Input: a participant is at work on a step, or on its undo; whichever attempt it was that asked for it.

    Attributes:
        stage: how far it is.
        detail: a few words for people.
    """

    step: str
    ask_id: UUID | None
    stage: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class TimerDue:
    """Input: a step's timer went off."""

    step: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Input: the workflow should have ended by now."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Input: an operator wants it undone."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Input: an operator wants whatever is waited for to be asked again now."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Input: an operator vouches for a step, or for its undo, and lets the workflow go on without it."""

    step: str
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Input: an operator takes over by hand what the workflow leaves."""

    actor: str
    reason: str


Action = Cancel | Retry | Skip | Abandon
"""What an operator can do."""

Input = Started | Succeeded | Refused | Undone | Progressed | TimerDue | DeadlinePassed | Action


class UnknownStepError(Exception):
    """An operator named a step that the workflow does not have."""


class ForbiddenError(Exception):
    """An operator's action that the state of the workflow forbids.

    Attributes:
        code: stable, machine-readable.
        detail: a sentence for people.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


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


def advance(workflow: Workflow, happened: Input, *, now: datetime, new_id: Callable[[], UUID]) -> Advanced:
    """Take one input into account.

    An answer that changes nothing (late, repeated, of a finished workflow) is still recorded in the history; a timer
    that is early or has nothing to wait for is not, nor is progress that is late or nothing new.

    Args:
        new_id: gives each message that is sent its id.

    Raises:
        ForbiddenError: it is an operator's action that the workflow's state forbids.
        UnknownStepError: it names a step that there is not.
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
        case Progressed():
            turn.progressed(happened)
        case TimerDue():
            turn.timer_due(happened.step)
        case DeadlinePassed():
            turn.deadline_passed()
        case _:
            turn.act(happened)
    return turn.result()


class _Turn:
    """One call of `advance`: collects what is sent, remembered and told."""

    def __init__(self, workflow: Workflow, now: datetime, new_id: Callable[[], UUID]) -> None:
        self._workflow = workflow
        self._steps = dict(workflow.steps)
        self._plan = {step.name: step for step in workflow.plan}
        self._status = workflow.status
        self._failure = workflow.failure
        self._deadline_at = workflow.deadline_at
        self._now = now
        self._new_id = new_id
        self._sends: list[Send] = []
        self._history: list[Entry] = []
        self._notices: list[Notice] = []

    def result(self) -> Advanced:
        is_final = self._status.is_final
        changed = replace(
            self._workflow,
            steps=self._steps,
            status=self._status,
            failure=self._failure,
            seq=self._workflow.seq + len(self._history),
            updated_at=self._now if self._history else self._workflow.updated_at,
            finished_at=self._workflow.finished_at or (self._now if is_final else None),
            deadline_at=None if is_final else self._deadline_at,
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
        if step.status is not StepStatus.RUNNING or not self._is_going_forward:
            self._record("late_success", answer.step, message_id=answer.ask_id)
            return
        self._finish(answer.step, StepStatus.SUCCEEDED, result=answer.result, error=None)
        self._record("succeeded", answer.step, attempt=step.attempts, message_id=answer.ask_id)
        self._go_forward()

    def refuse(self, answer: Refused) -> None:
        step = self._steps[answer.step]
        if step.status is not StepStatus.RUNNING or not self._is_going_forward or _is_stale(answer, step):
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
        self._change(answer.step, may_have_effect=answer.retryable)
        if self._is_past_pivot or (answer.retryable and step.attempts < self._plan[answer.step].attempts):
            self._retry_later(failure, attention=not answer.retryable)
        else:
            self._fail(failure)

    def undone(self, answer: Undone) -> None:
        if self._steps[answer.step].status is not StepStatus.UNDOING or self._status.is_final:
            self._record("late_undo", answer.step, message_id=answer.ask_id)
            return
        self._finish(answer.step, StepStatus.UNDONE, may_have_effect=False)
        self._record("undone", answer.step, message_id=answer.ask_id)
        self._go_back()

    def progressed(self, told: Progressed) -> None:
        step = self._steps[told.step]
        if step.due is not Due.TIMEOUT:
            return
        if _is_news(told, step.progress):
            lines = step.progress.lines + 1 if step.progress else 1
            self._change(told.step, progress=Progress(told.stage, told.detail, self._now, lines))
            self._record("progressed", told.step, message_id=told.ask_id, stage=told.stage, detail=told.detail)
        self._wait_on(told.step)

    def _wait_on(self, name: str) -> None:
        """Be as patient from now on as after the last ask, but not for ever with what does not get on."""
        plan, step = self._plan[name], self._steps[name]
        assert step.progress is not None
        assert step.due_at is not None
        is_undo = step.status is StepStatus.UNDOING
        wait = _patience_with_undo(plan, step.undo_attempts) if is_undo else _patience(plan, step.attempts)
        due_at = min(self._now + wait, step.progress.at + timedelta(seconds=LONGEST_STANDSTILL))
        if due_at > step.due_at:
            self._change(name, due_at=due_at)

    def timer_due(self, name: str) -> None:
        step = self._steps[name]
        if step.due_at is None or step.due_at > self._now or self._status.is_final:
            return
        if step.due is Due.WAIT:
            self._finish(name, StepStatus.SUCCEEDED)
            self._record("waited", name)
            self._go_forward()
        elif step.status is StepStatus.UNDOING:
            self._undo_again(name)
        elif step.due is Due.RETRY:
            self._ask(name)
        else:
            self._time_out(name)

    def _time_out(self, name: str) -> None:
        plan, attempts = self._plan[name], self._steps[name].attempts
        self._record("timed_out", name, attempt=attempts)
        if self._is_past_pivot or attempts < plan.attempts:
            self._call_for_attention(name, attempts, "the step does not succeed")
            self._tell_retry(name, attempts + 1, "no answer in time")
            self._ask(name)
        else:
            self._fail(Failure(name, "timed_out", f"{plan.service} did not answer in time"))

    def deadline_passed(self) -> None:
        if self._deadline_at is None or self._deadline_at > self._now or self._status.is_final:
            return
        self._deadline_at = None
        self._record("deadline_passed")
        if self._is_going_forward and not self._is_past_pivot:
            self._turn_back(Failure(self._place(), "deadline_exceeded", "the workflow did not end in time"))
        elif self._status is not Status.NEEDS_ATTENTION:
            self._enter(Status.NEEDS_ATTENTION, step=self._place(), error="the workflow did not end in time")

    # What operators can do

    def act(self, action: Action) -> None:
        match action:
            case Cancel():
                self._cancel(action)
            case Retry():
                self._retry(action)
            case Skip():
                self._skip(action)
            case Abandon():
                self._abandon(action)

    def _cancel(self, action: Cancel) -> None:
        self._refuse_if_final()
        if not self._is_going_forward:
            raise ForbiddenError("already_undoing", "The workflow is being undone already.")
        if self._is_past_pivot:
            raise ForbiddenError("past_point_of_no_return", "The workflow has done what cannot be undone.")
        self._record("cancel_requested", actor=action.actor, reason=action.reason)
        self._turn_back(Failure(self._place(), "cancelled", action.reason))

    def _retry(self, action: Retry) -> None:
        self._refuse_if_final()
        waiting = [name for name, step in self._steps.items() if step.due in {Due.TIMEOUT, Due.RETRY}]
        if not waiting:
            raise ForbiddenError("nothing_to_retry", "The workflow waits for no answer.")
        self._record("retry_requested", actor=action.actor, reason=action.reason)
        if self._status is Status.NEEDS_ATTENTION:
            self._enter(self._direction)
        for name in waiting:
            self._change(name, progress=None)
            if self._steps[name].status is StepStatus.UNDOING:
                self._ask_undo(name)
            else:
                self._ask(name)

    def _skip(self, action: Skip) -> None:
        if action.step not in self._steps:
            raise UnknownStepError(action.step)
        self._refuse_unless_stuck()
        status = self._steps[action.step].status
        if status not in {StepStatus.RUNNING, StepStatus.UNDOING}:
            raise ForbiddenError("not_waiting", f"The workflow does not wait for {action.step}.")
        self._finish(action.step, StepStatus.SKIPPED, may_have_effect=False)
        self._record("skipped", action.step, actor=action.actor, reason=action.reason)
        if self._is_going_forward:
            self._go_forward()
        else:
            self._go_back()

    def _abandon(self, action: Abandon) -> None:
        self._refuse_unless_stuck()
        self._record("abandon_requested", actor=action.actor, reason=action.reason)
        self._enter(Status.ABANDONED, step=self._place(), error=f"abandoned: {action.reason}")
        for name, step in self._steps.items():
            if step.due_at is not None:
                self._change(name, due_at=None, due=None)

    def _refuse_if_final(self) -> None:
        if self._status.is_final:
            raise ForbiddenError("workflow_ended", f"The workflow is {self._status} already.")

    def _refuse_unless_stuck(self) -> None:
        self._refuse_if_final()
        if self._status is not Status.NEEDS_ATTENTION:
            raise ForbiddenError("not_stuck", f"The workflow is {self._status}; it does not need attention.")

    # Where it stands

    @property
    def _is_going_forward(self) -> bool:
        return self._failure is None and not self._status.is_final

    @property
    def _direction(self) -> Status:
        return Status.RUNNING if self._failure is None else Status.COMPENSATING

    @property
    def _is_past_pivot(self) -> bool:
        return any(
            step.pivot and (self._steps[step.name].may_have_effect or self._steps[step.name].status in _DONE)
            for step in self._workflow.plan
        )

    def _place(self) -> str:
        """Name the step at which the workflow stands: the first that is at work, or else the first that is to come."""
        at_work = [step.name for step in self._workflow.plan if self._steps[step.name].due_at is not None]
        pending = [step.name for step in self._workflow.plan if self._steps[step.name].status is StepStatus.PENDING]
        return (at_work or pending or [self._workflow.plan[-1].name])[0]

    # Forward

    def _go_forward(self) -> None:
        for step in self._workflow.plan:
            if self._steps[step.name].status is StepStatus.PENDING and self._has_all(step.after):
                self._begin(step)
        if all(step.status in _DONE for step in self._steps.values()):
            self._enter(Status.COMPLETED)
        else:
            self._recover()

    def _has_all(self, names: Sequence[str]) -> bool:
        return all(self._steps[name].status in _DONE for name in names)

    def _begin(self, step: PlannedStep) -> None:
        if step.ask is not None:
            self._ask(step.name)
            return
        due_at = self._now + timedelta(seconds=step.timeout)
        self._change(step.name, status=StepStatus.RUNNING, due_at=due_at, due=Due.WAIT, started_at=self._now)
        self._record("waiting", step.name, seconds=step.timeout)

    def _ask(self, name: str) -> None:
        plan, step = self._plan[name], self._steps[name]
        assert plan.ask is not None
        message_id = self._new_id()
        attempt = step.attempts + 1
        self._change(
            name,
            status=StepStatus.RUNNING,
            attempts=attempt,
            may_have_effect=True,
            ask_id=message_id,
            due_at=self._now + _patience(plan, attempt),
            due=Due.TIMEOUT,
            started_at=step.started_at or self._now,
        )
        self._sends.append(Send(name, plan.ask, message_id, attempt))
        self._record("asked", name, attempt=attempt, message_id=message_id)

    def _retry_later(self, failure: Failure, *, attention: bool) -> None:
        name, attempts = failure.step, self._steps[failure.step].attempts
        wait = _doubled(self._plan[name].backoff, attempts)
        self._change(name, error=failure, due_at=self._now + timedelta(seconds=wait), due=Due.RETRY, progress=None)
        self._record("retry_scheduled", name, attempt=attempts + 1, seconds=wait)
        self._call_for_attention(name, attempts, f"{failure.code}: {failure.detail}", now=attention)
        self._tell_retry(name, attempts + 1, failure.detail)

    # Backward

    def _fail(self, failure: Failure) -> None:
        step = self._steps[failure.step]
        self._finish(failure.step, StepStatus.FAILED, error=failure)
        self._record("failed", failure.step, attempt=step.attempts, code=failure.code, detail=failure.detail)
        self._notices.append(
            Notice("error", Status.COMPENSATING, failure.step, step.attempts, f"{failure.code}: {failure.detail}")
        )
        self._turn_back(failure)

    def _turn_back(self, failure: Failure) -> None:
        self._failure = failure
        self._enter(Status.COMPENSATING)
        for name, step in self._steps.items():
            if step.due is Due.WAIT:
                self._finish(name, StepStatus.UNDONE)
                self._record("undone", name)
        self._go_back()

    def _go_back(self) -> None:
        """Undo every step that may have had an effect and whose followers have none any more."""
        for planned_step in reversed(self._workflow.plan):
            step = self._steps[planned_step.name]
            if step.may_have_effect and step.status is not StepStatus.UNDOING and self._is_last(planned_step.name):
                self._change(planned_step.name, progress=None)
                self._ask_undo(planned_step.name)
        if not any(step.may_have_effect for step in self._steps.values()):
            self._enter(Status.COMPENSATED)
        else:
            self._recover()

    def _is_last(self, name: str) -> bool:
        """Tell whether nothing that comes after a step, however far, may have an effect."""
        followers = [step.name for step in self._workflow.plan if name in step.after]
        return all(not self._steps[each].may_have_effect and self._is_last(each) for each in followers)

    def _ask_undo(self, name: str) -> None:
        plan, step = self._plan[name], self._steps[name]
        assert plan.undo is not None
        message_id = self._new_id()
        attempt = step.undo_attempts + 1
        self._change(
            name,
            status=StepStatus.UNDOING,
            undo_attempts=attempt,
            ask_id=message_id,
            due_at=self._now + _patience_with_undo(plan, attempt),
            due=Due.TIMEOUT,
        )
        self._sends.append(Send(name, plan.undo, message_id, attempt))
        self._record("undo_asked", name, attempt=attempt, message_id=message_id)

    def _undo_again(self, name: str) -> None:
        attempts = self._steps[name].undo_attempts
        self._record("undo_timed_out", name, attempt=attempts)
        self._call_for_attention(name, attempts, "the undo does not succeed")
        self._tell_retry(name, attempts + 1, "no answer to the undo in time")
        self._ask_undo(name)

    # People

    def _call_for_attention(self, name: str, attempts: int, error: str, *, now: bool = False) -> None:
        is_stuck = now or (attempts >= NEEDS_ATTENTION_AFTER and (self._is_past_pivot or self._failure is not None))
        if is_stuck and self._status is not Status.NEEDS_ATTENTION:
            self._enter(Status.NEEDS_ATTENTION, step=name, error=error)

    def _recover(self) -> None:
        """Need no attention any more when nothing is left that was asked in vain."""
        if self._status is Status.NEEDS_ATTENTION and not any(map(_struggles, self._steps.values())):
            self._enter(self._direction)

    # Bookkeeping

    def _enter(self, status: Status, *, step: str | None = None, error: str | None = None) -> None:
        self._status = status
        self._record(status, step)
        if error is None and self._failure is not None:
            step, error = self._failure.step, f"{self._failure.code}: {self._failure.detail}"
        self._notices.append(Notice("status", status, step, error=error))

    def _tell_retry(self, name: str, attempt: int, error: str) -> None:
        self._notices.append(Notice("retry", self._status, name, attempt, error))

    def _finish(self, name: str, status: StepStatus, **changes: Any) -> None:
        self._change(name, status=status, due_at=None, due=None, finished_at=self._now, **changes)

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


_DONE = {StepStatus.SUCCEEDED, StepStatus.SKIPPED}


def _is_stale(refusal: Refused, step: Step) -> bool:
    """Tell whether a refusal says nothing new: one that may pass, of an earlier attempt, or one for good, repeated."""
    if refusal.retryable:
        return refusal.ask_id != step.ask_id or step.due is Due.RETRY
    return step.due is Due.RETRY and not step.may_have_effect


def _struggles(step: Step) -> bool:
    """Tell whether a step, or its undo, was asked in vain and is still waited for."""
    if step.status is StepStatus.UNDOING:
        return step.undo_attempts > 1
    return step.status is StepStatus.RUNNING and (step.attempts > 1 or step.due is Due.RETRY)


def _is_news(told: Progressed, last: Progress | None) -> bool:
    """Tell whether progress is to be written down: it differs from what was told last, and there is room for it."""
    return last is None or ((told.stage, told.detail) != (last.stage, last.detail) and last.lines < MOST_PROGRESS)


def _patience(plan: PlannedStep, attempt: int) -> timedelta:
    """Return how long to wait for an answer: longer from attempt to attempt beyond those that are planned."""
    return timedelta(seconds=plan.timeout) if attempt <= plan.attempts else _patience_with_undo(plan, attempt)


def _patience_with_undo(plan: PlannedStep, attempt: int) -> timedelta:
    """Return how long to wait for an answer to an undo."""
    return timedelta(seconds=max(plan.timeout, _doubled(plan.backoff, attempt)))


def _doubled(seconds: float, attempt: int) -> float:
    return min(_LONGEST_BACKOFF, seconds * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))
