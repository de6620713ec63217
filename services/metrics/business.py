"""How the business goes, followed by what the other services tell: tenants, workflows and recurring revenue.

Facts may arrive late, twice or in another order: nothing of what is kept depends on it. What an operation of a workflow
did is known by workflow and step, because its answer may be told again, later and by another message; of two amounts
that a tenant is charged the one of the higher edition is in force.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final
from uuid import UUID

from services.metrics import queries
from services.metrics.queries.business import RevenueChange, RunMilestone, RunTrouble, TenantChange
from shared.contracts import billing, onboarding, tenant
from shared.contracts.base import Message
from shared.messaging.event import Event, Outgoing
from shared.messaging.subscriptions import Subscriptions, follow
from shared.postgres import Connection

_STATES: Final[Mapping[type[Message], str | None]] = {
    tenant.TenantRegistered: "registered",
    tenant.TenantActivated: "active",
    tenant.TenantSuspended: "suspended",
    tenant.TenantReactivated: "active",
    tenant.OffboardingBegun: "offboarding",
    tenant.TenantArchived: "archived",
    tenant.TierChanged: None,
}
"""What each of these makes of a tenant."""

_UNDOS: Final = (
    tenant.TenantDeregistered,
    tenant.TenantDeactivated,
    tenant.SuspensionLifted,
    tenant.ReactivationWithdrawn,
    tenant.OffboardingCancelled,
    tenant.TierRestored,
)
_OUTCOMES: Final = frozenset({"completed", "compensated", "abandoned"})
_TROUBLES: Final[Mapping[type[Message], str]] = {onboarding.StepFailed: "failure", onboarding.StepRetried: "retry"}


async def follow_business(connection: Connection, events: Sequence[Event]) -> Sequence[Outgoing]:
    """Keep what these tell.

    Those of all services come as one batch, so that rows are locked in one order.
    """
    if changes := list(_tenant_changes(events)):
        await queries.business.put_tenant_changes(connection, changes)
    if milestones := list(_milestones(events)):
        await queries.business.put_milestones(connection, milestones)
    if troubles := list(_troubles(events)):
        await queries.business.put_troubles(connection, troubles)
    if amounts := list(_revenue_changes(events)):
        await queries.business.put_revenue_changes(connection, amounts)
    return []


def _tenant_changes(events: Sequence[Event]) -> Iterator[TenantChange]:
    for event in events:
        fact, workflow_id, step = event.message, event.workflow_id, event.step
        if workflow_id is None or step is None:  # it answers nobody
            continue
        if isinstance(fact, _UNDOS):
            yield TenantChange(fact.tenant_id, workflow_id, step, None, None, None, is_undone=True)
        elif isinstance(fact, tuple(_STATES)):
            state, tier = _STATES[type(fact)], _tier_of(fact)
            yield TenantChange(fact.tenant_id, workflow_id, step, state, tier, event.time, is_undone=False)


def _tier_of(fact: object) -> str | None:
    if isinstance(fact, tenant.TierChanged):
        return fact.tier
    if isinstance(fact, tenant.TenantRegistered) and fact.usage_plan is not None:
        return fact.usage_plan.tier
    return None


def _milestones(events: Sequence[Event]) -> Iterator[RunMilestone]:
    for event in events:
        fact = event.message
        if isinstance(fact, onboarding.WorkflowStatusChanged) and fact.status in {"started", *_OUTCOMES}:
            outcome = fact.status if fact.status in _OUTCOMES else None
            yield RunMilestone(UUID(fact.workflow_id), fact.kind, outcome, fact.occurred_at)


def _troubles(events: Sequence[Event]) -> Iterator[RunTrouble]:
    for event in events:
        fact = event.message
        if isinstance(fact, onboarding.StepFailed | onboarding.StepRetried):
            trouble = _TROUBLES[type(fact)]
            yield RunTrouble(UUID(fact.workflow_id), fact.step, trouble, fact.attempt, fact.occurred_at)


def _revenue_changes(events: Sequence[Event]) -> Iterator[RevenueChange]:
    for event in events:
        fact = event.message
        if isinstance(fact, billing.RecurringRevenueChanged):
            amount = Decimal(fact.amount)
            yield RevenueChange(fact.tenant_id, fact.currency, fact.changed_at, fact.edition, amount)


SUBSCRIPTIONS: Subscriptions = dict.fromkeys(
    (*_STATES, *_UNDOS, onboarding.WorkflowStatusChanged, *_TROUBLES, billing.RecurringRevenueChanged),
    follow(follow_business),
)
"""What is heard of the business."""
