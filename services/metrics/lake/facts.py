"""What is told of tenants, kept for the lake."""

from collections.abc import Sequence
from typing import Any

from services.metrics import queries
from shared.contracts import tenant
from shared.contracts.base import Fact
from shared.messaging.event import Event
from shared.postgres import Connection

STATES: dict[type[Fact], str | None] = {
    tenant.TenantRegistered: "registered",
    tenant.TenantDeregistered: "deregistered",
    tenant.TenantActivated: "active",
    tenant.TenantDeactivated: "registered",
    tenant.TenantSuspended: "suspended",
    tenant.SuspensionLifted: None,
    tenant.TenantReactivated: "active",
    tenant.ReactivationWithdrawn: None,
    tenant.TierChanged: None,
    tenant.TierRestored: None,
    tenant.ProductsChanged: None,
    tenant.ProductsRestored: None,
    tenant.TenantUpdated: None,
    tenant.TenantRestored: None,
    tenant.OffboardingBegun: "offboarding",
    tenant.OffboardingCancelled: None,
    tenant.TenantArchived: "archived",
}
"""In which state a tenant is after a fact of it; None where the fact does not tell: it is as it was found."""


async def keep(connection: Connection, events: Sequence[Event]) -> None:
    """Keep what these tell of tenants until it is in a file."""
    if facts := [_row(event) for event in events if type(event.message) in STATES]:
        await queries.lake.keep_facts(connection, facts)


def _row(event: Event) -> dict[str, Any]:
    fact = event.message
    assert isinstance(fact, Fact)
    return {
        "fact_id": event.id,
        "tenant_id": fact.tenant_id,
        "type": event.type,
        "state": STATES[type(fact)],
        "tier": _tier(fact),
        "workflow_id": event.workflow_id,
        "step": event.step,
        "happened_at": event.time,
        "fact": fact.model_dump(mode="json", by_alias=True),
    }


def _tier(fact: Fact) -> str | None:
    if isinstance(fact, tenant.TierChanged):
        return fact.tier
    if isinstance(fact, (tenant.TenantRegistered, tenant.TierRestored)) and fact.usage_plan is not None:
        return fact.usage_plan.tier
    return None
