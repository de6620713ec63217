"""What runs in the background: again and again, through outages, and not through mistakes."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import pytest

from shared.clock import Clock
from shared.repeating import repeat, repeat_rounds

OUTAGE = asyncpg.CannotConnectNowError("the database system is starting up")


class Enough(BaseException):
    """Ends what goes on for ever; nothing that fails is one."""


class Diary:
    """Does what it is told, one thing after the other, and writes down what was done and slept."""

    def __init__(self, outcomes: Sequence[int | Exception]) -> None:
        self.done: list[str] = []
        self._outcomes = iter(outcomes)

    async def work(self) -> int:
        self.done.append("work")
        outcome = next(self._outcomes, None)
        if outcome is None:
            raise Enough
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def rest(self) -> None:
        self.done.append("rest")


class Sleeper(Clock):
    """A clock by which waiting takes no time and is written down."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary

    def now(self) -> datetime:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self._diary.done.append("wait")


async def test_it_goes_on_after_every_rest() -> None:
    diary = Diary([1, 0, 1])

    with pytest.raises(Enough):
        await repeat("this", diary.work, diary.rest, clock=Sleeper(diary))

    assert diary.done == ["work", "rest", "work", "rest", "work", "rest", "work"]


@pytest.mark.parametrize("error", [OUTAGE, asyncpg.DeadlockDetectedError("who comes first"), ValueError("awaited")])
async def test_what_is_away_is_waited_for(error: Exception) -> None:
    diary = Diary([error])

    with pytest.raises(Enough):
        await repeat("this", diary.work, diary.rest, clock=Sleeper(diary), awaited=(ValueError,))

    assert diary.done == ["work", "wait", "rest", "work"]


async def test_a_mistake_ends_it() -> None:
    diary = Diary([ValueError("a mistake")])

    with pytest.raises(ValueError, match="a mistake"):
        await repeat("this", diary.work, diary.rest, clock=Sleeper(diary))

    assert diary.done == ["work"]


async def test_rounds_are_done_until_there_is_nothing_to_do() -> None:
    diary = Diary([500, 3, 0])

    with pytest.raises(Enough):
        await repeat_rounds("this", diary.work, diary.rest, clock=Sleeper(diary))

    assert diary.done == ["work", "work", "work", "rest", "work"]
