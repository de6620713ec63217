"""How providers are put together, and the connections to them that all sign-ins share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.identity.providers.built_in import BuiltInProvider
from services.identity.providers.cognito import Cognito
from services.identity.providers.discovery import Discovery
from services.identity.providers.id_tokens import IdTokens
from services.identity.providers.network import ProviderClient
from services.identity.providers.oidc import OidcProvider, OidcRegistration
from services.identity.providers.realms import Realms
from services.identity.settings import IdentitySettings
from shared.clock import Clock
from shared.postgres import Pool


@dataclass(frozen=True)
class Connections:
    """What the service asks providers through.

    Attributes:
        cognito: None for an installation without it.
    """

    realms: Realms
    discovery: Discovery
    cognito: Cognito | None


@asynccontextmanager
async def open_connections(pool: Pool, settings: IdentitySettings, *, clock: Clock) -> AsyncIterator[Connections]:
    """Put providers together; nothing is asked of any before somebody comes."""
    client = ProviderClient(networks=settings.networks_of_providers)
    discovery, id_tokens = Discovery(client, clock=clock), IdTokens(client.get_document, clock=clock)
    terms = settings.cognito_terms
    cognito = None if terms is None else Cognito(terms, id_tokens, installation=settings.issuer)

    def make_oidc(registration: OidcRegistration, redirect_uri: str) -> OidcProvider:
        return OidcProvider(client, discovery, id_tokens, registration=registration, redirect_uri=redirect_uri)

    realms = Realms(
        pool,
        issuer=settings.issuer,
        built_in=BuiltInProvider(pool, clock=clock),
        cognito=cognito,
        in_cognito=settings.provider == "cognito",
        make_oidc=make_oidc,
        vault=settings.vault,
    )
    try:
        yield Connections(realms, discovery, cognito)
    finally:
        if cognito is not None:
            cognito.close()
        await client.aclose()
