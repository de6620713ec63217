import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from shared.clock import Clock, ManualClock, SystemClock
from shared.ids import Ids, SeededIds, TimeOrderedIds, uuid7_at
from shared.testing.clock_suite import PassTime
from shared.testing.ids_suite import IdsSuite, moment_of

MOMENT = datetime(2026, 11, 21, 6, 45, 28, 123_000, tzinfo=UTC)


class TestTimeOrderedIds(IdsSuite):
    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()

    @pytest.fixture
    def pass_time(self) -> PassTime:
        return asyncio.sleep

    @pytest.fixture
    def ids(self) -> Ids:
        return TimeOrderedIds()


class TestSeededIds(IdsSuite):
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def pass_time(self, clock: ManualClock) -> PassTime:
        return clock.advance

    @pytest.fixture
    def ids(self, clock: ManualClock) -> Ids:
        return SeededIds(7, clock)


async def test_a_seed_and_a_clock_determine_every_identity() -> None:
    async def some(seed: int) -> list[UUID]:
        clock = ManualClock()
        ids = SeededIds(seed, clock)
        made = [ids.new()]
        await clock.advance(1)
        return [*made, ids.new()]

    assert await some(1) == await some(1)
    assert await some(1) != await some(2)


def test_the_smallest_identity_of_a_moment_sorts_before_all_others_of_it() -> None:
    before = uuid7_at(MOMENT - timedelta(milliseconds=1), (1 << 74) - 1)

    assert before < uuid7_at(MOMENT) < uuid7_at(MOMENT, 1) < uuid7_at(MOMENT, (1 << 74) - 1)
    assert uuid7_at(MOMENT, (1 << 74) - 1) < uuid7_at(MOMENT + timedelta(milliseconds=1))


@pytest.mark.parametrize("tail", [0, 1, 1 << 62, (1 << 74) - 1])
def test_an_identity_keeps_its_moment_and_its_tail_apart(tail: int) -> None:
    made = uuid7_at(MOMENT, tail)

    assert moment_of(made) == MOMENT
    assert (made.version, made.int >> 62 & 0b11) == (7, 0b10)
    assert ((made.int >> 64 & 0xFFF) << 62 | made.int & ((1 << 62) - 1)) == tail
