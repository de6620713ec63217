import asyncio

import pytest

from services.provisioning.drivers import Partition
from services.provisioning.tests.support import Application, ask, bodies, deprovision, provision, residue
from shared.clock import ManualClock
from shared.contracts.provisioning import EnvironmentDeprovisioned, EnvironmentProvisioned, EnvironmentRefused
from shared.postgres import Pool

NOTES = [{"name": "notes", "version": "1.0"}]
TASKS = [{"name": "tasks", "version": "1.0"}]


class CrashError(Exception):
    """Stands for whatever ends a handler between its effect and its commit."""


async def test_an_environment_is_ready_in_the_default_region(pool: Pool, application: Application) -> None:
    clock = ManualClock()

    (fact,) = await provision(pool, application.driver, ask("a", products=NOTES), clock=clock)

    (environment,) = await pool.fetch("SELECT * FROM environment")
    assert fact == EnvironmentProvisioned(
        tenant_id="a", environment_id=str(environment["environment_id"]), isolation="pool", region="local"
    )
    assert (environment["state"], environment["created_at"]) == ("ready", clock.now())
    assert [tuple(row) for row in await pool.fetch("SELECT * FROM deployment")] == [("a", "notes", "1.0")]
    assert await application.residue() == [("a", "tenancy.tenant")]


async def test_an_environment_is_made_in_the_region_that_is_asked_for(pool: Pool, application: Application) -> None:
    (fact,) = await provision(pool, application.driver, ask("a", region="eu-central"))

    assert isinstance(fact, EnvironmentProvisioned)
    assert fact.region == "eu-central"


async def test_what_cannot_be_made_is_refused_and_stops_no_other_ask_of_the_batch(
    pool: Pool, application: Application
) -> None:
    first, second, third = await provision(
        pool, application.driver, ask("a", region="atlantis"), ask("b"), ask("c", isolation="silo")
    )

    assert first == EnvironmentRefused(
        tenant_id="a", code="unknown_region", detail="There is no region 'atlantis', only local, eu-central."
    )
    assert isinstance(second, EnvironmentProvisioned)
    assert third == EnvironmentRefused(
        tenant_id="c", code="unsupported_isolation", detail="Isolation 'silo' cannot be provided, only pool."
    )
    assert await residue(pool) == [("b", "environment")]
    assert await application.residue() == [("b", "tenancy.tenant")]


async def test_a_batch_of_refusals_touches_nothing(pool: Pool, application: Application) -> None:
    assert len(await provision(pool, application.driver, ask("a", region="atlantis"))) == 1

    assert await residue(pool) == await application.residue() == []


async def test_a_tenant_has_one_environment_however_often_it_is_asked_for(pool: Pool, application: Application) -> None:
    (first,) = await provision(pool, application.driver, ask("a", products=NOTES))

    again = await provision(pool, application.driver, ask("a", region="eu-central", products=TASKS), ask("a"))

    assert again == [first, first]
    assert await residue(pool) == [("a", "deployment"), ("a", "environment")]


async def test_five_hundred_environments_are_made_and_removed_in_one_batch(
    pool: Pool, application: Application
) -> None:
    tenant_ids = [f"t{number}" for number in range(500)]

    facts = await provision(pool, application.driver, *(ask(tenant_id, products=NOTES) for tenant_id in tenant_ids))
    assert [fact.tenant_id for fact in facts if isinstance(fact, EnvironmentProvisioned)] == tenant_ids
    assert len(await application.residue()) == 500

    facts = await deprovision(pool, application.driver, *tenant_ids)
    assert [fact.tenant_id for fact in facts] == tenant_ids
    assert await residue(pool) == await application.residue() == []


async def test_removing_leaves_nothing_of_the_tenant_and_everything_of_others(
    pool: Pool, application: Application
) -> None:
    await provision(pool, application.driver, ask("a", products=NOTES), ask("b"))
    _, b = await application.tenants("a", "b")

    assert await deprovision(pool, application.driver, "a") == [EnvironmentDeprovisioned(tenant_id="a")]

    assert await residue(pool) == [("b", "environment")]
    assert {tenant_id for tenant_id, _ in await application.residue()} == {"b"}
    assert await bodies(b) == ["of b"]


async def test_removing_what_never_was_is_answered_all_the_same(pool: Pool, application: Application) -> None:
    answer = EnvironmentDeprovisioned(tenant_id="a")

    assert await deprovision(pool, application.driver, "a", "a") == [answer, answer]


async def test_what_a_crash_before_the_commit_has_left_is_removed_although_our_own_tables_know_nothing(
    pool: Pool, application: Application
) -> None:
    await provision_and_crash(pool, application)
    assert await residue(pool) == []
    assert await application.residue() == [("a", "tenancy.tenant")]

    await deprovision(pool, application.driver, "a")

    assert await application.residue() == []


async def test_what_a_crash_before_the_commit_has_left_does_not_hinder_the_next_attempt(
    pool: Pool, application: Application
) -> None:
    await provision_and_crash(pool, application)

    (fact,) = await provision(pool, application.driver, ask("a"))

    assert isinstance(fact, EnvironmentProvisioned)
    assert await application.residue() == [("a", "tenancy.tenant")]


async def provision_and_crash(pool: Pool, application: Application) -> None:
    class Crashing:
        """The driver of a process that dies once its effect is there."""

        async def provision(self, partitions: list[Partition]) -> None:
            await application.driver.provision(partitions)
            raise CrashError

    with pytest.raises(CrashError):
        await provision(pool, Crashing(), ask("a"))  # type: ignore[arg-type]  # only what is used


async def test_batches_that_share_tenants_in_opposite_orders_wait_for_each_other_and_never_in_a_circle(
    pool: Pool, application: Application
) -> None:
    forward = [f"t{number}" for number in range(50)]

    async with asyncio.TaskGroup() as group:
        for tenant_ids in (forward, forward[::-1], forward, forward[::-1]):
            group.create_task(provision(pool, application.driver, *map(ask, tenant_ids)))
    async with asyncio.TaskGroup() as group:
        for tenant_ids in (forward, forward[::-1], forward, forward[::-1]):
            group.create_task(deprovision(pool, application.driver, *tenant_ids))

    assert await residue(pool) == await application.residue() == []
