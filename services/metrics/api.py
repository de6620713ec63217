"""All HTTP of the metrics service: what can be metered, and how much of it a tenant may use."""

from typing import Annotated, Literal, Self

import asyncpg
from fastapi import APIRouter, Depends, Query
from pydantic import Field

from services.metrics import queries
from shared.http import DEFAULT_LIMIT, Cursor, Limit, Page, Resource, administrator, decode_cursor, page
from shared.postgres import Pool
from shared.text import Identifier

PATHS = ("/v1/meters", "/v1/quotas")

Enforcement = Annotated[
    Literal["soft", "hard"], Field(description="Of usage beyond a limit: `soft` accepts and reports it, `hard` denies.")
]


class Meter(Resource):
    """Something that can be metered."""

    name: str
    unit: str = Field(description="What one of it is.")
    enforcement: Enforcement

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.meters`."""
        return cls(**row)


class Quota(Resource):
    """How much of a meter a tenant may use in a calendar month."""

    meter: str
    limit: int = Field(description="In the unit of the meter.")
    unit: str
    enforcement: Enforcement

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.quotas_of_tenant`."""
        return cls(meter=row["meter"], limit=row["limit_value"], unit=row["unit"], enforcement=row["enforcement"])


def routes(pool: Pool) -> APIRouter:
    """Return every route of the service, for administrators."""
    router = APIRouter(dependencies=[Depends(administrator)])
    router.include_router(_meter_routes(pool))
    router.include_router(_quota_routes(pool))
    return router


def _meter_routes(pool: Pool) -> APIRouter:
    router = APIRouter(tags=["meters"])

    @router.get("/v1/meters")
    async def list_meters(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Meter]:
        """List what can be metered, by name."""
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire() as connection:
            rows = await queries.meters(connection, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=Meter.of, key=lambda row: (row["name"],))

    return router


def _quota_routes(pool: Pool) -> APIRouter:
    router = APIRouter(tags=["quotas"])

    @router.get("/v1/quotas")
    async def list_quotas(
        tenant_id: Annotated[Identifier, Query(alias="tenantId")],
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> Page[Quota]:
        """List a tenant's quotas by meter; of a meter without one it may use as much as it likes."""
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire() as connection:
            rows = await queries.quotas_of_tenant(connection, tenant_id, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=Quota.of, key=lambda row: (row["meter"],))

    return router
