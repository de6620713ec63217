"""All SQL of the billing service, a module for each thing; each function is one statement with one intent."""

from services.billing.queries import accounts, catalog, invoices, subscriptions

__all__ = ["accounts", "catalog", "invoices", "subscriptions"]
