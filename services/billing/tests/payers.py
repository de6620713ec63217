"""How the tenants of a year pay: at once, after they were asked again, by a transfer that comes late, or never."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from services.billing.booking import Booking
from services.billing.dunning import Dunning
from services.billing.overdue import Terms
from services.billing.payments.collecting import Collecting
from services.billing.payments.port import Charge, Customer, Paid, Standing, Taken, Unpaid, Void
from services.billing.receivables import MANUAL, Incoming, receive
from services.billing.tests.invoicing_kit import House
from shared.contracts.base import Message
from shared.contracts.billing import Overdue, OverdueChanged, PaymentFailed
from shared.postgres import transaction

_RETRIES = [timedelta(days=each) for each in (1, 9, 13, 20)]
_TERMS = Terms(timedelta(days=10), timedelta(days=14), timedelta(days=21))
_ALWAYS = 99
_DECLINES = (0, 0, 0, 0, 1, 3, _ALWAYS)
"""How often somebody has no money for an invoice before there is some."""


@dataclass
class Purse:
    """What there is for an invoice.

    Attributes:
        declines: how often the provider gets nothing.
        transfers: what comes without the provider, and when: in one part or two, or more than is due.
    """

    declines: int
    transfers: list[tuple[datetime, Decimal]] = field(default_factory=list)

    def take(self, now: datetime) -> Sequence[tuple[datetime, Decimal]]:
        """Return the transfers that have come in, each once."""
        ripe = [each for each in self.transfers if each[0] <= now]
        self.transfers = [each for each in self.transfers if each[0] > now]
        return ripe


class Provider:
    """Takes money out of purses, for each bill once."""

    name = "purses"
    collects = True

    def __init__(self, house: House, purses: Mapping[UUID, Purse]) -> None:
        self._clock = house.clock
        self._purses = purses
        self._bills: dict[str, Charge] = {}
        self._withdrawn: dict[str, Void] = {}
        self.paid: dict[str, Paid] = {}

    async def ensure_customer(self, customer: Customer, *, key: str) -> str:  # noqa: ARG002 - a customer is itself
        return f"customer-{customer.tenant_id}"

    async def bill(self, charge: Charge, *, key: str) -> str:
        self._bills[f"bill-{key}"] = charge
        return f"bill-{key}"

    async def collect(self, reference: str, *, key: str) -> Standing:  # noqa: ARG002 - of one bill money is taken once
        charge = self._bills[reference]
        purse = self._purses[charge.invoice_id]
        if reference in self._withdrawn:
            return self._withdrawn[reference]
        if reference not in self.paid and purse.declines:
            purse.declines -= 1
            return Unpaid("insufficient_funds")
        return self.paid.setdefault(reference, Paid(charge.currency, charge.amount, self._clock.now()))

    async def look_up(self, reference: str) -> Standing:
        return self.paid.get(reference) or self._withdrawn.get(reference) or Unpaid()

    async def withdraw(self, reference: str, *, key: str) -> Standing:  # noqa: ARG002 - nothing is to be remembered
        return self.paid.get(reference) or self._withdrawn.setdefault(reference, Void())

    async def payments_since(self, since: datetime) -> AsyncIterator[Taken]:
        for reference, paid in self.paid.items():
            if paid.received_at >= since:
                yield Taken(
                    reference=reference, currency=paid.currency, amount=paid.amount, received_at=paid.received_at
                )


class Payers:
    """Has what is invoiced booked, collected and dunned.

    Args:
        seed: of what there is for which invoice.
    """

    def __init__(self, house: House, *, seed: int) -> None:
        self._house = house
        self._seed = seed
        self._purses: dict[UUID, Purse] = {}
        self._transferring: dict[UUID, Purse] = {}
        self._filled = 0
        self.provider = Provider(house, self._purses)
        self.booking = Booking(house.kernel(), collects=True)
        self.collecting = Collecting(house.kernel(), self.provider, retries=_RETRIES)
        self.dunning = Dunning(house.kernel(), _TERMS)
        self.overdue: dict[str, Overdue] = {}
        self.told: Counter[str] = Counter()

    async def round(self) -> bool:
        """Do what is due, and return whether there was something."""
        booked = await self.booking.round()
        if booked:
            await self._fill()
        transferred = await self._transfer()
        return bool(booked or transferred or await self.collecting.round() or await self.dunning.round())

    def hear(self, messages: Iterable[Message]) -> None:
        """Know who is behind, and how far."""
        for each in messages:
            if isinstance(each, OverdueChanged):
                self.overdue[each.tenant_id] = each.overdue
                self.told[each.overdue] += 1
            elif isinstance(each, PaymentFailed):
                self.told["failed"] += 1

    async def _fill(self) -> None:
        """Decide what there is for invoices that have just been booked."""
        rows = await self._house.pool.fetch(
            "SELECT invoice_id, number, issued_at, due FROM receivable WHERE number > $1 ORDER BY number", self._filled
        )
        for row in rows:
            self._filled = row["number"]
            self._purses[row["invoice_id"]] = self._purse(row["invoice_id"], row["issued_at"], row["due"])

    def _purse(self, invoice_id: UUID, issued_at: datetime, due: Decimal) -> Purse:
        chance = random.Random(f"{self._seed} {invoice_id}")
        purse = Purse(chance.choice(_DECLINES))
        if due and purse.declines == _ALWAYS and chance.random() < 0.8:
            late = issued_at + timedelta(days=chance.randrange(2, 40))
            first = (due / 3).quantize(Decimal("0.01"))
            in_parts = [(late, first), (late + timedelta(days=3), due - first)] if first else [(late, due)]
            purse.transfers = chance.choice([[(late, due)], [(late, due + 5)], in_parts])
            self._transferring[invoice_id] = purse
        return purse

    async def _transfer(self) -> int:
        """Record what has come in without the provider."""
        now = self._house.clock.now()
        incoming = [
            Incoming(
                invoice_id=invoice_id,
                provider=MANUAL,
                reference=f"{invoice_id} {at.isoformat()}",
                amount=amount,
                received_at=now,
            )
            for invoice_id, purse in self._transferring.items()
            for at, amount in purse.take(now)
        ]
        if incoming:
            async with transaction(self._house.pool) as connection:
                await receive(connection, incoming, now=now, ids=self._house.ids)
        return len(incoming)
