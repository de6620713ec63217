"""HTTP of users: operators see all, a tenant's administrators its members, and everybody sees and names itself."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query, Response
from pydantic import Field

from services.identity.changes import Changes
from services.identity.queries import people as queries
from shared.access import Principal, Role
from shared.audit import changed
from shared.contracts.base import INSTALLATION
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
    require_match,
)
from shared.postgres import Connection, Pool
from shared.text import Identifier, Name

PATHS = ("/v1/users",)

ME = "me"
"""What stands for one's own identity in a path."""

_NOBODY = UUID(int=0)
"""An identity that is nobody's and comes before all others."""

_CONNECTION_SECONDS = 5.0
_LISTED = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN, Role.TENANT_USER)
_EVERYBODY = permit(*Role)

TenantFilter = Annotated[Identifier | None, Query(alias="tenantId", description="Only those of this tenant.")]


class Membership(Resource):
    """What a user may do in one tenant."""

    tenant_id: str
    role: Role
    blocked: bool = Field(description="Whether nobody can sign in to the tenant at present.")


class User(Resource):
    """A person, with every tenant it belongs to; a tenant's administrators see no tenant but their own."""

    user_id: str
    email: str
    name: str | None = Field(description="What the person wants to be called.")
    operator_role: Role | None = Field(description="What it may do in all tenants; null for who is no operator.")
    memberships: list[Membership]
    created_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of ``user_profile`` or ``member_profile``."""
        return cls(
            user_id=str(row["user_id"]),
            email=row["email"],
            name=row["name"],
            operator_role=row["operator_role"],
            memberships=row["memberships"],
            created_at=row["created_at"],
        )


class UserDetails(RequestBody):
    """What a user changes of itself; what is left out stays as it is."""

    name: Name | None = Field(default=None, description="`null` for none.")


def routes(pool: Pool, changes: Changes) -> APIRouter:
    """Return the routes of users."""
    router = APIRouter(tags=["users"])

    @router.get("/v1/users", dependencies=[_LISTED])
    async def list_users(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantFilter = None
    ) -> Page[User]:
        """List the users that one may see, in the order of their creation."""
        (after,) = decode_cursor(cursor, UUID) or (_NOBODY,)
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            rows = await _visible(connection, asker, tenant_id, after=after, limit=limit + 1)
        return page(rows, limit=limit, item=User.of, key=lambda row: (row["user_id"],))

    @router.get("/v1/users/{user_id}", dependencies=[_EVERYBODY])
    async def get_user(user_id: Identifier, asker: Asker, response: Response) -> User:
        """Return one user; `me` is oneself. Its ETag is what a PATCH has to name."""
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            row = await _seen(connection, asker, user_id)
        response.headers["ETag"] = etag(row["version"])
        return User.of(row)

    @router.patch("/v1/users/{user_id}", dependencies=[_EVERYBODY])
    async def change_user(
        user_id: Identifier, details: UserDetails, asker: Asker, if_match: IfMatch, response: Response
    ) -> User:
        """Change what a user says of itself; nobody does that for somebody else."""
        async with changes.transaction() as change:
            found = await _seen(change.connection, asker, user_id)
            if found["user_id"] != own_id(asker):
                raise Problem(403, code="forbidden", detail="A user is changed by itself alone.")
            await _change(change.connection, found["user_id"], details, if_match)
            row = await _seen(change.connection, asker, user_id)
            before, after = changed({"name": found["name"]}, {"name": row["name"]}, untold={"name"})
            if before or after:
                place, subject = asker.tenant_id or INSTALLATION, f"user:{row['user_id']}"
                change.decided(asker, "user.changed", subject, tenant_id=place, before=before, after=after)
        response.headers["ETag"] = etag(row["version"])
        return User.of(row)

    return router


async def _visible(
    connection: Connection, asker: Principal, tenant_id: str | None, *, after: UUID, limit: int
) -> list[asyncpg.Record]:
    if asker.tenant_id is None:
        if tenant_id is None:
            return await queries.users(connection, after=after, limit=limit)
        return await queries.users_of_tenant(connection, tenant_id, after=after, limit=limit)
    if tenant_id is not None and not asker.reaches(tenant_id):
        return []
    if asker.acts_as is Role.TENANT_ADMIN:
        return await queries.members(connection, asker.tenant_id, after=after, limit=limit)
    own = own_id(asker)
    row = await queries.user(connection, own) if own > after else None
    return [] if row is None else [row]


async def _seen(connection: Connection, asker: Principal, user_id: str) -> asyncpg.Record:
    """Return a user as somebody sees it: itself with all it is, others only as far as they may be known.

    Raises:
        Problem: 404, whether there is no such user or it is none of the asker's business.
    """
    wanted = own_id(asker) if user_id == ME else identity(user_id)
    row = None
    if asker.role is Role.SYSTEM_ADMIN or wanted == own_id(asker):
        row = await queries.user(connection, wanted)
    elif asker.acts_as is Role.TENANT_ADMIN and asker.tenant_id is not None:
        row = await queries.member(connection, asker.tenant_id, wanted)
    if row is None:
        raise Problem(404, code="unknown_user", detail=f"There is no user {user_id}.")
    return row


async def _change(connection: Connection, user_id: UUID, details: UserDetails, if_match: str | None) -> None:
    locked = await queries.lock_user(connection, user_id)
    if locked is None:
        raise Problem(404, code="unknown_user", detail=f"There is no user {user_id}.")
    require_match(if_match, locked["version"])
    if "name" in details.model_fields_set:
        await queries.rename(connection, user_id, details.name)


def own_id(asker: Principal) -> UUID:
    """Return who asks; a program is nobody."""
    return _NOBODY if asker.user_id is None else identity(asker.user_id)


def identity(text: str) -> UUID:
    """Return the identity that a client names; what is no UUID is nobody's identity."""
    try:
        return UUID(text)
    except ValueError:
        return _NOBODY
