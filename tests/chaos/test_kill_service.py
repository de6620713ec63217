"""A service dies with SIGKILL among 200 onboardings, and is started again: nothing is lost, doubled or half done."""

import asyncio
import signal

import pytest

from shared.contracts import SERVICES
from tests.chaos.conftest import Report
from tests.chaos.harness import System

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session")]

ONBOARDINGS = 200
MOMENT_SECONDS = 0.3


@pytest.mark.parametrize("service", SERVICES)
async def test_a_killed_service_takes_up_its_work_where_it_was(service: str, system: System, report: Report) -> None:
    process = system.processes[service]
    async with system.under_load(ONBOARDINGS) as load:
        await system.in_the_middle(load)
        open_work = await system.freeze_at_work(service, load)
        struck = await system.moment(load)
        process.kill()
        assert process.exit_code == -signal.SIGKILL
        await asyncio.sleep(MOMENT_SECONDS)
        process.start()
    verdict = await system.verdict(load)

    report(f"killed with {open_work} messages to handle, {struck}; {verdict}")
    assert struck.running > 0
    assert open_work > 0
