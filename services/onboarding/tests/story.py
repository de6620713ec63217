"""Given a plan, when something happens to its workflow, expect exactly this: the language of the saga's tests.

A story plays one workflow through `advance` and numbers the messages it sends (1, 2, ...). An `Onboarding` is the story
of the real definition: each of its messages is made as the engine would, so that what is expected are whole messages.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

import pytest

from services.onboarding.definition import Context, Definition
from services.onboarding.saga import (
    Abandon,
    Action,
    Advanced,
    Cancel,
    DeadlinePassed,
    Entry,
    ForbiddenError,
    Input,
    Notice,
    Progressed,
    Refused,
    Retry,
    Send,
    Skip,
    Started,
    Succeeded,
    TimerDue,
    Undone,
    advance,
)
from services.onboarding.tests.catalogue import TENANT_ID
from services.onboarding.workflow import PlannedStep, Status, Workflow, planned
from shared.contracts.base import Fact

START = datetime(2026, 1, 1, tzinfo=UTC)
ACTOR = "ada"
REASON = "She knows why."

Line = tuple[str, str | None, int | None, int | None, Mapping[str, Any]]


def line(
    kind: str, step: str | None = None, *, attempt: int | None = None, message: int | None = None, **detail: Any
) -> Line:
    """Expect a line of the history; ``message`` is the number of the message it is about."""
    return kind, step, attempt, message, detail


def number(message_id: UUID | None) -> int | None:
    """Return the place of a message among all that were sent, from 1."""
    return message_id.int if message_id else None


class Story:
    """One workflow, told from its start.

    Args:
        plan: what it runs.
        deadline: seconds in which it must end.
        results: what each step answers when it succeeds.
    """

    def __init__(
        self,
        plan: Sequence[PlannedStep],
        *,
        deadline: float | None = None,
        results: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        deadline_at = START + timedelta(seconds=deadline) if deadline else None
        self.workflow: Workflow = planned(UUID(int=0), "any", TENANT_ID, plan, deadline_at=deadline_at)
        self.now = START
        self.sent: list[Send] = []
        self.entries: list[Entry] = []
        self.notices: list[Notice] = []
        self._results = results or {}
        self._numbered = 0
        self._turn = Advanced(self.workflow, [], [], [])

    # When

    def when(self, happened: Input) -> Self:
        """Let something happen now."""
        before = self.workflow
        self._numbered = 0
        self._turn = advance(before, happened, now=self.now, new_id=self._new_id)
        self.workflow = self._turn.workflow
        self.sent += self._turn.sends
        self.entries += self._turn.history
        self.notices += self._turn.notices
        assert [entry.seq for entry in self.entries] == list(range(1, self.workflow.seq + 1))
        assert {entry.at for entry in self._turn.history} <= {self.now}
        assert self.workflow.plan == before.plan
        return self

    def starts(self) -> Self:
        """Let the workflow be accepted."""
        return self.when(Started())

    def succeeds(self, *steps: str) -> Self:
        """Let the latest ask of each step be answered by its fact."""
        for step in steps:
            self.when(Succeeded(step, self.ask_id(step), self._results.get(step, {})))
        return self

    def refuses(self, step: str, *, code: str = "no", detail: str = "No.", retryable: bool = False) -> Self:
        """Let the latest ask of a step be refused."""
        return self.when(Refused(step, self.ask_id(step), code, detail, retryable))

    def refuses_attempt(self, step: str, ask_id: UUID | None, *, retryable: bool) -> Self:
        """Let a certain attempt of a step be refused."""
        return self.when(Refused(step, ask_id, "no", "No.", retryable))

    def undoes(self, *steps: str) -> Self:
        """Let the latest undo of each step be answered."""
        for step in steps:
            self.when(Undone(step, self.ask_id(step)))
        return self

    def progresses(self, step: str, stage: str = "work", detail: str | None = None) -> Self:
        """Let it be told how far the latest ask of a step, or of its undo, is."""
        return self.when(Progressed(step, self.ask_id(step), stage, detail))

    def is_at_work(self, step: str, *, seconds: float, every: float, stage: str = "work") -> Self:
        """Let it be told again and again that a step is at one stage, for so long."""
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            self.passes(every).when(TimerDue(step)).progresses(step, stage)
        return self

    def time_is_up(self, step: str, *, times: int = 1) -> Self:
        """Let time pass until the step's timer goes off, again and again."""
        for _ in range(times):
            due_at = self.workflow.steps[step].due_at
            assert due_at is not None, f"{step} waits for nothing"
            self.now = max(self.now, due_at)
            self.when(TimerDue(step))
        return self

    def deadline_passes(self) -> Self:
        """Let time pass until the workflow should have ended."""
        assert self.workflow.deadline_at is not None
        self.now = max(self.now, self.workflow.deadline_at)
        return self.when(DeadlinePassed())

    def passes(self, seconds: float) -> Self:
        """Let time pass, with nothing happening."""
        self.now += timedelta(seconds=seconds)
        return self

    def reaches(self, step: str) -> Self:
        """Start, and let all that the step comes after succeed, so that it is being asked."""
        self.starts()
        while self.statuses()[step] == "pending":
            for each in self._before(step):
                if self.statuses()[each.name] == "running":
                    self._comes_through(each)
        return self

    def cancelled(self) -> Self:
        """Let an operator have it undone."""
        return self.when(Cancel(ACTOR, REASON))

    def retried(self) -> Self:
        """Let an operator have it asked again now."""
        return self.when(Retry(ACTOR, REASON))

    def skipped(self, step: str) -> Self:
        """Let an operator vouch for a step or its undo."""
        return self.when(Skip(step, ACTOR, REASON))

    def abandoned(self) -> Self:
        """Let an operator take over by hand."""
        return self.when(Abandon(ACTOR, REASON))

    # Expect, of the last thing that happened

    def sends(self, *messages: tuple[str, int, object]) -> Self:
        """Expect these messages, in this order: step, attempt, and what is asked."""
        assert [(send.step, send.attempt, self.said(send)) for send in self._turn.sends] == list(messages)
        return self

    def remembers(self, *lines: Line) -> Self:
        """Expect these lines of the history."""
        assert [_line(entry) for entry in self._turn.history] == list(lines)
        return self

    def tells(self, *notices: Notice) -> Self:
        """Expect these notices to the outside."""
        assert self._turn.notices == list(notices)
        return self

    def changes_nothing(self) -> Self:
        """Expect that nothing is sent and nobody is told; a line of history is no change."""
        return self.sends().tells()

    def stands(self, status: Status, **steps: str) -> Self:
        """Expect the status of the workflow, and that of steps."""
        assert self.workflow.status is status
        assert {name: self.statuses()[name] for name in steps} == steps
        return self

    def forbids(self, action: Action, code: str) -> Self:
        """Expect that an operator's action is forbidden, for this reason, and changes nothing."""
        before = self.workflow, dict(self.workflow.steps)
        with pytest.raises(ForbiddenError) as forbidden:
            self.when(action)
        assert forbidden.value.code == code
        assert forbidden.value.detail.endswith(".")
        assert (self.workflow, dict(self.workflow.steps)) == before
        return self

    def waits_for(self, step: str, seconds: float) -> Self:
        """Expect that a step's timer goes off so many seconds from now."""
        due_at = self.workflow.steps[step].due_at
        assert due_at is not None, f"{step} waits for nothing"
        assert (due_at - self.now).total_seconds() == seconds
        return self

    # What else a test looks at

    def said(self, send: Send) -> object:
        """Return what is compared of a message: here its routing key."""
        return send.ask

    def ask_id(self, step: str) -> UUID | None:
        """Return the message of the latest attempt of a step or of its undo."""
        return self.workflow.steps[step].ask_id

    def statuses(self) -> dict[str, str]:
        """Return where every step stands."""
        return {name: step.status.value for name, step in self.workflow.steps.items()}

    def told(self) -> list[str]:
        """Return every status that was told."""
        return [str(notice.status) for notice in self.notices if notice.topic == "status"]

    def timers(self) -> set[str]:
        """Return the steps that have a timer."""
        return {name for name, step in self.workflow.steps.items() if step.due_at is not None}

    def residue(self) -> set[str]:
        """Return the steps that may have left something."""
        return {name for name, step in self.workflow.steps.items() if step.may_have_effect}

    def waits(self, step: str, *, times: int) -> list[float]:
        """Let a step's timer go off again and again; return the seconds before each time."""
        waits: list[float] = []
        for _ in range(times):
            before = self.now
            self.time_is_up(step)
            waits.append((self.now - before).total_seconds())
        return waits

    def waves(self) -> list[set[str]]:
        """Let every undo that is asked be answered, again and again; return what was undone at once, in order."""
        waves: list[set[str]] = []
        while wave := [name for name, status in self.statuses().items() if status == "undoing"]:
            waves.append(set(wave))
            self.undoes(*wave)
        return waves

    def _comes_through(self, step: PlannedStep) -> None:
        if step.ask is None:
            self.time_is_up(step.name)
        else:
            self.succeeds(step.name)

    def _before(self, step: str) -> list[PlannedStep]:
        plan = {each.name: each for each in self.workflow.plan}
        names = set(plan[step].after)
        for name in plan[step].after:
            names |= {each.name for each in self._before(name)}
        return [each for each in self.workflow.plan if each.name in names]

    def _new_id(self) -> UUID:
        self._numbered += 1
        return UUID(int=len(self.sent) + self._numbered)


class Onboarding(Story):
    """The story of a definition, with the messages that the engine makes of it.

    Args:
        definition: what it runs.
        request: what was accepted, JSON.
        answers: the fact that each step answers when it succeeds.
    """

    def __init__(self, definition: Definition, *, request: Mapping[str, Any], answers: Mapping[str, Fact]) -> None:
        results = {name: fact.model_dump(mode="json") for name, fact in answers.items()}
        super().__init__(definition.plan, results=results)
        self._definition = definition
        self._request = request

    def said(self, send: Send) -> object:
        """Make the message of a send, as the engine does."""
        results = {name: step.result for name, step in self.workflow.steps.items() if step.result is not None}
        context = Context(self.workflow.id, TENANT_ID, self._request, results)
        return self._definition.message(send.step, send.ask, context)


def _line(entry: Entry) -> Line:
    return entry.kind, entry.step, entry.attempt, number(entry.message_id), entry.detail
