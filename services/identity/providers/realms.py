"""Which provider speaks for a realm: ours for '', else the one that a tenant has of its own."""

from collections.abc import Callable
from dataclasses import dataclass

import asyncpg
from cryptography.fernet import InvalidToken, MultiFernet

from services.identity.providers.cognito import Cognito
from services.identity.providers.oidc import OidcProvider, OidcRegistration
from services.identity.providers.port import Directory, ProviderUnavailableError
from services.identity.queries import providers as queries
from shared.contracts.base import INSTALLATION
from shared.http import Problem
from shared.postgres import Pool

MakeOidc = Callable[[OidcRegistration, str], OidcProvider]
"""Makes the provider of a registration that sends people back to a URL."""


@dataclass(frozen=True)
class Organisation:
    """A tenant with an OpenID provider of its own.

    Attributes:
        row: as `queries.one` returns it.
    """

    row: asyncpg.Record
    provider: OidcProvider

    @property
    def tenant_id(self) -> str:
        """The tenant, which is also its realm."""
        tenant_id: str = self.row["tenant_id"]
        return tenant_id


class Realms:
    """Knows the provider of each realm.

    Args:
        issuer: our origin, to which providers send people back.
        built_in: speaks for ''.
        cognito: None where it is not configured.
        in_cognito: whether that is where new tenants' people are.
        vault: decrypts what we are known by at tenants' providers.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        issuer: str,
        built_in: Directory,
        cognito: Cognito | None,
        in_cognito: bool = False,
        make_oidc: MakeOidc,
        vault: MultiFernet,
    ) -> None:
        self._pool = pool
        self._issuer = issuer
        self._built_in = built_in
        self._cognito = cognito
        self._in_cognito = in_cognito
        self._make_oidc = make_oidc
        self._vault = vault

    async def of_passwords(self, realm: str) -> Directory:
        """Return what keeps the passwords of a realm.

        Raises:
            ProviderUnavailableError: it is not there, or not yet.
        """
        if not realm:
            return self._built_in
        async with self._pool.acquire(timeout=5.0) as connection:
            row = await queries.one(connection, realm)
        return self.directory_of(realm, row)

    def of_nobody(self) -> Directory:
        """Return what most people's passwords are asked of, so that nobody is not told by the time that it takes."""
        shared = None
        if self._cognito is not None and self._in_cognito:
            shared = self._cognito.directory(INSTALLATION, pool_id=None, client_id=None)
        return shared or self._built_in

    def directory_of(self, tenant_id: str, row: asyncpg.Record | None) -> Directory:
        """Return a tenant's people in Cognito, of its row.

        Raises:
            ProviderUnavailableError: they are not there, or not yet.
        """
        if row is None or row["kind"] != "cognito":
            raise ProviderUnavailableError("the tenant's people are not in Cognito any more")
        if row["pool"] == "own" and row["pool_id"] is None:
            raise ProviderUnavailableError("the tenant's pool is not made yet")
        ids = {"pool_id": row["pool_id"], "client_id": row["pool_client_id"]}
        directory = None if self._cognito is None else self._cognito.directory(tenant_id, **ids)
        if directory is None:
            raise ProviderUnavailableError("Cognito is not configured for the tenant's pool")
        return directory

    async def organisation(self, tenant_id: str) -> Organisation:
        """Return a tenant whose people sign in at an OpenID provider of its own.

        Raises:
            Problem: 404 where it has none.
        """
        async with self._pool.acquire(timeout=5.0) as connection:
            row = await queries.one(connection, tenant_id)
        if row is None or row["kind"] != "oidc":
            detail = "There is no organisation with a sign-in of its own by this name."
            raise Problem(404, code="unknown_organisation", detail=detail)
        registration = OidcRegistration(row["issuer"], row["client_id"], self._secret_of(row))
        return Organisation(row, self._make_oidc(registration, self.redirect_uri_of(tenant_id)))

    def redirect_uri_of(self, tenant_id: str) -> str:
        """Return where a tenant's provider sends people back to.

        Each tenant has its own, so that what one provider sends is never taken for another's (RFC 9700, 4.4.2).
        """
        return f"{self._issuer}/oauth/callback/{tenant_id}"

    def _secret_of(self, row: asyncpg.Record) -> str:
        try:
            return self._vault.decrypt(row["client_secret"]).decode()
        except InvalidToken:
            raise ProviderUnavailableError(
                "the client secret cannot be decrypted with TENURE_IDENTITY_ENCRYPTION_KEYS"
            ) from None
