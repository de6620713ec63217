"""A service dies exactly between two steps of the kernel, and is started again: nothing is lost or doubled."""

import asyncio
import signal
from collections.abc import Mapping

import pytest

from shared.contracts import SERVICES
from shared.failpoints import FAILPOINTS
from shared.testing import eventually
from tests.chaos import metering
from tests.chaos.conftest import Report
from tests.chaos.harness import System
from tests.chaos.load import Load

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session")]

ONBOARDINGS = 60
TIMER_ONBOARDINGS = 30
STOP_SECONDS = 10.0
DEATH_SECONDS = 20.0

WAVES: Mapping[str, Mapping[str, str]] = {
    "before the commit": {
        "tenant": "received",
        "identity": "inbox_inserted",
        "billing": "handled",
        "metrics": "outbox_inserted",
        "provisioning": "before_commit",
        "onboarding": "before_202",
    },
    "after the commit": {
        "tenant": "after_commit",
        "identity": "before_publish",
        "billing": "outbox_deleted",
        "metrics": "before_ack",
        "provisioning": "acked",
        "onboarding": "confirmed",
    },
}
"""Which service dies where, all six in one load, each at its first visit."""

JOBS = ("job_claimed", "job_stepped")
"""Where provisioning dies with jobs in hand: before their steps, or when these are done and nothing of it is stored."""

USAGE = metering.PLACES
"""Where metrics dies with usage in hand, in `test_kill_metering.py`."""

LAKE = ("lake_planned", "lake_stored", "lake_written")
"""Where a writer of the data lake dies, in services/metrics/tests/test_lake.py."""


@pytest.mark.parametrize("wave", WAVES)
async def test_a_service_may_die_between_any_two_steps(wave: str, system: System, report: Report) -> None:
    places = WAVES[wave]
    await arm(system, places)

    async with system.under_load(ONBOARDINGS) as load:
        deaths = await asyncio.gather(*(revived(system, load, service, places[service]) for service in places))
    verdict = await system.verdict(load)

    report(f"{'; '.join(deaths)}; {verdict}")


@pytest.mark.parametrize("place", JOBS)
async def test_a_worker_may_die_with_the_jobs_it_has_claimed(place: str, system: System, report: Report) -> None:
    await arm(system, {"provisioning": place})

    async with system.under_load(ONBOARDINGS) as load:
        death = await revived(system, load, "provisioning", place)
    verdict = await system.verdict(load)

    report(f"{death}; {verdict}")


async def test_timers_that_had_gone_off_survive_the_death_of_who_took_them(system: System, report: Report) -> None:
    onboarding, provisioning = system.processes["onboarding"], system.processes["provisioning"]
    provisioning.freeze()
    try:
        async with system.under_load(TIMER_ONBOARDINGS) as load:
            await eventually(
                lambda: only_waits_for(system, load, "provisioning"), describe="nothing else is open, says the ledger"
            )
            onboarding.ask_to_stop()
            assert await onboarding.ended(within=STOP_SECONDS) == 0
            due = await system.ledger.make_due(load.prefix)

            onboarding.start(fail="due_claimed=kill")
            death = await revived(system, load, "onboarding", "due_claimed")
    finally:
        provisioning.thaw()
    verdict = await system.verdict(load, timeouts=due)

    report(f"{death}, {due} timers taken; {verdict}")
    assert due == TIMER_ONBOARDINGS


async def test_every_failpoint_kills_somewhere() -> None:
    places = {place for wave in WAVES.values() for place in wave.values()}
    assert places | {"due_claimed", *JOBS, *USAGE, *LAKE} == set(FAILPOINTS)
    assert all(wave.keys() == set(SERVICES) for wave in WAVES.values())


async def arm(system: System, places: Mapping[str, str]) -> None:
    """Start every service again with a failpoint of its own, onboarding last: nothing but the load may pass there."""
    await stop(system)
    while await system.ledger.queues():  # What earlier tests have left, such as a use of a key, is not the load.
        await start(system, {})
        await system.until_quiet()
        await stop(system)
    await start(system, places)


async def stop(system: System) -> None:
    for process in system.processes.values():
        process.ask_to_stop()
    for process in system.processes.values():
        assert await process.ended(within=STOP_SECONDS) == 0


async def start(system: System, places: Mapping[str, str]) -> None:
    """Start every service, onboarding last, with its failpoint if it has one."""
    others = [service for service in SERVICES if service != "onboarding"]
    for group in (others, ["onboarding"]):
        for service in group:
            system.processes[service].start(fail=f"{places[service]}=kill" if service in places else "")
        await asyncio.gather(*(system.processes[service].ready(system.client) for service in group))


async def only_waits_for(system: System, load: Load, service: str) -> bool:
    """Tell whether every workflow of a load has begun and nothing is open but the work of one service."""
    return load.waiting == 0 and +await system.ledger.open_work(load.prefix) == {service: load.count}


async def revived(system: System, load: Load, service: str, failpoint: str) -> str:
    """Wait for a service to die at a failpoint, start it again without one, and describe what it died with."""
    process = system.processes[service]
    assert await process.ended(within=DEATH_SECONDS) == -signal.SIGKILL
    assert f"failpoint {failpoint}: kill" in process.last_words()
    struck = await system.moment(load)
    assert struck.running + struck.waiting > 0, f"{service} died at {failpoint} when everything was over"
    process.start()
    return f"{service} at {failpoint} with {struck}"
