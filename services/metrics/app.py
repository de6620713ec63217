"""How the metrics service is put together; the only place that constructs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.metrics.api import MEDIA_TYPES, PATHS, routes
from services.metrics.bus.consumer import UsageConsumer
from services.metrics.deciding import Deciding
from services.metrics.handlers import SUBSCRIPTIONS
from services.metrics.lake import open_lake
from services.metrics.partitions import Keeping
from services.metrics.quotas import Quotas
from services.metrics.recording.recorder import Recorder
from services.metrics.settings import MetricsSettings
from shared.http import create_api
from shared.messaging.ladder import Ladder
from shared.service import VERSION, Ports, Service, open_kernel


@asynccontextmanager
async def build(settings: MetricsSettings, ports: Ports) -> AsyncIterator[Service]:
    """Construct the service on its own database and broker login; close both at the end."""
    async with (
        open_kernel("metrics", settings, ports, SUBSCRIPTIONS) as kernel,
        open_lake(settings.lake_terms(), kernel.pool, ports.clock, kernel.registry) as lake,
    ):
        deciding = Deciding(kernel.pool, clock=ports.clock, ids=ports.ids)
        recorder = Recorder(kernel.pool, Quotas(kernel.dispatch.tell), clock=ports.clock)
        ladder = Ladder(service="metrics", bus=kernel.bus, clock=ports.clock, ids=ports.ids)
        usage_consumer = UsageConsumer(kernel.bus, recorder, ladder, clock=ports.clock)
        api = create_api(
            "metrics",
            routers=[routes(kernel.pool, deciding=deciding, recorder=recorder, clock=ports.clock)],
            admin_key=settings.admin_key,
            credentials=kernel.credentials,
            checks=kernel.checks,
            version=VERSION,
            media_types=MEDIA_TYPES,
            registry=kernel.registry,
        )
        yield Service(
            "metrics",
            PATHS,
            api,
            kernel,
            background=[Keeping(kernel.pool, ports.clock).run, usage_consumer.run, *([lake.run] if lake else [])],
            shutdown_seconds=settings.shutdown_seconds,
        )
