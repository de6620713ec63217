"""How the tenant service is put together; the only place that constructs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.tenant.announcement import announce_catalog
from services.tenant.api import PATHS, routes
from services.tenant.handlers import SUBSCRIPTIONS
from services.tenant.settings import TenantSettings
from shared.changes import Changes
from shared.contracts.tenant import DecisionRecorded
from shared.http import create_api
from shared.service import VERSION, Ports, Service, open_kernel, patiently


@asynccontextmanager
async def build(settings: TenantSettings, ports: Ports) -> AsyncIterator[Service]:
    """Construct the service on its own database and broker login; close both at the end."""
    async with open_kernel("tenant", settings, ports, SUBSCRIPTIONS) as kernel:
        api = create_api(
            "tenant",
            routers=[
                routes(
                    kernel.pool,
                    changes=Changes(kernel, DecisionRecorded),
                    clock=ports.clock,
                    gateway_url=settings.gateway_url,
                )
            ],
            admin_key=settings.admin_key,
            credentials=kernel.credentials,
            checks=kernel.checks,
            version=VERSION,
            registry=kernel.registry,
        )
        await patiently(lambda: announce_catalog(kernel), what="tenant", clock=ports.clock)
        yield Service("tenant", PATHS, api, kernel, shutdown_seconds=settings.shutdown_seconds)
