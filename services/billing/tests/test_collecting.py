"""What is due is collected by a provider, once, whatever is lost, refused, killed or changed meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.billing.payments.collecting import HELD, Collecting
from services.billing.payments.stripe import open_stripe
from services.billing.tests.desk import Desk
from services.billing.tests.fake_stripe import KEY, FakeStripe, Fault, serving
from services.billing.tests.till import Till, incoming
from shared.contracts.billing import InvoiceSettled, PaymentReceived
from shared.postgres import Pool
from shared.testing import eventually

FAULTS: tuple[Fault, ...] = ("drop", "lose", "fail", "fail_after", "limit")
OPERATIONS = ("customers", "invoices", "invoiceitems", "finalize", "pay")


@pytest.fixture
async def desk(pool: Pool) -> AsyncIterator[Desk]:
    async with serving(FakeStripe()) as fake, open_stripe(KEY, url=fake.url) as provider:
        yield Desk(Till(pool), fake, provider)


async def test_what_is_due_is_collected_at_once_and_once(desk: Desk) -> None:
    invoice_id = await desk.invoice()

    await desk.settle()
    await desk.wait(days=30)

    assert desk.fake.charges == [(await desk.bill(), 4900)]
    (received,) = await desk.till.told(PaymentReceived)
    assert (received.invoice_id, received.provider, received.amount) == (str(invoice_id), "stripe", "49.00")
    assert [each.invoice_id for each in await desk.till.told(InvoiceSettled)] == [str(invoice_id)]
    assert await desk.till.receivables() == [("49.00", "0.00", "0.00", "49.00", "0.00")]
    assert [each["metadata"] for each in desk.fake.invoices.values()] == [{"tenure_invoice": str(invoice_id)}]
    await desk.check()


async def test_many_tenants_have_a_customer_each_and_many_invoices_one(desk: Desk) -> None:
    for tenant_id in ("t1", "t2", "t1", "t1"):
        await desk.till.issue(tenant_id, "10.00")
    await desk.invoice("t3")

    await desk.settle()

    assert len(desk.fake.customers) == 3
    assert len(desk.fake.charges) == 5
    await desk.check()


async def test_money_that_is_not_there_is_asked_for_by_the_schedule_and_then_no_more(desk: Desk) -> None:
    desk.fake.declines = ["insufficient_funds"] * 9
    await desk.invoice()

    await desk.settle()
    await desk.wait(days=60)

    code = "insufficient_funds"
    assert await desk.failures() == [(1, code, 1), (2, code, 9), (3, code, 13), (4, code, 20), (5, code, None)]
    assert len(desk.fake.declines) == 4
    assert await desk.states() == [(1, "49.00", "open")]
    await desk.check()


async def test_a_retry_that_succeeds_is_the_last(desk: Desk) -> None:
    desk.fake.declines = ["insufficient_funds"] * 2
    await desk.invoice()

    await desk.settle()
    await desk.wait(days=8)
    assert desk.fake.charges == []
    await desk.wait(days=22)

    assert len(desk.fake.charges) == 1
    assert len(desk.fake.invoices) == 1
    await desk.check()


async def test_after_a_long_outage_money_is_not_asked_for_twice_within_a_day(desk: Desk) -> None:
    desk.fake.declines = ["insufficient_funds"] * 9
    await desk.invoice()
    await desk.till.clock.advance(timedelta(days=30).total_seconds())

    await desk.settle()
    await desk.settle()
    assert await desk.failures() == [(1, "insufficient_funds", 31)]
    await desk.wait(days=1)

    assert [attempt for attempt, _, _ in await desk.failures()] == [1, 2]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_whatever_answer_is_lost_the_money_is_taken_once(desk: Desk, operation: str) -> None:
    desk.fake.faults = {operation: [*FAULTS, *FAULTS], "read": [*FAULTS]}
    for number in range(len(FAULTS)):
        await desk.invoice(f"t{number}")

    await desk.settle()
    await desk.wait(days=2)

    assert [units for _, units in desk.fake.charges] == [4900] * len(FAULTS)
    assert set(desk.fake.taken().values()) == {1}
    assert not desk.fake.faults[operation]
    assert await desk.failures() == []
    assert await desk.states() == [(1, "49.00", "paid")] * len(FAULTS)
    await desk.check()


@pytest.mark.parametrize("survived", [0, 1])
@pytest.mark.parametrize("forgets", [False, True])
async def test_killed_between_the_answer_and_the_commit_nothing_is_taken_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, *, survived: int, forgets: bool
) -> None:
    """Also where the provider has forgotten all idempotency keys when the next process comes."""
    await desk.invoice()
    killed = desk.replica()
    for _ in range(survived):
        await killed.round()

    async def die(taken: Sequence[Any]) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(killed, "_settle", die)
    with pytest.raises(asyncio.CancelledError):
        await killed.round()
    assert len(desk.fake.charges) == survived, "it was killed at the answer that it was to be killed at"
    asked = list(desk.fake.asked)
    await desk.settle()
    assert desk.fake.asked == asked, "somebody still holds it"
    if forgets:
        desk.fake.forget_keys()

    await desk.till.clock.advance(HELD.total_seconds())
    await desk.settle()

    assert [units for _, units in desk.fake.charges] == [4900]
    assert await desk.till.receivables() == [("49.00", "0.00", "0.00", "49.00", "0.00")]
    await desk.check()


async def test_loops_at_once_take_everything_once(desk: Desk) -> None:
    for number in range(20):
        await desk.till.issue(f"t{number % 7}", "10.00")
    await desk.invoice()

    async def all_rounds(loop: Collecting) -> None:
        for _ in range(12):
            await loop.round()

    await asyncio.gather(*(all_rounds(desk.replica()) for _ in range(3)))
    await desk.settle()

    assert len(desk.fake.charges) == 21
    assert [desk.fake.asked.count(each) for each in ("finalize", "pay", "read")] == [21, 21, 0]
    assert set(desk.fake.taken().values()) == {1}
    await desk.check()


async def test_somebody_who_was_frozen_for_long_changes_nothing_any_more(desk: Desk) -> None:
    desk.fake.faults = {"pay": ["hang"]}
    await desk.invoice()
    frozen = desk.replica()
    await frozen.round()
    waiting = asyncio.create_task(frozen.round())
    await eventually(lambda: "pay" in desk.fake.asked)

    await desk.till.clock.advance(HELD.total_seconds())
    await desk.settle()
    assert await desk.states() == [(1, "49.00", "paid")]
    desk.fake.released.set()
    await waiting

    assert await desk.states() == [(1, "49.00", "paid")]
    assert [units for _, units in desk.fake.charges] == [4900]
    await desk.check()


async def test_after_a_credit_note_only_the_rest_is_asked_for(desk: Desk) -> None:
    desk.fake.declines = ["insufficient_funds"]
    invoice_id = await desk.invoice()
    await desk.settle()
    await desk.till.give("t1", "9.00", invoice_id=invoice_id)

    await desk.wait(days=2)

    assert await desk.states() == [(1, "49.00", "void"), (2, "40.00", "paid")]
    assert [units for _, units in desk.fake.charges] == [4000]
    assert [attempt for attempt, _, _ in await desk.failures()] == [1]
    await desk.check()


async def test_what_was_paid_otherwise_is_withdrawn_within_a_day(desk: Desk) -> None:
    desk.fake.declines = ["insufficient_funds"]
    invoice_id = await desk.invoice()
    await desk.settle()
    await desk.till.pay(invoice_id, "49.00")

    await desk.wait(days=1)
    await desk.wait(days=30)

    assert await desk.states() == [(1, "49.00", "void")]
    assert [each["status"] for each in desk.fake.invoices.values()] == ["void"]
    assert desk.fake.charges == []


async def test_what_is_settled_before_it_is_asked_for_is_not_asked_for(desk: Desk) -> None:
    invoice_id = await desk.invoice()
    await desk.collecting._make_bills()
    await desk.till.pay(invoice_id, "49.00")

    await desk.wait(days=2)

    assert desk.fake.asked == []
    assert await desk.states() == [(1, "49.00", "void")]


async def test_a_credit_note_that_crosses_an_unknown_payment_becomes_credit(desk: Desk) -> None:
    desk.fake.faults = {"pay": ["lose"]}
    invoice_id = await desk.invoice()
    await desk.settle()
    await desk.till.give("t1", "9.00", invoice_id=invoice_id)

    await desk.wait(days=1)

    assert [units for _, units in desk.fake.charges] == [4900]
    assert await desk.till.credit() == {"USD": "9.00"}
    assert await desk.states() == [(1, "49.00", "paid")]
    await desk.check()


async def test_whoever_pays_by_hand_at_the_providers_is_found_the_next_day_without_any_news(desk: Desk) -> None:
    desk.fake.declines = ["insufficient_funds"] * 5
    await desk.invoice()
    await desk.settle()
    await desk.wait(days=40)
    desk.fake.pay_by_hand(await desk.bill())

    await desk.wait(days=1)

    assert await desk.till.receivables() == [("49.00", "0.00", "0.00", "49.00", "0.00")]
    await desk.check()


async def test_a_direct_debit_is_waited_for(desk: Desk) -> None:
    desk.fake.processing = True
    await desk.invoice()
    await desk.settle()
    await desk.wait(days=3)
    assert desk.fake.asked.count("pay") == 1
    assert await desk.failures() == []

    desk.fake.invoices[await desk.bill()]["payments"]["data"] = []
    desk.fake.pay_by_hand(await desk.bill())
    await desk.wait(hours=1)

    assert await desk.states() == [(1, "49.00", "paid")]
    await desk.check()


async def test_what_somebody_has_withdrawn_at_the_provider_is_left_alone(desk: Desk) -> None:
    desk.fake.declines = ["insufficient_funds"]
    await desk.invoice()
    await desk.settle()
    desk.fake.invoices[await desk.bill()]["status"] = "void"

    await desk.wait(days=30)

    assert await desk.failures() == [(1, "insufficient_funds", 1), (1, "withdrawn_at_provider", None)]
    assert desk.fake.charges == []
    assert await desk.states() == [(1, "49.00", "void")]


async def test_what_the_provider_refuses_is_told_and_holds_nobody_up(desk: Desk) -> None:
    desk.fake.added_tax = 1
    await desk.invoice()
    await desk.settle()
    desk.fake.added_tax = 0
    await desk.invoice("t2")
    await desk.settle()

    assert await desk.failures() == [(1, "total_differs", 1)]
    assert len(desk.fake.charges) == 1
    await desk.wait(days=1)
    assert len(desk.fake.charges) == 2
    await desk.check()


async def test_an_answer_that_nobody_understands_holds_nobody_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.invoice()
    await desk.invoice("t2")
    look = desk.provider.collect
    confused: list[str] = []

    async def collect(reference: str, *, key: str) -> Any:
        if not confused:
            confused.append(reference)
            raise KeyError("status")
        return await look(reference, key=key)

    monkeypatch.setattr(desk.provider, "collect", collect)
    await desk.settle()
    assert len(desk.fake.charges) == 1
    await desk.wait(hours=1)

    assert len(desk.fake.charges) == 2
    await desk.check()


async def test_a_payment_that_the_books_refuse_holds_nobody_up(desk: Desk) -> None:
    """It is booked with another amount, which is for people to look into."""
    desk.fake.declines = ["insufficient_funds"]
    invoice_id = await desk.invoice()
    await desk.settle()
    reference = await desk.bill()
    desk.fake.pay_by_hand(reference)
    await desk.till.receive(incoming(invoice_id, "48.00", provider="stripe", reference=reference))
    await desk.till.pool.execute("UPDATE bill SET look_at = $1, is_known = false", desk.till.clock.now())
    await desk.invoice("t2")

    await desk.settle()

    assert await desk.till.receivables("t1") == [("49.00", "0.00", "0.00", "48.00", "1.00")]
    assert await desk.till.receivables("t2") == [("49.00", "0.00", "0.00", "49.00", "0.00")]
    assert len(desk.fake.charges) == 2


async def test_amid_all_faults_at_once_everything_is_taken_once_in_the_end(desk: Desk) -> None:
    chance = random.Random(7)
    operations = (*OPERATIONS, "read", "void")
    desk.fake.faults = {
        each: [chance.choice(FAULTS) if chance.random() < 0.5 else "none" for _ in range(80)] for each in operations
    }
    desk.fake.declines = ["insufficient_funds"] * 12
    invoices = [await desk.till.issue(f"t{number % 11}", f"{10 + number}.00") for number in range(40)]
    await desk.invoice()
    for number in range(60):
        if number == 10:
            for invoice_id in invoices[:5]:
                await desk.till.give(f"t{invoices.index(invoice_id) % 11}", "3.00", invoice_id=invoice_id)
        if number == 30:
            desk.fake.forget_keys()
        await desk.till.clock.advance(900)
        await desk.settle()
    desk.fake.faults = {}

    await desk.wait(days=22)

    assert await desk.till.pool.fetchval("SELECT sum(due) FROM receivable") == Decimal(0)
    assert max(desk.fake.taken().values()) == 1
    await desk.check()
