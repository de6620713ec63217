"""All HTTP of the billing service, a file for each thing that it is about. Amounts are decimal strings."""

from fastapi import APIRouter

from services.billing.api import accounts, catalog, invoices, previews
from shared.postgres import Pool

PATHS = ("/v1/plans", "/v1/subscriptions", "/v1/invoices", "/v1/price-preview", "/v1/proration-preview")


def routes(pool: Pool) -> APIRouter:
    """Return every route of the service."""
    router = APIRouter(tags=["billing"])
    router.include_router(catalog.routes(pool))
    router.include_router(accounts.routes(pool))
    router.include_router(invoices.routes(pool))
    router.include_router(previews.routes())
    return router
