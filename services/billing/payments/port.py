"""What a payment provider can be asked for.

Money is taken in two steps, so that nothing is ever taken twice: a bill is made, which takes nothing, and its reference
is written down; then the provider is asked to collect that bill. Of one bill money is taken once at most, however often
it is asked for, also long after an idempotency key is forgotten; and what became of a bill can be looked up.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol, TypeAlias
from uuid import UUID


class ProviderUnavailableError(Exception):
    """It is not known what became of what was asked: there was no answer, or none that says anything.

    Args:
        has_failed: whether the provider has answered that it failed; asked with the same key, it may say so again.
    """

    def __init__(self, detail: str, *, has_failed: bool = False) -> None:
        super().__init__(detail)
        self.has_failed = has_failed


class ChargeRefusedError(Exception):
    """The provider does not take this charge, whenever it is asked.

    Args:
        code: why, in the provider's words.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Customer:
    """Who pays.

    Attributes:
        tenant_id: by which we know it.
        name: whom invoices are made out to.
    """

    tenant_id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a bill is of.

    Attributes:
        customer: by which the provider knows who pays.
        invoice_id: of the invoice.
        number: of the invoice, as people read it.
        currency: ISO 4217.
        amount: above zero, in the digits of the currency.
    """

    customer: str
    invoice_id: UUID
    number: str
    currency: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Paid:
    """The money was taken.

    Attributes:
        currency: ISO 4217.
        amount: how much, above zero.
        received_at: when.
    """

    currency: str
    amount: Decimal
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Unpaid:
    """No money was taken, and none will be unless it is asked for.

    Attributes:
        code: why, in the provider's words, where it was asked for; None where it was looked up.
    """

    code: str | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """The provider was asked for the money and does not know yet; a direct debit takes days."""


@dataclass(frozen=True, slots=True)
class Void:
    """The bill is withdrawn: no money is ever taken for it."""


Standing: TypeAlias = Paid | Unpaid | Pending | Void
"""What became of a bill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Money that a provider says it has taken.

    Attributes:
        reference: of the bill.
        currency: ISO 4217.
        amount: how much.
        received_at: when.
    """

    reference: str
    currency: str
    amount: Decimal
    received_at: datetime


class PaymentProvider(Protocol):
    """Who takes money.

    Attributes:
        name: as payments have it.
        collects: whether it can be asked for money: then it is a `Collector`.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see the class
    @property
    def collects(self) -> bool: ...  # noqa: D102 - see the class


class Collector(PaymentProvider, Protocol):
    """A provider that is asked for money.

    Whatever has a key is done once for it, as long as the provider remembers the key. All may raise
    `ProviderUnavailableError`.
    """

    async def ensure_customer(self, customer: Customer, *, key: str) -> str:
        """Return by which reference the provider knows a customer from now on."""
        ...

    async def bill(self, charge: Charge, *, key: str) -> str:
        """Make a bill, for which no money is taken until it is collected; return its reference.

        Raises:
            ChargeRefusedError: there can be no such bill.
        """
        ...

    async def collect(self, reference: str, *, key: str) -> Standing:
        """Take the money for a bill; where it was taken already, say so."""
        ...

    async def look_up(self, reference: str) -> Standing:
        """Return what became of a bill."""
        ...

    async def withdraw(self, reference: str, *, key: str) -> Standing:
        """See to it that no money is taken for a bill any more; where it was taken already, say so."""
        ...

    def payments_since(self, since: datetime) -> AsyncIterator[Taken]:
        """Return what was taken for bills of ours that were made at a time or later."""
        ...


class WrongSignatureError(Exception):
    """Whoever has sent it is not the provider."""


class MalformedNewsError(Exception):
    """The provider has signed something that cannot be understood."""


@dataclass(frozen=True, slots=True)
class News:
    """What a provider tells of its own accord.

    Attributes:
        event_id: the same whenever it is told again.
        type: in the provider's words.
        reference: of the bill that it is about; None where it is about none.
    """

    event_id: str
    type: str
    reference: str | None


class Announcer(Protocol):
    """Reads what a provider tells.

    Attributes:
        name: of the provider.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see the class

    def read(self, headers: Mapping[str, str], body: bytes) -> News:
        """Return what is told.

        Raises:
            WrongSignatureError: by somebody else, or too long ago.
            MalformedNewsError: it cannot be understood.
        """
        ...
