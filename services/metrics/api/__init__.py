"""All HTTP of the metrics service, a file for each thing that it is about."""

from fastapi import APIRouter

from services.metrics.api import audit, meters, quotas, usage
from shared.postgres import Pool

PATHS = ("/v1/meters", "/v1/usage", "/v1/quotas", "/v1/audit")


def routes(pool: Pool) -> APIRouter:
    """Return every route of the service."""
    router = APIRouter()
    router.include_router(meters.routes(pool))
    router.include_router(usage.routes(pool))
    router.include_router(quotas.routes(pool))
    router.include_router(audit.routes(pool))
    return router
