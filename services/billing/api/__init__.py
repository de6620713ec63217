"""All HTTP of the billing service, a file for each thing that it is about. Amounts are decimal strings."""

from datetime import timedelta

from fastapi import APIRouter

from services.billing.api import (
    accounts,
    balances,
    catalog,
    credit,
    invoices,
    payment_drifts,
    payment_webhooks,
    payments,
    preview_of_invoices,
    previews,
    spending_limits,
)
from services.billing.documents import Printer, Seller
from services.billing.payments import Announcer
from services.billing.publishing import Publishing
from services.billing.spending import SpendingLimits
from shared.changes import Changes
from shared.clock import Clock
from shared.ids import Ids, TimeOrderedIds
from shared.postgres import Pool

PATHS = (
    "/v1/plans",
    "/v1/subscriptions",
    "/v1/invoices",
    "/v1/balances",
    "/v1/payments",
    "/v1/payment-drifts",
    "/v1/payment-webhooks",
    "/v1/credits",
    "/v1/credit-notes",
    "/v1/price-preview",
    "/v1/proration-preview",
    "/v1/spending-limits",
)


def routes(
    pool: Pool,
    *,
    changes: Changes,
    clock: Clock,
    ids: Ids | None = None,
    printer: Printer | None = None,
    grace: timedelta = timedelta(days=1),
    announcer: Announcer | None = None,
) -> APIRouter:
    """Return every route of the service.

    Args:
        pool: connections to the service's database.
        changes: make changes in it.
        clock: when a change is said to have happened.
        ids: where new identities come from; from the machine's clock when not given.
        printer: makes pages and PDFs of invoices; one that names no seller when not given.
        grace: how long after the end of a period its usage may still come in.
        announcer: reads what the payment provider tells; nobody's webhooks are taken when not given.
    """
    router = APIRouter(tags=["billing"])
    ids = ids or TimeOrderedIds()
    router.include_router(catalog.routes(pool, Publishing(changes, clock), clock))
    router.include_router(accounts.routes(pool))
    router.include_router(preview_of_invoices.routes(pool, clock, grace))  # "preview" is no invoice's identity
    router.include_router(invoices.routes(pool, printer or Printer(Seller())))
    router.include_router(balances.routes(pool))
    router.include_router(payments.routes(pool, changes, clock, ids))
    router.include_router(payment_webhooks.routes(pool, announcer, clock))
    router.include_router(payment_drifts.routes(pool))
    router.include_router(credit.routes(pool, changes, clock, ids))
    router.include_router(previews.routes())
    router.include_router(spending_limits.routes(pool, SpendingLimits(changes)))
    return router
