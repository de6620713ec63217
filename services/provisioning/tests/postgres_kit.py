"""The Postgres driver for the contract of all drivers: how a tenant uses its place, and what can happen to a step."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import orjson

from services.provisioning.drivers import (
    Capacity,
    Environment,
    Inspection,
    Login,
    MovingError,
    NoEnvironmentError,
    Outcome,
    Task,
    ThrottledError,
)
from services.provisioning.drivers.postgres import PostgresDriver
from services.provisioning.drivers.postgres.names import Names
from services.provisioning.tests.driver_contract import Fault
from services.provisioning.tests.support import Application


class BrokenOnPurposeError(Exception):
    """Stands for whatever a step may run into."""


@dataclass
class BreakableDriver:
    """A driver between whose steps and whoever asks for them something happens."""

    driver: PostgresDriver
    fault: Fault | None = None
    is_hanging: bool = False

    @property
    def name(self) -> str:
        return self.driver.name

    @property
    def isolations(self) -> Sequence[str]:
        return self.driver.isolations

    def capacity(self, isolation: str) -> Capacity:
        return self.driver.capacity(isolation)

    async def provision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        return await self._step("provision", tasks)

    async def deprovision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        return await self._step("deprovision", tasks)

    async def move(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        return await self._step("move", tasks)

    async def throttle(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        return await self._step("throttle", tasks)

    async def deploy(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        return await self._step("deploy", tasks)

    async def inspect(self, environments: Sequence[Environment]) -> Sequence[Inspection]:
        return await self.driver.inspect(environments)

    async def _step(self, operation: str, tasks: Sequence[Task]) -> Sequence[Outcome]:
        fault, self.fault = self.fault, None
        if fault is Fault.FAILS:
            raise BrokenOnPurposeError
        if fault is Fault.HANGS:
            self.is_hanging = True
            await asyncio.Event().wait()
        outcomes: Sequence[Outcome] = await getattr(self.driver, operation)(tasks)
        if fault is Fault.LOST:
            raise BrokenOnPurposeError
        return outcomes


@dataclass
class PostgresKit:
    """See `driver_contract.DriverKit`."""

    application: Application
    faults: Collection[Fault] = tuple(Fault)
    deploys: bool = True
    driver: BreakableDriver = field(init=False)

    def __post_init__(self) -> None:
        self.driver = BreakableDriver(self.application.postgres)

    def break_next(self, fault: Fault) -> None:
        self.driver.fault = fault

    def is_hanging(self) -> bool:
        return self.driver.is_hanging

    def mend(self) -> bool:
        had_yet_to_happen = self.driver.fault is not None
        self.driver.fault, self.driver.is_hanging = None, False
        return had_yet_to_happen

    async def is_usable(self, environment: Environment) -> bool:
        try:
            await self._run(environment, "SELECT count(*) FROM note")
        except (NoEnvironmentError, ThrottledError, MovingError, asyncpg.InvalidAuthorizationSpecificationError):
            return False
        return True

    async def keep(self, environment: Environment, note: str) -> None:
        await self._run(environment, "INSERT INTO note (body) VALUES ($1)", note)

    async def kept(self, environment: Environment) -> set[str]:
        written: list[bytes] = []

        async def write(piece: bytes) -> None:
            written.append(piece)

        await self.application.postgres.export(environment, write)
        return {orjson.loads(line)["row"]["body"] for line in b"".join(written).splitlines()}

    async def remains(self, tenant_id: str) -> set[str]:
        names = Names(self.application.url.rpartition("/")[2])
        bridge, silo = names.bridge(tenant_id), names.silo(tenant_id)
        rows = await self.application.pool.fetch(
            """
            SELECT 'pool/tenant' AS left FROM tenancy.tenant WHERE tenant_id = $1
            UNION ALL SELECT 'pool/rows' FROM tenancy.rows_of(ARRAY[$1])
            UNION ALL SELECT 'bridge/record' FROM tenancy.bridge WHERE tenant_id = $1
            UNION ALL SELECT 'bridge/schema' FROM pg_namespace WHERE nspname = $2
            UNION ALL SELECT 'bridge/role' FROM pg_roles WHERE rolname = $2
            UNION ALL SELECT 'silo/record' FROM tenancy.silo WHERE tenant_id = $1
            UNION ALL SELECT 'silo/database' FROM pg_database WHERE datname = $3
            UNION ALL SELECT 'silo/role' FROM pg_roles WHERE rolname = $3
            UNION ALL SELECT CASE WHEN bridge IS NULL THEN 'pool/login' ELSE 'bridge/login' END
                FROM tenancy.login WHERE tenant_id = $1 AND login IN (SELECT rolname FROM pg_roles)
            """,
            tenant_id,
            bridge,
            silo,
        )
        return {row["left"] for row in rows}

    async def _run(self, environment: Environment, statement: str, *values: Any) -> None:
        """Run something as the tenant; the server itself is asked whether it may, not the record."""
        login: Login = await self.application.postgres.issue(replace(environment, is_throttled=False))
        session = await asyncpg.connect(login.url)
        try:
            await session.execute(statement, *values)
        finally:
            await session.close()
