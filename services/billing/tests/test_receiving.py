"""What comes in is booked once, whoever says so and however often, and no money is lost or made up."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.billing.receivables import Incoming, ReferenceTakenError
from services.billing.tests.support import NOON
from services.billing.tests.till import Till, incoming
from shared.contracts.billing import CreditIssued, InvoiceSettled, PaymentReceived
from shared.http import Problem
from shared.postgres import Pool


@pytest.fixture
def till(pool: Pool) -> Till:
    return Till(pool)


async def test_a_payment_settles_its_invoice(till: Till) -> None:
    invoice_id = await till.invoice("t1", "49.00")

    payment, settled = await till.receive(incoming(invoice_id, "49.00"))

    assert isinstance(payment, PaymentReceived)
    assert payment == PaymentReceived(
        tenant_id="t1",
        payment_id=payment.payment_id,
        invoice_id=str(invoice_id),
        provider="manual",
        currency="USD",
        amount="49.00",
        received_at=NOON,
    )
    assert settled == InvoiceSettled(
        tenant_id="t1", invoice_id=str(invoice_id), number="00000001", settled_at=till.clock.now()
    )
    assert await till.receivables() == [("49.00", "0.00", "0.00", "49.00", "0.00")]
    assert await till.pool.fetchval("SELECT settled_at FROM receivable") == till.clock.now()


async def test_a_part_leaves_the_rest_due(till: Till) -> None:
    invoice_id = await till.invoice("t1", "49.00")

    (payment,) = await till.pay(invoice_id, "9.50")

    assert isinstance(payment, PaymentReceived)
    assert await till.receivables() == [("49.00", "0.00", "0.00", "9.50", "39.50")]


async def test_what_is_too_much_settles_what_else_is_due_and_is_credit_then(till: Till) -> None:
    older, paid = await till.invoice("t1", "30.00"), await till.invoice("t1", "49.00")
    await till.invoice("t2", "10.00")

    _, *settled = await till.pay(paid, "100.00")

    assert [each.model_dump()["invoice_id"] for each in settled] == [str(older), str(paid)]
    assert (await till.credit(), await till.receivables("t2")) == (
        {"USD": "21.00"},
        [("10.00", "0.00", "0.00", "0.00", "10.00")],
    )
    entries = await till.pool.fetch("SELECT kind, round(amount, 2)::text, payment_id IS NULL FROM credit_entry")
    assert sorted(map(tuple, entries)) == [("applied", "-30.00", True), ("overpaid", "51.00", False)]
    await till.check()


async def test_many_payments_of_many_tenants_are_one_batch(till: Till) -> None:
    ids = [await till.issue(f"t{number}", "10.00") for number in range(20)]
    await till.book()

    facts = await till.receive(*(incoming(each, "10.00") for each in (*ids, ids[3])))

    assert [type(each) for each in facts] == [PaymentReceived] * 21 + [InvoiceSettled] * 20
    assert await till.credit("t3") == {"USD": "10.00"}
    await till.check()


async def test_the_same_payment_again_changes_nothing(till: Till) -> None:
    payment = incoming(await till.invoice("t1", "49.00"), "20.00")
    await till.receive(payment)
    before = await till.content()

    assert await till.receive(payment) == []
    assert await till.receive(payment, payment) == []
    assert await till.content() == before


async def test_the_same_payment_twice_in_one_batch_is_one(till: Till) -> None:
    payment = incoming(await till.invoice("t1", "49.00"), "20.00")

    assert len(await till.receive(payment, payment)) == 1
    assert await till.receivables() == [("49.00", "0.00", "0.00", "20.00", "29.00")]


async def test_a_reference_stands_for_one_payment_of_its_provider(till: Till) -> None:
    invoice_id, other = await till.invoice("t1", "49.00"), await till.invoice("t2", "49.00")
    first = incoming(invoice_id, "20.00", reference="r")
    await till.receive(first)
    before = await till.content()

    for another in (incoming(invoice_id, "20.01", reference="r"), incoming(other, "20.00", reference="r")):
        with pytest.raises(ReferenceTakenError) as refused:
            await till.receive(incoming(invoice_id, "1.00"), another)
        assert refused.value.payment == first
    with pytest.raises(ReferenceTakenError):
        await till.receive(incoming(invoice_id, "1.00", reference="new"), incoming(other, "1.00", reference="new"))
    assert await till.content() == before
    assert len(await till.receive(incoming(invoice_id, "20.00", reference="r", provider="stripe"))) == 1


async def test_what_is_not_booked_cannot_be_paid(till: Till) -> None:
    booked, unbooked = await till.invoice("t1", "49.00"), await till.issue("t1", "49.00")
    before = await till.content()

    with pytest.raises(LookupError, match=f"nothing is to be paid of {unbooked}"):
        await till.receive(incoming(booked, "1.00"), incoming(unbooked, "1.00"))
    assert await till.content() == before
    assert await till.receive() == []


async def test_a_payment_has_its_tenant_looked_at_and_nothing_collected_any_more(till: Till) -> None:
    invoice_id = await till.issue("t1", "49.00")
    await till.replica(collects=True).round()
    await till.pool.execute("UPDATE debtor SET look_at = 'infinity'")

    await till.pay(invoice_id, "48.00")
    assert await till.pool.fetchval("SELECT collect_at FROM receivable") == NOON
    await till.pay(invoice_id, "1.00")

    assert await till.pool.fetchval("SELECT collect_at FROM receivable") is None
    assert await till.pool.fetchval("SELECT count(*) FROM debtor WHERE look_at = '-infinity'") == 1


async def test_twenty_payments_at_once_are_all_booked(till: Till) -> None:
    invoice_id, other = await till.invoice("t1", "49.00"), await till.invoice("t1", "30.00")

    told = await asyncio.gather(*(till.pay(invoice_id, "4.00") for _ in range(20)))

    assert await till.receivables() == [
        ("49.00", "0.00", "0.00", "49.00", "0.00"),
        ("30.00", "0.00", "30.00", "0.00", "0.00"),
    ]
    assert await till.credit() == {"USD": "1.00"}
    settled = [each.invoice_id for facts in told for each in facts if isinstance(each, InvoiceSettled)]
    assert sorted(settled) == sorted([str(invoice_id), str(other)])
    await till.check()


async def test_one_payment_at_once_from_many_is_booked_once(till: Till) -> None:
    payment = incoming(await till.invoice("t1", "49.00"), "49.00")

    told = await asyncio.gather(*(till.receive(payment) for _ in range(8)))

    assert sorted(map(len, told)) == [0] * 7 + [2]
    assert await till.receivables() == [("49.00", "0.00", "0.00", "49.00", "0.00")]


async def test_one_reference_at_once_for_two_tenants_is_of_one(till: Till) -> None:
    ids = [await till.invoice(tenant_id, "49.00") for tenant_id in ("t1", "t2")]

    done = await asyncio.gather(
        *(till.receive(incoming(each, "49.00", reference="r")) for each in ids), return_exceptions=True
    )

    assert sorted(type(each).__name__ for each in done) == ["ReferenceTakenError", "list"]
    await till.check()


async def test_everything_at_once_gets_by_without_a_deadlock(till: Till) -> None:
    ids = [await till.invoice(f"t{number}", "49.00") for number in range(4)]
    chance = random.Random(1)

    async def pay() -> None:
        await till.receive(*(incoming(each, "1.00") for each in chance.sample(ids, 3)))

    async def give() -> None:
        await till.give(f"t{chance.randrange(4)}", "1.00")

    async def book() -> None:
        for tenant_id in chance.sample(range(4), 2):
            await till.issue(f"t{tenant_id}", "5.00")
        await till.booking.round()

    await asyncio.gather(*(chance.choice((pay, give, book))() for _ in range(40)))

    await till.book()
    await till.check()


async def test_the_books_can_neither_be_changed_nor_emptied(till: Till) -> None:
    invoice_id = await till.invoice("t1", "49.00")
    await till.pay(invoice_id, "60.00")
    await till.give("t1", "5.00", invoice_id=invoice_id)

    for table in ("payment", "credit_note", "credit_entry"):
        for statement in (f"UPDATE {table} SET amount = 1", f"DELETE FROM {table}"):
            with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
                await till.pool.execute(statement)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["invoice", "pay", "grant", "note", "again"]), st.integers(-60, 60), st.integers(0, 2**16)
    ),
    min_size=3,
    max_size=12,
)

Step = Callable[[], Awaitable[object]]


class Business:
    """Three tenants to whom all sorts of things happen, each of which can happen again.

    Attributes:
        done: what has happened, to be done again.
        invoice_ids: of what can be paid.
    """

    def __init__(self, till: Till) -> None:
        self.done: list[Step] = []
        self.invoice_ids: list[tuple[str, UUID]] = []
        self._till = till
        self._keys = iter(range(10**6))

    async def do(self, kind: str, cents: int, chance: int) -> None:
        amount = str(Decimal(abs(cents) or 1))
        if kind == "invoice":
            await self._issue(f"t{chance % 3}", str(Decimal(cents)))
        elif kind == "again" and self.done:
            await self.done[chance % len(self.done)]()
        elif self.invoice_ids:
            tenant_id, invoice_id = self.invoice_ids[chance % len(self.invoice_ids)]
            await self._do(self._step(kind, tenant_id, invoice_id, amount))

    async def _issue(self, tenant_id: str, total: str) -> None:
        invoice_id = await self._till.invoice(tenant_id, total)
        if Decimal(total) > 0:
            self.invoice_ids.append((tenant_id, invoice_id))

    def _step(self, kind: str, tenant_id: str, invoice_id: UUID, amount: str) -> Step:
        if kind == "pay":
            payment: Incoming = incoming(invoice_id, amount)
            return lambda: self._till.receive(payment)
        key = f"{id(self)} {next(self._keys)}"
        noted = invoice_id if kind == "note" else None
        return lambda: self._till.give(tenant_id, amount, invoice_id=noted, key=key)

    async def _do(self, step: Step) -> None:
        try:
            await step()
        except Problem as problem:
            if problem.code != "exceeds_invoice":
                raise
        else:
            self.done.append(step)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=STEPS)
async def test_whatever_happens_and_however_often_the_sums_are_right(
    till: Till, steps: Sequence[tuple[str, int, int]]
) -> None:
    business = Business(till)
    for step in steps:
        await business.do(*step)

    await till.check()
    before = await till.content()
    for again in business.done:
        await again()
    await till.booking.round()
    after = await till.content()
    assert _without_looks(after) == _without_looks(before)


def _without_looks(content: dict[str, list[tuple[object, ...]]]) -> dict[str, object]:
    """Return the books without when debtors are looked at."""
    return {table: rows for table, rows in content.items() if table != "debtor"}


async def test_what_is_given_is_told_with_who_gave_it(till: Till) -> None:
    invoice_id = await till.invoice("t1", "49.00")
    granted, _ = await till.give("t1", "9.00")
    noted, _ = await till.give("t1", "40.00", invoice_id=invoice_id)

    assert [each.model_dump(exclude={"tenant_id"}) for each in await till.told(CreditIssued)] == [
        {"credit_id": str(granted["entry_id"]), "invoice_id": None, "currency": "USD", "amount": "9.00"},
        {
            "credit_id": str(noted["credit_note_id"]),
            "invoice_id": str(invoice_id),
            "currency": "USD",
            "amount": "40.00",
        },
    ]
    assert [each.invoice_id for each in await till.told(InvoiceSettled)] == [str(invoice_id)]


async def test_credit_notes_are_numbered_without_gaps_whatever_is_refused(till: Till) -> None:
    ids = [await till.invoice(f"t{number}", "5.00") for number in range(3)]

    done = await asyncio.gather(
        *(till.give(f"t{number % 3}", "2.00", invoice_id=ids[number % 3]) for number in range(12)),
        return_exceptions=True,
    )

    numbers = [each[0]["number"] for each in done if not isinstance(each, BaseException)]
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
    refused = [each for each in done if isinstance(each, Problem)]
    assert [each.code for each in refused] == ["exceeds_invoice"] * 6
    await till.check()


async def test_one_request_at_once_from_many_gives_once(till: Till) -> None:
    await till.invoice("t1", "-1.00")

    done = await asyncio.gather(*(till.give("t1", "5.00", key="k") for _ in range(6)))

    assert sorted(is_new for _, is_new in done) == [False] * 5 + [True]
    assert len({row["entry_id"] for row, _ in done}) == 1
    assert await till.credit() == {"USD": "6.00"}
