"""What a tenant pays for products, beside the plan of its account."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from services.billing.tests.support import (
    NOON,
    activated,
    are_waiting,
    ask,
    books,
    charged,
    deactivated,
    do_all,
    do_it,
    hear,
    licences,
    on,
    open_accounts,
    open_active,
    owed,
    purge,
    residue,
    subscriptions,
    undo_all,
    void_accounts,
)
from shared.contracts.base import Ask
from shared.contracts.billing import (
    AccountOpened,
    AccountPurged,
    AccountRefused,
    ChangeLicences,
    ChangePlan,
    CloseAccount,
    LicencesChanged,
    LicencesChangeRefused,
    PauseBilling,
    ResumeBilling,
    SubscriptionStarted,
)
from shared.messaging.event import Event
from shared.messaging.subscriptions import Changed
from shared.postgres import Pool, transaction
from shared.testing import eventually

PENDING, ACTIVE = ("pending", None), ("active", NOON)
CHESS: Any = [{"product": "chess", "plan": "premium"}]
STANDARD, PREMIUM = "standard", "premium for chess"

Happening = Callable[[Pool], Coroutine[Any, Any, None]]


async def is_activated(pool: Pool) -> None:
    await hear(pool, activated("t1"))


async def is_deactivated(pool: Pool) -> None:
    await hear(pool, deactivated("t1"))


async def is_paused(pool: Pool) -> None:
    await do_it(pool, PauseBilling(tenant_id="t1"), at=on(5))


async def lines(pool: Pool) -> list[tuple[str, str]]:
    """Return what each line of the invoice is about, and its amount."""
    rows = await pool.fetch("SELECT description, round(amount, 2)::text AS amount FROM invoice_line ORDER BY position")
    return [(row["description"].partition(":")[0], row["amount"]) for row in rows]


async def test_licences_are_opened_with_the_account_at_their_price_in_its_currency(pool: Pool) -> None:
    go = {"product": "go", "plan": "free"}

    facts = await open_accounts(pool, ask("t1", currency="EUR", licences=[*CHESS, go]), ask("t2"))

    assert [type(fact) for fact in facts] == [AccountOpened, AccountOpened]
    assert await subscriptions(pool) == {"t1": PENDING, "t1/chess": PENDING, "t1/go": PENDING, "t2": PENDING}
    rows = await pool.fetch("SELECT product, plan, currency, amount FROM subscription WHERE product <> '' ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        ("chess", "premium", "EUR", Decimal(459)),
        ("go", "free", "EUR", Decimal(0)),
    ]


async def test_a_licence_that_cannot_be_had_is_refused_by_its_product_and_no_account_is_opened(pool: Pool) -> None:
    await pool.execute("DELETE FROM plan_version_price WHERE plan = 'free' AND currency = 'EUR'")
    gold, free = {"product": "go", "plan": "gold"}, {"product": "go", "plan": "free"}

    facts = await open_accounts(
        pool,
        ask("t1", licences=[*CHESS, gold]),
        ask("t2", currency="EUR", licences=[*CHESS, free]),
        ask("t3", currency="EUR", licences=[free, gold | {"product": "shogi"}]),
        ask("t4", plan="silver", licences=[gold]),
        ask("t5", licences=[free]),
    )

    refusals = [fact for fact in facts if isinstance(fact, AccountRefused)]
    assert [(each.tenant_id, each.code, each.detail) for each in refusals] == [
        ("t1", "unknown_plan", "There is no plan 'gold' for go."),
        ("t2", "unsupported_currency", "The plan 'free' for go is not sold in EUR."),
        ("t3", "unsupported_currency", "The plan 'free' for go is not sold in EUR."),
        ("t4", "unknown_plan", "There is no plan 'silver'."),
    ]
    assert await residue(pool) == [("t5", "account"), ("t5", "licence"), ("t5", "subscription")]


async def test_an_account_that_is_there_already_gets_no_licences(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"), ask("t2", licences=CHESS))

    await open_accounts(pool, ask("t1", licences=CHESS), ask("t2", licences=[{"product": "go", "plan": "free"}]))

    assert await subscriptions(pool) == {"t1": PENDING, "t2": PENDING, "t2/chess": PENDING}


async def test_licences_start_with_the_account_which_is_told_once(pool: Pool) -> None:
    await open_accounts(pool, ask("t1", licences=CHESS))

    told = [*await hear(pool, activated("t1")), *await hear(pool, activated("t1", minutes=5))]

    assert [event.message for event in told] == [SubscriptionStarted(tenant_id="t1", plan="standard")]
    assert await charged(pool) == [("t1", STANDARD, NOON, None), ("t1", PREMIUM, NOON, None)]


@pytest.mark.parametrize("order", list(permutations([activated, deactivated])))
async def test_licences_of_a_withdrawn_activation_are_not_charged_in_whatever_order_the_facts_arrive(
    pool: Pool, order: tuple[Callable[..., Event], ...]
) -> None:
    await open_accounts(pool, ask("t1", licences=CHESS))

    for fact in (*order, *order):
        await hear(pool, fact("t1"))

    assert await subscriptions(pool) == {"t1": PENDING, "t1/chess": PENDING}


async def test_nothing_is_charged_of_a_withdrawn_activation_whatever_was_licensed_meanwhile(pool: Pool) -> None:
    await open_active(pool, "t1", licences=CHESS)
    await do_it(pool, licences("t1", go="standard"), at=on(5))

    await hear(pool, deactivated("t1"))

    assert await subscriptions(pool) == {"t1": PENDING, "t1/chess": ("ended", None), "t1/go": PENDING}
    assert await owed(pool, at=on(20)) == "0.00"
    await hear(pool, activated("t1", 2, minutes=5))
    start = NOON + timedelta(minutes=5)
    assert await charged(pool) == [("t1", STANDARD, start, None), ("t1", "standard for go", start, None)]


async def test_a_withdrawal_comes_too_late_for_the_licences_of_a_closed_account(pool: Pool) -> None:
    await open_active(pool, "t1", licences=CHESS)
    await do_it(pool, CloseAccount(tenant_id="t1"), at=on(11))
    before = await books(pool)

    await hear(pool, deactivated("t1"))

    assert await books(pool) == before


async def test_exactly_what_is_asked_for_is_charged_from_then_on(pool: Pool) -> None:
    await open_active(pool, "t1", licences=[*CHESS, {"product": "go", "plan": "free"}])

    done = await do_it(pool, licences("t1", go="standard", shogi="premium"), at=on(11))

    assert done.answer == LicencesChanged(tenant_id="t1")
    assert await charged(pool) == [
        ("t1", STANDARD, NOON, None),
        ("t1", PREMIUM, NOON, on(11)),
        ("t1", "free for go", NOON, on(11)),
        ("t1", "standard for go", on(11), None),
        ("t1", "premium for shogi", on(11), None),
    ]


@pytest.mark.parametrize("plan", ["standard", "free"])
async def test_another_plan_of_the_account_leaves_its_licences_alone(pool: Pool, plan: str) -> None:
    await open_active(pool, "t1", licences=CHESS)
    (before,) = await pool.fetch("SELECT * FROM subscription WHERE product = 'chess'")

    await do_it(pool, ChangePlan(tenant_id="t1", plan=plan), at=on(11))

    assert await pool.fetch("SELECT * FROM subscription WHERE product = 'chess'") == [before]


async def test_a_new_licence_waits_for_the_activation_of_the_account(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))

    await do_it(pool, licences("t1", chess="premium"), at=on(1))
    assert await subscriptions(pool) == {"t1": PENDING, "t1/chess": PENDING}
    await hear(pool, activated("t1"))

    assert await charged(pool) == [("t1", STANDARD, NOON, None), ("t1", PREMIUM, NOON, None)]


async def test_a_licence_that_is_added_during_a_pause_is_charged_after_it(pool: Pool) -> None:
    await open_active(pool, "t1")
    await do_it(pool, PauseBilling(tenant_id="t1"), at=on(5))

    await do_it(pool, licences("t1", chess="premium"), at=on(7))
    assert await subscriptions(pool) == {"t1": ("paused", NOON), "t1/chess": ("paused", NOON)}
    await do_it(pool, ResumeBilling(tenant_id="t1"), at=on(9))

    assert await charged(pool) == [
        ("t1", STANDARD, NOON, on(5)),
        ("t1", STANDARD, on(9), None),
        ("t1", PREMIUM, on(9), None),
    ]


@pytest.mark.parametrize("happened", [(), (is_activated, is_paused)])
async def test_a_licence_that_is_not_charged_has_no_stretch_that_runs(
    pool: Pool, happened: Sequence[Happening]
) -> None:
    await open_accounts(pool, ask("t1", licences=CHESS))
    for happening in happened:
        await happening(pool)
    await do_it(pool, licences("t1"), at=on(6))

    await do_it(pool, licences("t1", chess="standard", go="free"), at=on(7))

    assert await pool.fetchval("SELECT count(charged_since) FROM subscription") == 0


@pytest.mark.parametrize("again", [[], CHESS])
async def test_a_licence_is_not_charged_before_its_account_is_again_whatever_the_clocks_say(
    pool: Pool, again: Any
) -> None:
    await open_active(pool, "t1", plan="free", licences=again)
    await do_it(pool, licences("t1"), at=on(3))
    await is_paused(pool)
    await do_it(pool, ResumeBilling(tenant_id="t1"), at=on(9))

    await do_it(pool, licences("t1", chess="standard"), at=on(7))

    assert (await charged(pool))[-1] == ("t1", "standard for chess", on(9), None)


async def test_a_licence_is_not_started_by_the_activation_that_was_taken_back_before_it_came(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))
    await hear(pool, deactivated("t1"))
    await do_it(pool, licences("t1", chess="premium"))

    await hear(pool, activated("t1"))

    assert await subscriptions(pool) == {"t1": PENDING, "t1/chess": PENDING}


async def test_a_pause_and_a_resumption_are_of_all_that_is_charged(pool: Pool) -> None:
    await open_active(pool, "t1", licences=[*CHESS, {"product": "go", "plan": "free"}])
    await do_it(pool, licences("t1", chess="premium"), at=on(3))

    await do_it(pool, PauseBilling(tenant_id="t1"), at=on(5))
    assert {state for state, _ in (await subscriptions(pool)).values()} == {"paused", "ended"}
    await do_it(pool, ResumeBilling(tenant_id="t1"), at=on(7))

    assert await charged(pool) == [
        ("t1", STANDARD, NOON, on(5)),
        ("t1", STANDARD, on(7), None),
        ("t1", PREMIUM, NOON, on(5)),
        ("t1", PREMIUM, on(7), None),
        ("t1", "free for go", NOON, on(3)),
    ]


async def test_the_final_invoice_lists_what_was_ever_charged_with_the_names_of_the_products(pool: Pool) -> None:
    await open_active(pool, "t1", licences=[*CHESS, {"product": "go", "plan": "standard"}])
    await do_it(pool, licences("t1", chess="premium"), at=on(6))
    await do_it(pool, licences("t1", chess="standard", shogi="standard"), at=on(11))

    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(21))

    assert await lines(pool) == [
        ("standard, 2026-03-01 to 2026-03-20", "31.61"),  # 49 * 20/31
        ("premium for chess, 2026-03-01 to 2026-03-10", "160.97"),  # 499 * 10/31
        ("standard for chess, 2026-03-11 to 2026-03-20", "15.81"),  # 49 * 10/31
        ("standard for go, 2026-03-01 to 2026-03-05", "7.90"),  # 49 * 5/31
        ("standard for shogi, 2026-03-11 to 2026-03-20", "15.81"),
    ]
    assert done.answer.model_dump()["total"] == "232.10"
    assert {state for state, _ in (await subscriptions(pool)).values()} == {"ended"}


async def test_a_closing_that_is_taken_back_leaves_a_dropped_licence_dropped(pool: Pool) -> None:
    await open_active(pool, "t1", licences=[*CHESS, {"product": "go", "plan": "free"}])
    await do_it(pool, licences("t1", chess="premium"), at=on(3))

    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(11))
    await undo_all(pool, CloseAccount, ("t1", done))

    assert await subscriptions(pool) == {"t1": ACTIVE, "t1/chess": ACTIVE, "t1/go": ("ended", NOON)}


async def test_a_licence_that_is_taken_again_is_charged_for_both_times_and_not_in_between(pool: Pool) -> None:
    await open_active(pool, "t1", plan="free", licences=CHESS)
    await do_it(pool, licences("t1"), at=on(6))
    await pool.execute("UPDATE plan_version_price SET amount = 310 WHERE plan = 'premium'")

    await do_it(pool, licences("t1", chess="premium"), at=on(11))

    assert await charged(pool) == [
        ("t1", "free", NOON, None),
        ("t1", PREMIUM, NOON, on(6)),
        ("t1", PREMIUM, on(11), None),
    ]
    assert await owed(pool, at=on(21)) == "180.48"  # 499 * 5/31 = 80.48, and 310 * 10/31


async def test_a_licence_by_the_same_plan_keeps_its_agreed_amount(pool: Pool) -> None:
    await open_active(pool, "t1", licences=CHESS)
    await pool.execute("UPDATE plan_version_price SET amount = 60")
    before = await books(pool)

    done = await do_it(pool, licences("t1", chess="premium"), at=on(5))

    assert done == Changed(LicencesChanged(tenant_id="t1"))
    assert await books(pool) == before


async def test_licences_that_cannot_be_had_are_refused_by_product_and_nothing_is_changed(pool: Pool) -> None:
    await open_active(pool, "t1", "t2", "t3", licences=CHESS)
    await do_it(pool, CloseAccount(tenant_id="t3"), at=on(5))
    await pool.execute("DELETE FROM plan_version_price WHERE plan = 'free' AND currency = 'EUR'")
    await open_active(pool, "t4", currency="EUR")
    before = await books(pool)

    done = await do_all(
        pool,
        licences("t0", chess="premium"),
        licences("t1", go="premium", chess="gold"),
        licences("t4", go="premium", chess="free"),
        licences("t3", go="premium"),
        at=on(6),
    )

    assert all(isinstance(each.answer, LicencesChangeRefused) for each in done)
    told = [each.answer.model_dump() for each in done]
    assert [(each["code"], each["detail"], each["retryable"]) for each in told] == [
        ("unknown_account", "The tenant has no account that can be charged.", False),
        ("unknown_plan", "There is no plan 'gold' for chess.", False),
        ("unsupported_currency", "The plan 'free' for chess is not sold in EUR.", False),
        ("unknown_account", "The tenant has no account that can be charged.", False),
    ]
    assert [each.before for each in done] == [None] * 4
    assert await books(pool) == before


@pytest.mark.parametrize(
    ("wanted", "total"),
    [
        pytest.param({"chess": "premium", "go": "standard"}, "160.97", id="one is added"),
        pytest.param({}, "160.97", id="one is dropped"),
        pytest.param({"chess": "standard"}, "160.97", id="another plan"),
    ],
)
async def test_the_time_of_a_change_that_was_undone_is_charged_as_if_there_had_been_none(
    pool: Pool, wanted: dict[str, str], total: str
) -> None:
    await open_active(pool, "t1", plan="free", licences=CHESS)
    done = await do_it(pool, licences("t1", **wanted), at=on(5))
    await undo_all(pool, ChangeLicences, ("t1", done))

    assert await owed(pool, at=on(11)) == total  # 499 * 10/31


async def test_two_changes_of_one_batch_are_undone_in_reverse(pool: Pool) -> None:
    await open_active(pool, "t1", licences=CHESS)
    before = await books(pool)

    done = await do_all(
        pool, licences("t1", go="free"), licences("t1", go="standard", chess="free"), licences("t1"), at=on(5)
    )
    assert {state for state, _ in (await subscriptions(pool)).values()} == {"active", "ended"}
    await undo_all(pool, ChangeLicences, *(("t1", each) for each in reversed(done)))

    assert await books(pool) == before


@pytest.mark.parametrize("later", [PauseBilling(tenant_id="t1"), CloseAccount(tenant_id="t1")], ids=str)
async def test_an_undo_leaves_all_licences_alone_where_one_was_changed_again_since(pool: Pool, later: Ask) -> None:
    await open_active(pool, "t1", licences=CHESS)
    change = await do_it(pool, licences("t1", go="free"), at=on(5))
    since = await do_it(pool, later, at=on(7))
    after = await books(pool)

    await undo_all(pool, ChangeLicences, ("t1", change))
    assert await books(pool) == after

    await undo_all(pool, type(later), ("t1", since))
    await undo_all(pool, ChangeLicences, ("t1", change))
    assert await charged(pool) == [("t1", STANDARD, NOON, None), ("t1", PREMIUM, NOON, None)]


async def test_a_pause_is_not_taken_back_in_part(pool: Pool) -> None:
    """Or a licence would be charged while its account is not."""
    await open_active(pool, "t1", licences=CHESS)
    pause = await do_it(pool, PauseBilling(tenant_id="t1"), at=on(5))
    await do_it(pool, ChangePlan(tenant_id="t1", plan="free"), at=on(6))
    after = await books(pool)

    await undo_all(pool, PauseBilling, ("t1", pause))

    assert await books(pool) == after


async def test_an_activation_that_comes_between_a_change_and_its_undo_counts(pool: Pool) -> None:
    await open_accounts(pool, ask("t1", licences=CHESS))
    done = await do_it(pool, licences("t1", go="free"), at=on(1))
    await hear(pool, activated("t1"))

    await undo_all(pool, ChangeLicences, ("t1", done))

    assert await charged(pool) == [("t1", STANDARD, NOON, None), ("t1", PREMIUM, NOON, None)]
    assert "t1/go" not in await subscriptions(pool)


async def test_a_before_image_of_the_release_before_is_brought_back(pool: Pool) -> None:
    await open_active(pool, "t1")
    before = await books(pool)
    done = await do_it(pool, PauseBilling(tenant_id="t1"), at=on(5))
    assert done.before is not None
    older = {name: value for name, value in done.before.items() if name != "licences"}

    await undo_all(pool, PauseBilling, ("t1", Changed(done.answer, older)))

    assert await books(pool) == before


async def test_a_clock_that_goes_back_never_charges_a_licence_twice_nor_before_the_account(pool: Pool) -> None:
    await open_active(pool, "t1")

    for wanted, moment in (
        ({"chess": "premium"}, NOON - timedelta(days=2)),
        ({}, on(9)),
        ({"chess": "standard"}, on(7)),
        ({"chess": "free"}, on(6)),
        ({}, on(12)),
    ):
        await do_it(pool, licences("t1", **wanted), at=moment)

    assert await charged(pool) == [
        ("t1", STANDARD, NOON, None),
        ("t1", PREMIUM, NOON, on(9)),
        ("t1", "free for chess", on(9), on(12)),
    ]


async def test_a_licence_that_is_dropped_and_taken_again_in_one_batch_goes_on(pool: Pool) -> None:
    await open_active(pool, "t1", licences=CHESS)

    await do_all(pool, licences("t1"), licences("t1", chess="standard"), at=on(5))

    assert await charged(pool) == [
        ("t1", STANDARD, NOON, None),
        ("t1", PREMIUM, NOON, on(5)),
        ("t1", "standard for chess", on(5), None),
    ]


async def test_voiding_and_purging_take_all_licences_along(pool: Pool) -> None:
    await open_active(pool, "t1", "t2", licences=CHESS)
    for tenant_id in ("t1", "t2"):
        await do_it(pool, licences(tenant_id, go="free"), at=on(5))
    await do_it(pool, CloseAccount(tenant_id="t2"), at=on(11))

    await void_accounts(pool, "t1")
    (purged,) = await purge(pool, "t2")

    assert isinstance(purged, AccountPurged)
    assert purged.deleted == {"accounts": 1, "subscriptions": 3}
    assert await residue(pool) == []


@pytest.mark.parametrize(
    ("before", "meanwhile", "state"),
    [
        ((), is_activated, "active"),
        ((is_activated,), is_deactivated, "pending"),
        ((is_activated,), is_paused, "paused"),
    ],
)
async def test_what_waits_for_a_change_of_licences_happens_to_those_that_it_has_added(
    pool: Pool, before: Sequence[Happening], meanwhile: Happening, state: str
) -> None:
    await open_accounts(pool, ask("t1"))
    for happening in before:
        await happening(pool)

    async with asyncio.TaskGroup() as group, transaction(pool) as blocker:
        await blocker.execute("SELECT FROM subscription FOR UPDATE")
        group.create_task(do_it(pool, licences("t1", chess="premium"), at=on(5)))
        await eventually(lambda: are_waiting(pool, 1), describe="the change of licences waits")
        group.create_task(meanwhile(pool))
        await eventually(lambda: are_waiting(pool, 2), describe="the other one waits")

    assert {name: found for name, (found, _) in (await subscriptions(pool)).items()} == {"t1": state, "t1/chess": state}


async def test_five_hundred_accounts_get_licences_and_lose_them_again(pool: Pool) -> None:
    tenant_ids = [f"t{number}" for number in range(500)]
    await open_active(pool, *tenant_ids, licences=CHESS)
    before = await books(pool)

    done = await do_all(pool, *(licences(each, go="free", shogi="standard") for each in tenant_ids), at=on(5))
    assert len(await subscriptions(pool)) == 2000
    await undo_all(pool, ChangeLicences, *zip(tenant_ids, done, strict=True))

    assert await books(pool) == before
