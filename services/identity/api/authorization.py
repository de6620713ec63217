"""Signing in for an application: the page, what it sends, and the way back with a code (RFC 6749, 4.1)."""

import hmac
import secrets
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg
from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field, StringConstraints

from services.identity.api.fields import Challenge, Fields, Scope, Secret, Tenant, Word
from services.identity.clients import is_registered
from services.identity.oauth import SCOPE, CodeRequest, GrantError, Grants
from services.identity.queries import clients, providers
from services.identity.sessions import Visit
from services.identity.signin import Doorkeeper, Known
from services.identity.signin_page import signin_page
from shared.http import PROBLEM_CONTENT, Problem, everybody, problems
from shared.postgres import Pool

PAGE: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
EITHER = PAGE | PROBLEM_CONTENT
_SIGN_IN: dict[int | str, dict[str, Any]] = {
    303: {"description": "Back to the application, with a code or with why there is none."},
    401: {"description": "The page again: address or password is not right.", "content": PAGE},
    **problems(403),
    429: {"description": "The page again: there were too many attempts.", "content": PAGE},
    503: {"description": "The page again, or a problem: there is too much to do.", "content": EITHER},
}
_SHOWN: dict[int | str, dict[str, Any]] = {
    303: {"description": "On to the identity provider of the tenant, which takes nothing else."},
    **problems(503),
}
COOKIE = "tenure_signin"
_COOKIE_SECONDS = 600
_LONGEST_AGENT = 200


class AuthorizationRequest(Fields):
    """What an application sends somebody here with (RFC 6749, 4.1.1)."""

    response_type: Literal["code"]
    client_id: Word
    redirect_uri: Word
    code_challenge: Challenge
    code_challenge_method: Literal["S256"]
    scope: Scope | None = None
    state: Word | None = None
    nonce: Word | None = None
    tenant_id: Tenant | None = Field(default=None, description="Where to get in; the last one when left out.")
    login_hint: Annotated[str, StringConstraints(max_length=254)] | None = None

    def fields(self) -> dict[str, str]:
        """Return what has to be sent along from page to page."""
        own = set(AuthorizationRequest.model_fields) - {"login_hint"}
        return self.model_dump(include=own, exclude_none=True)


class Elsewhere(Protocol):
    """Sends people to their tenants' own providers."""

    async def send(self, tenant_id: str, asked: AuthorizationRequest, *, email: str | None) -> Response:
        """Return the answer that sends somebody there."""
        ...


class SignIn(AuthorizationRequest):
    """The same, with what the form asks for."""

    email: Annotated[str, StringConstraints(min_length=1, max_length=254)]
    password: Secret
    form_token: Word = ""


class Porch:
    """Where people sign in: shows the page, takes what it sends, and leads back to the application.

    Args:
        issuer: the origin.
    """

    def __init__(self, pool: Pool, *, issuer: str, grants: Grants, doorkeeper: Doorkeeper) -> None:
        self._pool = pool
        self.issuer = issuer
        self._grants = grants
        self._doorkeeper = doorkeeper

    async def client(self, asked: AuthorizationRequest) -> asyncpg.Record:
        """Return the application; nobody is ever sent to a place that is not registered.

        Raises:
            Problem: 400 for an application or a place that is not known.
        """
        async with self._pool.acquire(timeout=5.0) as connection:
            client = await clients.one(connection, asked.client_id)
        if client is None:
            raise Problem(400, code="unknown_client", detail="There is no application by this client_id.")
        if not is_registered(asked.redirect_uri, client["redirect_uris"]):
            detail = "The application is not registered with this redirect_uri."
            raise Problem(400, code="unknown_redirect_uri", detail=detail)
        return client

    async def goes_elsewhere(self, asked: AuthorizationRequest) -> bool:
        """Tell whether the people of the tenant that is asked for sign in at its own provider and nowhere else."""
        async with self._pool.acquire(timeout=5.0) as connection:
            row = None if asked.tenant_id is None else await providers.one(connection, asked.tenant_id)
        return row is not None and row["kind"] == "oidc" and row["is_required"]

    async def page(self, client: asyncpg.Record, asked: AuthorizationRequest, token: str, **more: Any) -> HTMLResponse:
        """Return the page, with a form that only this browser can send back."""
        async with self._pool.acquire(timeout=5.0) as connection:
            has_organisations = await providers.is_any(connection)
        hidden = {**asked.fields(), "form_token": token}
        answer = signin_page(client["name"], hidden, has_organisations=has_organisations, **more)
        self.give_cookie(answer, COOKIE, token, path="/oauth/authorize", seconds=_COOKIE_SECONDS)
        return answer

    def give_cookie(self, answer: Response, name: str, value: str, *, path: str, seconds: int) -> None:
        """Have a browser keep something for a while that no page sees."""
        answer.set_cookie(
            name,
            value,
            max_age=seconds,
            path=path,
            secure=self.issuer.startswith("https"),
            httponly=True,
            samesite="lax",
        )

    async def recognised(self, client: asyncpg.Record, asked: SignIn, address: str) -> Known | HTMLResponse:
        """Return who has signed in, or the page again that says what is wrong."""
        complaint, status, headers = "E-mail address or password is not right.", 401, {}
        try:
            known = await self._doorkeeper.recognise(
                asked.email, asked.password, address=address, tenant_id=asked.tenant_id
            )
        except Problem as problem:
            known, complaint, status, headers = None, problem.detail, problem.status, problem.headers
        if known is not None:
            return known
        return await self.page(
            client, asked, asked.form_token, email=asked.email, complaint=complaint, status=status, headers=headers
        )

    async def send_back(self, known: Known, asked: AuthorizationRequest, visit: Visit) -> Response:
        """Send somebody back to the application, with a code or with why there is none."""
        wanted = CodeRequest(
            visit=visit,
            redirect_uri=asked.redirect_uri,
            code_challenge=asked.code_challenge,
            scope=asked.scope or SCOPE,
            nonce=asked.nonce,
            tenant_id=asked.tenant_id,
            realm=known.realm,
        )
        try:
            outcome = {"code": await self._grants.issue_code(known.user_id, wanted)}
        except GrantError as error:
            outcome = {"error": "access_denied", "error_description": error.detail}
        return sent_back(asked, outcome, self.issuer)


def routes(porch: Porch, elsewhere: Elsewhere) -> APIRouter:
    """Return the routes of the page; whoever comes shows there who it is."""
    router = APIRouter(tags=["sign-in"], dependencies=[everybody()])

    @router.get("/oauth/authorize", response_class=HTMLResponse, responses=_SHOWN)
    async def show_sign_in(asked: Annotated[AuthorizationRequest, Query()]) -> Response:
        """Show the page on which somebody signs in for an application, or send it on to the tenant's own provider."""
        client = await porch.client(asked)
        if asked.tenant_id is not None and await porch.goes_elsewhere(asked):
            return await elsewhere.send(asked.tenant_id, asked, email=asked.login_hint)
        return await porch.page(client, asked, secrets.token_urlsafe(32), email=asked.login_hint or "")

    @router.post("/oauth/authorize", response_class=RedirectResponse, status_code=303, responses=_SIGN_IN)
    async def sign_in(asked: Annotated[SignIn, Form()], request: Request) -> Response:
        """Take address and password, and send whoever they are of back to the application with a code."""
        client = await porch.client(asked)
        check_own_form(asked.form_token, request)
        address = request.client.host if request.client else ""
        outcome = await porch.recognised(client, asked, address)
        if isinstance(outcome, Response):
            return outcome
        return await porch.send_back(outcome, asked, visit_of(request, asked))

    return router


def visit_of(request: Request, asked: AuthorizationRequest) -> Visit:
    """Return where somebody comes from."""
    agent = (request.headers.get("user-agent") or "")[:_LONGEST_AGENT] or None
    return Visit(asked.client_id, request.client.host if request.client else "", agent)


def check_own_form(form_token: str, request: Request) -> None:
    """Refuse a form that another page sends: nobody is signed in as somebody else without noticing.

    Raises:
        Problem: 403.
    """
    cookie = request.cookies.get(COOKIE, "")
    if not cookie or not hmac.compare_digest(cookie.encode(), form_token.encode()):
        detail = "The form is not from this page, or too old. Go back and try again."
        raise Problem(403, code="foreign_form", detail=detail)


def sent_back(asked: AuthorizationRequest, outcome: dict[str, str], issuer: str) -> Response:
    """Send somebody back with what came of it, and with who says so (RFC 9207)."""
    parts = urlsplit(asked.redirect_uri)
    state = {} if asked.state is None else {"state": asked.state}
    query = "&".join(filter(None, [parts.query, urlencode({**outcome, **state, "iss": issuer})]))
    answer = RedirectResponse(urlunsplit(parts._replace(query=query)), status_code=303)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.delete_cookie(COOKIE, path="/oauth/authorize")
    return answer
