"""The provider that is always there: passwords in our own database, one for each user, in whichever tenants it is."""

from datetime import datetime
from uuid import UUID

from services.identity.passwords import hash_password, is_outdated, is_right
from services.identity.providers.port import Password, Proof, Recognised
from services.identity.queries import passwords as queries
from shared.clock import Clock
from shared.postgres import Pool, transaction


class BuiltInProvider:
    """Keeps passwords as argon2id hashes."""

    def __init__(self, pool: Pool, *, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def recognise(self, proof: Proof) -> Recognised | None:
        """See `port.IdentityProvider.recognise`; a hash with parameters of the past is replaced on the way."""
        if not isinstance(proof, Password):
            return None
        async with self._pool.acquire(timeout=5.0) as connection:
            user = None if proof.user_id is None else await queries.of_user(connection, proof.user_id)
        hashed: str | None = None if user is None else user["hash"]
        if not await is_right(proof.text, hashed):
            return None
        assert user is not None
        assert hashed is not None
        if is_outdated(hashed):
            await self._put(user["user_id"], proof.text, now=self._clock.now())
        return Recognised(str(user["user_id"]), user["email"])

    async def enrol(self, user_id: UUID, email: str, password: str) -> None:  # noqa: ARG002 - the port's
        """See `port.Directory.enrol`; the address is the user's own."""
        await self._put(user_id, password, now=self._clock.now())

    async def forget(self, user_id: UUID) -> None:
        """See `port.Directory.forget`."""
        async with transaction(self._pool) as connection:
            await queries.delete(connection, user_id)

    async def _put(self, user_id: UUID, password: str, *, now: datetime) -> None:
        hashed = await hash_password(password)
        async with transaction(self._pool) as connection:
            await queries.put(connection, user_id, hashed, now=now)
