"""A world for the saga core: participants with a barrier, and messages that are lost, repeated, late and out of order.

Every choice of the world is taken from a list of numbers; when they have run out, everything arrives in order and is
granted. A list is easily made shorter, so a failure is shown with the fewest surprises that cause it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from services.onboarding.saga import (
    Advanced,
    Entry,
    Input,
    Notice,
    PlannedStep,
    Refused,
    Send,
    Started,
    Status,
    StepStatus,
    Succeeded,
    TimerDue,
    Undone,
    Workflow,
    advance,
    planned,
)

_LONGEST_END = 500
_FINISHED = {StepStatus.SUCCEEDED, StepStatus.SKIPPED}


class World:
    """One workflow and those who take part in it.

    Args:
        plan: what it runs.
        choices: what goes wrong, and when.
        silent: steps whose participants hear nothing until the choices have run out.

    Attributes:
        effects: by step, ``done`` where the participant has done it now, ``refused`` or ``undone`` for good.
    """

    def __init__(self, plan: Sequence[PlannedStep], choices: Sequence[int], silent: Collection[str] = ()) -> None:
        self.workflow: Workflow = planned(UUID(int=0), "any", "tenant-1", plan)
        self.effects: dict[str, str] = {}
        self.history: list[Entry] = []
        self.notices: list[Notice] = []
        self.asked: set[str] = set()
        self._plan = {step.name: step for step in plan}
        self._followers = {step.name: [each.name for each in plan if step.name in each.after] for step in plan}
        self._choices = choices
        self._silent = silent
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._asks: list[Send] = []
        self._answers: list[Input] = []
        self._ids: set[UUID] = set()

    def live(self) -> None:
        """Start, let everything happen that is chosen, then let it come to an end and every late message arrive."""
        self._happen(Started())
        for choice in self._choices:
            self._surprise(choice)
        for _ in range(_LONGEST_END):
            if self.workflow.status.is_final and not self._asks and not self._answers:
                return
            self._settle()
        raise AssertionError(f"no end in sight: {self.workflow}")

    def _surprise(self, choice: int) -> None:
        moves = [*self._messages(choice // 256), *self._others()]
        moves[choice % len(moves)]()

    def _messages(self, fate: int) -> Sequence[Callable[[], None]]:
        """Offer every message on its way, often enough that most arrive in time; ``fate`` is what becomes of it."""
        repeated, lost = fate % 4 == 1, fate % 8 == 2
        asks = [ask for ask in self._asks if ask.step not in self._silent]
        deliveries = [partial(self._deliver, ask, fate // 8, repeated=repeated, lost=lost) for ask in asks]
        return 4 * [*deliveries, *(partial(self._answer, each, repeated=repeated, lost=lost) for each in self._answers)]

    def _others(self) -> Iterator[Callable[[], None]]:
        for name in self._waiting():
            yield partial(self._ring, name)
        yield partial(self._happen, Started())

    def _settle(self) -> None:
        if self._asks:
            self._deliver(self._asks[0], 0)
        elif self._answers:
            self._answer(self._answers[0])
        else:
            self._ring(min(self._waiting(), key=lambda name: self.workflow.steps[name].due_at or self._now))

    def _waiting(self) -> list[str]:
        return [name for name, step in self.workflow.steps.items() if step.due_at is not None]

    # What participants do

    def _deliver(self, ask: Send, verdict: int, *, repeated: bool = False, lost: bool = False) -> None:
        if not repeated:
            self._asks.remove(ask)
        if not lost and (answer := self._decide(ask, verdict)):
            self._answers.append(answer)

    def _decide(self, ask: Send, verdict: int) -> Input | None:
        if ask.ask == self._plan[ask.step].undo:
            self.effects[ask.step] = "undone"
            return Undone(ask.step, ask.message_id)
        effect = self.effects.get(ask.step)
        if effect is None and verdict % 4 == 1:
            return Refused(ask.step, ask.message_id, "busy", "Busy.", retryable=True)
        if effect is None:
            effect = self.effects[ask.step] = "refused" if verdict % 8 == 2 else "done"
        match effect:
            case "done":
                return Succeeded(ask.step, ask.message_id, {})
            case "refused":
                return Refused(ask.step, ask.message_id, "no", "No.", retryable=False)
        return None  # the barrier: after the undo, nothing takes effect and nothing is answered

    def _answer(self, answer: Input, *, repeated: bool = False, lost: bool = False) -> None:
        if not repeated:
            self._answers.remove(answer)
        if not lost:
            self._happen(answer)

    def _ring(self, name: str) -> None:
        due_at = self.workflow.steps[name].due_at
        assert due_at is not None
        self._now = max(self._now, due_at)
        self._happen(TimerDue(name))

    # What the workflow makes of it

    def _happen(self, happened: Input) -> None:
        before = self.workflow
        turn = advance(before, happened, now=self._now, new_id=self._new_id)
        self.workflow = turn.workflow
        self.history += turn.history
        self.notices += turn.notices
        self._expect(before, turn)
        self._asks += turn.sends

    def _expect(self, before: Workflow, turn: Advanced) -> None:
        after = turn.workflow
        assert [entry.seq for entry in turn.history] == list(range(before.seq + 1, after.seq + 1))
        assert turn.history or (turn.workflow, turn.sends, turn.notices) == (before, [], [])
        if before.status.is_final:
            assert (after.status, after.steps, after.failure) == (before.status, before.steps, before.failure)
            assert (after.finished_at, turn.sends, turn.notices) == (before.finished_at, [], [])
        for send in turn.sends:
            self._expect_in_order(send)
        if after.status.is_final:
            assert not self._waiting()

    def _expect_in_order(self, send: Send) -> None:
        plan = self._plan[send.step]
        if send.ask == plan.undo:
            assert self.workflow.status in {Status.COMPENSATING, Status.NEEDS_ATTENTION}
            for follower in self._followers[send.step]:
                assert not self.workflow.steps[follower].may_have_effect
                assert follower not in self.asked or self.effects.get(follower) in {"undone", "refused"}
            return
        self.asked.add(send.step)
        assert _before_all(plan, lambda name: self.workflow.steps[name].status in _FINISHED)
        assert _before_all(plan, lambda name: self.effects.get(name) == "done")
        assert self.workflow.status is Status.RUNNING
        assert send.attempt <= plan.attempts

    def _new_id(self) -> UUID:
        new = UUID(int=len(self._ids) + 1)
        self._ids.add(new)
        return new


def _before_all(plan: PlannedStep, holds: Callable[[str], bool]) -> bool:
    return all(holds(name) for name in plan.after)
