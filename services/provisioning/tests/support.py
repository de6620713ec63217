"""What the tests of this service say again and again."""

from typing import Any

import asyncpg

from services.provisioning.drivers import Environment, Login, Task
from services.provisioning.drivers.postgres import PostgresDriver
from services.provisioning.drivers.postgres.place import Partition
from services.provisioning.drivers.postgres.pool import PostgresPool
from shared.clock import SystemClock
from shared.contracts.provisioning import ProvisionEnvironment
from shared.ids import TimeOrderedIds
from shared.postgres import Connection, Pool

REGIONS = ("local", "eu-central")


class Application:
    """An application database: its owner's connections, what works on it, and the sessions of tenants.

    Attributes:
        driver: what makes places in the pool.
        postgres: the whole driver.
    """

    def __init__(self, url: str, pool: Pool) -> None:
        self.url = url
        self.pool = pool
        self.driver = PostgresPool(pool, url=url, clock=SystemClock())
        self.postgres = PostgresDriver(pool, url=url, clock=SystemClock())
        self._sessions: list[Connection] = []

    def environment(self, tenant_id: str, isolation: str, **details: Any) -> Environment:
        """Describe an environment in which there is nothing special."""
        return Environment(
            environment_id=TimeOrderedIds().new(),
            tenant_id=tenant_id,
            isolation=isolation,
            **{"region": "local", **details},
        )

    async def make(self, *environments: Environment) -> None:
        """Provision environments."""
        await self.postgres.provision([Task(environment=environment) for environment in environments])

    async def tenants(self, *tenant_ids: str) -> list[Connection]:
        """Provision tenants, and open a session of each, in which it has written one note."""
        await self.driver.provision(partitions(*tenant_ids))
        return await self.sessions(*tenant_ids)

    async def sessions(self, *tenant_ids: str) -> list[Connection]:
        """Open a session of each tenant, in which it has written one note."""
        sessions = [await self.connect(await self.driver.issue_login(tenant_id)) for tenant_id in tenant_ids]
        for session, tenant_id in zip(sessions, tenant_ids, strict=True):
            await session.execute("INSERT INTO app.note (body) VALUES ($1)", f"of {tenant_id}")
        return sessions

    async def connect(self, login: Login) -> Connection:
        """Open a session with a tenant's login."""
        session = await asyncpg.connect(login.url)
        self._sessions.append(session)
        return session

    async def residue(self) -> list[tuple[str, str]]:
        """Return what the audit sees of any tenant."""
        rows = await self.pool.fetch("SELECT tenant_id, place FROM tenancy.live_record ORDER BY tenant_id, place")
        return [tuple(row) for row in rows]

    async def logins(self) -> set[str]:
        """Return the roles of tenants that the server has, whatever our tables know of them."""
        rows = await self.pool.fetch(
            """
            SELECT member.rolname FROM pg_auth_members
            JOIN pg_roles AS role ON role.oid = roleid JOIN pg_roles AS member ON member.oid = member
            WHERE role.rolname = tenancy.tenant_role() AND member.rolname <> current_user
            """
        )
        return {row["rolname"] for row in rows}

    async def close(self) -> None:
        """End every session."""
        for session in self._sessions:
            session.terminate()
        await self.pool.close()


async def bodies(session: Connection) -> list[str]:
    """Return the notes that a session sees."""
    return [row["body"] for row in await session.fetch("SELECT body FROM app.note ORDER BY body")]


def partitions(*tenant_ids: str) -> list[Partition]:
    """Describe partitions in which there is nothing special."""
    return [Partition(tenant_id) for tenant_id in tenant_ids]


def ask(tenant_id: str, **details: Any) -> ProvisionEnvironment:
    """Ask for a pool environment in the default region unless another is given."""
    return ProvisionEnvironment.model_validate({"tenant_id": tenant_id, "isolation": "pool"} | details)


async def residue(pool: Pool) -> list[tuple[str, str]]:
    return [tuple(row) for row in await pool.fetch("SELECT tenant_id, place FROM live_record ORDER BY 1, 2")]
