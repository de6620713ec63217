"""What requests are judged by, in memory: whether sessions are revoked, how tenants stand, and API keys.

Nothing that is used is older than a second, so what was revoked is void a second later. What is in use is read anew
twice a second, all of it together; what is not is read when it is asked for, together with whatever else is asked for
while the database answers. While that is away, what is known is used for five seconds more, and nothing after that.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import islice
from typing import Any, Literal, NamedTuple

import asyncpg
import structlog

from services.identity.bounded import Bounded
from services.identity.queries import authorize as queries
from shared.access.principal import Principal, Role
from shared.clock import Clock
from shared.postgres import CONTENTION, Pool, is_unavailable, transaction

log = structlog.get_logger(__name__)

FRESH_SECONDS = 1.0
"""What is older is read anew before it is used."""

GRACE_SECONDS = 5.0
"""How much older it may be while the database is away."""

REFRESH_SECONDS = 0.5
"""How often what is in use is read anew, so that nobody has to wait for it."""

_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 0.5
_AT_ONCE = 500
_MOST = 30_000

Key = tuple[Literal["session", "tenant", "api_key"], str]


class UnknownStandingError(Exception):
    """The database is away, and what is known is too old to go by."""


class Plan(NamedTuple):
    """What a tenant's tier lets it ask of applications; None is as much as it likes."""

    tier: str
    per_second: int | None
    per_day: int | None


@dataclass(frozen=True, slots=True)
class Tenant:
    """How a tenant stands.

    Attributes:
        epoch: tokens of an earlier one are void.
        is_blocked: whether nobody has access.
        plan: None for a tenant from before there were any.
        used: how many requests all replicas had counted on ``day``.
    """

    tenant_id: str
    epoch: int
    is_blocked: bool
    plan: Plan | None
    used: int
    day: date


@dataclass(frozen=True, slots=True)
class KnownKey:
    """An API key that was not revoked.

    Attributes:
        secrets: as `shared.access.authenticator.is_one_of` wants them.
    """

    principal: Principal
    secrets: list[Mapping[str, Any]]


@dataclass(slots=True)
class _Entry:
    """What was read, when, and when it was last used; seconds since 1970."""

    value: Any
    as_of: float
    used_at: float


@dataclass
class _Look:
    """What several requests want to know, and whether that was read."""

    keys: set[Key] = field(default_factory=set)
    is_over: bool = False
    failure: Exception | None = None


class Standings:
    """Knows how sessions, tenants and API keys stand.

    Args:
        pool: of the service's own database.
    """

    def __init__(self, pool: Pool, *, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._entries: Bounded[Key, _Entry] = Bounded(_MOST)
        self._next = _Look()
        self._turn = asyncio.Lock()
        self._failed_at: float | None = None

    async def of_token(self, session_id: str, tenant_id: str, key_id: str | None) -> tuple[bool, Tenant]:
        """Return whether a session, or the API key that its token was given for, is revoked, and how the tenant stands.

        Raises:
            UnknownStandingError: that cannot be told.
        """
        if key_id is None:
            is_revoked, tenant = await self._find(("session", session_id), ("tenant", tenant_id))
            return is_revoked, tenant
        is_revoked, tenant, key = await self._find(("session", session_id), ("tenant", tenant_id), ("api_key", key_id))
        return is_revoked or key is None, tenant

    async def of_tenant(self, tenant_id: str) -> Tenant:
        """Return how a tenant stands; see `of_token`."""
        (tenant,) = await self._find(("tenant", tenant_id))
        assert isinstance(tenant, Tenant)
        return tenant

    async def of_api_key(self, key_id: str) -> KnownKey | None:
        """Return what is known of an API key, if there is one; see `of_token`."""
        (key,) = await self._find(("api_key", key_id))
        assert key is None or isinstance(key, KnownKey)
        return key

    async def run(self) -> None:
        """Keep what is in use fresh, for ever."""
        while True:
            await self._clock.sleep(REFRESH_SECONDS)
            keys = iter(self._in_use())
            while some := tuple(islice(keys, _AT_ONCE)):
                try:
                    await self._look(some)
                except UnknownStandingError:
                    break
                await asyncio.sleep(0)  # requests come first

    def _in_use(self) -> Sequence[Key]:
        since = self._now() - FRESH_SECONDS
        recent = self._entries.recent_first()
        return [key for key, entry in recent if entry.used_at >= since]

    async def _find(self, *keys: Key) -> list[Any]:
        found = self._known(keys, FRESH_SECONDS)
        if found is not None:
            return found
        try:
            await self._look(keys)
        except UnknownStandingError:
            found = self._known(keys, FRESH_SECONDS + GRACE_SECONDS)
            if found is None:
                raise
            return found
        # What was read a moment ago is good however long the answer took.
        found = self._known(keys, FRESH_SECONDS + _LOOK_SECONDS)
        if found is None:
            raise UnknownStandingError
        return found

    def _known(self, keys: Iterable[Key], seconds: float) -> list[Any] | None:
        """Return what is known, or None where any of it is older than some seconds, or of a time that is to come."""
        now, found = self._now(), []
        for key in keys:
            entry = self._entries.get(key)
            if entry is None or not 0 <= now - entry.as_of <= seconds:
                return None
            entry.used_at = now
            found.append(entry.value)
        return found

    async def _look(self, keys: Iterable[Key]) -> None:
        """Read how these stand, in one statement with what others ask for at the same time.

        Raises:
            UnknownStandingError: the database is away, or was a moment ago.
        """
        if self._failed_at is not None and 0 <= self._now() - self._failed_at < _RETRY_SECONDS:
            raise UnknownStandingError
        look = self._next
        look.keys.update(keys)
        async with self._turn:
            if not look.is_over:
                self._next, look.is_over = _Look(), True
                look.failure = await self._read(look.keys)
        if look.failure is not None:
            raise UnknownStandingError from look.failure

    async def _read(self, keys: Iterable[Key]) -> Exception | None:
        """Read how these stand; return the error instead of it where the database is away."""
        now = self._clock.now()
        wanted = {kind: [name for each, name in keys if each == kind] for kind in ("session", "tenant", "api_key")}
        try:
            async with transaction(self._pool, seconds=_LOOK_SECONDS) as connection:
                row = await queries.standings(
                    connection,
                    sessions=wanted["session"],
                    tenants=wanted["tenant"],
                    api_keys=wanted["api_key"],
                    day=now.date(),
                )
        except Exception as error:
            if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                raise
            if self._failed_at is None:
                log.warning("standings are not refreshed", action="standings_unavailable", error=repr(error))
            self._failed_at = self._now()
            return error
        self._failed_at = None
        self._keep(keys, row, now)
        return None

    def _keep(self, keys: Iterable[Key], row: asyncpg.Record, now: datetime) -> None:
        found: dict[Key, Any] = {("tenant", each["tenantId"]): _tenant(each, now.date()) for each in row["tenants"]}
        found |= {("api_key", each["keyId"]): _known_key(each) for each in row["api_keys"]}
        revoked = set(row["revoked"])
        for key in keys:
            kind, name = key
            found.setdefault(key, name in revoked if kind == "session" else None)
        as_of = now.timestamp()
        for key, value in found.items():
            self._put(key, value, as_of)

    def _put(self, key: Key, value: Any, as_of: float) -> None:
        """Keep what was read; to be read anew is not to be used."""
        entry = self._entries.peek(key)
        if entry is None:
            self._entries.put(key, _Entry(value, as_of, as_of))
        else:
            entry.value, entry.as_of = value, as_of

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _tenant(told: Mapping[str, Any], day: date) -> Tenant:
    tier = told["tier"]
    plan = None if tier is None else Plan(tier, told["perSecond"], told["perDay"])
    return Tenant(told["tenantId"], told["epoch"], told["isBlocked"], plan, told["used"], day)


def _known_key(told: Mapping[str, Any]) -> KnownKey:
    principal = Principal(
        id=f"key:{told['keyId']}",
        role=Role(told["role"]),
        tenant_id=told["tenantId"],
        scopes=frozenset(told["scopes"]),
    )
    return KnownKey(principal, told["secrets"])
