"""What every clock promises; the system's and its twin are held to the same."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from shared.clock import Clock

PassTime = Callable[[float], Awaitable[None]]
"""Lets so many seconds of a clock's time pass."""

_TICK = 0.02
_TOLERANCE = timedelta(milliseconds=2)


class ClockSuite:
    """Inherit, and provide the fixtures ``clock`` and ``pass_time``."""

    def test_the_time_is_told_in_utc(self, clock: Clock) -> None:
        """A naive or local time would be compared wrongly."""
        assert clock.now().utcoffset() == timedelta(0)

    async def test_time_goes_forward(self, clock: Clock, pass_time: PassTime) -> None:
        """By as much as has passed."""
        before = clock.now()
        await pass_time(_TICK)
        assert clock.now() - before >= timedelta(seconds=_TICK) - _TOLERANCE

    async def test_a_sleeper_wakes_when_its_time_has_come_and_not_before(
        self, clock: Clock, pass_time: PassTime
    ) -> None:
        """What it then reads off the clock is its own time or later."""
        begun = clock.now()
        sleeper = asyncio.create_task(clock.sleep(3 * _TICK))
        await pass_time(_TICK)
        assert not sleeper.done()
        await pass_time(3 * _TICK)
        await asyncio.wait_for(sleeper, 1.0)
        assert clock.now() - begun >= timedelta(seconds=3 * _TICK) - _TOLERANCE

    async def test_sleepers_wake_in_the_order_of_their_times(self, clock: Clock, pass_time: PassTime) -> None:
        """Not in the order in which they lay down."""
        woken: list[int] = []

        async def sleep(ticks: int) -> None:
            await clock.sleep(ticks * _TICK)
            woken.append(ticks)

        async with asyncio.TaskGroup() as group:
            for ticks in (3, 1, 2):
                group.create_task(sleep(ticks))
            await asyncio.sleep(0)
            await pass_time(4 * _TICK)
        assert woken == [1, 2, 3]

    async def test_no_time_at_all_is_slept_at_once_but_lets_others_run(self, clock: Clock) -> None:
        """As `asyncio.sleep` does."""
        others: list[str] = []
        asyncio.get_running_loop().call_soon(others.append, "ran")
        await asyncio.wait_for(clock.sleep(0), 1.0)
        await asyncio.wait_for(clock.sleep(-1), 1.0)
        assert others == ["ran"]

    async def test_a_sleeper_that_is_cancelled_disturbs_no_other(self, clock: Clock, pass_time: PassTime) -> None:
        """Timeouts around sleeps are ordinary."""
        cancelled, other = (asyncio.create_task(clock.sleep(seconds)) for seconds in (_TICK, 2 * _TICK))
        await asyncio.sleep(0)
        cancelled.cancel()
        await pass_time(3 * _TICK)
        await asyncio.wait_for(other, 1.0)
        assert cancelled.cancelled()
