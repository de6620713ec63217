"""All one can ask of the metrics service, and all it tells."""

from shared.contracts.base import Ask, Fact, Refusal


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
