"""What tenants have used, over HTTP."""

from datetime import datetime
from typing import Annotated, Literal, Self

import asyncpg
from fastapi import APIRouter, Query
from pydantic import Field

from services.metrics import queries
from services.metrics.api.meters import DimensionName
from services.metrics.api.quantities import written
from services.metrics.queries.usage import UsageFilter, Windows
from shared.access import Role
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    FieldError,
    Limit,
    Page,
    Problem,
    Resource,
    decode_cursor,
    page,
    permit,
)
from shared.postgres import Connection, Pool
from shared.text import Identifier, Instant, Text, TimeZone

_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)


class Usage(Resource):
    """What a tenant has used of a meter in a while."""

    meter: str
    unit: str
    since: datetime = Field(
        alias="from", description="When the hour, the day or the month begins in the time zone; written in UTC."
    )
    quantity: str = Field(
        description="In the unit of the meter; a decimal number. What the meter makes of the while, not of each hour: "
        "the greatest value of the month, how many different ones it had."
    )
    group: str | None = Field(
        description="The value of the dimension of `groupBy`, empty where an event or a correction has none. Null "
        "without `groupBy`."
    )

    @classmethod
    def of(cls, row: asyncpg.Record, *, is_grouped: bool) -> Self:
        """Make it from a row of `queries.usage.usage`."""
        return cls(
            meter=row["meter"],
            unit=row["unit"],
            since=row["since"],
            quantity=written(row["quantity"]),
            group=row["dimension"] if is_grouped else None,
        )


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
        window: Annotated[Literal["hour", "day", "month"], Query(description="What is added up.")] = "hour",
        time_zone: Annotated[
            TimeZone | None, Query(alias="timeZone", description="In whose days and months; the tenant's if left out.")
        ] = None,
        dimension: Annotated[
            DimensionName | None,
            Query(alias="groupBy", description="By which dimension it is told apart, of the meters that have it."),
        ] = None,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> Page[Usage]:
        """List what a tenant has used, by time and meter; where nothing was used there is no item."""
        wanted = UsageFilter(asker.narrowed(tenant_id), meter, since, until, dimension)
        async with pool.acquire() as connection:
            await _check_dimension(connection, wanted)
            rows = await queries.usage.usage(
                connection,
                wanted,
                windows=Windows(window, time_zone or await _time_zone_of(connection, wanted.tenant_id)),
                after=_after(cursor, is_grouped=dimension is not None),
                limit=limit + 1,
            )
        return page(
            rows,
            limit=limit,
            item=lambda row: Usage.of(row, is_grouped=dimension is not None),
            key=lambda row: (row["since"], row["meter"], row["dimension"])[: 2 if dimension is None else 3],
        )

    return router


async def _check_dimension(connection: Connection, wanted: UsageFilter) -> None:
    if wanted.dimension is None or wanted.meter is None:
        return
    meter = await queries.meters.meter(connection, wanted.meter)
    if meter is not None and wanted.dimension not in meter["dimensions"]:
        detail = (
            f"`groupBy` must be a dimension of the meter {wanted.meter}: {', '.join(meter['dimensions']) or 'none'}."
        )
        raise Problem(422, code="unknown_dimension", detail=detail, errors=[FieldError("query/groupBy", detail)])


async def _time_zone_of(connection: Connection, tenant_id: str) -> str:
    return await queries.tenants.time_zone(connection, tenant_id) or "UTC"


def _after(cursor: str | None, *, is_grouped: bool) -> tuple[datetime, str, str] | None:
    if is_grouped:
        after = decode_cursor(cursor, datetime, str, str)
        return (after[0], after[1], after[2]) if after else None
    after = decode_cursor(cursor, datetime, str)
    return (after[0], after[1], "") if after else None
