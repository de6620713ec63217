"""All one can ask of the metrics service, and all it tells."""

from datetime import datetime

from shared.contracts.base import Ask, Fact, KeysUsed, Part, Refusal


class TrackTenant(Ask):
    """Meter the tenant from now on, within quotas.

    Attributes:
        quotas: meter name to limit per calendar month.
        time_zone: in whose hours, days and months it is metered, as the IANA's database calls it. That of the first
            ask for a tenant stays.
    """

    quotas: dict[str, int]
    time_zone: str = "UTC"


class UntrackTenant(Ask):
    """Forget the tenant and its quotas."""

    undoes = TrackTenant


class TenantTracked(Fact):
    """Usage of the tenant is accepted and held against its quotas."""

    answers = TrackTenant


class TenantTrackingRefused(Refusal):
    """The tenant is not tracked; codes ``unknown_meter``, ``unknown_time_zone``."""

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
        deleted: how many ``quotas``, ``usage_hours``, ``usage_events`` and ``tracked_tenants``.
    """

    answers = PurgeMetrics

    deleted: dict[str, int]


class QuotaCrossed(Fact):
    """So much of a tenant's quota is used in a month; told once for each limit and percent of it.

    Attributes:
        meter: of what.
        percent: of the limit: 80 or 100. At a hard limit 100 is told when the first usage is refused, too.
        used: a decimal number, in the unit of the meter.
        limit_value: in the same unit.
        month: as in ``2026-03``, of the tenant's time zone.
        enforcement: ``soft``, or ``hard``: usage beyond it is refused.
        occurred_at: when, by the clock of metrics.
    """

    meter: str
    percent: int
    used: str
    limit_value: int
    month: str
    enforcement: str
    occurred_at: datetime


class PeriodUsage(Part):
    """What a tenant has used in a stretch of time.

    Attributes:
        since: its first moment.
        until: the first moment that is not part of it.
        quantities: by meter, decimal numbers in the meter's unit; of a meter that is not named nothing was used.
    """

    since: datetime
    until: datetime
    quantities: dict[str, str]


class UsageReported(Fact):
    """What a tenant has used, as far as it is known; told because of billing's `UsageRequested`.

    Attributes:
        requested_at: of the request.
        stated_at: by the clock of metrics: what comes later is in no earlier report.
        periods: those that were wanted, in their order.
    """

    requested_at: datetime
    stated_at: datetime
    periods: tuple[PeriodUsage, ...]


class ApiKeysUsed(KeysUsed):
    """These API keys were used at the metrics service."""
