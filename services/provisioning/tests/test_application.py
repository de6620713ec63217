"""The wall between tenants in one database, tried from inside with a tenant's own login."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from deploy.databases import DatabaseUrls
from deploy.local.throwaway import FreshDatabases
from services.provisioning.drivers import tenancy_of
from services.provisioning.drivers.postgres import install, installing
from services.provisioning.drivers.postgres.place import Partition
from services.provisioning.tests.support import Application, bodies, partitions
from shared.postgres import Connection, migrate, open_pool

REFUSED = (asyncpg.InsufficientPrivilegeError, asyncpg.CheckViolationError)


async def test_a_tenant_sees_its_own_rows_and_no_others(application: Application) -> None:
    a, b = await application.tenants("a", "b")

    assert await bodies(a) == ["of a"]
    assert await bodies(b) == ["of b"]
    assert await a.fetchval("SELECT count(*) FROM app.note WHERE tenant_id = 'b'") == 0


async def test_a_tenant_changes_and_deletes_nothing_of_another(application: Application) -> None:
    a, b = await application.tenants("a", "b")

    assert await a.execute("UPDATE app.note SET body = 'mine'") == "UPDATE 1"
    assert await a.execute("UPDATE app.note SET body = 'mine' WHERE tenant_id = 'b'") == "UPDATE 0"
    assert await a.execute("DELETE FROM app.note WHERE tenant_id = 'b'") == "DELETE 0"
    assert await a.execute("DELETE FROM app.note") == "DELETE 1"

    assert await bodies(b) == ["of b"]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO app.note (tenant_id, body) VALUES ('b', 'planted')",
        "INSERT INTO app.note (tenant_id, body) SELECT 'b', body FROM app.note",
        "UPDATE app.note SET tenant_id = 'b'",
        "INSERT INTO app.note SELECT * FROM app.note ON CONFLICT (tenant_id, note_id) DO UPDATE SET tenant_id = 'b'",
        """
        MERGE INTO app.note USING (VALUES ('b')) AS other (id) ON false
        WHEN NOT MATCHED THEN INSERT (tenant_id, body) VALUES (other.id, 'planted')
        """,
        "COPY app.note (tenant_id, body) FROM STDIN",
    ],
)
async def test_a_tenant_writes_nothing_into_another(application: Application, statement: str) -> None:
    a, b = await application.tenants("a", "b")

    with pytest.raises((*REFUSED, asyncpg.FeatureNotSupportedError)):
        await a.execute(statement)

    assert await bodies(b) == ["of b"]


@pytest.mark.parametrize(
    "trick",
    [
        "SELECT set_config('app.tenant', 'b', false), set_config('tenancy.tenant_id', 'b', false)",
        "SET search_path TO pg_temp, tenancy, app",
        "SET ROLE {tenant_role}",
        "SET LOCAL ROLE {tenant_role}",
        "RESET ALL",
        "DISCARD ALL",
        "SELECT set_config('role', '{tenant_role}', false)",
        "ALTER ROLE CURRENT_USER SET search_path TO tenancy",
    ],
)
async def test_no_setting_makes_a_tenant_another(application: Application, trick: str) -> None:
    a, _ = await application.tenants("a", "b")
    role = await application.pool.fetchval("SELECT tenancy.tenant_role()")

    await a.execute(trick.format(tenant_role=role))

    assert await bodies(a) == ["of a"]
    assert await a.fetchval("SELECT tenancy.current_tenant()") == "a"


@pytest.mark.parametrize(
    "trick",
    [
        "SET ROLE {owner}",
        "SET ROLE {other}",
        "SET SESSION AUTHORIZATION {other}",
        "SET row_security = off; SELECT * FROM app.note",
        "TRUNCATE app.note",
        "ALTER TABLE app.note DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE app.note NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY own_rows ON app.note",
        "CREATE POLICY mine ON app.note USING (true)",
        "CREATE TRIGGER spy AFTER INSERT ON app.note EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE TABLE app.mine (tenant_id text)",
        "CREATE TABLE public.mine (tenant_id text)",
        "CREATE TEMPORARY TABLE mine (tenant_id text)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION app.mine() RETURNS text LANGUAGE sql RETURN 'b'",
        "CREATE OR REPLACE FUNCTION tenancy.current_tenant() RETURNS text LANGUAGE sql RETURN 'b'",
        "SELECT * FROM tenancy.tenant",
        "SELECT * FROM tenancy.login",
        "SELECT * FROM tenancy.live_record",
        "SELECT * FROM public.schema_migration",
        "UPDATE tenancy.login SET tenant_id = 'b'",
        "UPDATE tenancy.login SET expires_at = 'infinity'",
        "SELECT tenancy.create_login('tenant_mine', 'b', 'secret', 'infinity')",
        "SELECT * FROM tenancy.removal",
        "SELECT * FROM tenancy.tenant_table",
        "UPDATE tenancy.tenant SET throttled_at = NULL",
        "SELECT tenancy.create_reader('tenant_mine', 'b', 'secret')",
        "SELECT tenancy.make_role('tenant_mine', 'b', 'secret', 'infinity', 1)",
        "SELECT tenancy.configure_tenants('{{b}}', '{{1}}', '{{true}}')",
        "SELECT tenancy.remove_tenants('{{b}}', '{{null}}')",
        "SELECT tenancy.close_tenants('{{b}}')",
        "SELECT tenancy.sweep_logins()",
        "SELECT tenancy.sweep_logins(1)",
        "CREATE ROLE mine LOGIN",
        "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'",
        "ALTER ROLE CURRENT_USER BYPASSRLS",
        "ALTER ROLE CURRENT_USER CONNECTION LIMIT -1",
        "GRANT {owner} TO CURRENT_USER",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{other}'",
        "SELECT pg_read_file('PG_VERSION')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT rolpassword FROM pg_authid",
    ],
)
async def test_what_a_tenant_must_not_do_is_refused(application: Application, trick: str) -> None:
    a, b = await application.tenants("a", "b")
    owner = await application.pool.fetchval("SELECT current_user")
    other = await b.fetchval("SELECT current_user")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await a.execute(trick.format(owner=owner, other=other))

    assert await bodies(b) == ["of b"]


async def test_of_all_our_functions_a_tenant_may_call_only_the_one_that_tells_who_it_is(
    application: Application,
) -> None:
    (a,) = await application.tenants("a")

    callable_ones = await a.fetch(
        "SELECT proname FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace"
        " WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND has_function_privilege(pg_proc.oid, 'EXECUTE')"
    )

    assert [row["proname"] for row in callable_ones] == ["current_tenant"]


async def test_a_key_of_another_tenants_row_is_free_to_take_and_tells_nothing(application: Application) -> None:
    a, b = await application.tenants("a", "b")
    note_id = await b.fetchval("SELECT note_id FROM app.note")

    await a.execute("INSERT INTO app.note (note_id, body) VALUES ($1, 'same key')", note_id)

    assert await bodies(a) == ["of a", "same key"]
    assert await bodies(b) == ["of b"]


async def test_a_login_opens_no_other_database(application: Application, fresh_database: FreshDatabases) -> None:
    await application.driver.provision(partitions("a"))
    login = await application.driver.issue_login("a")
    another = (await fresh_database("provisioning")).rpartition("/")[2]

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(login.url, database=another)


async def test_who_is_no_tenant_sees_and_writes_nothing_not_even_the_owner(application: Application) -> None:
    await application.tenants("a")

    assert await application.pool.fetchval("SELECT tenancy.current_tenant()") is None
    async with application.pool.acquire() as owner:
        assert await bodies(owner) == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await application.pool.execute("INSERT INTO app.note (tenant_id, body) VALUES ('a', 'planted')")


async def test_neither_a_view_nor_a_function_of_the_owner_leads_around_the_wall(application: Application) -> None:
    a, _ = await application.tenants("a", "b")
    role = await application.pool.fetchval("SELECT tenancy.tenant_role()")
    await application.pool.execute(
        f"""
        CREATE VIEW app.careless AS SELECT body FROM app.note;
        CREATE FUNCTION app.careless() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER
            AS 'SELECT body FROM app.note';
        GRANT SELECT ON app.careless TO {role};
        GRANT EXECUTE ON FUNCTION app.careless() TO {role};
        """
    )

    assert [row["body"] for row in await a.fetch("SELECT body FROM app.careless")] == ["of a"]
    assert [row["body"] for row in await a.fetch("SELECT body FROM app.careless() AS body")] == ["of a"]


async def test_every_table_of_the_application_stands_behind_the_wall(
    application: Application, admin: Connection
) -> None:
    """What holds for the sample must hold for every table that a migration adds."""
    role = await application.pool.fetchval("SELECT tenancy.tenant_role()")
    tables = await application.pool.fetch(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p', 'v')"
        " AND relnamespace = 'app'::regnamespace"
    )
    walled = await application.pool.fetch(
        """
        SELECT class.oid::regclass::text FROM pg_class AS class
        JOIN pg_policies AS policy ON policy.schemaname = 'app' AND policy.tablename = class.relname
        WHERE class.relrowsecurity AND class.relforcerowsecurity
          AND policy.cmd = 'ALL' AND policy.roles = ARRAY [$1::name]
          AND policy.qual = policy.with_check AND policy.qual LIKE '(tenant_id = ( SELECT tenancy.current_tenant()%'
        """,
        role,
    )
    keyed = await application.pool.fetch(
        """
        SELECT conrelid::regclass::text
        FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
        WHERE contype = 'p' AND attname = 'tenant_id' AND connamespace = 'app'::regnamespace
        """
    )
    audited = await application.pool.fetch(
        """
        SELECT class.oid::regclass::text FROM pg_class AS class JOIN pg_policy ON polrelid = class.oid
        WHERE relnamespace = 'app'::regnamespace AND polcmd = 'r' AND pg_get_expr(polqual, polrelid) = 'true'
          AND polroles = ARRAY [to_regrole(tenancy.auditor_role())::oid]
          AND has_column_privilege(tenancy.auditor_role(), class.oid, 'tenant_id', 'SELECT')
        """
    )

    assert tables
    assert set(walled) == set(keyed) == set(audited) == set(tables)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("number integer PRIMARY KEY, tenant_id text", "no primary key that begins with a tenant_id"),
        ("tenant_id text, number integer, PRIMARY KEY (number, tenant_id)", "no primary key that begins"),
        ("tenant_id integer PRIMARY KEY", "of type text"),
        ("tenant_id text, code text UNIQUE, PRIMARY KEY (tenant_id, code)", "unique without the tenant_id"),
    ],
)
async def test_a_table_that_would_tell_of_others_cannot_be_protected(
    application: Application, columns: str, problem: str
) -> None:
    await application.pool.execute(f"CREATE TABLE app.careless ({columns})")

    with pytest.raises(asyncpg.RaiseError, match=problem):
        await application.pool.execute("SELECT tenancy.protect_table('app.careless')")


async def test_a_table_that_a_migration_protects_is_walled_and_counted(application: Application) -> None:
    await application.pool.execute(
        """
        CREATE TABLE app.line (
            tenant_id text NOT NULL DEFAULT tenancy.current_tenant() REFERENCES tenancy.tenant ON DELETE CASCADE,
            line_id   uuid NOT NULL DEFAULT gen_random_uuid(),
            PRIMARY KEY (tenant_id, line_id)
        );
        SELECT tenancy.protect_table('app.line');
        """
    )
    a, b = await application.tenants("a", "b")
    for session in (a, b, b):
        await session.execute("INSERT INTO app.line DEFAULT VALUES")

    assert await a.fetchval("SELECT count(*) FROM app.line") == 1
    assert ("a", "app.line") in await application.residue()
    assert await application.driver.remove({"b": None}) == {"b": {"app.line": 2, "app.note": 1}}


async def test_what_is_in_the_places_of_its_products_is_the_tenants(application: Application) -> None:
    """Or the audit would call it left over, of a tenant that nobody knows."""
    for isolation, product in (("pool", "p"), ("bridge", "b"), ("silo", "s")):
        made = application.environment(tenancy_of("a", product), isolation, product=product)
        await application.make(made)
        session = await application.connect(await application.postgres.issue(made))
        await session.execute("INSERT INTO note (body) VALUES ('kept')")
    await application.tenants("a", "a-b")

    assert await application.residue() == [
        ("a", "app.note"),
        ("a", "app.note:p"),
        ("a", "tenancy.bridge:b"),
        ("a", "tenancy.login"),
        ("a", "tenancy.login:b"),
        ("a", "tenancy.login:p"),
        ("a", "tenancy.silo:s"),
        ("a", "tenancy.tenant"),
        ("a", "tenancy.tenant:p"),
        ("a-b", "app.note"),
        ("a-b", "tenancy.login"),
        ("a-b", "tenancy.tenant"),
    ]


async def test_whoever_owns_the_tables_has_not_the_auditors_rights(application: Application) -> None:
    assert not await application.pool.fetchval(
        "SELECT bool_or(pg_has_role(rolname, 'USAGE')) FROM pg_roles WHERE rolname = current_database() || '_auditor'"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await application.pool.execute(
            "DO $$ BEGIN EXECUTE format('SET ROLE %I', current_database() || '_auditor'); END $$"
        )


async def test_the_schema_is_installed_once_however_many_start_at_once(application_urls: DatabaseUrls) -> None:
    installed = await asyncio.gather(*(install(application_urls.owner) for _ in range(3)))

    assert sorted(installed) == [
        [],
        [],
        [
            "provisioning/0001_pool.sql",
            "provisioning/0002_lifecycles.sql",
            "provisioning/0003_bridges_and_silos.sql",
            "provisioning/0004_products.sql",
        ],
    ]
    assert await install(application_urls.owner) == []


async def test_tenants_and_logins_of_the_release_before_are_taken_over(
    application_urls: DatabaseUrls, tmp_path: Path
) -> None:
    folder = tmp_path / "provisioning" / "application"
    folder.mkdir(parents=True)
    released = installing.OURS / "0001_pool.sql"
    (folder / released.name).write_bytes(released.read_bytes())
    await migrate(application_urls.owner, [folder])
    pool = await open_pool(application_urls.owner)
    await pool.execute("INSERT INTO tenancy.tenant (tenant_id) VALUES ('a')")
    application = Application(application_urls.owner, pool)
    (session,) = await application.sessions("a")

    await install(application_urls.owner)

    assert await bodies(session) == ["of a"]
    await application.driver.configure([Partition("a", connections=2)])
    assert await pool.fetchval("SELECT rolconnlimit FROM pg_roles JOIN tenancy.login ON login = rolname") == 2
    assert await application.driver.remove({"a": None}) == {"a": {"app.note": 1}}
    await application.close()
