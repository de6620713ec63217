import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from shared.clock import Clock, ManualClock, SystemClock
from shared.testing.clock_suite import ClockSuite, PassTime


class TestSystemClock(ClockSuite):
    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()

    @pytest.fixture
    def pass_time(self) -> PassTime:
        return asyncio.sleep

    def test_it_is_the_machines_time(self, clock: Clock) -> None:
        assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=1)


class TestManualClock(ClockSuite):
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def pass_time(self, clock: ManualClock) -> PassTime:
        return clock.advance

    async def test_it_stands_still_until_it_is_told(self, clock: ManualClock) -> None:
        begun = clock.now()
        await asyncio.sleep(0.005)

        assert clock.now() == begun == datetime(2026, 1, 1, tzinfo=UTC)

    async def test_it_advances_by_exactly_what_it_is_told(self, clock: ManualClock) -> None:
        await clock.advance(86_400)

        assert clock.now() == datetime(2026, 1, 2, tzinfo=UTC)

    async def test_each_sleeper_sees_its_own_time_and_may_sleep_again_on_the_way(self, clock: ManualClock) -> None:
        begun = clock.now()
        seen: list[timedelta] = []

        async def sleep_thrice() -> None:
            for _ in range(3):
                await clock.sleep(10)
                seen.append(clock.now() - begun)

        sleeper = asyncio.create_task(sleep_thrice())
        await asyncio.sleep(0)
        await clock.advance(60)
        await sleeper

        assert seen == [timedelta(seconds=seconds) for seconds in (10, 20, 30)]
        assert clock.now() - begun == timedelta(seconds=60)
