"""What tenants may spend in a month. Amounts are decimal strings."""

from datetime import datetime
from decimal import Decimal
from typing import Self

import asyncpg
from fastapi import APIRouter, Response
from pydantic import Field

from services.billing import queries
from services.billing.api.fields import PositiveNumber
from services.billing.api.support import ADMINISTRATORS
from services.billing.spending import Action, SpendingLimits
from services.billing.spending.limits import unknown_limit
from shared.access import Role
from shared.http import Asker, RequestBody, Resource, permit, problems
from shared.postgres import Pool
from shared.text import Currency, Identifier

_OPERATORS = permit(Role.SYSTEM_ADMIN)


class SpendingLimitOrder(RequestBody):
    """What a tenant is to spend in a month at most."""

    amount: PositiveNumber = Field(description="In at most the digits of the currency.")
    currency: Currency = Field(description="That of the tenant's account.")
    action: Action = Field(
        description="What is done when it is reached: `alert` tells of it, and nothing more; `invoice_now` invoices "
        "what was used so far; `block` refuses usage until the month is over."
    )


class SpendingLimit(Resource):
    """What a tenant may spend in a month, and what it has spent."""

    tenant_id: str
    amount: Decimal
    currency: str
    action: Action
    month: str | None = Field(
        description="That was looked at last, in the account's time zone, as in `2026-03`; null before the first look."
    )
    spent: Decimal | None = Field(
        description="In that month: what the invoice at its end would say, and what was invoiced early of it."
    )
    reviewed_at: datetime | None = Field(description="When that was found.")
    is_blocked: bool = Field(description="Whether the tenant's usage is refused because of the limit.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.spending.limit`."""
        return cls(
            tenant_id=row["tenant_id"],
            amount=row["amount"],
            currency=row["currency"],
            action=row["action"],
            month=None if row["month"] is None else f"{row['month']:%Y-%m}",
            spent=row["spent"],
            reviewed_at=row["reviewed_at"],
            is_blocked=row["is_blocked"],
        )


def routes(pool: Pool, limits: SpendingLimits) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/spending-limits/{tenant_id}", dependencies=[ADMINISTRATORS], responses=problems(404))
    async def get_spending_limit(tenant_id: Identifier, asker: Asker) -> SpendingLimit:
        """Return a tenant's limit, and what it has spent as far as that is known."""
        async with pool.acquire() as connection:
            row = await queries.spending.limit(connection, asker.narrowed(tenant_id))
        if row is None:
            raise unknown_limit(tenant_id)
        return SpendingLimit.of(row)

    @router.put(
        "/v1/spending-limits/{tenant_id}",
        dependencies=[_OPERATORS],
        responses={201: {"model": SpendingLimit}, **problems(404)},
    )
    async def put_spending_limit(
        tenant_id: Identifier, body: SpendingLimitOrder, asker: Asker, response: Response
    ) -> SpendingLimit:
        """Give a tenant a limit (201), or another one in place of the one that it has.

        One that is raised above what was spent ends the refusal of usage within seconds.
        """
        row, is_new = await limits.put(asker, tenant_id, amount=body.amount, currency=body.currency, action=body.action)
        response.status_code = 201 if is_new else 200
        return SpendingLimit.of(row)

    @router.delete(
        "/v1/spending-limits/{tenant_id}", status_code=204, dependencies=[_OPERATORS], responses=problems(404)
    )
    async def delete_spending_limit(tenant_id: Identifier, asker: Asker) -> Response:
        """Let a tenant spend what it likes; usage is not refused any more."""
        await limits.delete(asker, tenant_id)
        return Response(status_code=204)

    return router
