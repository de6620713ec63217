"""Tenants by state and tier, and how many came and left, right in whatever order it is told."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import httpx2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.metrics.tests.metering import Office
from services.metrics.tests.trade import IDS, event_of, listed, tell
from shared.contracts import tenant
from shared.contracts.base import Fact
from shared.messaging.event import Event
from shared.postgres import Pool

_MEANING: Mapping[str, Any] = {"plan": "p", "quotas": {}, "isolation": "pool"}


def registered(tenant_id: str, tier: str | None = "standard") -> Fact:
    plan = None if tier is None else tenant.UsagePlan(tier=tier, version=1)
    return tenant.TenantRegistered(tenant_id=tenant_id, usage_plan=plan, **_MEANING)


def moved_to(tenant_id: str, tier: str) -> Fact:
    return tenant.TierChanged(tenant_id=tenant_id, tier=tier, **_MEANING)


class Workflow:
    """A workflow of a tenant, whose steps are answered."""

    def __init__(self, id_: UUID | None = None) -> None:
        self.id = id_ or IDS.new()

    def answered(self, fact: Fact, at: str, step: str) -> Event:
        """Return the answer to a step; an undo answers for the same one."""
        return event_of(fact, at, workflow_id=self.id, step=step)


def onboarded(tenant_id: str, at: str, tier: str | None = "standard") -> Sequence[Event]:
    workflow = Workflow()
    return (
        workflow.answered(registered(tenant_id, tier), at, "register"),
        workflow.answered(tenant.TenantActivated(tenant_id=tenant_id), at, "activate"),
    )


def offboarded(tenant_id: str, begun: str, ended: str) -> Sequence[Event]:
    workflow = Workflow()
    archived = tenant.TenantArchived(tenant_id=tenant_id, certificate_sha256="0" * 64)
    return (
        workflow.answered(tenant.OffboardingBegun(tenant_id=tenant_id), begun, "begin"),
        workflow.answered(archived, ended, "archive"),
    )


async def counted(client: httpx2.AsyncClient, **query: Any) -> dict[tuple[str, str | None], int]:
    return {(each["state"], each["tier"]): each["count"] for each in await listed(client, "tenants", **query)}


async def test_tenants_are_counted_by_state_and_tier(office: Office, pool: Pool) -> None:
    suspend, change = Workflow(), Workflow()
    await tell(
        pool,
        Workflow().answered(registered("begun"), "2026-01-01", "register"),
        *onboarded("a", "2026-01-01"),
        *onboarded("b", "2026-01-01"),
        *onboarded("suspended", "2026-01-01"),
        suspend.answered(tenant.TenantSuspended(tenant_id="suspended"), "2026-01-02", "suspend"),
        *onboarded("changed", "2026-01-01"),
        change.answered(moved_to("changed", "premium"), "2026-01-02", "change"),
        *onboarded("untold", "2026-01-01", tier=None),
        *onboarded("gone", "2026-01-01"),
        *offboarded("gone", "2026-01-02", "2026-01-03"),
    )
    expected = {
        ("active", None): 1,
        ("active", "premium"): 1,
        ("active", "standard"): 2,
        ("archived", "standard"): 1,
        ("registered", "standard"): 1,
        ("suspended", "standard"): 1,
    }

    assert await counted(office.client) == expected
    assert await counted(office.client, limit=1) == expected


async def test_what_is_taken_back_has_never_been(office: Office, pool: Pool) -> None:
    undone, suspend, offboard, change = (Workflow() for _ in range(4))
    told = [
        undone.answered(registered("undone"), "2026-01-01", "register"),
        undone.answered(tenant.TenantActivated(tenant_id="undone"), "2026-01-01", "activate"),
        undone.answered(tenant.TenantDeactivated(tenant_id="undone"), "2026-01-01", "activate"),
        undone.answered(tenant.TenantDeregistered(tenant_id="undone"), "2026-01-01", "register"),
        *onboarded("a", "2026-01-01"),
        suspend.answered(tenant.TenantSuspended(tenant_id="a"), "2026-01-02", "suspend"),
        suspend.answered(tenant.SuspensionLifted(tenant_id="a"), "2026-01-02", "suspend"),
        change.answered(moved_to("a", "premium"), "2026-01-03", "change"),
        change.answered(tenant.TierRestored(tenant_id="a"), "2026-01-03", "change"),
        offboard.answered(tenant.OffboardingBegun(tenant_id="a"), "2026-01-04", "begin"),
        offboard.answered(tenant.OffboardingCancelled(tenant_id="a"), "2026-01-04", "begin"),
    ]
    for event in reversed(told):
        await tell(pool, event)

    assert await counted(office.client) == {("active", "standard"): 1}


async def test_a_withdrawn_reactivation_leaves_a_tenant_suspended(office: Office, pool: Pool) -> None:
    suspend, reactivate = Workflow(), Workflow()
    await tell(
        pool,
        *onboarded("a", "2026-01-01"),
        suspend.answered(tenant.TenantSuspended(tenant_id="a"), "2026-01-02", "suspend"),
        reactivate.answered(tenant.TenantReactivated(tenant_id="a"), "2026-01-03", "reactivate"),
    )
    assert await counted(office.client) == {("active", "standard"): 1}

    await tell(pool, reactivate.answered(tenant.ReactivationWithdrawn(tenant_id="a"), "2026-01-04", "reactivate"))

    assert await counted(office.client) == {("suspended", "standard"): 1}


async def test_an_answer_that_is_told_again_later_is_no_new_one(office: Office, pool: Pool) -> None:
    """A step that is asked again is answered again, by another message of a later time."""
    onboard, suspend = Workflow(), Workflow()
    activated = tenant.TenantActivated(tenant_id="a")
    await tell(
        pool,
        onboard.answered(registered("a"), "2026-01-01", "register"),
        onboard.answered(activated, "2026-01-09", "activate"),
        suspend.answered(tenant.TenantSuspended(tenant_id="a"), "2026-01-05", "suspend"),
    )
    for at in ("2026-01-02", "2026-01-20"):
        await tell(pool, onboard.answered(activated, at, "activate"))

    assert await counted(office.client) == {("suspended", "standard"): 1}


async def test_what_answers_no_step_is_left_out(office: Office, pool: Pool) -> None:
    await tell(pool, event_of(tenant.TenantActivated(tenant_id="a"), "2026-01-01"))

    assert await counted(office.client) == {}


async def test_churn_is_of_the_tenants_of_the_start(office: Office, pool: Pool) -> None:
    undone = Workflow()
    await tell(
        pool,
        *(event for name in ("a", "b", "c") for event in onboarded(name, "2025-12-31T23:59:59.999999")),
        *onboarded("d", "2026-02-28"),
        *offboarded("a", "2026-01-31", "2026-02-01"),
        *offboarded("b", "2026-01-31", "2026-01-31T23:59"),
        *offboarded("never", "2026-01-31", "2026-02-01"),
        undone.answered(tenant.TenantActivated(tenant_id="e"), "2026-01-05", "activate"),
        undone.answered(tenant.TenantDeactivated(tenant_id="e"), "2026-01-05", "activate"),
    )
    expected = [
        ("2025-12", 0, 3, 0, 3, None),
        ("2026-01", 3, 0, 1, 2, "33.33"),
        ("2026-02", 2, 1, 1, 2, "50.00"),
        ("2026-03", 2, 0, 0, 2, "0.00"),
    ]

    async def months(**query: Any) -> list[tuple[Any, ...]]:
        return [tuple(each.values()) for each in await listed(office.client, "churn", **query)]

    assert await months() == await months(limit=1) == expected
    assert await months(**{"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:01Z"}) == expected[1:3]
    assert await months(to="2025-01-01T00:00:00Z") == []


async def test_without_a_tenant_there_is_nothing(office: Office) -> None:
    for what in ("tenants", "churn", "onboardings", "revenue"):
        assert await listed(office.client, what) == []


LIVES = (
    onboarded("a", "2026-01-01"),
    offboarded("a", "2026-01-02", "2026-02-01"),
    onboarded("b", "2026-01-31", "premium"),
    [Workflow().answered(moved_to("b", "standard"), "2026-02-01", "change")],
    [Workflow().answered(tenant.TenantSuspended(tenant_id="b"), "2026-02-02", "suspend")],
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chance=st.randoms(use_true_random=False), parts=st.integers(1, 4))
async def test_the_order_in_which_facts_come_changes_nothing(
    office: Office, pool: Pool, chance: Any, parts: int
) -> None:
    await pool.execute("DELETE FROM tenant_change")
    told = [event for part in LIVES for event in part]
    told += chance.sample(told, k=len(told) // 2)
    chance.shuffle(told)
    for part in range(parts):
        await tell(pool, *told[part::parts])

    assert await counted(office.client) == {("archived", "standard"): 1, ("suspended", "standard"): 1}
    assert [each["atEnd"] for each in await listed(office.client, "churn")] == [2, 1, 1]
