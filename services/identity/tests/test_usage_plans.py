"""What a tenant's tier lets it ask of applications: how it comes here, what replaces it, and that it goes."""

import asyncio

import pytest

from services.identity.tests.world import ANNA, World
from shared.contracts import Fact
from shared.contracts.identity import CreateAdministrators, PurgeUsers
from shared.contracts.tenant import TierChanged, TierRestored, UsagePlan
from shared.postgres import transaction
from shared.testing import eventually
from shared.testing.three_services import asked, told

FREE = UsagePlan(tier="free", version=1, requests_per_second=10, requests_per_day=10_000)
PREMIUM = UsagePlan(tier="premium", version=3, requests_per_second=500)


def creation(plan: UsagePlan | None, tenant_id: str = "t1", *emails: str) -> CreateAdministrators:
    return CreateAdministrators(tenant_id=tenant_id, customer_name="Acme", emails=emails or (ANNA,), usage_plan=plan)


def changed(plan: UsagePlan | None, tenant_id: str = "t1") -> TierChanged:
    return TierChanged(
        tenant_id=tenant_id, tier="premium", plan="premium", quotas={}, isolation="pool", usage_plan=plan
    )


def restored(plan: UsagePlan | None, tenant_id: str = "t1") -> TierRestored:
    return TierRestored(tenant_id=tenant_id, usage_plan=plan)


async def hear(world: World, *facts: Fact) -> None:
    assert await world.handle(*(told(fact) for fact in facts)) == []


async def plans(world: World) -> dict[str, UsagePlan]:
    rows = await world.pool.fetch("SELECT * FROM tenant_plan")
    return {row["tenant_id"]: UsagePlan(**{name: row[name] for name in UsagePlan.model_fields}) for row in rows}


async def test_a_plan_comes_with_the_administrators_and_goes_with_them(world: World) -> None:
    ask = await world.do(creation(FREE))
    await world.do(creation(None, "t2"))
    assert await plans(world) == {"t1": FREE}

    await world.undo(ask)
    assert await plans(world) == {}


async def test_a_plan_goes_with_the_tenant_and_so_does_what_was_used_of_it(world: World) -> None:
    await world.do(creation(FREE))
    await world.do(creation(FREE, "t2"))
    await world.pool.execute("INSERT INTO usage_day VALUES ('t1', '2026-11-21', 7), ('t2', '2026-11-21', 8)")

    await world.do(PurgeUsers(tenant_id="t1"))

    assert await plans(world) == {"t2": FREE}
    assert [row["tenant_id"] for row in await world.pool.fetch("SELECT * FROM usage_day")] == ["t2"]


async def test_a_tenant_whose_administrators_were_refused_has_no_plan(world: World) -> None:
    refused = CreateAdministrators(tenant_id="t1", customer_name="Acme", emails=(), usage_plan=FREE)

    await world.handle(asked(refused))

    assert await plans(world) == {}


async def test_another_tier_is_another_plan_and_the_old_one_is_that_again(world: World) -> None:
    await world.do(creation(FREE))

    await hear(world, changed(PREMIUM))
    assert await plans(world) == {"t1": PREMIUM}

    back = FREE.model_copy(update={"version": 4})
    await hear(world, restored(back))
    assert await plans(world) == {"t1": back}


@pytest.mark.parametrize("size", [1, 3])
async def test_facts_in_the_wrong_order_leave_the_newest_plan(world: World, size: int) -> None:
    await world.do(creation(FREE))
    back = FREE.model_copy(update={"version": 4})
    facts: list[Fact] = [restored(back), restored(FREE), changed(PREMIUM)]

    for start in range(0, len(facts), size):
        await hear(world, *facts[start : start + size])

    assert await plans(world) == {"t1": back}


async def test_facts_of_those_who_tell_of_no_plan_yet_change_nothing(world: World) -> None:
    await world.do(creation(FREE))

    await hear(world, changed(None), restored(None), changed(PREMIUM, "t2").model_copy(update={"usage_plan": None}))

    assert await plans(world) == {"t1": FREE}


async def test_a_tenant_from_before_there_were_plans_has_one_from_its_next_tier_on(world: World) -> None:
    await world.do(creation(None))

    await hear(world, changed(PREMIUM))

    assert await plans(world) == {"t1": PREMIUM}


async def test_a_fact_that_comes_late_leaves_nothing_of_a_tenant_that_is_gone(world: World) -> None:
    await world.do(creation(FREE))
    await world.do(PurgeUsers(tenant_id="t1"))

    await hear(world, changed(PREMIUM))

    assert await plans(world) == {}


async def test_a_fact_that_meets_a_purge_leaves_nothing(world: World) -> None:
    await world.do(creation(FREE))

    async with transaction(world.pool) as connection:
        await connection.execute("SELECT FROM users FOR UPDATE")
        purging = asyncio.create_task(world.do(PurgeUsers(tenant_id="t1")))
        await eventually(lambda: world.has_waiting(1))
        hearing = asyncio.create_task(hear(world, changed(PREMIUM)))
        await eventually(lambda: world.has_waiting(2))
    await asyncio.gather(purging, hearing)

    assert await plans(world) == {}


async def test_a_tenant_with_a_plan_has_left_something(world: World) -> None:
    await world.do(creation(FREE))
    await world.pool.execute("DELETE FROM invitation; DELETE FROM membership; DELETE FROM users")

    rows = await world.pool.fetch("SELECT tenant_id, place FROM live_record")

    assert [tuple(row) for row in rows] == [("t1", "tenant_plan")]
