"""Sessions: begun by a sign-in, kept up with refresh tokens, in one tenant at a time, and ended for all to know."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from services.identity.changes import Change
from services.identity.queries import sessions as queries
from services.identity.signing import SigningKeys
from shared.access.principal import Role
from shared.access.tokens import AUDIENCE, LONGEST, SKEW, AccessClaims, epoch_seconds, sign
from shared.audit import Decider
from shared.clock import Clock
from shared.contracts.base import INSTALLATION, Fact
from shared.contracts.identity import SessionsRevoked, TenantAccessChanged
from shared.ids import Ids
from shared.postgres import Connection

_TOKEN_BYTES = 32
_MOST_IN_A_FACT = 500


@dataclass(frozen=True)
class Terms:
    """How long things are good.

    Attributes:
        access: an access token.
        idle: a session that is not refreshed.
        longest: a session, however often it is refreshed.
    """

    access: timedelta
    idle: timedelta
    longest: timedelta


@dataclass(frozen=True)
class Visit:
    """Where somebody comes from.

    Attributes:
        client_id: the application.
        address: of the network.
        agent: what the browser calls itself.
    """

    client_id: str
    address: str | None = None
    agent: str | None = None


@dataclass(frozen=True)
class Tokens:
    """What a client gets.

    Attributes:
        refresh: None where the session cannot be refreshed.
        expires_in: of the access token, in seconds.
    """

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    expires_in: int
    scope: str
    session_id: UUID


class Sessions:
    """Begins and refreshes sessions.

    Args:
        keys: sign the tokens.
        issuer: whom the tokens are from.
    """

    def __init__(self, keys: SigningKeys, *, clock: Clock, ids: Ids, issuer: str, terms: Terms) -> None:
        self._keys = keys
        self._clock = clock
        self._ids = ids
        self._issuer = issuer
        self._terms = terms

    async def begin(
        self, connection: Connection, user_id: UUID, seat: asyncpg.Record, visit: Visit, *, scope: str, realm: str = ""
    ) -> Tokens:
        """Let a user in.

        Args:
            seat: what the user is where, as `queries.seat` returns it.
            realm: the tenant whose own provider has recognised the user; '' for our passwords.
        """
        now = self._clock.now()
        session = {
            "session_id": self._ids.new(),
            "user_id": user_id,
            "tenant_id": seat["tenant_id"],
            "client_id": visit.client_id,
            "scope": scope,
            "address": visit.address,
            "agent": visit.agent,
            "created_at": now,
            "expires_at": now + self._terms.idle,
            "realm": realm,
        }
        await queries.insert(connection, session)
        return await self._tokens(connection, session, seat)

    async def refresh(
        self, connection: Connection, session: asyncpg.Record, digest: bytes, seat: asyncpg.Record
    ) -> Tokens:
        """Give a session new tokens for the old refresh token, in the tenant of its seat.

        Args:
            digest: of the refresh token.
        """
        now = self._clock.now()
        expires_at = min(now + self._terms.idle, session["created_at"] + self._terms.longest)
        await queries.refresh(
            connection, session["session_id"], digest, tenant_id=seat["tenant_id"], now=now, expires_at=expires_at
        )
        return await self._tokens(connection, session, seat)

    async def support(
        self, connection: Connection, user_id: UUID, visit: Visit, *, tenant_id: str, epoch: int, reason: str,
        lasting: timedelta,
    ) -> Tokens:  # fmt: skip
        """Let an operator act in a tenant for a reason and a while, which cannot be prolonged."""
        now = self._clock.now()
        session = {
            "session_id": self._ids.new(),
            "user_id": user_id,
            "tenant_id": tenant_id,
            "client_id": visit.client_id,
            "scope": "read write",
            "reason": reason,
            "address": visit.address,
            "agent": visit.agent,
            "created_at": now,
            "expires_at": now + lasting,
        }
        await queries.insert(connection, session)
        seat = {"tenant_id": tenant_id, "role": Role.CUSTOMER_SUPPORT, "epoch": epoch}
        return await self._signed(session, seat, None, lasting)

    async def of_key(self, key: asyncpg.Record, *, epoch: int, scope: str) -> Tokens:
        """Give an API key an access token, which is good no longer than the key is.

        Args:
            key: with ``key_id``, ``tenant_id``, ``role`` and ``expires_at``.
        """
        left = self._terms.access if key["expires_at"] is None else key["expires_at"] - self._clock.now()
        session = {"session_id": key["key_id"], "user_id": key["key_id"], "client_id": key["key_id"], "scope": scope}
        seat = {"tenant_id": key["tenant_id"], "role": key["role"], "epoch": epoch}
        return await self._signed(session, seat, None, min(left, self._terms.access))

    async def _tokens(self, connection: Connection, session: Any, seat: Any) -> Tokens:
        refresh = secrets.token_urlsafe(_TOKEN_BYTES)
        await queries.add_refresh_token(connection, digest_of(refresh), session["session_id"])
        return await self._signed(session, seat, refresh, self._terms.access)

    async def _signed(self, session: Any, seat: Any, refresh: str | None, lasting: timedelta) -> Tokens:
        now = epoch_seconds(self._clock.now())
        expires_in = int(min(lasting, LONGEST).total_seconds())
        claims = AccessClaims(
            iss=self._issuer,
            sub=str(session["user_id"]),
            aud=AUDIENCE,
            exp=now + expires_in,
            iat=now,
            nbf=now,
            jti=self._ids.new().hex,
            sid=str(session["session_id"]),
            client_id=session["client_id"],
            role=Role(seat["role"]),
            scope=session["scope"],
            epoch=seat["epoch"],
            tenant_id=None if seat["tenant_id"] == INSTALLATION else seat["tenant_id"],
            reason=session.get("reason"),
        )
        access = sign(claims, await self._keys.active())
        return Tokens(access, refresh, expires_in, session["scope"], session["session_id"])


async def end_sessions(
    change: Change,
    session_ids: Sequence[UUID],
    *,
    now: datetime,
    by: Decider | None = None,
    because: str | None = None,
) -> int:
    """End sessions, tell so, and return how many there were.

    Args:
        by: who decided that; None where just their time is over.
        because: why, where that needs saying.
    """
    ended = await queries.end(change.connection, session_ids)
    change.tell(*revocations(ended, now=now))
    for row in ended if by is not None else ():
        assert by is not None
        change.decided(
            by,
            "session.ended",
            subject_of(row["session_id"]),
            tenant_id=row["tenant_id"],
            before={"userId": row["user_id"]},
            reason=because,
        )
    return len(ended)


def subject_of(session_id: UUID) -> str:
    """Return what the audit trail calls a session."""
    return f"session:{session_id}"


async def end_sessions_of_members(
    connection: Connection, members: Iterable[tuple[str, UUID]], *, now: datetime
) -> list[Fact]:
    """End every session of these users in these tenants and return what is to be told."""
    return revocations(await queries.end_of_members(connection, list(members)), now=now)


async def end_access_to_tenants(
    connection: Connection, tenant_ids: Sequence[str], *, forget_at: datetime | None = None
) -> dict[str, TenantAccessChanged]:
    """Void every token of these tenants, end their sessions, and return what is to be told of each.

    Args:
        forget_at: the tenants are purged, which has to be known until then.
    """
    await queries.end_of_tenants(connection, tenant_ids)
    rows = await queries.bump_epochs(connection, tenant_ids, forget_at=forget_at)
    return {row["tenant_id"]: TenantAccessChanged(**row) for row in rows}


def revocations(ended: Sequence[asyncpg.Record], *, now: datetime) -> list[Fact]:
    """Return what is told of sessions that have ended, those of a tenant together."""
    by_tenant: dict[str, list[str]] = {}
    for row in ended:
        by_tenant.setdefault(row["tenant_id"], []).append(str(row["session_id"]))
    return [
        SessionsRevoked(tenant_id=tenant_id, session_ids=tuple(chunk), forget_at=now + LONGEST + SKEW)
        for tenant_id, session_ids in by_tenant.items()
        for chunk in _chunks(session_ids)
    ]


def _chunks(session_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(session_ids), _MOST_IN_A_FACT):
        yield session_ids[start : start + _MOST_IN_A_FACT]


def digest_of(secret: str) -> bytes:
    """Return what is kept of a random secret; 256 bits need no salt."""
    return hashlib.sha256(secret.encode()).digest()
