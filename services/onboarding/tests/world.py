"""A world for the saga core: participants with a barrier, operators, and messages that are lost, repeated and late.

Participants may also tell at any time, truly or not, that they are at work.

Every choice of the world is taken from a list of numbers; when they have run out, everything arrives in order and is
granted, except by those who are in trouble for ever. A list is easily made shorter, so a failure is shown with the
fewest surprises that cause it. Whatever happens, the world compares what the workflow makes of it with what it knows
itself, of who was asked what and who did what.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from uuid import UUID

from services.onboarding.saga import (
    LONGEST_STANDSTILL,
    MOST_PROGRESS,
    NEEDS_ATTENTION_AFTER,
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
from services.onboarding.workflow import Due, PlannedStep, Status, Step, StepStatus, Workflow, planned

START = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST_BACKOFF = 600.0
ANY_CHOICE = 2**20

_LONGEST_END = 1000
_WHO, _WHY = "ada", "She knows why."


class Trouble(StrEnum):
    """What may be wrong with a participant."""

    DEAF = "hears nothing"
    MUTE = "does what it is asked, and is not heard"
    BUSY = "refuses, but may be asked again"
    UNWILLING = "refuses for good"
    TALKATIVE = "tells again and again that it is at work, and never gets done"


class Remedy(StrEnum):
    """What an operator does about a workflow that needs attention once there are no choices any more."""

    REPAIR = "see to it that the participants work again"
    RETRY = "that too, and have it asked again"
    SKIP = "vouch for a step that is waited for"
    ABANDON = "give up"


class World:
    """One workflow, those who take part in it, and those who look after it.

    Args:
        plan: what it runs.
        choices: what goes wrong, and when.
        calm: how many things happen as they should before the choices begin.
        deadline: seconds in which the workflow must end.
        troubles: steps whose participants are in trouble, until the choices have run out.
        lasting: whether they stay in trouble until an operator helps.
        remedy: how the operator helps.

    Attributes:
        now: what time it is.
        inputs: all that has happened, each with the number of lines that the history had before.
        effects: by step, ``done`` where the participant has done it now, ``refused`` or ``undone`` for good.
        seen: how often everything has happened that there is to happen.
    """

    def __init__(
        self,
        plan: Sequence[PlannedStep],
        choices: Sequence[int] = (),
        *,
        calm: int = 0,
        deadline: float | None = None,
        troubles: Mapping[str, Trouble] | None = None,
        lasting: bool = False,
        remedy: Remedy = Remedy.REPAIR,
    ) -> None:
        deadline_at = START + timedelta(seconds=deadline) if deadline else None
        self.workflow: Workflow = planned(UUID(int=0), "any", "tenant-1", plan, deadline_at=deadline_at)
        self.now = START
        self.effects: dict[str, str] = {}
        self.inputs: list[tuple[int, Input]] = []
        self.history: list[Entry] = []
        self.notices: list[Notice] = []
        self.seen: Counter[str] = Counter()
        self.asked: set[str] = set()
        self.skipped: set[str] = set()
        self._plan = {step.name: step for step in plan}
        self._pivot = next((step.name for step in plan if step.pivot), None)
        self._choices = choices
        self._calm = calm
        self._deadline_at = deadline_at
        self._troubles = dict(troubles or {})
        self._lasting = lasting
        self._remedy = remedy
        self._asks: list[Send] = []
        self._answers: list[Input] = []
        self._ids = 0
        self._told_by_talkative = 0
        self._sent: set[UUID] = set()
        self._answered = 0
        self._retries = 0
        self._told = ""
        self._known_at: datetime | None = None
        self._turned_back = False

    def live(self) -> None:
        """Start, let everything happen that is chosen, then let it come to an end and every late message arrive."""
        self._happen(Started())
        for _ in range(self._calm):
            if not self.workflow.status.is_final:
                self._go_on()
        for choice in self._choices:
            self._surprise(choice)
        if not self._lasting:
            self._troubles.clear()
        self._end()
        self._expect_outcome()
        self._expect_account()

    def live_unhelped(self) -> float:
        """Start, and go on until it has ended or a person is called; return how many seconds that took."""
        self._happen(Started())
        while self._known_at is None:
            self._go_on()
        return (self._known_at - START).total_seconds()

    # What is chosen

    def _surprise(self, choice: int) -> None:
        kind, chosen = choice % 16, choice // 16
        if kind == 8:
            self._tell_any(chosen)
        elif kind < 8 and (self._asks or self._answers):
            self._deliver_any(chosen)
        elif kind < 11:
            self._ring_any(chosen)
        elif kind == 11:
            self._reach_deadline()
        elif kind < 15:
            self._act_anyhow(chosen)
        else:
            self._disturb(chosen)

    def _deliver_any(self, chosen: int) -> None:
        fate, verdict, place = chosen % 16, chosen // 16 % 16, chosen // 256
        place %= len(self._asks) + len(self._answers)
        repeated, lost = fate in {11, 12}, fate in {13, 14}
        if place < len(self._asks):
            self._deliver(self._asks[place], verdict, repeated=repeated, lost=lost)
        else:
            self._answer(self._answers[place - len(self._asks)], repeated=repeated, lost=lost)

    def _tell_any(self, chosen: int) -> None:
        """Let some time pass, and somebody tell that a step is at work; mostly one that is waited for."""
        names = self._waiting() if chosen % 4 else list(self._plan)
        self.now += timedelta(seconds=(0, 5, 20, 2000)[chosen // 4 % 4])
        if names:
            name, said = names[chosen // 16 % len(names)], chosen // 256
            self._tell(name, f"stage {said % 3}", (None, "Words.")[said // 3 % 2])

    def _ring_any(self, chosen: int) -> None:
        if waiting := self._waiting():
            self._ring(waiting[chosen % len(waiting)])

    def _act_anyhow(self, chosen: int) -> None:
        names = self._waiting() if chosen % 2 else list(self._plan)
        name = names[chosen // 8 % len(names)] if names else next(iter(self._plan))
        actions = (Cancel(_WHO, _WHY), Retry(_WHO, _WHY), Skip(name, _WHO, _WHY), Abandon(_WHO, _WHY))
        self._act(actions[chosen // 2 % 4])

    def _disturb(self, chosen: int) -> None:
        """Let something happen that is of no use: a second start, or a timer of any step that is early or old."""
        if chosen % 2:
            self._happen(Started())
        else:
            name = list(self._plan)[chosen // 2 % len(self._plan)]
            before, due_at = self.workflow, self.workflow.steps[name].due_at
            self._happen(TimerDue(name))
            assert self.workflow == before or (due_at is not None and due_at <= self.now)

    # What happens when nothing is chosen

    def _end(self) -> None:
        quiet_from = self.now
        for _ in range(_LONGEST_END):
            if self.workflow.status.is_final and not self._asks and not self._answers:
                self._expect_soon_known(quiet_from)
                return
            if self.workflow.status is Status.NEEDS_ATTENTION and not self._asks and not self._answers:
                self._help()
            else:
                self._go_on()
        raise AssertionError(f"no end in sight: {self.workflow}")

    def _go_on(self) -> None:
        if self._asks:
            self._deliver(self._asks[0], 0)
        elif self._answers:
            self._answer(self._answers[0])
        else:
            self._ring_next()

    def _ring_next(self) -> None:
        steps = self.workflow.steps
        name = min(self._waiting(), key=lambda name: steps[name].due_at or self.now)
        due_at, deadline_at = steps[name].due_at, self.workflow.deadline_at
        if deadline_at is not None and due_at is not None and deadline_at <= due_at:
            self._reach_deadline()
        elif not self._talks_on(name):
            self._ring(name)

    def _help(self) -> None:
        stuck = self._waiting()[0]
        refused = [name for name in self._waiting() if self.effects.get(name) == "refused"]
        if self._remedy is Remedy.ABANDON:
            self._act(Abandon(_WHO, _WHY))
        elif self._remedy is Remedy.SKIP:
            self._act(Skip(stuck, _WHO, _WHY))
        elif refused and not self._troubles:
            self._act(Skip(refused[0], _WHO, _WHY))
        elif self._troubles and self._remedy is Remedy.RETRY:
            self._troubles.clear()
            self._act(Retry(_WHO, _WHY))
        else:
            self._troubles.clear()
            self._ring_next()

    def _waiting(self) -> list[str]:
        return [name for name, step in self.workflow.steps.items() if step.due_at is not None]

    # What participants do

    def _deliver(self, ask: Send, verdict: int, *, repeated: bool = False, lost: bool = False) -> None:
        if not repeated:
            self._asks.remove(ask)
        trouble = self._troubles.get(ask.step)
        if lost or trouble in {Trouble.DEAF, Trouble.TALKATIVE}:
            return
        answer = self._decide(ask, _verdict(trouble, verdict))
        if answer and trouble is not Trouble.MUTE:
            self._answers.append(answer)

    def _decide(self, ask: Send, verdict: str) -> Input | None:
        if ask.ask == self._plan[ask.step].undo:
            self.effects[ask.step] = "undone"
            return Undone(ask.step, ask.message_id)
        effect = self.effects.get(ask.step)
        if effect is None and verdict == "busy":
            return Refused(ask.step, ask.message_id, "busy", "Busy.", retryable=True)
        if effect is None:
            effect = self.effects[ask.step] = verdict
        match effect:
            case "done":
                return Succeeded(ask.step, ask.message_id, {})
            case "refused":
                return Refused(ask.step, ask.message_id, "no", "No.", retryable=False)
        return None  # the barrier: after the undo, nothing takes effect and nothing is answered

    def _tell(self, name: str, stage: str, detail: str | None) -> None:
        self._happen(Progressed(name, self.workflow.steps[name].ask_id, stage, detail))

    def _talks_on(self, name: str) -> bool:
        """Let a talkative participant tell something at the last moment; return whether that made a difference."""
        step = self.workflow.steps[name]
        if self._troubles.get(name) is not Trouble.TALKATIVE or step.due is not Due.TIMEOUT:
            return False
        assert step.due_at is not None
        self.now = max(self.now, step.due_at)
        self._told_by_talkative += 1
        self._tell(name, f"stage {self._told_by_talkative}", None)
        return self.workflow.steps[name].due_at != step.due_at

    def _answer(self, answer: Input, *, repeated: bool = False, lost: bool = False) -> None:
        if not repeated:
            self._answers.remove(answer)
        if not lost:
            self._answered += 1
            self._happen(answer)

    # What time does

    def _ring(self, name: str) -> None:
        due_at = self.workflow.steps[name].due_at
        assert due_at is not None
        self.now = max(self.now, due_at)
        self._happen(TimerDue(name))

    def _reach_deadline(self) -> None:
        """Let the deadline pass; where there is none any more, only say that it did."""
        before = self.workflow
        if before.deadline_at is not None:
            self.now = max(self.now, before.deadline_at)
        self._happen(DeadlinePassed())
        after = self.workflow
        assert after.deadline_at is None
        if before.deadline_at is None:
            assert after == before
        elif before.failure is None and not self._is_past_pivot:
            assert after.failure is not None
            assert after.failure.code == "deadline_exceeded"
        else:
            assert after.status is Status.NEEDS_ATTENTION
            assert after.steps == before.steps

    # What operators do

    def _act(self, action: Action) -> None:
        before, steps, expected = self.workflow, dict(self.workflow.steps), self._what_forbids(action)
        code = self._try(action)
        assert code == expected, f"{action}: {code}, not {expected}"
        if code is None:
            self.seen[f"allowed: {type(action).__name__}"] += 1
            assert self.history[before.seq].detail == {"actor": _WHO, "reason": _WHY}
            assert not isinstance(action, Retry) or self.workflow.status is not Status.NEEDS_ATTENTION
            return
        assert (self.workflow, self.workflow.steps) == (before, steps)
        self.seen[f"forbidden: {type(action).__name__} {code}"] += 1

    def _try(self, action: Action) -> str | None:
        try:
            self._happen(action)
        except ForbiddenError as error:
            return error.code
        return None

    def _what_forbids(self, action: Action) -> str | None:
        status = self.workflow.status
        if status.is_final:
            return "workflow_ended"
        match action:
            case Cancel():
                past = "past_point_of_no_return" if self._is_past_pivot else None
                return "already_undoing" if self._turned_back else past
            case Retry():
                is_asked = any(self._plan[name].ask for name in self._waiting())
                return None if is_asked else "nothing_to_retry"
            case Skip(step=name) if status is Status.NEEDS_ATTENTION:
                return None if name in self._waiting() else "not_waiting"
        return None if status is Status.NEEDS_ATTENTION else "not_stuck"

    # What the workflow makes of it, and what must hold whenever something has happened

    def _happen(self, happened: Input) -> None:
        self.inputs.append((len(self.history), happened))
        before, steps = self.workflow, dict(self.workflow.steps)
        turn = advance(before, happened, now=self.now, new_id=self._new_id)
        assert before.steps == steps, "a workflow is never changed, only replaced"
        self.workflow = turn.workflow
        self.history += turn.history
        self.notices += turn.notices
        self._note(happened)
        if isinstance(happened, Progressed):
            self._expect_patience(before, happened, turn)
        else:
            self._expect_lines(before, turn)
        self._expect_shown()
        self._expect_status(turn)
        self._expect_attention(before, happened, turn)
        self._expect_steps(before)
        if isinstance(happened, Refused) and turn.history[0].kind == "refused":
            self._expect_news(before.steps[happened.step], happened)
        for send in turn.sends:
            self._expect_in_order(send, happened)
        if before.status.is_final:
            self._expect_unmoved(before, turn)
        self._asks += turn.sends

    def _note(self, happened: Input) -> None:
        match happened:
            case Skip(step=name):
                self.skipped.add(name)
            case Retry():
                self._retries += 1
        if not self._turned_back and self.workflow.failure is not None:
            assert not self._pivot_may_happen, "there is no way back from here"
            self._turned_back = True

    def _expect_lines(self, before: Workflow, turn: Advanced) -> None:
        after = turn.workflow
        assert [entry.seq for entry in turn.history] == list(range(before.seq + 1, after.seq + 1))
        if not turn.history:
            assert (after, turn.sends, turn.notices) == (before, [], []), "nothing happens behind anybody's back"

    def _expect_patience(self, before: Workflow, told: Progressed, turn: Advanced) -> None:
        """Expect that progress makes the workflow wait longer for that step, and that is all."""
        old, new = before.steps[told.step], turn.workflow.steps[told.step]
        others = {**before.steps, told.step: new}
        assert (turn.workflow.status, turn.workflow.failure) == (before.status, before.failure)
        assert (turn.workflow.steps, turn.sends, turn.notices) == (others, [], [])
        assert replace(new, due_at=old.due_at, progress=old.progress) == old
        if old.due is not Due.TIMEOUT:
            self.seen["progress: late"] += 1
            assert (turn.workflow, turn.history) == (before, [])
            return
        self._expect_told_once(old, told, turn)
        assert old.due_at is not None
        assert new.due_at is not None
        assert new.progress is not None
        longest = new.progress.at + timedelta(seconds=LONGEST_STANDSTILL)
        patience = timedelta(seconds=self._patience(told.step, new))
        assert new.due_at == max(old.due_at, min(self.now + patience, longest))
        self.seen["progress: waited for"] += new.due_at > old.due_at
        self.seen["progress: stands still"] += new.due_at == longest

    def _expect_told_once(self, old: Step, told: Progressed, turn: Advanced) -> None:
        lines = old.progress.lines if old.progress else 0
        is_new = not old.progress or (old.progress.stage, old.progress.detail) != (told.stage, told.detail)
        expected = ["progressed"] if is_new and lines < MOST_PROGRESS else []
        assert [entry.kind for entry in turn.history] == expected

    def _expect_shown(self) -> None:
        """Expect that what is known of a step's progress is what was written down last of what it was asked last."""
        for name, step in self.workflow.steps.items():
            if step.due is not Due.TIMEOUT:
                continue
            told = self._told_since_asked(name)
            shown = step.progress and (step.progress.stage, step.progress.detail, step.progress.at, step.progress.lines)
            assert shown == ((*told[-1].detail.values(), told[-1].at, len(told)) if told else None)

    def _told_since_asked(self, name: str) -> list[Entry]:
        """Return what was told since the step or its undo was asked anew: not only for want of an answer."""
        told: list[Entry] = []
        for entry in reversed(self.history):
            if entry.kind == "retry_requested" or (entry.step == name and _is_anew(entry)):
                break
            if entry.step == name and entry.kind == "progressed":
                told.insert(0, entry)
        return told

    def _patience(self, name: str, step: Step) -> float:
        plan, is_undo = self._plan[name], step.status is StepStatus.UNDOING
        attempt = step.undo_attempts if is_undo else step.attempts
        growing = plan.backoff * 2.0 ** (attempt - 1) if is_undo or attempt > plan.attempts else 0.0
        return max(plan.timeout, min(LONGEST_BACKOFF, growing))

    def _calls_for_attention(self, entry: Entry) -> bool:
        often = (entry.attempt or 0) >= NEEDS_ATTENTION_AFTER
        is_final = entry.kind == "refused" and entry.detail["code"] == "no"
        if entry.kind == "undo_timed_out":
            return often
        return entry.kind in {"timed_out", "refused"} and self._is_past_pivot and (often or is_final)

    def _expect_status(self, turn: Advanced) -> None:
        after = turn.workflow
        for notice in turn.notices:
            if notice.topic == "status":
                assert notice.status in _NEXT[self._told], f"{notice.status} after {self._told}"
                assert not (self._turned_back and notice.status in {"running", "completed"})
                self._told = str(notice.status)
        assert (self._told if self._told != "started" else "running") == after.status
        assert (after.finished_at is None) == (not after.status.is_final)
        if after.status.is_final:
            assert after.deadline_at is None
            assert not self._waiting()
        else:
            assert self._waiting(), "nothing would ever happen again"
        if self._known_at is None and (after.status.is_final or after.status is Status.NEEDS_ATTENTION):
            self._known_at = self.now

    def _expect_attention(self, before: Workflow, happened: Input, turn: Advanced) -> None:
        """Expect that a person is called when, and only when, there is a reason, and for as long as there is one."""
        after, kinds = turn.workflow, {entry.kind for entry in turn.history}
        reasons = [entry for entry in turn.history if self._calls_for_attention(entry)]
        if reasons:
            assert after.status is Status.NEEDS_ATTENTION, "a person must be called"
        if "needs_attention" in kinds:
            assert reasons or "deadline_passed" in kinds, "a person is called for nothing"
        in_vain = any(map(_is_asked_in_vain, after.steps.values()))
        if after.status is Status.NEEDS_ATTENTION and _PROGRESS & kinds:
            assert in_vain, "nobody is needed any more"
        if before.status is Status.NEEDS_ATTENTION and after.status in {Status.RUNNING, Status.COMPENSATING}:
            assert not in_vain or isinstance(happened, Retry) or before.failure != after.failure, "it is still stuck"

    def _expect_steps(self, before: Workflow) -> None:
        for name, step in self.workflow.steps.items():
            old = before.steps[name]
            if step is old:
                continue
            assert step.status is old.status or step.status in _NEXT_OF_STEP[old.status], f"{old} -> {step}"
            assert (step.due_at is None) == (step.due is None)
            assert step.due_at is None or step.status in {StepStatus.RUNNING, StepStatus.UNDOING}
            assert step.attempts >= old.attempts
            assert step.undo_attempts >= old.undo_attempts

    def _expect_news(self, old: Step, refusal: Refused) -> None:
        """Expect that a refusal counts only where it says something that was not known."""
        if refusal.retryable:
            assert (old.ask_id, old.due) == (refusal.ask_id, Due.TIMEOUT)
        else:
            assert old.due is Due.TIMEOUT or old.may_have_effect

    def _expect_in_order(self, send: Send, happened: Input) -> None:
        assert send.message_id not in self._sent
        self._sent.add(send.message_id)
        assert not isinstance(happened, Succeeded | Undone) or send.attempt == 1, "nothing was asked in vain"
        plan, step = self._plan[send.step], self.workflow.steps[send.step]
        assert step.may_have_effect
        assert (step.ask_id, step.due) == (send.message_id, Due.TIMEOUT)
        assert step.due_at is not None
        assert (step.due_at - self.now).total_seconds() == self._patience(send.step, step)
        if send.ask == plan.undo:
            self._expect_undo_in_order(send)
        else:
            assert send.ask == plan.ask
            self._expect_ask_in_order(send)

    def _expect_undo_in_order(self, send: Send) -> None:
        assert self.workflow.status in {Status.COMPENSATING, Status.NEEDS_ATTENTION}
        assert self._turned_back
        assert send.step in self.asked
        assert not self._pivot_may_happen
        for name in self._followers[send.step]:
            assert not self.workflow.steps[name].may_have_effect
            assert name not in self.asked - self.skipped or self.effects.get(name) in {"undone", "refused"}

    def _expect_ask_in_order(self, send: Send) -> None:
        self.asked.add(send.step)
        assert not self._turned_back
        for name in self._plan[send.step].after:
            assert self.workflow.steps[name].status in {StepStatus.SUCCEEDED, StepStatus.SKIPPED}
            is_done = self.effects.get(name) == "done" or self._plan[name].ask is None
            assert is_done or name in self.skipped
        if self._pivot not in self.asked:
            assert send.attempt <= self._plan[send.step].attempts + self._retries

    def _expect_unmoved(self, before: Workflow, turn: Advanced) -> None:
        after = turn.workflow
        assert (after.status, after.steps, after.failure) == (before.status, before.steps, before.failure)
        assert (after.finished_at, turn.sends, turn.notices) == (before.finished_at, [], [])
        assert {entry.kind for entry in turn.history} <= _LATE

    @property
    def _is_past_pivot(self) -> bool:
        """Whether the pivot may have taken effect, as far as the workflow can know."""
        return self._pivot in self.asked and not self._turned_back

    @property
    def _pivot_may_happen(self) -> bool:
        """Whether the pivot has taken effect, or still may, as the world knows."""
        return self._pivot in self.asked and self.effects.get(self._pivot or "") != "refused"

    @cached_property
    def _followers(self) -> dict[str, set[str]]:
        """By step, all that comes after it, however far."""
        direct = {name: [each.name for each in self._plan.values() if name in each.after] for name in self._plan}
        far: dict[str, set[str]] = {}

        def find(name: str) -> set[str]:
            if name not in far:
                far[name] = set(direct[name]).union(*map(find, direct[name]))
            return far[name]

        for name in self._plan:
            find(name)
        return far

    def _new_id(self) -> UUID:
        self._ids += 1
        return UUID(int=self._ids)

    # What must hold in the end

    def _expect_soon_known(self, quiet_from: datetime) -> None:
        """Expect that it ended or a person was called soon after the deadline, or after the last surprise."""
        if self._deadline_at is None:
            return
        longest = sum(max(step.timeout, LONGEST_BACKOFF) for step in self._plan.values() if step.ask)
        limit = max(quiet_from, self._deadline_at) + timedelta(seconds=NEEDS_ATTENTION_AFTER * longest)
        assert self._known_at is not None
        assert self._known_at <= limit, "nobody knew for too long"

    def _expect_outcome(self) -> None:
        """Compare what is left with how it ended."""
        workflow = self.workflow
        left = {name for name, effect in self.effects.items() if effect == "done"}
        residue = {name for name, step in workflow.steps.items() if step.may_have_effect}
        if workflow.status is Status.COMPLETED:
            assert workflow.failure is None
            assert left | self.skipped >= {step.name for step in workflow.plan if step.ask}
            done = {name for name, step in workflow.steps.items() if step.status is StepStatus.SUCCEEDED}
            assert done == self._plan.keys() - self.skipped
        elif workflow.status is Status.COMPENSATED:
            assert workflow.failure is not None
            assert left <= self.skipped
            assert not residue
        else:
            assert workflow.status is Status.ABANDONED
            assert left <= residue | self.skipped
            assert residue == self._asked_and_not_taken_back()

    def _asked_and_not_taken_back(self) -> set[str]:
        """Read from the history which steps may have left something."""
        may_have: set[str] = set()
        for entry in self.history:
            if entry.kind == "asked" and entry.step:
                may_have.add(entry.step)
            elif entry.kind in {"undone", "skipped"} or (entry.kind == "refused" and entry.detail["code"] == "no"):
                may_have.discard(entry.step or "")
        return may_have

    def _expect_account(self) -> None:
        """Find everything in the history that was asked, answered and done."""
        kinds = Counter((entry.kind, entry.step) for entry in self.history)
        for name, step in self.workflow.steps.items():
            assert kinds["asked", name] == step.attempts
            assert kinds["undo_asked", name] == step.undo_attempts
            assert kinds["undone", name] == (step.status is StepStatus.UNDONE)
            assert kinds["skipped", name] == (step.status is StepStatus.SKIPPED)
            assert kinds["succeeded", name] + kinds["failed", name] <= 1
        answers = [entry for entry in self.history if entry.kind in _ANSWERS and entry.message_id]
        assert len(answers) == self._answered, "an answer is dropped"
        assert [entry.seq for entry in self.history] == list(range(1, self.workflow.seq + 1))
        assert [kind for kind, _ in kinds.elements()].count("started") == 1
        self.seen.update(entry.kind for entry in self.history)
        self.seen[f"ended: {self.workflow.status}"] += 1


def _verdict(trouble: Trouble | None, verdict: int) -> str:
    if trouble is Trouble.BUSY or verdict in {12, 13}:
        return "busy"
    return "refused" if trouble is Trouble.UNWILLING or verdict == 14 else "done"


def _is_anew(entry: Entry) -> bool:
    return entry.kind == "retry_scheduled" or (entry.kind == "undo_asked" and entry.attempt == 1)


def _is_asked_in_vain(step: Step) -> bool:
    attempts = step.undo_attempts if step.status is StepStatus.UNDOING else step.attempts
    return step.due is not None and (attempts > 1 or step.due is Due.RETRY)


_PROGRESS = {"succeeded", "undone", "waited", "skipped"}
_LATE = {"late_start", "late_success", "late_refusal", "late_undo"}
_ANSWERS = {"succeeded", "refused", "undone"} | _LATE

_ON = {"compensating", "needs_attention", "completed"}
_NEXT: Mapping[str, set[str]] = {
    "": {"started"},
    "started": _ON,
    "running": _ON,
    "compensating": {"needs_attention", "compensated"},
    "needs_attention": {"running", "compensating", "completed", "compensated", "abandoned"},
    "completed": set(),
    "compensated": set(),
    "abandoned": set(),
}
"""Which status may be told after which."""

_NEXT_OF_STEP: Mapping[StepStatus, set[StepStatus]] = {
    StepStatus.PENDING: {StepStatus.RUNNING},
    StepStatus.RUNNING: set(StepStatus) - {StepStatus.PENDING},
    StepStatus.SUCCEEDED: {StepStatus.UNDOING},
    StepStatus.FAILED: {StepStatus.UNDOING},
    StepStatus.UNDOING: {StepStatus.UNDONE, StepStatus.SKIPPED},
    StepStatus.UNDONE: set(),
    StepStatus.SKIPPED: set(),
}
