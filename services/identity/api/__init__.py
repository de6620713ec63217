"""All HTTP of the identity service, a file for each thing that it is about."""

from fastapi import APIRouter

from services.identity.api import (
    api_keys,
    authorization,
    authorize,
    clients,
    discovery,
    federation,
    identity_providers,
    invitations,
    members,
    passwords,
    sessions,
    signing_keys,
    support,
    token,
    users,
)
from services.identity.api.authorization import Porch
from services.identity.api.federation import Crossing
from services.identity.changes import Changes
from services.identity.federation import Federation
from services.identity.inviting import Inviting
from services.identity.keys import ApiKeys
from services.identity.memberships import Memberships
from services.identity.oauth import Grants
from services.identity.providers.realms import Realms
from services.identity.registering import Registering
from services.identity.sessions import Sessions
from services.identity.signin import Doorkeeper
from services.identity.signing import SigningKeys
from shared.clock import Clock
from shared.postgres import Pool

PATHS = (
    "/oauth",
    "/.well-known",
    "/v1/users",
    "/v1/invitations",
    "/invitations",
    "/v1/sessions",
    "/v1/support-sessions",
    "/v1/clients",
    "/v1/signing-keys",
    "/v1/api-keys",
    "/v1/authorize",
    "/v1/identity-providers",
)


def routes(
    pool: Pool,
    *,
    clock: Clock,
    issuer: str,
    changes: Changes,
    sessions_: Sessions,
    signing: SigningKeys,
    grants: Grants,
    doorkeeper: Doorkeeper,
    keys: ApiKeys,
    inviting: Inviting,
    memberships: Memberships,
    realms: Realms,
    federation_: Federation,
    registering: Registering,
    gate: authorize.Gate,
) -> APIRouter:
    """Return every route of the service.

    Args:
        pool: connections to the service's database.
        issuer: the origin.
    """
    router = APIRouter()
    router.include_router(discovery.routes(pool, clock=clock, issuer=issuer))
    porch = Porch(pool, issuer=issuer, grants=grants, doorkeeper=doorkeeper)
    crossing = Crossing(pool, porch, federation_)
    router.include_router(authorization.routes(porch, crossing))
    router.include_router(federation.routes(porch, crossing))
    router.include_router(identity_providers.routes(pool, realms, registering))
    router.include_router(token.routes(pool, clock=clock, issuer=issuer, grants=grants, keys=signing))
    router.include_router(authorize.routes(gate))
    router.include_router(users.routes(pool, changes))
    router.include_router(passwords.routes(pool, changes=changes, doorkeeper=doorkeeper, clock=clock))
    router.include_router(members.routes(pool, memberships))
    router.include_router(invitations.routes(pool, inviting, clock=clock))
    router.include_router(sessions.routes(pool, changes=changes, clock=clock))
    router.include_router(support.routes(changes=changes, sessions=sessions_))
    router.include_router(signing_keys.routes(pool, signing=signing, clock=clock))
    router.include_router(clients.routes(pool, changes=changes, clock=clock))
    router.include_router(api_keys.routes(pool, keys, clock=clock))
    return router
