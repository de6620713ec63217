"""What applications need to know to send people here and to trust tokens: OpenID Connect Discovery and the keys."""

from fastapi import APIRouter, Response
from pydantic import BaseModel

from services.identity.api.token import GRANTS
from services.identity.queries import signing_keys
from shared.access.tokens import ALGORITHM
from shared.clock import Clock
from shared.http import Resource, everybody
from shared.postgres import Pool

_KEYS_SECONDS = 300


class Configuration(BaseModel):
    """Where everything is, as OpenID Connect Discovery 1.0 has it."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    jwks_uri: str
    response_types_supported: list[str] = ["code"]
    response_modes_supported: list[str] = ["query"]
    grant_types_supported: list[str] = list(GRANTS)
    subject_types_supported: list[str] = ["public"]
    id_token_signing_alg_values_supported: list[str] = [ALGORITHM]
    token_endpoint_auth_methods_supported: list[str] = ["none", "client_secret_basic", "client_secret_post"]
    code_challenge_methods_supported: list[str] = ["S256"]
    scopes_supported: list[str] = ["openid", "read", "write"]
    claims_supported: list[str] = ["sub", "email", "email_verified", "tenant_id", "role"]
    authorization_response_iss_parameter_supported: bool = True


class PublicKeys(Resource):
    """The keys that tokens are verified with (RFC 7517)."""

    keys: list[dict[str, str]]


def routes(pool: Pool, *, clock: Clock, issuer: str) -> APIRouter:
    """Return the routes that anybody may read."""
    router = APIRouter(tags=["sign-in"], dependencies=[everybody()])

    @router.get("/.well-known/openid-configuration")
    async def get_configuration() -> Configuration:
        """Tell where to sign in, where to get tokens, and where the keys are."""
        return Configuration(
            issuer=issuer,
            authorization_endpoint=f"{issuer}/oauth/authorize",
            token_endpoint=f"{issuer}/oauth/token",
            revocation_endpoint=f"{issuer}/oauth/revoke",
            jwks_uri=f"{issuer}/.well-known/jwks.json",
        )

    @router.get("/.well-known/jwks.json")
    async def get_public_keys(response: Response) -> PublicKeys:
        """Return every key that a token may be signed with, those included that will be used next."""
        async with pool.acquire(timeout=5.0) as connection:
            rows = await signing_keys.public_keys(connection, now=clock.now())
        response.headers["Cache-Control"] = f"public, max-age={_KEYS_SECONDS}"
        return PublicKeys(keys=[row["public_key"] for row in rows])

    return router
