"""How much tenants may use, over HTTP."""

from typing import Annotated, Self

import asyncpg
from fastapi import APIRouter, Query
from pydantic import Field

from services.metrics import queries
from services.metrics.api.enforcement import Enforcement
from services.metrics.api.quantities import written
from shared.access import Role
from shared.clock import Clock
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Resource, decode_cursor, page, permit
from shared.postgres import Pool
from shared.text import Identifier

_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)


class Quota(Resource):
    """How much of a meter a tenant may use in a calendar month."""

    meter: str
    limit: int = Field(description="In the unit of the meter.")
    unit: str
    enforcement: Enforcement
    month: str = Field(description="The current one in the tenant's time zone, as in `2026-03`.")
    used: str = Field(description="In that month, in the unit of the meter; a decimal number.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.quotas.page`."""
        return cls(
            meter=row["meter"],
            limit=row["limit_value"],
            unit=row["unit"],
            enforcement=row["enforcement"],
            month=f"{row['month']:%Y-%m}",
            used=written(row["used"]),
        )


def routes(pool: Pool, *, clock: Clock) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["quotas"])

    @router.get("/v1/quotas", dependencies=[_ADMINISTRATORS])
    async def list_quotas(
        asker: Asker,
        tenant_id: Annotated[Identifier, Query(alias="tenantId")],
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> Page[Quota]:
        """List a tenant's quotas and what it has used; of a meter without one it may use as much as it likes."""
        wanted = asker.narrowed(tenant_id)
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire() as connection:
            rows = await queries.quotas.page(connection, wanted, now=clock.now(), after=after, limit=limit + 1)
        return page(rows, limit=limit, item=Quota.of, key=lambda row: (row["meter"],))

    return router
