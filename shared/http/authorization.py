"""Who may use a route: one declared rule each, which `shared.http.create_api` insists on.

A rule says which roles may; the rest follows from the principal: a member, or support that acts in a tenant, sees
nothing but its own tenant, and a route that shows or changes something of another answers as if that were not there.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from shared.access.authenticator import Authenticator, InvalidCredentialError
from shared.access.principal import READ, WRITE, Principal, Role
from shared.http.openapi import Access
from shared.http.problems import Problem

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="An API key or an access token.")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Rule:
    """Lets those pass who have one of the roles, and a scope that covers what the route does.

    Attributes:
        roles: which may.
    """

    roles: frozenset[Role]

    async def __call__(
        self, request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Principal:
        """Return who asks.

        Raises:
            Problem: 401 when nobody is proven, 403 when whoever it is may not.
        """
        principal = await _authenticated(request, credentials)
        if principal.acts_as not in self.roles:
            raise Problem(403, code="forbidden", detail=f"This is not for a {principal.acts_as}.")
        # Not `request.url`, which is put together with what the client sent as `Host`.
        action, resource = action_of(request.method), resource_of(request.scope["path"])
        if not principal.is_granted(action, resource):
            detail = f"This needs the scope {action} or {resource}:{action}."
            raise Problem(403, code="insufficient_scope", detail=detail)
        request.state.principal = principal
        return principal

    def access(self, method: str, path: str) -> Access:
        """Describe what it takes to use an operation."""
        action, resource = action_of(method), resource_of(path)
        return Access(roles=[role for role in Role if role in self.roles], scopes=[action, f"{resource}:{action}"])


@dataclass(frozen=True)
class Everybody:
    """Lets everybody pass: the explicit mark of a public route."""

    async def __call__(self) -> None:
        """Ask for nothing."""


def permit(*roles: Role) -> Any:
    """Declare in a route's ``dependencies`` which roles may use it."""
    return Depends(Rule(frozenset(roles)))


def everybody() -> Any:
    """Declare in a route's ``dependencies`` that it is public."""
    return Depends(Everybody())


def action_of(method: str) -> str:
    """Return the scope's action of an HTTP method."""
    return READ if method in _READING else WRITE


def resource_of(path: str) -> str:
    """Return the scope's resource of a path: what stands after the version, as in ``/v1/invoices/7``."""
    parts = path.split("/")
    return parts[2] if len(parts) > 2 else ""  # noqa: PLR2004 - the first part is empty, the second the version


async def _authenticated(request: Request, credentials: HTTPAuthorizationCredentials | None) -> Principal:
    if credentials is None:
        raise unauthenticated(
            "Send an API key or an access token as `Authorization: Bearer <key>`.", 'Bearer realm="tenure"'
        )
    authenticator: Authenticator = request.app.state.authenticator
    try:
        return await authenticator.principal(credentials.credentials)
    except InvalidCredentialError as error:
        raise unauthenticated(str(error), 'Bearer realm="tenure", error="invalid_token"') from None


async def is_still_known(request: Request) -> bool:
    """Return whether whoever sent a request, and was let in by its rule, would still be; for answers that take long."""
    text = request.headers["authorization"].partition(" ")[2].strip()
    authenticator: Authenticator = request.app.state.authenticator
    try:
        await authenticator.principal(text)
    except InvalidCredentialError:
        return False
    return True


def unauthenticated(detail: str, challenge: str) -> Problem:
    """Return the problem of somebody who has not proven who it is (RFC 6750, section 3)."""
    return Problem(401, code="unauthenticated", detail=detail, headers={"WWW-Authenticate": challenge})


async def _asker(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


Asker = Annotated[Principal, Depends(_asker)]
"""A route's parameter for who asks; its rule, which comes first, has found that out."""
