"""What the metrics service does when it is asked. The last lines list all it hears and all it says."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from services.metrics import audit, business, queries, quotas
from services.metrics.lake import facts
from services.metrics.queries.quotas import Limit, Limits
from services.metrics.reporting import report_usage
from shared.access import replica
from shared.clock import Clock
from shared.contracts import Fact, billing, identity, onboarding, provisioning, tenant
from shared.contracts import metrics as contracts
from shared.contracts.base import Decision
from shared.messaging.event import Event, Outgoing
from shared.messaging.subscriptions import Changed, Restoration, Subscriptions, change, do, follow, hear, restore, undo
from shared.postgres import Connection
from shared.text import is_time_zone


async def track_tenants(
    connection: Connection, asks: Sequence[contracts.TrackTenant], *, clock: Clock
) -> Sequence[Fact]:
    """Track each tenant within its quotas; an ask with a meter or a time zone that does not exist is refused.

    Where a tenant already has a quota for a meter, the limit that was asked for last counts. Its time zone stays: hours
    that have been metered cannot be cut anew.
    """
    unknown = await _unknown_meters(connection, asks)
    accepted = [ask for ask in asks if unknown.isdisjoint(ask.quotas) and is_time_zone(ask.time_zone)]
    # The first ask for a tenant is put in last.
    time_zones = {ask.tenant_id: ask.time_zone for ask in reversed(accepted)}
    await queries.tenants.track(connection, time_zones, now=clock.now())
    await queries.quotas.put(
        connection, {(ask.tenant_id, meter): limit for ask in accepted for meter, limit in ask.quotas.items()}
    )
    return [_tracking(ask, unknown) for ask in asks]


async def _unknown_meters(connection: Connection, asks: Sequence[contracts.TrackTenant]) -> set[str]:
    named = {meter for ask in asks for meter in ask.quotas}
    return named - (await queries.meters.enforcements(connection, named)).keys()


def _tracking(ask: contracts.TrackTenant, unknown: Collection[str]) -> Fact:
    if names := sorted(ask.quotas.keys() & unknown):
        return contracts.TenantTrackingRefused(tenant_id=ask.tenant_id, code="unknown_meter", detail=_no_meter(names))
    if not is_time_zone(ask.time_zone):
        detail = f"There is no time zone {ask.time_zone}."
        return contracts.TenantTrackingRefused(tenant_id=ask.tenant_id, code="unknown_time_zone", detail=detail)
    return contracts.TenantTracked(tenant_id=ask.tenant_id)


def _no_meter(names: Sequence[str]) -> str:
    return f"The catalog has no meter {', '.join(names)}."


async def untrack_tenants(connection: Connection, asks: Sequence[contracts.UntrackTenant]) -> Sequence[Fact]:
    """Forget each tenant, its quotas and its usage; for a tenant that is not tracked there is nothing to do."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.tenants.lock(connection, tenant_ids)
    await queries.quotas.delete(connection, tenant_ids)
    await queries.tenants.delete(connection, tenant_ids)
    return [contracts.TenantUntracked(tenant_id=tenant_id) for tenant_id in tenant_ids]


async def change_quotas(connection: Connection, asks: Sequence[contracts.ChangeQuotas]) -> Sequence[Changed]:
    """Hold each tenant to exactly its quotas; one that is not tracked or a meter that does not exist is refused.

    A meter for which the tenant has a quota stays enforced as it is. Of two asks for one tenant the later counts.
    """
    enforcements = await queries.meters.enforcements(connection, {meter for ask in asks for meter in ask.quotas})
    tracked = await queries.tenants.lock(connection, [ask.tenant_id for ask in asks])
    limits = await queries.quotas.limits_of(connection, tracked)
    changes = [_change(ask, limits, enforcements) for ask in asks]
    await queries.quotas.replace(connection, limits)
    return changes


def _change(ask: contracts.ChangeQuotas, limits: dict[str, Limits], enforcements: Mapping[str, str]) -> Changed:
    """Put what an ask leaves into ``limits``, which has what it finds."""
    if refusal := _change_refusal(ask, limits, enforcements):
        return Changed(refusal)
    found = limits[ask.tenant_id]
    enforced = {**enforcements, **{meter: limit.enforcement for meter, limit in found.items()}}
    limits[ask.tenant_id] = {meter: Limit(value, enforced[meter]) for meter, value in ask.quotas.items()}
    answer = contracts.QuotasChanged(tenant_id=ask.tenant_id)
    return Changed(answer, None if limits[ask.tenant_id] == found else _before(found))


def _change_refusal(
    ask: contracts.ChangeQuotas, tracked: Collection[str], meters: Mapping[str, str]
) -> contracts.QuotaChangeRefused | None:
    if ask.tenant_id not in tracked:
        return contracts.QuotaChangeRefused(
            tenant_id=ask.tenant_id, code="unknown_tenant", detail=f"Tenant {ask.tenant_id} is not metered."
        )
    if names := sorted(ask.quotas.keys() - meters.keys()):
        return contracts.QuotaChangeRefused(tenant_id=ask.tenant_id, code="unknown_meter", detail=_no_meter(names))
    return None


def _before(found: Limits) -> Mapping[str, Any]:
    return {"quotas": {meter: limit._asdict() for meter, limit in found.items()}}


async def restore_quotas(connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
    """Hold each tenant to the quotas again that it was found with; one that is not tracked any more is left alone."""
    found = {each.tenant_id: _limits(each.before) for each in restorations if each.before is not None}
    tracked = await queries.tenants.lock(connection, found)
    await queries.quotas.replace(connection, {tenant_id: found[tenant_id] for tenant_id in tracked})
    return [contracts.QuotasRestored(tenant_id=each.tenant_id) for each in restorations]


def _limits(before: Mapping[str, Any]) -> Limits:
    return {meter: Limit(**limit) for meter, limit in before["quotas"].items()}


async def purge_metrics(connection: Connection, asks: Sequence[contracts.PurgeMetrics]) -> Sequence[Fact]:
    """Forget each tenant and all that is known of it, and count that; a tenant that is not tracked has nothing."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.tenants.lock(connection, tenant_ids)
    limits = await queries.quotas.delete(connection, tenant_ids)
    hours = await queries.usage.delete(connection, tenant_ids)
    events = await queries.usage.delete_events(connection, tenant_ids)
    tracked = await queries.tenants.delete(connection, tenant_ids)
    return [
        contracts.MetricsPurged(
            tenant_id=tenant_id,
            # Taken out, so that what an ask deleted is not counted again for a second one.
            deleted={
                "quotas": limits.pop(tenant_id, 0),
                "usage_hours": hours.pop(tenant_id, 0),
                "usage_events": events.pop(tenant_id, 0),
                "tracked_tenants": tracked.pop(tenant_id, 0),
            },
        )
        for tenant_id in tenant_ids
    ]


MAIL_METERS = {
    "send": "mail_sends",
    "delivery": "mail_deliveries",
    "permanent_bounce": "mail_permanent_bounces",
    "transient_bounce": "mail_transient_bounces",
    "suppression": "mail_suppressions",
    "reject": "mail_rejects",
    "rendering_failure": "mail_rendering_failures",
    "complaint": "mail_complaints",
    "delivery_delay": "mail_delivery_delays",
    "open": "mail_opens",
    "click": "mail_clicks",
    "subscription": "mail_subscriptions",
}
"""Which meter counts what happens to tenants' mails."""


async def meter_mail(
    connection: Connection, facts: Sequence[provisioning.MailReported], *, clock: Clock
) -> Sequence[Fact]:
    """Add what became of tenants' mails to their usage, whatever the quotas; of who is not tracked nothing is kept."""
    used: Counter[queries.usage.Hour] = Counter()
    for fact in facts:
        for event, count in fact.counts.items():
            if event in MAIL_METERS:
                used[queries.usage.Hour(fact.tenant_id, MAIL_METERS[event], fact.hour)] += count
    tracked = set(await queries.tenants.lock(connection, {key.tenant_id for key in used}))
    kept = {key: count for key, count in used.items() if key.tenant_id in tracked}
    await queries.usage.add(connection, kept)
    return await quotas.review(connection, kept, now=clock.now())


async def block_tenants(connection: Connection, facts: Sequence[billing.SpendingBlockChanged]) -> Sequence[Fact]:
    """Refuse the usage of tenants that have spent what they may, or take it again; who is not tracked stays so."""
    newest = {fact.tenant_id: fact for fact in sorted(facts, key=lambda fact: fact.edition)}
    tracked = await queries.tenants.lock(connection, newest)
    await queries.tenants.block(
        connection, {tenant_id: (newest[tenant_id].is_blocked, newest[tenant_id].edition) for tenant_id in tracked}
    )
    return []


async def record_decisions(connection: Connection, events: Sequence[Event], *, clock: Clock) -> Sequence[Outgoing]:
    """Append decisions to the audit trail.

    Those of all services come as one batch, envelopes and all, so that chains are locked in one order.
    """
    decisions = [event.message for event in events if isinstance(event.message, Decision)]
    await audit.append(connection, decisions, now=clock.now())
    return []


async def follow_facts(connection: Connection, events: Sequence[Event]) -> Sequence[Outgoing]:
    """Follow how the business goes, and keep for the lake what is told of tenants."""
    await facts.keep(connection, events)
    return await business.follow_business(connection, events)


_DECIDERS = (onboarding, tenant, identity, provisioning, billing)

SUBSCRIPTIONS: Subscriptions = {
    contracts.TrackTenant: do(track_tenants),
    contracts.UntrackTenant: undo(untrack_tenants),
    contracts.ChangeQuotas: change(change_quotas),
    contracts.RestoreQuotas: restore(restore_quotas),
    contracts.PurgeMetrics: do(purge_metrics),
    provisioning.MailReported: hear(meter_mail),
    billing.UsageRequested: hear(report_usage),
    billing.SpendingBlockChanged: hear(block_tenants),
    **{owner.DecisionRecorded: follow(record_decisions) for owner in _DECIDERS},
    **dict.fromkeys((*business.SUBSCRIPTIONS, *facts.STATES), follow(follow_facts)),
    **replica.SUBSCRIPTIONS,
}
PUBLISHES = (
    contracts.TenantTracked,
    contracts.TenantTrackingRefused,
    contracts.TenantUntracked,
    contracts.QuotasChanged,
    contracts.QuotaChangeRefused,
    contracts.QuotasRestored,
    contracts.MetricsPurged,
    contracts.QuotaCrossed,
    contracts.UsageReported,
    contracts.ApiKeysUsed,
)
