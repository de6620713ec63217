"""HTTP of invitations: made by whoever administers a tenant or the installation, accepted by whoever has the token."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query, Response
from pydantic import Field, StringConstraints
from starlette.responses import HTMLResponse

from services.identity import invitations
from services.identity.acceptance_page import acceptance_page
from services.identity.api.users import identity
from services.identity.invitations import Status, Token, status_of
from services.identity.inviting import Inviting, order_of, unknown_invitation
from services.identity.queries import invitations as queries
from shared.access import Role
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
    everybody,
    page,
    permit,
    problems,
)
from shared.postgres import Pool
from shared.text import EmailAddress, Identifier

PATHS = ("/v1/invitations", "/invitations")

_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)
_BEGINNING = UUID(int=0)
_CONNECTION_SECONDS = 5.0

TenantFilter = Annotated[Identifier | None, Query(alias="tenantId", description="Only those into this tenant.")]


class Invitation(Resource):
    """A member's first way in; nothing here tells its token."""

    invitation_id: str
    tenant_id: str | None = Field(description="Null for an operator's.")
    email: str
    role: Role
    status: Status = Field(description="`expired` has neither been accepted in time nor been renewed.")
    delivery: invitations.Delivery = Field(
        description="`sent` when the mail server has taken it; `failed` when it was given up, until it is sent again."
    )
    invited_by: str | None = Field(
        description="`user:<id>`, `key:<id>` or `system-administrator`; null for a workflow."
    )
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record, *, now: datetime) -> Self:
        """Make it from a row of ``invitation_profile``, as it is ``now``."""
        return cls(
            invitation_id=str(row["invitation_id"]),
            tenant_id=None if row["tenant_id"] == INSTALLATION else row["tenant_id"],
            email=row["email"],
            role=row["role"],
            status=status_of(accepted_at=row["accepted_at"], expires_at=row["expires_at"], now=now),
            delivery=row["delivery_now"],
            invited_by=row["invited_by"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
        )


class InvitationOrder(RequestBody):
    """Somebody who is wanted."""

    email: EmailAddress
    role: Role = Field(description="`TenantAdmin` or `TenantUser`; for operators `SystemAdmin` or `CustomerSupport`.")
    tenant_id: Identifier | None = Field(
        default=None,
        description="Where to; one's own tenant when left out, and among the operators where there is none.",
    )


class Acceptance(RequestBody):
    """What the person who was invited sends."""

    token: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)] = Field(
        description="What follows `#token=` in the mail's link."
    )
    password: Annotated[str, StringConstraints(strict=True, max_length=1000)] | None = Field(
        default=None, description="12 to 200 characters; for those who have none yet, and for nobody else."
    )


def routes(pool: Pool, inviting: Inviting, *, clock: Clock) -> APIRouter:
    """Return the routes of invitations."""
    router = APIRouter(tags=["invitations"])
    router.include_router(_accepting_routes(inviting, clock))
    router.include_router(_reading_routes(pool, clock))
    router.include_router(_changing_routes(inviting, clock))
    return router


def _reading_routes(pool: Pool, clock: Clock) -> APIRouter:
    router = APIRouter(dependencies=[_ADMINISTRATORS])

    @router.get("/v1/invitations")
    async def list_invitations(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantFilter = None
    ) -> Page[Invitation]:
        """List invitations in the order of their creation."""
        (after,) = decode_cursor(cursor, UUID) or (_BEGINNING,)
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            rows = await queries.invitations(
                connection, tenant_id=asker.narrowed(tenant_id), after=after, limit=limit + 1
            )
        now = clock.now()
        return page(
            rows,
            limit=limit,
            item=lambda row: Invitation.of(row, now=now),
            key=lambda row: (row["invitation_id"],),
        )

    @router.get("/v1/invitations/{invitation_id}")
    async def get_invitation(invitation_id: Identifier, asker: Asker) -> Invitation:
        """Return one invitation."""
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            row = await queries.invitation(connection, identity(invitation_id), tenant_id=asker.tenant_id)
        if row is None:
            raise unknown_invitation(invitation_id)
        return Invitation.of(row, now=clock.now())

    return router


def _changing_routes(inviting: Inviting, clock: Clock) -> APIRouter:
    router = APIRouter(dependencies=[_ADMINISTRATORS])

    @router.post("/v1/invitations", status_code=201, responses={200: {"model": Invitation}, **problems(404, 409)})
    async def invite(body: InvitationOrder, asker: Asker, response: Response) -> Invitation:
        """Invite somebody by mail. Asking again changes nothing (200), except that an expired invitation is renewed."""
        row, is_new = await inviting.invite(order_of(body.email, body.role, body.tenant_id, asker), asker)
        if not is_new:
            response.status_code = 200
        response.headers["Location"] = f"/v1/invitations/{row['invitation_id']}"
        return Invitation.of(row, now=clock.now())

    @router.post("/v1/invitations/{invitation_id}/resend", status_code=202, responses=problems(409))
    async def resend_invitation(invitation_id: Identifier, asker: Asker) -> Invitation:
        """Send another mail, within a minute. The links of earlier ones are worthless, and the time begins anew."""
        row = await inviting.resend(identity(invitation_id), asker)
        return Invitation.of(row, now=clock.now())

    @router.delete("/v1/invitations/{invitation_id}", status_code=204, responses=problems(409))
    async def withdraw_invitation(invitation_id: Identifier, asker: Asker) -> Response:
        """Withdraw an invitation. Whoever has not accepted it is no member any more."""
        await inviting.withdraw(identity(invitation_id), asker)
        return Response(status_code=204)

    return router


def _accepting_routes(inviting: Inviting, clock: Clock) -> APIRouter:
    router = APIRouter(dependencies=[everybody()])

    @router.post("/v1/invitations/accept", responses=problems(404, 409))
    async def accept_invitation(body: Acceptance, response: Response) -> Invitation:
        """Accept an invitation. The token is all it takes; it works once."""
        row = await inviting.accept(Token(body.token), body.password)
        response.headers["Cache-Control"] = "no-store"
        return Invitation.of(row, now=clock.now())

    @router.get("/invitations/accept", response_class=HTMLResponse)
    async def show_acceptance() -> HTMLResponse:
        """Show the page that the link in the mail opens; the token is in the fragment, which no server sees."""
        return acceptance_page()

    return router
