"""One workflow, played from start to end: what `advance` really sends and tells is what the diagrams show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

from services.onboarding.saga import (
    Advanced,
    Cancel,
    Input,
    Notice,
    Refused,
    Send,
    Started,
    Succeeded,
    TimerDue,
    Undone,
    advance,
)
from services.onboarding.workflow import PlannedStep, Status, Workflow, planned

NOW = datetime(2000, 1, 1, tzinfo=UTC)
NO_ID = UUID(int=0)

Reaction: TypeAlias = Callable[[Send], Input]


@dataclass(frozen=True)
class Round:
    """What follows from inputs that arrive together.

    Attributes:
        sends: all that is sent at once.
        waits: the steps that begin to let time pass.
        notices: what is told meanwhile.
        status: of the workflow then.
    """

    inputs: Sequence[Input]
    sends: Sequence[Send]
    waits: Sequence[str]
    notices: Sequence[Notice]
    status: Status


def play(kind: str, plan: Sequence[PlannedStep], reaction: Reaction, *, cancelled_at: str | None = None) -> list[Round]:
    """Run a workflow until it has ended, or a person is called.

    Args:
        reaction: what becomes of each thing that is sent: an answer, or the timer for want of one.
        cancelled_at: the step that lets time pass during which an operator cancels the workflow.
    """
    workflow, inputs, rounds = planned(NO_ID, kind, "tenant", plan), list[Input]([Started()]), list[Round]()
    while inputs and workflow.status is not Status.NEEDS_ATTENTION:
        turns: list[Advanced] = []
        for each in inputs:
            turns.append(advance_in_time(workflow, each))
            workflow = turns[-1].workflow
        rounds.append(_round(inputs, turns))
        inputs = [reaction(send) for send in rounds[-1].sends]
        inputs += [_meanwhile(name, cancelled_at) for name in rounds[-1].waits]
    return rounds


def _round(inputs: Sequence[Input], turns: Sequence[Advanced]) -> Round:
    return Round(
        inputs,
        sends=[send for turn in turns for send in turn.sends],
        waits=[entry.step for turn in turns for entry in turn.history if entry.kind == "waiting" and entry.step],
        notices=[notice for turn in turns for notice in turn.notices],
        status=turns[-1].workflow.status,
    )


def _meanwhile(waiting: str, cancelled_at: str | None) -> Input:
    return Cancel("operator", "It is not wanted.") if waiting == cancelled_at else TimerDue(waiting)


def advance_in_time(workflow: Workflow, happened: Input) -> Advanced:
    """Advance at the very moment at which the step's timer goes off, if that is the input."""
    due_at = workflow.steps[happened.step].due_at if isinstance(happened, TimerDue) else None
    return advance(workflow, happened, now=due_at or NOW, new_id=lambda: NO_ID)


def obliging(plan: Sequence[PlannedStep]) -> Reaction:
    """Return the reaction of participants that do, and undo, whatever they are asked."""
    undos = {step.undo for step in plan}
    return lambda send: Undone(send.step, NO_ID) if send.ask in undos else Succeeded(send.step, NO_ID, {})


def refusing(plan: Sequence[PlannedStep], name: str) -> Reaction:
    """Return the same, but that one step is refused."""
    return _failing(plan, name, Refused(name, NO_ID, "refused", "It is refused.", retryable=False))


def silent(plan: Sequence[PlannedStep], name: str) -> Reaction:
    """Return the same, but that one step is never answered, until it is to be undone."""
    return _failing(plan, name, TimerDue(name))


def _failing(plan: Sequence[PlannedStep], name: str, failure: Input) -> Reaction:
    asked, otherwise = {step.name: step.ask for step in plan}[name], obliging(plan)
    return lambda send: failure if send.ask == asked else otherwise(send)
