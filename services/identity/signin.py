"""Somebody shows who it is by e-mail address and password."""

from dataclasses import dataclass
from uuid import UUID

import structlog

from services.identity import throttle
from services.identity.providers.port import Password, ProviderUnavailableError
from services.identity.providers.realms import Realms
from services.identity.queries import passwords as queries
from services.identity.queries import providers
from services.identity.throttle import Attempt
from shared.clock import Clock
from shared.http import Problem
from shared.postgres import Connection, Pool, transaction
from shared.text import email_key

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Known:
    """Somebody who has shown who it is.

    Attributes:
        realm: the tenant whose own provider has recognised it; '' for our passwords.
    """

    user_id: UUID
    email: str
    realm: str = ""


class Doorkeeper:
    """Lets people in by their passwords, at a pace at which nobody guesses one.

    Args:
        realms: where passwords are kept.
    """

    def __init__(self, pool: Pool, realms: Realms, *, clock: Clock) -> None:
        self._pool = pool
        self._realms = realms
        self._clock = clock

    async def recognise(
        self, email: str, password: str, *, address: str, tenant_id: str | None = None, realm: str | None = None
    ) -> Known | None:
        """Return who this is; None for a wrong password and for nobody alike, after the same time.

        Args:
            tenant_id: where it wants to get in, if it has said so.
            realm: whose password it is; left out, that of where it wants to get in, or of where it was last.

        Raises:
            Problem: 429 when there were too many attempts, 503 where whoever keeps the password does not answer.
        """
        key = email_key(email)
        attempt = Attempt(account=key, address=address)
        # Counted for good before the password is looked at: whoever tries a thousand at once has tried a thousand.
        async with transaction(self._pool) as connection:
            await throttle.admit(connection, attempt, now=self._clock.now())
            user = await queries.by_email(connection, key)
            user_id: UUID | None = None if user is None else user["user_id"]
            if realm is None:
                realm = await _realm_of(connection, user_id, tenant_id)
        if not await self._is_recognised(realm, user_id, password):
            log.info("sign-in refused", action="sign_in_refused", known=user is not None, address=address)
            return None
        assert user is not None
        async with transaction(self._pool) as connection:
            await throttle.forgive(connection, attempt)
        return Known(user["user_id"], user["email"], realm)

    async def give(self, known: Known, password: str) -> None:
        """Give somebody, who has shown its password, another one where its realm keeps them.

        Raises:
            Problem: 422 where it is too weak there, 503 where whoever keeps it does not answer.
        """
        try:
            directory = await self._realms.of_passwords(known.realm)
            await directory.enrol(known.user_id, known.email, password)
        except ProviderUnavailableError as error:
            raise unavailable(error, known.realm) from error

    async def _is_recognised(self, realm: str, user_id: UUID | None, password: str) -> bool:
        try:
            is_anybodys = user_id is None and not realm
            provider = self._realms.of_nobody() if is_anybodys else await self._realms.of_passwords(realm)
            return await provider.recognise(Password(user_id, password)) is not None
        except ProviderUnavailableError as error:
            raise unavailable(error, realm) from error


async def _realm_of(connection: Connection, user_id: UUID | None, tenant_id: str | None) -> str:
    """Return the realm whose password somebody types; of nobody's too, so that it takes as long."""
    if user_id is not None:
        return await providers.password_realm(connection, user_id, tenant_id) or ""
    is_in_cognito = tenant_id is not None and await providers.is_in_cognito(connection, tenant_id)
    return tenant_id if is_in_cognito and tenant_id is not None else ""


def unavailable(error: ProviderUnavailableError, realm: str) -> Problem:
    """Return the answer where a provider does not; what is wrong with it is for the log."""
    log.warning("identity provider unavailable", action="provider_unavailable", realm=realm, error=str(error))
    return Problem(
        503,
        code="identity_provider_unavailable",
        detail="The identity provider does not answer at this moment.",
        headers={"Retry-After": "5"},
    )
