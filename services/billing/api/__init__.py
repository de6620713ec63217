"""All HTTP of the billing service, a file for each thing that it is about. Amounts are decimal strings."""

from datetime import timedelta

from fastapi import APIRouter

from services.billing.api import accounts, catalog, invoices, preview_of_invoices, previews
from services.billing.documents import Printer, Seller
from services.billing.publishing import Publishing
from shared.changes import Changes
from shared.clock import Clock
from shared.postgres import Pool

PATHS = ("/v1/plans", "/v1/subscriptions", "/v1/invoices", "/v1/price-preview", "/v1/proration-preview")


def routes(
    pool: Pool,
    *,
    changes: Changes,
    clock: Clock,
    printer: Printer | None = None,
    grace: timedelta = timedelta(days=1),
) -> APIRouter:
    """Return every route of the service.

    Args:
        pool: connections to the service's database.
        changes: make changes in it.
        clock: when a change is said to have happened.
        printer: makes pages and PDFs of invoices; one that names no seller when not given.
        grace: how long after the end of a period its usage may still come in.
    """
    router = APIRouter(tags=["billing"])
    router.include_router(catalog.routes(pool, Publishing(changes, clock), clock))
    router.include_router(accounts.routes(pool))
    router.include_router(preview_of_invoices.routes(pool, clock, grace))  # "preview" is no invoice's identity
    router.include_router(invoices.routes(pool, printer or Printer(Seller())))
    router.include_router(previews.routes())
    return router
