"""Metrics dies while usage streams in, is started again, and is told once more what it did not answer.

Whoever sends usage cannot know whether an event was taken that was not answered, and sends it again: it must count once
either way.
"""

import asyncio
import random
import secrets
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench.usage_load import UsageLoad
from shared.testing import eventually
from tests.chaos.conftest import Report
from tests.chaos.harness import System
from tests.chaos.metering import PLACES, Left, Metering, metered

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session")]

VISIT = 8
STOP_SECONDS = 10.0
DEATH_SECONDS = 30.0
DEATHS = 4
LONGEST_LIFE_SECONDS = 0.4
MORE = 20
"""How many requests are answered after the death before the stream ends."""


@pytest_asyncio.fixture(loop_scope="session")
async def metering(system: System) -> AsyncIterator[Metering]:
    async with metered(system) as metering:
        yield metering


async def test_what_was_not_answered_counts_once(metering: Metering, report: Report) -> None:
    process, left = metering.process, dict[str, Left]()
    process.ask_to_stop()
    assert await process.ended(within=STOP_SECONDS) == 0

    async with metering.streaming() as load:
        for place in PLACES:
            process.start(fail=f"{place}:{VISIT}=kill")
            assert await process.ended(within=DEATH_SECONDS) == -signal.SIGKILL
            assert f"failpoint {place}: kill" in process.last_words()
            left[place] = await metering.left(load)
        process.start()
        await answers(metering, load, MORE)
    tally = await metering.verdict(load)

    report(f"{'; '.join(f'{place}: {each}' for place, each in left.items())}; {len(tally.accepted)} events in all")
    before, after = left.values()
    assert before.lost, "it died before the commit, and all was stored"
    assert after.kept - before.kept, "it died after the commit, and nothing was stored that it had not told"
    assert tally.never_accepted == after.kept


async def test_it_may_die_at_any_moment(metering: Metering, report: Report) -> None:
    process, seed, deaths = metering.process, secrets.randbelow(10**6), list[Left]()
    chance = random.Random(seed)

    async with metering.streaming() as load:
        for _ in range(DEATHS):
            await answers(metering, load, 1)
            await asyncio.sleep(chance.uniform(0, LONGEST_LIFE_SECONDS))
            process.kill()
            assert process.exit_code == -signal.SIGKILL
            deaths.append(await metering.left(load))
            process.start()
    tally = await metering.verdict(load)

    report(f"seed {seed}; {'; '.join(map(str, deaths))}; {len(tally.accepted)} events in all")
    assert all(left.kept or left.lost for left in deaths)
    assert tally.never_accepted == deaths[-1].kept


async def answers(metering: Metering, load: UsageLoad, count: int) -> None:
    """Wait for so many more answers."""
    told = len(load.told)
    await eventually(lambda: len(load.told) >= told + count, within=DEATH_SECONDS, describe=metering.process.last_words)
