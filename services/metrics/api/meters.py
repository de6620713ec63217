"""The catalog of meters over HTTP."""

from typing import Self

import asyncpg
from fastapi import APIRouter
from pydantic import Field

from services.metrics import queries
from services.metrics.api.enforcement import Enforcement
from shared.access import Role
from shared.http import DEFAULT_LIMIT, Cursor, Limit, Page, Resource, decode_cursor, page, permit
from shared.postgres import Pool

_READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)


class Meter(Resource):
    """Something that can be metered."""

    name: str
    unit: str = Field(description="What one of it is.")
    enforcement: Enforcement

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.meters.page`."""
        return cls(**row)


def routes(pool: Pool) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["meters"])

    @router.get("/v1/meters", dependencies=[_READERS])
    async def list_meters(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Meter]:
        """List what can be metered, by name."""
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire() as connection:
            rows = await queries.meters.page(connection, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=Meter.of, key=lambda row: (row["name"],))

    return router
