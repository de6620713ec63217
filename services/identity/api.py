"""All HTTP of the identity service: users and the invitations that bring them in."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Depends, Query
from pydantic import Field

from services.identity import queries
from services.identity.invitations import Status, status_of
from shared.clock import Clock
from shared.http import DEFAULT_LIMIT, Cursor, Limit, Page, Problem, Resource, administrator, decode_cursor, page
from shared.postgres import Pool
from shared.text import Identifier

PATHS = ("/v1/users", "/v1/invitations")

Role = Literal["SystemAdmin", "CustomerSupport", "TenantAdmin", "TenantUser"]
TenantFilter = Annotated[Identifier | None, Query(alias="tenantId", description="Only those of this tenant.")]

_NOBODY = UUID(int=0)
"""An identity that is nobody's and comes before all others."""


class Membership(Resource):
    """What a user may do in one tenant."""

    tenant_id: str
    role: Role
    blocked: bool = Field(description="Whether nobody can sign in to the tenant at present.")


class User(Resource):
    """A person, with every tenant it belongs to."""

    user_id: str
    email: str
    memberships: list[Membership]
    created_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of ``user_profile``."""
        return cls(
            user_id=str(row["user_id"]),
            email=row["email"],
            memberships=row["memberships"],
            created_at=row["created_at"],
        )


class Invitation(Resource):
    """A member's first way in; nothing here tells its token."""

    invitation_id: str
    tenant_id: str
    email: str
    role: Role
    status: Status = Field(description="`expired` has neither been accepted in time nor been renewed.")
    delivery: Literal["pending", "sent"] = Field(description="`sent` when the mail server has taken it.")
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record, *, now: datetime) -> Self:
        """Make it from a row of ``invitation_profile``, as it is ``now``."""
        return cls(
            invitation_id=str(row["invitation_id"]),
            tenant_id=row["tenant_id"],
            email=row["email"],
            role=row["role"],
            status=status_of(accepted_at=row["accepted_at"], expires_at=row["expires_at"], now=now),
            delivery=row["delivery"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
        )


def routes(pool: Pool, *, clock: Clock) -> APIRouter:
    """Return every route of the service, for administrators."""
    router = APIRouter(dependencies=[Depends(administrator)])
    router.include_router(_user_routes(pool))
    router.include_router(_invitation_routes(pool, clock))
    return router


def _user_routes(pool: Pool) -> APIRouter:
    router = APIRouter(tags=["users"])

    @router.get("/v1/users")
    async def list_users(
        limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantFilter = None
    ) -> Page[User]:
        """List users in the order of their creation."""
        (after,) = decode_cursor(cursor, UUID) or (_NOBODY,)
        async with pool.acquire() as connection:
            rows = await (
                queries.users(connection, after=after, limit=limit + 1)
                if tenant_id is None
                else queries.users_of_tenant(connection, tenant_id, after=after, limit=limit + 1)
            )
        return page(rows, limit=limit, item=User.of, key=lambda row: (row["user_id"],))

    @router.get("/v1/users/{user_id}")
    async def get_user(user_id: Identifier) -> User:
        """Return one user."""
        async with pool.acquire() as connection:
            row = await queries.user(connection, _uuid(user_id))
        if row is None:
            raise Problem(404, code="unknown_user", detail=f"There is no user {user_id}.")
        return User.of(row)

    return router


def _invitation_routes(pool: Pool, clock: Clock) -> APIRouter:
    router = APIRouter(tags=["invitations"])

    @router.get("/v1/invitations")
    async def list_invitations(
        limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantFilter = None
    ) -> Page[Invitation]:
        """List invitations in the order of their creation."""
        (after,) = decode_cursor(cursor, UUID) or (_NOBODY,)
        async with pool.acquire() as connection:
            rows = await (
                queries.invitations(connection, after=after, limit=limit + 1)
                if tenant_id is None
                else queries.invitations_of_tenant(connection, tenant_id, after=after, limit=limit + 1)
            )
        now = clock.now()
        return page(
            rows,
            limit=limit,
            item=lambda row: Invitation.of(row, now=now),
            key=lambda row: (row["invitation_id"],),
        )

    return router


def _uuid(identifier: str) -> UUID:
    """Return the identity that a client names; what is no UUID is nobody's identity."""
    try:
        return UUID(identifier)
    except ValueError:
        return _NOBODY
