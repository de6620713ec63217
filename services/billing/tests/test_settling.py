"""What is taken off an invoice, what becomes credit, and what that is used for."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.money import Currency
from services.billing.settling import Balance, ExceedsInvoiceError, Receivable
from shared.clock import ManualClock
from shared.ids import SeededIds

IDS = SeededIds(1, ManualClock())


def balance(credit: str = "0") -> Balance:
    return Balance("t1", Currency("USD", 2), Decimal(credit), [], ids=IDS)


def charge(found: Balance, number: int, total: str) -> UUID:
    """Book an invoice whose identity is made of its number."""
    found.charge(UUID(int=number), number, Decimal(total))
    return UUID(int=number)


def invoices(found: Balance) -> list[tuple[str, ...]]:
    """Return total, noted, credited, paid and due of what has changed."""
    return [tuple(map(str, (each.total, each.noted, each.credited, each.paid, each.due))) for each in found.changed]


def entries(found: Balance) -> list[tuple[str, str, int | None]]:
    """Return every change of credit, with the number of its invoice."""
    return [
        (each.kind, str(each.amount), None if each.invoice_id is None else each.invoice_id.int)
        for each in found.entries
    ]


def test_golden_r8_prepaid_credit_and_a_credit_note_leave_what_is_left_to_be_paid() -> None:
    """66 less a credit note of 20 and 30 prepaid is 16; its coupon and its tax, which we have not, are in the 66."""
    found = balance()
    invoice = charge(found, 1, "66.00")

    found.note(invoice, Decimal("20.00"))
    found.grant(IDS.new(), Decimal("30.00"), "prepaid")

    assert invoices(found) == [("66.00", "20.00", "30.00", "0", "16.00")]
    assert found.credit == 0


def test_golden_r9_a_credit_is_used_by_the_next_invoice() -> None:
    """A credit of 20, then a charge of 100: charged 100, balance 80."""
    found = balance()
    found.grant(IDS.new(), Decimal("20.00"), "sorry")
    assert found.credit == Decimal("20.00")

    charge(found, 1, "100.00")

    assert invoices(found) == [("100.00", "0", "20.00", "0", "80.00")]
    assert found.credit == 0
    assert found.settled == []


def test_golden_r10_what_was_paid_and_is_credited_afterwards_is_the_tenants() -> None:
    """100 paid, adjusted by -10: charged 90, balance 0, credit 10."""
    found = balance()
    invoice = charge(found, 1, "100.00")
    found.pay(IDS.new(), invoice, Decimal("100.00"))

    found.note(invoice, Decimal("10.00"))

    assert invoices(found) == [("100.00", "10.00", "0", "90.00", "0.00")]
    assert found.credit == Decimal("10.00")
    assert entries(found) == [("released", "10.00", 1)]


def test_a_payment_of_more_than_is_due_is_credit_and_used_for_the_oldest_that_is_due() -> None:
    found = balance()
    first, second, third = (charge(found, number, "49.00") for number in (1, 2, 3))

    found.pay(IDS.new(), third, Decimal("80.00"))

    assert [(each.number, each.due) for each in found.changed] == [(1, Decimal("18.00")), (3, 0)]
    assert [each.number for each in found.settled] == [3]
    assert entries(found) == [("overpaid", "31.00", 3), ("applied", "-31.00", 1)]
    found.pay(IDS.new(), first, Decimal("18.00"))
    assert [each.number for each in found.settled] == [1, 3]
    assert second not in {each.invoice_id for each in found.changed}


def test_an_invoice_below_zero_settles_what_is_due() -> None:
    found = balance()
    charge(found, 1, "49.00")

    charge(found, 2, "-60.00")

    assert invoices(found) == [("49.00", "0", "49.00", "0", "0.00")]
    assert found.credit == Decimal("11.00")
    assert entries(found) == [("invoice", "60.00", 2), ("applied", "-49.00", 1)]


def test_what_a_credit_note_does_not_find_due_it_takes_from_the_credit_first() -> None:
    found = balance("30.00")
    invoice = charge(found, 1, "100.00")
    found.pay(IDS.new(), invoice, Decimal("60.00"))

    found.note(invoice, Decimal("50.00"))

    assert invoices(found) == [("100.00", "50.00", "0.00", "50.00", "0.00")]
    assert found.credit == Decimal("40.00")


def test_credit_notes_are_at_most_of_the_whole_invoice() -> None:
    found = balance()
    invoice = charge(found, 1, "10.00")
    found.note(invoice, Decimal("7.00"))
    before = (invoices(found), entries(found), found.credit)

    with pytest.raises(ExceedsInvoiceError) as refused:
        found.note(invoice, Decimal("3.01"))

    assert refused.value.left == Decimal("3.00")
    assert (invoices(found), entries(found), found.credit) == before
    found.note(invoice, Decimal("3.00"))
    assert [each.number for each in found.settled] == [1]


def test_an_invoice_that_was_settled_is_not_settled_again() -> None:
    paid = Receivable(invoice_id=UUID(int=1), number=1, total=Decimal("10.00"), paid=Decimal("10.00"))
    found = Balance("t1", Currency("USD", 2), Decimal(), [paid], ids=IDS)

    found.note(paid.invoice_id, Decimal("4.00"))
    found.pay(IDS.new(), paid.invoice_id, Decimal("5.00"))

    assert found.credit == Decimal("9.00")
    assert found.settled == []


CENTS = st.integers(1, 20_000).map(lambda cents: Decimal(cents) / 100)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("charge"), st.integers(-20_000, 20_000).map(lambda cents: Decimal(cents) / 100)),
        st.tuples(st.sampled_from(["pay", "note", "grant"]), CENTS),
    ),
    max_size=25,
)


class Sums:
    """What has come in, by what it was."""

    def __init__(self) -> None:
        self.paid = self.granted = self.below_zero = Decimal()
        self.receivables: list[Receivable] = []

    def do(self, found: Balance, step: str, amount: Decimal, choose: Callable[[int], int]) -> None:
        if step == "charge":
            self._charge(found, amount)
        elif step == "grant":
            found.grant(IDS.new(), amount, "because")
            self.granted += amount
        elif self.receivables:
            self._correct(found, step, amount, self.receivables[choose(len(self.receivables))])

    def _charge(self, found: Balance, total: Decimal) -> None:
        number = len(self.receivables) + 1
        charge(found, number, str(total)) if total >= 0 else found.charge(IDS.new(), 0, total)
        self.below_zero -= min(total, Decimal())
        if total > 0:
            self.receivables.append(found.receivables[-1])

    def _correct(self, found: Balance, step: str, amount: Decimal, receivable: Receivable) -> None:
        if step == "pay":
            found.pay(IDS.new(), receivable.invoice_id, amount)
            self.paid += amount
            return
        try:
            found.note(receivable.invoice_id, amount)
        except ExceedsInvoiceError:
            assert receivable.noted + amount > receivable.total

    def check(self, found: Balance) -> None:
        """Check that nothing is lost and nothing is made up."""
        used = sum((each.paid + each.credited for each in self.receivables), Decimal())
        assert self.paid + self.granted + self.below_zero == used + found.credit
        assert found.credit == sum((each.amount for each in found.entries), Decimal())
        for each in self.receivables:
            assert min(each.due, each.noted, each.credited, each.paid) >= 0
            assert each.noted <= each.total
        assert found.credit == 0 or all(each.due == 0 for each in self.receivables)


@given(steps=STEPS, data=st.data())
def test_whatever_happens_no_money_is_lost_and_none_is_made_up(
    steps: list[tuple[str, Decimal]], data: st.DataObject
) -> None:
    found, sums = balance(), Sums()
    for step, amount in steps:
        sums.do(found, step, amount, lambda count: data.draw(st.integers(0, count - 1)))
        sums.check(found)


@given(totals=st.lists(st.integers(-500, 500).map(Decimal), max_size=12), cut=st.integers(0, 12))
def test_it_makes_no_difference_in_which_batches_invoices_are_booked(totals: list[Decimal], cut: int) -> None:
    def booked(found: Balance, part: list[tuple[int, Decimal]]) -> Balance:
        for number, total in part:
            found.charge(UUID(int=number), number, total)
        return found

    numbered = list(enumerate(totals, start=1))
    whole = booked(balance(), numbered)
    first = booked(balance(), numbered[:cut])
    second = booked(Balance("t1", first.currency, first.credit, first.receivables, ids=IDS), numbered[cut:])

    assert second.credit == whole.credit
    assert [*entries(first), *entries(second)] == entries(whole)
    assert _state(second) == _state(whole)


def _state(found: Balance) -> Any:
    return {each.number: (each.credited, each.due) for each in found.receivables}
