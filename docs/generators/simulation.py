"""The saga, tried out: what `advance` really does is what the diagrams show."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

from services.onboarding.saga import (
    NEEDS_ATTENTION_AFTER,
    Advanced,
    Entry,
    Input,
    Notice,
    PlannedStep,
    Refused,
    Send,
    Started,
    Status,
    Step,
    StepStatus,
    Succeeded,
    TimerDue,
    Undone,
    Workflow,
    advance,
    planned,
)

_NOW = datetime(2000, 1, 1, tzinfo=UTC)
_ID = UUID(int=0)

Edges: TypeAlias = dict[tuple[str, str], set[str]]
"""From and to, with what causes it: the first kind of history entry that is written about it."""

Reaction: TypeAlias = Callable[[Send], Input]


@dataclass(frozen=True)
class Round:
    """What follows from inputs that arrive together: all that is sent at once, and what is told meanwhile."""

    inputs: Sequence[Input]
    sends: Sequence[Send]
    notices: Sequence[Notice]


def play(kind: str, plan: Sequence[PlannedStep], reaction: Reaction) -> list[Round]:
    """Run a workflow from start to end.

    Args:
        reaction: what becomes of each thing that is sent: an answer, or the timer for want of one.
    """
    workflow, inputs, rounds = planned(_ID, kind, "tenant", plan), list[Input]([Started()]), list[Round]()
    while inputs:
        turns: list[Advanced] = []
        for each in inputs:
            turns.append(_advance(workflow, each))
            workflow = turns[-1].workflow
        sends = [send for turn in turns for send in turn.sends]
        rounds.append(Round(inputs, sends, [notice for turn in turns for notice in turn.notices]))
        inputs = [reaction(send) for send in sends]
    return rounds


def obliging(plan: Sequence[PlannedStep]) -> Reaction:
    """Return the reaction of participants that do, and undo, whatever they are asked."""
    undos = {step.undo for step in plan}
    return lambda send: Undone(send.step, _ID) if send.ask in undos else Succeeded(send.step, _ID, {})


def refusing(plan: Sequence[PlannedStep], name: str) -> Reaction:
    """Return the same, but that one step is refused."""
    return _failing(plan, name, Refused(name, _ID, "refused", "It is refused.", retryable=False))


def silent(plan: Sequence[PlannedStep], name: str) -> Reaction:
    """Return the same, but that one step is never answered, until it is to be undone."""
    return _failing(plan, name, TimerDue(name))


def _failing(plan: Sequence[PlannedStep], name: str, failure: Input) -> Reaction:
    asked, otherwise = {step.name: step.ask for step in plan}[name], obliging(plan)
    return lambda send: failure if send.ask == asked else otherwise(send)


@dataclass(frozen=True)
class Transitions:
    """Every transition between statuses that some order of inputs brings about.

    Attributes:
        step_ends: the statuses that steps keep when their workflow has ended.
    """

    workflow: Edges = field(default_factory=dict)
    step: Edges = field(default_factory=dict)
    step_ends: set[str] = field(default_factory=set)


def explore(plan: Sequence[PlannedStep]) -> Transitions:
    """Find every transition, by giving every input to every state that can be reached."""
    found = Transitions()
    begun = _advance(planned(_ID, "any", "tenant", plan), Started())
    _note(found, planned(_ID, "any", "tenant", plan), begun)
    open_states, known = [_essence(begun.workflow)], set[object]()
    while open_states:
        workflow = open_states.pop()
        key = (workflow.status, tuple(workflow.steps.values()))
        if key in known:
            continue
        known.add(key)
        for each in _inputs(workflow):
            turn = _advance(workflow, each)
            _note(found, workflow, turn)
            open_states.append(_essence(turn.workflow))
    return found


def _advance(workflow: Workflow, happened: Input) -> Advanced:
    """Advance at the very moment at which the step's timer goes off, if that is the input."""
    due_at = workflow.steps[happened.step].due_at if isinstance(happened, TimerDue) else None
    return advance(workflow, happened, now=due_at or _NOW, new_id=lambda: _ID)


def _inputs(workflow: Workflow) -> Iterator[Input]:
    for name in workflow.steps:
        yield Succeeded(name, _ID, {})
        yield Refused(name, _ID, "refused", "It is refused.", retryable=False)
        yield Refused(name, _ID, "refused", "It is refused.", retryable=True)
        yield Undone(name, _ID)
        yield TimerDue(name)


def _essence(workflow: Workflow) -> Workflow:
    """Forget what makes no difference to what can happen next, so that the states are finitely many."""
    steps = {name: _essence_of_step(step) for name, step in workflow.steps.items()}
    return replace(workflow, steps=steps, seq=1, failure=None, updated_at=None, finished_at=None)


def _essence_of_step(step: Step) -> Step:
    return replace(
        step,
        undo_attempts=_essence_of_attempts(step.undo_attempts),
        due_at=_NOW if step.due_at else None,
        result=None,
        error=None,
        started_at=None,
        finished_at=None,
    )


def _essence_of_attempts(undo_attempts: int) -> int:
    """Skip the attempts that are alike, up to the one after which a person is called."""
    return min(max(undo_attempts, NEEDS_ATTENTION_AFTER - 1), NEEDS_ATTENTION_AFTER) if undo_attempts else 0


def _note(found: Transitions, before: Workflow, turn: Advanced) -> None:
    _note_workflow(found.workflow, before.status, turn)
    if turn.workflow.status.is_final:
        found.step_ends.update(step.status for step in turn.workflow.steps.values())
    for name, step in turn.workflow.steps.items():
        entries = [entry for entry in turn.history if entry.step == name and entry.kind not in set(Status)]
        _note_step(found.step, before.steps[name], step, entries)


def _note_workflow(edges: Edges, before: Status, turn: Advanced) -> None:
    """Note every status that the workflow passes through in this turn, as it is told outside."""
    status = before
    for cause, entry in zip([None, *turn.history], turn.history, strict=False):
        if entry.kind in set(Status):
            edges.setdefault((status, entry.kind), set()).add(_cause_of(cause))
            status = Status(entry.kind)
    assert status is turn.workflow.status


def _note_step(edges: Edges, before: Step, after: Step, entries: Sequence[Entry]) -> None:
    tried_again = (before.attempts, before.undo_attempts) != (after.attempts, after.undo_attempts)
    if before.status is not after.status or tried_again:
        edges.setdefault((before.status, after.status), set()).add(entries[0].kind)


def _cause_of(entry: Entry | None) -> str:
    return "nothing to undo" if entry is None or entry.kind in set(Status) else entry.kind


def unreached(statuses: type[Status] | type[StepStatus], edges: Mapping[tuple[str, str], object]) -> list[str]:
    """List the statuses that no transition leads to or from."""
    reached = {status for edge in edges for status in edge}
    return [status.value for status in statuses if status not in reached]
