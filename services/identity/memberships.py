"""What somebody is in a tenant, changed or ended by hand; what is lost by it is lost at once, in every session."""

from typing import Final
from uuid import UUID

from services.identity.changes import Change, Changes
from services.identity.queries import invitations, members, people
from services.identity.queries import sessions as session_queries
from services.identity.sessions import end_sessions_of_members, revocations
from shared.access import MEMBERS, OPERATORS, Principal, Role
from shared.clock import Clock
from shared.contracts.base import INSTALLATION
from shared.http import FieldError, Problem

_RANK: Final = {Role.TENANT_USER: 0, Role.TENANT_ADMIN: 1, Role.CUSTOMER_SUPPORT: 0, Role.SYSTEM_ADMIN: 1}


class Memberships:
    """Changes and ends what users are in tenants, and operators in the installation."""

    def __init__(self, changes: Changes, *, clock: Clock) -> None:
        self._changes = changes
        self._clock = clock

    async def set_role(self, asker: Principal, tenant_id: str, user_id: UUID, role: Role) -> None:
        """Give a member another role.

        Raises:
            Problem: 403 for an administrator that support makes, 404 where the asker knows no such member, 409 for the
                last administrator, 422 for a role that nobody can have there.
        """
        require_reach(asker, tenant_id, user_id)
        require_lasting(asker, role)
        require_role_of(tenant_id, role)
        async with self._changes.transaction() as change:
            await people.lock_administrators_and(change.connection, tenant_id, user_id)
            found = await self._set_role(change, tenant_id, user_id, role)
            if found != role:
                change.decided(
                    asker,
                    "membership.role_changed",
                    subject_of(user_id),
                    tenant_id=tenant_id,
                    before={"role": found},
                    after={"role": role},
                )

    async def _set_role(self, change: Change, tenant_id: str, user_id: UUID, role: Role) -> str:
        """Give a member another role and return the one that it had."""
        found = await people.role_of(change.connection, tenant_id, user_id)
        if found is None:
            raise unknown_member(tenant_id, user_id)
        is_less = _RANK[role] < _RANK[Role(found)]
        if is_less:
            await end_sessions_in(change, tenant_id, user_id, clock=self._clock)
            await _require_another_administrator(change, tenant_id, user_id, found)
        # Whoever is being let in as what the user was is waited for.
        await people.lock_membership(change.connection, tenant_id, user_id)
        await people.set_role(change.connection, tenant_id, user_id, role)
        if is_less:
            await end_sessions_in(change, tenant_id, user_id, clock=self._clock)
        return found

    async def remove(self, asker: Principal, tenant_id: str, user_id: UUID) -> None:
        """Let a user be no member any more; one that then belongs nowhere is forgotten.

        Raises:
            Problem: 404 where the asker knows no such member, 409 for the last administrator.
        """
        require_reach(asker, tenant_id, user_id)
        async with self._changes.transaction() as change:
            await people.lock_administrators_and(change.connection, tenant_id, user_id)
            role = await remove_member(change, tenant_id, user_id, clock=self._clock)
            before = {"role": role}
            change.decided(asker, "membership.ended", subject_of(user_id), tenant_id=tenant_id, before=before)


def subject_of(user_id: UUID | str) -> str:
    """Return what the audit trail calls a user."""
    return f"user:{user_id}"


async def remove_member(change: Change, tenant_id: str, user_id: UUID, *, clock: Clock) -> str:
    """Let a user, who is locked with all administrators of the tenant, be no member any more; return what it was.

    Raises:
        Problem: 404 when it is none, 409 when it is the last administrator.
    """
    role = await people.role_of(change.connection, tenant_id, user_id)
    if role is None:
        raise unknown_member(tenant_id, user_id)
    await _require_another_administrator(change, tenant_id, user_id, role)
    # First, because whoever refreshes a session locks it before the membership.
    await end_sessions_in(change, tenant_id, user_id, clock=clock)
    await people.lock_membership(change.connection, tenant_id, user_id)
    await invitations.withdraw(change.connection, tenant_id, user_id)
    await members.end_memberships(change.connection, [(tenant_id, user_id)])
    # And again, for those that were begun until the membership was locked.
    await end_sessions_in(change, tenant_id, user_id, clock=clock)
    await members.delete_users_without_membership(change.connection, [user_id])
    return role


async def end_sessions_in(change: Change, tenant_id: str, user_id: UUID, *, clock: Clock) -> None:
    """End a member's sessions in a tenant; an operator's in all, since there it acts as what it is no more."""
    if tenant_id == INSTALLATION:
        ended = await session_queries.end_of_user(change.connection, user_id, but=None)
        change.tell(*revocations(ended, now=clock.now()))
    else:
        facts = await end_sessions_of_members(change.connection, [(tenant_id, user_id)], now=clock.now())
        change.tell(*facts)


async def _require_another_administrator(change: Change, tenant_id: str, user_id: UUID, role: str) -> None:
    """Keep a tenant from having nobody left who administers it, or nobody who can sign in to do so."""
    if role != Role.TENANT_ADMIN:
        return
    others, others_accepted = await people.other_administrators(change.connection, tenant_id, user_id)
    is_accepted = await people.has_accepted(change.connection, tenant_id, user_id)
    if others_accepted or (others and not is_accepted):
        return
    raise Problem(
        409,
        code="last_administrator",
        detail=f"User {user_id} is the last administrator of tenant {tenant_id}. Make somebody else one first.",
    )


def require_role_of(tenant_id: str, role: Role) -> None:
    """Refuse a role that nobody can have there.

    Raises:
        Problem: 422.
    """
    possible = OPERATORS if tenant_id == INSTALLATION else MEMBERS
    if role not in possible:
        names = " or ".join(each for each in Role if each in possible)
        detail = f"`role` must be {names} there."
        raise Problem(422, code="wrong_role", detail=detail, errors=[FieldError("/role", detail)])


def require_lasting(asker: Principal, role: Role) -> None:
    """Refuse that support makes somebody an administrator of a tenant: that would outlast its visit.

    Raises:
        Problem: 403.
    """
    if asker.role is not asker.acts_as and role is Role.TENANT_ADMIN:
        detail = "Support makes nobody an administrator: that would outlast its visit."
        raise Problem(403, code="forbidden", detail=detail)


def require_reach(asker: Principal, tenant_id: str, user_id: UUID) -> None:
    """Answer about a tenant that the asker cannot know of as about one that is not there.

    Raises:
        Problem: 404.
    """
    if not asker.reaches(tenant_id):
        raise unknown_member(tenant_id, user_id)


def unknown_member(tenant_id: str, user_id: UUID) -> Problem:
    """Return the answer about somebody who is no member of a tenant, whatever the reason."""
    return Problem(404, code="unknown_member", detail=f"User {user_id} is no member of tenant {tenant_id}.")
