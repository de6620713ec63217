"""Signing in for an application: the page, what it sends, and the way back with a code (RFC 6749, 4.1)."""

import hmac
import secrets
from typing import Annotated, Any, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg
from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field, StringConstraints

from services.identity.api.fields import Challenge, Fields, Scope, Secret, Tenant, Word
from services.identity.clients import is_registered
from services.identity.oauth import SCOPE, CodeRequest, GrantError, Grants
from services.identity.queries import clients
from services.identity.sessions import Visit
from services.identity.signin import Doorkeeper, Known
from services.identity.signin_page import signin_page
from shared.http import PROBLEM_CONTENT, Problem, everybody, problems
from shared.postgres import Pool

_PAGE: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
_SIGN_IN: dict[int | str, dict[str, Any]] = {
    303: {"description": "Back to the application, with a code or with why there is none."},
    401: {"description": "The page again: address or password is not right.", "content": _PAGE},
    **problems(403),
    429: {"description": "The page again: there were too many attempts.", "content": _PAGE},
    503: {"description": "The page again, or a problem: there is too much to do.", "content": _PAGE | PROBLEM_CONTENT},
}
_COOKIE = "tenure_signin"
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
        self._issuer = issuer
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

    def page(self, client: asyncpg.Record, asked: AuthorizationRequest, token: str, **more: Any) -> HTMLResponse:
        """Return the page, with a form that only this browser can send back."""
        own = set(AuthorizationRequest.model_fields) - {"login_hint"}
        fields = asked.model_dump(include=own, exclude_none=True)
        answer = signin_page(client["name"], {**fields, "form_token": token}, **more)
        answer.set_cookie(
            _COOKIE,
            token,
            max_age=_COOKIE_SECONDS,
            path="/oauth/authorize",
            secure=self._issuer.startswith("https"),
            httponly=True,
            samesite="lax",
        )
        return answer

    async def recognised(self, client: asyncpg.Record, asked: SignIn, address: str) -> Known | HTMLResponse:
        """Return who has signed in, or the page again that says what is wrong."""
        complaint, status, headers = "E-mail address or password is not right.", 401, {}
        try:
            known = await self._doorkeeper.recognise(asked.email, asked.password, address=address)
        except Problem as problem:
            known, complaint, status, headers = None, problem.detail, problem.status, problem.headers
        if known is not None:
            return known
        return self.page(
            client, asked, asked.form_token, email=asked.email, complaint=complaint, status=status, headers=headers
        )

    async def send_back(self, known: Known, asked: SignIn, visit: Visit) -> Response:
        """Send somebody back to the application, with a code or with why there is none."""
        wanted = CodeRequest(
            visit=visit,
            redirect_uri=asked.redirect_uri,
            code_challenge=asked.code_challenge,
            scope=asked.scope or SCOPE,
            nonce=asked.nonce,
            tenant_id=asked.tenant_id,
        )
        try:
            outcome = {"code": await self._grants.issue_code(known.user_id, wanted)}
        except GrantError as error:
            outcome = {"error": "access_denied", "error_description": error.detail}
        return _sent_back(asked, outcome, self._issuer)


def routes(porch: Porch) -> APIRouter:
    """Return the routes of the page; whoever comes shows there who it is."""
    router = APIRouter(tags=["sign-in"], dependencies=[everybody()])

    @router.get("/oauth/authorize", response_class=HTMLResponse)
    async def show_sign_in(asked: Annotated[AuthorizationRequest, Query()]) -> HTMLResponse:
        """Show the page on which somebody signs in for an application."""
        client = await porch.client(asked)
        return porch.page(client, asked, secrets.token_urlsafe(32), email=asked.login_hint or "")

    @router.post("/oauth/authorize", response_class=RedirectResponse, status_code=303, responses=_SIGN_IN)
    async def sign_in(asked: Annotated[SignIn, Form()], request: Request) -> Response:
        """Take address and password, and send whoever they are of back to the application with a code."""
        client = await porch.client(asked)
        _check_own_form(asked, request)
        address = request.client.host if request.client else ""
        outcome = await porch.recognised(client, asked, address)
        if isinstance(outcome, Response):
            return outcome
        agent = (request.headers.get("user-agent") or "")[:_LONGEST_AGENT] or None
        return await porch.send_back(outcome, asked, Visit(asked.client_id, address, agent))

    return router


def _check_own_form(asked: SignIn, request: Request) -> None:
    """Refuse a form that another page sends: nobody is signed in as somebody else without noticing."""
    cookie = request.cookies.get(_COOKIE, "")
    if not cookie or not hmac.compare_digest(cookie.encode(), asked.form_token.encode()):
        detail = "The form is not from this page, or too old. Go back and try again."
        raise Problem(403, code="foreign_form", detail=detail)


def _sent_back(asked: AuthorizationRequest, outcome: dict[str, str], issuer: str) -> Response:
    """Send somebody back with what came of it, and with who says so (RFC 9207)."""
    parts = urlsplit(asked.redirect_uri)
    state = {} if asked.state is None else {"state": asked.state}
    query = "&".join(filter(None, [parts.query, urlencode({**outcome, **state, "iss": issuer})]))
    answer = RedirectResponse(urlunsplit(parts._replace(query=query)), status_code=303)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.delete_cookie(_COOKIE, path="/oauth/authorize")
    return answer
