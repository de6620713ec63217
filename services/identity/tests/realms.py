"""Where no tenant has a provider of its own: all passwords are ours."""

from cryptography.fernet import Fernet, MultiFernet

from services.identity.providers.built_in import BuiltInProvider
from services.identity.providers.oidc import OidcProvider, OidcRegistration
from services.identity.providers.realms import Realms
from shared.clock import Clock
from shared.postgres import Pool


def plain_realms(pool: Pool, *, clock: Clock) -> Realms:
    """Return realms for tests in which nobody comes from elsewhere."""
    return Realms(
        pool,
        issuer="https://tenure.example.org",
        built_in=BuiltInProvider(pool, clock=clock),
        cognito=None,
        make_oidc=_no_oidc,
        vault=MultiFernet([Fernet(Fernet.generate_key())]),
    )


def _no_oidc(registration: OidcRegistration, redirect_uri: str) -> OidcProvider:
    raise AssertionError(f"{registration.issuer} was asked for, to come back to {redirect_uri}")
