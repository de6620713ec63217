"""From what a client sends as `Authorization` to who that is."""

import asyncio
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from joserfc.jwk import ECKey

from shared.access import api_keys, replica, tokens
from shared.access.principal import ADMINISTRATOR, Principal, Role
from shared.access.tokens import AccessClaims, InvalidTokenError, UnknownKeyError
from shared.access.usage import KeyUses
from shared.clock import Clock
from shared.postgres import Pool

_RELOAD = timedelta(seconds=1)
_CONNECTION_SECONDS = 5.0


class InvalidCredentialError(Exception):
    """Nobody is proven by what was sent. The message is for the client: it tells what is wrong, never whose it is."""


class Credentials(Protocol):
    """Knows tokens and API keys."""

    async def of_token(self, text: str) -> Principal:
        """Return whom an access token speaks for.

        Raises:
            InvalidCredentialError: it is not to be trusted, or not any more.
        """
        ...

    async def of_api_key(self, text: str) -> Principal:
        """Return whom an API key speaks for.

        Raises:
            InvalidCredentialError: there is no such key, or not any more.
        """
        ...


class Authenticator:
    """Tells who asks, by the administrator's key, an API key or an access token.

    Args:
        admin_key: what the installation was started with.
        credentials: what knows all others; None where there are no others.

    Raises:
        ValueError: the key is empty.
    """

    def __init__(self, admin_key: str, credentials: Credentials | None = None) -> None:
        if not admin_key:
            raise ValueError("an empty administrator's key would let everybody in")
        self._admin_digest = api_keys.digest(admin_key)
        self._credentials = credentials

    async def principal(self, text: str) -> Principal:
        """Return who sent this.

        Raises:
            InvalidCredentialError: nobody is known by it.
        """
        if hmac.compare_digest(api_keys.digest(text), self._admin_digest):
            return ADMINISTRATOR
        if self._credentials is None:
            raise InvalidCredentialError("The API key is not known.")
        if text.count(".") == 2:  # noqa: PLR2004 - a JWT has three parts
            return await self._credentials.of_token(text)
        return await self._credentials.of_api_key(text)


class KnownCredentials:
    """Knows what identity has told this service; works while identity is away.

    Args:
        pool: of the service's own database.
        issuer: who must have made the tokens.

    Attributes:
        uses: when API keys were last used.
    """

    def __init__(self, pool: Pool, *, clock: Clock, issuer: str) -> None:
        self.uses = KeyUses()
        self._pool = pool
        self._clock = clock
        self._issuer = issuer
        self._keys: Mapping[str, ECKey] = {}
        self._loading = asyncio.Lock()
        self._looked_at: datetime | None = None
        self._failure: Exception | None = None

    async def of_token(self, text: str) -> Principal:
        """Return whom an access token speaks for; see `Credentials`."""
        try:
            claims = await self.claims(text)
            principal = claims.principal()
        except InvalidTokenError as error:
            raise InvalidCredentialError(f"The access token is not valid: {error}.") from None
        async with self._pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            standing = await replica.standing(
                connection, session_id=claims.sid, tenant_id=claims.tenant_id, key_id=claims.key_id
            )
        if standing["is_revoked"] or claims.epoch < standing["epoch"]:
            raise InvalidCredentialError("The access token was revoked.")
        if standing["is_blocked"]:
            raise InvalidCredentialError("Nobody can sign in to the tenant at present.")
        if claims.key_id is not None:
            self.uses.note(claims.key_id, self._clock.now())
        return principal

    async def of_api_key(self, text: str) -> Principal:
        """Return whom an API key speaks for; see `Credentials`."""
        key = api_keys.parse(text)
        if key is None:
            raise InvalidCredentialError("The API key is not known.")
        async with self._pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            row = await replica.api_key(connection, key.id)
        if row is None or not is_one_of(key.digest, row["secrets"], now=self._clock.now()):
            raise InvalidCredentialError("The API key is not known.")
        if row["is_blocked"]:
            raise InvalidCredentialError("Nobody can sign in to the tenant at present.")
        try:
            role, scopes = Role(row["role"]), frozenset(row["scopes"])
            principal = Principal(id=f"key:{key.id}", role=role, tenant_id=row["tenant_id"], scopes=scopes)
        except ValueError:  # told by a newer release, or by mistake: nobody can be that here
            raise InvalidCredentialError("The API key is not known.") from None
        self.uses.note(key.id, self._clock.now())
        return principal

    async def claims(self, text: str) -> AccessClaims:
        """Return what a token says, its signature verified; whether it was revoked is not looked at.

        Raises:
            InvalidTokenError: it is not to be trusted.
        """
        try:
            return self._verified(text)
        except UnknownKeyError:
            # A key may have been told a moment ago.
            await self._load_keys()
            return self._verified(text)

    def _verified(self, text: str) -> AccessClaims:
        return tokens.verify(text, self._keys.get, issuer=self._issuer, now=self._clock.now())

    async def _load_keys(self) -> None:
        """Look for new keys, one request for all; how often somebody makes us look is bounded, also in vain."""
        async with self._loading:
            now = self._clock.now()
            if self._looked_at is not None and now - self._looked_at < _RELOAD:
                if self._failure is not None:
                    raise TimeoutError("the keys could not be read a moment ago") from self._failure
                return
            self._looked_at = now
            try:
                async with self._pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
                    rows = await replica.signing_keys(connection)
            except Exception as error:
                self._failure, self._looked_at = error, self._clock.now()
                raise
            self._failure = None
            self._keys = {row["key_id"]: ECKey.import_key(row["public_key"]) for row in rows if row["forget_at"] > now}


def is_one_of(digest: bytes, secrets: list[Mapping[str, Any]], *, now: datetime) -> bool:
    """Return whether a digest is that of a secret that is good at present; a key has two while it is rotated."""
    found = False
    for secret in secrets:
        expires_at = secret["expiresAt"]
        is_good = expires_at is None or now < datetime.fromisoformat(expires_at)
        found |= is_good and hmac.compare_digest(digest, bytes.fromhex(secret["digest"]))
    return found
