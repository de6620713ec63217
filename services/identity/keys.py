"""API keys: who may make which, and what becomes of them. Of a key only hashes are kept; it is shown once.

Nobody gets more by making a key than it has itself: neither role nor scopes of a key go beyond those of who makes it,
or has its secret replaced.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NoReturn

import asyncpg

from services.identity.changes import Changes
from services.identity.queries import keys as queries
from shared.access import EVERYTHING, MEMBERS, OPERATORS, Principal, Role, api_keys
from shared.access.authenticator import is_one_of
from shared.clock import Clock
from shared.contracts import billing, metrics, onboarding, provisioning, tenant
from shared.contracts.base import INSTALLATION, Fact, KeysUsed
from shared.contracts.identity import ApiKeyChanged, ApiKeySecret
from shared.http import FieldError, Problem
from shared.messaging.subscriptions import Subscriptions, hear
from shared.postgres import Connection

MOST_KEYS = 100
"""How many good keys a tenant, or the installation, has at most."""

_REMEMBERED = timedelta(days=365)
"""How long replicas know of a revoked key: longer than any older message about it is kept from them."""

_RANKS = (Role.TENANT_USER, Role.TENANT_ADMIN, Role.CUSTOMER_SUPPORT, Role.SYSTEM_ADMIN)


@dataclass(frozen=True, slots=True)
class Order:
    """What kind of key is wanted.

    Attributes:
        tenant_id: whose it is to be; None for that of who asks, and for operators none.
        role: what its holder is to be; None for the least.
        scopes: what it is to be used for.
        expires_at: when it ends by itself; None for never.
    """

    name: str
    tenant_id: str | None = None
    role: Role | None = None
    scopes: frozenset[str] = EVERYTHING
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A key, for once with what proves it.

    Attributes:
        row: of the table.
        text: the whole key.
    """

    row: asyncpg.Record
    text: str = field(repr=False)


class ApiKeys:
    """Makes, rotates and revokes keys on behalf of somebody, and tells every service."""

    def __init__(self, changes: Changes, clock: Clock) -> None:
        self._changes = changes
        self._clock = clock

    async def issue(self, asker: Principal, order: Order) -> Issued:
        """Make a key.

        Raises:
            Problem: 403 where it would be more than who asks, 404 where there is no such tenant, 409 where the tenant
                is blocked or has too many keys, 422 where the role is none of the tenant's or the end is past.
        """
        tenant_id = _home(asker, order.tenant_id)
        role = order.role or (Role.CUSTOMER_SUPPORT if tenant_id == INSTALLATION else Role.TENANT_USER)
        check_bounds(asker, role, order.scopes)
        _check_role(role, tenant_id)
        async with self._changes.transaction() as change:
            await queries.lock_keys(change.connection, [tenant_id])
            now = self._clock.now()
            _check_end(order.expires_at, now=now)
            _check_home(await queries.home(change.connection, tenant_id, now=now), tenant_id)
            key = api_keys.new_key(api_keys.new_id())
            values = {
                "key_id": key.id,
                "tenant_id": tenant_id,
                "name": order.name,
                "role": role,
                "scopes": sorted(order.scopes),
                "secrets": _written([_secret_of(key, order.expires_at)]),
                "created_by": asker.id,
                "created_at": now,
                "expires_at": order.expires_at,
            }
            row = await queries.insert_key(change.connection, values)
            change.tell(_changed(row))
            after = {
                "name": order.name, "role": role, "scopes": sorted(order.scopes), "expiresAt": order.expires_at
            }  # fmt: skip
            change.decided(asker, "api_key.issued", subject_of(key.id), tenant_id=tenant_id, after=after)
        return Issued(row, key.text)

    async def rotate(self, asker: Principal, key_id: str, *, overlap: timedelta) -> Issued:
        """Give a key a new secret; the one before stays good for a while, one before that does not.

        Args:
            overlap: how long; zero for not at all.

        Raises:
            Problem: 403 where the key is more than who asks, 404 where there is none that it can see, 409 where it is
                good no longer.
        """
        async with self._changes.transaction() as change:
            row = visible(await queries.lock_key(change.connection, key_id), key_id, asker)
            now = self._clock.now()
            check_bounds(asker, Role(row["role"]), row["scopes"])
            _check_good(row, now=now)
            key = api_keys.new_key(key_id)
            retiring = _retiring(_secrets_of(row), now=now, overlap=overlap)
            secrets = [_secret_of(key, row["expires_at"]), *retiring]
            row = await queries.replace_secrets(change.connection, key_id, _written(secrets))
            change.tell(_changed(row))
            change.decided(
                asker,
                "api_key.rotated",
                subject_of(key_id),
                tenant_id=row["tenant_id"],
                before={"revision": row["revision"] - 1},
                after={"revision": row["revision"], "overlapUntil": retiring[0].expires_at if retiring else now},
            )
        return Issued(row, key.text)

    async def revoke(self, asker: Principal, key_id: str) -> None:
        """End a key, and access by the tokens that were got for it; one that was revoked already stays so.

        Raises:
            Problem: 404 where there is none that it can see.
        """
        async with self._changes.transaction() as change:
            row = visible(await queries.lock_key(change.connection, key_id), key_id, asker)
            if row["revoked_at"] is not None:
                return
            now = self._clock.now()
            row = await queries.revoke_key(change.connection, key_id, now=now)
            change.tell(_changed(row, forget_at=now + _REMEMBERED))
            change.decided(
                asker,
                "api_key.revoked",
                subject_of(key_id),
                tenant_id=row["tenant_id"],
                before={"isRevoked": False},
                after={"isRevoked": True},
            )


async def authenticate(connection: Connection, key_text: str, now: datetime) -> asyncpg.Record | None:
    """Return the row of the key that a text is, if it is good at present and its tenant is not blocked."""
    key = api_keys.parse(key_text)
    row = await queries.usable_key(connection, key.id) if key is not None else None
    return row if key is not None and row is not None and is_one_of(key.digest, row["secrets"], now=now) else None


def check_bounds(asker: Principal, role: Role, scopes: Iterable[str]) -> None:
    """Check that a key would be no more than who asks for it.

    Raises:
        Problem: 403 when it would.
    """
    if asker.role is not asker.acts_as:
        detail = "Support makes no keys for a tenant: they would outlast its visit."
        raise Problem(403, code="forbidden", detail=detail)
    if _RANKS.index(role) > _RANKS.index(asker.role):
        raise Problem(403, code="forbidden", detail=f"A {asker.role} cannot make a key of a {role}.")
    if beyond := sorted(scope for scope in scopes if not _has(asker, scope)):
        detail = f"Whoever makes a key needs its scopes too; these are missing: {', '.join(beyond)}."
        raise Problem(403, code="insufficient_scope", detail=detail)


def subject_of(key_id: str) -> str:
    """Return what the audit trail calls a key."""
    return f"api-key:{key_id}"


def visible(row: asyncpg.Record | None, key_id: str, asker: Principal) -> asyncpg.Record:
    """Return a key that was looked for, if who asks can see it.

    Raises:
        Problem: 404 when there is none, and likewise when it is another tenant's.
    """
    if row is None or not asker.reaches(row["tenant_id"]):
        raise Problem(404, code="unknown_api_key", detail=f"There is no API key {key_id}.")
    return row


def _has(asker: Principal, scope: str) -> bool:
    resource, _, action = scope.rpartition(":")
    return asker.is_granted(action, resource) if resource else action in asker.scopes


def _home(asker: Principal, tenant_id: str | None) -> str:
    """Return the tenant of a key that is asked for, or what stands for none."""
    if tenant_id is None:
        return asker.tenant_id or INSTALLATION
    if tenant_id == INSTALLATION or not asker.reaches(tenant_id):
        _raise_unknown_tenant(tenant_id)
    return tenant_id


def _check_role(role: Role, tenant_id: str) -> None:
    possible, what = (OPERATORS, "an operator's key") if tenant_id == INSTALLATION else (MEMBERS, "a tenant's key")
    if role not in possible:
        detail = f"`role` must be {' or '.join(sorted(possible))} for {what}."
        raise Problem(422, code="validation_failed", detail=detail, errors=[FieldError("/role", detail)])


def _check_end(expires_at: datetime | None, *, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        detail = "`expiresAt` must be in the future."
        raise Problem(422, code="validation_failed", detail=detail, errors=[FieldError("/expiresAt", detail)])


def _check_home(home: asyncpg.Record, tenant_id: str) -> None:
    if not home["is_known"]:
        _raise_unknown_tenant(tenant_id)
    if home["is_blocked"]:
        detail = f"Nobody can sign in to tenant {tenant_id} at present, by a new key either."
        raise Problem(409, code="tenant_blocked", detail=detail)
    if home["live_keys"] >= MOST_KEYS:
        detail = f"There are {MOST_KEYS} API keys already; revoke one that is not used any more."
        raise Problem(409, code="too_many_api_keys", detail=detail)


def _raise_unknown_tenant(tenant_id: str) -> NoReturn:
    raise Problem(404, code="unknown_tenant", detail=f"There is no tenant {tenant_id}.")


def _check_good(row: asyncpg.Record, *, now: datetime) -> None:
    if row["revoked_at"] is not None:
        raise Problem(409, code="api_key_revoked", detail=f"API key {row['key_id']} was revoked.")
    if row["expires_at"] is not None and row["expires_at"] <= now:
        raise Problem(409, code="api_key_expired", detail=f"API key {row['key_id']} has expired.")


def _secret_of(key: api_keys.ApiKey, expires_at: datetime | None) -> ApiKeySecret:
    return ApiKeySecret(digest=key.digest.hex(), expires_at=expires_at)


def _secrets_of(row: asyncpg.Record) -> list[ApiKeySecret]:
    return [ApiKeySecret.model_validate(secret) for secret in row["secrets"]]


def _written(secrets: Iterable[ApiKeySecret]) -> list[Mapping[str, Any]]:
    return [secret.model_dump(mode="json", by_alias=True) for secret in secrets]


def _retiring(secrets: Sequence[ApiKeySecret], *, now: datetime, overlap: timedelta) -> list[ApiKeySecret]:
    """Return what stays of the secrets of a key that gets a new one: the newest, until the overlap ends."""
    if not overlap:
        return []
    newest, end = secrets[0], now + overlap
    return [newest.model_copy(update={"expires_at": min(newest.expires_at or end, end)})]


def _changed(row: asyncpg.Record, *, forget_at: datetime | None = None) -> ApiKeyChanged:
    return ApiKeyChanged(
        tenant_id=row["tenant_id"],
        key_id=row["key_id"],
        revision=row["revision"],
        role=row["role"],
        scopes=tuple(row["scopes"]),
        secrets=tuple(_secrets_of(row)),
        forget_at=forget_at,
    )


async def keep_uses(connection: Connection, facts: Sequence[KeysUsed]) -> Sequence[Fact]:
    """Know when keys were last used at the other services."""
    latest: dict[str, datetime] = {}
    for use in (use for fact in facts for use in fact.uses):
        latest[use.key_id] = max(use.used_at, latest.get(use.key_id, use.used_at))
    await queries.note_uses(connection, latest)
    return []


KEYS_USED: Subscriptions = {
    owner.ApiKeysUsed: hear(keep_uses) for owner in (onboarding, tenant, billing, metrics, provisioning)
}
"""What is heard of the use of keys; what is used here is noted by `note_own_uses`."""


async def note_own_uses(connection: Connection, uses: Mapping[str, datetime]) -> Sequence[Fact]:
    """Know when keys were last used at this service, and tell nobody."""
    await queries.note_uses(connection, uses)
    return []
