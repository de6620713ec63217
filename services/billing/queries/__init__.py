"""All SQL of the billing service, a module for each thing; each function is one statement with one intent."""

from services.billing.queries import accounts, catalog, documents, invoices, invoicing, revenue, subscriptions, usage

__all__ = ["accounts", "catalog", "documents", "invoices", "invoicing", "revenue", "subscriptions", "usage"]
