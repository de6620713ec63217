"""Deployments: which version of which product runs where."""

from typing import Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter
from pydantic import Field

from services.provisioning.api.support import READERS, TenantId
from services.provisioning.queries import environments
from shared.http import DEFAULT_LIMIT, Asker, Cursor, Limit, Page, Resource, decode_cursor, page
from shared.postgres import Pool


class Deployment(Resource):
    """A product that a tenant has, at the version that runs."""

    tenant_id: str
    product: str
    version: str
    environment_id: UUID = Field(description="Where it runs: in the tenant's environment, or in one of its own.")
    own_environment: bool = Field(description="Whether it has an environment of its own.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.environments.deployments`."""
        return cls(**dict(row))


def routes(pool: Pool) -> APIRouter:
    """Return the route that lists deployments."""
    router = APIRouter()

    @router.get("/v1/deployments", dependencies=[READERS])
    async def list_deployments(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None
    ) -> Page[Deployment]:
        """List deployments by environment, in the order of its creation, and product; all or one tenant's."""
        after = decode_cursor(cursor, UUID, str)
        async with pool.acquire() as connection:
            rows = await environments.deployments(
                connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id)
            )
        return page(rows, limit=limit, item=Deployment.of, key=lambda row: (row["environment_id"], row["product"]))

    return router
