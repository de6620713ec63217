"""Signing in at a tenant's own provider: on the way there, and on the way back."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import StringConstraints

from services.identity.admitting import domain_of
from services.identity.api.authorization import (
    EITHER,
    PAGE,
    AuthorizationRequest,
    Porch,
    check_own_form,
    sent_back,
    visit_of,
)
from services.identity.api.fields import Fields, Tenant, Word
from services.identity.federation import WAY, Federation
from services.identity.queries import providers
from shared.http import Problem, everybody, problems
from shared.postgres import Pool

_COOKIE = "tenure_elsewhere"
_AWAY: dict[int | str, dict[str, Any]] = {
    303: {"description": "On to the organisation's identity provider."},
    400: {"description": "The page again, or a problem: it cannot be sent there.", "content": EITHER},
    **problems(403),
    404: {"description": "The page again: no organisation has such addresses.", "content": PAGE},
    503: {"description": "The page again, or a problem: the provider does not answer.", "content": EITHER},
}
_RETURN: dict[int | str, dict[str, Any]] = {
    303: {"description": "Back to the application, with a code or with why there is none."},
    **problems(400, 403, 404, 503),
}


class OrganisationSignIn(AuthorizationRequest):
    """What an application has sent somebody here with, and its address, unless the application has named the tenant."""

    email: Annotated[str, StringConstraints(max_length=254)] = ""
    form_token: Word = ""


class Brought(Fields):
    """What a provider sends somebody back with (RFC 6749, 4.1.2)."""

    state: Word = ""
    code: Word | None = None
    error: Word | None = None


class Crossing:
    """Sends people to their tenants' providers, and takes back whom those send."""

    def __init__(self, pool: Pool, porch: Porch, federation: Federation) -> None:
        self._pool = pool
        self._porch = porch
        self._federation = federation

    async def send(self, tenant_id: str, asked: AuthorizationRequest, *, email: str | None) -> Response:
        """Send somebody to a tenant's provider; its browser keeps what we have to know when it is back."""
        departure = await self._federation.depart(tenant_id, asked.fields(), email=email)
        answer = _redirect(departure.url)
        seconds = int(WAY.total_seconds())
        self._porch.give_cookie(answer, _COOKIE, departure.sealed, path=_path(tenant_id), seconds=seconds)
        return answer

    async def organisation(self, asked: OrganisationSignIn) -> str:
        """Return the tenant whose provider somebody means: the one that it wants to get into, or its address's.

        Raises:
            Problem: 404 where no tenant vouches for such addresses.
        """
        if asked.tenant_id is not None:
            return asked.tenant_id
        async with self._pool.acquire(timeout=5.0) as connection:
            tenant_id = await providers.of_domain(connection, domain_of(asked.email))
        if tenant_id is None:
            detail = "No organisation has a sign-in of its own for this e-mail address."
            raise Problem(404, code="unknown_organisation", detail=detail)
        return tenant_id

    async def take_back(self, tenant_id: str, brought: Brought, request: Request) -> Response:
        """Send somebody who is back on to the application."""
        sealed = request.cookies.get(_COOKIE, "")
        home = await self._federation.come_back(tenant_id, sealed, brought.model_dump(exclude_none=True))
        asked = AuthorizationRequest.model_validate(home.asked)
        await self._porch.client(asked)  # It may have been taken off the list meanwhile.
        if home.known is None:
            refusal = {"error": "access_denied", "error_description": home.detail}
            answer = sent_back(asked, refusal, self._porch.issuer)
        else:
            answer = await self._porch.send_back(home.known, asked, visit_of(request, asked))
        answer.delete_cookie(_COOKIE, path=_path(tenant_id))
        return answer


def routes(porch: Porch, crossing: Crossing) -> APIRouter:
    """Return the routes on the way to a provider and back; whoever comes shows there who it is."""
    router = APIRouter(tags=["sign-in"], dependencies=[everybody()])

    @router.post("/oauth/authorize/organisation", response_class=RedirectResponse, status_code=303, responses=_AWAY)
    async def leave(asked: Annotated[OrganisationSignIn, Form()], request: Request) -> Response:
        """Send somebody to the identity provider of its organisation."""
        client = await porch.client(asked)
        check_own_form(asked.form_token, request)
        try:
            return await crossing.send(await crossing.organisation(asked), asked, email=asked.email or None)
        except Problem as problem:
            again = {"email": asked.email, "complaint": problem.detail, "status": problem.status}
            return await porch.page(client, asked, asked.form_token, **again, headers=problem.headers)

    @router.get("/oauth/callback/{tenant_id}", response_class=RedirectResponse, status_code=303, responses=_RETURN)
    async def come_back(tenant_id: Tenant, brought: Annotated[Brought, Query()], request: Request) -> Response:
        """Take somebody back whom a tenant's identity provider sends."""
        return await crossing.take_back(tenant_id, brought, request)

    return router


def _path(tenant_id: str) -> str:
    return f"/oauth/callback/{tenant_id}"


def _redirect(url: str) -> RedirectResponse:
    answer = RedirectResponse(url, status_code=303)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer
