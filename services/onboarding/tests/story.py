"""Given a request, when something happens to its workflow, expect exactly this: the language of the saga's tests.

A story plays one workflow through `advance`, numbers the messages it sends (1, 2, ...) and makes each of them as the
engine would, so that what is expected are whole messages and whole lines of history.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

from services.onboarding.definition import Context, Definition
from services.onboarding.saga import (
    Advanced,
    Entry,
    Input,
    Notice,
    Refused,
    Send,
    Started,
    Succeeded,
    TimerDue,
    Undone,
    Workflow,
    advance,
    planned,
)
from services.onboarding.tests.catalogue import TENANT_ID
from shared.contracts.base import Fact, Message

START = datetime(2026, 1, 1, tzinfo=UTC)

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
        definition: what it runs.
        request: what was accepted, JSON.
        answers: the fact that each step answers when it succeeds.
    """

    def __init__(self, definition: Definition, *, request: Mapping[str, Any], answers: Mapping[str, Fact]) -> None:
        self.definition = definition
        self.workflow: Workflow = planned(UUID(int=0), definition.kind, TENANT_ID, definition.plan)
        self.now = START
        self.sent: list[Send] = []
        self.entries: list[Entry] = []
        self.notices: list[Notice] = []
        self._request = request
        self._answers = answers
        self._numbered = 0
        self._turn = Advanced(self.workflow, [], [], [])

    # When

    def when(self, happened: Input) -> Self:
        """Let something happen now."""
        before = self.workflow
        self._turn = advance(before, happened, now=self.now, new_id=self._new_id)
        self.workflow = self._turn.workflow
        self._numbered = 0
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
            self.when(Succeeded(step, self.ask_id(step), self._answers[step].model_dump(mode="json")))
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

    def time_is_up(self, step: str) -> Self:
        """Let time pass until the step's timer goes off."""
        due_at = self.workflow.steps[step].due_at
        assert due_at is not None, f"{step} waits for nothing"
        self.now = max(self.now, due_at)
        return self.when(TimerDue(step))

    def passes(self, seconds: float) -> Self:
        """Let time pass, with nothing happening."""
        self.now += timedelta(seconds=seconds)
        return self

    def reaches(self, step: str) -> Self:
        """Start, and let all that the step comes after succeed, so that it is being asked."""
        self.starts()
        for each in self.definition.plan:
            if each.name in self._before(step):
                self.succeeds(each.name)
        return self

    # Expect, of the last thing that happened

    def sends(self, *messages: tuple[str, int, Message]) -> Self:
        """Expect these messages, whole and in this order: step, attempt, message."""
        assert [(send.step, send.attempt, self.message(send)) for send in self._turn.sends] == list(messages)
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
        """Expect that steps and status are as before and nobody is told; a line of history is no change."""
        return self.sends().tells()

    # What else a test looks at

    def message(self, send: Send) -> Message:
        """Make the message of a send, as the engine does."""
        results = {name: step.result for name, step in self.workflow.steps.items() if step.result is not None}
        return self.definition.message(send.step, send.ask, Context(TENANT_ID, self._request, results))

    def ask_id(self, step: str) -> UUID | None:
        """Return the message of the latest attempt of a step or of its undo."""
        return self.workflow.steps[step].ask_id

    def statuses(self) -> dict[str, str]:
        """Return where every step stands."""
        return {name: step.status.value for name, step in self.workflow.steps.items()}

    def waves(self) -> list[set[str]]:
        """Let every undo that is asked be answered, again and again; return what was undone at once, in order."""
        waves: list[set[str]] = []
        while wave := [name for name, status in self.statuses().items() if status == "undoing"]:
            waves.append(set(wave))
            self.undoes(*wave)
        return waves

    def _before(self, step: str) -> set[str]:
        after = {each.name: each.after for each in self.definition.plan}
        return set(after[step]).union(*(self._before(name) for name in after[step]))

    def _new_id(self) -> UUID:
        self._numbered += 1
        return UUID(int=len(self.sent) + self._numbered)


def _line(entry: Entry) -> Line:
    return entry.kind, entry.step, entry.attempt, number(entry.message_id), entry.detail
