"""How the billing service is put together; the only place that constructs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta

from services.billing.api import PATHS, routes
from services.billing.booking import Booking
from services.billing.documents import Printer, Seller
from services.billing.dunning import Dunning
from services.billing.handlers import SUBSCRIPTIONS
from services.billing.invoicing import Invoicing
from services.billing.payments.opening import announcer, collecting, open_provider
from services.billing.settings import BillingSettings
from services.billing.spending import SpendingWatch
from shared.changes import Changes
from shared.contracts.billing import DecisionRecorded
from shared.http import create_api
from shared.service import VERSION, Ports, Service, open_kernel


@asynccontextmanager
async def build(settings: BillingSettings, ports: Ports) -> AsyncIterator[Service]:
    """Construct the service on its own database and broker login; close both at the end."""
    async with open_kernel("billing", settings, ports, SUBSCRIPTIONS) as kernel, open_provider(settings) as provider:
        seller = Seller(settings.seller_name, settings.seller_address, settings.seller_tax_id)
        with closing(Printer(seller)) as printer:
            grace = timedelta(hours=settings.grace_hours)
            api = create_api(
                "billing",
                routers=[
                    routes(
                        kernel.pool,
                        changes=Changes(kernel, DecisionRecorded),
                        clock=ports.clock,
                        ids=ports.ids,
                        printer=printer,
                        grace=grace,
                        announcer=announcer(settings),
                    )
                ],
                admin_key=settings.admin_key,
                credentials=kernel.credentials,
                checks=kernel.checks,
                version=VERSION,
                registry=kernel.registry,
            )
            yield Service(
                "billing",
                PATHS,
                api,
                kernel,
                background=[
                    Invoicing(kernel, grace=grace, registry=kernel.registry).run,
                    Booking(kernel, collects=provider.collects).run,
                    Dunning(kernel, settings.dunning_terms).run,
                    SpendingWatch(kernel).run,
                    *collecting(kernel, provider, settings, registry=kernel.registry),
                ],
                shutdown_seconds=settings.shutdown_seconds,
            )
