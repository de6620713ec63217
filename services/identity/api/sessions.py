"""Sessions over HTTP: seen and ended by whose they are, and by administrators."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query, Response
from pydantic import Field

from services.identity.api.users import TenantFilter, identity
from services.identity.changes import Changes
from services.identity.queries import sessions as queries
from services.identity.sessions import end_sessions
from shared.access import Principal, Role
from shared.clock import Clock
from shared.contracts.base import INSTALLATION
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    Limit,
    Page,
    Problem,
    Resource,
    decode_cursor,
    page,
    permit,
)
from shared.postgres import Pool
from shared.text import Identifier

_NOBODY = UUID(int=0)

UserFilter = Annotated[Identifier | None, Query(alias="userId", description="Only those of this user.")]


class Session(Resource):
    """A sign-in that lasts."""

    session_id: str
    user_id: str
    email: str
    tenant_id: str | None = Field(description="Null for operators.")
    client_id: str
    address: str | None = Field(description="Of the network where it began.")
    agent: str | None
    reason: str | None = Field(description="Why an operator acts in the tenant.")
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime
    is_current: bool

    @classmethod
    def of(cls, row: asyncpg.Record, *, current: str | None) -> Self:
        """Make it from a row of `queries.page`."""
        tenant_id = None if row["tenant_id"] == INSTALLATION else row["tenant_id"]
        shown: dict[str, Any] = {name: row[name] for name in cls.model_fields if name in row.keys()}  # noqa: SIM118
        session_id = str(row["session_id"])
        return cls(
            **shown
            | {"session_id": session_id, "user_id": str(row["user_id"]), "tenant_id": tenant_id}
            | {"is_current": session_id == current}
        )


def routes(pool: Pool, *, changes: Changes, clock: Clock) -> APIRouter:
    """Return the routes about sessions."""
    router = APIRouter(tags=["sessions"])

    @router.get("/v1/sessions", dependencies=[permit(*Role)])
    async def list_sessions(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantFilter = None,
        user_id: UserFilter = None,
    ) -> Page[Session]:  # fmt: skip
        """List sessions in the order of their beginning: one's own, for administrators all that they administer."""
        (after,) = decode_cursor(cursor, UUID) or (_NOBODY,)
        sight = _sight(asker, tenant_id=tenant_id, user_id=user_id)
        async with pool.acquire(timeout=5.0) as connection:
            rows = await queries.page(connection, **sight, after=after, limit=limit + 1) if sight else []
        return page(
            rows,
            limit=limit,
            item=lambda row: Session.of(row, current=asker.session_id),
            key=lambda row: (row["session_id"],),
        )

    @router.delete("/v1/sessions/{session_id}", status_code=204, dependencies=[permit(*Role)])
    async def end_session(session_id: Identifier, asker: Asker) -> Response:
        """End a session: its refresh token is void at once, its access token within moments."""
        async with changes.transaction() as change:
            row = await queries.one(change.connection, identity(session_id))
            if row is None or not _may_see(asker, row):
                raise Problem(404, code="unknown_session", detail=f"There is no session {session_id}.")
            await end_sessions(change, [row["session_id"]], now=clock.now(), by=asker)
        return Response(status_code=204)

    return router


def _sight(asker: Principal, *, tenant_id: str | None, user_id: str | None) -> dict[str, Any] | None:
    """Return of whom and where somebody sees sessions; None where there is nothing to see."""
    user = None if user_id is None else identity(user_id)
    if asker.role is Role.SYSTEM_ADMIN:
        return {"tenant_id": tenant_id, "user_id": user}
    if asker.acts_as is Role.TENANT_ADMIN:
        is_there = asker.tenant_id is not None and (tenant_id is None or asker.reaches(tenant_id))
        return {"tenant_id": asker.tenant_id, "user_id": user} if is_there else None
    own = None if asker.user_id is None else identity(asker.user_id)
    if own is None or (user is not None and user != own):
        return None
    return {"tenant_id": tenant_id, "user_id": own}


def _may_see(asker: Principal, row: asyncpg.Record) -> bool:
    if asker.user_id == str(row["user_id"]) or asker.role is Role.SYSTEM_ADMIN:
        return True
    return asker.acts_as is Role.TENANT_ADMIN and asker.tenant_id == row["tenant_id"]
