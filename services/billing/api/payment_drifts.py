"""Where the books of the payment provider and ours differ."""

from datetime import datetime
from decimal import Decimal
from typing import Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter
from pydantic import Field

from services.billing import queries
from shared.access import Role
from shared.http import DEFAULT_LIMIT, Cursor, Limit, Page, Resource, decode_cursor, page, permit
from shared.postgres import Pool


class PaymentDrift(Resource):
    """A payment in which the books differ: nothing puts it right by itself."""

    provider: str
    reference: str = Field(description="By which the provider knows it.")
    kind: Literal["unbooked", "untaken", "amount"] = Field(
        description="Taken by the provider and not booked, booked and not taken, or booked with another amount."
    )
    tenant_id: str | None = Field(description="Null where nothing here is known by the reference.")
    invoice_id: UUID | None = Field(description="Likewise.")
    currency: str = Field(description="ISO 4217.")
    taken: Decimal = Field(description="What the provider says it has taken; 0 for nothing.")
    booked: Decimal = Field(description="What the payments here say; 0 for nothing.")
    found_at: datetime = Field(description="When it was found first.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.drifts.page`."""
        return cls(**row)


def routes(pool: Pool) -> APIRouter:
    """Return the route for drifts."""
    router = APIRouter()

    @router.get("/v1/payment-drifts", dependencies=[permit(Role.SYSTEM_ADMIN)])
    async def list_payment_drifts(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[PaymentDrift]:
        """List the payments in which the provider's books differed from ours when they were last compared."""
        after = decode_cursor(cursor, str, str)
        async with pool.acquire() as connection:
            rows = await queries.drifts.page(connection, after=(after[0], after[1]) if after else None, limit=limit + 1)
        return page(rows, limit=limit, item=PaymentDrift.of, key=lambda row: (row["provider"], row["reference"]))

    return router
