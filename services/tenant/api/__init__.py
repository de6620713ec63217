"""All HTTP of the tenant service, a file for each thing that it is about."""

from fastapi import APIRouter

from services.tenant.api import products, tenants, tiers
from services.tenant.catalog.editing import Editing
from shared.changes import Changes
from shared.clock import Clock
from shared.postgres import Pool

PATHS = ("/v1/tenants", "/v1/tiers", "/v1/products", "/v1/tenant-config")


def routes(pool: Pool, *, changes: Changes, clock: Clock, gateway_url: str) -> APIRouter:
    """Return every route of the service.

    Args:
        pool: connections to the service's database.
        changes: make changes in it.
        clock: when a change is said to have happened.
        gateway_url: where the application of every pooled tenant answers.
    """
    router, editing = APIRouter(), Editing(changes, clock)
    router.include_router(tenants.routes(pool, changes=changes, clock=clock, gateway_url=gateway_url))
    router.include_router(tiers.routes(pool, editing))
    router.include_router(products.routes(pool, editing))
    return router
