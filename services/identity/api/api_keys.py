"""HTTP of API keys: operators make them for any tenant and for themselves, a tenant's administrators for their own."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Self

import asyncpg
from fastapi import APIRouter, Query, Response
from pydantic import Field, StringConstraints, model_validator

from services.identity.keys import ApiKeys, Issued, Order, visible
from services.identity.queries import keys as queries
from shared.access import EVERYTHING, Role
from shared.clock import Clock
from shared.contracts.base import INSTALLATION
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
from shared.text import Identifier, Instant, Text

_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)
_ADMINISTRATORS_AND_SUPPORT = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)

_BEGINNING = (datetime.fromtimestamp(0, UTC), "")
"""A position before every key."""

_LONGEST_OVERLAP = timedelta(days=7)

# Twenty of these, with spaces between, are short enough for the `scope` of an access token.
Scope = Annotated[str, StringConstraints(strict=True, pattern=r"^([a-z-]{1,40}:)?(read|write)$")]


class ApiKeyOrder(RequestBody):
    """A key that is wanted."""

    name: Annotated[Text, Field(max_length=100)] = Field(description="What it is for, for those who read the list.")
    tenant_id: Identifier | None = Field(
        default=None,
        description="Whose key it is; that of who asks when left out, and an operator's where there is none.",
    )
    role: Role | None = Field(
        default=None,
        description="`TenantAdmin` or `TenantUser`, which is the default; for operators `SystemAdmin` or "
        "`CustomerSupport`, which is theirs.",
    )
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=20)] = Field(
        default_factory=lambda: sorted(EVERYTHING),
        description="What it may be used for: `read`, `write`, or one of them for a resource, as in `usage:write`.",
    )
    expires_at: Instant | None = Field(default=None, description="When it ends by itself.")
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=3650)] | None = Field(
        default=None, description="The same, in days from now."
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.expires_at is not None and self.expires_in_days is not None:
            raise ValueError("must not have both `expiresAt` and `expiresInDays`")
        return self

    def order(self, *, now: datetime) -> Order:
        """Return what is wanted, as it is meant ``now``."""
        lifetime = timedelta(days=self.expires_in_days) if self.expires_in_days is not None else None
        return Order(
            name=self.name,
            tenant_id=self.tenant_id,
            role=self.role,
            scopes=frozenset(self.scopes),
            expires_at=self.expires_at if lifetime is None else now + lifetime,
        )


class Rotation(RequestBody):
    """How a key gets its new secret."""

    overlap_seconds: Annotated[int, Field(strict=True, ge=0, le=int(_LONGEST_OVERLAP.total_seconds()))] = Field(
        default=int(timedelta(days=1).total_seconds()), description="How long the secret before stays good."
    )


class ApiKey(Resource):
    """A key, without what proves it."""

    key_id: str
    tenant_id: str | None = Field(description="Null for an operator's key.")
    name: str
    role: Role
    scopes: list[str]
    status: Literal["active", "expired", "revoked"]
    created_by: str = Field(description="Who made it: `user:<id>`, `key:<id>` or `system-administrator`.")
    created_at: datetime
    expires_at: datetime | None
    overlap_until: datetime | None = Field(
        description="Until when the secret before the last rotation is good as well."
    )
    last_used_at: datetime | None = Field(description="Told by all services; a use shows within about a minute.")
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: asyncpg.Record, *, now: datetime) -> Self:
        """Make it from a row, as it is ``now``."""
        return cls(**_shown(row, now=now))


class IssuedApiKey(ApiKey):
    """A key with what proves it, which is shown this once."""

    key: str = Field(description="Send it as `Authorization: Bearer <key>`. It cannot be shown again.")

    @classmethod
    def of_issued(cls, issued: Issued, *, now: datetime) -> Self:
        """Make it from what was issued ``now``."""
        return cls(**_shown(issued.row, now=now), key=issued.text)


def routes(pool: Pool, keys: ApiKeys, *, clock: Clock) -> APIRouter:
    """Return the routes of API keys."""
    router = APIRouter(tags=["api keys"])
    router.include_router(_reading_routes(pool, clock))
    router.include_router(_changing_routes(keys, clock))
    return router


def _reading_routes(pool: Pool, clock: Clock) -> APIRouter:
    router = APIRouter(dependencies=[_ADMINISTRATORS_AND_SUPPORT])

    @router.get("/v1/api-keys")
    async def list_api_keys(
        asker: Asker,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        tenant_id: Annotated[
            Identifier | None, Query(alias="tenantId", description="Only those of this tenant.")
        ] = None,
    ) -> Page[ApiKey]:
        """List API keys in the order of their creation, those included that were revoked or have expired."""
        after = decode_cursor(cursor, datetime, str) or _BEGINNING
        rows = await _listed(pool, asker, tenant_id, after=(after[0], after[1]), limit=limit + 1)
        now = clock.now()
        return page(
            rows,
            limit=limit,
            item=lambda row: ApiKey.of(row, now=now),
            key=lambda row: (row["created_at"], row["key_id"]),
        )

    @router.get("/v1/api-keys/{key_id}")
    async def get_api_key(key_id: Identifier, asker: Asker) -> ApiKey:
        """Return one API key; what proves it is not kept and cannot be shown."""
        async with pool.acquire() as connection:
            row = visible(await queries.key(connection, key_id), key_id, asker)
        return ApiKey.of(row, now=clock.now())

    return router


def _changing_routes(keys: ApiKeys, clock: Clock) -> APIRouter:
    router = APIRouter(dependencies=[_ADMINISTRATORS])

    @router.post("/v1/api-keys", status_code=201, responses=problems(404, 409))
    async def create_api_key(order: ApiKeyOrder, asker: Asker, response: Response) -> IssuedApiKey:
        """Make an API key; the answer shows it this once.

        Neither its role nor its scopes go beyond those of who makes it. A tenant has at most 100 that are good.
        """
        issued = await keys.issue(asker, order.order(now=clock.now()))
        response.headers["Location"] = f"/v1/api-keys/{issued.row['key_id']}"
        return _once(issued, response, now=clock.now())

    @router.post("/v1/api-keys/{key_id}/rotate", responses=problems(409))
    async def rotate_api_key(
        key_id: Identifier, asker: Asker, response: Response, rotation: Rotation | None = None
    ) -> IssuedApiKey:
        """Give an API key a new secret, which the answer shows this once; id, name, scopes and expiry stay.

        The secret before stays good for `overlapSeconds`. At most two are good at a time: an even older one ends now.
        """
        overlap = timedelta(seconds=(rotation or Rotation()).overlap_seconds)
        issued = await keys.rotate(asker, key_id, overlap=overlap)
        return _once(issued, response, now=clock.now())

    @router.delete("/v1/api-keys/{key_id}", status_code=204)
    async def revoke_api_key(key_id: Identifier, asker: Asker) -> None:
        """Revoke an API key, for good; it stays in the list. Doing so again changes nothing."""
        await keys.revoke(asker, key_id)

    return router


def _once(issued: Issued, response: Response, *, now: datetime) -> IssuedApiKey:
    response.headers["Cache-Control"] = "no-store"
    return IssuedApiKey.of_issued(issued, now=now)


async def _listed(
    pool: Pool, asker: Asker, tenant_id: str | None, *, after: queries.Position, limit: int
) -> list[asyncpg.Record]:
    """Return the next keys that somebody can see; another tenant's are not there."""
    if tenant_id is not None and (tenant_id == INSTALLATION or not asker.reaches(tenant_id)):
        return []
    only = tenant_id or asker.tenant_id
    async with pool.acquire() as connection:
        if only is None:
            return await queries.keys(connection, after=after, limit=limit)
        return await queries.keys_of_tenant(connection, only, after=after, limit=limit)


def _shown(row: asyncpg.Record, *, now: datetime) -> dict[str, object]:
    return {
        "key_id": row["key_id"],
        "tenant_id": None if row["tenant_id"] == INSTALLATION else row["tenant_id"],
        "name": row["name"],
        "role": row["role"],
        "scopes": row["scopes"],
        "status": _status(row, now=now),
        "created_by": row["created_by"],
        "created_at": row["created_at"],
        "expires_at": row["expires_at"],
        "overlap_until": _overlap_end(row, now=now),
        "last_used_at": row["last_used_at"],
        "revoked_at": row["revoked_at"],
    }


def _status(row: asyncpg.Record, *, now: datetime) -> str:
    if row["revoked_at"] is not None:
        return "revoked"
    return "expired" if row["expires_at"] is not None and row["expires_at"] <= now else "active"


def _overlap_end(row: asyncpg.Record, *, now: datetime) -> datetime | None:
    """Return until when the older of two secrets is good, if it still is."""
    ends = [datetime.fromisoformat(secret["expiresAt"]) for secret in row["secrets"][1:]]
    return next((end for end in ends if now < end), None)
