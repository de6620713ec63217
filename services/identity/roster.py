"""Who is what in which tenant, what an ask makes of it, and how exactly that is taken back."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from services.identity.invitations import AT_ONCE, Person, new_token_hash, status_of
from shared.ids import Ids

Key = tuple[str, UUID]
"""A tenant and a user."""

_ADMINISTRATOR = "TenantAdmin"
_LESSER_ROLES = {"TenantUser"}


@dataclass(frozen=True, slots=True)
class InvitationRecord:
    """An invitation as it is stored; what has a default is missing in what earlier releases have written down.

    Attributes:
        token_hash: SHA-256, hexadecimal.
        customer_name: whom the mail says it comes from.
        invited_by: a principal's id; None for a workflow.
        attempts: how often sending it was begun.
        next_attempt_at: it is not sent before.
    """

    invitation_id: UUID
    role: str
    token_hash: str
    delivery: str
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None
    customer_name: str | None = None
    invited_by: str | None = None
    attempts: int = 0
    next_attempt_at: datetime = AT_ONCE


@dataclass(frozen=True, slots=True)
class Member:
    """What a user is in a tenant, since when, and by which invitation."""

    role: str
    created_at: datetime
    invitation: InvitationRecord | None


@dataclass(frozen=True, slots=True)
class Change:
    """What an ask made of a user in a tenant.

    Attributes:
        found: what the user was before; None for no member.
        left: what it was afterwards; None for no member.
    """

    person: Person
    found: Member | None
    left: Member | None


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms people become administrators now.

    Attributes:
        customer_name: whom their invitations say they come from.
    """

    now: datetime
    expires_at: datetime
    ids: Ids
    customer_name: str | None = None

    def naming(self, customer_name: str) -> Self:
        """Return the same terms for another customer."""
        return replace(self, customer_name=customer_name)

    def administrator(self, found: Member | None) -> Member:
        """Return what becomes of a user: an invited administrator, but never less than it was."""
        if found is None:
            return Member(_ADMINISTRATOR, self.now, self._invitation(None))
        role = _ADMINISTRATOR if found.role in _LESSER_ROLES else found.role
        return replace(found, role=role, invitation=self._invitation(found.invitation))

    def _invitation(self, found: InvitationRecord | None) -> InvitationRecord:
        if found is None:
            return self._new_invitation(self.ids.new())
        if status_of(accepted_at=found.accepted_at, expires_at=found.expires_at, now=self.now) == "expired":
            return self._new_invitation(found.invitation_id)
        return found

    def _new_invitation(self, invitation_id: UUID) -> InvitationRecord:
        return InvitationRecord(
            invitation_id=invitation_id,
            role=_ADMINISTRATOR,
            token_hash=new_token_hash().hex(),
            delivery="pending",
            created_at=self.now,
            expires_at=self.expires_at,
            accepted_at=None,
            customer_name=self.customer_name,
        )


class Roster:
    """Memberships as they were found, and as they will be left when what is different is written.

    Args:
        people: the users that it is about, locked.
        found: what they are in the tenants that it is about.
    """

    def __init__(self, people: Mapping[UUID, Person], found: Mapping[Key, Member]) -> None:
        self.found = found
        self._people = people
        self._members = dict(found)
        self._users: dict[str, set[UUID]] = defaultdict(set)
        for tenant_id, user_id in found:
            self._users[tenant_id].add(user_id)

    @classmethod
    def of(cls, rows: Iterable[asyncpg.Record]) -> Self:
        """Make it from the rows of `queries.roster`."""
        people, found = {}, {}
        for row in rows:
            people[row["user_id"]] = _person(row)
            if row["role"] is not None:
                found[row["tenant_id"], row["user_id"]] = _member(row)
        return cls(people, found)

    def appoint(self, tenant_id: str, user_ids: Iterable[UUID], terms: Terms) -> list[Change]:
        """Make these users administrators of a tenant and return what that changes."""
        keys = [(tenant_id, user_id) for user_id in user_ids]
        return self._leave({key: terms.administrator(self._members.get(key)) for key in keys})

    def appoint_only(self, tenant_id: str, user_ids: Sequence[UUID], terms: Terms) -> list[Change]:
        """Make these users the only administrators of a tenant and return what that changes."""
        members = {(tenant_id, user_id): self._members.get((tenant_id, user_id)) for user_id in self._users[tenant_id]}
        others = [
            key
            for key, member in members.items()
            if member is not None and member.role == _ADMINISTRATOR and key[1] not in user_ids
        ]
        return [*self._leave(dict.fromkeys(others)), *self.appoint(tenant_id, user_ids, terms)]

    def take_back(self, change: Change, key: Key) -> None:
        """Undo a change of what ``key`` is, but nothing that somebody else has done since."""
        self._leave({key: _taken_back(change, self._members.get(key))})

    def _leave(self, members: Mapping[Key, Member | None]) -> list[Change]:
        changes = []
        for key, left in members.items():
            found = self._members.pop(key, None)
            if left is not None:
                self._members[key] = left
                self._users[key[0]].add(key[1])
            if left != found:
                changes.append(Change(self._people[key[1]], found, left))
        return changes

    @property
    def withdrawn(self) -> list[Key]:
        """Whose invitations are to be deleted."""
        return [
            key
            for key, found in self.found.items()
            if found.invitation is not None and _invitation_of(self._members.get(key)) is None
        ]

    @property
    def ended(self) -> list[Key]:
        """Whose memberships are to be deleted."""
        return [key for key in self.found if key not in self._members]

    @property
    def lowered(self) -> list[Key]:
        """Who is less than before, though still a member."""
        return [
            key
            for key, member in self.entered.items()
            if member.role in _LESSER_ROLES and key in self.found and self.found[key].role not in _LESSER_ROLES
        ]

    @property
    def entered(self) -> dict[Key, Member]:
        """Which memberships are to be made or have another role."""
        return {
            key: member
            for key, member in self._members.items()
            if key not in self.found or member.role != self.found[key].role
        }

    @property
    def invited(self) -> dict[Key, InvitationRecord]:
        """Which invitations are to be made or changed."""
        return {
            key: member.invitation
            for key, member in self._members.items()
            if member.invitation is not None and member.invitation != _invitation_of(self.found.get(key))
        }


def _invitation_of(member: Member | None) -> InvitationRecord | None:
    return None if member is None else member.invitation


def _person(row: asyncpg.Record) -> Person:
    return Person(row["user_id"], row["email"], row["email_key"], row["user_created_at"], row["name"], row["password"])


def _member(row: asyncpg.Record) -> Member:
    if row["invitation_id"] is None:
        return Member(row["role"], row["created_at"], None)
    invitation = InvitationRecord(
        invitation_id=row["invitation_id"],
        role=row["invitation_role"],
        token_hash=row["token_hash"],
        delivery=row["delivery"],
        created_at=row["invited_at"],
        expires_at=row["expires_at"],
        accepted_at=row["accepted_at"],
        customer_name=row["customer_name"],
        invited_by=row["invited_by"],
        attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"],
    )
    return Member(row["role"], row["created_at"], invitation)


def _taken_back(change: Change, now: Member | None) -> Member | None:
    """Return what a user, who is something ``now``, was without the change."""
    if change.found is None:
        return None
    if change.left is None:
        return _readmitted(change.found, now)
    if now is None:
        return None
    role = change.found.role if now.role == change.left.role else now.role
    return replace(now, role=role, invitation=_invitation_taken_back(change.found, change.left, now))


def _readmitted(found: Member, now: Member | None) -> Member:
    if now is None:
        return found
    role = found.role if now.role in _LESSER_ROLES else now.role
    return replace(now, role=role, invitation=now.invitation or found.invitation)


def _invitation_taken_back(found: Member, left: Member, now: Member) -> InvitationRecord | None:
    if found.invitation == left.invitation:
        return now.invitation
    is_accepted = now.invitation is not None and now.invitation.accepted_at is not None
    return now.invitation if is_accepted else found.invitation


_CHANGES = TypeAdapter(list[Change])


def before_of(changes: Sequence[Change]) -> Mapping[str, Any] | None:
    """Return as JSON all that is needed to take these changes back; None where there are none."""
    return {"changes": _CHANGES.dump_python(list(changes), mode="json")} if changes else None


def changes_of(before: Mapping[str, Any] | None) -> list[Change]:
    """Return the changes that `before_of` has written down."""
    return _CHANGES.validate_python(before["changes"]) if before else []
