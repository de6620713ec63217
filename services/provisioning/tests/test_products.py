"""Products with environments of their own: made, changed and removed with those of their tenants, and back again."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from services.provisioning.jobs.planning import DROPPED
from services.provisioning.jobs.worker import CLAIM
from services.provisioning.tests.staged import StagedDriver
from services.provisioning.tests.support import ask, residue
from services.provisioning.tests.world import World
from shared.contracts.base import Message
from shared.contracts.provisioning import (
    DeploymentRefused,
    DeploymentsRestored,
    DeployProducts,
    EnvironmentDeprovisioned,
    EnvironmentMoved,
    EnvironmentProvisioned,
    EnvironmentRefused,
    EnvironmentReleased,
    EnvironmentRemoved,
    EnvironmentThrottled,
    EnvironmentUnthrottled,
    MoveEnvironment,
    ProductsDeployed,
    ProductsRemoved,
    ProvisionEnvironment,
    ReleaseEnvironment,
    RemoveEnvironment,
    RemoveProducts,
    ThrottleEnvironment,
)
from shared.contracts.tenant import PlacedProduct
from shared.postgres import Pool
from shared.testing.three_services import asked

TENANT = "somebody"
SHARED = PlacedProduct(name="tasks", version="1")
CRM = PlacedProduct(name="crm", version="1", driver="staged", isolation="silo", region="eu-central")
SHOP = PlacedProduct(name="shop", version="3", driver="staged", isolation="pool", parameters={"size": "small"})
OWN, OF_CRM, OF_SHOP = TENANT, f"{TENANT}:crm", f"{TENANT}:shop"


@pytest.fixture
def driver() -> StagedDriver:
    return StagedDriver()


@pytest.fixture
def world(pool: Pool, driver: StagedDriver) -> World:
    return World(pool, driver)


def wanted(*products: PlacedProduct) -> ProvisionEnvironment:
    return ask(TENANT, driver="staged", products=products)


def deployed(*products: PlacedProduct) -> DeployProducts:
    return DeployProducts(tenant_id=TENANT, products=products)


def kept(*products: PlacedProduct) -> RemoveProducts:
    return RemoveProducts(tenant_id=TENANT, products=tuple(each.name for each in products))


def types(messages: Sequence[Message]) -> list[type[Message]]:
    return [type(message) for message in messages]


async def recorded(world: World) -> dict[str, tuple[str, str, dict[str, str]]]:
    """Return the isolation, the status and the products of each environment on record."""
    rows = await world.pool.fetch(
        """
        SELECT environment.tenant_id, isolation, status,
               (SELECT coalesce(jsonb_object_agg(deployment.product, version), '{}')
                FROM deployment WHERE deployment.tenant_id = environment.tenant_id) AS products
        FROM environment ORDER BY environment.tenant_id
        """
    )
    return {row["tenant_id"]: (row["isolation"], row["status"], row["products"]) for row in rows}


async def throttled(world: World) -> dict[str, str | None]:
    """Return which environments nobody may work in, and why."""
    rows = await world.pool.fetch("SELECT tenant_id, throttle_reason FROM environment WHERE throttled_at IS NOT NULL")
    return {row["tenant_id"]: row["throttle_reason"] for row in rows}


async def nothing_is_left(world: World, driver: StagedDriver) -> bool:
    return not driver.made and not await residue(world.pool)


class TestProvisioning:
    async def test_each_product_that_wants_one_gets_an_environment_beside_its_tenants(
        self, world: World, driver: StagedDriver
    ) -> None:
        (answer,) = await world.handle(asked(wanted(SHARED, CRM, SHOP)))

        assert isinstance(answer, EnvironmentProvisioned)
        own = await world.pool.fetchrow("SELECT * FROM environment WHERE tenant_id = $1", TENANT)
        assert own is not None
        assert answer.environment_id == str(own["environment_id"])
        assert (answer.tenant_id, answer.isolation, answer.region) == (TENANT, "pool", "local")
        assert await recorded(world) == {
            OWN: ("pool", "ready", {"tasks": "1"}),
            OF_CRM: ("silo", "ready", {"crm": "1"}),
            OF_SHOP: ("pool", "ready", {"shop": "3"}),
        }
        assert {name: made.stage for name, made in driver.made.items()} == dict.fromkeys((OWN, OF_CRM, OF_SHOP), "open")
        assert await world.jobs() == []

    async def test_what_a_product_says_of_its_environment_reaches_the_driver(self, world: World) -> None:
        await world.handle(asked(wanted(CRM, SHOP)))

        rows = await world.pool.fetch(
            "SELECT owner_id, product, region, parameters FROM environment WHERE product IS NOT NULL ORDER BY product"
        )
        assert [tuple(row) for row in rows] == [
            (TENANT, "crm", "eu-central", {}),
            (TENANT, "shop", "local", {"size": "small"}),
        ]

    async def test_a_worker_that_dies_between_two_environments_is_followed_by_one_that_goes_on_there(
        self, world: World, driver: StagedDriver
    ) -> None:
        await world.take(asked(wanted(CRM)))
        driver.hangs.add(("provision", "open"))
        await world.worker.look()
        while ("provision", OF_CRM, "open") not in driver.asked:
            await asyncio.sleep(0.01)
            await world.worker.look()
        for call in list(world.worker.running):
            call.cancel()  # it dies
        await asyncio.wait(list(world.worker.running))
        driver.hangs.clear()

        world.worker = world.another_worker()
        assert types(await world.wait(CLAIM.total_seconds())) == [EnvironmentProvisioned]

        assert driver.asked.count(("provision", OF_CRM, "")) == 1, "it has begun anew"
        assert await recorded(world) == {OWN: ("pool", "ready", {}), OF_CRM: ("silo", "ready", {"crm": "1"})}

    @pytest.mark.parametrize("reached", [OF_CRM, OF_SHOP, OWN])
    async def test_one_that_cannot_be_made_takes_all_others_back(
        self, world: World, driver: StagedDriver, reached: str
    ) -> None:
        await world.take(asked(wanted(CRM, SHOP)))
        while driver.asked[-1:] != [("provision", reached, "")]:
            await world.worker.look()
            await asyncio.wait(list(world.worker.running))
        driver.refuse("provision", "build")

        (answer,) = await world.work()

        assert isinstance(answer, EnvironmentRefused)
        assert (answer.code, answer.tenant_id) == ("no_room", TENANT)
        assert await nothing_is_left(world, driver)

    @pytest.mark.parametrize(
        ("details", "code"),
        [
            ({"driver": "none"}, "unknown_driver"),
            ({"region": "nowhere"}, "unknown_region"),
            ({"isolation": "bridge"}, "unsupported_isolation"),
        ],
    )
    async def test_one_that_nobody_can_make_is_refused_at_once_and_nothing_is_recorded(
        self, world: World, driver: StagedDriver, details: dict[str, Any], code: str
    ) -> None:
        assert await world.refusal(wanted(SHOP, CRM.model_copy(update=details))) == code
        assert driver.asked == []
        assert await nothing_is_left(world, driver)

    async def test_who_asks_for_an_environment_that_is_there_leaves_nothing_of_products_behind(
        self, world: World
    ) -> None:
        await world.handle(asked(wanted()))
        assert types(await world.handle(asked(wanted(CRM)))) == [EnvironmentProvisioned]

        assert list(await recorded(world)) == [OWN]

    async def test_undone_once_it_is_done_nothing_is_left(self, world: World, driver: StagedDriver) -> None:
        (event,) = await world.do(wanted(SHARED, CRM, SHOP))

        assert types(await world.undo(event)) == [EnvironmentDeprovisioned]
        assert await nothing_is_left(world, driver)

    @pytest.mark.parametrize("reached", [OF_CRM, OF_SHOP, OWN])
    async def test_undone_on_the_way_nothing_is_left_of_what_was_made_or_was_to_be(
        self, world: World, driver: StagedDriver, reached: str
    ) -> None:
        event = asked(wanted(CRM, SHOP))
        await world.take(event)
        while driver.asked[-1:] != [("provision", reached, "build")]:
            await world.worker.look()
            await asyncio.wait(list(world.worker.running))

        assert types(await world.undo(event)) == [EnvironmentDeprovisioned]
        assert await nothing_is_left(world, driver)

    async def test_undone_before_anything_was_begun_nothing_is_left(self, world: World, driver: StagedDriver) -> None:
        event = asked(wanted(CRM, SHOP))
        await world.take(event)

        assert types(await world.undo(event)) == [EnvironmentDeprovisioned]
        assert await nothing_is_left(world, driver)


class TestDeploying:
    async def test_a_product_that_is_new_gets_its_environment_and_one_that_is_dropped_is_closed_and_kept(
        self, world: World, driver: StagedDriver
    ) -> None:
        await world.do(wanted(SHARED, CRM))

        assert types(await world.handle(asked(deployed(SHOP)))) == [ProductsDeployed]

        assert await recorded(world) == {
            OWN: ("pool", "ready", {}),
            OF_CRM: ("silo", "ready", {"crm": "1"}),
            OF_SHOP: ("pool", "ready", {"shop": "3"}),
        }
        assert await throttled(world) == {OF_CRM: DROPPED}
        assert {name: made.is_throttled for name, made in driver.made.items()} == {
            OWN: False,
            OF_CRM: True,
            OF_SHOP: False,
        }

    async def test_another_version_runs_where_the_product_runs(self, world: World, driver: StagedDriver) -> None:
        await world.do(wanted(SHARED, CRM))
        await world.do(deployed(SHARED, CRM.model_copy(update={"version": "2"})))

        assert driver.made[OF_CRM].products == {"crm": "2"}
        assert driver.made[OWN].products == {"tasks": "1"}
        assert (await recorded(world))[OF_CRM] == ("silo", "ready", {"crm": "2"})

    async def test_undone_all_is_as_it_was(self, world: World, driver: StagedDriver) -> None:
        await world.do(wanted(SHARED, CRM))
        before, made = await recorded(world), driver.snapshot()
        (event,) = await world.do(deployed(SHOP, SHARED.model_copy(update={"version": "2"})))
        assert await recorded(world) != before

        assert types(await world.undo(event)) == [DeploymentsRestored]

        assert await recorded(world) == before
        assert driver.snapshot() == made
        assert await throttled(world) == {}
        assert await world.jobs() == []

    async def test_undone_where_only_an_environment_was_made_it_goes(self, world: World, driver: StagedDriver) -> None:
        await world.do(wanted(SHARED))
        (event,) = await world.do(deployed(SHARED, CRM))

        assert types(await world.undo(event)) == [DeploymentsRestored]
        assert list(await recorded(world)) == list(driver.made) == [OWN]

    async def test_one_that_cannot_be_made_leaves_all_as_it_was(self, world: World, driver: StagedDriver) -> None:
        await world.do(wanted(SHARED, CRM))
        before, made = await recorded(world), driver.snapshot()
        driver.refuse("provision", "open")

        answers = await world.handle(asked(deployed(CRM, SHOP)))

        assert types(answers) == [DeploymentRefused]
        assert await recorded(world) == before
        assert driver.snapshot() == made
        assert await world.jobs() == []

    async def test_what_follows_the_making_and_cannot_be_done_takes_it_back_too(
        self, world: World, driver: StagedDriver
    ) -> None:
        await world.do(wanted(SHARED, CRM))
        before, made = await recorded(world), driver.snapshot()
        driver.refuse("deploy", "")

        assert await world.refusal(deployed(CRM.model_copy(update={"version": "2"}), SHOP)) == "no_room"

        assert ("provision", OF_SHOP, "open") in driver.asked
        assert await recorded(world) == before
        assert driver.snapshot() == made

    async def test_one_that_nobody_can_make_is_refused_at_once(self, world: World) -> None:
        await world.do(wanted(SHARED))
        assert await world.refusal(deployed(CRM.model_copy(update={"driver": "none"}))) == "unknown_driver"
        assert list(await recorded(world)) == [OWN]

    async def test_while_its_tenant_is_suspended_nobody_works_in_a_new_one_either(self, world: World) -> None:
        await world.do(wanted(SHARED))
        await world.do(ThrottleEnvironment(tenant_id=TENANT, reason="unpaid"))
        (event,) = await world.do(deployed(SHARED, CRM))

        assert await throttled(world) == {OWN: "unpaid", OF_CRM: "unpaid"}
        await world.undo(event)
        assert await throttled(world) == {OWN: "unpaid"}

    async def test_one_that_was_dropped_and_not_removed_yet_is_opened_when_it_is_taken_again(
        self, world: World, driver: StagedDriver
    ) -> None:
        await world.do(wanted(SHARED, CRM))
        await world.do(deployed(SHARED))
        assert await throttled(world) == {OF_CRM: DROPPED}

        await world.do(deployed(SHARED, CRM))

        assert await throttled(world) == {}
        assert not driver.made[OF_CRM].is_throttled
        assert driver.asked.count(("provision", OF_CRM, "")) == 1


class TestRemoving:
    async def test_environments_of_products_that_are_no_more_go_for_good(
        self, world: World, driver: StagedDriver
    ) -> None:
        await world.do(wanted(SHARED, CRM, SHOP))
        await world.do(deployed(SHARED, SHOP))

        (answer,) = await world.handle(asked(kept(SHARED, SHOP)))

        assert isinstance(answer, ProductsRemoved)
        assert answer.deleted == {"environments": 1, "deployments": 1, "app.note": 3}
        assert set(driver.made) == set(await recorded(world)) == {OWN, OF_SHOP}

    async def test_where_there_is_none_the_answer_comes_at_once(self, world: World) -> None:
        await world.do(wanted(SHARED, CRM))

        (answer,) = await world.take(asked(kept(SHARED, CRM)))

        assert isinstance(answer, ProductsRemoved)
        assert answer.deleted == {"environments": 0, "deployments": 0}

    async def test_a_tenant_goes_with_all_its_environments_and_is_told_how_much_that_was(
        self, world: World, driver: StagedDriver
    ) -> None:
        await world.do(wanted(SHARED, CRM, SHOP))

        (answer,) = await world.handle(asked(RemoveEnvironment(tenant_id=TENANT)))

        assert isinstance(answer, EnvironmentRemoved)
        assert answer.deleted == {"environments": 3, "deployments": 3, "app.note": 9}
        assert await nothing_is_left(world, driver)

    async def test_while_one_goes_the_others_are_known_to_be_going(self, world: World) -> None:
        await world.do(wanted(SHARED, CRM))
        await world.take(asked(RemoveEnvironment(tenant_id=TENANT)))

        assert {status for _, status, _ in (await recorded(world)).values()} == {"removing"}


class TestThrottling:
    async def test_nobody_works_in_any_of_them_and_later_everybody_again(
        self, world: World, driver: StagedDriver
    ) -> None:
        await world.do(wanted(SHARED, CRM, SHOP))

        (answer,) = await world.handle(asked(ThrottleEnvironment(tenant_id=TENANT, reason="unpaid")))
        assert isinstance(answer, EnvironmentThrottled)
        assert await throttled(world) == dict.fromkeys((OWN, OF_CRM, OF_SHOP), "unpaid")
        assert all(made.is_throttled for made in driver.made.values())

        (answer,) = await world.handle(asked(ReleaseEnvironment(tenant_id=TENANT)))
        assert isinstance(answer, EnvironmentReleased)
        assert await throttled(world) == {}
        assert not any(made.is_throttled for made in driver.made.values())

    async def test_undone_each_is_as_open_as_it_was_found(self, world: World, driver: StagedDriver) -> None:
        await world.do(wanted(SHARED, CRM, SHOP))
        await world.do(deployed(SHARED, CRM))
        (event,) = await world.do(ThrottleEnvironment(tenant_id=TENANT, reason="unpaid"))

        assert types(await world.undo(event)) == [EnvironmentUnthrottled]

        assert await throttled(world) == {OF_SHOP: DROPPED}
        assert [name for name, made in driver.made.items() if made.is_throttled] == [OF_SHOP]


async def test_another_tier_moves_the_tenants_own_environment_alone(world: World, driver: StagedDriver) -> None:
    await world.do(wanted(SHARED, SHOP))

    (answer,) = await world.handle(asked(MoveEnvironment(tenant_id=TENANT, isolation="silo", driver="staged")))

    assert isinstance(answer, EnvironmentMoved)
    assert {name: made.isolation for name, made in driver.made.items()} == {OWN: "silo", OF_SHOP: "pool"}


async def test_a_move_can_be_undone_when_an_environment_of_a_product_was_removed_since(world: World) -> None:
    await world.do(wanted(SHARED, CRM))
    event = asked(MoveEnvironment(tenant_id=TENANT, isolation="silo", driver="staged"))
    await world.handle(event)
    await world.handle(asked(kept(SHARED), workflow_id=event.workflow_id))

    await world.undo(event)

    assert (await recorded(world))[OWN][0] == "pool"
