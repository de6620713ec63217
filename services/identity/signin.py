"""Somebody shows who it is by e-mail address and password."""

from dataclasses import dataclass
from uuid import UUID

import structlog

from services.identity import throttle
from services.identity.passwords import hash_password, is_outdated, is_right
from services.identity.queries import passwords as queries
from services.identity.throttle import Attempt
from shared.clock import Clock
from shared.postgres import Pool, transaction
from shared.text import email_key

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Known:
    """Somebody who has shown who it is."""

    user_id: UUID
    email: str


class Doorkeeper:
    """Lets people in by their passwords, at a pace at which nobody guesses one."""

    def __init__(self, pool: Pool, *, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def recognise(self, email: str, password: str, *, address: str) -> Known | None:
        """Return who this is; None for a wrong password and for nobody alike, after the same time.

        Raises:
            Problem: 429 when there were too many attempts.
        """
        key = email_key(email)
        attempt = Attempt(account=key, address=address)
        # Counted for good before the password is looked at: whoever tries a thousand at once has tried a thousand.
        async with transaction(self._pool) as connection:
            await throttle.admit(connection, attempt, now=self._clock.now())
            user = await queries.by_email(connection, key)
        hashed: str | None = None if user is None else user["hash"]
        if not await is_right(password, hashed):
            log.info("sign-in refused", action="sign_in_refused", known=user is not None, address=address)
            return None
        assert user is not None
        assert hashed is not None
        renewed = await hash_password(password) if is_outdated(hashed) else None
        async with transaction(self._pool) as connection:
            await throttle.forgive(connection, attempt)
            if renewed:
                await queries.put(connection, user["user_id"], renewed, now=self._clock.now())
        return Known(user["user_id"], user["email"])
