"""Silos: databases that are made and dropped, by whoever comes and whatever breaks off."""

import asyncio
import functools
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from deploy.databases import DatabaseUrls, database_url
from deploy.local.throwaway import Server
from services.provisioning.drivers import NoEnvironmentError, ThrottledError
from services.provisioning.drivers.postgres import installing
from services.provisioning.drivers.postgres.installing import Schema, install
from services.provisioning.drivers.postgres.logins import LIFETIME, Address
from services.provisioning.drivers.postgres.names import Names
from services.provisioning.drivers.postgres.place import Partition
from services.provisioning.drivers.postgres.pool import PostgresPool
from services.provisioning.drivers.postgres.silo import PostgresSilos
from services.provisioning.tests.support import Application
from shared.clock import ManualClock, SystemClock
from shared.postgres import Connection, MigrationError, open_pool

NO_LOGIN = (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)

TABLE = """
    CREATE TABLE app.{name} (
        tenant_id text NOT NULL DEFAULT tenancy.current_tenant() REFERENCES tenancy.tenant ON DELETE CASCADE,
        number    integer,
        PRIMARY KEY (tenant_id, number)
    );
    SELECT tenancy.protect_table('app.{name}');
"""


@pytest.fixture
def silos(application: Application) -> PostgresSilos:
    return PostgresSilos(application.pool, url=application.url, clock=SystemClock(), schema=Schema())


def names(application: Application) -> Names:
    return Names(urlsplit(application.url).path[1:])


async def enter(application: Application, silos: PostgresSilos, tenant_id: str) -> Connection:
    """Open a session of a tenant in its silo, in which it has written one note."""
    session = await application.connect(await silos.issue_login(tenant_id))
    await session.execute("INSERT INTO note (body) VALUES ($1)", f"of {tenant_id}")
    return session


async def left(application: Application) -> set[str]:
    """Return the databases of silos that there are, and their roles, whatever our tables know of them."""
    prefix = names(application).silo("").rpartition("_")[0]
    rows = await application.pool.fetch(
        """
        SELECT 'database ' || datname FROM pg_database WHERE starts_with(datname, $1)
        UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE starts_with(rolname, $1)
        """,
        prefix,
    )
    return {row[0] for row in rows}


async def logins(application: Application, tenant_id: str) -> set[str]:
    """Return the roles that belong to a silo."""
    rows = await application.pool.fetch(
        """
        SELECT login.rolname FROM pg_auth_members
        JOIN pg_roles AS silo ON silo.oid = roleid JOIN pg_roles AS login ON login.oid = member
        WHERE silo.rolname = $1 AND login.rolname <> current_user
        """,
        names(application).silo(tenant_id),
    )
    return {row["rolname"] for row in rows}


async def test_a_silo_is_a_database_that_only_its_tenant_opens(application: Application, silos: PostgresSilos) -> None:
    await silos.provision(Partition("a"))
    await silos.provision(Partition("a-b"))

    a, b = [await enter(application, silos, tenant_id) for tenant_id in ("a", "a-b")]

    assert await a.fetchval("SELECT current_database()") != await b.fetchval("SELECT current_database()")
    assert [row["body"] for row in await a.fetch("SELECT body FROM note")] == ["of a"]
    login = await silos.issue_login("a")
    for database in (names(application).silo("a-b"), names(application).database):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(login.url, database=database)


async def test_nobody_may_connect_to_a_silo_before_it_is_said_who_may(
    application: Application, silos: PostgresSilos
) -> None:
    """A new database lets in everybody, were it not closed until then."""
    seen: list[bool] = []

    database = names(application).silo("a")
    plain = asyncpg.Connection.execute

    async def look_first(self: Any, statement: str, *args: Any, **options: Any) -> Any:
        if statement.startswith("REVOKE"):
            seen.append(await self.fetchval("SELECT datallowconn FROM pg_database WHERE datname = $1", database))
        return await plain(self, statement, *args, **options)

    with mock.patch.object(asyncpg.Connection, "execute", look_first):
        await silos.provision(Partition("a"))

    assert seen == [False]
    grants = "SELECT coalesce(string_agg(grantee::regrole::text, ','), '') FROM pg_database, aclexplode(datacl)"
    grants += " WHERE datname = $1 AND grantee <> datdba AND privilege_type = 'CONNECT'"
    assert await application.pool.fetchval(grants, database) == database


async def test_provisioning_again_keeps_everything_and_two_at_once_are_one(
    application: Application, silos: PostgresSilos
) -> None:
    await asyncio.gather(*(silos.provision(Partition("a", connections=3)) for _ in range(3)))
    session = await enter(application, silos, "a")

    await silos.provision(Partition("a", connections=4))

    assert await session.fetchval("SELECT count(*) FROM note") == 1
    login = await silos.issue_login("a")
    limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = $1"
    assert await application.pool.fetchval(limit, login.username) == 4
    assert len(await left(application)) == 2


async def test_many_silos_are_made_at_once(application: Application, silos: PostgresSilos) -> None:
    tenant_ids = [f"t{number}" for number in range(6)]

    await asyncio.gather(*(silos.provision(Partition(tenant_id)) for tenant_id in tenant_ids))

    assert len(await left(application)) == 12
    await asyncio.gather(*(silos.remove(tenant_id) for tenant_id in tenant_ids))
    assert await left(application) == set()


async def test_who_may_not_be_put_out_of_a_silo_is_waited_for_for_a_moment(
    application: Application, silos: PostgresSilos, postgres_server: Server
) -> None:
    """As a worker of the server's own is, which cleans up in it."""
    await silos.provision(Partition("a"))
    address = urlsplit(postgres_server.admin_url)._replace(path=f"/{names(application).silo('a')}")
    administrator = await asyncpg.connect(address.geturl())
    asyncio.get_running_loop().call_later(0.5, administrator.terminate)

    await silos.remove("a")

    assert await left(application) == set()


@pytest.mark.parametrize("at", ["CREATE ROLE", "CREATE DATABASE", "REVOKE", "SET template"])
async def test_what_was_cut_short_is_made_again_and_meanwhile_on_record(
    application: Application, silos: PostgresSilos, at: str
) -> None:
    for is_done in (False, True):
        with cut(at, is_done=is_done), pytest.raises(Cut):
            await silos.provision(Partition("a"))
        if (at, is_done) != ("SET template", True):
            assert not await silos.exists("a")
            with pytest.raises(NoEnvironmentError):
                await silos.issue_login("a")
        assert ("a", "tenancy.silo") in await application.residue()

    await silos.provision(Partition("a"))

    session = await enter(application, silos, "a")
    assert await session.fetchval("SELECT count(*) FROM note") == 1
    assert len(await left(application)) == 2


@pytest.mark.parametrize(
    "at",
    ["SET template", "close_tenants", "sweep_logins", "remember_removal", "DROP DATABASE", "DROP ROLE", "DELETE FROM"],
)
async def test_a_removal_that_was_cut_short_is_finished_by_the_next(
    application: Application, silos: PostgresSilos, at: str
) -> None:
    environment_id = uuid4()
    await silos.provision(Partition("a"))
    await enter(application, silos, "a")
    for is_done in (False, True):
        with cut(at, is_done=is_done), pytest.raises(Cut):
            await silos.remove("a", environment_id)
        if (at, is_done) != ("DELETE FROM", True):
            assert ("a", "tenancy.silo") in await application.residue()
    counted = {"app.note": 1}

    assert await silos.remove("a", environment_id) == counted

    assert await left(application) == set()
    assert await application.residue() == []
    assert await logins(application, "a") == set()


class Cut(Exception):  # noqa: N818
    """Stands for whatever ends a process between two statements."""


def _does(query: str, at: str) -> bool:
    """Tell whether a statement does something, and does not just put it into words."""
    return at in query and "format(" not in query


def cut(at: str, *, is_done: bool) -> "mock._patch[mock.Mock]":
    """Break off at a statement in which there are certain words, before or after it is done."""
    execute = asyncpg.Connection._execute  # type: ignore[attr-defined]
    plain = asyncpg.Connection.execute

    async def through(self: Connection, query: str, *args: object, **options: object) -> object:
        if _does(query, at) and not is_done:
            raise Cut
        result = await execute(self, query, *args, **options)
        if _does(query, at) and is_done:
            raise Cut
        return result

    async def plainly(self: Connection, query: str, *args: object, **options: object) -> object:
        if args:
            return await plain(self, query, *args, **options)  # type: ignore[arg-type]
        if _does(query, at) and not is_done:
            raise Cut
        result = await plain(self, query, **options)  # type: ignore[arg-type]
        if _does(query, at) and is_done:
            raise Cut
        return result

    return mock.patch.multiple(asyncpg.Connection, _execute=through, execute=plainly)


async def test_a_database_that_the_server_calls_invalid_is_made_again(
    application: Application, silos: PostgresSilos, admin: Connection
) -> None:
    """As it is left by one that was being dropped when the server went down."""
    await silos.provision(Partition("a"))
    database = names(application).silo("a")
    await admin.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = $1", database)
    assert not await silos.exists("a")

    await silos.provision(Partition("a"))

    await enter(application, silos, "a")


async def test_a_silo_that_is_still_used_by_an_administrator_stays_on_record(
    application: Application, silos: PostgresSilos, postgres_server: Server
) -> None:
    await silos.provision(Partition("a"))
    visitor = await asyncpg.connect(database_url(postgres_server.admin_url, names(application).silo("a")))

    with pytest.raises((asyncpg.ObjectInUseError, asyncpg.InsufficientPrivilegeError)):
        await silos.remove("a")

    assert ("a", "tenancy.silo") in await application.residue()
    await visitor.close()
    await silos.remove("a")
    assert await left(application) == set()


async def test_a_throttled_silo_has_nobody_inside_until_it_is_opened(
    application: Application, silos: PostgresSilos
) -> None:
    await silos.provision(Partition("a"))
    session = await enter(application, silos, "a")
    unused = await silos.issue_login("a")

    await silos.configure(Partition("a", is_throttled=True))

    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
        await session.execute("SELECT 1")
    with pytest.raises(NO_LOGIN):
        await asyncpg.connect(unused.url)
    with pytest.raises(ThrottledError):
        await silos.issue_login("a")
    await silos.configure(Partition("a"))
    assert await (await enter(application, silos, "a")).fetchval("SELECT count(*) FROM note") == 2
    await silos.configure(Partition("nobody", is_throttled=True))


async def test_logins_of_silos_are_swept_when_they_have_expired_and_silos_without_are_left_alone(
    application: Application,
) -> None:
    clock = ManualClock(SystemClock().now() - LIFETIME - timedelta(minutes=1))
    silos = PostgresSilos(application.pool, url=application.url, clock=clock, schema=Schema())
    for tenant_id in ("a", "b"):
        await silos.provision(Partition(tenant_id))
    await silos.issue_login("a")
    assert await silos.sweep_logins() == 0
    assert len(await logins(application, "a")) == 1

    await clock.advance(LIFETIME.total_seconds() + 60)

    opened: list[str] = []
    with mock.patch.object(PostgresSilos, "_sweep", _noted(opened)):
        assert await silos.sweep_logins() == 1
    assert opened == ["a"]
    assert await logins(application, "a") == set()
    due = "SELECT count(*) FROM tenancy.silo WHERE sweep_at IS NOT NULL"
    assert await application.pool.fetchval(due) == 0


def _noted(opened: list[str]) -> Any:
    sweep = PostgresSilos._sweep

    async def noted(silos: PostgresSilos, tenant_id: str, issued: int) -> int:
        opened.append(tenant_id)
        return await sweep(silos, tenant_id, issued)

    return noted


async def test_a_login_that_is_issued_while_a_silo_is_swept_is_swept_later(application: Application) -> None:
    clock = ManualClock(SystemClock().now() - LIFETIME - timedelta(minutes=1))
    silos = PostgresSilos(application.pool, url=application.url, clock=clock, schema=Schema())
    await silos.provision(Partition("a"))
    await silos.issue_login("a")
    await clock.advance(LIFETIME.total_seconds() + 60)
    sweep = PostgresPool.next_expiry

    async def late(rooms: PostgresPool) -> Any:
        found = await sweep(rooms)
        await silos.issue_login("a")
        return found

    with mock.patch.object(PostgresPool, "next_expiry", late):
        await silos.sweep_logins()

    assert len(await logins(application, "a")) == 1
    assert await application.pool.fetchval("SELECT sweep_at FROM tenancy.silo") <= clock.now() + LIFETIME


async def test_a_silo_out_of_reach_keeps_no_other_from_being_swept(application: Application) -> None:
    clock = ManualClock(SystemClock().now() - LIFETIME - timedelta(minutes=1))
    silos = PostgresSilos(application.pool, url=application.url, clock=clock, schema=Schema())
    for tenant_id in ("a", "b"):
        await silos.provision(Partition(tenant_id))
        await silos.issue_login(tenant_id)
    await clock.advance(LIFETIME.total_seconds() + 60)
    owner = Address.owner

    def unreachable(address: Address, *, seconds: float) -> Any:
        if address.database == names(application).silo("a"):
            raise ConnectionRefusedError
        return owner(address, seconds=seconds)

    with mock.patch.object(Address, "owner", unreachable):
        assert await silos.sweep_logins() == 1
    assert len(await logins(application, "a")) == 1
    assert await silos.sweep_logins() == 0  # not yet
    await clock.advance(300)
    assert await silos.sweep_logins() == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sample" / "migrations"
    folder.mkdir(parents=True)
    return folder


def add(folder: Path, name: str) -> Schema:
    """Add a migration that adds a table."""
    number = len(list(folder.iterdir())) + 1
    (folder / f"000{number}_{name}.sql").write_text(TABLE.format(name=name))
    return Schema([folder])


async def templates(application: Application) -> list[str]:
    rows = await application.pool.fetch(
        "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", names(application).template
    )
    return [row["datname"] for row in rows]


async def test_silos_have_the_teams_tables_and_follow_its_migrations(application: Application, folder: Path) -> None:
    of_schema = functools.partial(PostgresSilos, application.pool, url=application.url, clock=SystemClock())
    old_schema = add(folder, "first")
    await install(application.url, [folder])
    old = of_schema(schema=Schema(old_schema.added))
    old_digest = old_schema.digest()
    await old.provision(Partition("a"))
    (before,) = await templates(application)
    new = of_schema(schema=add(folder, "second"))

    await install(application.url, [folder])

    (after,) = await templates(application)
    assert after != before
    await new.provision(Partition("b"))
    for tenant_id in ("a", "b"):  # one that was there, which is brought up to date when it is opened
        async with new.opened(tenant_id) as rooms:
            assert [table.name for table in await rooms.tables("app")] == ["first", "note", "second"]
    with mock.patch.object(Schema, "digest", return_value=old_digest):  # a process of the release before
        async with old.opened("a") as rooms:
            assert len(await rooms.tables("app")) == 3
        await old.provision(Partition("c"))
    session = await enter(application, new, "c")
    await session.execute("INSERT INTO second (number) VALUES (1), (2)")
    await session.execute("INSERT INTO first (number) VALUES (1)")
    assert await new.remove("c") == {"app.first": 1, "app.note": 1, "app.second": 2}


async def test_a_silo_of_the_release_before_has_our_new_migrations_too(
    application_urls: DatabaseUrls, tmp_path: Path
) -> None:
    before = tmp_path / "provisioning" / "application"
    shutil.copytree(installing.OURS, before)
    (before / "0004_products.sql").unlink()
    with mock.patch.object(installing, "OURS", before):
        await install(application_urls.owner)
        pool = await open_pool(application_urls.owner)
        old = PostgresSilos(pool, url=application_urls.owner, clock=SystemClock(), schema=Schema())
        await old.provision(Partition("a"))
    application = Application(application_urls.owner, pool)

    await install(application_urls.owner)

    new = PostgresSilos(pool, url=application_urls.owner, clock=SystemClock(), schema=Schema())
    session = await enter(application, new, "a")
    inside = await asyncpg.connect(application_urls.owner, database=names(application).silo("a"))
    rows = await inside.fetch("SELECT tenant_id, place FROM tenancy.live_record")
    assert {tuple(row) for row in rows} == {("a", "tenancy.tenant"), ("a", "tenancy.login"), ("a", "app.note")}
    assert "split_part" in await inside.fetchval("SELECT pg_get_viewdef('tenancy.live_record'::regclass)")
    assert await session.fetchval("SELECT body FROM note") == "of a"
    inside.terminate()
    await application.close()


async def test_a_template_is_made_once_however_many_start_at_once_and_nobody_gets_in(
    application_urls: DatabaseUrls, admin: Connection
) -> None:
    await asyncio.gather(*(install(application_urls.owner) for _ in range(3)))

    rows = await admin.fetch(
        "SELECT datname, datallowconn, datistemplate FROM pg_database WHERE starts_with(datname, $1)",
        Names(urlsplit(application_urls.owner).path[1:]).template,
    )
    assert [(row["datallowconn"], row["datistemplate"]) for row in rows] == [(False, True)]


async def test_a_template_of_which_only_half_was_made_is_made_again(
    application_urls: DatabaseUrls, admin: Connection
) -> None:
    half = Names(urlsplit(application_urls.owner).path[1:]).template
    owner = urlsplit(application_urls.owner).username
    await admin.execute(f'CREATE DATABASE "{half}" OWNER "{owner}" IS_TEMPLATE true ALLOW_CONNECTIONS false')

    await install(application_urls.owner)

    rows = await admin.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", half)
    assert [row["datname"] == half for row in rows] == [False]


def test_migrations_that_would_go_by_one_name_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path / "one" / "app" / "migrations", tmp_path / "two" / "app" / "migrations"):
        folder.mkdir(parents=True)
        add(folder, "first")

    with pytest.raises(MigrationError, match=r"app/0001_first\.sql is in more than one folder"):
        Schema([tmp_path / "one" / "app" / "migrations", tmp_path / "two" / "app" / "migrations"]).digest()


@pytest.mark.parametrize("database", ["tenure_application", "x" * 63, "ä" * 31, "tenure_test_0123abcd_application"])
def test_no_two_tenants_have_the_same_names_and_none_is_too_long(database: str) -> None:
    names = Names(database)
    tenant_ids = ["a", "a-b", "a_b", "A", "a ", "ä", "a" * 500, "", "a'; DROP DATABASE b", "a\0b"]

    made = [name for tenant_id in tenant_ids for name in (names.bridge(tenant_id), names.silo(tenant_id))]

    assert len(set(made)) == 2 * len(tenant_ids)
    assert all(len(name.encode()) <= 63 and name.startswith(names.prefix) for name in made)
    assert len(f"{names.template}_{'x' * 12}".encode()) <= 50 or database != "tenure_application"
    assert not {*made, names.template} & {Names(database + "x").silo("a"), Names(database[:-1]).silo("a")}
