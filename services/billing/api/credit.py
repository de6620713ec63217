"""What tenants are given: as credit, or by credit notes that correct invoices. Amounts are decimal strings."""

from datetime import datetime
from decimal import Decimal
from typing import Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Response
from pydantic import Field

from services.billing import crediting, queries
from services.billing.api.fields import Identity, PositiveNumber
from services.billing.api.support import ADMINISTRATORS, OPERATORS, TenantId, check_digits
from services.billing.crediting import Credit
from services.billing.numbers import invoice_number
from services.billing.settling import EntryKind
from shared.changes import Changes
from shared.clock import Clock
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    IdempotencyKey,
    Limit,
    Page,
    RequestBody,
    Resource,
    decode_cursor,
    fingerprint,
    page,
    problems,
)
from shared.ids import Ids
from shared.postgres import Pool
from shared.text import Currency, Identifier, Paragraph


class NewCredit(RequestBody):
    """What a tenant is to be given: a credit note with `invoiceId`, credit for any invoice without."""

    tenant_id: Identifier
    amount: PositiveNumber = Field(description="In the digits of the currency.", examples=["10.00"])
    currency: Currency = Field(description="One that the tenant is charged in; that of the invoice.")
    reason: Paragraph = Field(description="Why. The tenant reads it, and it is kept in the audit trail.")
    invoice_id: Identity | None = Field(default=None, description="What a credit note corrects.")

    def asked(self, idempotency_key: str | None) -> Credit:
        """Return what is asked for.

        Raises:
            Problem: 422, the amount has more digits than its currency.
        """
        check_digits(self.amount, self.currency)
        return Credit(
            tenant_id=self.tenant_id,
            currency=self.currency,
            amount=self.amount,
            reason=self.reason,
            invoice_id=self.invoice_id,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint(self),
        )


class IssuedCredit(Resource):
    """What a tenant was given. It is never changed."""

    credit_id: UUID
    tenant_id: str
    invoice_id: UUID | None = Field(description="What a credit note corrects; null for credit.")
    number: str | None = Field(description="Of a credit note, as in their list; null for credit.")
    currency: str
    amount: Decimal
    reason: str
    issued_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from what `services.billing.crediting.give` returns."""
        is_note = "credit_note_id" in row
        return cls(
            credit_id=row["credit_note_id" if is_note else "entry_id"],
            tenant_id=row["tenant_id"],
            invoice_id=row["invoice_id"],
            number=invoice_number(row["number"]) if is_note else None,
            currency=row["currency"],
            amount=row["amount"],
            reason=row["reason"],
            issued_at=row["issued_at" if is_note else "recorded_at"],
        )


class CreditEntry(Resource):
    """A change of a tenant's credit. Their sum is what is not used yet."""

    entry_id: UUID
    tenant_id: str
    kind: EntryKind = Field(
        description="`granted` by an operator; `invoice`: whose total is below zero; `overpaid`: what was not due of a "
        "payment; `released` by a credit note of an invoice that was settled; `applied`: used for an invoice."
    )
    currency: str
    amount: Decimal = Field(description="Below zero for what was used.")
    invoice_id: UUID | None = Field(description="What it comes from, or is used for.")
    payment_id: UUID | None = Field(description="What it is the rest of.")
    reason: str | None = Field(description="Of a grant.")
    recorded_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.ledger.entries`."""
        return cls(**row)


class CreditNote(Resource):
    """What an issued invoice is corrected by. It is never changed."""

    credit_note_id: UUID
    number: str = Field(description="Without gaps over all tenants, in the order of issue; not one of the invoices'.")
    invoice_id: UUID
    tenant_id: str
    currency: str
    amount: Decimal = Field(description="What the tenant owes less; what it has paid of that is credit.")
    reason: str
    issued_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.ledger.notes`."""
        return cls(**{**row, "number": invoice_number(row["number"])})


def routes(pool: Pool, changes: Changes, clock: Clock, ids: Ids) -> APIRouter:
    """Return the routes for credit and credit notes."""
    router = APIRouter()
    router.include_router(_lists(pool))

    @router.post(
        "/v1/credits",
        status_code=201,
        responses={200: {"model": IssuedCredit}, **problems(404, 409)},
        dependencies=[OPERATORS],
    )
    async def issue_credit(body: NewCredit, asker: Asker, key: IdempotencyKey, response: Response) -> IssuedCredit:
        """Give a tenant credit, or correct an invoice by a credit note.

        Credit is used at once for what is due, the oldest invoice first, and then for the invoices to come. A credit
        note is taken off what is due of its invoice; what exceeds that becomes credit. All credit notes of an invoice
        are at most of its total. Every request gives again, unless the requests have one `Idempotency-Key` (200).
        """
        asked = body.asked(key)
        async with changes.transaction() as change:
            row, is_new = await crediting.give(change, asker, asked, now=clock.now(), ids=ids)
        if not is_new:
            response.status_code = 200
        return IssuedCredit.of(row)

    return router


def _lists(pool: Pool) -> APIRouter:
    router = APIRouter(dependencies=[ADMINISTRATORS])

    @router.get("/v1/credits")
    async def list_credits(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None
    ) -> Page[CreditEntry]:
        """List every change of credit in its order, all or one tenant's."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await queries.ledger.entries(
                connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id)
            )
        return page(rows, limit=limit, item=CreditEntry.of, key=lambda row: (row["entry_id"],))

    @router.get("/v1/credit-notes")
    async def list_credit_notes(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None
    ) -> Page[CreditNote]:
        """List credit notes in the order of their issue, all or one tenant's."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await queries.ledger.notes(
                connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id)
            )
        return page(rows, limit=limit, item=CreditNote.of, key=lambda row: (row["credit_note_id"],))

    return router
