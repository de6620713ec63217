"""Tenant: the record of each tenant, its lifecycle and the catalog."""
