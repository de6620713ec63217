"""How the onboarding service is put together; the only place that constructs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from services.onboarding.api import PATHS, Desk, Entrance, routes
from services.onboarding.catalog import Catalog
from services.onboarding.engine import Engine
from services.onboarding.expiration import Terms
from services.onboarding.handlers import SUBSCRIPTIONS
from services.onboarding.intake import Intake
from services.onboarding.measurements import WorkflowMeasurements
from services.onboarding.operators import Operators
from services.onboarding.pressure import Pressure
from services.onboarding.reviews import Reviews
from services.onboarding.settings import OnboardingSettings
from services.onboarding.streams import Streams
from services.onboarding.timers import Timers
from services.onboarding.versions import Versions
from services.onboarding.watch import Watch
from shared.http import create_api
from shared.service import VERSION, Ports, Service, open_kernel


@asynccontextmanager
async def build(settings: OnboardingSettings, ports: Ports) -> AsyncIterator[Service]:
    """Construct the service on its own database and broker login; close both at the end."""
    engine = Engine(clock=ports.clock, ids=ports.ids)
    async with open_kernel("onboarding", settings, ports, SUBSCRIPTIONS, engine=engine) as kernel:
        watch = Watch(kernel.pool)
        kernel.consumer.on_commit = watch.wake
        workflows = WorkflowMeasurements(kernel.pool, clock=ports.clock, registry=kernel.registry)
        kernel.measurements.poll("workflows", workflows.look)
        kernel.bus.on_confirmed = workflows.told
        pressure = Pressure(kernel.pool, ports.clock, most=settings.under_way, registry=kernel.registry)
        intake = Intake(kernel, engine, watch, pressure=pressure, backlog=settings.backlog)
        catalog = Catalog(kernel.pool, ports.clock)
        desk = Desk(intake, catalog, ports.clock, settings.grace_days)
        terms = Terms(warning=timedelta(days=settings.warning_days), grace=timedelta(days=settings.grace_days))
        streams = Streams(kernel.pool, watch)
        api = create_api(
            "onboarding",
            routers=[
                routes(
                    kernel.pool,
                    desk=desk,
                    operators=Operators(kernel, engine, watch),
                    watch=watch,
                    streams=streams,
                )
            ],
            admin_key=settings.admin_key,
            credentials=kernel.credentials,
            checks={**kernel.checks, "catalog": catalog.check, "definitions": Versions(kernel.pool, engine).check},
            version=VERSION,
            registry=kernel.registry,
        )
        yield Service(
            "onboarding",
            PATHS,
            api,
            kernel,
            background=[
                intake.run,
                pressure.run,
                watch.run,
                Timers(kernel, engine, watch).run,
                Reviews(kernel, intake, terms).run,
            ],
            shutdown_seconds=settings.shutdown_seconds,
            is_closed=Entrance(pressure).is_closed,
        )
