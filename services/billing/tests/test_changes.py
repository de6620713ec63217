"""Changes of what a tenant is charged for: each ask, its undo, and what is owed in the end."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from services.billing.tests.support import (
    NOON,
    activated,
    are_waiting,
    ask,
    books,
    charged,
    charged_tenants,
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
    AccountClosed,
    AccountClosingRefused,
    AccountPurged,
    AccountUpdated,
    AccountUpdateRefused,
    BillingPaused,
    BillingPauseRefused,
    BillingResumed,
    BillingResumptionRefused,
    ChangePlan,
    CloseAccount,
    PauseBilling,
    PlanChanged,
    PlanChangeRefused,
    ResumeBilling,
    UpdateAccount,
)
from shared.messaging.subscriptions import Changed
from shared.postgres import Pool, transaction
from shared.testing import eventually

STANDARD, PREMIUM = "standard", "premium"

Situation = Callable[[Pool], Coroutine[Any, Any, None]]


async def pending(pool: Pool) -> None:
    await open_accounts(pool, ask("t1"))


async def active(pool: Pool) -> None:
    await open_active(pool, "t1")


async def active_on_a_second_plan(pool: Pool) -> None:
    await active(pool)
    await do_it(pool, ChangePlan(tenant_id="t1", plan="free"), at=on(5))


async def paused(pool: Pool) -> None:
    await active(pool)
    await do_it(pool, PauseBilling(tenant_id="t1"), at=on(5))


async def resumed(pool: Pool) -> None:
    await paused(pool)
    await do_it(pool, ResumeBilling(tenant_id="t1"), at=on(7))


async def closed(pool: Pool) -> None:
    await resumed(pool)
    await do_it(pool, CloseAccount(tenant_id="t1"), at=on(9))


CHESS_AND_GO = ({"product": "chess", "plan": STANDARD}, {"product": "go", "plan": "free"})


async def licensed_and_pending(pool: Pool) -> None:
    """One of two licences is there no more."""
    await open_accounts(pool, ask("t1", licences=CHESS_AND_GO))
    await do_it(pool, licences("t1", chess=STANDARD), at=on(1))


async def licensed(pool: Pool) -> None:
    await open_active(pool, "t1", licences=CHESS_AND_GO)
    await do_it(pool, licences("t1", chess=STANDARD), at=on(5))


async def licensed_and_paused(pool: Pool) -> None:
    await licensed(pool)
    await do_it(pool, PauseBilling(tenant_id="t1"), at=on(7))


async def licensed_and_closed(pool: Pool) -> None:
    await licensed(pool)
    await do_it(pool, CloseAccount(tenant_id="t1"), at=on(9))


SITUATIONS: tuple[Situation, ...] = (
    pending,
    active,
    active_on_a_second_plan,
    paused,
    resumed,
    closed,
    licensed_and_pending,
    licensed,
    licensed_and_paused,
    licensed_and_closed,
)
ASKS: tuple[Ask, ...] = (
    ChangePlan(tenant_id="t1", plan=PREMIUM),
    PauseBilling(tenant_id="t1"),
    ResumeBilling(tenant_id="t1"),
    CloseAccount(tenant_id="t1"),
    licences("t1", chess=PREMIUM, go="free", shogi=STANDARD),
    licences("t1"),
    UpdateAccount(tenant_id="t1", customer_name="Emca"),
)
situations = pytest.mark.parametrize("situation", SITUATIONS)


@situations
async def test_an_undo_leaves_every_row_as_if_nothing_had_happened(pool: Pool, situation: Situation) -> None:
    await situation(pool)
    await open_active(pool, "t2")
    before = await books(pool)

    for asked in ASKS:
        done = await do_it(pool, asked, at=on(20))
        after = await books(pool)
        await undo_all(pool, type(asked), ("t1", done))

        assert (after != before) == (done.before is not None), asked
        assert await books(pool) == before, asked


@situations
async def test_an_undo_that_has_nothing_to_bring_back_changes_nothing(pool: Pool, situation: Situation) -> None:
    """It came first, or is repeated: the kernel hands a before-image out once."""
    await situation(pool)

    for asked in ASKS:
        done = await do_it(pool, asked, at=on(20))
        after = await books(pool)
        await undo_all(pool, type(asked), ("t1", None), ("t1", None), ("t0", None))

        assert await books(pool) == after, asked
        await undo_all(pool, type(asked), ("t1", done))


@situations
async def test_what_is_asked_for_twice_is_done_once(pool: Pool, situation: Situation) -> None:
    await situation(pool)

    for asked in ASKS:
        first = await do_it(pool, asked, at=on(20))
        after = await books(pool)
        second = await do_it(pool, asked, at=on(21))

        assert second == Changed(first.answer, None), asked
        assert await books(pool) == after, asked
        await undo_all(pool, type(asked), ("t1", first))


@situations
async def test_two_asks_of_one_batch_are_worked_off_one_after_the_other(pool: Pool, situation: Situation) -> None:
    await situation(pool)
    before = await books(pool)

    for asked in ASKS:
        first, second = await do_all(pool, asked, asked, at=on(20))
        await undo_all(pool, type(asked), ("t1", second), ("t1", first))

        assert second == Changed(first.answer, None), asked
        assert await books(pool) == before, asked


@situations
async def test_an_undo_finds_no_account_or_another_one_and_leaves_it_alone(pool: Pool, situation: Situation) -> None:
    for asked in ASKS[:-1]:
        await situation(pool)
        done = await do_it(pool, asked, at=on(20))
        await void_accounts(pool, "t1")
        await undo_all(pool, type(asked), ("t1", done))
        await situation(pool)
        await do_it(pool, asked, at=on(20))
        after = await books(pool)

        await undo_all(pool, type(asked), ("t1", done))

        assert await books(pool) == after, asked
        await void_accounts(pool, "t1")


@pytest.mark.parametrize("asked", ASKS, ids=lambda asked: type(asked).__name__)
async def test_a_batch_of_many_tenants_is_done_and_undone(pool: Pool, asked: Ask) -> None:
    tenant_ids = [f"t{number}" for number in range(100)]
    await open_active(pool, *tenant_ids)
    await do_all(pool, *(PauseBilling(tenant_id=each) for each in tenant_ids[::3]), at=on(5))
    before = await books(pool)

    asks = [asked.model_copy(update={"tenant_id": each}) for each in (*tenant_ids, "t0x")]
    done = await do_all(pool, *asks[::-1], at=on(20))
    await undo_all(pool, type(asked), *zip([each.tenant_id for each in asks[::-1]], done, strict=True))

    assert [each.answer.tenant_id for each in done] == [each.tenant_id for each in asks[::-1]]
    assert await books(pool) == before


async def test_another_plan_is_charged_from_the_change_on_at_its_price_in_the_accounts_currency(pool: Pool) -> None:
    await open_active(pool, "t1", currency="EUR")

    done = await do_it(pool, ChangePlan(tenant_id="t1", plan=PREMIUM), at=on(5))

    assert done.answer == PlanChanged(tenant_id="t1")
    assert await charged(pool) == [("t1", STANDARD, NOON, on(5)), ("t1", PREMIUM, on(5), None)]
    assert await pool.fetchval("SELECT amount FROM charged_period") == Decimal(45)
    assert await pool.fetchval("SELECT amount FROM subscription") == Decimal(459)
    assert await subscriptions(pool) == {"t1": ("active", NOON)}


async def test_a_pending_subscription_starts_on_the_plan_that_it_was_changed_to(pool: Pool) -> None:
    await pending(pool)

    await do_it(pool, ChangePlan(tenant_id="t1", plan=PREMIUM))
    assert await charged(pool) == []
    (started,) = await hear(pool, activated("t1"))

    assert started.message.model_dump()["plan"] == PREMIUM
    assert await charged(pool) == [("t1", PREMIUM, NOON, None)]


async def test_a_paused_subscription_resumes_on_the_plan_that_it_was_changed_to(pool: Pool) -> None:
    await paused(pool)

    await do_it(pool, ChangePlan(tenant_id="t1", plan=PREMIUM), at=on(6))
    assert await charged_tenants(pool) == []
    await do_it(pool, ResumeBilling(tenant_id="t1"), at=on(7))

    assert await charged(pool) == [("t1", STANDARD, NOON, on(5)), ("t1", PREMIUM, on(7), None)]


async def test_the_plan_that_an_account_is_on_keeps_its_agreed_amount(pool: Pool) -> None:
    await active(pool)
    await pool.execute("UPDATE plan_version_price SET amount = 60 WHERE plan = 'standard'")
    before = await books(pool)

    assert await do_it(pool, ChangePlan(tenant_id="t1", plan=STANDARD)) == Changed(PlanChanged(tenant_id="t1"))

    assert await books(pool) == before


async def test_a_plan_that_cannot_be_had_is_refused_and_stops_no_other_ask_of_the_batch(pool: Pool) -> None:
    await open_active(pool, "t1", "t2", "t3")
    await do_it(pool, CloseAccount(tenant_id="t3"), at=on(5))
    await pool.execute("DELETE FROM plan_version_price WHERE plan = 'free' AND currency = 'EUR'")
    await open_active(pool, "t4", currency="EUR")

    done = await do_all(
        pool,
        ChangePlan(tenant_id="t0", plan=PREMIUM),
        ChangePlan(tenant_id="t1", plan="gold"),
        ChangePlan(tenant_id="t4", plan="free"),
        ChangePlan(tenant_id="t3", plan=PREMIUM),
        ChangePlan(tenant_id="t2", plan=PREMIUM),
        at=on(6),
    )

    refusals = [each.answer for each in done[:4]]
    assert all(isinstance(refusal, PlanChangeRefused) for refusal in refusals)
    told = [refusal.model_dump() for refusal in refusals]
    assert [(each["code"], each["detail"], each["retryable"]) for each in told] == [
        ("unknown_account", "The tenant has no account that can be charged.", False),
        ("unknown_plan", "There is no plan 'gold'.", False),
        ("unsupported_currency", "The plan 'free' is not sold in EUR.", False),
        ("unknown_account", "The tenant has no account that can be charged.", False),
    ]
    assert [each.before for each in done[:4]] == [None] * 4
    assert done[4].answer == PlanChanged(tenant_id="t2")


async def test_two_plan_changes_of_one_batch_are_undone_in_reverse(pool: Pool) -> None:
    await active(pool)
    before = await books(pool)

    done = await do_all(
        pool, ChangePlan(tenant_id="t1", plan=PREMIUM), ChangePlan(tenant_id="t1", plan="free"), at=on(5)
    )
    assert await charged(pool) == [("t1", STANDARD, NOON, on(5)), ("t1", "free", on(5), None)]
    await undo_all(pool, ChangePlan, ("t1", done[1]), ("t1", done[0]))

    assert await books(pool) == before


async def test_the_time_of_a_plan_change_that_was_undone_is_charged_by_the_plan_that_was_found(pool: Pool) -> None:
    await active(pool)
    done = await do_it(pool, ChangePlan(tenant_id="t1", plan=PREMIUM), at=on(5))
    await undo_all(pool, ChangePlan, ("t1", done))

    assert await owed(pool, at=on(11)) == "15.81"  # 49 * 10/31


async def test_nothing_is_charged_during_a_pause(pool: Pool) -> None:
    await active(pool)

    done = await do_it(pool, PauseBilling(tenant_id="t1", reason="unpaid"), at=on(11))
    assert done.answer == BillingPaused(tenant_id="t1")
    assert await charged_tenants(pool) == []
    again = await do_it(pool, ResumeBilling(tenant_id="t1"), at=on(5, month=4))

    assert again.answer == BillingResumed(tenant_id="t1")
    assert await charged(pool) == [("t1", STANDARD, NOON, on(11)), ("t1", STANDARD, on(5, month=4), None)]
    assert await owed(pool, at=on(10, month=4)) == "23.98"  # 49 * 10/31 = 15.81, and 49 * 5/30 = 8.17


@pytest.mark.parametrize(
    ("situation", "asked"),
    [
        pytest.param(pending, ChangePlan(tenant_id="t1", plan=PREMIUM), id="another plan while pending"),
        pytest.param(paused, ChangePlan(tenant_id="t1", plan=PREMIUM), id="another plan while paused"),
        pytest.param(resumed, PauseBilling(tenant_id="t1"), id="pause"),
        pytest.param(resumed, CloseAccount(tenant_id="t1"), id="closing"),
    ],
)
async def test_what_is_not_charged_has_no_stretch_that_runs(pool: Pool, situation: Situation, asked: Ask) -> None:
    await situation(pool)

    await do_it(pool, asked, at=on(20))

    assert await pool.fetchval("SELECT charged_since FROM subscription") is None


async def test_the_time_of_a_pause_that_was_undone_is_charged(pool: Pool) -> None:
    await active(pool)
    done = await do_it(pool, PauseBilling(tenant_id="t1"), at=on(3))
    await undo_all(pool, PauseBilling, ("t1", done))

    assert await owed(pool, at=on(11)) == "15.81"


async def test_the_time_of_a_resumption_that_was_undone_is_not_charged(pool: Pool) -> None:
    await active(pool)
    await do_it(pool, PauseBilling(tenant_id="t1"), at=on(11))
    done = await do_it(pool, ResumeBilling(tenant_id="t1"), at=on(12))
    await undo_all(pool, ResumeBilling, ("t1", done))

    assert await charged_tenants(pool) == []
    assert await owed(pool, at=on(25)) == "15.81"


@pytest.mark.parametrize(
    ("kind", "refusal"), [(PauseBilling, BillingPauseRefused), (ResumeBilling, BillingResumptionRefused)]
)
async def test_neither_pause_nor_resumption_without_something_that_is_charged(
    pool: Pool, kind: type[Ask], refusal: type[BillingPauseRefused]
) -> None:
    """A pending one may be asked again: the fact that the tenant is active may still be on its way."""
    await pending(pool)
    await open_active(pool, "t2")
    await do_it(pool, CloseAccount(tenant_id="t2"))
    before = await books(pool)

    done = await do_all(pool, *(kind(tenant_id=tenant_id) for tenant_id in ("t0", "t1", "t2")), at=on(5))

    assert done == [
        Changed(refusal(tenant_id="t0", code="unknown_account", detail="The tenant has no account.")),
        Changed(refusal(tenant_id="t1", code="wrong_state", detail="The subscription is pending.", retryable=True)),
        Changed(refusal(tenant_id="t2", code="wrong_state", detail="The subscription is ended.")),
    ]
    assert await books(pool) == before


async def test_invoices_are_made_out_to_the_new_name(pool: Pool) -> None:
    await open_active(pool, "t1", billing_address="Ring 1\nBerlin")

    done = await do_all(
        pool, UpdateAccount(tenant_id="t1", customer_name="Emca"), UpdateAccount(tenant_id="t0", customer_name="Nobody")
    )
    await do_it(pool, CloseAccount(tenant_id="t1"))

    assert done[0] == Changed(AccountUpdated(tenant_id="t1"), {"customer_name": "Acme"})
    assert done[1] == Changed(
        AccountUpdateRefused(tenant_id="t0", code="unknown_account", detail="The tenant has no account.")
    )
    assert [tuple(row) for row in await pool.fetch("SELECT customer_name, billing_address FROM invoice")] == [
        ("Emca", "Ring 1\nBerlin")
    ]


async def test_two_names_of_one_batch_are_undone_in_reverse(pool: Pool) -> None:
    await active(pool)

    first, second = await do_all(
        pool, UpdateAccount(tenant_id="t1", customer_name="B"), UpdateAccount(tenant_id="t1", customer_name="C")
    )
    assert await pool.fetchval("SELECT customer_name FROM account") == "C"
    await undo_all(pool, UpdateAccount, ("t1", second), ("t1", first))

    assert await pool.fetchval("SELECT customer_name FROM account") == "Acme"


async def test_closing_drafts_what_is_owed_until_now(pool: Pool) -> None:
    await open_active(pool, "t1", billing_address="Ring 1\nBerlin")
    await do_it(pool, ChangePlan(tenant_id="t1", plan=PREMIUM), at=on(11))

    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(5, month=4))

    (invoice,) = await pool.fetch("SELECT * FROM invoice")
    lines = await pool.fetch("SELECT description, quantity, amount FROM invoice_line ORDER BY position")
    assert done.answer == AccountClosed(
        tenant_id="t1", invoice_id=str(invoice["invoice_id"]), currency="USD", total="420.37"
    )
    assert (invoice["tenant_id"], invoice["customer_name"], invoice["billing_address"]) == (
        "t1",
        "Acme",
        "Ring 1\nBerlin",
    )
    assert (invoice["state"], invoice["total"], invoice["drafted_at"], invoice["issued_at"]) == (
        "draft",
        Decimal("420.37"),
        on(5, month=4),
        None,
    )
    assert [tuple(row) for row in lines] == [
        ("standard, 2026-03-01 to 2026-03-10: 10 of 31 days at 49.00 USD a month", 10, Decimal("15.81")),
        ("premium, 2026-03-11 to 2026-03-31: 21 of 31 days at 499.00 USD a month", 21, Decimal("338.03")),
        ("premium, 2026-04-01 to 2026-04-04: 4 of 30 days at 499.00 USD a month", 4, Decimal("66.53")),
    ]
    assert await subscriptions(pool) == {"t1": ("ended", NOON)}
    assert await charged_tenants(pool) == []


async def test_closing_what_was_never_active_costs_nothing_and_is_drafted_all_the_same(pool: Pool) -> None:
    await pending(pool)

    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(5, month=4))

    assert done.answer.model_dump().items() >= {"currency": "USD", "total": "0.00"}.items()
    assert await pool.fetchval("SELECT count(*) FROM invoice_line") == 0
    assert await subscriptions(pool) == {"t1": ("ended", None)}


async def test_closing_a_paused_account_charges_up_to_the_pause(pool: Pool) -> None:
    await paused(pool)

    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(20))

    assert done.answer.model_dump()["total"] == "6.32"  # 49 * 4/31 = 6.3225...


async def test_closing_again_answers_the_same_draft(pool: Pool) -> None:
    await active(pool)
    first = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(20))

    again = await do_all(pool, CloseAccount(tenant_id="t1"), CloseAccount(tenant_id="t1"), at=on(25))

    assert again == [Changed(first.answer)] * 2


async def test_closing_without_an_account_is_refused(pool: Pool) -> None:
    await active(pool)

    done = await do_all(pool, CloseAccount(tenant_id="t0"), CloseAccount(tenant_id="t1"))

    assert done[0] == Changed(
        AccountClosingRefused(tenant_id="t0", code="unknown_account", detail="The tenant has no account.")
    )
    assert isinstance(done[1].answer, AccountClosed)


@pytest.mark.parametrize(("situation", "total"), [(pending, "0.00"), (paused, "6.32")])
async def test_an_account_that_was_ended_without_a_draft_gets_one(pool: Pool, situation: Situation, total: str) -> None:
    await situation(pool)
    await pool.execute("UPDATE subscription SET state = 'ended'")
    before = await books(pool)

    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(20))
    assert done.answer.model_dump()["total"] == total
    await undo_all(pool, CloseAccount, ("t1", done))

    assert await books(pool) == before


async def test_a_reopened_account_is_charged_for_the_time_in_between(pool: Pool) -> None:
    await active(pool)
    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(3))
    await undo_all(pool, CloseAccount, ("t1", done))

    assert await charged_tenants(pool) == ["t1"]
    assert await owed(pool, at=on(11)) == "15.81"


async def test_a_reopened_account_is_closed_with_another_draft(pool: Pool) -> None:
    await active(pool)
    first = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(3))
    await undo_all(pool, CloseAccount, ("t1", first))

    second = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(11))

    assert second.answer.model_dump()["invoice_id"] != first.answer.model_dump()["invoice_id"]
    assert await pool.fetchval("SELECT count(*) FROM invoice") == 1


async def test_purging_issues_the_draft_and_leaves_nothing_else(pool: Pool) -> None:
    await open_active(pool, "t1", "t2")
    (done,) = await do_all(pool, CloseAccount(tenant_id="t1"), at=on(20))
    drafted = await pool.fetchrow("SELECT * FROM invoice")
    assert drafted is not None

    facts = await purge(pool, "t1", at=on(25))

    invoice_id = done.answer.model_dump()["invoice_id"]
    assert facts == [AccountPurged(tenant_id="t1", invoice_id=invoice_id, deleted={"accounts": 1, "subscriptions": 1})]
    (issued,) = await pool.fetch("SELECT * FROM invoice")
    assert dict(issued) == dict(drafted) | {"state": "final", "issued_at": on(25), "number": 1}
    assert await pool.fetchval("SELECT count(*) FROM charged_period") == 0
    assert await residue(pool) == [("t2", "account"), ("t2", "subscription")]


async def test_purging_again_finds_nothing_and_still_names_the_invoice(pool: Pool) -> None:
    await active(pool)
    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(20))
    invoice_id = done.answer.model_dump()["invoice_id"]

    first, second = await purge(pool, "t1", "t1", at=on(25))
    (third,) = await purge(pool, "t1", at=on(26))

    assert first == AccountPurged(tenant_id="t1", invoice_id=invoice_id, deleted={"accounts": 1, "subscriptions": 1})
    assert second == AccountPurged(tenant_id="t1", invoice_id=invoice_id, deleted={"accounts": 0, "subscriptions": 0})
    assert third == second
    assert await pool.fetchval("SELECT issued_at FROM invoice") == on(25)


async def test_an_account_that_was_never_closed_is_purged_without_an_invoice(pool: Pool) -> None:
    await resumed(pool)

    facts = await purge(pool, "t1", "t0")

    assert facts == [
        AccountPurged(tenant_id="t1", deleted={"accounts": 1, "subscriptions": 1}),
        AccountPurged(tenant_id="t0", deleted={"accounts": 0, "subscriptions": 0}),
    ]
    assert not any((await books(pool)).values())


async def test_a_closing_cannot_be_taken_back_after_the_purge(pool: Pool) -> None:
    await active(pool)
    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(20))
    await purge(pool, "t1", at=on(25))
    before = await books(pool)

    await undo_all(pool, CloseAccount, ("t1", done))

    assert await books(pool) == before


async def test_voiding_takes_the_draft_along(pool: Pool) -> None:
    await closed(pool)

    await void_accounts(pool, "t1")

    assert await residue(pool) == []


async def test_an_undo_leaves_alone_what_was_changed_again_since(pool: Pool) -> None:
    await active(pool)
    change = await do_it(pool, ChangePlan(tenant_id="t1", plan=PREMIUM), at=on(5))
    pause = await do_it(pool, PauseBilling(tenant_id="t1"), at=on(7))
    after = await books(pool)

    await undo_all(pool, ChangePlan, ("t1", change))
    assert await books(pool) == after

    await undo_all(pool, PauseBilling, ("t1", pause))
    await undo_all(pool, ChangePlan, ("t1", change))
    assert await charged(pool) == [("t1", STANDARD, NOON, None)]


async def test_an_activation_that_comes_between_a_plan_change_and_its_undo_counts(pool: Pool) -> None:
    await pending(pool)
    done = await do_it(pool, ChangePlan(tenant_id="t1", plan=PREMIUM), at=on(1))
    await hear(pool, activated("t1"))

    await undo_all(pool, ChangePlan, ("t1", done))

    assert await charged(pool) == [("t1", STANDARD, NOON, None)]


async def test_an_activation_that_comes_when_the_account_is_closed_counts_if_it_is_opened_again(pool: Pool) -> None:
    await pending(pool)
    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(5))

    assert await hear(pool, activated("t1")) == []
    assert (await subscriptions(pool))["t1"][0] == "ended"
    assert await charged_tenants(pool) == []
    await undo_all(pool, CloseAccount, ("t1", done))

    assert await charged(pool) == [("t1", STANDARD, NOON, None)]


async def test_a_withdrawn_activation_is_not_charged_whatever_was_changed_since(pool: Pool) -> None:
    await active(pool)
    done = await do_it(pool, ChangePlan(tenant_id="t1", plan=PREMIUM), at=on(5))

    await hear(pool, deactivated("t1"))
    assert await charged(pool) == []
    await undo_all(pool, ChangePlan, ("t1", done))
    assert await subscriptions(pool) == {"t1": ("pending", None)}

    await hear(pool, activated("t1", 2, minutes=5))
    assert await charged(pool) == [("t1", STANDARD, NOON + timedelta(minutes=5), None)]


async def test_a_paused_subscription_whose_activation_is_withdrawn_is_pending(pool: Pool) -> None:
    await paused(pool)

    await hear(pool, deactivated("t1"))

    assert await subscriptions(pool) == {"t1": ("pending", None)}
    assert await owed(pool, at=on(20)) == "0.00"


@pytest.mark.parametrize("kind", [PauseBilling, CloseAccount])
async def test_a_clock_that_is_behind_the_activation_charges_nothing_and_overlaps_nothing(
    pool: Pool, kind: type[Ask]
) -> None:
    await active(pool)
    before = await books(pool)

    done = await do_it(pool, kind(tenant_id="t1"), at=NOON - timedelta(days=2))
    assert await pool.fetchval("SELECT count(*) FROM charged_period") == 0
    await undo_all(pool, kind, ("t1", done))

    assert await books(pool) == before


async def test_a_clock_that_goes_back_never_charges_a_moment_twice(pool: Pool) -> None:
    await active(pool)

    for asked, moment in (
        (ChangePlan(tenant_id="t1", plan=PREMIUM), on(5)),
        (PauseBilling(tenant_id="t1"), on(9)),
        (ResumeBilling(tenant_id="t1"), on(7)),
        (ChangePlan(tenant_id="t1", plan="free"), on(6)),
        (PauseBilling(tenant_id="t1"), on(12)),
    ):
        await do_it(pool, asked, at=moment)

    assert await charged(pool) == [
        ("t1", STANDARD, NOON, on(5)),
        ("t1", PREMIUM, on(5), on(9)),
        ("t1", "free", on(9), on(12)),
    ]


async def test_rows_as_the_previous_release_leaves_them_are_charged_from_the_activation(pool: Pool) -> None:
    """It knows no `charged_since` and lets an old one stand when it starts a subscription anew."""
    await pending(pool)
    await pool.execute(
        "UPDATE subscription SET state = 'active', started_at = $1, activated_by = $3, charged_since = $2",
        on(11),
        on(2),
        UUID(int=1),
    )

    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(21))

    assert done.answer.model_dump()["total"] == "15.81"  # 49 * 10/31


async def test_a_stretch_that_the_previous_release_has_left_behind_is_forgotten_at_the_start(pool: Pool) -> None:
    await pending(pool)
    await pool.execute("UPDATE subscription SET charged_since = $1", on(5))

    await hear(pool, activated("t1"))

    assert await charged(pool) == [("t1", STANDARD, NOON, None)]


async def test_of_a_change_and_a_closing_at_the_same_moment_neither_is_lost(pool: Pool) -> None:
    await active(pool)

    async with asyncio.TaskGroup() as group, transaction(pool) as blocker:
        await blocker.execute("SELECT FROM subscription FOR UPDATE")
        group.create_task(do_it(pool, ChangePlan(tenant_id="t1", plan=PREMIUM), at=on(11)))
        await eventually(lambda: are_waiting(pool, 1), describe="the change waits for the subscription")
        closing = group.create_task(do_it(pool, CloseAccount(tenant_id="t1"), at=on(1, month=4)))
        await eventually(lambda: are_waiting(pool, 2), describe="the closing waits for the subscription")

    assert closing.result().answer.model_dump()["total"] == "353.84"  # 49 * 10/31 = 15.81, 499 * 21/31 = 338.03


async def test_a_purge_waits_for_a_closing_that_is_under_way(pool: Pool) -> None:
    await active(pool)

    async with asyncio.TaskGroup() as group, transaction(pool) as blocker:
        await blocker.execute("SELECT FROM subscription FOR UPDATE")
        closing = group.create_task(do_it(pool, CloseAccount(tenant_id="t1"), at=on(11)))
        await eventually(lambda: are_waiting(pool, 1), describe="the closing waits for the subscription")
        purging = group.create_task(purge(pool, "t1", at=on(12)))
        await eventually(lambda: are_waiting(pool, 2), describe="the purge waits for the subscription")

    (purged,) = purging.result()
    assert purged.model_dump()["invoice_id"] == closing.result().answer.model_dump()["invoice_id"]
    assert await residue(pool) == []


async def test_batches_in_opposite_orders_wait_for_each_other_and_never_in_a_circle(pool: Pool) -> None:
    forward = [f"t{number}" for number in range(50)]
    await open_active(pool, *forward)

    async with asyncio.TaskGroup() as group:
        for tenant_ids in (forward, forward[::-1], forward, forward[::-1]):
            group.create_task(do_all(pool, *(PauseBilling(tenant_id=each) for each in tenant_ids), at=on(5)))
            group.create_task(do_all(pool, *(CloseAccount(tenant_id=each) for each in tenant_ids), at=on(5)))
            group.create_task(
                do_all(pool, *(UpdateAccount(tenant_id=each, customer_name="Emca") for each in tenant_ids))
            )

    assert {state for state, _ in (await subscriptions(pool)).values()} == {"ended"}
    assert await pool.fetchval("SELECT count(DISTINCT tenant_id) FROM invoice") == 50
