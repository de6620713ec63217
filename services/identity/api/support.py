"""Support over HTTP: an operator acts in a tenant as its administrator, for a reason and a while."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field

from services.identity.changes import Changes
from services.identity.queries import sessions as queries
from services.identity.sessions import Sessions, Visit, subject_of
from shared.access import Role
from shared.contracts.base import INSTALLATION
from shared.http import Asker, Problem, RequestBody, Resource, permit, problems
from shared.text import Identifier, Text


class SupportRequest(RequestBody):
    """In which tenant an operator will act, why, and for how long."""

    tenant_id: Identifier
    reason: Text
    minutes: Annotated[int, Field(strict=True, ge=1, le=60)] = 30


class SupportSession(Resource):
    """An access token for one tenant; it cannot be prolonged."""

    session_id: str
    access_token: str
    expires_in: int = Field(description="Seconds.")


def routes(*, changes: Changes, sessions: Sessions) -> APIRouter:
    """Return the route by which support begins."""
    router = APIRouter(tags=["sessions"])

    @router.post(
        "/v1/support-sessions",
        status_code=201,
        dependencies=[permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT)],
        responses=problems(404),
    )
    async def begin_support(body: SupportRequest, asker: Asker, request: Request) -> SupportSession:
        """Let an operator act in a tenant as its administrator, for a reason that everybody concerned can see."""
        if asker.user_id is None:
            raise Problem(403, code="not_a_person", detail="Support is given by a person who has signed in.")
        visit = Visit("support", request.client.host if request.client else None)
        async with changes.transaction() as change:
            epoch = await queries.tenant_epoch(change.connection, body.tenant_id)
            if epoch is None or body.tenant_id == INSTALLATION:
                raise Problem(404, code="unknown_tenant", detail=f"There is no tenant {body.tenant_id}.")
            tokens = await sessions.support(
                change.connection,
                UUID(asker.user_id),
                visit,
                tenant_id=body.tenant_id,
                epoch=epoch,
                reason=body.reason,
                lasting=timedelta(minutes=body.minutes),
            )
            change.decided(
                asker,
                "support.begun",
                subject_of(tokens.session_id),
                tenant_id=body.tenant_id,
                after={"minutes": body.minutes},
                reason=body.reason,
            )
        return SupportSession(
            session_id=str(tokens.session_id), access_token=tokens.access, expires_in=tokens.expires_in
        )

    return router
