"""Runs the bare floor as six processes on the servers of a stack."""

import asyncio
import os
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from bench.floor import ORCHESTRATOR, ROLES, SCHEMA, declare
from deploy.databases import DatabasePasswords, create_database
from deploy.local.stack import Stack

_LOGIN = "floor"
_PARTICIPANTS_START_SECONDS = 1.5


@dataclass(frozen=True)
class Floor:
    """The floor's databases and queues, ready for runs.

    Attributes:
        databases: by role.
    """

    databases: Mapping[str, str]
    amqp_url: str

    @classmethod
    async def prepare(cls, stack: Stack) -> "Floor":
        """Make databases and queues on the embedded servers of a stack."""
        assert stack.postgres is not None
        assert stack.broker is not None
        password = secrets.token_hex(16)
        await stack.broker.control("add_user", _LOGIN, password)
        await stack.broker.control("set_permissions", _LOGIN, ".*", ".*", ".*")
        amqp_url = stack.broker.url(_LOGIN, password)
        await declare(amqp_url)
        databases = {}
        for role in ROLES:
            urls = await create_database(
                stack.postgres.admin_url, f"floor_{role}", DatabasePasswords(owner=password, app=password)
            )
            connection = await asyncpg.connect(urls.owner)
            await connection.execute(SCHEMA)
            await connection.close()
            databases[role] = urls.owner
        return cls(databases, amqp_url)

    async def seconds(self, count: int, *, group: int) -> float:
        """Return how long so many workflows take, started in groups."""
        return (await self._run(count, group))[0]

    async def each_seconds(self, count: int) -> list[float]:
        """Return how long each of some workflows takes, one after the other."""
        return await self._run(count, 1)

    async def _run(self, count: int, group: int) -> list[float]:
        async with self._participants():
            orchestrator = await self._start(ORCHESTRATOR, FLOOR_COUNT=str(count), FLOOR_GROUP=str(group))
            printed, _ = await orchestrator.communicate()
        return [float(each) for each in printed.split()]

    @asynccontextmanager
    async def _participants(self) -> AsyncIterator[None]:
        started = [await self._start(role) for role in ROLES if role != ORCHESTRATOR]
        try:
            await asyncio.sleep(_PARTICIPANTS_START_SECONDS)
            yield
        finally:
            for process in started:
                process.kill()
                await process.wait()

    async def _start(self, role: str, **told: str) -> Process:
        told |= {"FLOOR_DATABASE_URL": self.databases[role], "FLOOR_AMQP_URL": self.amqp_url}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.floor", role, env=dict(os.environ) | told, stdout=PIPE
        )
