"""Accounts as jobs make them, twenty at once, while Amazon is slow, swamped, away or fails: all get theirs, or none."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from services.provisioning.drivers.aws import Waits, open_aws, silo
from services.provisioning.tests.cloud import Cloud
from services.provisioning.tests.support import ask
from services.provisioning.tests.world import World, undo_of
from shared.clock import SystemClock
from shared.contracts.base import Refusal
from shared.contracts.provisioning import EnvironmentDeprovisioned, EnvironmentProvisioned
from shared.messaging.event import Event
from shared.postgres import Pool
from shared.testing.three_services import asked

TENANTS = [f"t{number}" for number in range(20)]
SOME = TENANTS[:8]
POLL = Waits().poll.total_seconds()
MOST_POLLS = 20
LONGEST = 400.0


@dataclass
class Accounts:
    """The service on Amazon's infrastructure, and how time passes for it."""

    world: World
    cloud: Cloud

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> float:
        """Let time pass until something is so, and return how many seconds."""
        seconds = 0.0
        while not await condition():
            assert seconds < LONGEST, await self.world.jobs()
            await self.world.wait(POLL)
            seconds += POLL
        return seconds

    async def are_ended(self) -> bool:
        """Tell whether nothing is to be done any more."""
        return not [state for _, state, _ in await self.world.jobs() if state != "done"]

    async def ready(self) -> set[str]:
        """Return the tenants that can work."""
        rows = await self.world.pool.fetch("SELECT tenant_id FROM environment WHERE status = 'ready'")
        return {row["tenant_id"] for row in rows}

    def answers(self) -> dict[str, str]:
        """Return how each tenant was answered: with the reason, or what it got."""
        return {
            each.message.tenant_id: each.message.code if isinstance(each.message, Refusal) else "provisioned"
            for each in self.world.said
            if isinstance(each.message, EnvironmentProvisioned | Refusal)
        }

    def owners(self) -> Counter[str]:
        """Return how many accounts in use each tenant has."""
        return Counter(self.cloud.owners())


@pytest.fixture
async def accounts(pool: Pool, cloud: Cloud) -> AsyncIterator[Accounts]:
    cloud.plan.polls = 1
    cloud.plan.verified |= {f"{tenant_id}.mail.example.com" for tenant_id in TENANTS}
    async with open_aws(cloud.terms(waits=Waits()), clock=SystemClock()) as driver:
        yield Accounts(World(pool, driver), cloud)


def events(*tenant_ids: str, **parameters: str) -> list[Event]:
    return [asked(ask(each, isolation="silo", driver="aws", parameters=parameters)) for each in tenant_ids]


async def test_tenants_get_their_accounts_though_amazon_is_asked_too_often_all_the_time(accounts: Accounts) -> None:
    accounts.cloud.plan.most = 20

    await accounts.world.handle(*events(*TENANTS, mailDomain="{tenantId}.mail.example.com"))
    await accounts.until(accounts.are_ended)

    assert len(accounts.cloud.throttled) > 2 * len(TENANTS)
    assert len(set(accounts.cloud.throttled)) > 10
    assert accounts.answers() == dict.fromkeys(TENANTS, "provisioned")
    assert accounts.owners() == dict.fromkeys(TENANTS, 1)


async def test_an_account_that_is_not_made_for_an_hour_holds_up_nobody_and_is_given_up(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silo, "_MOST_POLLS", MOST_POLLS)
    slow, *others = SOME
    accounts.cloud.plan.polls = 1_000
    await accounts.world.handle(*events(slow))
    accounts.cloud.plan.polls = 1
    await accounts.world.handle(*events(*others))

    await accounts.until(lambda: answered(accounts, others))
    assert await accounts.ready() == set(others)

    waited = await accounts.until(lambda: is_on_the_way_back(accounts))
    assert waited < MOST_POLLS * POLL
    assert accounts.cloud.asked.count("DescribeCreateAccountStatus") > MOST_POLLS
    assert slow not in accounts.answers()

    accounts.cloud.finish_accounts()
    await accounts.until(accounts.are_ended)

    assert accounts.answers()[slow] == "account_overdue"
    assert accounts.owners() == dict.fromkeys(others, 1)


async def test_an_account_that_is_not_wanted_any_more_while_it_is_made_is_closed_when_it_is_there(
    accounts: Accounts,
) -> None:
    accounts.cloud.plan.polls = 1_000
    (event,) = events("t0")
    await accounts.world.handle(event)
    await accounts.world.take(undo_of(event))
    await accounts.world.wait(10 * POLL)
    assert accounts.owners()["t0"] == 1  # for the operator, who sees what is being made

    accounts.cloud.finish_accounts()
    await accounts.until(accounts.are_ended)

    assert accounts.owners() == {}
    assert isinstance(accounts.world.said[-1].message, EnvironmentDeprovisioned)
    assert accounts.answers() == {}


async def test_tenants_whose_accounts_cannot_be_made_are_refused_and_the_others_get_theirs(
    accounts: Accounts,
) -> None:
    failures = ["ACCOUNT_LIMIT_EXCEEDED", "EMAIL_ALREADY_EXISTS", "INVALID_ADDRESS", "INTERNAL_FAILURE"]
    accounts.cloud.plan.failures = list(failures)

    await accounts.world.handle(*events(*SOME))
    await accounts.until(accounts.are_ended)

    assert accounts.cloud.plan.failures == []
    answers = Counter(accounts.answers().values())
    assert answers == {"provisioned": 5, "account_limit": 1, "address_taken": 1, "account_refused": 1}
    assert await accounts.ready() == {
        tenant for tenant, answer in accounts.answers().items() if answer == "provisioned"
    }
    assert accounts.owners() == dict.fromkeys(await accounts.ready(), 1)


async def test_what_was_begun_before_amazon_went_away_for_long_is_given_up_and_removed_when_it_is_back(
    accounts: Accounts,
) -> None:
    await accounts.world.handle(*events(*SOME))
    await accounts.world.wait(POLL)
    assert accounts.owners() == dict.fromkeys(SOME, 1)

    with accounts.cloud.away():
        waited = await accounts.until(lambda: is_on_the_way_back(accounts, len(SOME)))
    assert waited > 60
    await accounts.until(accounts.are_ended)

    assert accounts.answers() == dict.fromkeys(SOME, "provisioning_failed")
    assert accounts.owners() == {}


async def answered(accounts: Accounts, tenant_ids: list[str]) -> bool:
    return accounts.answers().keys() >= set(tenant_ids)


async def is_on_the_way_back(accounts: Accounts, count: int = 1) -> bool:
    return [state for _, state, _ in await accounts.world.jobs()].count("failing") == count
