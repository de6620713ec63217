"""All HTTP of the provisioning service: environments, short-lived credentials for them, exports of what is in them."""

from base64 import b64encode
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from services.provisioning import queries
from services.provisioning.drivers import Login, NoEnvironmentError, PoolDriver, ThrottledError
from services.provisioning.exports import read_export
from shared.access import Role
from shared.changes import Changes
from shared.clock import Clock
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    Limit,
    Page,
    Problem,
    RequestBody,
    Resource,
    decode_cursor,
    page,
    permit,
    problems,
)
from shared.postgres import Pool
from shared.text import Identifier

PATHS = ("/v1/environments", "/v1/credentials", "/v1/exports")

_READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)
_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)

GZIP = "application/gzip"
"""The media type of an export (RFC 6713)."""

TenantId = Annotated[Identifier | None, Query(alias="tenantId")]
"""The query parameter that narrows a list to one tenant; give it the default None."""


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
    connections: int | None = Field(description="How many each login may hold; null is the default, 10 in a pool.")
    throttled: bool = Field(description="Nobody can work in it, and no login is issued; all data is kept.")
    throttled_at: datetime | None
    throttle_reason: str | None
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
            connections=row["connections"],
            throttled=row["throttled_at"] is not None,
            throttled_at=row["throttled_at"],
            throttle_reason=row["throttle_reason"],
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


class Export(Resource):
    """Everything that a tenant kept in its environment at one moment: lines of JSON, gzipped."""

    export_id: UUID
    tenant_id: str
    created_at: datetime
    expires_at: datetime = Field(description="It is deleted then.")
    rows: dict[str, int] = Field(description="How many, by table.")
    bytes: int = Field(description="The length of the file.")
    sha256: str = Field(description="Of the file, hexadecimal.")

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.exports`."""
        return cls(**dict(row))


def routes(pool: Pool, *, changes: Changes, driver: PoolDriver, clock: Clock) -> APIRouter:
    """Return every route of the service."""
    router = APIRouter(tags=["provisioning"])
    router.include_router(_environment_routes(pool, changes, driver))
    router.include_router(_export_routes(pool, changes, clock))
    return router


def _environment_routes(pool: Pool, changes: Changes, driver: PoolDriver) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/environments", dependencies=[_READERS])
    async def list_environments(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None
    ) -> Page[Environment]:
        """List environments in the order of their creation, all or one tenant's."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await queries.environments(
                connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id)
            )
        return page(rows, limit=limit, item=Environment.of, key=lambda row: (row["environment_id"],))

    @router.post("/v1/credentials", status_code=201, dependencies=[_ADMINISTRATORS], responses=problems(404, 409))
    async def issue_credentials(body: CredentialsRequest, asker: Asker, response: Response) -> Credentials:
        """Issue a new login to a tenant's environment, valid for fifteen minutes."""
        async with pool.acquire() as connection:
            throttling = await queries.throttling(connection, asker.narrowed(body.tenant_id))
        if throttling is None:
            raise _no_environment(body.tenant_id)
        if throttling["throttled_at"] is not None:
            raise _throttled(body.tenant_id, throttling["throttle_reason"])
        try:
            login = await driver.issue_login(body.tenant_id)
        except NoEnvironmentError:
            raise _no_environment(body.tenant_id) from None  # removed at this very moment
        except ThrottledError:
            raise _throttled(body.tenant_id, None) from None  # throttled at this very moment
        # The login is in another database. Where this fails nobody has its password, and it ends by itself.
        async with changes.transaction() as change:
            change.decided(
                asker,
                "credentials.issued",
                f"login:{login.username}",
                tenant_id=body.tenant_id,
                after={"driver": login.driver, "database": login.database, "expiresAt": login.expires_at},
            )
        response.headers["Cache-Control"] = "no-store"
        return Credentials.of(login)

    return router


def _export_routes(pool: Pool, changes: Changes, clock: Clock) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/exports", dependencies=[_ADMINISTRATORS])
    async def list_exports(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None
    ) -> Page[Export]:
        """List the exports that can be fetched, in the order in which they were made, all or one tenant's."""
        (after,) = decode_cursor(cursor, UUID) or (None,)
        async with pool.acquire() as connection:
            rows = await queries.exports(
                connection, now=clock.now(), after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id)
            )
        return page(rows, limit=limit, item=Export.of, key=lambda row: (row["export_id"],))

    @router.get(
        "/v1/exports/{export_id}",
        dependencies=[_ADMINISTRATORS],
        response_class=StreamingResponse,
        responses={200: {"content": {GZIP: {}}, "description": "The file: gzipped lines of JSON."}},
    )
    async def fetch_export(export_id: UUID, asker: Asker) -> Response:
        """Fetch an export; each line of it is `{"table": …, "row": {…}}`.

        `ETag` and `Repr-Digest` (RFC 9530) are its SHA-256. It is the same however often it is fetched, until it
        expires.
        """
        async with changes.transaction() as change:
            export = await queries.export(change.connection, export_id, now=clock.now(), within=asker.tenant_id)
            if export is None:
                raise Problem(404, code="unknown_export", detail=f"There is no export {export_id}.")
            change.decided(asker, "export.fetched", f"export:{export_id}", tenant_id=export["tenant_id"])
        content = read_export(pool, export_id, length=export["bytes"])
        return StreamingResponse(content, media_type=GZIP, headers=_headers(export))

    return router


def _headers(export: asyncpg.Record) -> dict[str, str]:
    name = f"{export['tenant_id']}-{export['created_at']:%Y%m%dT%H%M%SZ}.ndjson.gz"
    return {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": str(export["bytes"]),
        "ETag": f'"{export["sha256"]}"',
        "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(export['sha256'])).decode()}:",
        "Cache-Control": "no-store",
    }


def _no_environment(tenant_id: str) -> Problem:
    return Problem(404, code="unknown_environment", detail=f"There is no environment of tenant {tenant_id}.")


def _throttled(tenant_id: str, reason: str | None) -> Problem:
    detail = f"The environment of tenant {tenant_id} is throttled" + (f": {reason}" if reason else ".")
    return Problem(409, code="environment_throttled", detail=detail)
