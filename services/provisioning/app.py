"""How the provisioning service is put together; the only place that constructs."""

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from services.provisioning.api import PATHS, routes
from services.provisioning.drivers.postgres_pool import PostgresPool, install
from services.provisioning.exports import sweep_exports
from services.provisioning.handlers import SUBSCRIPTIONS
from services.provisioning.settings import ProvisioningSettings
from services.provisioning.sweeping import sweep_every_minute
from shared.changes import Changes
from shared.contracts.provisioning import DecisionRecorded
from shared.http import create_api
from shared.postgres import Pool
from shared.service import VERSION, Ports, Service, open_kernel, patiently

_APPLICATION_POOL = 4


@asynccontextmanager
async def build(settings: ProvisioningSettings, ports: Ports) -> AsyncIterator[Service]:
    """Construct the service on its own database and broker login; close both at the end."""
    application_url = settings.application_database_url.get_secret_value()

    async def open_application() -> Pool:
        await install(application_url)
        return await ports.open_pool(application_url, size=_APPLICATION_POOL, name="tenure pool driver")

    async with await patiently(open_application, what="provisioning", clock=ports.clock) as application:
        driver = PostgresPool(application, url=application_url, clock=ports.clock)
        async with open_kernel(
            "provisioning",
            settings,
            ports,
            SUBSCRIPTIONS,
            driver=driver,
            regions=settings.regions,
            export_lifetime=timedelta(days=settings.export_lifetime_days),
        ) as kernel:
            changes = Changes(kernel, DecisionRecorded)
            api = create_api(
                "provisioning",
                routers=[routes(kernel.pool, changes=changes, driver=driver, clock=ports.clock)],
                admin_key=settings.admin_key,
                credentials=kernel.credentials,
                checks=kernel.checks,
                version=VERSION,
            )
            yield Service(
                "provisioning",
                PATHS,
                api,
                kernel,
                background=[
                    functools.partial(sweep_every_minute, "logins", driver.sweep_logins, ports.clock),
                    functools.partial(
                        sweep_every_minute,
                        "exports",
                        functools.partial(sweep_exports, kernel.pool, ports.clock),
                        ports.clock,
                    ),
                ],
                shutdown_seconds=settings.shutdown_seconds,
            )
