"""Letting in whom a tenant's own provider has recognised: who that is among our users, and whether it may be.

A provider speaks for its tenant alone, and only of addresses whose domain an operator has given to the tenant:
otherwise whoever runs a provider could be anybody here by claiming an address. What it calls somebody is remembered at
the first time, so that an address that changes hands lets nobody in as whoever had it before.
"""

from uuid import UUID

import asyncpg

from services.identity.changes import Change, Changes
from services.identity.inviting import locked_user
from services.identity.memberships import subject_of
from services.identity.providers.port import Recognised
from services.identity.queries import admitting as queries
from services.identity.queries import invitations, passwords, people, providers
from shared.access import Role
from shared.audit import Actor
from shared.clock import Clock
from shared.ids import Ids
from shared.text import email_key


class NotAdmittedError(Exception):
    """Somebody is recognised and not let in; the text says why, to itself."""


class Admitting:
    """Finds or makes the user of somebody whom a tenant's provider has recognised."""

    def __init__(self, changes: Changes, *, clock: Clock, ids: Ids) -> None:
        self._changes = changes
        self._clock = clock
        self._ids = ids

    async def admit(self, provider: asyncpg.Record, recognised: Recognised) -> UUID:
        """Return the user, who is a member of the tenant, its invitation accepted by having come this way.

        Args:
            provider: the tenant's, as `queries.providers.one` returns it.

        Raises:
            NotAdmittedError: the provider may not speak of the address, or the user is no member and not to be one.
        """
        if domain_of(recognised.email) not in provider["domains"]:
            raise NotAdmittedError("The organisation's provider may not speak for addresses of this domain.")
        tenant_id = provider["tenant_id"]
        async with self._changes.transaction() as change:
            user_id = await self._known_user(change, tenant_id, recognised)
            if user_id is None:
                user_id = await self._newcomer(change, provider, recognised)
            await self._link(change, tenant_id, user_id, recognised)
            await self._accept(change, tenant_id, user_id, also_late=provider["admits"] == "everyone")
        return user_id

    async def _known_user(self, change: Change, tenant_id: str, recognised: Recognised) -> UUID | None:
        """Return the member that the provider calls so, or else the one with the address, locked."""
        connection = change.connection
        user_id = await providers.user_of(connection, tenant_id, recognised.subject)
        if user_id is None:
            user = await passwords.by_email(connection, email_key(recognised.email))
            user_id = None if user is None else user["user_id"]
        if user_id is None or await people.lock_user(connection, user_id) is None:
            return None
        return user_id if await invitations.is_member(connection, tenant_id, user_id) else None

    async def _newcomer(self, change: Change, provider: asyncpg.Record, recognised: Recognised) -> UUID:
        if provider["admits"] != "everyone":
            raise NotAdmittedError("The user is no member here; an administrator has to invite it.")
        tenant_id, now = provider["tenant_id"], self._clock.now()
        user_id = await locked_user(change.connection, recognised.email, tenant_id, ids=self._ids, now=now)
        if await queries.enter(change.connection, tenant_id, user_id, role=Role.TENANT_USER, now=now):
            after = {"userId": user_id, "role": Role.TENANT_USER}
            by = Actor(f"provider:{tenant_id}")
            change.decided(by, "membership.begun", subject_of(user_id), tenant_id=tenant_id, after=after)
        return user_id

    async def _link(self, change: Change, tenant_id: str, user_id: UUID, recognised: Recognised) -> None:
        subject, now = recognised.subject, self._clock.now()
        linked = await providers.link(change.connection, tenant_id, user_id, kind="oidc", subject=subject, now=now)
        if linked is None or linked["subject"] != subject:
            raise NotAdmittedError(
                "The organisation's provider has known somebody else by this address. "
                "An administrator has to end that membership and invite anew."
            )

    async def _accept(self, change: Change, tenant_id: str, user_id: UUID, *, also_late: bool) -> None:
        now = self._clock.now()
        row = await queries.accept(change.connection, tenant_id, user_id, now=now, also_late=also_late)
        if row is not None:
            user = Actor(subject_of(user_id), Role(row["role"]))
            after = {"userId": user_id, "role": row["role"]}
            subject = f"invitation:{row['invitation_id']}"
            change.decided(user, "invitation.accepted", subject, tenant_id=tenant_id, after=after)


def domain_of(address: str) -> str:
    """Return the domain of an address, as domains are compared."""
    return email_key(address).rpartition("@")[2]
