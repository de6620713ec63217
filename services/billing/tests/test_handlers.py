import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from itertools import permutations
from uuid import UUID

import pytest

from services.billing import handlers
from services.billing.tests.support import (
    NOON,
    activated,
    are_waiting,
    ask,
    deactivated,
    do_all,
    hear,
    licences,
    open_accounts,
    purge,
    residue,
    subscriptions,
    undo_all,
    void_accounts,
)
from shared.clock import ManualClock
from shared.contracts import billing as contracts
from shared.contracts.base import Ask
from shared.contracts.billing import (
    AccountOpened,
    AccountRefused,
    AccountVoided,
    ChangePlan,
    CloseAccount,
    PauseBilling,
    ResumeBilling,
    SubscriptionStarted,
    UpdateAccount,
)
from shared.messaging.event import Event
from shared.postgres import Pool, transaction
from shared.testing import eventually

PENDING = ("pending", None)
ACTIVE = ("active", NOON)


async def test_an_account_is_opened_on_its_plan_with_nothing_to_pay_yet(pool: Pool) -> None:
    clock = ManualClock(NOON)

    (fact,) = await open_accounts(pool, ask("t1", plan="premium", billing_address="Ring 1\nBerlin"), clock=clock)

    (account,) = await pool.fetch("SELECT * FROM account")
    (subscription,) = await pool.fetch("SELECT * FROM subscription")
    assert fact == AccountOpened(tenant_id="t1", account_id=str(account["account_id"]))
    assert (account["customer_name"], account["billing_address"]) == ("Acme", "Ring 1\nBerlin")
    assert (account["currency"], account["opened_at"]) == ("USD", NOON)
    assert (subscription["plan"], subscription["amount"]) == ("premium", Decimal("499.00"))
    assert await subscriptions(pool) == {"t1": PENDING}


async def test_an_account_is_opened_in_the_currency_that_is_asked_for(pool: Pool) -> None:
    await open_accounts(pool, ask("t1", currency="EUR"))

    assert tuple(await pool.fetchrow("SELECT currency, amount FROM subscription") or ()) == ("EUR", Decimal(45))


async def test_an_unknown_plan_or_currency_is_refused_and_stops_no_other_ask_of_the_batch(pool: Pool) -> None:
    facts = await open_accounts(
        pool, ask("t1", plan="gold"), ask("t2"), ask("t3", currency="JPY"), ask("t4", plan="gold", currency="JPY")
    )

    assert facts[0] == AccountRefused(tenant_id="t1", code="unknown_plan", detail="There is no plan 'gold'.")
    assert isinstance(facts[1], AccountOpened)
    assert facts[2] == AccountRefused(
        tenant_id="t3", code="unsupported_currency", detail="The plan 'standard' is not sold in JPY."
    )
    assert isinstance(facts[3], AccountRefused)
    assert facts[3].code == "unknown_plan"
    assert await residue(pool) == [("t2", "account"), ("t2", "subscription")]


async def test_a_tenant_has_one_account_however_often_it_is_asked_for(pool: Pool) -> None:
    (first,) = await open_accounts(pool, ask("t1"))

    again = await open_accounts(pool, ask("t1", plan="premium"), ask("t1"))
    twins = await open_accounts(pool, ask("t2"), ask("t2", plan="premium"))

    assert again == [first, first]
    assert twins[0] == twins[1]
    plans = await pool.fetch("SELECT tenant_id, plan FROM subscription JOIN account USING (account_id) ORDER BY 1")
    assert [tuple(row) for row in plans] == [("t1", "standard"), ("t2", "standard")]


async def test_five_hundred_accounts_are_opened_and_voided_in_one_batch(pool: Pool) -> None:
    tenant_ids = [f"t{number}" for number in range(500)]

    facts = await open_accounts(pool, *(ask(tenant_id) for tenant_id in tenant_ids))
    assert [fact.tenant_id for fact in facts] == tenant_ids
    assert len(await hear(pool, *(activated(tenant_id) for tenant_id in tenant_ids))) == 500

    assert len(await void_accounts(pool, *tenant_ids)) == 500
    assert await residue(pool) == []


async def test_voiding_leaves_nothing_of_the_tenant_and_everything_of_others(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"), ask("t2"))
    await hear(pool, activated("t1"))

    assert await void_accounts(pool, "t1") == [AccountVoided(tenant_id="t1")]

    assert await residue(pool) == [("t2", "account"), ("t2", "subscription")]


async def test_voiding_what_never_was_is_answered_all_the_same(pool: Pool) -> None:
    assert await void_accounts(pool, "t1", "t1") == [AccountVoided(tenant_id="t1")] * 2


async def test_charging_starts_at_the_activation_and_is_told_once(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"), ask("t2", plan="premium"))
    cause = activated("t2", 7)

    (told,) = await hear(pool, cause)
    repeated = await hear(pool, activated("t2", 7, minutes=5), activated("t2", 7, minutes=9))

    assert told.message == SubscriptionStarted(tenant_id="t2", plan="premium")
    assert (told.publisher, told.workflow_id, told.causation_id) == ("billing", UUID(int=7), cause.id)
    assert repeated == []
    assert await subscriptions(pool) == {"t1": PENDING, "t2": ACTIVE}


async def test_of_one_activation_told_twice_in_a_batch_the_earlier_counts(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))

    assert len(await hear(pool, activated("t1", minutes=5), activated("t1"))) == 1

    assert await subscriptions(pool) == {"t1": ACTIVE}


async def test_an_activation_outside_of_any_workflow_counts_too(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))

    assert len(await hear(pool, activated("t1", None))) == 1

    await hear(pool, deactivated("t1", 3))
    assert await subscriptions(pool) == {"t1": ACTIVE}


async def test_an_activation_that_comes_after_the_account_was_voided_leaves_nothing(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))
    await void_accounts(pool, "t1")

    assert await hear(pool, activated("t1")) == []
    assert await hear(pool, deactivated("t1")) == []

    assert await residue(pool) == []


@pytest.mark.parametrize("skew", [-5, 0, 5])
@pytest.mark.parametrize("order", list(permutations([activated, deactivated])))
async def test_a_withdrawn_activation_is_not_charged_in_whatever_order_the_facts_arrive(
    pool: Pool, order: tuple[Callable[..., Event], ...], skew: int
) -> None:
    """Nor may it matter what the clocks of those who told them said."""
    await open_accounts(pool, ask("t1"))
    minutes = {activated: 0, deactivated: skew}

    for fact in (*order, *order):
        await hear(pool, fact("t1", minutes=minutes[fact]))

    assert await subscriptions(pool) == {"t1": PENDING}


async def test_an_undo_takes_back_the_activation_of_its_own_workflow_alone(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))
    await hear(pool, activated("t1", 1))

    await hear(pool, deactivated("t1", 2, minutes=5))

    assert await subscriptions(pool) == {"t1": ACTIVE}


async def test_after_a_withdrawn_activation_another_workflow_can_activate(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))
    await hear(pool, activated("t1", 1, minutes=-9))
    await hear(pool, deactivated("t1", 1, minutes=-8))

    assert len(await hear(pool, activated("t1", 2))) == 1

    assert await subscriptions(pool) == {"t1": ACTIVE}


async def test_an_ended_subscription_is_neither_started_nor_withdrawn(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))
    await hear(pool, activated("t1"))
    await pool.execute("UPDATE subscription SET state = 'ended'")

    await hear(pool, deactivated("t1"))
    assert await hear(pool, activated("t1", 2)) == []

    assert await subscriptions(pool) == {"t1": ("ended", NOON)}


@pytest.mark.parametrize("first", [activated, deactivated])
async def test_of_two_facts_at_the_same_moment_neither_is_lost(pool: Pool, first: Callable[..., Event]) -> None:
    await open_accounts(pool, ask("t1"))
    second = deactivated if first is activated else activated

    async with asyncio.TaskGroup() as group, transaction(pool) as blocker:
        await blocker.execute("SELECT FROM subscription FOR UPDATE")
        group.create_task(hear(pool, first("t1")))
        await eventually(lambda: are_waiting(pool, 1), describe="one waits for the subscription")
        group.create_task(hear(pool, second("t1")))
        await eventually(lambda: are_waiting(pool, 2), describe="two wait for the subscription")

    assert await subscriptions(pool) == {"t1": PENDING}


async def test_an_account_is_opened_anew_after_a_voiding_that_is_still_in_progress(pool: Pool) -> None:
    (before,) = await open_accounts(pool, ask("t1"))

    async with asyncio.TaskGroup() as group, transaction(pool) as voiding:
        await voiding.execute("DELETE FROM account")
        opening = group.create_task(open_accounts(pool, ask("t1")))
        await eventually(lambda: are_waiting(pool, 1), describe="the opening waits")

    assert opening.result() != [before]
    assert await residue(pool) == [("t1", "account"), ("t1", "subscription")]


async def test_batches_that_share_tenants_in_opposite_orders_wait_for_each_other_and_never_in_a_circle(
    pool: Pool,
) -> None:
    forward = [f"t{number}" for number in range(50)]
    await open_accounts(pool, *map(ask, forward))

    async with asyncio.TaskGroup() as group:
        for tenant_ids in (forward, forward[::-1], forward, forward[::-1]):
            group.create_task(hear(pool, *map(activated, tenant_ids)))
            group.create_task(open_accounts(pool, *map(ask, tenant_ids)))

    assert set((await subscriptions(pool)).values()) == {ACTIVE}


async def test_everything_that_can_be_said_is_listed(pool: Pool) -> None:
    await open_accounts(pool, ask("t2"))
    said = [
        *await open_accounts(pool, ask("t1"), ask("t3", plan="gold")),
        *await void_accounts(pool, "t1"),
        *(event.message for event in await hear(pool, activated("t2"))),
        *await purge(pool, "t4"),
    ]
    for asked in (
        ChangePlan(tenant_id="t2", plan="premium"),
        licences("t2", chess="free"),
        PauseBilling(tenant_id="t2"),
        ResumeBilling(tenant_id="t2"),
        UpdateAccount(tenant_id="t2", customer_name="Emca"),
        CloseAccount(tenant_id="t2"),
    ):
        done = await do_all(pool, asked, asked.model_copy(update={"tenant_id": "t4"}))
        said += [each.answer for each in done]
        said += await undo_all(pool, type(asked), ("t4", None))

    # The use of API keys is said by the kernel, decisions by the API; what answers nobody has tests of its own.
    elsewhere = {contracts.ApiKeysUsed, contracts.DecisionRecorded}
    told = {contracts.RecurringRevenueChanged, contracts.UsageRequested, contracts.InvoiceIssued}
    told |= {contracts.PaymentReceived, contracts.PaymentFailed, contracts.InvoiceSettled, contracts.CreditIssued}
    told |= {contracts.OverdueChanged, contracts.SpendingLimitReached, contracts.SpendingBlockChanged}
    assert {type(message) for message in said} == set(handlers.PUBLISHES) - elsewhere - told


async def test_everything_that_can_be_asked_is_heard() -> None:
    asks = {message for message in vars(contracts).values() if isinstance(message, type) and issubclass(message, Ask)}

    assert asks - {Ask} == {message for message in handlers.SUBSCRIPTIONS if issubclass(message, Ask)}


async def test_the_start_is_the_time_of_the_activation_not_of_its_arrival(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))

    await hear(pool, activated("t1", minutes=-30))

    assert await subscriptions(pool) == {"t1": ("active", NOON - timedelta(minutes=30))}
