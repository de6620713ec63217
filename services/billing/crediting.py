"""How people give tenants credit: as a grant, or by a credit note that corrects an invoice."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import asyncpg

from services.billing import queries
from services.billing.money import currency_of, rounded
from services.billing.payable import payable, wrong
from services.billing.receivables import Accounts
from services.billing.settling import ExceedsInvoiceError
from shared.access import Principal
from shared.audit import told
from shared.changes import Change
from shared.contracts.base import Fact
from shared.contracts.billing import CreditIssued
from shared.http import FieldError, Problem
from shared.ids import Ids
from shared.postgres import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """What somebody asks to be given.

    Attributes:
        amount: above zero, in the digits of the currency.
        invoice_id: what a credit note is to correct; None for a grant.
        idempotency_key: None where the client gave none.
        fingerprint: of the request.
    """

    tenant_id: str
    currency: str
    amount: Decimal
    reason: str
    invoice_id: UUID | None
    idempotency_key: str | None
    fingerprint: bytes


async def give(
    change: Change, asker: Principal, asked: Credit, *, now: datetime, ids: Ids
) -> tuple[asyncpg.Record, bool]:
    """Give credit, and return what was made of it and whether it is new.

    Returns:
        A row of `queries.ledger.entry` for a grant, of `queries.ledger.note` for a credit note.

    Raises:
        Problem: 404, the tenant or the invoice is not known; 409, credit notes would be of more than the invoice; 422,
            of the currency, or the idempotency key was used for another request.
    """
    made = await _made(change.connection, asker, asked, now=now, fresh=ids.new())
    find = queries.ledger.entry if asked.invoice_id is None else queries.ledger.note
    if known := await find(change.connection, made):
        return known, False
    do = _grant if asked.invoice_id is None else _note
    change.tell(*await do(change.connection, asked, made, now=now, ids=ids))
    change.decided(
        asker,
        "credit.granted" if asked.invoice_id is None else "credit_note.issued",
        f"credit:{made}",
        tenant_id=asked.tenant_id,
        after=told({"amount": _written(asked), "currency": asked.currency, "invoiceId": asked.invoice_id}, untold=()),
        reason=asked.reason,
    )
    row = await find(change.connection, made)
    assert row is not None
    return row, True


async def _made(connection: Connection, asker: Principal, asked: Credit, *, now: datetime, fresh: UUID) -> UUID:
    """Return the identity of what the request makes, or has made before."""
    if asked.idempotency_key is None:
        return fresh
    claimed = await queries.ledger.claim(
        connection,
        principal=asker.id,
        key=asked.idempotency_key,
        fingerprint=asked.fingerprint,
        made=fresh,
        now=now,
    )
    if claimed["fingerprint"] != asked.fingerprint:
        detail = "This Idempotency-Key was used for another request."
        error = FieldError("header/Idempotency-Key", detail)
        raise Problem(422, code="idempotency_key_reused", detail=detail, errors=[error])
    made: UUID = claimed["made"]
    return made


async def _grant(connection: Connection, asked: Credit, entry_id: UUID, *, now: datetime, ids: Ids) -> Sequence[Fact]:
    currencies = await queries.receivables.currencies(connection, asked.tenant_id)
    if not currencies:
        detail = f"Tenant {asked.tenant_id} has no account that could be charged."
        raise Problem(404, code="unknown_tenant", detail=detail, errors=[FieldError("/tenantId", detail)])
    if asked.currency not in currencies:
        raise wrong("/currency", f"`currency` must be one that the tenant is charged in: {', '.join(currencies)}.")
    accounts = await Accounts.open(connection, [(asked.tenant_id, asked.currency)], ids=ids)
    accounts.of(asked.tenant_id, asked.currency).grant(entry_id, asked.amount, asked.reason)
    return [_issued(asked, entry_id), *await accounts.write(connection, now=now)]


async def _note(connection: Connection, asked: Credit, note_id: UUID, *, now: datetime, ids: Ids) -> Sequence[Fact]:
    assert asked.invoice_id is not None
    await payable(connection, asked.invoice_id, currency=asked.currency, tenant_id=asked.tenant_id)
    accounts = await Accounts.open(
        connection, [(asked.tenant_id, asked.currency)], invoice_ids=[asked.invoice_id], ids=ids
    )
    try:
        accounts.of(asked.tenant_id, asked.currency).note(asked.invoice_id, asked.amount)
    except ExceedsInvoiceError as error:
        left = f"{rounded(error.left, currency_of(asked.currency).digits):f} {asked.currency}"
        detail = f"`amount` must be at most {left}: what no credit note of the invoice says yet."
        raise Problem(409, code="exceeds_invoice", detail=detail, errors=[FieldError("/amount", detail)]) from None
    note = {
        "credit_note_id": note_id,
        "invoice_id": asked.invoice_id,
        "tenant_id": asked.tenant_id,
        "currency": asked.currency,
        "amount": asked.amount,
        "reason": asked.reason,
    }
    await queries.ledger.add_note(connection, note, now=now)
    return [_issued(asked, note_id), *await accounts.write(connection, now=now)]


def _issued(asked: Credit, credit_id: UUID) -> CreditIssued:
    return CreditIssued(
        tenant_id=asked.tenant_id,
        credit_id=str(credit_id),
        invoice_id=None if asked.invoice_id is None else str(asked.invoice_id),
        currency=asked.currency,
        amount=_written(asked),
    )


def _written(asked: Credit) -> str:
    return f"{rounded(asked.amount, currency_of(asked.currency).digits):f}"
