"""The keys that access tokens are signed with: made, published long before they are used, used, and forgotten.

There is always one that signs and one that will be next. A key is told to all services when it is made, so that
whoever gets a token signed with it knows it already; and it stays known until the last token that it has signed is
dead. Private keys are encrypted in the database; what encrypts them can be rotated too.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import orjson
import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from joserfc.jwk import ECKey

from services.identity.changes import Changes
from services.identity.queries import signing_keys as queries
from shared.access.tokens import LONGEST, SKEW
from shared.audit import Decider
from shared.clock import Clock
from shared.contracts.base import INSTALLATION
from shared.contracts.identity import SigningKeyPublished
from shared.ids import Ids
from shared.postgres import CONTENTION, Pool, is_unavailable

log = structlog.get_logger(__name__)

HEADSTART = timedelta(seconds=30)
"""How long before it signs a key is published that replaces another out of turn."""

_POLL_SECONDS = 60.0
_POLLS_AN_HOUR = 60
_OUTAGE_SECONDS = 1.0
_LOOK_AGAIN = timedelta(seconds=10)


@dataclass(frozen=True)
class Terms:
    """How long keys live.

    Attributes:
        lifetime: how long a key signs.
        notice: how long before that it is published.
    """

    lifetime: timedelta
    notice: timedelta


def vault(secrets: Sequence[str]) -> MultiFernet:
    """Return what encrypts private keys with the first of these secrets and decrypts with any.

    Raises:
        ValueError: one of them is no key of 32 bytes in URL-safe base64.
    """
    return MultiFernet([Fernet(secret) for secret in secrets])


class SigningKeys:
    """Keeps the keys in order and signs with the one whose time it is.

    Args:
        vault: encrypts and decrypts private keys.
    """

    def __init__(
        self, pool: Pool, changes: Changes, *, clock: Clock, ids: Ids, vault: MultiFernet, terms: Terms
    ) -> None:
        self._pool = pool
        self._changes = changes
        self._clock = clock
        self._ids = ids
        self._vault = vault
        self._terms = terms
        self._active: tuple[ECKey, datetime] | None = None

    async def run(self) -> None:
        """Make, publish and forget keys in time, for ever; soon after the start and hourly tell all of them again."""
        await self._patiently(self.keep)
        for number in itertools.count():
            await self._clock.sleep(_POLL_SECONDS)
            await self._patiently(self.keep if number % _POLLS_AN_HOUR else self.publish)

    async def _patiently(self, work: Any) -> None:
        while True:
            try:
                await work()
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    raise
                log.warning("signing keys wait", action="signing_keys_unavailable", error=repr(error))
                await self._clock.sleep(_OUTAGE_SECONDS)
            else:
                return

    async def publish(self) -> None:
        """Tell all services of every key that there is, for those whose database came later than a key."""
        await self.keep()
        async with self._changes.transaction() as change:
            rows = await queries.public_keys(change.connection, now=self._clock.now())
            change.tell(*(_published(row) for row in rows))

    async def keep(self) -> None:
        """Make and publish the keys that are missing, and forget those that nothing needs."""
        async with self._changes.transaction() as change:
            now = self._clock.now()
            await queries.lock(change.connection)
            await queries.forget(change.connection, now=now)
            made = self._missing(await queries.last_retirement(change.connection), now)
            await queries.insert(change.connection, made)
            change.tell(*(_published(row) for row in made))

    async def rotate(self, *, after: timedelta = HEADSTART, by: Decider | None = None) -> str:
        """Replace the key that signs, such as one that may have leaked, and return the id of its successor.

        Tokens that the old one has signed stay good until they expire; revoke sessions if they must not.

        Args:
            after: when; by then every service has to know the successor.
            by: who decided that; None where nobody did.
        """
        async with self._changes.transaction() as change:
            at = self._clock.now() + after
            await queries.lock(change.connection)
            await queries.retire(change.connection, at=at, expires_at=at + LONGEST + SKEW)
            made = self._new(at)
            await queries.insert(change.connection, [made])
            change.tell(_published(made))
            if by is not None:
                subject = f"signing-key:{made['key_id']}"
                change.decided(by, "signing_key.rotated", subject, tenant_id=INSTALLATION, after={"activeAt": at})
        self._active = None
        return str(made["key_id"])

    async def active(self) -> ECKey:
        """Return the private key that signs at present."""
        now = self._clock.now()
        if self._active is None or now >= self._active[1]:
            self._active = await self._load(now)
        return self._active[0]

    async def _load(self, now: datetime) -> tuple[ECKey, datetime]:
        """Return the key that signs, and when to look again: another replica may rotate."""
        row = await self._stored(now)
        if row is None:
            await self.keep()
            row = await self._stored(now)
        assert row is not None
        try:
            key = ECKey.import_key(orjson.loads(self._vault.decrypt(row["private_key"])))
        except InvalidToken:
            log.critical("no encryption key fits", action="signing_key_lost", key_id=row["key_id"])
            await self.rotate(after=timedelta(0))
            return await self._load(now)
        return key, min(row["retired_at"], now + _LOOK_AGAIN)

    async def _stored(self, now: datetime) -> asyncpg.Record | None:
        async with self._pool.acquire(timeout=5.0) as connection:
            return await queries.active(connection, now=now)

    def _missing(self, last_retirement: datetime | None, now: datetime) -> list[dict[str, Any]]:
        made = []
        begins_at = last_retirement
        if begins_at is None or begins_at <= now:
            made.append(self._new(now))
            begins_at = now + self._terms.lifetime
        if begins_at - now <= self._terms.notice:
            made.append(self._new(begins_at))
        return made

    def _new(self, active_at: datetime) -> dict[str, Any]:
        key_id = self._ids.new().hex
        key = ECKey.generate_key("P-256", {"kid": key_id, "use": "sig", "alg": "ES256"}, auto_kid=False)
        retired_at = active_at + self._terms.lifetime
        return {
            "key_id": key_id,
            "private_key": self._vault.encrypt(orjson.dumps(key.as_dict(private=True))),
            "public_key": key.as_dict(private=False),
            "active_at": active_at,
            "retired_at": retired_at,
            "expires_at": retired_at + LONGEST + SKEW,
        }


def _published(row: dict[str, Any] | asyncpg.Record) -> SigningKeyPublished:
    return SigningKeyPublished(key_id=row["key_id"], public_key=row["public_key"], expires_at=row["expires_at"])
