"""Whoever makes accounts on Amazon's infrastructure is killed in every call that it makes, forward and back.

What there is when a process dies is what Amazon has done and what was committed. So it is enough to die before each
call and, where it changes something, after it: the last call of a step is followed by its commit, and that by the first
call of the next one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from services.provisioning.drivers.aws import silo
from shared.contracts.provisioning import DeprovisionEnvironment, ProvisionEnvironment, RemoveEnvironment
from shared.contracts.tenant import PlacedProduct
from shared.testing import eventually
from tests.chaos.accounts import made_for
from tests.chaos.amazon import Place
from tests.chaos.conftest import Report
from tests.chaos.silos import Death, Silos, running_silos

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

COUNT = 20
TENANTS, OTHERS = ([f"{name}{number}" for number in range(COUNT)] for name in ("silo", "other"))
MOST_DEATHS = 40
AWAY_SECONDS = 60.0
END_SECONDS = 300.0

PARAMETERS = {
    "mailDomain": "{tenantId}.mail.example.com",
    "quotas": [{"service": "ses", "code": "L-804C8AE8", "value": 50_000}],
}
FAILPOINTS = ("job_claimed", "job_stepped", "before_publish")
"""Where nothing is asked of Amazon: before the first step, before that is stored, and before anything of it is said."""

PARTS = ("network", "storage", "access", "mail", "quotas", "products", "reduce")
FORWARD = {
    f"provision {stage}"
    for stage in (silo.CREATE, silo.AWAIT_ACCOUNT, silo.PLACE, *PARTS, silo.AWAIT_MAIL, silo.VERIFY)
}
BACK = {
    f"{what} {stage}" for what in ("remove", "undo") for stage in ("begin", silo.SHUT, silo.CLOSE, silo.AWAIT_CLOSED)
}
HALF_MADE = {
    Place("provision create", "CreateAccount"),
    Place("provision create", "CreateAccount", is_done=True),
    Place("provision await-account", "DescribeCreateAccountStatus"),
    Place("provision place", "MoveAccount", is_done=True),
    Place("provision network", "CreateVpc", is_done=True),
    Place("provision access", "CreateAccessKey", is_done=True),
    Place("provision reduce", "DetachRolePolicy", is_done=True),
}
"""Where the process dies with tenants that are not wanted any more when it is there again."""

HALVES = [f"half{number}" for number in range(len(HALF_MADE) + 1)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_silos(embedded: None, folder: Path) -> AsyncIterator[Silos]:
    async with running_silos(folder / "silos") as silos:
        yield silos


@pytest_asyncio.fixture(loop_scope="session")
async def silos(shared_silos: Silos) -> Silos:
    shared_silos.forget()
    shared_silos.cloud.plan.polls = 1
    shared_silos.cloud.plan.verified |= {f"{name}.mail.example.com" for name in (*TENANTS, *HALVES, *OTHERS)}
    return shared_silos


async def test_the_process_may_die_in_every_call_forward_and_back(silos: Silos, report: Report) -> None:
    await silos.ask([wanted(each) for each in TENANTS])
    for failpoint in FAILPOINTS:
        await silos.die_at(failpoint)
    await die_until(silos, lambda: silos.are_ready(TENANTS))

    forward = len(silos.deaths)
    tell(report, f"{COUNT} accounts made", silos.deaths)
    assert {place.step for place in silos.cloud.struck if place.step} == FORWARD
    assert silos.ready == {each: [] for each in TENANTS}
    assert made_for(silos.cloud) == dict.fromkeys(TENANTS, 1)

    silos.cloud.struck -= HALF_MADE
    await silos.ask([wanted(each) for each in HALVES])
    await silos.ask([DeprovisionEnvironment(tenant_id=each) for each in TENANTS[::2]])
    await silos.ask([RemoveEnvironment(tenant_id=each) for each in TENANTS[1::2]])
    await take_back_half_made(silos)
    await die_until(silos, silos.is_empty)

    tell(report, f"{COUNT} accounts and {len(HALVES)} half made ones given up", silos.deaths[forward:])
    assert {place.step for place in silos.cloud.struck} >= BACK
    assert silos.cloud.accounts() == []
    assert silos.ready == {each: [] for each in silos.ready}
    await told(
        silos,
        {
            **{(each, "EnvironmentProvisioned"): 1 for each in silos.ready},
            **{(each, "EnvironmentDeprovisioned"): 1 for each in (*TENANTS[::2], *HALVES)},
            **{(each, "EnvironmentRemoved"): 1 for each in TENANTS[1::2]},
        },
    )


async def test_an_endpoint_that_is_away_for_a_minute_is_waited_for(silos: Silos, report: Report) -> None:
    await silos.ask([wanted(each) for each in OTHERS])
    silos.process.start()
    await eventually(lambda: silos.has_come_to("access"), within=END_SECONDS)

    with silos.cloud.away():
        await asyncio.sleep(AWAY_SECONDS)
        tried = await silos.tried(OTHERS)
    await eventually(lambda: silos.are_ready(OTHERS), within=END_SECONDS, describe=silos.process.last_words)

    attempts = sorted(attempts for attempts, _ in tried.values())
    report(f"away for {AWAY_SECONDS:g} s from {COUNT} jobs, which tried {attempts[0]} to {attempts[-1]} times")
    assert len(tried) == COUNT
    assert all("EndpointConnectionError" in said for _, said in tried.values())
    made = made_for(silos.cloud)
    assert {each: (silos.ready[each], made[each]) for each in OTHERS} == {each: ([], 1) for each in OTHERS}
    await eventually(lambda: all(silos.answers()[each, "EnvironmentProvisioned"] == 1 for each in OTHERS))


def wanted(tenant_id: str) -> ProvisionEnvironment:
    return ProvisionEnvironment(
        tenant_id=tenant_id,
        isolation="silo",
        driver="aws",
        parameters=PARAMETERS,
        products=(PlacedProduct(name="notes", version="1"),),
    )


async def die_until(silos: Silos, is_over: Callable[[], Awaitable[bool]]) -> None:
    """Start the process again and again, until it gets to the end without any call that it has not died in."""
    while await silos.die_in_calls(is_over):
        assert len(silos.deaths) < MOST_DEATHS, silos.deaths[-1]


async def take_back_half_made(silos: Silos) -> None:
    """Kill the process in the midst of making accounts; before the next one begins, they are not wanted any more."""
    wanted_still = set(HALVES)
    while HALF_MADE - silos.cloud.struck:
        assert await silos.die_in_calls(never)
        died = [tenant_id for place, tenant_id in silos.deaths[-1].held.items() if place in HALF_MADE]
        await silos.ask([DeprovisionEnvironment(tenant_id=each) for each in died])
        wanted_still -= set(died)
    await silos.ask([DeprovisionEnvironment(tenant_id=each) for each in wanted_still])


async def never() -> bool:
    return False


async def told(silos: Silos, answers: Mapping[tuple[str, str], int]) -> None:
    """Wait until workflows have got these answers, and no others."""
    await eventually(lambda: len(silos.answers()) >= len(answers), within=END_SECONDS)
    assert silos.answers() == answers


def tell(report: Report, what: str, deaths: Sequence[Death]) -> None:
    report(f"{what}: {len(deaths)} deaths, in {sum(len(death.held) for death in deaths)} calls")
    for death in deaths:
        report(str(death))
