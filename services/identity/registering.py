"""How a tenant comes by an identity provider of its own, and what ends when it has another one or none."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import asyncpg
from cryptography.fernet import MultiFernet

from services.identity.changes import Change, Changes
from services.identity.inviting import lock_tenant, unknown_tenant
from services.identity.providers.discovery import Discovery
from services.identity.providers.port import ProviderUnavailableError
from services.identity.queries import providers as queries
from services.identity.queries import sessions
from services.identity.sessions import revocations
from shared.access import Principal, Role
from shared.audit import changed
from shared.clock import Clock
from shared.http import FieldError, Problem

Admits = Literal["members", "everyone"]
PoolKind = Literal["shared", "own"]


@dataclass(frozen=True)
class OidcOrder:
    """An OpenID provider that a tenant wants to go by.

    Attributes:
        client_secret: None for the one that is known already.
        is_required: whether nobody gets in with a password of ours.
        admits: whether whom it recognises becomes a user of the tenant, or is one already.
    """

    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False)
    is_required: bool
    admits: Admits


class Registering:
    """Registers, changes and ends tenants' providers.

    Args:
        has_cognito: whether it is configured.
    """

    def __init__(
        self, changes: Changes, discovery: Discovery, *, vault: MultiFernet, clock: Clock, has_cognito: bool
    ) -> None:
        self._changes = changes
        self._discovery = discovery
        self._vault = vault
        self._clock = clock
        self._has_cognito = has_cognito

    async def put_oidc(self, tenant_id: str, order: OidcOrder, asker: Principal) -> asyncpg.Record:
        """Let a tenant's people sign in at its own OpenID provider, which is asked what it is first.

        Raises:
            Problem: 403 for support, 404 for a tenant that is not there or the asker's, 409 for one in Cognito, or that
                would be closed by a provider that nobody has come from yet, 422 for an issuer that is not one.
        """
        _require_own(tenant_id, asker)
        try:
            await self._discovery.check(order.issuer)
        except ProviderUnavailableError as error:
            raise _wrong("/issuer", "unusable_issuer", str(error)) from error
        async with self._changes.transaction() as change:
            found = await self._locked(change, tenant_id)
            if found is not None and found["kind"] == "cognito":
                raise Problem(409, code="in_cognito", detail="The tenant's people are in Cognito.")
            is_same = found is not None and _names(found) == (order.issuer, order.client_id)
            if order.is_required and asker.role is not Role.SYSTEM_ADMIN:
                await _require_tried(change, tenant_id, is_same=is_same)
            if found is not None and not is_same:
                await self._end(change, tenant_id)
            secret = self._secret(order, found)
            row = _row(tenant_id, order, secret, now=self._clock.now())
            return await self._write(change, row, found, asker, secret_changed=order.client_secret is not None)

    async def put_cognito(self, tenant_id: str, pool: PoolKind, asker: Principal) -> asyncpg.Record:
        """Let a tenant's people be in Cognito, into which nobody has got yet: passwords cannot be moved there.

        Raises:
            Problem: 403 for all but system administrators, 404 for a tenant that is not there, 409 for one that people
                have got into, or where Cognito is not configured.
        """
        _require_own(tenant_id, asker)
        if asker.role is not Role.SYSTEM_ADMIN:
            raise Problem(403, code="forbidden", detail="Only a SystemAdmin lets a tenant be in Cognito.")
        if not self._has_cognito:
            raise Problem(
                409, code="no_cognito", detail="Cognito is not configured: see TENURE_IDENTITY_COGNITO_REGION."
            )
        async with self._changes.transaction() as change:
            found = await self._locked(change, tenant_id)
            if found is not None and (found["kind"], found["pool"]) == ("cognito", pool):
                return found
            await _require_untouched(change, tenant_id)
            row = {"tenant_id": tenant_id, "kind": "cognito", "is_required": True, "admits": "members", "pool": pool}
            if pool == "own":
                await queries.want_pools(change.connection, [tenant_id])
            await queries.set_domains(change.connection, tenant_id, [])
            return await self._write(change, {**row, "changed_at": self._clock.now()}, found, asker)

    async def delete(self, tenant_id: str, asker: Principal) -> None:
        """Let a tenant's people sign in with passwords of ours, as far as they have any.

        Raises:
            Problem: 403 for support, 404 where there is none or not for the asker, 409 for Cognito, where the passwords
                of people are that have got in already.
        """
        _require_own(tenant_id, asker)
        async with self._changes.transaction() as change:
            found = await self._locked(change, tenant_id)
            if found is None:
                raise unknown_provider(tenant_id)
            if found["kind"] == "cognito":
                await _require_untouched(change, tenant_id)
            await self._end(change, tenant_id)
            await queries.delete(change.connection, [tenant_id])
            change.decided(
                asker, "identity_provider.deleted", subject_of(tenant_id), tenant_id=tenant_id, before=_told(found)
            )

    async def set_domains(self, tenant_id: str, domains: Sequence[str], asker: Principal) -> asyncpg.Record:
        """Say whose addresses a tenant's own provider may vouch for; sessions that it has opened end.

        Raises:
            Problem: 404 for a tenant without an OpenID provider, 409 for a domain that is another tenant's.
        """
        async with self._changes.transaction() as change:
            found = await self._locked(change, tenant_id)
            if found is None or found["kind"] != "oidc":
                raise unknown_provider(tenant_id)
            await queries.lock_domains(change.connection)
            if taken := await queries.taken_domain(change.connection, domains, but=tenant_id):
                detail = f"{taken} is another tenant's."
                raise Problem(409, code="domain_taken", detail=detail, errors=[FieldError("/domains", detail)])
            if set(found["domains"]) - set(domains):
                await self._end_sessions(change, tenant_id)
            await queries.set_domains(change.connection, tenant_id, domains)
            return await self._told_of(change, tenant_id, found, asker)

    async def _locked(self, change: Change, tenant_id: str) -> asyncpg.Record | None:
        """Return the provider of a tenant, which is there until the commit and has no other meanwhile."""
        await lock_tenant(change.connection, tenant_id)
        return await queries.one(change.connection, tenant_id)

    async def _write(
        self, change: Change, row: dict[str, Any], found: asyncpg.Record | None, asker: Principal, **more: Any
    ) -> asyncpg.Record:
        await queries.put(change.connection, row)
        return await self._told_of(change, row["tenant_id"], found, asker, **more)

    async def _told_of(
        self,
        change: Change,
        tenant_id: str,
        found: asyncpg.Record | None,
        asker: Principal,
        *,
        secret_changed: bool = False,
    ) -> asyncpg.Record:
        """Say what is decided, and return what there is now."""
        now_there = await queries.one(change.connection, tenant_id)
        assert now_there is not None
        before, after = changed(_told(found), _told(now_there))
        if secret_changed:
            after = {**after, "clientSecret": "changed"}
        if before or after:
            action = "identity_provider.registered" if found is None else "identity_provider.changed"
            change.decided(
                asker, action, subject_of(tenant_id), tenant_id=tenant_id, before=before or None, after=after
            )
        return now_there

    async def _end(self, change: Change, tenant_id: str) -> None:
        await self._end_sessions(change, tenant_id)
        await queries.unlink(change.connection, tenant_id)

    async def _end_sessions(self, change: Change, tenant_id: str) -> None:
        ended = await sessions.end_of_realm(change.connection, tenant_id)
        change.tell(*revocations(ended, now=self._clock.now()))

    def _secret(self, order: OidcOrder, found: asyncpg.Record | None) -> bytes:
        if order.client_secret is not None:
            return self._vault.encrypt(order.client_secret.encode())
        if found is None or found["client_secret"] is None:
            raise _wrong("/clientSecret", "client_secret_required", "`clientSecret` is required: none is known yet.")
        secret: bytes = found["client_secret"]
        return secret


def _names(row: asyncpg.Record) -> tuple[str, str]:
    return row["issuer"], row["client_id"]


def _row(tenant_id: str, order: OidcOrder, secret: bytes, *, now: datetime) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "kind": "oidc",
        "is_required": order.is_required,
        "admits": order.admits,
        "issuer": order.issuer,
        "client_id": order.client_id,
        "client_secret": secret,
        "changed_at": now,
    }


def _told(row: asyncpg.Record | None) -> dict[str, Any]:
    """Return what the audit trail is told of a provider; nothing where there is none, and never a secret."""
    if row is None:
        return {}
    names = {"kind": "kind", "isRequired": "is_required", "admits": "admits", "issuer": "issuer",
             "clientId": "client_id", "pool": "pool", "domains": "domains"}  # fmt: skip
    return {name: row[column] for name, column in names.items() if row[column] is not None}


def _require_own(tenant_id: str, asker: Principal) -> None:
    """Refuse whoever is elsewhere, and support: who can change the way in has a way in when its visit is over."""
    if not asker.reaches(tenant_id):
        raise unknown_tenant(tenant_id)
    if asker.role is not asker.acts_as:
        detail = "Support changes no way in: it would outlast its visit."
        raise Problem(403, code="forbidden", detail=detail)


async def _require_tried(change: Change, tenant_id: str, *, is_same: bool) -> None:
    if not is_same or not await queries.has_anybody_come(change.connection, tenant_id):
        detail = (
            "Nobody has signed in through this provider yet, so requiring it might lock everybody out. "
            "Set it up without `isRequired`, sign in through it once, then require it."
        )
        raise Problem(409, code="not_tried", detail=detail, errors=[FieldError("/isRequired", detail)])


async def _require_untouched(change: Change, tenant_id: str) -> None:
    if await queries.has_anybody_entered(change.connection, tenant_id):
        detail = "People have got into the tenant already; their passwords cannot be moved."
        raise Problem(409, code="passwords_elsewhere", detail=detail)


def _wrong(pointer: str, code: str, detail: str) -> Problem:
    return Problem(422, code=code, detail=detail, errors=[FieldError(pointer, detail)])


def subject_of(tenant_id: str) -> str:
    """Return what the audit trail calls a tenant's provider."""
    return f"identity-provider:{tenant_id}"


def unknown_provider(tenant_id: str) -> Problem:
    """Return the answer about a provider that is not there, or that the asker cannot know of."""
    detail = f"Tenant {tenant_id} has no identity provider of its own."
    return Problem(404, code="unknown_identity_provider", detail=detail)
