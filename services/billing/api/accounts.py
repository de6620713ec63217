"""What tenants have."""

from datetime import datetime
from decimal import Decimal
from typing import Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter
from pydantic import Field

from services.billing import queries
from services.billing.api.support import ADMINISTRATORS, TenantId
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Resource, decode_cursor, page
from shared.postgres import Pool

Status = Literal["pending", "active", "paused", "ended"]


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
        """Make it from a row of `queries.subscriptions.page`."""
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


def routes(pool: Pool) -> APIRouter:
    """Return the route that lists subscriptions."""
    router = APIRouter()

    @router.get("/v1/subscriptions", dependencies=[ADMINISTRATORS])
    async def list_subscriptions(
        asker: Asker,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        tenant_id: TenantId = None,
    ) -> Page[Subscription]:
        """List subscriptions in the order of their creation, all or one tenant's, licences among them."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await queries.subscriptions.page(
                connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id)
            )
        return page(rows, limit=limit, item=Subscription.of, key=lambda row: (row["subscription_id"],))

    return router
