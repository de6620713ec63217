"""The token endpoint: grants in, tokens out (RFC 6749, RFC 7009)."""

import base64
import binascii
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal
from urllib.parse import unquote_plus

import asyncpg
from fastapi import APIRouter, Form, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from joserfc import jwt
from pydantic import BaseModel, Field

from services.identity.api.fields import Fields, Scope, Secret, Tenant, Verifier, Word
from services.identity.oauth import GrantError, Grants
from services.identity.queries import passwords
from services.identity.sessions import Tokens
from services.identity.signing import SigningKeys
from shared.access.tokens import ALGORITHM, epoch_seconds
from shared.clock import Clock
from shared.http import everybody, problems
from shared.http.problems import problem_of
from shared.postgres import Pool

GRANTS = ("authorization_code", "refresh_token", "client_credentials")


class TokenRequest(Fields):
    """A grant and what proves it (RFC 6749, 4.1.3, 4.4.2 and 6)."""

    grant_type: Word
    client_id: Word | None = None
    client_secret: Secret | None = None
    code: Word | None = None
    redirect_uri: Word | None = None
    code_verifier: Verifier | None = None
    refresh_token: Word | None = None
    scope: Scope | None = None
    tenant_id: Tenant | None = Field(default=None, description="On refresh: the tenant to go on in.")


class RevocationRequest(Fields):
    """A token that is needed no longer (RFC 7009, 2.1)."""

    token: Word
    token_type_hint: Word | None = None
    client_id: Word | None = None


class TokenAnswer(BaseModel):
    """Tokens, named as RFC 6749 (5.1) names them."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind of token, not one
    expires_in: int
    refresh_token: str | None = None
    scope: str
    id_token: str | None = None


def routes(pool: Pool, *, clock: Clock, issuer: str, grants: Grants, keys: SigningKeys) -> APIRouter:
    """Return the routes of tokens; what comes with the request shows who asks."""
    router = APIRouter(tags=["sign-in"], dependencies=[everybody()], route_class=_FormRoute)
    _token(router, grants=grants, id_tokens=_IdTokens(pool, clock=clock, issuer=issuer, keys=keys))
    return router


class _FormRoute(APIRoute):
    """A route that refuses a form which does not fit as RFC 6749 (5.2) has it: with 400 and ``error``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                wrong = problem_of(error)
                refusal = GrantError("invalid_request", wrong.detail).problem
                refusal.errors = wrong.errors
                raise refusal from error

        return handled


class _IdTokens:
    """Tells an application who has signed in (OpenID Connect Core 1.0, section 2)."""

    def __init__(self, pool: Pool, *, clock: Clock, issuer: str, keys: SigningKeys) -> None:
        self._pool = pool
        self._clock = clock
        self._issuer = issuer
        self._keys = keys

    async def for_code(self, code: asyncpg.Record, tokens: Tokens) -> str | None:
        """Return an ID token where the application has asked for one."""
        if "openid" not in code["scope"].split():
            return None
        async with self._pool.acquire(timeout=5.0) as connection:
            user = await passwords.of_user(connection, code["user_id"])
        now = epoch_seconds(self._clock.now())
        claims = {
            "iss": self._issuer,
            "sub": str(code["user_id"]),
            "aud": code["client_id"],
            "iat": now,
            "exp": now + tokens.expires_in,
            "email": user and user["email"],
            "email_verified": True,
            "sid": str(tokens.session_id),
            "nonce": code["nonce"],
        }
        key = await self._keys.active()
        header = {"alg": ALGORITHM, "kid": key.kid}
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(header, given, key, algorithms=[ALGORITHM])


def _token(router: APIRouter, *, grants: Grants, id_tokens: _IdTokens) -> None:
    @router.post("/oauth/token", response_model=TokenAnswer, responses=problems(401))
    async def get_token(
        asked: Annotated[TokenRequest, Form()],
        authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Response:
        """Exchange a grant for tokens: an authorization code, a refresh token, or an API key as client credentials.

        Refresh tokens are good once: one that comes a second time ends its session. On refresh ``tenant_id`` goes on
        in another tenant of the user's. An API key is given as ``client_id``, its id, and ``client_secret``, all of it.
        """
        try:
            return await grant(asked, _basic(authorization))
        except GrantError as error:
            raise error.problem from error

    async def grant(asked: TokenRequest, basic: tuple[str, str] | None) -> Response:
        match asked.grant_type:
            case "authorization_code":
                code, redirect_uri = _given(asked.code, "code"), _given(asked.redirect_uri, "redirect_uri")
                tokens, row = await grants.exchange_code(
                    code,
                    client_id=_given(asked.client_id, "client_id"),
                    redirect_uri=redirect_uri,
                    verifier=_given(asked.code_verifier, "code_verifier"),
                )
                return _tokens(tokens, await id_tokens.for_code(row, tokens))
            case "refresh_token":
                token = _given(asked.refresh_token, "refresh_token")
                return _tokens(await grants.refresh(token, client_id=asked.client_id, tenant_id=asked.tenant_id), None)
            case "client_credentials":
                client_id, secret = basic or (
                    _given(asked.client_id, "client_id"),
                    _given(asked.client_secret, "client_secret"),
                )
                return _tokens(await grants.credentials(client_id, secret, scope=asked.scope), None)
            case _:
                raise GrantError("unsupported_grant_type", f"grant_type is none of {', '.join(GRANTS)}.")

    @router.post("/oauth/revoke", status_code=200, response_class=Response)
    async def revoke_token(asked: Annotated[RevocationRequest, Form()]) -> Response:
        """End the session of a refresh token; one that is not known is no error."""
        await grants.revoke(asked.token)
        return Response(status_code=200, headers={"Cache-Control": "no-store"})


def _tokens(tokens: Tokens, id_token: str | None) -> Response:
    answer = TokenAnswer(
        access_token=tokens.access,
        expires_in=tokens.expires_in,
        refresh_token=tokens.refresh,
        scope=tokens.scope,
        id_token=id_token,
    )
    return JSONResponse(
        answer.model_dump(exclude_none=True), headers={"Cache-Control": "no-store", "Pragma": "no-cache"}
    )


def _given(value: str | None, name: str) -> str:
    if not value:
        raise GrantError("invalid_request", f"{name} is required.")
    return value


def _basic(authorization: str | None) -> tuple[str, str] | None:
    """Read client id and secret from HTTP Basic (RFC 6749, 2.3.1)."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        raise GrantError("invalid_client", "The Authorization header cannot be read.", status=401) from None
    return unquote_plus(client_id), unquote_plus(secret)
