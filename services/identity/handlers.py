"""What the identity service does when it is asked. The last lines list all it hears and all it says."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.identity.changes import know
from services.identity.invitations import Ask, Person, invitations_for, people_named, user_ids_of
from services.identity.keys import KEYS_USED
from services.identity.plans import newest_plans
from services.identity.queries import keys as key_queries
from services.identity.queries import members as queries
from services.identity.queries import passwords, plans, providers, sessions
from services.identity.queries.members import Block
from services.identity.roster import Change, Key, Roster, Terms, before_of, changes_of
from services.identity.sessions import end_access_to_tenants, end_sessions_of_members
from shared.clock import Clock
from shared.contracts import Fact, tenant
from shared.contracts import identity as contracts
from shared.ids import Ids
from shared.messaging.subscriptions import (
    Answered,
    Changed,
    Restoration,
    Subscriptions,
    change,
    do,
    hear,
    restore,
    undo,
)
from shared.postgres import Connection

Told = dict[str, Sequence[Fact]]
"""What is told besides the answers, by tenant."""

_REMEMBERED = timedelta(days=365)
"""How long it is known that a tenant is no more: above what any message may be late, replayed from parking or not."""


async def create_administrators(
    connection: Connection,
    asks: Sequence[contracts.CreateAdministrators],
    *,
    clock: Clock,
    ids: Ids,
    invitation_lifetime: timedelta,
    in_cognito: bool = False,
) -> Sequence[Fact]:
    """Make each address an invited administrator of its tenant; an ask without any address is refused.

    An address is one user, however often, in whatever spelling and for however many tenants it is asked for.

    Args:
        in_cognito: whether the people of new tenants are in Amazon Cognito; those of a silo in a pool of their own.
    """
    now = clock.now()
    users = await queries.upsert_users(connection, people_named(asks, ids, now=now))
    invitations = invitations_for(asks, users, ids)
    await queries.make_administrators(connection, invitations, now=now)
    await queries.invite_administrators(connection, invitations, now=now, expires_at=now + invitation_lifetime)
    # A refused ask is never undone, so it leaves nothing.
    done = [ask for ask in asks if ask.emails]
    await plans.put_plans(connection, newest_plans(done))
    if in_cognito:
        pools = {ask.tenant_id: "own" if ask.isolation == "silo" else "shared" for ask in done}
        await providers.put_cognito(connection, pools, now=now)
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
    connection: Connection, asks: Sequence[contracts.RemoveAdministrators], *, clock: Clock
) -> Sequence[Answered]:
    """Let nobody be a member of the tenants and forget the users that belong nowhere else; nobody is no error."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.lock_members(connection, tenant_ids)
    await queries.delete_invitations(connection, tenant_ids)
    members = await queries.delete_memberships(connection, tenant_ids)
    await queries.delete_users_without_membership(connection, [user_id for _, user_id in members])
    await plans.delete_plans(connection, tenant_ids)
    await providers.delete(connection, tenant_ids)
    told = await forget_access(connection, tenant_ids, now=clock.now())
    return _telling([contracts.AdministratorsRemoved(tenant_id=tenant_id) for tenant_id in tenant_ids], told)


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
    changes = [roster.appoint(ask.tenant_id, user_ids_of(ask, users), terms.naming(ask.customer_name)) for ask in asks]
    await _write(connection, roster, now=now)
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
    changes = [
        roster.appoint_only(ask.tenant_id, user_ids_of(ask, users), terms.naming(ask.customer_name))
        if ask.emails
        else []
        for ask in asks
    ]
    told = await _write(connection, roster, now=now)
    await queries.delete_users_without_membership(connection, users.values())
    answers = [_answer(ask, users, contracts.AdministratorsSet, contracts.AdministratorSettingRefused) for ask in asks]
    return [
        Changed(answer, before_of(made), tells=told.pop(answer.tenant_id, ()))
        for answer, made in zip(answers, changes, strict=True)
    ]


async def remove_added_administrators(
    connection: Connection, restorations: Sequence[Restoration], *, clock: Clock
) -> Sequence[Answered]:
    """Take back what was given to each who was added, and forget the users that belong nowhere then."""
    told = await _take_back(connection, restorations, now=clock.now())
    return _telling([contracts.AddedAdministratorsRemoved(tenant_id=each.tenant_id) for each in restorations], told)


async def restore_administrators(
    connection: Connection, restorations: Sequence[Restoration], *, clock: Clock
) -> Sequence[Answered]:
    """Let each tenant have the administrators that it was found with, those again that had been forgotten."""
    told = await _take_back(connection, restorations, now=clock.now())
    return _telling([contracts.AdministratorsRestored(tenant_id=each.tenant_id) for each in restorations], told)


async def _take_back(connection: Connection, restorations: Sequence[Restoration], *, now: datetime) -> Told:
    changes = [(each.tenant_id, made) for each in restorations for made in changes_of(each.before)]
    if not changes:
        return {}
    # Who was forgotten is made again, unless the address is somebody's by now: then that one is the administrator.
    forgotten_first = sorted((made for _, made in changes), key=lambda made: made.left is not None)
    users = await queries.upsert_users(connection, _one_for_each_address(made.person for made in forgotten_first))
    forgotten = [made.person for _, made in changes if made.left is None]
    await passwords.put_missing(
        connection, {each.user_id: each.password for each in forgotten if each.password}, now=now
    )
    keys = [_key_now(tenant_id, made, users) for tenant_id, made in changes]
    roster = await _roster(connection, keys)
    for key, (_, made) in zip(keys, changes, strict=True):
        roster.take_back(made, key)
    told = await _write(connection, roster, now=now)
    await queries.delete_users_without_membership(connection, users.values())
    return told


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


async def _write(connection: Connection, roster: Roster, *, now: datetime) -> Told:
    """Write what is different from what was found, and end the sessions of those who are less than they were."""
    await queries.withdraw_invitations(connection, roster.withdrawn)
    await queries.end_memberships(connection, roster.ended)
    await queries.put_memberships(connection, roster.entered)
    await queries.put_invitations(connection, roster.invited)
    facts = await end_sessions_of_members(connection, [*roster.ended, *roster.lowered], now=now)
    await know(connection, facts)
    told: dict[str, list[Fact]] = {}
    for fact in facts:
        told.setdefault(fact.tenant_id, []).append(fact)
    return {**told}


async def block_sign_in(
    connection: Connection, asks: Sequence[contracts.BlockSignIn], *, clock: Clock
) -> Sequence[Changed]:
    """Block each tenant and end all its sessions; one that is blocked already stays so for the reason that it has."""
    first = {ask.tenant_id: Block(ask.reason, clock.now()) for ask in reversed(asks)}
    blocked = await queries.block_tenants(connection, first)
    told = await _access_changed(connection, blocked)
    return [
        # Taken out, so that a second ask for the same tenant changes nothing.
        Changed(
            contracts.SignInBlocked(tenant_id=ask.tenant_id),
            {"block": None} if ask.tenant_id in told else None,
            tells=told.pop(ask.tenant_id, ()),
        )
        for ask in asks
    ]


async def unblock_sign_in(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Answered]:
    """End each block that was made."""
    tenant_ids = [each.tenant_id for each in restorations if each.before is not None]
    told = await _access_changed(connection, await queries.unblock_tenants(connection, tenant_ids))
    return _telling([contracts.SignInUnblocked(tenant_id=each.tenant_id) for each in restorations], told)


async def allow_sign_in(connection: Connection, asks: Sequence[contracts.AllowSignIn]) -> Sequence[Changed]:
    """End the block of each tenant; there may be none."""
    ended = await queries.unblock_tenants(connection, [ask.tenant_id for ask in asks])
    told = await _access_changed(connection, ended)
    return [
        Changed(
            contracts.SignInAllowed(tenant_id=ask.tenant_id),
            _block_ended(ended.pop(ask.tenant_id, None)),
            tells=told.pop(ask.tenant_id, ()),
        )
        for ask in asks
    ]


def _block_ended(block: Block | None) -> Mapping[str, Any] | None:
    return block and {"block": {"reason": block.reason, "blockedAt": block.blocked_at.isoformat()}}


async def disallow_sign_in(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Answered]:
    """Put each block back that was ended, reason and time included."""
    blocks = {each.tenant_id: each.before["block"] for each in restorations if each.before is not None}
    blocked = await queries.block_tenants(
        connection,
        {
            tenant_id: Block(block["reason"], datetime.fromisoformat(block["blockedAt"]))
            for tenant_id, block in blocks.items()
        },
    )
    told = await _access_changed(connection, blocked)
    return _telling([contracts.SignInDisallowed(tenant_id=each.tenant_id) for each in restorations], told)


async def _access_changed(connection: Connection, tenant_ids: Collection[str]) -> Told:
    """Void all access to tenants whose block has come or gone, and return what is told of each."""
    if not tenant_ids:
        return {}
    changed = await end_access_to_tenants(connection, list(tenant_ids))
    return {tenant_id: [fact] for tenant_id, fact in changed.items()}


async def forget_access(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> Told:
    """Void all access to tenants that are no more, keys included, and return what is told of each that had any."""
    await key_queries.lock_keys(connection, tenant_ids)  # or one that is being made would be overlooked
    accessible = await sessions.accessible(connection, tenant_ids)
    if not accessible:
        return {}
    await key_queries.forget_keys(connection, accessible)
    changed = await end_access_to_tenants(connection, accessible, forget_at=now + _REMEMBERED)
    await know(connection, list(changed.values()))
    return {tenant_id: [fact] for tenant_id, fact in changed.items()}


def _telling(answers: Sequence[Fact], told: Told) -> list[Answered]:
    """Add to each answer what else is told of its tenant, once."""
    left = dict(told)
    return [Answered(answer, tells=left.pop(answer.tenant_id, ())) for answer in answers]


async def purge_users(
    connection: Connection, asks: Sequence[contracts.PurgeUsers], *, clock: Clock
) -> Sequence[Answered]:
    """Forget each tenant, and the users that belong nowhere else, and count that; nobody is no error."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.lock_members(connection, tenant_ids)
    invitations = await queries.delete_invitations(connection, tenant_ids)
    members = await queries.delete_memberships(connection, tenant_ids)
    last_tenants = {user_id: tenant_id for tenant_id, user_id in members}
    forgotten = await queries.delete_users_without_membership(connection, last_tenants)
    await queries.unblock_tenants(connection, tenant_ids)
    await plans.delete_plans(connection, tenant_ids)
    await providers.delete(connection, tenant_ids)
    told = await forget_access(connection, tenant_ids, now=clock.now())
    counts = {
        "memberships": Counter(tenant_id for tenant_id, _ in members),
        "invitations": invitations,
        "users": Counter(last_tenants[user_id] for user_id in forgotten),
    }
    answers = [
        # Taken out, so that what an ask deleted is not counted again for a second one.
        contracts.UsersPurged(tenant_id=each, deleted={name: count.pop(each, 0) for name, count in counts.items()})
        for each in tenant_ids
    ]
    return _telling(answers, told)


async def keep_usage_plans(
    connection: Connection, facts: Sequence[tenant.TierChanged | tenant.TierRestored]
) -> Sequence[Fact]:
    """Know what the tiers that tenants are on by now let them ask of applications; a tenant that is gone stays gone."""
    newest = newest_plans(facts)
    await queries.lock_members(connection, list(newest))
    await plans.put_plans_of_members(connection, newest)
    return []


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
    tenant.TierChanged: hear(keep_usage_plans),
    tenant.TierRestored: hear(keep_usage_plans),
    **KEYS_USED,
}
PUBLISHES = (
    contracts.SigningKeyPublished,
    contracts.TenantAccessChanged,
    contracts.SessionsRevoked,
    contracts.ApiKeyChanged,
    contracts.DecisionRecorded,
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
