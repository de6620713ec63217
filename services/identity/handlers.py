"""What the identity service does when it is asked. The last lines list all it hears and all it says."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.identity import queries
from services.identity.invitations import Ask, Person, invitations_for, people_named, user_ids_of
from services.identity.queries import Block
from services.identity.roster import Change, Key, Roster, Terms, before_of, changes_of
from shared.clock import Clock
from shared.contracts import Fact
from shared.contracts import identity as contracts
from shared.ids import Ids
from shared.messaging.subscriptions import Changed, Restoration, Subscriptions, change, do, restore, undo
from shared.postgres import Connection


async def create_administrators(
    connection: Connection,
    asks: Sequence[contracts.CreateAdministrators],
    *,
    clock: Clock,
    ids: Ids,
    invitation_lifetime: timedelta,
) -> Sequence[Fact]:
    """Make each address an invited administrator of its tenant; an ask without any address is refused.

    An address is one user, however often, in whatever spelling and for however many tenants it is asked for.
    """
    now = clock.now()
    users = await queries.upsert_users(connection, people_named(asks, ids, now=now))
    invitations = invitations_for(asks, users, ids)
    await queries.make_administrators(connection, invitations, now=now)
    await queries.invite_administrators(connection, invitations, now=now, expires_at=now + invitation_lifetime)
    return [_answer(ask, users, contracts.AdministratorsCreated, contracts.AdministratorsRefused) for ask in asks]


def _answer(
    ask: Ask,
    users: Mapping[str, UUID],
    done: type[contracts.AdministratorsCreated | contracts.AdministratorsAdded | contracts.AdministratorsSet],
    refused: type[
        contracts.AdministratorsRefused | contracts.AdministratorAdditionRefused | contracts.AdministratorSettingRefused
    ],
) -> Fact:
    if not ask.emails:
        return refused(
            tenant_id=ask.tenant_id, code="no_administrators", detail="A tenant needs at least one administrator."
        )
    return done(tenant_id=ask.tenant_id, user_ids=tuple(str(user_id) for user_id in user_ids_of(ask, users)))


async def remove_administrators(
    connection: Connection, asks: Sequence[contracts.RemoveAdministrators]
) -> Sequence[Fact]:
    """Let nobody be a member of the tenants and forget the users that belong nowhere else; nobody is no error."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.lock_members(connection, tenant_ids)
    await queries.delete_invitations(connection, tenant_ids)
    members = await queries.delete_memberships(connection, tenant_ids)
    await queries.delete_users_without_membership(connection, [user_id for _, user_id in members])
    return [contracts.AdministratorsRemoved(tenant_id=tenant_id) for tenant_id in tenant_ids]


async def add_administrators(
    connection: Connection,
    asks: Sequence[contracts.AddAdministrators],
    *,
    clock: Clock,
    ids: Ids,
    invitation_lifetime: timedelta,
) -> Sequence[Changed]:
    """Make each address an invited administrator of its tenant besides those it has; without any it is refused."""
    now = clock.now()
    terms = Terms(now, now + invitation_lifetime, ids)
    users = await queries.upsert_users(connection, people_named(asks, ids, now=now))
    roster = await _roster(connection, _named(asks, users))
    changes = [roster.appoint(ask.tenant_id, user_ids_of(ask, users), terms) for ask in asks]
    await _write(connection, roster)
    answers = [
        _answer(ask, users, contracts.AdministratorsAdded, contracts.AdministratorAdditionRefused) for ask in asks
    ]
    return [Changed(answer, before_of(made)) for answer, made in zip(answers, changes, strict=True)]


async def set_administrators(
    connection: Connection,
    asks: Sequence[contracts.SetAdministrators],
    *,
    clock: Clock,
    ids: Ids,
    invitation_lifetime: timedelta,
) -> Sequence[Changed]:
    """Make the addresses the only administrators of their tenant; without any it is refused and the tenant keeps its.

    Users who belong nowhere else any more are forgotten.
    """
    now = clock.now()
    terms = Terms(now, now + invitation_lifetime, ids)
    present = await queries.administrators(connection, [ask.tenant_id for ask in asks if ask.emails])
    people = [*(person for _, person in present), *people_named(asks, ids, now=now)]
    users = await queries.upsert_users(connection, _one_for_each_address(people))
    found = [(tenant_id, users[person.email_key]) for tenant_id, person in present]
    roster = await _roster(connection, [*found, *_named(asks, users)])
    changes = [roster.appoint_only(ask.tenant_id, user_ids_of(ask, users), terms) if ask.emails else [] for ask in asks]
    await _write(connection, roster)
    await queries.delete_users_without_membership(connection, users.values())
    answers = [_answer(ask, users, contracts.AdministratorsSet, contracts.AdministratorSettingRefused) for ask in asks]
    return [Changed(answer, before_of(made)) for answer, made in zip(answers, changes, strict=True)]


async def remove_added_administrators(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Take back what was given to each who was added, and forget the users that belong nowhere then."""
    await _take_back(connection, restorations)
    return [contracts.AddedAdministratorsRemoved(tenant_id=each.tenant_id) for each in restorations]


async def restore_administrators(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Let each tenant have the administrators that it was found with, those again that had been forgotten."""
    await _take_back(connection, restorations)
    return [contracts.AdministratorsRestored(tenant_id=each.tenant_id) for each in restorations]


async def _take_back(connection: Connection, restorations: Sequence[Restoration]) -> None:
    changes = [(each.tenant_id, made) for each in restorations for made in changes_of(each.before)]
    if not changes:
        return
    # Who was forgotten is made again, unless the address is somebody's by now: then that one is the administrator.
    forgotten_first = sorted((made for _, made in changes), key=lambda made: made.left is not None)
    users = await queries.upsert_users(connection, _one_for_each_address(made.person for made in forgotten_first))
    keys = [_key_now(tenant_id, made, users) for tenant_id, made in changes]
    roster = await _roster(connection, keys)
    for key, (_, made) in zip(keys, changes, strict=True):
        roster.take_back(made, key)
    await _write(connection, roster)
    await queries.delete_users_without_membership(connection, users.values())


def _key_now(tenant_id: str, made: Change, users: Mapping[str, UUID]) -> Key:
    return tenant_id, users[made.person.email_key] if made.left is None else made.person.user_id


def _one_for_each_address(people: Iterable[Person]) -> list[Person]:
    first: dict[str, Person] = {}
    for person in people:
        first.setdefault(person.email_key, person)
    return list(first.values())


def _named(asks: Iterable[Ask], users: Mapping[str, UUID]) -> list[Key]:
    return [(ask.tenant_id, user_id) for ask in asks for user_id in user_ids_of(ask, users)]


async def _roster(connection: Connection, keys: Iterable[Key]) -> Roster:
    """Read what users, who are locked, are in these tenants."""
    return Roster.of(await queries.roster(connection, dict.fromkeys(keys)))


async def _write(connection: Connection, roster: Roster) -> None:
    """Write what is different from what was found."""
    await queries.withdraw_invitations(connection, roster.withdrawn)
    await queries.end_memberships(connection, roster.ended)
    await queries.put_memberships(connection, roster.entered)
    await queries.put_invitations(connection, roster.invited)


async def block_sign_in(
    connection: Connection, asks: Sequence[contracts.BlockSignIn], *, clock: Clock
) -> Sequence[Changed]:
    """Block each tenant; one that is blocked already stays so for the reason that it has."""
    first = {ask.tenant_id: Block(ask.reason, clock.now()) for ask in reversed(asks)}
    blocked = await queries.block_tenants(connection, first)
    changes = []
    for ask in asks:
        before = {"block": None} if ask.tenant_id in blocked else None
        blocked.discard(ask.tenant_id)  # a second ask for the same tenant changes nothing
        changes.append(Changed(contracts.SignInBlocked(tenant_id=ask.tenant_id), before))
    return changes


async def unblock_sign_in(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """End each block that was made."""
    await queries.unblock_tenants(connection, [each.tenant_id for each in restorations if each.before is not None])
    return [contracts.SignInUnblocked(tenant_id=each.tenant_id) for each in restorations]


async def allow_sign_in(connection: Connection, asks: Sequence[contracts.AllowSignIn]) -> Sequence[Changed]:
    """End the block of each tenant; there may be none."""
    ended = await queries.unblock_tenants(connection, [ask.tenant_id for ask in asks])
    return [
        Changed(contracts.SignInAllowed(tenant_id=ask.tenant_id), _block_ended(ended.pop(ask.tenant_id, None)))
        for ask in asks
    ]


def _block_ended(block: Block | None) -> Mapping[str, Any] | None:
    return block and {"block": {"reason": block.reason, "blockedAt": block.blocked_at.isoformat()}}


async def disallow_sign_in(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Put each block back that was ended, reason and time included."""
    blocks = {each.tenant_id: each.before["block"] for each in restorations if each.before is not None}
    await queries.block_tenants(
        connection,
        {
            tenant_id: Block(block["reason"], datetime.fromisoformat(block["blockedAt"]))
            for tenant_id, block in blocks.items()
        },
    )
    return [contracts.SignInDisallowed(tenant_id=each.tenant_id) for each in restorations]


async def purge_users(connection: Connection, asks: Sequence[contracts.PurgeUsers]) -> Sequence[Fact]:
    """Forget each tenant, and the users that belong nowhere else, and count that; nobody is no error."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.lock_members(connection, tenant_ids)
    invitations = await queries.delete_invitations(connection, tenant_ids)
    members = await queries.delete_memberships(connection, tenant_ids)
    last_tenants = {user_id: tenant_id for tenant_id, user_id in members}
    forgotten = await queries.delete_users_without_membership(connection, last_tenants)
    await queries.unblock_tenants(connection, tenant_ids)
    counts = {
        "memberships": Counter(tenant_id for tenant_id, _ in members),
        "invitations": invitations,
        "users": Counter(last_tenants[user_id] for user_id in forgotten),
    }
    return [
        # Taken out, so that what an ask deleted is not counted again for a second one.
        contracts.UsersPurged(tenant_id=each, deleted={name: count.pop(each, 0) for name, count in counts.items()})
        for each in tenant_ids
    ]


SUBSCRIPTIONS: Subscriptions = {
    contracts.CreateAdministrators: do(create_administrators),
    contracts.RemoveAdministrators: undo(remove_administrators),
    contracts.AddAdministrators: change(add_administrators),
    contracts.RemoveAddedAdministrators: restore(remove_added_administrators),
    contracts.SetAdministrators: change(set_administrators),
    contracts.RestoreAdministrators: restore(restore_administrators),
    contracts.BlockSignIn: change(block_sign_in),
    contracts.UnblockSignIn: restore(unblock_sign_in),
    contracts.AllowSignIn: change(allow_sign_in),
    contracts.DisallowSignIn: restore(disallow_sign_in),
    contracts.PurgeUsers: do(purge_users),
}
PUBLISHES = (
    contracts.AdministratorsCreated,
    contracts.AdministratorsRefused,
    contracts.AdministratorsRemoved,
    contracts.AdministratorsAdded,
    contracts.AdministratorAdditionRefused,
    contracts.AddedAdministratorsRemoved,
    contracts.AdministratorsSet,
    contracts.AdministratorSettingRefused,
    contracts.AdministratorsRestored,
    contracts.SignInBlocked,
    contracts.SignInUnblocked,
    contracts.SignInAllowed,
    contracts.SignInDisallowed,
    contracts.UsersPurged,
)
