"""The wall between a tenant's own environment and that of one of its products, tried from either side; all by Postgres.

The tenant is the same. What it lent the one application must be of no use in the other one all the same.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import asyncpg
import pytest
import pytest_asyncio

from deploy.local.throwaway import Server
from services.provisioning.drivers import MovingError, NoEnvironmentError, Task, tenancy_of
from services.provisioning.tests.driver_contract import environment
from services.provisioning.tests.tricks import FORBIDDEN, READING, WRITING
from services.provisioning.tests.walls import ISOLATIONS, Tenant, Wall, open_wall
from shared.postgres import Connection

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRODUCT = "notes"
PLACES = [
    *((each, each) for each in ISOLATIONS),
    *(("pool", "bridge"), ("bridge", "silo"), ("silo", "pool")),
]
"""Where a tenant is, and where its product is."""

SIDES = [(*places, is_products) for places in PLACES for is_products in (False, True)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wall(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wall]:
    """A tenant for each of `PLACES`, with an environment of its own and one of its product's."""
    async with open_wall(postgres_server, tmp_path_factory.mktemp("replies")) as wall:
        for own, products in PLACES:
            await _settle(wall, f"{own}-{products}", own, products)
        await wall.analyze()
        yield wall


@dataclass
class Sides:
    """Whose login is used, and the other environment of the same tenant.

    Attributes:
        session: of ``a``, for one test.
    """

    wall: Wall
    a: Tenant
    b: Tenant
    session: Connection


@pytest_asyncio.fixture(loop_scope="module", params=SIDES, ids=lambda each: "-".join(map(str, each)))
async def sides(wall: Wall, request: pytest.FixtureRequest) -> AsyncIterator[Sides]:
    own, products, is_products = request.param
    tenant, product = wall.tenants[f"{own}-{products}"], wall.tenants[tenancy_of(f"{own}-{products}", PRODUCT)]
    a, b = (product, tenant) if is_products else (tenant, product)
    session = await asyncpg.connect(a.login.url, statement_cache_size=0)
    yield Sides(wall, a, b, session)
    session.terminate()


async def test_each_sees_its_own_and_goes_by_its_own_name(sides: Sides) -> None:
    """Or nothing that is refused below would mean anything."""
    assert [row["body"] for row in await sides.session.fetch("SELECT body FROM note")] == [sides.a.secret]
    assert await sides.session.fetchval("SELECT body FROM reply") == f"{sides.a.secret} reply"
    assert await sides.session.fetchval("SELECT tenancy.current_tenant()") == sides.a.tenant_id
    assert {row["tenant_id"] for row in await sides.session.fetch("SELECT tenant_id FROM note")} == {sides.a.tenant_id}


async def test_nothing_of_the_other_environment_is_read(sides: Sides) -> None:
    for trick in READING:
        also = (asyncpg.FeatureNotSupportedError,)  # a server may lack XML

        shown = await sides.wall.attempt(sides.session, sides.b, trick, also=also)

        assert not [row for row in shown or () if sides.b.tenant_id in row.values()], trick


async def test_nothing_of_the_other_environment_is_changed(sides: Sides) -> None:
    for trick in WRITING:
        await sides.wall.attempt(sides.session, sides.b, f"BEGIN ;; {trick}")
        await sides.wall.attempt(sides.session, sides.b, f"{trick} ;; SELECT 1")


async def test_whatever_would_lead_into_the_other_environment_is_refused(sides: Sides) -> None:
    also = (asyncpg.FeatureNotSupportedError, asyncpg.InvalidGrantOperationError, asyncpg.ExternalRoutineError)
    for trick in FORBIDDEN:
        assert await sides.wall.attempt(sides.session, sides.b, trick, also=also) is None, trick


async def test_a_login_opens_no_other_database(sides: Sides) -> None:
    for database in {tenant.database for tenant in sides.wall.tenants.values()} - {sides.a.database}:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(sides.a.login.url, database=database)


@pytest.mark.parametrize(("own", "products"), PLACES)
@pytest.mark.parametrize("is_products", [False, True])
async def test_who_is_put_out_of_one_environment_works_on_in_the_other(
    wall: Wall, own: str, products: str, *, is_products: bool
) -> None:
    both = await _settle(wall, f"put-out-{is_products}-{own}-{products}", own, products)
    out, other = both[::-1] if is_products else both

    await wall.driver.throttle([Task(environment=replace(out.environment, is_throttled=True))])
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await out.session.fetch("SELECT * FROM note")
    with pytest.raises(MovingError):  # which is what a place says that is closed although the record does not know
        await wall.driver.issue(out.environment)
    await wall.driver.deprovision([Task(environment=out.environment)])
    with pytest.raises(NoEnvironmentError):
        await wall.driver.issue(out.environment)

    assert [row["body"] for row in await other.session.fetch("SELECT body FROM note")] == [other.secret]
    assert await other.session.execute("UPDATE note SET body = body") == "UPDATE 1"


async def _settle(wall: Wall, tenant_id: str, own: str, products: str) -> tuple[Tenant, Tenant]:
    """Let a tenant have an environment of its own and one of its product's, and keep something in each."""
    tenancy = tenancy_of(tenant_id, PRODUCT)
    return (
        await wall.settle(environment(tenant_id, own, connections=20), f"{tenant_id} keeps this"),
        await wall.settle(
            environment(tenancy, products, product=PRODUCT, connections=20), f"the product of {tenant_id} has that"
        ),
    )
