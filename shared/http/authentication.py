"""Who is asking. Every route declares one of the dependencies here; `create_api` refuses a route that does not."""

import hashlib
import hmac
from typing import Annotated, NamedTuple

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from shared.http.problems import Problem

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="An API key.")


class Principal(NamedTuple):
    """Somebody whose identity is proven.

    Attributes:
        id: opaque and stable; what idempotency keys and the audit trail are scoped to.
        role: what it may do.
    """

    id: str
    role: str


ADMINISTRATOR = Principal(id="system-administrator", role="system_administrator")


def digest(key: str) -> bytes:
    """Hash an API key for comparing and keeping; keys are long and random, so one round suffices."""
    return hashlib.sha256(key.encode()).digest()


async def administrator(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Let the system administrator pass, by the API key that the installation was started with.

    Raises:
        Problem: 401 when there is no key or another one.
    """
    if credentials is None:
        raise _unauthenticated("Send the API key as `Authorization: Bearer <key>`.", 'Bearer realm="tenure"')
    if not hmac.compare_digest(digest(credentials.credentials), request.app.state.admin_key_digest):
        raise _unauthenticated("The API key is not known.", 'Bearer realm="tenure", error="invalid_token"')
    return ADMINISTRATOR


async def anybody() -> None:
    """Let everybody pass: the explicit mark of a public route."""


Administrator = Annotated[Principal, Depends(administrator)]
"""A route's parameter for the administrator who asks."""

PRINCIPALS = frozenset({administrator, anybody})
"""The dependencies that declare who may use a route."""


def _unauthenticated(detail: str, challenge: str) -> Problem:
    return Problem(401, code="unauthenticated", detail=detail, headers={"WWW-Authenticate": challenge})
