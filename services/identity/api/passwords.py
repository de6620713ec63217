"""Passwords over HTTP: changed by whose they are."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import Field, SecretStr

from services.identity.changes import Changes
from services.identity.passwords import LONGEST, check_password, hash_password
from services.identity.queries import passwords as queries
from services.identity.queries import sessions
from services.identity.queries.providers import password_realm_of_session
from services.identity.sessions import revocations
from services.identity.signin import Doorkeeper
from shared.access import Role
from shared.clock import Clock
from shared.contracts.base import INSTALLATION
from shared.http import Asker, FieldError, Problem, RequestBody, permit, problems
from shared.postgres import Pool

_Password = Annotated[SecretStr, Field(max_length=LONGEST)]


class PasswordChange(RequestBody):
    """The password that somebody has, and the one to have from now on."""

    current_password: _Password
    new_password: _Password


def routes(pool: Pool, *, changes: Changes, doorkeeper: Doorkeeper, clock: Clock) -> APIRouter:
    """Return the routes about passwords."""
    router = APIRouter(tags=["users"])

    @router.put("/v1/users/me/password", status_code=204, dependencies=[permit(*Role)], responses=problems(429))
    async def change_password(body: PasswordChange, asker: Asker, request: Request) -> Response:
        """Change one's own password, wherever it is kept; every other session of the user ends."""
        async with pool.acquire(timeout=5.0) as connection:
            user = None if asker.user_id is None else await queries.of_user(connection, UUID(asker.user_id))
            if user is None or asker.session_id is None:
                raise Problem(403, code="not_a_person", detail="Only a person who has signed in has a password.")
            session_id = UUID(asker.session_id)
            realm = await password_realm_of_session(connection, session_id)
        address = request.client.host if request.client else ""
        current = body.current_password.get_secret_value()
        known = await doorkeeper.recognise(user["email"], current, address=address, realm=realm)
        if known is None:
            detail = "This is not the current password."
            raise Problem(422, code="wrong_password", detail=detail, errors=[FieldError("/currentPassword", detail)])
        password = body.new_password.get_secret_value()
        check_password(password, email=user["email"], pointer="/newPassword")
        hashed = None if realm else await hash_password(password)
        if hashed is None:
            await doorkeeper.give(known, password)
        async with changes.transaction() as change:
            if hashed is not None:
                await queries.put(change.connection, user["user_id"], hashed, now=clock.now())
            ended = await sessions.end_of_user(change.connection, user["user_id"], but=session_id)
            change.tell(*revocations(ended, now=clock.now()))
            place, after = asker.tenant_id or INSTALLATION, {"endedSessions": len(ended)}
            change.decided(asker, "password.changed", f"user:{asker.user_id}", tenant_id=place, after=after)
        return Response(status_code=204)

    return router
