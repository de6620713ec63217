"""What tenants owe. Amounts are decimal strings."""

from datetime import datetime
from decimal import Decimal
from typing import Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Response
from pydantic import Field

from services.billing import queries
from services.billing.api.documents import RESPONSES, VARIES, Documents
from services.billing.api.support import ADMINISTRATORS, TenantId
from services.billing.documents import Printer, WantedFormat
from services.billing.numbers import invoice_number
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Problem, Resource, decode_cursor, page
from shared.postgres import Pool
from shared.text import Identifier

_NO_INVOICE = UUID(int=0)

InvoiceState = Literal["draft", "final"]
InvoiceKind = Literal["periodic", "closing"]


class InvoiceLine(Resource):
    """One item of an invoice."""

    description: str = Field(description="Of the plan, and the product that it licenses.")
    quantity: Decimal = Field(description="Of what the description says; days of a plan.")
    unit: str = Field(description="Of the quantity; empty where the description says it.")
    amount: Decimal = Field(description="Rounded half up to the digits of the currency.")
    since: datetime | None = Field(description="The first moment of what is charged; null on old invoices.")
    until: datetime | None = Field(description="The first moment that is not part of it; null on old invoices.")


class Invoice(Resource):
    """What a tenant owes."""

    invoice_id: UUID
    tenant_id: str
    customer_name: str = Field(description="Whom it is made out to, as it was when it was drafted.")
    currency: str
    state: InvoiceState = Field(description="A `final` one never changes; a `draft` can go again.")
    number: str | None = Field(description="Without gaps over all tenants, in the order of issue; null for a draft.")
    kind: InvoiceKind = Field(description="Of a period, or of all that is owed when an account is closed.")
    closes_at: datetime | None = Field(description="What happened before is on it; null on old invoices.")
    lines: list[InvoiceLine]
    total: Decimal = Field(description="The sum of the lines.")
    drafted_at: datetime
    issued_at: datetime | None = Field(description="When it became final.")
    amount_due: Decimal | None = Field(
        description="What is still to be paid; null for a draft, and where nothing was ever to be paid or nobody kept "
        "account of it."
    )
    settled_at: datetime | None = Field(description="Since when nothing is due; null where `amountDue` is not 0.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.invoices.page`."""
        return cls(
            invoice_id=row["invoice_id"],
            tenant_id=row["tenant_id"],
            customer_name=row["customer_name"],
            currency=row["currency"],
            state=row["state"],
            number=None if row["number"] is None else invoice_number(row["number"]),
            kind=row["kind"],
            closes_at=row["closes_at"],
            lines=[InvoiceLine(**line) for line in row["lines"]],
            total=row["total"],
            drafted_at=row["drafted_at"],
            issued_at=row["issued_at"],
            amount_due=row["due"],
            settled_at=row["settled_at"],
        )


def routes(pool: Pool, printer: Printer) -> APIRouter:
    """Return the routes for invoices."""
    router = APIRouter()
    documents = Documents(pool, printer)

    @router.get("/v1/invoices", dependencies=[ADMINISTRATORS])
    async def list_invoices(
        asker: Asker,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        tenant_id: TenantId = None,
        state: InvoiceState | None = None,
    ) -> Page[Invoice]:
        """List invoices in the order of what they close, all or one tenant's, in every state or in one."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await queries.invoices.page(
                connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id), state=state
            )
        return page(rows, limit=limit, item=Invoice.of, key=lambda row: (row["invoice_id"],))

    @router.get("/v1/invoices/{invoice_id}", dependencies=[ADMINISTRATORS], response_model=Invoice, responses=RESPONSES)
    async def get_invoice(
        invoice_id: Identifier, asker: Asker, form: WantedFormat, response: Response
    ) -> Invoice | Response:
        """Return one invoice: as JSON, as a page or as a PDF.

        A page or PDF of the same invoice is the same byte for byte, whenever it is asked for; a draft may change until
        it is issued. JSON also says what is due of it.
        """
        found: Invoice | Response | None
        if form == "json":
            async with pool.acquire() as connection:
                row = await queries.invoices.invoice(connection, _uuid(invoice_id), within=asker.tenant_id)
            found = Invoice.of(row) if row else None
            response.headers.update(VARIES)
        else:
            found = await documents.find(_uuid(invoice_id), form, within=asker.tenant_id)
        if found is None:
            raise Problem(404, code="unknown_invoice", detail=f"There is no invoice {invoice_id}.")
        return found

    return router


def _uuid(identifier: str) -> UUID:
    """Return the identity that a client names; what is no UUID is no invoice's identity."""
    try:
        return UUID(identifier)
    except ValueError:
        return _NO_INVOICE
