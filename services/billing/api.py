"""All HTTP of the billing service: what can be bought, what tenants have and owe. Amounts are decimal strings."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query
from pydantic import Field

from services.billing import queries
from shared.access import Role
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Problem, Resource, decode_cursor, page, permit
from shared.postgres import Pool
from shared.text import Identifier

PATHS = ("/v1/plans", "/v1/subscriptions", "/v1/invoices")

_READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)
_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)
_NO_INVOICE = UUID(int=0)

Interval = Literal["month"]
Status = Literal["pending", "active", "paused", "ended"]
InvoiceState = Literal["draft", "final"]


class Price(Resource):
    """What a plan costs in one currency."""

    currency: str
    amount: Decimal


class Plan(Resource):
    """A plan of the catalog; currency and amount are those of who names no currency."""

    name: str
    rank: int = Field(description="From the cheapest plan to the dearest.")
    interval: Interval = Field(description="What an amount pays for.")
    currency: str
    amount: Decimal
    prices: list[Price] = Field(description="Every currency that the plan is sold in.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.plans`."""
        amounts: dict[str, Decimal] = dict(zip(row["currencies"], row["amounts"], strict=True))
        return cls(
            name=row["name"],
            rank=row["rank"],
            interval=row["interval"],
            currency=row["currency"],
            amount=amounts[row["currency"]],
            prices=[Price(currency=currency, amount=amount) for currency, amount in amounts.items()],
        )


class Subscription(Resource):
    """What a tenant pays for: the plan of its tier, or the licence of a product."""

    subscription_id: UUID
    tenant_id: str
    account_id: UUID
    product: str | None = Field(description="What is licensed; null for the plan of the tier.")
    plan: str
    currency: str
    amount: Decimal = Field(description="Per interval of the plan, as agreed when it was chosen.")
    status: Status = Field(description="Only what is `active` is charged.")
    started_at: datetime | None = Field(
        description="The time of the tenant's activation: first charged at, unless it is a licence that came later."
    )

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.subscriptions`."""
        return cls(
            subscription_id=row["subscription_id"],
            tenant_id=row["tenant_id"],
            account_id=row["account_id"],
            product=row["product"],
            plan=row["plan"],
            currency=row["currency"],
            amount=row["amount"],
            status=row["state"],
            started_at=row["started_at"],
        )


class InvoiceLine(Resource):
    """One item of an invoice."""

    description: str = Field(description="Of the plan, and the product that it licenses.")
    quantity: Decimal = Field(description="Of what the description says; days of a plan.")
    amount: Decimal = Field(description="Rounded half up to the digits of the currency.")


class Invoice(Resource):
    """What a tenant owes."""

    invoice_id: UUID
    tenant_id: str
    customer_name: str = Field(description="Whom it is made out to, as it was when it was drafted.")
    currency: str
    state: InvoiceState = Field(description="A `final` one never changes; a `draft` can go again.")
    lines: list[InvoiceLine]
    total: Decimal = Field(description="The sum of the lines.")
    drafted_at: datetime
    issued_at: datetime | None = Field(description="When it became final.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.invoices`."""
        return cls(
            invoice_id=row["invoice_id"],
            tenant_id=row["tenant_id"],
            customer_name=row["customer_name"],
            currency=row["currency"],
            state=row["state"],
            lines=[InvoiceLine(**line) for line in row["lines"]],
            total=row["total"],
            drafted_at=row["drafted_at"],
            issued_at=row["issued_at"],
        )


def routes(pool: Pool) -> APIRouter:
    """Return every route of the service."""
    router = APIRouter(tags=["billing"])

    @router.get("/v1/plans", dependencies=[_READERS])
    async def list_plans(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Plan]:
        """List plans from the cheapest to the dearest."""
        (after,) = decode_cursor(cursor, int) or (0,)
        async with pool.acquire() as connection:
            rows = await queries.plans(connection, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=Plan.of, key=lambda row: (row["rank"],))

    @router.get("/v1/subscriptions", dependencies=[_ADMINISTRATORS])
    async def list_subscriptions(
        asker: Asker,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        tenant_id: Annotated[Identifier | None, Query(alias="tenantId")] = None,
    ) -> Page[Subscription]:
        """List subscriptions in the order of their creation, all or one tenant's, licences among them."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await queries.subscriptions(
                connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id)
            )
        return page(rows, limit=limit, item=Subscription.of, key=lambda row: (row["subscription_id"],))

    @router.get("/v1/invoices", dependencies=[_ADMINISTRATORS])
    async def list_invoices(
        asker: Asker,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        tenant_id: Annotated[Identifier | None, Query(alias="tenantId")] = None,
    ) -> Page[Invoice]:
        """List invoices in the order in which they were drafted, all or one tenant's."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await queries.invoices(connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id))
        return page(rows, limit=limit, item=Invoice.of, key=lambda row: (row["invoice_id"],))

    @router.get("/v1/invoices/{invoice_id}", dependencies=[_ADMINISTRATORS])
    async def get_invoice(invoice_id: Identifier, asker: Asker) -> Invoice:
        """Return one invoice."""
        async with pool.acquire() as connection:
            row = await queries.invoice(connection, _uuid(invoice_id), within=asker.tenant_id)
        if row is None:
            raise Problem(404, code="unknown_invoice", detail=f"There is no invoice {invoice_id}.")
        return Invoice.of(row)

    return router


def _uuid(identifier: str) -> UUID:
    """Return the identity that a client names; what is no UUID is no invoice's identity."""
    try:
        return UUID(identifier)
    except ValueError:
        return _NO_INVOICE
