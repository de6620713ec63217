"""All SQL of the billing service, a module for each thing; each function is one statement with one intent."""

from services.billing.queries import (
    accounts,
    bills,
    catalog,
    documents,
    drifts,
    dunning,
    invoices,
    invoicing,
    ledger,
    receivables,
    revenue,
    spending,
    subscriptions,
    usage,
)

__all__ = [
    "accounts",
    "bills",
    "catalog",
    "documents",
    "drifts",
    "dunning",
    "invoices",
    "invoicing",
    "ledger",
    "receivables",
    "revenue",
    "spending",
    "subscriptions",
    "usage",
]
