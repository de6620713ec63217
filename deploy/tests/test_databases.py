import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from deploy.databases import (
    APPLICATION,
    DatabasePasswords,
    DatabaseUrls,
    create_databases,
    database_url,
    drop_database,
    drop_logins,
)
from deploy.local.throwaway import FreshDatabases, Server
from shared.contracts import SERVICES

PREFIX = "tenure_wall"
NAMES = (*SERVICES, APPLICATION)
PASSWORDS = {name: DatabasePasswords(owner="it's \\ a % secret", app=f'"{name}"') for name in NAMES}


@pytest.fixture(scope="module")
def urls(postgres_server: Server) -> Iterator[dict[str, DatabaseUrls]]:
    yield dict(asyncio.run(create_databases(postgres_server.admin_url, PASSWORDS, prefix=PREFIX)))
    asyncio.run(remove(postgres_server.admin_url, PREFIX))


async def remove(admin_url: str, prefix: str) -> None:
    for name in NAMES:
        await drop_database(admin_url, f"{prefix}_{name}")
        await drop_logins(admin_url, f"{prefix}_{name}")


async def run(url: str, statement: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval(statement))
    finally:
        await connection.close()


@pytest.fixture
async def billing(urls: dict[str, DatabaseUrls]) -> DatabaseUrls:
    await run(urls["billing"].owner, "CREATE TABLE IF NOT EXISTS invoice (id bigserial PRIMARY KEY, amount int)")
    return urls["billing"]


async def test_every_service_reaches_its_own_database_as_itself(urls: dict[str, DatabaseUrls]) -> None:
    for name in NAMES:
        assert await run(urls[name].app, "SELECT current_user || ' ' || current_database()") == (
            f"{PREFIX}_{name} {PREFIX}_{name}"
        )
        assert await run(urls[name].owner, "SELECT current_user") == f"{PREFIX}_{name}_owner"


async def test_no_login_reaches_another_database(urls: dict[str, DatabaseUrls]) -> None:
    databases = [urlsplit(urls[name].app).path[1:] for name in NAMES] + ["postgres", "template1"]

    async def refused(url: str, database: str) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            await run(database_url(url, database), "SELECT 1")

    attempts = [
        refused(url, database)
        for pair in urls.values()
        for url in (pair.app, pair.owner)
        for database in databases
        if urlsplit(url).path != f"/{database}"
    ]
    for start in range(0, len(attempts), 16):
        await asyncio.gather(*attempts[start : start + 16])
    assert len(attempts) == 7 * 2 * 8


async def test_a_service_reads_and_writes_rows(billing: DatabaseUrls) -> None:
    assert await run(billing.app, "INSERT INTO invoice (amount) VALUES (7) RETURNING amount") == "7"
    assert await run(billing.app, "UPDATE invoice SET amount = 8 RETURNING amount") == "8"
    assert await run(billing.app, "DELETE FROM invoice RETURNING amount") == "8"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "TRUNCATE invoice",
        "DROP TABLE invoice",
        "ALTER TABLE invoice ADD COLUMN mine int",
        "CREATE INDEX mine ON invoice (amount)",
        f"SET ROLE {PREFIX}_billing_owner",
        f"SET SESSION AUTHORIZATION {PREFIX}_tenant",
        f"ALTER ROLE {PREFIX}_tenant PASSWORD 'x'",
        "COPY invoice TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT rolpassword FROM pg_authid",
        "ALTER SYSTEM SET fsync = off",
    ],
)
async def test_a_service_may_not(statement: str, billing: DatabaseUrls) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await run(billing.app, statement)


async def test_a_service_calls_functions_of_its_owner(billing: DatabaseUrls) -> None:
    await run(billing.owner, "CREATE OR REPLACE FUNCTION seven() RETURNS int LANGUAGE sql AS 'SELECT 7'")
    assert await run(billing.app, "SELECT seven()") == "7"


async def test_no_statement_and_no_open_transaction_of_a_service_lasts_for_ever(billing: DatabaseUrls) -> None:
    assert await run(billing.app, "SHOW statement_timeout") == "30s"
    assert await run(billing.app, "SHOW idle_in_transaction_session_timeout") == "30s"
    assert await run(billing.app, "SHOW search_path") == "public"


async def test_the_owner_of_the_application_database_makes_logins_there(urls: dict[str, DatabaseUrls]) -> None:
    owner = urls[APPLICATION].owner
    await run(owner, "CREATE ROLE tenant_of_the_wall LOGIN")
    await run(owner, "CREATE SCHEMA tenant_of_the_wall AUTHORIZATION CURRENT_USER")
    await run(owner, "DROP ROLE tenant_of_the_wall")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await run(owner, f"ALTER ROLE {PREFIX}_billing PASSWORD 'x'")


async def test_a_second_run_keeps_the_data_and_changes_the_passwords(
    billing: DatabaseUrls, postgres_server: Server
) -> None:
    await run(billing.app, "DELETE FROM invoice")
    await run(billing.app, "INSERT INTO invoice (amount) VALUES (7)")
    changed = {**PASSWORDS, "billing": DatabasePasswords(owner="new", app="new")}
    again = await create_databases(postgres_server.admin_url, changed, prefix=PREFIX)
    assert await run(again["billing"].app, "SELECT amount FROM invoice") == "7"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await run(billing.app, "SELECT 1")
    await create_databases(postgres_server.admin_url, PASSWORDS, prefix=PREFIX)
    assert await run(billing.app, "SELECT amount FROM invoice") == "7"


async def test_names_are_quoted(postgres_server: Server) -> None:
    prefix = "te\"nu're %I; --"
    made = await create_databases(postgres_server.admin_url, PASSWORDS, prefix=prefix)
    assert await run(made["tenant"].app, "SELECT current_user") == f"{prefix}_tenant"
    await remove(postgres_server.admin_url, prefix)


async def test_fresh_databases_are_migrated_and_apart(fresh_database: FreshDatabases) -> None:
    first, second = await asyncio.gather(fresh_database("tenant"), fresh_database("tenant"))
    assert first != second
    assert await run(first, "SELECT count(*) > 0 FROM schema_migration") == "True"
    assert await run(first, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "False"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await run(first, "TRUNCATE schema_migration")


async def test_a_fresh_database_is_closed_to_other_services(fresh_database: FreshDatabases) -> None:
    tenant, metrics = await asyncio.gather(fresh_database("tenant"), fresh_database("metrics"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await run(database_url(metrics, urlsplit(tenant).path[1:]), "SELECT 1")
