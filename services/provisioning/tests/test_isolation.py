"""The wall between tenants, tried with one's own login for every pair of places, as one who knows all names.

Whatever is tried is refused by Postgres itself, or shows and changes nothing of the other's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from deploy.local.throwaway import Server
from services.provisioning.drivers.postgres import PostgresDriver
from services.provisioning.drivers.postgres.names import Names
from services.provisioning.tests.driver_contract import environment
from services.provisioning.tests.tricks import FORBIDDEN, READING, WRITING
from services.provisioning.tests.walls import ISOLATIONS, REFUSED, Tenant, Wall, open_wall
from shared.clock import ManualClock, SystemClock
from shared.postgres import Connection

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAIRS = list(product(ISOLATIONS, ISOLATIONS))

SECRET = "the other's secret"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wall(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wall]:
    """Two tenants in each kind of place."""
    async with open_wall(postgres_server, tmp_path_factory.mktemp("replies")) as wall:
        for isolation in ISOLATIONS:
            for name, secret in (("a", "one's own"), ("b", SECRET)):
                await wall.settle(environment(f"{name} of {isolation}", isolation, connections=20), secret)
        await wall.analyze()
        yield wall


@dataclass
class Pair:
    """Who tries, and who must notice nothing.

    Attributes:
        session: of ``a``, for one test.
    """

    wall: Wall
    a: Tenant
    b: Tenant
    session: Connection

    async def attempt(
        self, trick: str, *, also: tuple[type[asyncpg.PostgresError], ...] = ()
    ) -> list[asyncpg.Record] | None:
        """Try something; see `Wall.attempt`."""
        return await self.wall.attempt(self.session, self.b, trick, also=also)


@pytest_asyncio.fixture(loop_scope="module", params=PAIRS, ids="-".join)
async def pair(wall: Wall, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    own, other = request.param
    a, b = wall.tenants[f"a of {own}"], wall.tenants[f"b of {other}"]
    session = await asyncpg.connect(a.login.url, statement_cache_size=0)
    yield Pair(wall, a, b, session)
    session.terminate()


async def test_who_is_let_in_sees_its_own(wall: Wall) -> None:
    """Or nothing that is refused below would mean anything."""
    for tenant in wall.tenants.values():
        assert [row["body"] for row in await tenant.session.fetch("SELECT body FROM note")] == [tenant.secret]
        assert await tenant.session.fetchval("SELECT body FROM reply") == f"{tenant.secret} reply"


RIGHTS = """
    SELECT format('%s on schema %I', privilege, nspname)
    FROM pg_namespace, (VALUES ('USAGE'), ('CREATE')) AS of (privilege)
    WHERE nspname !~ '^(pg_|information_schema$)' AND has_schema_privilege(pg_namespace.oid, privilege)
    UNION ALL
    SELECT format('%s on table %s', privilege, pg_class.oid::regclass) FROM pg_class, (VALUES
        ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) AS of (privilege)
    WHERE relkind <> 'S' AND relnamespace::regnamespace::text !~ '^(pg_|information_schema$)'
      AND (has_table_privilege(pg_class.oid, privilege)
           OR privilege <> ALL ('{{DELETE,TRUNCATE,TRIGGER}}') AND has_any_column_privilege(pg_class.oid, privilege))
    UNION ALL
    SELECT format('USAGE on sequence %s', pg_class.oid::regclass) FROM pg_class
    WHERE CASE WHEN relkind = 'S' THEN has_sequence_privilege(pg_class.oid, 'USAGE, SELECT, UPDATE') END
    UNION ALL
    SELECT format('call of %s', pg_proc.oid::regprocedure) FROM pg_proc
    WHERE pronamespace::regnamespace::text !~ '^(pg_|information_schema$)'
      AND has_function_privilege(pg_proc.oid, 'EXECUTE')
    UNION ALL
    SELECT format('%s on database %I', privilege, datname) FROM pg_database,
        (VALUES ('CONNECT'), ('CREATE'), ('TEMPORARY')) AS of (privilege)
    WHERE starts_with(datname, '{prefix}') AND has_database_privilege(pg_database.oid, privilege)
    UNION ALL
    SELECT format('role %I', rolname) FROM pg_roles
    WHERE pg_has_role(pg_roles.oid, 'MEMBER') AND rolname <> session_user
    UNION ALL
    SELECT 'superuser' FROM pg_roles WHERE rolname = session_user
      AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
"""
"""Whatever the session may do on anything that was made."""


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_login_has_what_it_needs_and_nothing_more(wall: Wall, isolation: str) -> None:
    tenant = wall.tenants[f"a of {isolation}"]
    names = Names(urlsplit(wall.url).path[1:])
    groups = {
        "pool": {f"role {tenant.role}"},
        "bridge": {f"role {tenant.role}", f"role {await wall.pool.fetchval('SELECT tenancy.bridge_role()')}"},
        "silo": {f"role {tenant.role}", f"role {names.template}_tenant"},
    }

    rows = await tenant.session.fetch(RIGHTS.format(prefix=names.prefix[:14]))

    assert {row[0] for row in rows} == groups[isolation] | {
        f"USAGE on schema {tenant.schema}",
        "USAGE on schema tenancy",
        "call of tenancy.current_tenant()",
        f"CONNECT on database {tenant.database}",
        *(
            f"{right} on table {table}"
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
            for table in ("note", "reply")  # as they are called from inside
        ),
    }


@pytest.mark.parametrize("trick", READING)
async def test_whoever_reads_sees_nothing_of_anothers(pair: Pair, trick: str) -> None:
    shown = await pair.attempt(trick, also=(asyncpg.FeatureNotSupportedError,))  # a server may lack XML

    assert pair.b.tenant_id not in repr([list(row.values()) for row in shown or ()])


@pytest.mark.parametrize("trick", ["COPY {note} TO STDOUT", "COPY (SELECT * FROM {note}) TO STDOUT"])
async def test_whoever_copies_gets_nothing_of_anothers(pair: Pair, trick: str) -> None:
    pieces: list[bytes] = []

    async def keep(piece: bytes) -> None:
        pieces.append(piece)

    words = pair.b.words()
    with suppress(*REFUSED):
        if "SELECT" in trick:
            await pair.session.copy_from_query(f"SELECT * FROM {words['note']}", output=keep)
        else:
            await pair.session.copy_from_table("note", schema_name=words["schema"], output=keep)

    assert SECRET.encode() not in b"".join(pieces)


@pytest.mark.parametrize("trick", WRITING)
async def test_whoever_writes_changes_nothing_of_anothers(pair: Pair, trick: str) -> None:
    await pair.attempt(f"BEGIN ;; {trick}")
    await pair.attempt(f"{trick} ;; SELECT 1")


async def test_whoever_copies_in_plants_nothing_in_anothers(pair: Pair) -> None:
    before = await pair.wall.content(pair.b)

    with pytest.raises((*REFUSED, asyncpg.FeatureNotSupportedError)):  # COPY into a table with row-level security
        await pair.session.copy_records_to_table(
            "note", schema_name=pair.b.schema, columns=["tenant_id", "body"], records=[(pair.b.tenant_id, "planted")]
        )

    assert await pair.wall.content(pair.b) == before


@pytest.mark.parametrize("trick", FORBIDDEN)
async def test_what_would_lead_around_the_wall_is_refused(pair: Pair, trick: str) -> None:
    also = (asyncpg.FeatureNotSupportedError, asyncpg.InvalidGrantOperationError, asyncpg.ExternalRoutineError)
    assert await pair.attempt(trick, also=also) is None


async def test_a_condition_that_tells_is_never_asked_about_anothers_rows(pair: Pair) -> None:
    """It would fail, were it evaluated for such a row before the policy is."""
    for condition in (
        "1 / (CASE WHEN body = $${secret}$$ THEN 0 ELSE 1 END) = 1",
        "CASE WHEN body = $${secret}$$ THEN body::integer = 1 ELSE true END",
        "body::xml IS NOT NULL AND body = $${secret}$$",
    ):
        asked = "SELECT * FROM {note} WHERE " + condition.replace("{secret}", SECRET)
        await pair.attempt(asked, also=(asyncpg.InvalidXmlContentError,) if "xml" in condition else ())


async def test_a_key_tells_nothing_of_whether_another_has_it(pair: Pair) -> None:
    async with pair.session.transaction():
        await pair.session.execute("INSERT INTO note (note_id, body) VALUES ($1, 'same key')", pair.b.note_id)
    for note_id in (uuid4(), pair.b.note_id):
        await pair.session.execute("DELETE FROM note WHERE note_id = $1", note_id)
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await pair.session.execute("INSERT INTO reply (note_id) VALUES ($1)", note_id)


async def test_nothing_that_another_makes_happen_is_heard(pair: Pair) -> None:
    heard: list[object] = []
    await pair.session.add_listener("note", lambda *said: heard.append(said))

    await pair.b.session.execute("UPDATE note SET body = body")
    await pair.b.session.execute("INSERT INTO reply (note_id) SELECT note_id FROM note")
    await pair.session.execute("SELECT 1")

    assert heard == []


async def test_a_large_object_of_anothers_is_neither_read_nor_changed(pair: Pair) -> None:
    oid = await pair.b.session.fetchval("SELECT lo_from_bytea(0, $1)", SECRET.encode())

    for trick in (
        f"SELECT lo_get({oid})",
        f"SELECT lo_open({oid}, 262144)",
        f"SELECT lo_put({oid}, 0, 'changed')",
        f"SELECT lo_unlink({oid})",
        f"GRANT SELECT ON LARGE OBJECT {oid} TO PUBLIC",
        f"ALTER LARGE OBJECT {oid} OWNER TO CURRENT_USER",
    ):
        assert await pair.attempt(trick) is None

    assert await pair.b.session.fetchval("SELECT lo_get($1)", oid) == SECRET.encode()
    await pair.b.session.execute(f"SELECT lo_unlink({oid})")


async def test_a_login_opens_no_other_database(pair: Pair) -> None:
    databases = await pair.wall.pool.fetch("SELECT datname FROM pg_database")
    names = {row["datname"] for row in databases} - {pair.a.database}

    assert {pair.b.database, "postgres"} - {pair.a.database} <= names
    for name in names - {"postgres", "template1"}:  # closed by whoever sets up the server: deploy/databases.py
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ObjectNotInPrerequisiteStateError)):
            await asyncpg.connect(pair.a.login.url, database=name)


async def test_a_connection_that_is_handed_on_dirty_is_still_whose_it_was(pair: Pair) -> None:
    """As a pool hands it on that resets nothing, or resets it in the ways there are."""
    own = f'"{pair.a.role}"'
    await pair.session.execute(
        f'SET ROLE {own}; SET search_path TO "{pair.b.schema}", "{pair.a.schema}"; SET row_security = on;'
        " SET plan_cache_mode TO force_generic_plan;"
        f" PREPARE kept AS SELECT body FROM \"{pair.a.schema}\".note; SELECT set_config('app.tenant', 'b', false)"
    )
    for cleaning in ("EXECUTE kept", "RESET ROLE", "RESET SESSION AUTHORIZATION", "RESET ALL", "DISCARD ALL"):
        shown = await pair.session.fetch(cleaning)
        assert SECRET not in repr(shown)
        assert await pair.session.fetchval("SELECT tenancy.current_tenant()") == pair.a.tenant_id
        await pair.attempt("SELECT * FROM {note}")
        assert {row["tenant_id"] for row in await pair.session.fetch(f'SELECT * FROM "{pair.a.schema}".note')} == {
            pair.a.tenant_id
        }


async def test_a_transaction_that_another_left_open_shows_nothing(pair: Pair) -> None:
    async with pair.b.session.transaction():
        await pair.b.session.execute("UPDATE note SET body = body || '!'")
        await pair.session.execute("SET statement_timeout TO '5s'")
        await pair.attempt("SELECT * FROM {note} FOR UPDATE SKIP LOCKED")
        await pair.attempt("BEGIN ISOLATION LEVEL READ UNCOMMITTED ;; SELECT * FROM {note}")
        await pair.b.session.execute(f"UPDATE note SET body = $${SECRET}$$")


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_session_that_outlives_its_login_is_nobodys(wall: Wall, isolation: str) -> None:
    tenant = wall.tenants[f"a of {isolation}"]
    session = await asyncpg.connect((await wall.driver.issue(tenant.environment)).url)
    await session.execute("PREPARE kept AS SELECT body FROM note")
    rows = await session.fetch("EXECUTE kept")
    assert rows

    await _expire(wall, tenant, await session.fetchval("SELECT session_user"))

    assert await session.fetch("EXECUTE kept") == []
    assert await session.fetch("SELECT * FROM note") == []
    assert await session.fetchval("SELECT tenancy.current_tenant()") is None
    assert await session.execute("UPDATE note SET body = 'late'") == "UPDATE 0"
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.NotNullViolationError)):
        await session.execute("INSERT INTO note (body) VALUES ('late')")
    session.terminate()


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_login_whose_time_is_over_opens_no_session(wall: Wall, isolation: str) -> None:
    clock = ManualClock(SystemClock().now() - timedelta(hours=1))
    driver = PostgresDriver(wall.pool, url=wall.url, clock=clock)

    login = await driver.issue(wall.tenants[f"a of {isolation}"].environment)

    with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
        await asyncpg.connect(login.url)


async def test_names_tell_nobody_whose_a_place_is(wall: Wall) -> None:
    """Every login sees the names of all schemas, roles and databases."""
    for tenant in wall.tenants.values():
        session = tenant.session
        rows = await session.fetch(
            """
            SELECT nspname FROM pg_namespace UNION ALL SELECT rolname FROM pg_roles UNION ALL
            SELECT datname FROM pg_database UNION ALL SELECT description FROM pg_description UNION ALL
            SELECT description FROM pg_shdescription UNION ALL SELECT usename FROM pg_stat_activity
            """
        )
        assert not [row for row in rows if row[0] and any(other in row[0] for other in wall.tenants)]


async def test_whoever_tries_much_at_once_gets_no_further(wall: Wall) -> None:
    """Logins are made and swept all the while."""
    a, b = wall.tenants["a of bridge"], wall.tenants["b of bridge"]
    before = await wall.content(b)

    async def churn() -> None:
        for _ in range(5):
            login = await wall.driver.issue(b.environment)
            await _expire(wall, b, login.username)
            await wall.driver.sweep()

    async def peek() -> None:
        for _ in range(50):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await a.session.fetch(f'SELECT * FROM "{b.schema}".note')

    await asyncio.gather(churn(), peek())
    assert await wall.content(b) == before


async def _expire(wall: Wall, tenant: Tenant, username: str) -> None:
    await (await wall.everything(tenant)).execute(
        "UPDATE tenancy.login SET expires_at = now() - interval '1 second' WHERE login = $1", username
    )
