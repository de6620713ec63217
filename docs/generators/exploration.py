"""The saga, tried out: every input in every state that can be reached, and what `advance` makes of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from docs.generators.simulation import NO_ID, NOW, advance_in_time
from services.onboarding.saga import (
    NEEDS_ATTENTION_AFTER,
    Abandon,
    Action,
    Advanced,
    Cancel,
    DeadlinePassed,
    Entry,
    ForbiddenError,
    Input,
    Progressed,
    Refused,
    Retry,
    Skip,
    Started,
    Succeeded,
    TimerDue,
    Undone,
)
from services.onboarding.workflow import Failure, PlannedStep, Status, Step, StepStatus, Workflow, planned

ACCEPTED = "accepted"
"""What an operator's action comes to where it is not forbidden."""

_FAILURE = Failure("any", "refused", "It is refused.")
_OPERATOR = ("operator", "It is stuck.")
_ATTEMPTS = 2
"""How often a step is asked here: more attempts are more of the same."""

_FOLLOWING = {"asked", "undo_asked", "waiting", "retry_scheduled"}
"""Kinds of history entries that say what is done about what has happened, not what that was."""

Edges: TypeAlias = dict[tuple[str, str], set[str]]
"""From and to, with what causes it: a kind of history entry."""


@dataclass(frozen=True, order=True)
class Position:
    """A status of a workflow; and whether it goes forward, which tells where it goes on once nobody is needed."""

    status: str
    is_forward: bool


@dataclass(frozen=True)
class Transitions:
    """Everything that some order of inputs brings about.

    Attributes:
        workflow: transitions between the statuses of a workflow.
        step: transitions between the statuses of a step.
        step_ends: the statuses that steps keep when their workflow has ended.
        actions: what each action of an operator comes to: `ACCEPTED`, or the code of the problem.
    """

    workflow: Edges = field(default_factory=dict)
    step: Edges = field(default_factory=dict)
    step_ends: set[str] = field(default_factory=set)
    actions: dict[tuple[Position, type[Action]], set[str]] = field(default_factory=dict)


def shortened(plan: Sequence[PlannedStep], names: Sequence[str]) -> tuple[PlannedStep, ...]:
    """Return a plan with some of its steps, in the same order, each asked only `_ATTEMPTS` times."""
    steps = {step.name: step for step in plan}
    return tuple(
        replace(steps[name], after=_nearest(steps, name, names), attempts=min(steps[name].attempts, _ATTEMPTS))
        for name in names
    )


def _nearest(steps: Mapping[str, PlannedStep], name: str, kept: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for each in steps[name].after:
        found |= dict.fromkeys([each] if each in kept else _nearest(steps, each, kept))
    return tuple(found)


def explore(plan: Sequence[PlannedStep]) -> Transitions:
    """Find every transition, by giving every input to every state that can be reached."""
    found = Transitions()
    begin = planned(NO_ID, "any", "tenant", plan, deadline_at=NOW)
    open_states, known = [_tried(found, begin, Started())], set[object]()
    while open_states:
        workflow = open_states.pop()
        key = (workflow.status, workflow.failure, workflow.deadline_at, tuple(workflow.steps.values()))
        if key in known:
            continue
        known.add(key)
        open_states += [_tried(found, workflow, each) for each in inputs(workflow)]
    return found


def inputs(workflow: Workflow) -> Iterator[Input]:
    """Yield everything that could happen to a workflow, whether or not it makes sense."""
    for step in workflow.plan:
        if step.ask is not None:
            yield Succeeded(step.name, NO_ID, {})
            yield Refused(step.name, NO_ID, "refused", "It is refused.", retryable=False)
            yield Refused(step.name, NO_ID, "refused", "It is refused.", retryable=True)
        if step.undo is not None:
            yield Undone(step.name, NO_ID)
        yield Progressed(step.name, NO_ID, "stage", None)
        yield TimerDue(step.name)
        yield Skip(step.name, *_OPERATOR)
    yield DeadlinePassed()
    yield Cancel(*_OPERATOR)
    yield Retry(*_OPERATOR)
    yield Abandon(*_OPERATOR)


def _tried(found: Transitions, workflow: Workflow, happened: Input) -> Workflow:
    return essence(note(found, workflow, happened))


def note(found: Transitions, workflow: Workflow, happened: Input) -> Workflow:
    """Let something happen, note what that brings about, and return what the workflow has become."""
    position = Position(workflow.status, workflow.failure is None)
    try:
        turn = advance_in_time(workflow, happened)
    except ForbiddenError as error:
        assert isinstance(happened, Action)
        found.actions.setdefault((position, type(happened)), set()).add(error.code)
        return workflow
    if isinstance(happened, Action):
        found.actions.setdefault((position, type(happened)), set()).add(ACCEPTED)
    _note_turn(found, workflow, turn)
    return turn.workflow


def _note_turn(found: Transitions, before: Workflow, turn: Advanced) -> None:
    _note_workflow(found.workflow, before.status, turn)
    if turn.workflow.status.is_final:
        found.step_ends.update(step.status for step in turn.workflow.steps.values())
    for name, step in turn.workflow.steps.items():
        entries = [entry for entry in turn.history if entry.step == name and entry.kind not in _STATUSES]
        _note_step(found.step, before.steps[name], step, entries)


def _note_workflow(edges: Edges, before: Status, turn: Advanced) -> None:
    """Note every status that the workflow passes through in this turn, as it is told outside."""
    status, cause = before, "nothing to undo"
    for entry in turn.history:
        if entry.kind in _STATUSES:
            edges.setdefault((status, entry.kind), set()).add(cause)
            status, cause = Status(entry.kind), "nothing to undo"
        elif entry.kind not in _FOLLOWING:
            cause = entry.kind
    assert status is turn.workflow.status


def _note_step(edges: Edges, before: Step, after: Step, entries: Sequence[Entry]) -> None:
    tried_again = (before.attempts, before.undo_attempts) != (after.attempts, after.undo_attempts)
    if before.status is not after.status or tried_again:
        edges.setdefault((before.status, after.status), set()).add(entries[0].kind)


def essence(workflow: Workflow) -> Workflow:
    """Forget what makes no difference to what can happen next, so that the states are finitely many."""
    return replace(
        workflow,
        steps={step.name: _essence_of_step(workflow.steps[step.name], step.attempts) for step in workflow.plan},
        seq=1,
        failure=_FAILURE if workflow.failure else None,
        updated_at=None,
        finished_at=None,
    )


def _essence_of_step(step: Step, most_attempts: int) -> Step:
    """Keep the attempts only while they are counted: those of the ask while it runs, those of the undo meanwhile."""
    is_running, is_undoing = step.status is StepStatus.RUNNING, step.status is StepStatus.UNDOING
    return replace(
        step,
        attempts=_essence_of_attempts(step.attempts, most_attempts) if is_running else 0,
        undo_attempts=_essence_of_attempts(step.undo_attempts, 1) if is_undoing else 0,
        ask_id=NO_ID,
        due_at=NOW if step.due_at else None,
        result=None,
        error=None,
        started_at=None,
        finished_at=None,
        progress=None,
    )


def _essence_of_attempts(attempts: int, first: int) -> int:
    """Skip the attempts that are alike, up to the one after which a person is called."""
    return attempts if attempts <= first else min(max(attempts, NEEDS_ATTENTION_AFTER - 1), NEEDS_ATTENTION_AFTER)


def unreached(statuses: type[Status] | type[StepStatus], edges: Mapping[tuple[str, str], object]) -> list[str]:
    """List the statuses that no transition leads to or from."""
    reached = {status for edge in edges for status in edge}
    return [status.value for status in statuses if status not in reached]


_STATUSES = {status.value for status in Status}
