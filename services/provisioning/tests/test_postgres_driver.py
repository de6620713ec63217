"""The Postgres driver as a whole: its three kinds of places, told alike."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from services.provisioning.drivers import (
    Done,
    Environment,
    Exporter,
    Inspection,
    Lender,
    MovingError,
    NoEnvironmentError,
    Task,
    ThrottledError,
)
from services.provisioning.drivers.postgres import PostgresDriver
from services.provisioning.tests.support import Application
from shared.clock import SystemClock
from shared.postgres import Connection, use_json

ISOLATIONS = ("pool", "bridge", "silo")


async def enter(application: Application, environment: Environment) -> Connection:
    """Open a session of a tenant's, in which it has written one note."""
    session = await application.connect(await application.postgres.issue(environment))
    await session.execute("INSERT INTO note (body) VALUES ($1)", f"of {environment.tenant_id}")
    return session


def tasks(*environments: Environment) -> list[Task]:
    return [Task(environment=environment) for environment in environments]


async def exported(application: Application, environment: Environment) -> tuple[bytes, dict[str, int]]:
    pieces: list[bytes] = []

    async def keep(piece: bytes) -> None:
        pieces.append(piece)

    rows = await application.postgres.export(environment, keep)
    return b"".join(pieces), rows


def test_the_driver_lends_and_exports(application: Application) -> None:
    assert isinstance(application.postgres, Lender)
    assert isinstance(application.postgres, Exporter)
    assert {application.postgres.capacity(lane).batch for lane in (*ISOLATIONS, "move")} == {500, 50, 1}


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_an_environment_is_made_used_throttled_and_removed(application: Application, isolation: str) -> None:
    driver, environment = application.postgres, application.environment("a", isolation, products={"notes": "1.2"})
    neighbour = application.environment("b", isolation)
    assert await driver.inspect([environment]) == [Inspection(exists=False)]

    (made, _) = await driver.provision(tasks(environment, neighbour))

    assert made == Done(resources={"products": {"notes": "1.2"}})
    session, _ = await enter(application, environment), await enter(application, neighbour)
    (found,) = await driver.inspect([replace(environment, resources=made.resources)])
    assert found == Inspection(
        exists=True, isolation=isolation, products={"notes": "1.2"}, detail={"places": [isolation], "isWhole": True}
    )
    throttled = replace(environment, is_throttled=True)
    await driver.throttle(tasks(throttled))
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
        await session.execute("SELECT 1")
    with pytest.raises(ThrottledError):
        await driver.issue(throttled)
    with pytest.raises(MovingError):
        await driver.issue(environment)
    assert [each.is_throttled for each in await driver.inspect([environment, neighbour])] == [True, False]
    for _ in range(2):
        assert await driver.deprovision(tasks(throttled)) == [Done(result={"app.note": 1})]
    with pytest.raises(NoEnvironmentError):
        await driver.issue(environment)
    assert {tenant_id for tenant_id, _ in await application.residue()} == {"b"}


async def test_the_same_rows_are_the_same_export_wherever_they_are(application: Application) -> None:
    exports = []
    for isolation in ISOLATIONS:
        environment = application.environment("a", isolation)
        await application.make(environment)
        session = await application.connect(await application.postgres.issue(environment))
        await session.execute(
            "INSERT INTO note (note_id, body, created_at) SELECT md5(n::text)::uuid, n || E'\\n', '2026-01-01'"
            " FROM generate_series(1, 50) AS n"
        )
        exports.append(await exported(application, environment))

    assert exports == [exports[0]] * 3
    assert exports[0][1] == {"app.note": 50}
    assert exports[0][0].count(b"\n") == 50


async def test_a_throttled_environment_is_exported_and_one_that_is_not_there_is_not(application: Application) -> None:
    for isolation in ISOLATIONS:
        environment = application.environment("a", isolation, is_throttled=True)
        with pytest.raises(NoEnvironmentError):
            await exported(application, environment)
        await application.make(environment)
        await application.postgres.throttle(tasks(environment))
        assert await exported(application, environment) == (b"", {"app.note": 0})
    assert {place for _, place in await application.residue()} == {"tenancy.tenant", "tenancy.bridge", "tenancy.silo"}


async def test_removing_leaves_no_place_of_the_tenants_wherever_its_environment_is_said_to_be(
    application: Application,
) -> None:
    for isolation in ISOLATIONS:
        environments = [application.environment("a", each) for each in ISOLATIONS]
        await application.make(*environments)
        for environment in environments:
            await enter(application, environment)

        (outcome,) = await application.postgres.deprovision(tasks(application.environment("a", isolation)))

        assert outcome == Done(result={"app.note": 3})
        assert await application.residue() == []


async def test_five_hundred_in_the_pool_are_removed_with_few_statements(application: Application) -> None:
    environments = [application.environment(f"t{number}", "pool") for number in range(500)]
    statements: list[LoggedQuery] = []

    async def watch(connection: Connection) -> None:
        await use_json(connection)
        connection.add_query_logger(statements.append)

    async with asyncpg.create_pool(application.url, min_size=1, max_size=1, init=watch) as pool:
        driver = PostgresDriver(pool, url=application.url, clock=SystemClock())
        await driver.provision(tasks(*environments))
        await driver.deprovision(tasks(*environments))
        await asyncio.sleep(0)  # the logger is called in the loop's next turn

    assert len([each for each in statements if "tenancy." in each.query]) == 1 + 3 + 2
    assert await application.residue() == []


async def test_sweeping_finds_expired_logins_wherever_they_are(application: Application) -> None:
    for isolation in ISOLATIONS:
        environment = application.environment(f"a of {isolation}", isolation)
        await application.make(environment)
        await application.postgres.issue(environment)
    async with application.postgres._silos.opened("a of silo") as rooms:
        await rooms._pool.execute("UPDATE tenancy.login SET expires_at = now()")
    await application.pool.execute("UPDATE tenancy.login SET expires_at = now()")
    await application.pool.execute("UPDATE tenancy.silo SET sweep_at = now()")

    assert await application.postgres.sweep() == 3

    assert await application.postgres.sweep() == 0
    assert "tenancy.login" not in {place for _, place in await application.residue()}


async def test_deploying_brings_bridges_and_silos_up_to_date(application: Application) -> None:
    environments = [application.environment("a", isolation, products={"notes": "2"}) for isolation in ISOLATIONS]
    await application.make(*environments)
    await application.pool.execute("ALTER TABLE app.note ADD COLUMN colour text")

    outcomes = await application.postgres.deploy(tasks(*environments))

    assert outcomes == [Done(resources={"products": {"notes": "2"}})] * 3
    session = await enter(application, environments[1])
    assert await session.fetchval("SELECT count(colour) FROM note") == 0
