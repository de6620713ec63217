"""All HTTP of the metrics service, a file for each thing that it is about."""

from fastapi import APIRouter

from services.metrics.api import amendments, audit, business, meters, quotas, recording, usage
from services.metrics.deciding import Deciding
from services.metrics.recording.body import NDJSON
from services.metrics.recording.recorder import Recorder
from shared.clock import Clock
from shared.postgres import Pool

PATHS = (
    "/v1/meters",
    "/v1/usage",
    "/v1/quotas",
    "/v1/audit",
    "/v1/business/tenants",
    "/v1/business/churn",
    "/v1/business/onboardings",
    "/v1/business/revenue",
)

MEDIA_TYPES = (NDJSON,)
"""What bodies may be besides JSON."""


def routes(pool: Pool, *, deciding: Deciding, recorder: Recorder, clock: Clock) -> APIRouter:
    """Return every route of the service."""
    router = APIRouter()
    router.include_router(meters.routes(pool, deciding))
    router.include_router(usage.routes(pool))
    router.include_router(recording.routes(recorder, clock=clock))
    router.include_router(amendments.routes(pool, deciding))
    router.include_router(quotas.routes(pool, clock=clock))
    router.include_router(audit.routes(pool))
    router.include_router(business.routes(pool, clock=clock))
    return router
