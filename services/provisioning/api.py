"""All HTTP of the provisioning service: environments, and the short-lived credentials to use them."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from services.provisioning import queries
from services.provisioning.drivers import Login, NoEnvironmentError, PoolDriver
from shared.http import (
    DEFAULT_LIMIT,
    Cursor,
    Limit,
    Page,
    Problem,
    RequestBody,
    Resource,
    administrator,
    decode_cursor,
    page,
)
from shared.postgres import Pool
from shared.text import Identifier

PATHS = ("/v1/environments", "/v1/credentials")


class DeployedProduct(Resource):
    """A product at the version that runs in an environment."""

    name: str
    version: str


class Environment(Resource):
    """Where a tenant's application runs."""

    environment_id: UUID
    tenant_id: str
    isolation: Literal["pool"]
    region: str
    status: Literal["ready"]
    products: list[DeployedProduct]
    created_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.environments`."""
        return cls(
            environment_id=row["environment_id"],
            tenant_id=row["tenant_id"],
            isolation=row["isolation"],
            region=row["region"],
            status=row["state"],
            products=row["products"],
            created_at=row["created_at"],
        )


class CredentialsRequest(RequestBody):
    """Whose environment the credentials are for."""

    tenant_id: Identifier


class Credentials(Resource):
    """A login to the database of a tenant's environment that sees the rows of this tenant alone."""

    driver: str = Field(description="What kind of server it is for.")
    url: str = Field(description="All that follows, as one connection string.")
    host: str
    port: int
    database: str
    username: str
    password: str = Field(description="Shown this once; kept by nobody.")
    expires_at: datetime = Field(description="Nothing can be read or written with it from then on.")

    @classmethod
    def of(cls, login: Login) -> Self:
        """Make it from what a driver issued."""
        return cls(
            driver=login.driver,
            url=login.url,
            host=login.host,
            port=login.port,
            database=login.database,
            username=login.username,
            password=login.password,
            expires_at=login.expires_at,
        )


def routes(pool: Pool, *, driver: PoolDriver) -> APIRouter:
    """Return every route of the service, for administrators."""
    router = APIRouter(tags=["provisioning"], dependencies=[Depends(administrator)])

    @router.get("/v1/environments")
    async def list_environments(
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        tenant_id: Annotated[Identifier | None, Query(alias="tenantId")] = None,
    ) -> Page[Environment]:
        """List environments in the order of their creation, all or one tenant's."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await queries.environments(connection, after=after, limit=limit + 1, tenant_id=tenant_id)
        return page(rows, limit=limit, item=Environment.of, key=lambda row: (row["environment_id"],))

    @router.post("/v1/credentials", status_code=201)
    async def issue_credentials(body: CredentialsRequest, response: Response) -> Credentials:
        """Issue a new login to a tenant's environment, valid for fifteen minutes."""
        async with pool.acquire() as connection:
            known = await queries.has_environment(connection, body.tenant_id)
        if not known:
            raise _no_environment(body.tenant_id)
        try:
            login = await driver.issue_login(body.tenant_id)
        except NoEnvironmentError:
            raise _no_environment(body.tenant_id) from None  # removed at this very moment
        response.headers["Cache-Control"] = "no-store"
        return Credentials.of(login)

    return router


def _no_environment(tenant_id: str) -> Problem:
    return Problem(404, code="unknown_environment", detail=f"There is no environment of tenant {tenant_id}.")
