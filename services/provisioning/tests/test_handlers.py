"""Environments in Postgres made and removed as they are asked for."""

import asyncio

from services.provisioning.tests.support import ask, bodies, residue
from services.provisioning.tests.world import PostgresWorld
from shared.contracts.provisioning import (
    DeprovisionEnvironment,
    EnvironmentDeprovisioned,
    EnvironmentProvisioned,
    EnvironmentRefused,
)
from shared.testing.three_services import asked

NOTES = [{"name": "notes", "version": "1.0"}]
TASKS = [{"name": "tasks", "version": "1.0"}]


async def test_an_environment_is_ready_in_the_default_region(world: PostgresWorld) -> None:
    (fact,) = await world.handle(asked(ask("a", products=NOTES)))

    (environment,) = await world.pool.fetch("SELECT * FROM environment")
    assert fact == EnvironmentProvisioned(
        tenant_id="a", environment_id=str(environment["environment_id"]), isolation="pool", region="local"
    )
    assert (environment["status"], environment["created_at"]) == ("ready", world.clock.now())
    assert [tuple(row) for row in await world.pool.fetch("SELECT * FROM deployment")] == [("a", "notes", "1.0")]
    assert await world.application.residue() == [("a", "tenancy.tenant")]


async def test_an_environment_is_made_in_the_region_that_is_asked_for(world: PostgresWorld) -> None:
    (fact,) = await world.handle(asked(ask("a", region="eu-central")))

    assert isinstance(fact, EnvironmentProvisioned)
    assert fact.region == "eu-central"


async def test_what_cannot_be_made_is_refused_and_stops_no_other_ask_of_the_batch(world: PostgresWorld) -> None:
    first, second, third, fourth = await world.handle(
        asked(ask("a", region="atlantis")),
        asked(ask("c", isolation="castle")),
        asked(ask("d", driver="clouds")),
        asked(ask("b")),
    )

    assert first == EnvironmentRefused(
        tenant_id="a", code="unknown_region", detail="There is no region 'atlantis', only local, eu-central."
    )
    assert second == EnvironmentRefused(
        tenant_id="c",
        code="unsupported_isolation",
        detail="Isolation 'castle' cannot be provided, only pool, bridge, silo.",
    )
    assert third == EnvironmentRefused(
        tenant_id="d", code="unknown_driver", detail="There is no driver 'clouds', only postgres."
    )
    assert isinstance(fourth, EnvironmentProvisioned)
    assert await residue(world.pool) == [("b", "environment")]
    assert await world.application.residue() == [("b", "tenancy.tenant")]


async def test_a_batch_of_refusals_touches_nothing(world: PostgresWorld) -> None:
    assert len(await world.handle(asked(ask("a", region="atlantis")))) == 1

    assert await residue(world.pool) == await world.application.residue() == []


async def test_a_tenant_has_one_environment_however_often_it_is_asked_for(world: PostgresWorld) -> None:
    (first,) = await world.handle(asked(ask("a", products=NOTES)))

    again = await world.handle(asked(ask("a", region="eu-central", products=TASKS)), asked(ask("a")))

    assert again == [first, first]
    assert await residue(world.pool) == [("a", "deployment"), ("a", "environment")]


async def test_two_asks_of_one_batch_for_one_tenant_make_one_environment(world: PostgresWorld) -> None:
    said = await world.handle(asked(ask("a")), asked(ask("a")))

    assert [getattr(each, "code", None) for each in said] == ["environment_busy", None]
    assert await residue(world.pool) == [("a", "environment")]


async def test_five_hundred_environments_are_made_and_removed_in_one_batch(world: PostgresWorld) -> None:
    tenant_ids = sorted(f"t{number}" for number in range(500))
    events = [asked(ask(tenant_id, products=NOTES)) for tenant_id in tenant_ids]

    facts = await world.handle(*events)
    assert [fact.tenant_id for fact in facts if isinstance(fact, EnvironmentProvisioned)] == tenant_ids
    assert len(await world.application.residue()) == 500

    facts = await world.undo(*events)
    assert [fact.tenant_id for fact in facts] == tenant_ids
    assert await residue(world.pool) == await world.application.residue() == []


async def test_removing_leaves_nothing_of_the_tenant_and_everything_of_others(world: PostgresWorld) -> None:
    await world.provision("a", products=NOTES)
    await world.provision("b")
    _, b = await world.application.sessions("a", "b")

    assert await world.handle(asked(DeprovisionEnvironment(tenant_id="a"))) == [EnvironmentDeprovisioned(tenant_id="a")]

    assert await residue(world.pool) == [("b", "environment")]
    assert {tenant_id for tenant_id, _ in await world.application.residue()} == {"b"}
    assert await bodies(b) == ["of b"]


async def test_removing_what_never_was_is_answered_all_the_same(world: PostgresWorld) -> None:
    ask_ = DeprovisionEnvironment(tenant_id="a")

    assert await world.handle(asked(ask_), asked(ask_)) == [EnvironmentDeprovisioned(tenant_id="a")] * 2


async def test_what_a_dying_worker_has_left_is_removed(world: PostgresWorld) -> None:
    event = asked(ask("a"))
    await world.crash(event)
    assert await world.application.residue() == [("a", "tenancy.tenant")]

    await world.undo(event)

    assert await residue(world.pool) == await world.application.residue() == []


async def test_batches_that_share_tenants_in_opposite_orders_wait_for_each_other_and_never_in_a_circle(
    world: PostgresWorld,
) -> None:
    forward = [f"t{number}" for number in range(50)]

    async with asyncio.TaskGroup() as group:
        for tenant_ids in (forward, forward[::-1], forward, forward[::-1]):
            group.create_task(world.take(*(asked(ask(each)) for each in tenant_ids)))
    async with asyncio.TaskGroup() as group:
        for tenant_ids in (forward, forward[::-1], forward, forward[::-1]):
            group.create_task(world.take(*(asked(DeprovisionEnvironment(tenant_id=each)) for each in tenant_ids)))
    await world.work()

    assert await residue(world.pool) == await world.application.residue() == []
