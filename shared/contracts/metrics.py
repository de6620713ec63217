"""All one can ask of the metrics service, and all it tells."""

from shared.contracts.base import Ask, Fact, KeysUsed, Refusal


class TrackTenant(Ask):
    """Meter the tenant from now on, within quotas.

    Attributes:
        quotas: meter name to limit per calendar month.
    """

    quotas: dict[str, int]


class UntrackTenant(Ask):
    """Forget the tenant and its quotas."""

    undoes = TrackTenant


class TenantTracked(Fact):
    """Usage of the tenant is accepted and held against its quotas."""

    answers = TrackTenant


class TenantTrackingRefused(Refusal):
    """The tenant is not tracked; codes ``unknown_meter``."""

    answers = TrackTenant


class TenantUntracked(Fact):
    """Nothing of the tenant is metered."""

    answers = UntrackTenant


class ChangeQuotas(Ask):
    """Hold the tenant to exactly these quotas from now on.

    Attributes:
        quotas: meter name to limit per calendar month.
    """

    quotas: dict[str, int]


class RestoreQuotas(Ask):
    """Hold the tenant to the quotas again that it was found with."""

    undoes = ChangeQuotas


class QuotasChanged(Fact):
    """The tenant is held to exactly the quotas that were asked for."""

    answers = ChangeQuotas


class QuotaChangeRefused(Refusal):
    """The quotas stay; codes ``unknown_tenant``, ``unknown_meter``."""

    answers = ChangeQuotas


class QuotasRestored(Fact):
    """The tenant is not held to other quotas by that ask any more."""

    answers = RestoreQuotas


class PurgeMetrics(Ask):
    """Forget the tenant with its quotas and all that was metered. Final."""


class MetricsPurged(Fact):
    """Nothing of the tenant is metered or kept.

    Attributes:
        deleted: how many ``quotas``, ``usage_hours`` and ``tracked_tenants``.
    """

    answers = PurgeMetrics

    deleted: dict[str, int]


class ApiKeysUsed(KeysUsed):
    """These API keys were used at the metrics service."""
