"""What is owed for one thing, and what was billed for it. Values without I/O."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Item:
    """What is owed for one thing in one month; as a line of an invoice, what is owed of it still.

    Attributes:
        key: what is charged; the same on every invoice that says something of it, and no other thing's.
        description: what is charged, and how the amount comes about.
        quantity: of what the description says; in a correction, how much more or less than was billed.
        amount: in the digits of the currency.
        since: the first moment of what is charged, in UTC.
        until: the first moment that is not part of it.
        unit: of the quantity, for one of them; none where the description says enough.
    """

    key: str
    description: str
    quantity: Decimal
    amount: Decimal
    since: datetime
    until: datetime
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Billed:
    """What all final invoices say of one key.

    Attributes:
        amount: the sum of its lines, in the digits of the currency.
        number: of the invoice that said something of it first.
        description: of the line on that invoice.
        quantity: the sum of its lines.
        since: as that line has it.
        until: likewise.
    """

    amount: Decimal
    number: int
    description: str
    quantity: Decimal
    since: datetime
    until: datetime


def what(plan: str, product: str) -> str:
    """Write what is charged: a plan, of the account or for a product."""
    return f"{plan} for {product}" if product else plan
