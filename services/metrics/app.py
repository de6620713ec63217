"""How the metrics service is put together; the only place that constructs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.metrics.api import MEDIA_TYPES, PATHS, routes
from services.metrics.deciding import Deciding
from services.metrics.handlers import SUBSCRIPTIONS
from services.metrics.partitions import Keeping
from services.metrics.quotas import Quotas
from services.metrics.recording.recorder import Recorder
from services.metrics.settings import MetricsSettings
from shared.http import create_api
from shared.service import VERSION, Ports, Service, open_kernel


@asynccontextmanager
async def build(settings: MetricsSettings, ports: Ports) -> AsyncIterator[Service]:
    """Construct the service on its own database and broker login; close both at the end."""
    async with open_kernel("metrics", settings, ports, SUBSCRIPTIONS) as kernel:
        deciding = Deciding(kernel.pool, clock=ports.clock, ids=ports.ids)
        recorder = Recorder(kernel.pool, Quotas(kernel.dispatch.tell), clock=ports.clock)
        api = create_api(
            "metrics",
            routers=[routes(kernel.pool, deciding=deciding, recorder=recorder, clock=ports.clock)],
            admin_key=settings.admin_key,
            credentials=kernel.credentials,
            checks=kernel.checks,
            version=VERSION,
            media_types=MEDIA_TYPES,
        )
        yield Service(
            "metrics",
            PATHS,
            api,
            kernel,
            background=[Keeping(kernel.pool, ports.clock).run],
            shutdown_seconds=settings.shutdown_seconds,
        )
