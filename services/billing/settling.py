"""How invoices are settled: what is taken off an invoice, what becomes credit, and what credit is used for. No I/O.

Of an invoice is due its total, without what credit notes say, what credit was used and what was paid. Whatever comes in
is taken off first of what it is for; what is more than that is credit, and credit is used at once for what is due, the
oldest invoice first. So nothing is due while there is credit, and it makes no difference what is done in one batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal
from uuid import UUID

from services.billing.money import EXACT, Currency
from shared.ids import Ids

EntryKind = Literal["granted", "invoice", "overpaid", "released", "applied"]
"""Why credit changes; see the table ``credit_entry``."""


class ExceedsInvoiceError(Exception):
    """The credit notes of an invoice would be of more than its total.

    Args:
        left: what a credit note of it can be of at most.
    """

    def __init__(self, left: Decimal) -> None:
        super().__init__(f"credit notes can be of {left} more at most")
        self.left = left


@dataclass(slots=True, kw_only=True)
class Receivable:
    """What is owed of an invoice.

    Attributes:
        invoice_id: of the invoice.
        number: likewise.
        total: likewise; above zero.
        noted: what credit notes say.
        credited: what credit was used for it.
        paid: what was paid of it.
    """

    invoice_id: UUID
    number: int
    total: Decimal
    noted: Decimal = Decimal()
    credited: Decimal = Decimal()
    paid: Decimal = Decimal()

    @property
    def due(self) -> Decimal:
        """What is still to be paid."""
        return EXACT.subtract(EXACT.subtract(EXACT.subtract(self.total, self.noted), self.credited), self.paid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A change of a tenant's credit.

    Attributes:
        entry_id: its identity.
        kind: why.
        amount: what is added; below zero for what was used.
        invoice_id: what it comes from, or is used for.
        payment_id: what it is the rest of.
        reason: of a grant, in the words of whoever made it.
    """

    entry_id: UUID
    kind: EntryKind
    amount: Decimal
    invoice_id: UUID | None = None
    payment_id: UUID | None = None
    reason: str | None = None


class Balance:
    """What a tenant owes and has in one currency, and every way in which that changes.

    Args:
        credit: what is not used yet.
        receivables: what is changed, and where credit may come in all of which something is due.
    """

    def __init__(
        self, tenant_id: str, currency: Currency, credit: Decimal, receivables: Iterable[Receivable], *, ids: Ids
    ) -> None:
        self.tenant_id = tenant_id
        self.currency = currency
        self.credit = credit
        self.entries: list[Entry] = []
        self._receivables = {each.invoice_id: each for each in receivables}
        self._changed: dict[UUID, bool] = {}
        self._ids = ids

    @property
    def receivables(self) -> list[Receivable]:
        """Return all that are known here, the oldest first."""
        return sorted(self._receivables.values(), key=lambda each: each.number)

    @property
    def changed(self) -> list[Receivable]:
        """Return the receivables that are different now, the oldest first."""
        return [each for each in self.receivables if each.invoice_id in self._changed]

    @property
    def settled(self) -> list[Receivable]:
        """Return those of which something was due, and nothing is any more, the oldest first."""
        return [each for each in self.changed if each.due == 0 and self._changed[each.invoice_id]]

    def charge(self, invoice_id: UUID, number: int, total: Decimal) -> None:
        """Book an invoice; one whose total is below zero is credit."""
        if total < 0:
            self._give(Entry(entry_id=self._ids.new(), kind="invoice", amount=-total, invoice_id=invoice_id))
        elif total > 0:
            self._receivables[invoice_id] = Receivable(invoice_id=invoice_id, number=number, total=total)
            self._use_credit()

    def pay(self, payment_id: UUID, invoice_id: UUID, amount: Decimal) -> None:
        """Book a payment of an invoice."""
        receivable = self._touch(invoice_id)
        taken = min(amount, receivable.due)
        receivable.paid = EXACT.add(receivable.paid, taken)
        self._give_rest("overpaid", EXACT.subtract(amount, taken), invoice_id, payment_id)

    def note(self, invoice_id: UUID, amount: Decimal) -> None:
        """Book a credit note of an invoice; what was used or paid of the amount is credit again.

        Raises:
            ExceedsInvoiceError: nothing is booked.
        """
        receivable = self._receivables[invoice_id]
        left = EXACT.subtract(receivable.total, receivable.noted)
        if amount > left:
            raise ExceedsInvoiceError(left)
        self._touch(invoice_id)
        released = max(EXACT.subtract(amount, receivable.due), Decimal())
        of_credit = min(released, receivable.credited)
        receivable.noted = EXACT.add(receivable.noted, amount)
        receivable.credited = EXACT.subtract(receivable.credited, of_credit)
        receivable.paid = EXACT.subtract(receivable.paid, EXACT.subtract(released, of_credit))
        self._give_rest("released", released, invoice_id)

    def grant(self, entry_id: UUID, amount: Decimal, reason: str) -> None:
        """Give credit."""
        self._give(Entry(entry_id=entry_id, kind="granted", amount=amount, reason=reason))

    def _give_rest(self, kind: EntryKind, amount: Decimal, invoice_id: UUID, payment_id: UUID | None = None) -> None:
        if amount:
            self._give(
                Entry(entry_id=self._ids.new(), kind=kind, amount=amount, invoice_id=invoice_id, payment_id=payment_id)
            )

    def _give(self, entry: Entry) -> None:
        self._enter(entry)
        self._use_credit()

    def _enter(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.credit = EXACT.add(self.credit, entry.amount)

    def _use_credit(self) -> None:
        if not self.credit:
            return
        for each in self.receivables:
            if used := min(self.credit, each.due):
                receivable = self._touch(each.invoice_id)
                receivable.credited = EXACT.add(receivable.credited, used)
                self._enter(Entry(entry_id=self._ids.new(), kind="applied", amount=-used, invoice_id=each.invoice_id))

    def _touch(self, invoice_id: UUID) -> Receivable:
        """Return a receivable that is to change."""
        receivable = self._receivables[invoice_id]
        self._changed.setdefault(invoice_id, receivable.due > 0)
        return receivable
