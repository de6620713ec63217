"""What tenants owe, read and written for many of them at once, and what has come in of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

import asyncpg

from services.billing import queries
from services.billing.money import Currency, rounded
from services.billing.numbers import invoice_number
from services.billing.settling import Balance, Entry, Receivable
from shared.contracts.base import Fact
from shared.contracts.billing import InvoiceSettled, PaymentReceived
from shared.ids import Ids
from shared.postgres import Connection

MANUAL = "manual"
"""The provider of payments that people record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """Money that has come in.

    Attributes:
        invoice_id: what it is for.
        provider: who took it: `MANUAL`, or a payment provider.
        reference: by which that one knows it.
        amount: above zero, in the currency of the invoice and its digits.
        received_at: when it came in.
    """

    invoice_id: UUID
    provider: str
    reference: str
    amount: Decimal
    received_at: datetime


class ReferenceTakenError(Exception):
    """A provider's reference is known as another payment's: of another invoice, or of another amount.

    Args:
        payment: that has it already.
    """

    def __init__(self, payment: Incoming) -> None:
        super().__init__(f"{payment.provider} knows {payment.reference} as another payment")
        self.payment = payment


class Accounts:
    """What debtors owe and have, while nobody else can change it.

    Args:
        balances: by tenant and currency.
    """

    def __init__(self, balances: dict[tuple[str, str], Balance]) -> None:
        self._balances = balances

    @classmethod
    async def open(
        cls,
        connection: Connection,
        held: Iterable[tuple[str, str]],
        *,
        invoice_ids: Sequence[UUID] = (),
        getting: Iterable[str] | None = None,
        ids: Ids,
    ) -> Self:
        """Lock debtors and return what they owe and have; whoever was none becomes one.

        Args:
            held: tenants, each with a currency.
            invoice_ids: receivables of theirs that are to change, whether something is due of them or not.
            getting: who of them may get credit, so that it matters what else they owe; all when not given.
        """
        wanted = sorted(set(held))
        tenant_ids = sorted({tenant_id for tenant_id, _ in wanted})
        await queries.receivables.lock(connection, tenant_ids)
        await queries.receivables.add_balances(connection, wanted)
        found: dict[tuple[str, str], list[Receivable]] = {}
        owing = tenant_ids if getting is None else sorted(set(getting))
        for row in await queries.receivables.open_receivables(connection, owing, invoice_ids):
            found.setdefault((row["tenant_id"], row["currency"]), []).append(_receivable(row))
        rows = await queries.receivables.balances(connection, tenant_ids)
        return cls({_key(row): _balance(row, found.get(_key(row), ()), ids) for row in rows})

    def of(self, tenant_id: str, currency: str) -> Balance:
        """Return what a tenant owes and has in a currency."""
        return self._balances[tenant_id, currency]

    async def write(self, connection: Connection, *, now: datetime) -> Sequence[InvoiceSettled]:
        """Write what is different, and return what is told of invoices that are settled."""
        changed = [balance for balance in self._balances.values() if balance.changed or balance.entries]
        if not changed:
            return []
        await queries.receivables.save(
            connection,
            [(each.invoice_id, each.noted, each.credited, each.paid) for one in changed for each in one.changed],
            now=now,
        )
        await queries.receivables.save_credit(
            connection, [(each.tenant_id, each.currency.code, each.credit) for each in changed]
        )
        await queries.ledger.add_entries(
            connection, [_entry(one, each) for one in changed for each in one.entries], now=now
        )
        return [
            InvoiceSettled(
                tenant_id=one.tenant_id,
                invoice_id=str(each.invoice_id),
                number=invoice_number(each.number),
                settled_at=now,
            )
            for one in changed
            for each in one.settled
        ]


async def receive(connection: Connection, incoming: Sequence[Incoming], *, now: datetime, ids: Ids) -> Sequence[Fact]:
    """Book what has come in, each payment once, and settle what it is enough for.

    What is not due of it becomes credit, and that is used for whatever else the tenant owes in the currency. The
    tenants' debtors are locked.

    Returns:
        What is told of what is new: `PaymentReceived` and `InvoiceSettled`.

    Raises:
        LookupError: an invoice is not booked: it is unknown, no final one, or there was nothing to be paid.
        ReferenceTakenError: nothing is booked then.
    """
    if not incoming:
        return []
    wanted = _once(incoming)
    invoice_ids = sorted({each.invoice_id for each in wanted})
    invoices = {row["invoice_id"]: row for row in await queries.receivables.of_invoices(connection, invoice_ids)}
    if missing := [str(each) for each in invoice_ids if each not in invoices]:
        raise LookupError(f"nothing is to be paid of {', '.join(missing)}")
    accounts = await Accounts.open(connection, map(_key, invoices.values()), invoice_ids=invoice_ids, ids=ids)
    facts: list[Fact] = []
    for payment_id, each in await _appended(connection, wanted, invoices, now=now, ids=ids):
        invoice = invoices[each.invoice_id]
        accounts.of(*_key(invoice)).pay(payment_id, each.invoice_id, each.amount)
        facts.append(_received(payment_id, each, invoice))
    return [*facts, *await accounts.write(connection, now=now)]


def _once(incoming: Sequence[Incoming]) -> Sequence[Incoming]:
    """Return each payment once.

    Raises:
        ReferenceTakenError: two payments have one reference.
    """
    first: dict[tuple[str, str], Incoming] = {}
    for each in incoming:
        _refuse_another(first.setdefault((each.provider, each.reference), each), each)
    return list(first.values())


async def _appended(
    connection: Connection,
    wanted: Sequence[Incoming],
    invoices: dict[UUID, asyncpg.Record],
    *,
    now: datetime,
    ids: Ids,
) -> Sequence[tuple[UUID, Incoming]]:
    """Append payments and return those that are new.

    Raises:
        ReferenceTakenError: one that is not new is another one.
    """
    named = [(ids.new(), each) for each in wanted]
    fresh = await queries.ledger.add_payments(
        connection, [_payment(payment_id, each, invoices[each.invoice_id]) for payment_id, each in named], now=now
    )
    known = {(each.provider, each.reference): each for payment_id, each in named if payment_id not in fresh}
    for row in await queries.ledger.payments_of(connection, list(known)) if known else ():
        names = ("invoice_id", "provider", "reference", "amount", "received_at")
        _refuse_another(Incoming(**{name: row[name] for name in names}), known[row["provider"], row["reference"]])
    return [(payment_id, each) for payment_id, each in named if payment_id in fresh]


def _refuse_another(one: Incoming, other: Incoming) -> None:
    if (one.invoice_id, one.amount) != (other.invoice_id, other.amount):
        raise ReferenceTakenError(one)


def _payment(payment_id: UUID, incoming: Incoming, invoice: asyncpg.Record) -> dict[str, Any]:
    return {
        "payment_id": payment_id,
        "tenant_id": invoice["tenant_id"],
        "invoice_id": incoming.invoice_id,
        "provider": incoming.provider,
        "reference": incoming.reference,
        "currency": invoice["currency"],
        "amount": incoming.amount,
        "received_at": incoming.received_at,
    }


def _received(payment_id: UUID, incoming: Incoming, invoice: asyncpg.Record) -> PaymentReceived:
    return PaymentReceived(
        tenant_id=invoice["tenant_id"],
        payment_id=str(payment_id),
        invoice_id=str(incoming.invoice_id),
        provider=incoming.provider,
        currency=invoice["currency"],
        amount=f"{rounded(incoming.amount, invoice['digits']):f}",
        received_at=incoming.received_at,
    )


def _key(row: asyncpg.Record) -> tuple[str, str]:
    return row["tenant_id"], row["currency"]


def _balance(row: asyncpg.Record, receivables: Iterable[Receivable], ids: Ids) -> Balance:
    currency = Currency(row["currency"], row["digits"])
    return Balance(row["tenant_id"], currency, row["credit"], receivables, ids=ids)


def _receivable(row: asyncpg.Record) -> Receivable:
    names = ("invoice_id", "number", "total", "noted", "credited", "paid")
    return Receivable(**{name: row[name] for name in names})


def _entry(balance: Balance, entry: Entry) -> dict[str, Any]:
    return {
        "entry_id": entry.entry_id,
        "tenant_id": balance.tenant_id,
        "kind": entry.kind,
        "currency": balance.currency.code,
        "amount": entry.amount,
        "invoice_id": entry.invoice_id,
        "payment_id": entry.payment_id,
        "reason": entry.reason,
    }
