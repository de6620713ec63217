"""What the identity service does when it is asked. The last lines list all it hears and all it says."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from services.identity import queries
from services.identity.invitations import invitations_for, people_named, user_ids_of
from shared.clock import Clock
from shared.contracts import Fact
from shared.contracts import identity as contracts
from shared.ids import Ids
from shared.messaging.subscriptions import Subscriptions, do, undo
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
    users = await queries.upsert_users(connection, people_named(asks, ids), now=now)
    invitations = invitations_for(asks, users, ids)
    await queries.make_administrators(connection, invitations, now=now)
    await queries.invite_administrators(connection, invitations, now=now, expires_at=now + invitation_lifetime)
    return [_creation(ask, users) for ask in asks]


def _creation(ask: contracts.CreateAdministrators, users: Mapping[str, UUID]) -> Fact:
    if not ask.emails:
        return contracts.AdministratorsRefused(
            tenant_id=ask.tenant_id, code="no_administrators", detail="A tenant needs at least one administrator."
        )
    user_ids = tuple(str(user_id) for user_id in user_ids_of(ask, users))
    return contracts.AdministratorsCreated(tenant_id=ask.tenant_id, user_ids=user_ids)


async def remove_administrators(
    connection: Connection, asks: Sequence[contracts.RemoveAdministrators]
) -> Sequence[Fact]:
    """Let nobody be a member of the tenants and forget the users that belong nowhere else; nobody is no error."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.lock_members(connection, tenant_ids)
    await queries.delete_invitations(connection, tenant_ids)
    user_ids = await queries.delete_memberships(connection, tenant_ids)
    await queries.delete_users_without_membership(connection, user_ids)
    return [contracts.AdministratorsRemoved(tenant_id=tenant_id) for tenant_id in tenant_ids]


SUBSCRIPTIONS: Subscriptions = {
    contracts.CreateAdministrators: do(create_administrators),
    contracts.RemoveAdministrators: undo(remove_administrators),
}
PUBLISHES = (contracts.AdministratorsCreated, contracts.AdministratorsRefused, contracts.AdministratorsRemoved)
