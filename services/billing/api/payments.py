"""What has come in. Amounts are decimal strings."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Response
from pydantic import Field

from services.billing import paying, queries
from services.billing.api.fields import Identity, Moment, PositiveNumber
from services.billing.api.support import ADMINISTRATORS, OPERATORS, TenantId, check_digits
from services.billing.receivables import MANUAL, Incoming
from shared.changes import Changes
from shared.clock import Clock
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    Limit,
    Page,
    RequestBody,
    Resource,
    decode_cursor,
    page,
    problems,
)
from shared.ids import Ids
from shared.postgres import Pool
from shared.text import Currency, Text

_Reference = Annotated[Text, Field(max_length=200)]


class NewPayment(RequestBody):
    """A payment that has come in."""

    invoice_id: Identity = Field(description="What it is for.")
    amount: PositiveNumber = Field(description="In the digits of the currency.", examples=["49.00"])
    currency: Currency = Field(description="That of the invoice.")
    reference: _Reference = Field(
        description="By which the payment is known, as by its bank: of two with the same reference there is only one."
    )
    received_at: Moment | None = Field(default=None, description="When it came in; null for now.")

    def incoming(self, now: datetime) -> Incoming:
        """Return what has come in.

        Raises:
            Problem: 422, the amount has more digits than its currency.
        """
        check_digits(self.amount, self.currency)
        return Incoming(
            invoice_id=self.invoice_id,
            provider=MANUAL,
            reference=self.reference,
            amount=self.amount,
            received_at=self.received_at or now,
        )


class Payment(Resource):
    """What has come in. It is never changed."""

    payment_id: UUID
    tenant_id: str
    invoice_id: UUID = Field(description="What it is for; what was not due of it is credit.")
    provider: str = Field(description="Who took it: `manual`, or a payment provider.")
    reference: str = Field(description="By which the provider knows it.")
    currency: str
    amount: Decimal
    received_at: datetime
    recorded_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.ledger.payments`."""
        return cls(**row)


def routes(pool: Pool, changes: Changes, clock: Clock, ids: Ids) -> APIRouter:
    """Return the routes for payments."""
    router = APIRouter()

    @router.post(
        "/v1/payments",
        status_code=201,
        responses={200: {"model": Payment}, **problems(404, 409)},
        dependencies=[OPERATORS],
    )
    async def record_payment(body: NewPayment, asker: Asker, response: Response) -> Payment:
        """Record that an invoice was paid, or a part of it; asking again for the very same changes nothing (200).

        What is not due of the amount becomes credit.
        """
        now = clock.now()
        incoming = body.incoming(now)
        async with changes.transaction() as change:
            row, is_new = await paying.record(change, asker, incoming, currency=body.currency, now=now, ids=ids)
        if not is_new:
            response.status_code = 200
        return Payment.of(row)

    @router.get("/v1/payments", dependencies=[ADMINISTRATORS])
    async def list_payments(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None
    ) -> Page[Payment]:
        """List payments in the order in which they were recorded, all or one tenant's."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await queries.ledger.payments(
                connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id)
            )
        return page(rows, limit=limit, item=Payment.of, key=lambda row: (row["payment_id"],))

    return router
