"""What a tenant was given of its tier stays with it, whatever becomes of the catalog."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import pytest

from services.tenant.tests.catalogue import Office
from services.tenant.tests.support import archive, ask, deliver, open_for_business, register
from shared.contracts import Message
from shared.contracts.tenant import (
    ChangeProducts,
    ChangeTier,
    LiftSuspension,
    ProductsChanged,
    ReactivateTenant,
    RestoreTier,
    SuspendTenant,
    TenantReactivated,
    TenantRegistered,
    TenantSuspended,
    TierChanged,
    TierChangeRefused,
    TierRestored,
    UsagePlan,
)
from shared.postgres import Pool

CHANGE: Mapping[str, Any] = {
    "plan": "premium",
    "quotas": {"seats": 1},
    "isolation": "silo",
    "driver": "script",
    "region": "eu-west-1",
    "parameters": {"size": "large", "zones": [1, 2]},
    "connections": None,
    "requestsPerSecond": 1,
    "requestsPerDay": None,
}
"""What makes another tier of any."""

MEANT: Mapping[str, Any] = {
    "plan": "standard",
    "quotas": {"api_calls": 100_000, "storage_gb": 10, "seats": 25},
    "isolation": "bridge",
    "connections": 10,
    "driver": "postgres",
    "region": None,
    "parameters": {},
}
"""What `standard` means on a new installation."""

MEANS: Mapping[str, Any] = {name: value for name, value in CHANGE.items() if not name.startswith("requests")}
"""What it means when it is changed."""


def plan(version: int, per_second: int | None = 50, per_day: int | None = 200_000) -> UsagePlan:
    return UsagePlan(tier="standard", version=version, requests_per_second=per_second, requests_per_day=per_day)


async def facts(pool: Pool) -> dict[str, str]:
    """Return what the residue audit compares with what the other services say."""
    rows = await pool.fetch("SELECT fact, value FROM audited_fact WHERE tenant_id = 't1' AND fact <> 'state'")
    return {row["fact"]: row["value"] for row in rows}


async def changed(office: Office, tier: str = "standard") -> None:
    answer = await office.patch(f"/v1/tiers/{tier}", CHANGE)
    assert answer.status_code == 200, answer.text


async def test_a_registration_tells_what_the_changed_tier_means(office: Office, pool: Pool) -> None:
    await changed(office)

    assert await register(pool, ask("t1", tier="standard")) == [
        TenantRegistered(tenant_id="t1", **MEANS, usage_plan=plan(1, 1, None), products=())
    ]


async def test_a_change_of_tier_tells_what_the_changed_tier_means(office: Office, pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))
    await changed(office)

    assert await deliver(pool, ChangeTier(tenant_id="t1", tier="standard")) == [
        TierChanged(tenant_id="t1", tier="standard", **MEANS, usage_plan=plan(3, 1, None))
    ]


async def test_nobody_who_looks_at_a_running_tenant_sees_that_its_tier_was_changed(office: Office, pool: Pool) -> None:
    await open_for_business(pool, ask("t1", tier="standard"), ask("t2", tier="premium"))
    paths = ("/v1/tenants", "/v1/tenant-config?tenantName=Customer%20t1")
    shown = [(await office.get(path)).json() for path in paths]
    stated = await facts(pool)

    await changed(office)
    await office.patch("/v1/tiers/premium", {"isolation": "pool"})
    await office.post("/v1/tiers/standard/retire")

    assert [(await office.get(path)).json() for path in paths] == shown
    assert [each["dedicatedTenancy"] for each in shown[0]["items"]] == [False, True]
    assert await facts(pool) == stated
    assert stated["isolation"] == "bridge"


async def test_a_tenant_of_a_changed_tier_goes_through_its_life_as_before(office: Office, pool: Pool) -> None:
    await open_for_business(pool, ask("t1", tier="standard"))
    stated = await facts(pool)
    await changed(office)

    answers: Sequence[Message] = [
        *await deliver(pool, SuspendTenant(tenant_id="t1"), workflow="suspension"),
        *await deliver(pool, ReactivateTenant(tenant_id="t1"), workflow="reactivation"),
        *await deliver(pool, SuspendTenant(tenant_id="t1"), LiftSuspension(tenant_id="t1"), workflow="in vain"),
        *await deliver(pool, ChangeProducts(tenant_id="t1", products=()), workflow="products"),
    ]

    assert [type(each) for each in answers[:3]] == [TenantSuspended, TenantReactivated, TenantSuspended]
    assert isinstance(answers[-1], ProductsChanged)
    assert await facts(pool) == stated
    await archive(pool, "t1")
    assert (await office.get("/v1/tenants/t1")).json()["dedicatedTenancy"] is False


async def test_an_undo_brings_back_what_the_former_tier_had_meant(office: Office, pool: Pool) -> None:
    await open_for_business(pool, ask("t1", tier="standard"))
    stated = await facts(pool)
    await deliver(pool, ChangeTier(tenant_id="t1", tier="premium"))
    await changed(office)
    await changed(office, "premium")
    await office.post("/v1/tiers/standard/retire")

    assert await deliver(pool, RestoreTier(tenant_id="t1")) == [TierRestored(tenant_id="t1", usage_plan=plan(4))]
    assert await facts(pool) == stated
    row = await pool.fetchrow("SELECT tier, tier_meaning FROM tenant")
    assert row is not None
    assert row["tier_meaning"] == {
        "tier": row["tier"], **MEANT, "requests_per_second": 50, "requests_per_day": 200_000,
    }  # fmt: skip


async def test_an_undo_that_finds_nothing_to_undo_tells_what_the_tenant_was_given(office: Office, pool: Pool) -> None:
    await open_for_business(pool, ask("t1", tier="standard"))
    await changed(office)

    assert await deliver(pool, RestoreTier(tenant_id="t1")) == [TierRestored(tenant_id="t1", usage_plan=plan(2))]


async def test_a_tenant_is_given_what_its_tier_has_come_to_mean_when_it_is_put_on_it_again(
    office: Office, pool: Pool
) -> None:
    await open_for_business(pool, ask("t1", tier="standard"))
    again = ChangeTier(tenant_id="t1", tier="standard")

    (before,) = await deliver(pool, again, workflow="before")
    await changed(office)
    (after,) = await deliver(pool, again, workflow="after")
    (once_more,) = await deliver(pool, again, workflow="once more")

    assert [each.code for each in (before, once_more) if isinstance(each, TierChangeRefused)] == ["same_tier"] * 2
    assert after == TierChanged(tenant_id="t1", tier="standard", **MEANS, usage_plan=plan(3, 1, None))
    assert await facts(pool) == {"plan": "premium", "isolation": "silo", "quotas": '{"seats": 1}'}


async def test_that_is_undone_too(office: Office, pool: Pool) -> None:
    await open_for_business(pool, ask("t1", tier="standard"))
    stated = await facts(pool)
    await changed(office)
    await deliver(pool, ChangeTier(tenant_id="t1", tier="standard"))

    await deliver(pool, RestoreTier(tenant_id="t1"))

    assert await facts(pool) == stated


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tenant SET tier = 'premium'",
        """
        INSERT INTO tenant (tenant_id, customer_name, name_key, tier, email, created_at, updated_at)
        VALUES ('t1', 'Acme', 'acme', 'premium', 'ada@example.com', now(), now())
        ON CONFLICT (tenant_id) DO UPDATE SET tier = 'premium'
        """,
    ],
)
async def test_code_of_the_release_before_gives_a_tenant_what_its_tier_means_now(
    office: Office, pool: Pool, statement: str
) -> None:
    if statement.startswith("UPDATE"):
        await register(pool, ask("t1"))
    await changed(office, "premium")

    await pool.execute(statement)

    assert await facts(pool) == {"plan": "premium", "isolation": "silo", "quotas": '{"seats": 1}'}


async def test_what_the_release_before_has_changed_is_taken_back_by_this_one(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", tier="standard"))
    stated = await facts(pool)
    await deliver(pool, ChangeTier(tenant_id="t1", tier="premium"))
    await pool.execute(
        "UPDATE operation SET before = before #- '{found,tier_meaning}' #- '{changed_to,tier_meaning}'"
        " WHERE before IS NOT NULL"
    )

    await deliver(pool, RestoreTier(tenant_id="t1"))

    assert await facts(pool) == stated


async def test_a_tenant_cannot_have_the_meaning_of_another_tier(pool: Pool) -> None:
    await register(pool, ask("t1"))

    await pool.execute("""UPDATE tenant SET tier_meaning = tier_meaning || '{"tier": "premium", "plan": "none"}'""")

    assert (await facts(pool))["plan"] == "free"
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await pool.execute("DELETE FROM tier WHERE name = 'free'")
