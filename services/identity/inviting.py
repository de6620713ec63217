"""How people are invited by hand, and how they accept."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from services.identity.changes import Change, Changes
from services.identity.invitations import BETWEEN_MAILS, Person, Token, new_token_hash, status_of
from services.identity.memberships import remove_member, require_lasting, require_role_of, subject_of
from services.identity.passwords import check_password, hash_password
from services.identity.providers.port import ProviderUnavailableError
from services.identity.providers.realms import Realms
from services.identity.queries import invitations as queries
from services.identity.queries import members, people, providers
from services.identity.signin import unavailable
from shared.access import OPERATORS, Principal, Role
from shared.audit import Actor
from shared.clock import Clock
from shared.contracts.base import INSTALLATION
from shared.http import FieldError, Problem
from shared.ids import Ids
from shared.postgres import Connection, Pool
from shared.text import email_key

MOST_OPEN = 1000
"""How many invitations into one tenant may be open; the rest has to wait until some are accepted or expire."""

_CONNECTION_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """Who is to be invited.

    Attributes:
        tenant_id: `INSTALLATION` for an operator.
    """

    email: str
    role: Role
    tenant_id: str


class Inviting:
    """Makes, renews, withdraws and accepts invitations.

    Args:
        lifetime: how long one is good.
    """

    def __init__(
        self, pool: Pool, changes: Changes, realms: Realms, *, clock: Clock, ids: Ids, lifetime: timedelta
    ) -> None:
        self._pool = pool
        self._changes = changes
        self._realms = realms
        self._clock = clock
        self._ids = ids
        self._lifetime = lifetime

    async def invite(self, order: Order, asker: Principal) -> tuple[asyncpg.Record, bool]:
        """Invite somebody and return the invitation, and whether it is new: one that is open already is left alone.

        Raises:
            Problem: 404 for a tenant that has no members, 409 for somebody who is a member or invited as something
                else, and where too many invitations are open.
        """
        async with self._changes.transaction() as change:
            user_id = await locked_user(
                change.connection, order.email, order.tenant_id, ids=self._ids, now=self._clock.now()
            )
            standing = await queries.standing(change.connection, order.tenant_id, user_id)
            if standing is None:
                invitation_id = await self._insert(change, order, user_id, asker)
            else:
                invitation_id = await self._renewed(change, order, standing, asker)
            row = await queries.invitation(change.connection, invitation_id, tenant_id=order.tenant_id)
        assert row is not None
        return row, standing is None

    async def _insert(self, change: Change, order: Order, user_id: UUID, asker: Principal) -> UUID:
        now, connection = self._clock.now(), change.connection
        await self._require_room(connection, order.tenant_id)
        invitation_id = self._ids.new()
        await queries.insert(
            connection,
            {
                "invitation_id": invitation_id,
                "tenant_id": order.tenant_id,
                "user_id": user_id,
                "role": order.role,
                "token_hash": new_token_hash(),
                "customer_name": await queries.customer_name(connection, order.tenant_id),
                "invited_by": asker.id,
                "created_at": now,
                "expires_at": now + self._lifetime,
            },
        )
        after = {"userId": user_id, "role": order.role, "expiresAt": now + self._lifetime}
        change.decided(
            asker, "invitation.made", _subject_of(invitation_id), tenant_id=order.tenant_id, after=after
        )  # fmt: skip
        return invitation_id

    async def _renewed(self, change: Change, order: Order, standing: asyncpg.Record, asker: Principal) -> UUID:
        invitation_id: UUID | None = standing["invitation_id"]
        if invitation_id is None or standing["accepted_at"] is not None:
            raise _taken("already_member", f"{order.email} is a member already.")
        if standing["role"] != order.role:
            raise _taken(
                "already_invited", f"{order.email} is invited as {standing['role']}. Change that role instead."
            )
        now = self._clock.now()
        if status_of(accepted_at=None, expires_at=standing["expires_at"], now=now) == "expired":
            await self._require_room(change.connection, order.tenant_id)
            until = now + self._lifetime
            await queries.renew(
                change.connection, invitation_id, new_token_hash(), invited_by=asker.id, now=now, until=until
            )
            change.decided(
                asker, "invitation.renewed", _subject_of(invitation_id), tenant_id=order.tenant_id,
                before={"expiresAt": standing["expires_at"]}, after={"expiresAt": until},
            )  # fmt: skip
        return invitation_id

    async def _require_room(self, connection: Connection, tenant_id: str) -> None:
        if await queries.count_open(connection, tenant_id, now=self._clock.now(), limit=MOST_OPEN) >= MOST_OPEN:
            detail = f"{MOST_OPEN} invitations are open, which is the most. Withdraw some, or wait until they expire."
            raise Problem(409, code="too_many_invitations", detail=detail)

    async def resend(self, invitation_id: UUID, asker: Principal) -> asyncpg.Record:
        """Have another mail sent, with a new token and for the whole time again, and return the invitation.

        Raises:
            Problem: 404 where the asker knows no such invitation, 409 when it was accepted.
        """
        async with self._changes.transaction() as change:
            seen = await self._seen(change.connection, invitation_id, asker)
            await people.lock_user(change.connection, seen["user_id"])
            found = await queries.lock_invitation(change.connection, invitation_id)
            if found is None:
                raise unknown_invitation(invitation_id)
            if found["accepted_at"] is not None:
                raise Problem(409, code="invitation_accepted", detail=f"Invitation {invitation_id} was accepted.")
            now = self._clock.now()
            await queries.resend(
                change.connection,
                invitation_id,
                new_token_hash(),
                latest=now + BETWEEN_MAILS,
                until=now + self._lifetime,
            )
            change.decided(
                asker, "invitation.resent", _subject_of(invitation_id), tenant_id=found["tenant_id"],
                before={"expiresAt": found["expires_at"]}, after={"expiresAt": now + self._lifetime},
            )  # fmt: skip
            row = await queries.invitation(change.connection, invitation_id, tenant_id=None)
        assert row is not None
        return row

    async def withdraw(self, invitation_id: UUID, asker: Principal) -> None:
        """Forget an invitation; whoever has not accepted it is no member any more.

        Raises:
            Problem: 404 where the asker knows no such invitation, 409 for the last administrator's.
        """
        async with self._changes.transaction() as change:
            seen = await self._seen(change.connection, invitation_id, asker)
            tenant_id, user_id = seen["tenant_id"], seen["user_id"]
            await people.lock_administrators_and(change.connection, tenant_id, user_id)
            found = await self._withdraw(change, invitation_id, tenant_id, user_id)
            before = {"userId": user_id, "role": found["role"], "isAccepted": found["accepted_at"] is not None}
            subject = _subject_of(invitation_id)
            change.decided(asker, "invitation.withdrawn", subject, tenant_id=tenant_id, before=before)

    async def _withdraw(self, change: Change, invitation_id: UUID, tenant_id: str, user_id: UUID) -> asyncpg.Record:
        found = await queries.lock_invitation(change.connection, invitation_id)
        if found is None:
            raise unknown_invitation(invitation_id)
        if found["accepted_at"] is None:
            await remove_member(change, tenant_id, user_id, clock=self._clock)
        else:
            await queries.withdraw(change.connection, tenant_id, user_id)
        return found

    async def _seen(self, connection: Connection, invitation_id: UUID, asker: Principal) -> asyncpg.Record:
        row = await queries.invitation(connection, invitation_id, tenant_id=asker.tenant_id)
        if row is None:
            raise unknown_invitation(invitation_id)
        return row

    async def accept(self, token: Token, password: str | None) -> asyncpg.Record:
        """Let the bearer of a token in and return the invitation.

        A mail may give a password to somebody who has none. It must not replace one: whoever reads somebody's mail,
        or sends an invitation to an address of its own making, would take over what the user is elsewhere.

        Raises:
            Problem: 404 for a token that is not good, whatever the reason; 409 for a password of somebody who has one,
                here or at a provider of the tenant's own; 422 for none, or a weak one, of somebody who needs it; 503
                where whoever keeps the tenant's passwords does not answer.
        """
        found = await self._invitation_of(token)
        hashed = None
        if found["kind"] == "cognito":
            await self._enrol(found, password)
        elif found["kind"] == "oidc":
            _require_none(password)
        else:
            hashed = await _first_password(found, password)
        async with self._changes.transaction() as change:
            await people.lock_user(change.connection, found["user_id"])
            if await providers.required_kind(change.connection, found["tenant_id"]) != found["kind"]:
                raise _provider_changing()
            now = self._clock.now()
            invitation_id = await queries.accept(change.connection, token.hash, now=now)
            if invitation_id is None:
                raise _not_good()
            if hashed and not await queries.put_first_password(change.connection, found["user_id"], hashed, now=now):
                raise _has_password()
            row = await queries.invitation(change.connection, invitation_id, tenant_id=None)
            assert row is not None
            self._let_in(change, row, has_new_password=hashed is not None)
        return row

    async def _enrol(self, found: asyncpg.Record, password: str | None) -> None:
        """Give somebody an account with this password where its tenant's people are.

        Again, where it was given one and we have crashed since: nobody has got in with that yet.
        """
        tenant_id, email, chosen = found["tenant_id"], found["email"], _required(password)
        check_password(chosen, email=email)
        try:
            directory = await self._realms.of_passwords(tenant_id)
            await self._expect_account(tenant_id, found["user_id"])
            await directory.enrol(found["user_id"], email, chosen)
        except ProviderUnavailableError as error:
            raise unavailable(error, tenant_id) from error

    async def _expect_account(self, tenant_id: str, user_id: UUID) -> None:
        """Write down that a member is about to have an account, so that it is deleted whatever becomes of us.

        Raises:
            Problem: 404 where it is no member any more.
            ProviderUnavailableError: one that it had before is being deleted.
        """
        async with self._changes.transaction() as change:
            await people.lock_user(change.connection, user_id)
            if not await queries.is_member(change.connection, tenant_id, user_id):
                raise _not_good()
            subject, now = str(user_id), self._clock.now()
            linked = await providers.link(
                change.connection, tenant_id, user_id, kind="cognito", subject=subject, now=now
            )
        if linked is None:
            raise ProviderUnavailableError("an account that the user had before is being deleted")

    def _let_in(self, change: Change, row: asyncpg.Record, *, has_new_password: bool) -> None:
        user, tenant_id = Actor(subject_of(row["user_id"]), Role(row["role"])), row["tenant_id"]
        after = {"userId": row["user_id"], "role": row["role"]}
        subject = _subject_of(row["invitation_id"])
        change.decided(user, "invitation.accepted", subject, tenant_id=tenant_id, after=after)
        if has_new_password:
            change.decided(user, "password.set", user.id, tenant_id=tenant_id)

    async def _invitation_of(self, token: Token) -> asyncpg.Record:
        async with self._pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            found = await queries.by_token(connection, token.hash, now=self._clock.now())
        if found is None:
            raise _not_good()
        return found


async def locked_user(connection: Connection, email: str, tenant_id: str, *, ids: Ids, now: datetime) -> UUID:
    """Return the user of an address, made where there was none, and see that the tenant is there until the commit.

    Whoever purges a tenant locks all its members first. It is enough that one of them is locked here.

    Raises:
        Problem: 404 for a tenant that has no members.
    """
    key = email_key(email)
    people_ = {key: Person(ids.new(), email, key, now)}
    if tenant_id == INSTALLATION:
        return (await members.upsert_users(connection, people_.values()))[key]
    witness = await queries.first_member(connection, tenant_id)
    if witness is None:
        raise unknown_tenant(tenant_id)
    users = await members.upsert_users(connection, ({witness.email_key: witness} | people_).values())
    if not await queries.is_member(connection, tenant_id, users[witness.email_key]):
        raise await _members_gone(connection, tenant_id)
    return users[key]


async def lock_tenant(connection: Connection, tenant_id: str) -> None:
    """See that a tenant is there until the commit, and that nobody else who does so changes it meanwhile.

    Raises:
        Problem: 404 for a tenant that has no members.
    """
    witness = await queries.first_member(connection, tenant_id)
    if witness is None:
        raise unknown_tenant(tenant_id)
    await people.lock_user(connection, witness.user_id)
    if not await queries.is_member(connection, tenant_id, witness.user_id):
        raise await _members_gone(connection, tenant_id)


async def _first_password(found: asyncpg.Record, password: str | None) -> str | None:
    """Return what is kept of the password that somebody gives who has none; hashed before anything is locked."""
    if found["has_password"]:
        if password is not None:
            raise _has_password()
        return None
    chosen = _required(password)
    check_password(chosen, email=found["email"])
    return await hash_password(chosen)


def _required(password: str | None) -> str:
    if password is None:
        detail = "`password` is required: the user has none yet."
        raise Problem(422, code="password_required", detail=detail, errors=[FieldError("/password", detail)])
    return password


def _require_none(password: str | None) -> None:
    if password is not None:
        detail = "The organisation keeps its own passwords. Accept without one, and sign in with the organisation's."
        raise Problem(409, code="password_elsewhere", detail=detail, errors=[FieldError("/password", detail)])


def order_of(email: str, role: Role, tenant_id: str | None, asker: Principal) -> Order:
    """Return whom somebody wants to invite, if it may: nobody gives more than it has, or elsewhere than it is.

    Raises:
        Problem: 403 for more, 404 for elsewhere, 422 for a role that nobody can have there.
    """
    place = (asker.tenant_id or INSTALLATION) if tenant_id is None else tenant_id
    if tenant_id == INSTALLATION or not asker.reaches(place):
        raise unknown_tenant(place)
    if asker.tenant_id is not None and role in OPERATORS:
        raise Problem(403, code="forbidden", detail=f"Only operators make somebody a {role}.")
    require_lasting(asker, role)
    require_role_of(place, role)
    return Order(email, role, place)


def _subject_of(invitation_id: UUID) -> str:
    return f"invitation:{invitation_id}"


def unknown_tenant(tenant_id: str) -> Problem:
    """Return the answer about a tenant that has no members here, or that the asker cannot know of."""
    detail = f"There is no tenant {tenant_id}."
    return Problem(404, code="unknown_tenant", detail=detail, errors=[FieldError("/tenantId", detail)])


def unknown_invitation(invitation_id: UUID | str) -> Problem:
    """Return the answer about an invitation that is not there, or that the asker cannot know of."""
    return Problem(404, code="unknown_invitation", detail=f"There is no invitation {invitation_id}.")


async def _members_gone(connection: Connection, tenant_id: str) -> Problem:
    """Return the answer where somebody was a member a moment ago: either nobody is any more, or others still are."""
    if await queries.first_member(connection, tenant_id) is None:
        return unknown_tenant(tenant_id)
    detail = "The members of the tenant are changing at this moment."
    return Problem(503, code="members_changing", detail=detail, headers={"Retry-After": "1"})


def _taken(code: str, detail: str) -> Problem:
    return Problem(409, code=code, detail=detail, errors=[FieldError("/email", detail)])


def _provider_changing() -> Problem:
    detail = "The organisation's way to sign in is changing at this moment."
    return Problem(503, code="identity_provider_changing", detail=detail, headers={"Retry-After": "1"})


def _not_good() -> Problem:
    return Problem(
        404,
        code="invalid_invitation",
        detail="The invitation is not known, was accepted, was withdrawn or has expired.",
    )


def _has_password() -> Problem:
    detail = "The user has a password already. Accept without one, and sign in with that."
    return Problem(409, code="password_exists", detail=detail, errors=[FieldError("/password", detail)])
