"""What a tenant's next invoice would say. Nothing is kept, and it has no identity. Amounts are decimal strings."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field

from services.billing import dossiers, queries
from services.billing.api.fields import Moment
from services.billing.api.support import ADMINISTRATORS, TenantId
from services.billing.dossiers import Dossier
from services.billing.statement import Item
from services.billing.upcoming import Upcoming, upcoming
from shared.clock import Clock
from shared.http import Asker, FieldError, Problem, Resource, problems
from shared.postgres import Pool

_LONGEST_AHEAD = timedelta(days=366)

At = Annotated[Moment | None, Query(description="As of when, up to a year ahead; now where it is not given.")]


class UpcomingLine(Resource):
    """One item of the invoice."""

    description: str
    quantity: Decimal = Field(description="Of what the description says, or in the unit.")
    unit: str = Field(description="Of the quantity; empty where the description says it.")
    amount: Decimal = Field(description="Rounded half up to the digits of the currency.")
    since: datetime = Field(description="The first moment of what is charged.")
    until: datetime = Field(description="The first moment that is not part of it.")

    @classmethod
    def of(cls, item: Item) -> Self:
        """Make it from a line."""
        return cls(
            description=item.description,
            quantity=item.quantity,
            unit=item.unit,
            amount=item.amount,
            since=item.since,
            until=item.until,
        )


class UpcomingInvoice(Resource):
    """What the next invoice would say if all goes on as it is."""

    tenant_id: str
    currency: str
    closes_at: datetime | None = Field(description="When it closes; null where nothing is charged.")
    lines: list[UpcomingLine] = Field(description="None where there would be no invoice.")
    total: Decimal = Field(description="The sum of the lines.")
    is_complete: bool = Field(description="Whether all the usage is known that it needs.")

    @classmethod
    def of(cls, dossier: Dossier, found: Upcoming) -> Self:
        """Make it from what is known of an account."""
        return cls(
            tenant_id=dossier.tenant_id,
            currency=dossier.account.currency.code,
            closes_at=found.closes_at,
            lines=[UpcomingLine.of(line) for line in found.lines],
            total=found.total,
            is_complete=found.is_complete,
        )


def routes(pool: Pool, clock: Clock, grace: timedelta) -> APIRouter:
    """Return the route that previews invoices.

    Args:
        grace: how long after the end of a period its usage may still come in.
    """
    router = APIRouter()

    @router.get("/v1/invoices/preview", dependencies=[ADMINISTRATORS], responses=problems(404))
    async def preview_invoice(asker: Asker, tenant_id: TenantId = None, at: At = None) -> UpcomingInvoice:
        """Return what a tenant's next invoice would say, by the function that makes it; nothing is kept."""
        whose = asker.narrowed(tenant_id)
        if whose is None:
            raise _refusal("query/tenantId", "`tenantId` is required: whose invoice is it to be?")
        now = clock.now()
        if at is not None and not now <= at <= now + _LONGEST_AHEAD:
            raise _refusal("query/at", "`at` must not be before now, and at most a year ahead.")
        async with pool.acquire() as connection:
            found = await dossiers.read(connection, await queries.invoicing.accounts(connection, [whose]))
        if not found or found[0].state == "ended":
            raise Problem(404, code="unknown_account", detail=f"Tenant {tenant_id or whose} has no open account.")
        (dossier,) = found
        return UpcomingInvoice.of(dossier, upcoming(dossier, at=at or now, grace=grace))

    return router


def _refusal(pointer: str, detail: str) -> Problem:
    return Problem(422, code="invalid_request", detail=detail, errors=[FieldError(pointer, detail)])
