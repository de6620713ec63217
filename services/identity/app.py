"""How the identity service is put together; the only place that constructs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.identity.api import PATHS, routes
from services.identity.handlers import SUBSCRIPTIONS
from services.identity.settings import IdentitySettings
from shared.http import create_api
from shared.service import VERSION, Ports, Service, open_kernel


@asynccontextmanager
async def build(settings: IdentitySettings, ports: Ports) -> AsyncIterator[Service]:
    """Construct the service on its own database and broker login; close both at the end."""
    async with open_kernel(
        "identity", settings, ports, SUBSCRIPTIONS, invitation_lifetime=settings.invitation_lifetime
    ) as kernel:
        api = create_api(
            "identity",
            routers=[routes(kernel.pool, clock=ports.clock)],
            admin_key=settings.admin_key,
            checks=kernel.checks,
            version=VERSION,
        )
        yield Service("identity", PATHS, api, kernel, shutdown_seconds=settings.shutdown_seconds)
