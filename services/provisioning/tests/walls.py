"""An application database with places that must be strictly apart, and sessions that try to get from one to another.

Whatever is tried is refused by Postgres itself, or shows and changes nothing of the other's.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from deploy.databases import DatabasePasswords, create_database, database_url, drop_application, let_make_tenants
from deploy.local.throwaway import Server
from services.provisioning.drivers import Environment, Login, Task
from services.provisioning.drivers.postgres import PostgresDriver, install
from services.provisioning.drivers.postgres.names import Names
from shared.clock import SystemClock
from shared.postgres import Connection, Pool, open_pool

ISOLATIONS = ("pool", "bridge", "silo")

REPLIES = """
    CREATE TABLE app.reply (
        tenant_id text NOT NULL DEFAULT tenancy.current_tenant() REFERENCES tenancy.tenant ON DELETE CASCADE,
        reply_id  bigint GENERATED ALWAYS AS IDENTITY,
        note_id   uuid NOT NULL,
        body      text,
        PRIMARY KEY (tenant_id, reply_id),
        UNIQUE (tenant_id, body),
        FOREIGN KEY (tenant_id, note_id) REFERENCES app.note ON DELETE CASCADE
    );
    SELECT tenancy.protect_table('app.reply');
"""
"""A table whose rows refer to notes."""

REFUSED = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidSchemaNameError,  # it is in another database
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
)


@dataclass
class Tenant:
    """A tenant with a note and a session of its own, in one of its environments.

    Attributes:
        role: the group that its logins belong to.
        secret: what its note says.
    """

    environment: Environment
    schema: str
    database: str
    role: str
    login: Login
    session: Connection
    secret: str
    note_id: str = ""

    @property
    def tenant_id(self) -> str:
        """What it is called where it is; see `Environment.tenant_id`."""
        return self.environment.tenant_id

    def words(self) -> dict[str, str]:
        """Return what tricks on this tenant are filled in with."""
        return {
            "b": self.tenant_id,
            "schema": self.schema,
            "note": f'"{self.schema}".note',
            "reply": f'"{self.schema}".reply',
            "note_id": self.note_id,
            "role": f'"{self.role}"',
            "login": f'"{self.login.username}"',
            "database": f'"{self.database}"',
        }


@dataclass
class Wall:
    """An application database.

    Attributes:
        tenants: those in it, by what they are called there.
        administrators: sessions of whoever is concerned by no wall, by database.
    """

    admin_url: str
    url: str
    pool: Pool
    driver: PostgresDriver
    tenants: dict[str, Tenant] = field(default_factory=dict)
    administrators: dict[str, Connection] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """The login that owns the database."""
        return urlsplit(self.url).username or ""

    async def settle(self, environment: Environment, secret: str) -> Tenant:
        """Make an environment, and let its tenant write a note there."""
        await self.driver.provision([Task(environment=environment)])
        login = await self.driver.issue(environment)
        session = await asyncpg.connect(login.url)
        role = await self._role_of(environment)
        schema = self.driver.place(environment).schema
        tenant = Tenant(environment, schema, login.database, role, login, session, secret)
        tenant.note_id = str(await session.fetchval("INSERT INTO note (body) VALUES ($1) RETURNING note_id", secret))
        await session.execute("INSERT INTO reply (note_id, body) SELECT note_id, body || ' reply' FROM note")
        self.tenants[tenant.tenant_id] = tenant
        return tenant

    async def _role_of(self, environment: Environment) -> str:
        names = Names(urlsplit(self.url).path[1:])
        if environment.isolation == "bridge":
            return names.bridge(environment.tenant_id)
        if environment.isolation == "silo":
            return names.silo(environment.tenant_id)
        role: str = await self.pool.fetchval("SELECT tenancy.tenant_role()")
        return role

    async def analyze(self) -> None:
        """Let the planner know what is in all tables, as it does on a server that has been up for a while."""
        for tenant in self.tenants.values():
            await (await self.everything(tenant)).execute("ANALYZE")

    async def attempt(
        self, a: Connection, b: Tenant, trick: str, *, also: tuple[type[asyncpg.PostgresError], ...] = ()
    ) -> list[asyncpg.Record] | None:
        """Try something on B, and return what it shows, or None where it is refused; in either case nothing of B's."""
        words = b.words() | {"owner": f'"{self.owner}"'}
        before = await self.content(b)
        *first, last = [part.strip() for part in trick.format(**words).split(";;")]
        shown: list[asyncpg.Record] | None = None
        refusal = ""
        try:
            for part in first:
                await a.execute(part)
            shown = await a.fetch(last)
        except asyncpg.PostgresError as error:
            if not isinstance(error, (*REFUSED, *also)):
                raise
            refusal = str(error)
        await a.execute("ROLLBACK; DEALLOCATE ALL")
        assert b.secret not in f"{shown} {refusal}", trick
        assert await self.content(b) == before, trick
        return shown

    async def everything(self, tenant: Tenant) -> Connection:
        """Return a session in a tenant's database of somebody whom no wall concerns."""
        if tenant.database not in self.administrators:
            url = database_url(self.admin_url, tenant.database)
            self.administrators[tenant.database] = await asyncpg.connect(url)
        return self.administrators[tenant.database]

    async def content(self, tenant: Tenant) -> list[str]:
        """Return what a tenant has, as the administrator of the server sees it, and who may see and change it."""
        rows = await (await self.everything(tenant)).fetch(
            f"""
            SELECT note::text AS line FROM "{tenant.schema}".note WHERE tenant_id = $1
            UNION ALL
            SELECT reply::text FROM "{tenant.schema}".reply WHERE tenant_id = $1
            UNION ALL
            SELECT concat_ws(' ', relname, relowner, relacl::text, relrowsecurity, relforcerowsecurity)
            FROM pg_class WHERE relnamespace = $2::regnamespace
            UNION ALL
            SELECT pg_policies::text FROM pg_policies WHERE schemaname = $3
            UNION ALL
            SELECT concat_ws(' ', nspname, nspowner, nspacl::text) FROM pg_namespace WHERE nspname !~ '^pg_'
            UNION ALL
            SELECT concat_ws(' ', datname, datdba, datacl::text) FROM pg_database WHERE datname = current_database()
            UNION ALL
            SELECT concat_ws(' ', rolname, rolpassword, rolcanlogin, rolvaliduntil) FROM pg_authid
            WHERE rolname IN ($4, $5)
            ORDER BY line
            """,
            tenant.tenant_id,
            f'"{tenant.schema}"',
            tenant.schema,
            tenant.role,
            tenant.login.username,
        )
        assert any(tenant.secret in row["line"] for row in rows)
        return [row["line"] for row in rows]

    async def close(self) -> None:
        """End all sessions."""
        for session in (*self.administrators.values(), *(tenant.session for tenant in self.tenants.values())):
            session.terminate()
        await self.pool.close()


@asynccontextmanager
async def open_wall(server: Server, folder: Path) -> AsyncIterator[Wall]:
    """Make an application database with nobody in it yet, and drop it at the end.

    Args:
        folder: empty, for the migrations of the team whose application it is.
    """
    name = f"tenure_test_{secrets.token_hex(4)}_application"
    passwords = DatabasePasswords(owner="throw-away", app="throw-away")
    urls = await create_database(server.admin_url, name, passwords)
    admin = await asyncpg.connect(server.admin_url)
    await let_make_tenants(admin, name)
    await admin.close()
    migrations = folder / "migrations"
    migrations.mkdir()
    (migrations / "0001_reply.sql").write_text(REPLIES)
    try:
        await install(urls.owner, [migrations])
        pool = await open_pool(urls.owner)
        driver = PostgresDriver(pool, url=urls.owner, clock=SystemClock(), migrations=[migrations])
        wall = Wall(server.admin_url, urls.owner, pool, driver)
        try:
            yield wall
        finally:
            await wall.close()
    finally:
        await drop_application(server.admin_url, name)
