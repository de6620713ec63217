import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from deploy.databases import database_url
from deploy.local.throwaway import Server
from services.provisioning.drivers import Login, NoEnvironmentError, ThrottledError
from services.provisioning.drivers.postgres import partitions as partitioning
from services.provisioning.drivers.postgres.logins import LIFETIME
from services.provisioning.drivers.postgres.place import Partition
from services.provisioning.drivers.postgres.pool import PostgresPool
from services.provisioning.tests.support import Application, bodies, partitions
from shared.clock import ManualClock, SystemClock
from shared.ids import TimeOrderedIds
from shared.postgres import Connection, Pool
from shared.testing import eventually

CUT = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # it has read the server's farewell just now
)
NO_LOGIN = (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)


async def are_waiting(application: Application, count: int) -> bool:
    waiting = await application.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(waiting == count)


async def expire(application: Application, *logins: str) -> None:
    """Let time pass for some logins; for Postgres itself they are still good."""
    await application.pool.execute(
        "UPDATE tenancy.login SET expires_at = now() - interval '1 second' WHERE login = ANY ($1::text[])", logins
    )


async def login_of(session: Connection) -> str:
    name: str = await session.fetchval("SELECT session_user")
    return name


async def is_cut(session: Connection) -> bool:
    try:
        await session.execute("SELECT 1")
    except CUT:
        return True
    return False


@asynccontextmanager
async def watched_pool(application: Application, statements: list[LoggedQuery]) -> AsyncIterator[Pool]:
    """Open one more connection of the owner's, and collect what is sent over it."""

    async def watch(connection: Connection) -> None:
        connection.add_query_logger(statements.append)

    async with asyncpg.create_pool(application.url, min_size=1, max_size=1, init=watch) as pool:
        yield pool


async def test_provisioning_again_changes_nothing(application: Application) -> None:
    (a,) = await application.tenants("a")

    await application.driver.provision(partitions("a", "b"))

    assert await bodies(a) == ["of a"]
    assert {tenant_id for tenant_id, _ in await application.residue()} == {"a", "b"}


async def test_five_hundred_tenants_are_provisioned_in_one_statement_and_removed_in_three(
    application: Application,
) -> None:
    tenant_ids = [f"t{number}" for number in range(500)]
    statements: list[LoggedQuery] = []

    async with watched_pool(application, statements) as pool:
        driver = PostgresPool(pool, url=application.url, clock=SystemClock())
        await driver.provision(partitions(*tenant_ids))
        assert len(await application.residue()) == 500
        await driver.deprovision(tenant_ids)
        await asyncio.sleep(0)  # the logger is called in the loop's next turn

    assert len([each for each in statements if "tenancy." in each.query]) == 1 + 3
    assert await application.residue() == []


async def test_a_login_is_valid_for_fifteen_minutes_and_shows_its_password_to_nobody(
    application: Application, admin: Connection
) -> None:
    await application.driver.provision(partitions("a"))

    login = await application.driver.issue_login("a")

    valid_until, stored, limit = await admin.fetchrow(
        "SELECT rolvaliduntil, rolpassword, rolconnlimit FROM pg_authid WHERE rolname = $1", login.username
    ) or (None, "", 0)
    assert valid_until == login.expires_at
    assert timedelta(0) < LIFETIME - (login.expires_at - SystemClock().now()) < timedelta(minutes=1)
    assert stored.startswith("SCRAM-SHA-256$")
    assert login.password not in repr(login) + stored
    assert limit == 10


async def test_the_password_is_in_no_statement_that_the_server_could_log(application: Application) -> None:
    statements: list[LoggedQuery] = []
    async with watched_pool(application, statements) as pool:
        driver = PostgresPool(pool, url=application.url, clock=SystemClock())
        await driver.provision(partitions("a"))
        login = await driver.issue_login("a")
        await asyncio.sleep(0)  # the logger is called in the loop's next turn

    sent = repr([(each.query, each.args) for each in statements])
    assert login.username in sent
    assert login.password not in sent


async def test_a_wrong_password_opens_no_session(application: Application) -> None:
    """Or nothing said here about passwords and their expiry would mean anything on this server."""
    await application.driver.provision(partitions("a"))
    login = await application.driver.issue_login("a")

    with pytest.raises(NO_LOGIN):
        await asyncpg.connect(login.url, password="wrong")


async def test_every_login_is_a_new_one(application: Application) -> None:
    await application.driver.provision(partitions("a"))

    first, second = [await application.driver.issue_login("a") for _ in range(2)]

    assert first.username != second.username
    assert first.password != second.password
    assert await application.logins() == {first.username, second.username}


async def test_a_tenant_without_a_partition_gets_no_login(application: Application) -> None:
    with pytest.raises(NoEnvironmentError):
        await application.driver.issue_login("a")

    assert await application.logins() == set()


async def test_an_expired_login_opens_no_session(application: Application) -> None:
    clock = ManualClock(SystemClock().now() - LIFETIME - timedelta(seconds=1))
    await application.driver.provision(partitions("a"))

    login = await PostgresPool(application.pool, url=application.url, clock=clock).issue_login("a")

    with pytest.raises(NO_LOGIN):
        await asyncpg.connect(login.url)


async def test_a_session_that_outlives_its_login_sees_and_writes_nothing(application: Application) -> None:
    (a,) = await application.tenants("a")

    await expire(application, await login_of(a))

    assert await bodies(a) == []
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.NotNullViolationError)):
        await a.execute("INSERT INTO app.note (body) VALUES ('late')")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await a.execute("INSERT INTO app.note (tenant_id, body) VALUES ('a', 'late')")


async def test_sweeping_removes_expired_logins_with_their_sessions_and_no_others(application: Application) -> None:
    expired, valid = await application.tenants("a", "b")
    await expire(application, await login_of(expired))

    assert await application.driver.sweep_logins() == 1

    assert await is_cut(expired)
    assert await bodies(valid) == ["of b"]
    assert await application.logins() == {await login_of(valid)}
    assert await application.driver.sweep_logins() == 0


async def test_more_expired_logins_than_are_swept_at_once_are_all_swept(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitioning, "_SWEPT_AT_ONCE", 2)
    await application.driver.provision(partitions("a"))
    logins = [await application.driver.issue_login("a") for _ in range(6)]
    await expire(application, *(login.username for login in logins[:5]))

    assert await application.driver.sweep_logins() == 5

    assert await application.logins() == {logins[5].username}


async def test_an_expired_login_leaves_the_tenants_rows_where_they_are(application: Application) -> None:
    (session,) = await application.tenants("a")
    await expire(application, await login_of(session))
    await application.driver.sweep_logins()

    again = await application.connect(await application.driver.issue_login("a"))

    assert await bodies(again) == ["of a"]


async def test_deprovisioning_leaves_nothing_of_the_tenant_and_everything_of_others(application: Application) -> None:
    a, b = await application.tenants("a", "b")
    unused = await application.driver.issue_login("a")

    await application.driver.deprovision(["a"])

    assert await is_cut(a)
    with pytest.raises(NO_LOGIN):
        await asyncpg.connect(unused.url)
    assert await bodies(b) == ["of b"]
    assert {tenant_id for tenant_id, _ in await application.residue()} == {"b"}
    assert await application.logins() == {await login_of(b)}


async def test_rows_that_the_audit_would_overlook_are_gone_too(
    application: Application, postgres_server: Server
) -> None:
    """The audit is a view of ours; the administrator counts for himself."""
    await application.tenants("a")
    everything = await asyncpg.connect(database_url(postgres_server.admin_url, urlsplit(application.url).path[1:]))
    assert await everything.fetchval("SELECT count(*) FROM app.note") == 1

    await application.driver.deprovision(["a"])

    counts = await everything.fetchrow(
        "SELECT (SELECT count(*) FROM app.note), (SELECT count(*) FROM tenancy.tenant),"
        " (SELECT count(*) FROM tenancy.login), (SELECT count(*) FROM pg_largeobject_metadata)"
    )
    await everything.close()
    assert tuple(counts or ()) == (0, 0, 0, 0)


async def test_deprovisioning_waits_for_no_session_of_the_tenants(application: Application) -> None:
    (a,) = await application.tenants("a")
    await a.execute("SELECT lo_create(0)")  # something that the login itself owns
    await a.execute(
        "BEGIN; LOCK TABLE app.note; INSERT INTO app.note (body) VALUES ('held'); UPDATE app.note SET body = 'held'"
    )

    async with asyncio.timeout(10):
        await application.driver.deprovision(["a"])

    assert await is_cut(a)
    assert await application.residue() == []
    assert await application.logins() == set()
    assert await application.pool.fetchval("SELECT count(*) FROM pg_largeobject_metadata") == 0


async def test_deprovisioning_what_never_was_and_once_more_changes_nothing(application: Application) -> None:
    await application.driver.deprovision(["a", "a"])
    await application.tenants("a")

    await application.driver.deprovision(["a", "b"])
    await application.driver.deprovision(["a", "b"])

    assert await application.residue() == []


async def test_a_deprovisioning_that_was_cut_short_has_closed_the_door_and_is_finished_by_the_next(
    application: Application,
) -> None:
    (a,) = await application.tenants("a")
    unused = await application.driver.issue_login("a")
    await application.pool.execute("SELECT tenancy.close_tenants('{a}')")

    assert await bodies(a) == []
    with pytest.raises(NO_LOGIN):
        await asyncpg.connect(unused.url)
    with pytest.raises(NoEnvironmentError):
        await application.driver.issue_login("a")

    await application.driver.deprovision(["a"])
    assert await application.residue() == []
    assert await application.logins() == set()


async def test_a_login_that_is_being_issued_at_that_moment_goes_too(application: Application) -> None:
    await application.driver.provision(partitions("a"))

    async with asyncio.TaskGroup() as group, application.pool.acquire() as issuing, issuing.transaction():
        await issuing.execute("SELECT tenancy.create_login('tenant_late', 'a', 'secret', now() + interval '1 hour')")
        group.create_task(application.driver.deprovision(["a"]))
        await eventually(lambda: are_waiting(application, 1), describe="the deprovisioning waits")

    assert await application.residue() == []
    assert await application.logins() == set()


async def test_a_login_that_cannot_be_dropped_keeps_no_other_alive(application: Application, admin: Connection) -> None:
    stuck, other = await application.tenants("a", "b")
    stuck_login, other_login = await login_of(stuck), await login_of(other)
    await admin.execute(f"CREATE SCHEMA elsewhere AUTHORIZATION {stuck_login}")  # in another database
    try:
        await expire(application, stuck_login, other_login)

        assert await application.driver.sweep_logins() == 1

        assert await application.logins() == {stuck_login}
        assert await is_cut(stuck)
        with pytest.raises(asyncpg.ForeignKeyViolationError):  # never reported as done
            await application.driver.deprovision(["a"])
    finally:
        await admin.execute("DROP SCHEMA elsewhere")
    await application.driver.deprovision(["a"])
    assert await application.logins() == set()


async def test_five_hundred_tenants_are_configured_in_one_statement_and_throttled_in_two(
    application: Application,
) -> None:
    tenant_ids = [f"t{number}" for number in range(500)]
    await application.driver.provision(partitions(*tenant_ids))
    statements: list[LoggedQuery] = []

    async with watched_pool(application, statements) as pool:
        driver = PostgresPool(pool, url=application.url, clock=SystemClock())
        await driver.configure([Partition(tenant_id, connections=2) for tenant_id in tenant_ids])
        await driver.configure([Partition(tenant_id, is_throttled=True) for tenant_id in tenant_ids])
        await asyncio.sleep(0)  # the logger is called in the loop's next turn

    assert len([each for each in statements if "tenancy." in each.query]) == 1 + 2
    assert await application.pool.fetchval("SELECT count(*) FROM tenancy.tenant WHERE throttled_at IS NOT NULL") == 500


async def test_configuring_makes_no_partition_and_opens_no_closed_one(application: Application) -> None:
    await application.driver.provision(partitions("a"))
    await application.pool.execute("SELECT tenancy.close_tenants('{a}')")

    await application.driver.configure(partitions("a", "b"))

    assert await application.residue() == [("a", "tenancy.tenant")]
    with pytest.raises(NoEnvironmentError):
        await application.driver.issue_login("a")


async def test_configuring_what_is_so_already_changes_no_row_and_no_role(
    application: Application, admin: Connection
) -> None:
    await application.tenants("a")
    versions = "SELECT xmin::text FROM tenancy.tenant UNION ALL SELECT xmin::text FROM tenancy.login"
    roles = "SELECT xmin::text FROM pg_authid WHERE rolname LIKE 'tenant\\_%' ORDER BY rolname"
    before = [*await application.pool.fetch(versions), *await admin.fetch(roles)]

    await application.driver.provision(partitions("a"))
    await application.driver.configure(partitions("a"))

    assert [*await application.pool.fetch(versions), *await admin.fetch(roles)] == before


async def test_a_login_that_is_being_issued_when_the_tenant_is_throttled_is_throttled_too(
    application: Application,
) -> None:
    await application.driver.provision(partitions("a"))

    async with asyncio.TaskGroup() as group, application.pool.acquire() as issuing, issuing.transaction():
        await issuing.execute("SELECT tenancy.create_login('tenant_late', 'a', 'secret', now() + interval '1 hour')")
        group.create_task(application.driver.configure([Partition("a", is_throttled=True)]))
        await eventually(lambda: are_waiting(application, 1), describe="the throttling waits")

    assert await application.logins() == set()
    with pytest.raises(ThrottledError):
        await application.driver.issue_login("a")


async def test_a_removal_is_known_by_its_environment_for_thirty_days(application: Application) -> None:
    first, second = TimeOrderedIds().new(), TimeOrderedIds().new()
    await application.tenants("a", "b")
    assert await application.driver.remove({"a": first, "b": None}) == {"a": {"app.note": 1}, "b": {"app.note": 1}}

    assert await application.driver.remove({"b": None, "a": first}) == {"a": {"app.note": 1}, "b": {"app.note": 0}}
    assert await application.driver.remove({"a": second}) == {"a": {"app.note": 0}}

    await application.pool.execute("UPDATE tenancy.removal SET removed_at = now() - interval '31 days'")
    assert await application.driver.remove({"a": first}) == {"a": {"app.note": 0}}
    assert await application.pool.fetchval("SELECT count(*) FROM tenancy.removal") == 1


async def test_many_replicas_sweep_and_deprovision_at_once(application: Application) -> None:
    tenant_ids = [f"t{number}" for number in range(8)]
    sessions = await application.tenants(*tenant_ids)
    await expire(application, *[await login_of(session) for session in sessions[:4]])

    async with asyncio.TaskGroup() as group:
        for order in (tenant_ids, tenant_ids[::-1]):
            group.create_task(application.driver.deprovision(order))
            group.create_task(application.driver.sweep_logins())
            group.create_task(
                application.driver.configure([Partition(each, is_throttled=True) for each in reversed(order)])
            )

    assert await application.residue() == []
    assert await application.logins() == set()


def test_a_login_is_written_as_a_url_also_for_an_address_of_version_six() -> None:
    expires_at = ManualClock().now()

    login = Login(
        driver="postgres",
        host="::1",
        port=5432,
        database="tenants",
        username="tenant_1",
        password="secret",
        expires_at=expires_at,
    )

    assert login.url == "postgresql://tenant_1:secret@[::1]:5432/tenants"
