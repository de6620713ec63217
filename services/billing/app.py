"""How the billing service is put together; the only place that constructs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.billing.api import PATHS, routes
from services.billing.handlers import SUBSCRIPTIONS
from services.billing.settings import BillingSettings
from shared.http import create_api
from shared.service import VERSION, Ports, Service, open_kernel


@asynccontextmanager
async def build(settings: BillingSettings, ports: Ports) -> AsyncIterator[Service]:
    """Construct the service on its own database and broker login; close both at the end."""
    async with open_kernel("billing", settings, ports, SUBSCRIPTIONS) as kernel:
        api = create_api(
            "billing",
            routers=[routes(kernel.pool)],
            admin_key=settings.admin_key,
            credentials=kernel.credentials,
            checks=kernel.checks,
            version=VERSION,
        )
        yield Service("billing", PATHS, api, kernel, shutdown_seconds=settings.shutdown_seconds)
