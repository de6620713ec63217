"""RabbitMQ dies with SIGKILL among 200 onboardings and comes back on the same data: every service finds it again."""

import asyncio

import pytest

from tests.chaos.conftest import Report
from tests.chaos.harness import System

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session")]

ONBOARDINGS = 200
OUTAGE_SECONDS = 1.0


async def test_a_killed_broker_loses_nothing_and_nobody(system: System, report: Report) -> None:
    pids = system.pids()
    async with system.under_load(ONBOARDINGS) as load:
        await system.in_the_middle(load)
        system.broker.freeze()  # so that what is counted is what it dies with
        struck, open_work = await system.moment(load), await system.ledger.open_work(load.prefix)
        system.broker.kill()
        await asyncio.sleep(OUTAGE_SECONDS)
        await system.broker.start()
    verdict = await system.verdict(load)

    report(f"killed with {struck}, {open_work.total()} messages to handle {dict(open_work)}; {verdict}")
    assert struck.running > 0
    assert open_work.total() > 0
    assert system.pids() == pids, "a service has not lived through it"
