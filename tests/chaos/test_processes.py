"""Six services as six processes, each with only its own logins: they work together, and each stops when it is told."""

import asyncio

import httpx2
import pytest

from shared.contracts import SERVICES
from shared.testing import eventually
from tests.chaos.conftest import Report
from tests.chaos.harness import System
from tests.chaos.load import AT_ONCE

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session")]

BURST = 40
STOP_SECONDS = 10.0
ARRIVAL_SECONDS = 0.3


async def test_onboardings_complete_and_are_undone(system: System) -> None:
    async with system.under_load(10) as load:
        pass
    verdict = await system.verdict(load)

    assert (verdict.completed, verdict.compensated) == (9, 1)


async def test_each_process_is_told_its_own_logins_and_no_others(system: System) -> None:
    for service, told in system.stack.environment.items():
        known = system.processes[service].environment()
        others = [environment for name, environment in system.stack.environment.items() if name != service]
        secrets = {value for environment in others for name, value in environment.items() if name.endswith("_URL")}
        assert told.items() <= known.items()
        assert not secrets & set(known.values())


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_that_is_told_to_stop_drops_nothing(service: str, system: System, report: Report) -> None:
    process = system.processes[service]
    async with system.under_load(BURST) as load:
        await system.begun(load)
        open_work = await system.freeze_at_work(service, load)
        struck = await system.moment(load)
        process.ask_to_stop()
        process.thaw()
        exit_code = await process.ended(within=STOP_SECONDS)
        process.start()
    verdict = await system.verdict(load)

    report(f"told to stop with {open_work} messages to handle, {struck}; {verdict}")
    assert exit_code == 0
    assert open_work > 0


async def test_requests_that_came_before_onboarding_was_told_to_stop_are_accepted(
    system: System, report: Report
) -> None:
    """With a database that stands still none of them has an answer when the signal comes."""
    onboarding = system.processes["onboarding"]
    async with system.under_load(BURST) as load:
        system.postgres.freeze()
        try:
            await asyncio.sleep(ARRIVAL_SECONDS)
            accepted_before = BURST - load.waiting
            onboarding.ask_to_stop()
            await asyncio.sleep(ARRIVAL_SECONDS)
        finally:
            system.postgres.thaw()
        assert await onboarding.ended(within=STOP_SECONDS) == 0
        accepted_since = BURST - load.waiting - accepted_before
        onboarding.start()
    verdict = await system.verdict(load)

    report(f"{accepted_before} accepted before it was told to stop, {accepted_since} before it ended; {verdict}")
    assert accepted_since >= AT_ONCE
    assert "503" not in load.setbacks


async def test_whoever_polls_when_onboarding_stops_is_told_to_come_back(system: System, report: Report) -> None:
    onboarding, provisioning = system.processes["onboarding"], system.processes["provisioning"]
    provisioning.freeze()  # so that no workflow ends
    try:
        async with system.under_load(BURST) as load:
            await system.begun(load)
            await eventually(lambda: any(order.workflow_id for order in load.orders), describe="one is accepted")
            workflow_id = next(order.workflow_id for order in load.orders if order.workflow_id)
            poll = asyncio.create_task(system.client.get(f"/v1/workflows/{workflow_id}", params={"wait": 30}))
            await asyncio.sleep(ARRIVAL_SECONDS)
            onboarding.ask_to_stop()
            assert await onboarding.ended(within=STOP_SECONDS) == 0
            onboarding.start()
    finally:
        provisioning.thaw()
    answer = await poll
    verdict = await system.verdict(load)

    report(f"told {answer.json()['code']}; {verdict}")
    assert answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE
    assert answer.json()["retryable"]
    assert answer.headers["Retry-After"]
