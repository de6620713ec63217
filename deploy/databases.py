"""A database, an owner and a login for every service: the wall between services that no code can climb.

=============================  ==========================================================================
``tenure_<service>``           the database, and the login of the same name that the running service uses
``tenure_<service>_owner``     owns the database and its schema; used by migrations alone
``tenure_application``         where tenants live; ``tenure_application_owner`` makes their schemas and logins in it,
                               and beside it the databases of those who have one of their own
=============================  ==========================================================================

A service's login reads and writes rows of its own database. It cannot connect to another one, and it cannot create,
alter, drop or truncate anything (OWASP ASVS 5.0, 13.2.2). Needs Postgres 15 or newer, where the owner of a database
owns its schema ``public`` too; 16 is better, where a login that may make roles has no power over roles it did not make.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from shared.contracts import SERVICES
from shared.postgres import Connection

APPLICATION = "application"
"""The database of the applications that tenants use; its owner makes logins and databases for them."""

_LOCK = 0x7E9C0DB
_CONNECT_SECONDS = 10.0

_LOGIN_SETTINGS = (
    "ALTER ROLE %1$I SET search_path TO public",
    # A plan made while a table was small must not be kept when it has grown; to plan anew costs less than one scan.
    "ALTER ROLE %1$I SET plan_cache_mode TO force_custom_plan",
    "ALTER ROLE %1$I SET jit TO off",
    "ALTER ROLE %1$I SET statement_timeout TO '30s'",
    "ALTER ROLE %1$I SET idle_in_transaction_session_timeout TO '30s'",
)
_OWNER_SETTINGS = ("ALTER ROLE %1$I SET search_path TO public",)
_DATABASE_GRANTS = (
    "REVOKE ALL ON DATABASE %1$I FROM PUBLIC",
    "GRANT CONNECT ON DATABASE %1$I TO %2$I",
)
_SCHEMA_GRANTS = (
    "REVOKE ALL ON SCHEMA public FROM PUBLIC",
    "GRANT USAGE ON SCHEMA public TO %1$I",
    "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %1$I",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO %1$I",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO %1$I",
)
# Who is granted something in these databases or on them, and the members of those; but superusers and $2.
_ROLES_OF_TENANTS = """
    WITH RECURSIVE role AS (
        SELECT pg_roles.oid, rolname FROM pg_shdepend JOIN pg_roles ON pg_roles.oid = refobjid
        WHERE (dbid = ANY ($1::oid[]) OR (classid = 'pg_database'::regclass AND objid = ANY ($1::oid[])))
          AND refclassid = 'pg_authid'::regclass AND NOT rolsuper AND rolname <> ALL ($2::text[])
        UNION
        SELECT pg_roles.oid, pg_roles.rolname
        FROM role JOIN pg_auth_members ON roleid = role.oid JOIN pg_roles ON pg_roles.oid = member
        WHERE NOT rolsuper AND pg_roles.rolname <> ALL ($2::text[])
    )
    SELECT rolname FROM role
"""


@dataclass(frozen=True, kw_only=True)
class DatabasePasswords:
    """The passwords of one database's two logins.

    Attributes:
        owner: for migrations.
        app: for the running service.
    """

    owner: str
    app: str


@dataclass(frozen=True, kw_only=True)
class DatabaseUrls:
    """Where one database is reached, as each of its two logins.

    Attributes:
        owner: for migrations.
        app: for the running service.
    """

    owner: str
    app: str


async def create_databases(
    admin_url: str, passwords: Mapping[str, DatabasePasswords], *, prefix: str = "tenure"
) -> Mapping[str, DatabaseUrls]:
    """Make every service's database and logins, and the application database; what is there already is kept.

    Passwords of logins that exist are set to the given ones, so running it again is how they are changed.

    Args:
        admin_url: a login that may create roles and databases; a superuser, or what managed Postgres gives instead.
        passwords: by service, and under `APPLICATION`.
        prefix: the first part of every name.

    Returns:
        The URLs by service, and under `APPLICATION`, where provisioning needs ``owner``.

    Raises:
        KeyError: a service has no password.
    """
    names = (*SERVICES, APPLICATION)
    connection = await _connect(admin_url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await _close_shared_databases(connection)
        urls = await asyncio.gather(
            *(create_database(admin_url, f"{prefix}_{name}", passwords[name]) for name in names)
        )
        await let_make_tenants(connection, f"{prefix}_{APPLICATION}")
    finally:
        await connection.close()
    return dict(zip(names, urls, strict=True))


async def create_database(admin_url: str, name: str, passwords: DatabasePasswords) -> DatabaseUrls:
    """Make one database with its owner ``<name>_owner`` and its login ``<name>``, or bring them up to date."""
    owner = f"{name}_owner"
    urls = DatabaseUrls(
        owner=_url(admin_url, owner, passwords.owner, name), app=_url(admin_url, name, passwords.app, name)
    )
    admin = await _connect(admin_url)
    try:
        await _ensure_role(admin, owner, passwords.owner, _OWNER_SETTINGS)
        await _ensure_role(admin, name, passwords.app, _LOGIN_SETTINGS)
        if not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name):
            await _become_member(admin, owner)
            await _run(admin, ("CREATE DATABASE %1$I OWNER %2$I TEMPLATE template0 ENCODING 'UTF8'",), name, owner)
    finally:
        await admin.close()
    connection = await _connect(urls.owner)
    try:
        await _run(connection, _DATABASE_GRANTS, name, name)
        await _run(connection, _SCHEMA_GRANTS, name)
    finally:
        await connection.close()
    return urls


async def let_make_tenants(connection: Connection, name: str) -> None:
    """Let the owner of an application database make roles and databases for tenants.

    Args:
        connection: an administrator's.
        name: of the application database.
    """
    await _run(connection, ("ALTER ROLE %1$I CREATEROLE CREATEDB",), f"{name}_owner")


async def copy_database(admin_url: str, template: str, copy: str) -> None:
    """Make a database that equals ``template``, content and rights, reached by the same two logins.

    Nobody may be connected to the template meanwhile. Rights on the database itself are not part of what Postgres
    copies, so they are given again.
    """
    connection = await _connect(admin_url)
    try:
        await _run(connection, ("CREATE DATABASE %1$I TEMPLATE %2$I OWNER %3$I",), copy, template, f"{template}_owner")
        await _run(connection, _DATABASE_GRANTS, copy, template)
    finally:
        await connection.close()


async def drop_database(admin_url: str, name: str) -> None:
    """Remove a database with everything in it, cutting the connections to it."""
    connection = await _connect(admin_url)
    try:
        await _run(connection, ("DROP DATABASE IF EXISTS %1$I WITH (FORCE)",), name)
    finally:
        await connection.close()


async def drop_application(admin_url: str, name: str) -> None:
    """Remove an application database with its two logins, and whatever was made for tenants on the same server.

    Args:
        admin_url: a superuser.
    """
    connection = await _connect(admin_url)
    try:
        databases = await connection.fetch(
            "SELECT datname, oid FROM pg_database WHERE pg_get_userbyid(datdba) = $1", f"{name}_owner"
        )
        roles = await connection.fetch(_ROLES_OF_TENANTS, [row["oid"] for row in databases], [name, f"{name}_owner"])
        for row in databases:
            await _run(connection, ("ALTER DATABASE %1$I IS_TEMPLATE false",), row["datname"])
            await _run(connection, ("DROP DATABASE IF EXISTS %1$I WITH (FORCE)",), row["datname"])
        for row in roles:
            await _run(connection, ("DROP ROLE IF EXISTS %1$I",), row["rolname"])
    finally:
        await connection.close()
    await drop_logins(admin_url, name)


async def drop_logins(admin_url: str, name: str) -> None:
    """Remove the two logins of a database that is already dropped."""
    connection = await _connect(admin_url)
    try:
        await _run(connection, ("DROP ROLE IF EXISTS %1$I", "DROP ROLE IF EXISTS %2$I"), name, f"{name}_owner")
    finally:
        await connection.close()


def database_url(url: str, database: str) -> str:
    """Return a URL with the same login for another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(database, safe='')}"))


def _url(admin_url: str, user: str, password: str, database: str) -> str:
    place = urlsplit(admin_url).netloc.rpartition("@")[2]
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return database_url(urlunsplit(urlsplit(admin_url)._replace(netloc=f"{login}@{place}")), database)


async def _connect(url: str) -> Connection:
    return await asyncpg.connect(url, timeout=_CONNECT_SECONDS)


async def _run(connection: Connection, statements: Sequence[str], *values: str) -> None:
    """Run statements that Postgres takes no parameters for; its own ``format`` quotes names (%I) and texts (%L)."""
    for statement in statements:
        await connection.execute(await connection.fetchval("SELECT format($1, VARIADIC $2::text[])", statement, values))


async def _ensure_role(connection: Connection, name: str, password: str, settings: Sequence[str]) -> None:
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name):
        rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
        await _run(connection, (f"CREATE ROLE %1$I {rights}",), name)
    await _run(connection, ("ALTER ROLE %1$I PASSWORD %2$L",), name, password)
    await _run(connection, settings, name)


async def _become_member(connection: Connection, role: str) -> None:
    """Let an administrator who is no superuser give a database to another role."""
    if not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        await _run(connection, ("GRANT %1$I TO CURRENT_USER",), role)


async def _close_shared_databases(connection: Connection) -> None:
    """Keep services out of the databases that every server has, as far as the administrator may decide that."""
    for name in ("postgres", "template1"):
        try:
            await _run(connection, ("REVOKE CONNECT ON DATABASE %1$I FROM PUBLIC",), name)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidCatalogNameError):
            continue
