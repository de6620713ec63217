"""Tenants over HTTP, and the routing facts of a tenant."""

import functools
from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any, Self

import asyncpg
from fastapi import APIRouter, Query, Response
from pydantic import Field

from services.tenant.lifecycle import State
from services.tenant.queries import tenants as queries
from shared.access import Principal, Role
from shared.audit import changed
from shared.changes import Change, Changes
from shared.clock import Clock
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    IfMatch,
    Limit,
    Page,
    Problem,
    RequestBody,
    Resource,
    decode_cursor,
    etag,
    page,
    permit,
    problems,
    require_match,
)
from shared.postgres import Connection, Pool
from shared.text import EmailAddress, Identifier, Name, Paragraph, PhoneNumber, Slug, Tags, Text

_OPERATORS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT)
_READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)
_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)
_ALL_ROLES = permit(*Role)

_PERSONAL = frozenset({"tenantEmail", "tenantPhone", "tenantAddress"})
"""Fields of which the audit trail, which outlives the tenant, is only told that they were changed."""


class TakenProduct(Resource):
    """A product at the version that a tenant has taken."""

    name: str
    version: str


class Tenant(Resource):
    """A tenant as operators see it."""

    tenant_id: str
    tenant_name: str
    tenant_tier: str
    state: State
    is_active: bool
    dedicated_tenancy: bool = Field(description="Whether nothing that it runs on is shared with other tenants.")
    tenant_email: str | None = Field(description="Null when the tenant is archived, like everything of a person.")
    tenant_phone: str | None
    tenant_address: str | None
    api_gateway_url: str
    products: list[TakenProduct]
    expiration: date | None
    tags: dict[str, str]
    attributes: dict[str, str]
    created_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record, *, gateway_url: str) -> Self:
        """Make it from a row of `queries.tenant`."""
        return cls(
            tenant_id=row["tenant_id"],
            tenant_name=row["customer_name"],
            tenant_tier=row["tier"],
            state=row["state"],
            is_active=row["state"] == State.ACTIVE,
            dedicated_tenancy=row["isolation"] == "silo",
            tenant_email=row["email"],
            tenant_phone=row["phone"],
            tenant_address=row["address"],
            api_gateway_url=gateway_url,
            products=row["products"],
            expiration=row["expiration"],
            tags=row["tags"],
            attributes=row["attributes"],
            created_at=row["created_at"],
        )


class TenantDetails(RequestBody):
    """The fields of a tenant that no lifecycle owns; those left out stay as they are, ``null`` clears one.

    Tier, state, products and expiration change through workflows, because other services have a part in them.
    """

    # A factory keeps the field from being required without making null, or a made-up default, part of the schema.
    tenant_email: EmailAddress = Field(default_factory=str)
    tenant_phone: PhoneNumber | None = None
    tenant_address: Paragraph | None = None
    tags: Tags = Field(default_factory=dict, description="Replaced as a whole.")
    attributes: Tags = Field(default_factory=dict, description="Replaced as a whole.")

    def changes(self) -> dict[str, object]:
        """Return what was given, by the names of the columns."""
        given = self.model_dump(exclude_unset=True)
        return {name.removeprefix("tenant_"): value for name, value in given.items()}


class DeletionCertificate(Resource):
    """What was deleted of a tenant when it was archived.

    The digest is of the certificate as JSON with sorted keys, without whitespace, in UTF-8 (RFC 8785).
    """

    certificate: dict[str, Any] = Field(
        description="`tenantId`, `customerName`, `tier`, `workflowId`, `reason`, `createdAt`, `archivedAt`, "
        "`deletions` (a list of `service`, `deleted` and `isConfirmed`), `exportId`, `exportSha256` and `invoiceId`."
    )
    sha256: str = Field(description="Hexadecimal.")


class TenantConfig(Resource):
    """What an application needs to send a tenant's users to the right place."""

    tenant_id: str
    tenant_name: str
    state: State
    is_active: bool
    dedicated_tenancy: bool
    api_gateway_url: str


def routes(pool: Pool, *, changes: Changes, clock: Clock, gateway_url: str) -> APIRouter:
    """Return the routes about tenants.

    Args:
        gateway_url: where the application of every pooled tenant answers.
    """
    router = APIRouter()
    tenant_of = functools.partial(Tenant.of, gateway_url=gateway_url)
    router.include_router(_tenant_routes(pool, changes, tenant_of, clock))
    router.include_router(_config_routes(pool, tenant_of))
    return router


def _tenant_routes(
    pool: Pool, changes: Changes, tenant_of: Callable[[asyncpg.Record], Tenant], clock: Clock
) -> APIRouter:
    router = APIRouter(tags=["tenants"])

    @router.get("/v1/tenants", dependencies=[_OPERATORS])
    async def list_tenants(
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        q: Annotated[Text | None, Query(description="A part of the name, compared as names are.")] = None,
        state: State | None = None,
        tier: Slug | None = None,
    ) -> Page[Tenant]:
        """List tenants in the order of their creation."""
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire() as connection:
            rows = await queries.tenants(connection, after=after, limit=limit + 1, text=q, state=state, tier=tier)
        return page(rows, limit=limit, item=tenant_of, key=lambda row: (row["tenant_id"],))

    @router.get("/v1/tenants/{tenant_id}", dependencies=[_READERS])
    async def get_tenant(tenant_id: Identifier, asker: Asker, response: Response) -> Tenant:
        """Return one tenant; its ETag is what a PATCH has to name."""
        async with pool.acquire() as connection:
            row = await queries.tenant(connection, asker.narrowed(tenant_id))
        if row is None:
            raise _unknown_tenant(tenant_id)
        response.headers["ETag"] = etag(row["version"])
        return tenant_of(row)

    @router.patch("/v1/tenants/{tenant_id}", dependencies=[_ADMINISTRATORS], responses=problems(409))
    async def change_tenant(
        tenant_id: Identifier, details: TenantDetails, asker: Asker, if_match: IfMatch, response: Response
    ) -> Tenant:
        """Change the details of a tenant that no lifecycle owns."""
        async with changes.transaction() as change:
            await _check_changeable(change.connection, tenant_id, if_match, asker)
            row = await _change_details(change, tenant_id, details, asker, now=clock.now())
        response.headers["ETag"] = etag(row["version"])
        return tenant_of(row)

    @router.get("/v1/tenants/{tenant_id}/certificate", dependencies=[_OPERATORS])
    async def get_certificate(tenant_id: Identifier) -> DeletionCertificate:
        """Return the certificate of what was deleted of an archived tenant."""
        async with pool.acquire() as connection:
            row = await queries.certificate(connection, tenant_id)
        if row is None:
            raise _unknown_tenant(tenant_id)
        if row["content"] is None:
            raise Problem(404, code="no_certificate", detail=f"Nothing is certified of tenant {tenant_id}.")
        return DeletionCertificate(certificate=row["content"], sha256=row["sha256"])

    return router


async def _change_details(
    change: Change, tenant_id: str, details: TenantDetails, asker: Principal, *, now: datetime
) -> asyncpg.Record:
    """Change a tenant that is locked, tell the audit trail what is different, and return it as it is then."""
    found = await queries.tenant(change.connection, tenant_id)
    if wanted := details.changes():
        await queries.change_details(change.connection, tenant_id, wanted, now=now)
    row = await queries.tenant(change.connection, tenant_id)
    assert found is not None
    assert row is not None
    before, after = changed(_details_of(found), _details_of(row), untold=_PERSONAL)
    if before or after:
        change.decided(
            asker, "tenant.details_changed", f"tenant:{tenant_id}", tenant_id=tenant_id, before=before, after=after
        )
    return row


def _details_of(row: asyncpg.Record) -> dict[str, Any]:
    """Return what a PATCH can change, as it is named there."""
    return {
        "tenantEmail": row["email"],
        "tenantPhone": row["phone"],
        "tenantAddress": row["address"],
        "tags": row["tags"],
        "attributes": row["attributes"],
    }


async def _check_changeable(connection: Connection, tenant_id: str, if_match: str | None, asker: Principal) -> None:
    locked = await queries.lock_tenant(connection, asker.narrowed(tenant_id))
    if locked is None:
        raise _unknown_tenant(tenant_id)
    require_match(if_match, locked["version"])
    if locked["state"] == State.ARCHIVED:
        raise Problem(409, code="wrong_state", detail=f"Tenant {tenant_id} is archived, which is final.")


def _unknown_tenant(tenant_id: str) -> Problem:
    return Problem(404, code="unknown_tenant", detail=f"There is no tenant {tenant_id}.")


def _config_routes(pool: Pool, tenant_of: Callable[[asyncpg.Record], Tenant]) -> APIRouter:
    router = APIRouter(tags=["tenants"])

    @router.get("/v1/tenant-config", dependencies=[_ALL_ROLES], responses=problems(404))
    async def get_tenant_config(tenant_name: Annotated[Name, Query(alias="tenantName")], asker: Asker) -> TenantConfig:
        """Return the routing facts of the tenant that holds a customer's name."""
        async with pool.acquire() as connection:
            row = await queries.tenant_named(connection, tenant_name, within=asker.tenant_id)
        if row is None:
            raise Problem(404, code="unknown_tenant", detail=f"There is no tenant named {tenant_name!r}.")
        return TenantConfig(**tenant_of(row).model_dump(include=set(TenantConfig.model_fields)))

    return router
