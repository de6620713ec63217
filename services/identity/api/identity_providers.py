"""Tenants' own identity providers over HTTP: named by the tenant's administrators, whose domains by an operator."""

from datetime import datetime
from typing import Annotated, Literal, Self

import asyncpg
from fastapi import APIRouter, Response
from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from services.identity.providers.realms import Realms
from services.identity.queries import providers as queries
from services.identity.registering import Admits, OidcOrder, PoolKind, Registering, unknown_provider
from shared.access import Role
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    Limit,
    Page,
    RequestBody,
    Resource,
    decode_cursor,
    page,
    permit,
    problems,
)
from shared.postgres import Pool
from shared.text import Identifier

_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def _domain(value: str) -> str:
    try:
        return value.strip().rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        raise ValueError("must be a domain name") from None


Domain = Annotated[
    str,
    StringConstraints(strict=True, max_length=253),
    AfterValidator(_domain),
    StringConstraints(pattern=rf"^({_LABEL}\.)+{_LABEL}$", max_length=253),
]


class OidcDetails(RequestBody):
    """An OpenID provider of the tenant's own."""

    kind: Literal["oidc"]
    issuer: Annotated[
        str, StringConstraints(strict=True, min_length=8, max_length=500, pattern=r"^https?://[!-~]+$")
    ] = Field(description="As the provider writes it, such as `https://login.example.com/realms/staff`.")
    client_id: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200, pattern=r"^[ -~]+$")]
    client_secret: Annotated[SecretStr, Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="Needed at first; left out later, it stays as it is. It is never shown."
    )
    is_required: bool = Field(default=False, description="Whether nobody gets in with a password of ours.")
    admits: Admits = Field(
        default="members", description="`everyone` whom it recognises becomes a `TenantUser`; or only who is a member."
    )


class CognitoDetails(RequestBody):
    """Amazon Cognito, where the installation has it; only a `SystemAdmin` says so."""

    kind: Literal["cognito"]
    pool: PoolKind = Field(description="`own` for a pool of the tenant's own, or the one that tenants share.")


class DomainDetails(RequestBody):
    """The domains of a tenant."""

    domains: Annotated[list[Domain], Field(max_length=50)]


class IdentityProvider(Resource):
    """Where the people of a tenant prove who they are."""

    tenant_id: str
    kind: Literal["oidc", "cognito"]
    is_required: bool
    admits: Admits
    issuer: str | None
    client_id: str | None
    redirect_uri: str | None = Field(description="What to register at the provider; null for Cognito.")
    pool: PoolKind | None
    pool_id: str | None = Field(description="Of the tenant's own pool; null until it is made.")
    domains: list[str] = Field(description="Whose addresses the provider may vouch for; an operator says so.")
    changed_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record, realms: Realms) -> Self:
        """Make it from a row of `queries.one`."""
        is_oidc = row["kind"] == "oidc"
        return cls(
            tenant_id=row["tenant_id"],
            kind=row["kind"],
            is_required=row["is_required"],
            admits=row["admits"],
            issuer=row["issuer"],
            client_id=row["client_id"],
            redirect_uri=realms.redirect_uri_of(row["tenant_id"]) if is_oidc else None,
            pool=row["pool"],
            pool_id=row["pool_id"],
            domains=row["domains"],
            changed_at=row["changed_at"],
        )


def routes(pool: Pool, realms: Realms, registering: Registering) -> APIRouter:
    """Return the routes of tenants' own identity providers."""
    router = APIRouter(tags=["identity providers"])
    router.include_router(_reading_routes(pool, realms))
    router.include_router(_changing_routes(realms, registering))
    return router


def _reading_routes(pool: Pool, realms: Realms) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/identity-providers", dependencies=[permit(Role.SYSTEM_ADMIN)])
    async def list_identity_providers(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[IdentityProvider]:
        """List the tenants that have one of their own, by tenant."""
        (after,) = decode_cursor(cursor, str) or ("",)
        async with pool.acquire(timeout=5.0) as connection:
            rows = await queries.page(connection, after=after, limit=limit + 1)
        return page(
            rows,
            limit=limit,
            item=lambda row: IdentityProvider.of(row, realms),
            key=lambda row: (row["tenant_id"],),
        )

    @router.get("/v1/identity-providers/{tenant_id}", dependencies=[_ADMINISTRATORS])
    async def get_identity_provider(tenant_id: Identifier, asker: Asker) -> IdentityProvider:
        """Return a tenant's own; most have none, and their people have passwords here."""
        async with pool.acquire(timeout=5.0) as connection:
            row = await queries.one(connection, tenant_id) if asker.reaches(tenant_id) else None
        if row is None:
            raise unknown_provider(tenant_id)
        return IdentityProvider.of(row, realms)

    return router


def _changing_routes(realms: Realms, registering: Registering) -> APIRouter:
    router = APIRouter()

    @router.put("/v1/identity-providers/{tenant_id}", dependencies=[_ADMINISTRATORS], responses=problems(404, 409))
    async def put_identity_provider(
        tenant_id: Identifier,
        body: Annotated[OidcDetails | CognitoDetails, Field(discriminator="kind")],
        asker: Asker,
    ) -> IdentityProvider:
        """Let a tenant's people sign in at a provider of its own, which is asked first whether it is one.

        With another issuer or client than before, everybody who has come from there signs in again.
        """
        if isinstance(body, CognitoDetails):
            row = await registering.put_cognito(tenant_id, body.pool, asker)
        else:
            row = await registering.put_oidc(tenant_id, _order_of(body), asker)
        return IdentityProvider.of(row, realms)

    @router.delete(
        "/v1/identity-providers/{tenant_id}",
        status_code=204,
        dependencies=[_ADMINISTRATORS],
        responses=problems(404, 409),
    )
    async def delete_identity_provider(tenant_id: Identifier, asker: Asker) -> Response:
        """Let a tenant's people sign in with passwords here again; sessions that the provider has opened end."""
        await registering.delete(tenant_id, asker)
        return Response(status_code=204)

    @router.put(
        "/v1/identity-providers/{tenant_id}/domains",
        dependencies=[permit(Role.SYSTEM_ADMIN)],
        responses=problems(404, 409),
    )
    async def set_domains(tenant_id: Identifier, body: DomainDetails, asker: Asker) -> IdentityProvider:
        """Say for whose addresses a tenant's own provider may speak. See that they are the tenant's before."""
        row = await registering.set_domains(tenant_id, list(dict.fromkeys(body.domains)), asker)
        return IdentityProvider.of(row, realms)

    return router


def _order_of(body: OidcDetails) -> OidcOrder:
    return OidcOrder(
        issuer=body.issuer,
        client_id=body.client_id,
        client_secret=None if body.client_secret is None else body.client_secret.get_secret_value(),
        is_required=body.is_required,
        admits=body.admits,
    )
