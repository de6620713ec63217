"""All SQL of the metrics service, a file for each thing that it is about; each function is one statement."""

from services.metrics.queries import (
    amendments,
    audit,
    business,
    lake,
    meters,
    partitions,
    quota_use,
    quotas,
    recording,
    reporting,
    tenants,
    usage,
)

__all__ = [
    "amendments",
    "audit",
    "business",
    "lake",
    "meters",
    "partitions",
    "quota_use",
    "quotas",
    "recording",
    "reporting",
    "tenants",
    "usage",
]
