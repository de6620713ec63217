"""Invoices of one account, issued one after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

from services.billing.money import EXACT
from services.billing.statement import Account, Billed, Item, Usage, lines, months_wanted, targets
from services.billing.tests.oracle import Used

EVER = datetime(2020, 1, 1, tzinfo=UTC)
"""From when on a window holds all that is ever billed to a random account."""


@dataclass
class Ledger:
    """The final invoices of an account.

    Attributes:
        invoices: their lines, from the first on.
    """

    invoices: list[Sequence[Item]] = field(default_factory=list)

    @property
    def total(self) -> Decimal:
        """What all of them come to."""
        return sum((line.amount for invoice in self.invoices for line in invoice), Decimal())

    def billed(self, window_from: datetime) -> Mapping[str, Billed]:
        """Return what they say of each key that is provided since the window began."""
        found: dict[str, Billed] = {}
        for number, invoice in enumerate(self.invoices, start=1):
            for line in invoice:
                before = found.get(line.key)
                if line.since >= window_from and before is None:
                    found[line.key] = Billed(
                        line.amount, number, line.description, line.quantity, line.since, line.until
                    )
                elif before is not None:
                    found[line.key] = replace(
                        before,
                        amount=EXACT.add(before.amount, line.amount),
                        quantity=EXACT.add(before.quantity, line.quantity),
                    )
        return found

    def issue(
        self, account: Account, used: Used, *, closes_at: datetime, window_from: datetime = EVER
    ) -> Sequence[Item]:
        """Issue the next invoice, if there is a reason, and return its lines."""
        usage = reported(account, used, closes_at=closes_at, window_from=window_from)
        due = targets(account, usage, closes_at=closes_at, window_from=window_from)
        made = lines(due, self.billed(window_from))
        if not account.is_closed and not any(line.amount for line in made):
            return []
        self.invoices.append(made)
        return made


def reported(account: Account, used: Used, *, closes_at: datetime, window_from: datetime) -> Usage:
    """Return what was used in all months that an invoice wants it of."""
    return {
        period: {
            meter: EXACT.divide(Decimal(quantity.numerator), Decimal(quantity.denominator))
            for meter, quantity in used.get(f"{period[0].astimezone(account.zone):%Y-%m}", {}).items()
        }
        for period in months_wanted(account, closes_at=closes_at, window_from=window_from)
    }
