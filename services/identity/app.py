"""How the identity service is put together; the only place that constructs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter

from services.identity.admitting import Admitting
from services.identity.api import PATHS, routes
from services.identity.api.authorize import Gate
from services.identity.authorize import Authorizer
from services.identity.caretaking import Caretaker
from services.identity.changes import Changes
from services.identity.delivery import Delivery, accept_url_of
from services.identity.federation import Federation
from services.identity.handlers import SUBSCRIPTIONS
from services.identity.inviting import Inviting
from services.identity.keys import ApiKeys, authenticate, note_own_uses
from services.identity.memberships import Memberships
from services.identity.oauth import Grants
from services.identity.providers.connections import Connections, open_connections
from services.identity.registering import Registering
from services.identity.sessions import Sessions
from services.identity.settings import IdentitySettings
from services.identity.signin import Doorkeeper
from services.identity.signing import SigningKeys
from services.identity.standing import Standings
from services.identity.sweeping import Sweeper
from services.identity.usage import Usage
from services.identity.verified import VerifiedTokens
from shared.http import create_api
from shared.service import VERSION, Kernel, Ports, Service, open_kernel

FORM = "application/x-www-form-urlencoded"
"""What OAuth's clients and browsers send."""


@asynccontextmanager
async def build(settings: IdentitySettings, ports: Ports) -> AsyncIterator[Service]:
    """Construct the service on its own database and broker login; close both at the end."""
    async with (
        open_kernel(
            "identity",
            settings,
            ports,
            SUBSCRIPTIONS,
            invitation_lifetime=settings.invitation_lifetime,
            in_cognito=settings.provider == "cognito",
        ) as kernel,
        open_connections(kernel.pool, settings, clock=ports.clock) as providers,
    ):
        pool, clock = kernel.pool, ports.clock
        kernel.key_uses.write = note_own_uses
        changes = Changes(kernel)
        signing = SigningKeys(
            pool, changes, clock=clock, ids=ports.ids, vault=settings.vault, terms=settings.signing_terms
        )
        standings, usage = Standings(pool, clock=clock), Usage(pool, clock=clock)
        gate = Gate(_authorizer(kernel, settings, standings, usage), kernel.registry)
        api = create_api(
            "identity",
            routers=[_routes(kernel, settings, changes=changes, signing=signing, gate=gate, providers=providers)],
            admin_key=settings.admin_key,
            credentials=kernel.credentials,
            checks=kernel.checks,
            version=VERSION,
            registry=kernel.registry,
            media_types=(FORM,),
        )
        yield Service(
            "identity",
            PATHS,
            gate.before(api),
            kernel,
            background=[
                signing.run,
                _delivery(kernel, settings).run,
                standings.run,
                usage.run,
                Caretaker(pool, providers.cognito, clock=clock).run,
                Sweeper(pool, clock=clock).run,
            ],
            shutdown_seconds=settings.shutdown_seconds,
        )


def _authorizer(kernel: Kernel, settings: IdentitySettings, standings: Standings, usage: Usage) -> Authorizer:
    return Authorizer(
        tokens=VerifiedTokens(kernel.credentials.claims, clock=kernel.ports.clock),
        standings=standings,
        usage=usage,
        uses=kernel.credentials.uses,
        admin_key=settings.admin_key.get_secret_value(),
        clock=kernel.ports.clock,
    )


def _delivery(kernel: Kernel, settings: IdentitySettings) -> Delivery:
    clock = kernel.ports.clock
    mailer = settings.mail_terms.mailer(clock=clock, ids=kernel.ports.ids)
    return Delivery(kernel.pool, mailer, clock=clock, accept_url=accept_url_of(settings.issuer))


def _routes(
    kernel: Kernel,
    settings: IdentitySettings,
    *,
    changes: Changes,
    signing: SigningKeys,
    gate: Gate,
    providers: Connections,
) -> APIRouter:
    pool, clock, ids, realms = kernel.pool, kernel.ports.clock, kernel.ports.ids, providers.realms
    sessions = Sessions(signing, clock=clock, ids=ids, issuer=settings.issuer, terms=settings.session_terms)
    admitting = Admitting(changes, clock=clock, ids=ids)
    has_cognito = providers.cognito is not None
    return routes(
        pool,
        clock=clock,
        issuer=settings.issuer,
        changes=changes,
        sessions_=sessions,
        signing=signing,
        grants=Grants(changes, sessions, authenticate, clock=clock),
        doorkeeper=Doorkeeper(pool, realms, clock=clock),
        keys=ApiKeys(changes, clock),
        inviting=Inviting(pool, changes, realms, clock=clock, ids=ids, lifetime=settings.invitation_lifetime),
        memberships=Memberships(changes, clock=clock),
        gate=gate,
        realms=realms,
        federation_=Federation(realms, admitting, vault=settings.vault, clock=clock),
        registering=Registering(
            changes, providers.discovery, vault=settings.vault, clock=clock, has_cognito=has_cognito
        ),
    )
