"""Postgres dies with SIGKILL among 200 onboardings and recovers: what was answered is there, and goes on."""

import asyncio
from datetime import UTC, datetime

import pytest

from tests.chaos.conftest import Report
from tests.chaos.harness import System

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session")]

ONBOARDINGS = 200
OUTAGE_SECONDS = 1.0


async def test_a_killed_postgres_loses_nothing_and_nobody(system: System, report: Report) -> None:
    pids = system.pids()
    async with system.under_load(ONBOARDINGS) as load:
        struck = await system.in_the_middle(load)
        system.postgres.kill()
        died_at = datetime.now(UTC)
        await asyncio.sleep(OUTAGE_SECONDS)
        await system.postgres.start()
    verdict = await system.verdict(load)

    in_flight = await system.ledger.in_flight_at(load.prefix, died_at)
    report(f"killed with {struck}, {in_flight} in flight by the history; {verdict}")
    assert in_flight > 0
    assert system.pids() == pids, "a service has not lived through it"
