"""All SQL of the metrics service, a file for each thing that it is about; each function is one statement."""

from services.metrics.queries import audit, meters, quotas, tenants, usage

__all__ = ["audit", "meters", "quotas", "tenants", "usage"]
