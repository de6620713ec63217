"""What tenants owe in all, and what they have. Amounts are decimal strings."""

from decimal import Decimal
from typing import Self

import asyncpg
from fastapi import APIRouter
from pydantic import Field

from services.billing import queries
from services.billing.api.support import ADMINISTRATORS, TenantId
from shared.contracts.billing import Overdue
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Resource, decode_cursor, page
from shared.postgres import Pool


class Balance(Resource):
    """What a tenant owes and has in one currency."""

    tenant_id: str
    currency: str
    due: Decimal = Field(description="What is to be paid of all its invoices.")
    credit: Decimal = Field(description="What it has that is not used yet; nothing while something is due.")
    overdue: Overdue = Field(description="How far the tenant is behind with its payments, in any currency.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.receivables.page`."""
        return cls(**row)


def routes(pool: Pool) -> APIRouter:
    """Return the routes for balances."""
    router = APIRouter()

    @router.get("/v1/balances", dependencies=[ADMINISTRATORS])
    async def list_balances(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None
    ) -> Page[Balance]:
        """List what tenants owe and have, all or one tenant's; of those that were ever invoiced or given credit."""
        after = decode_cursor(cursor, str, str)
        async with pool.acquire() as connection:
            rows = await queries.receivables.page(
                connection,
                after=(after[0], after[1]) if after else None,
                limit=limit + 1,
                tenant_id=asker.narrowed(tenant_id),
            )
        return page(rows, limit=limit, item=Balance.of, key=lambda row: (row["tenant_id"], row["currency"]))

    return router
