"""What tenants have used, over HTTP."""

from datetime import datetime
from typing import Annotated, Literal, Self

import asyncpg
from fastapi import APIRouter, Query
from pydantic import Field

from services.metrics import queries
from services.metrics.queries.usage import UsageFilter
from shared.access import Role
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Resource, decode_cursor, page, permit
from shared.postgres import Pool
from shared.text import Identifier, Instant, Text

_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)


class Usage(Resource):
    """What a tenant has used of a meter in a while."""

    meter: str
    unit: str
    since: datetime = Field(alias="from", description="The beginning of the hour, the day or the month, in UTC.")
    quantity: str = Field(description="In the unit of the meter; a decimal number.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.usage.usage`."""
        return cls(meter=row["meter"], unit=row["unit"], since=row["since"], quantity=f"{row['quantity']:f}")


def routes(pool: Pool) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["usage"])

    @router.get("/v1/usage", dependencies=[_ADMINISTRATORS])
    async def list_usage(
        *,
        asker: Asker,
        tenant_id: Annotated[Identifier, Query(alias="tenantId")],
        meter: Annotated[Text | None, Query(description="Only of this one.")] = None,
        since: Annotated[
            Instant | None, Query(alias="from", description="Only hours that begin then or later.")
        ] = None,
        until: Annotated[Instant | None, Query(alias="to", description="Only hours that begin before.")] = None,
        window: Annotated[Literal["hour", "day", "month"], Query(description="What is added up, in UTC.")] = "hour",
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> Page[Usage]:
        """List what a tenant has used, by time and meter; where nothing was used there is no item."""
        wanted = UsageFilter(asker.narrowed(tenant_id), meter, since, until)
        after = decode_cursor(cursor, datetime, str)
        async with pool.acquire() as connection:
            rows = await queries.usage.usage(
                connection, wanted, window=window, after=(after[0], after[1]) if after else None, limit=limit + 1
            )
        return page(rows, limit=limit, item=Usage.of, key=lambda row: (row["since"], row["meter"]))

    return router
