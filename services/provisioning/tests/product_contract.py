"""What every driver promises of a product's own environment: it and its tenant's are as apart as two tenants' are."""

import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from services.provisioning.drivers import Environment, tenancy_of
from services.provisioning.tests.driver_contract import DriverKit, Job, environment


@dataclass(frozen=True)
class Two:
    """Two environments of one tenant, of which each keeps something.

    Attributes:
        one: to which something happens.
        other: which must notice nothing.
    """

    one: Environment
    other: Environment


class ProductContract:
    """Inherit it together with `driver_contract.DriverContract`, whose fixture ``kit`` it uses."""

    async def test_what_is_kept_and_runs_in_one_environment_is_in_no_other_of_the_tenant(self, kit: DriverKit) -> None:
        async for two in _each_beside_the_other(kit):
            before = await _seen(kit, two.other)

            changed = await _do(kit, "deploy", replace(two.one, products={"tasks": "2"}))

            assert await kit.kept(changed) == {changed.tenant_id}
            assert await kit.kept(two.other) == {two.other.tenant_id}
            (found,) = await kit.driver.inspect([changed])
            assert not kit.deploys or found.products == {"tasks": "2"}
            assert await _seen(kit, two.other) == before

    async def test_where_one_environment_is_throttled_another_of_the_tenant_is_worked_in(self, kit: DriverKit) -> None:
        async for two in _each_beside_the_other(kit):
            before = await _seen(kit, two.other)

            closed = await _do(kit, "throttle", replace(two.one, is_throttled=True))

            assert not await kit.is_usable(closed)
            assert await kit.is_usable(two.other)
            assert await _seen(kit, two.other) == before
            opened = await _do(kit, "throttle", replace(closed, is_throttled=False))
            assert await kit.is_usable(opened)

    async def test_where_one_environment_is_removed_nothing_of_another_is(self, kit: DriverKit) -> None:
        async for two in _each_beside_the_other(kit):
            before = await _seen(kit, two.other)

            await _do(kit, "deprovision", two.one)

            assert await kit.remains(two.one.tenant_id) == set()
            assert await kit.is_usable(two.other)
            assert await _seen(kit, two.other) == before

    async def test_where_one_environment_moves_another_of_the_tenant_stays(self, kit: DriverKit) -> None:
        async for two in _each_beside_the_other(kit):
            before = await _seen(kit, two.other)
            for isolation in _to_or_from(kit, two):
                moved = await _do(kit, "move", two.one, replace(two.one, isolation=isolation, resources={}))

                assert await _places(kit, moved) == {isolation}
                assert await kit.kept(moved) == {moved.tenant_id}
                assert await kit.is_usable(two.other)
                assert await _seen(kit, two.other) == before


async def _each_beside_the_other(kit: DriverKit) -> AsyncIterator[Two]:
    """Make a tenant's own environment and its product's, in one isolation and in two; let it happen to each of them."""
    for isolation, another in _pairs(kit):
        own = environment("t", isolation)
        products = environment(tenancy_of("t", "notes"), another, product="notes", products={"notes": "1"})
        for one, other in ((own, products), (products, own)):
            made = [await _do(kit, "provision", each) for each in (one, other)]
            for each in made:
                await kit.keep(each, each.tenant_id)
            yield Two(*made)
            for each in made:
                await _do(kit, "deprovision", each)
                assert await kit.remains(each.tenant_id) == set()


def _pairs(kit: DriverKit) -> Sequence[tuple[str, str]]:
    """Return each isolation beside itself, and beside the next one."""
    isolations = kit.driver.isolations
    beside = [(each, each) for each in isolations]
    return beside + list(itertools.pairwise(isolations))


def _to_or_from(kit: DriverKit, two: Two) -> Sequence[str]:
    """Return where an environment can move: to where the other one is, or, if it is there already, to another place."""
    others = [each for each in kit.driver.isolations if each != two.one.isolation]
    return [two.other.isolation] if two.other.isolation in others else others[:1]


async def _seen(kit: DriverKit, made: Environment) -> tuple[object, ...]:
    """Return all that can be seen of an environment."""
    return await kit.driver.inspect([made]), await kit.kept(made), await kit.remains(made.tenant_id)


async def _places(kit: DriverKit, made: Environment) -> set[str]:
    return {each.partition("/")[0] for each in await kit.remains(made.tenant_id)}


async def _do(kit: DriverKit, operation: str, made: Environment, target: Environment | None = None) -> Environment:
    job = Job(kit, operation, made, target)
    await job.finish()
    return job.environment
