"""Onboardings through the real system: six processes, each with its own logins, asked over HTTP."""

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from bench.load import Client, onboard_many, request
from bench.offered import Offered, Outcome
from deploy.local.children import Child, running_children
from deploy.local.stack import Stack

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_UNFINISHED = "SELECT EXISTS (SELECT FROM workflow WHERE finished_at IS NULL)"
_ACCEPTED_TO_FINISHED = """
    SELECT extract(epoch FROM max(finished_at) - min(created_at))::float8 AS seconds,
           count(*) FILTER (WHERE status = 'completed') AS completed
    FROM workflow WHERE id = ANY($1::uuid[])
"""


class System:
    """Six running services.

    Args:
        stack: the servers they work on.
        children: by service.

    Attributes:
        children: as given.
    """

    def __init__(self, stack: Stack, children: Mapping[str, Child]) -> None:
        self.children = children
        self._database = stack.databases["onboarding"].app
        self._key = stack.admin_key
        self._port = children["onboarding"].port
        self._runs = itertools.count()

    async def onboard(self, count: int, *, connections: int) -> float:
        """Onboard some customers over some connections at once.

        Returns:
            Onboardings per second, from the first accepted to the last completed.

        Raises:
            RuntimeError: one was not accepted or did not complete.
        """
        run = f"run-{next(self._runs)}"
        ids = await onboard_many(self._port, self._key, count=count, connections=connections, run=run)
        connection = await asyncpg.connect(self._database)
        try:
            while await connection.fetchval(_UNFINISHED):  # noqa: ASYNC110 - it changes in other processes
                await asyncio.sleep(_POLL_SECONDS)
            (row,) = await connection.fetch(_ACCEPTED_TO_FINISHED, ids)
        finally:
            await connection.close()
        if row["completed"] != count:
            raise RuntimeError(f"only {row['completed']} of {count} onboardings completed")
        return float(count / row["seconds"])

    async def offer(self, *, rate: float, seconds: float) -> Outcome:
        """Offer so many onboardings a second for some seconds, and wait until whatever was accepted has ended."""
        outcome = await Offered(self._port, self._key, f"offered-{next(self._runs)}").offer(rate=rate, seconds=seconds)
        await self.rest()
        return outcome

    async def rest(self) -> None:
        """Wait until no workflow is under way."""
        connection = await asyncpg.connect(self._database)
        try:
            while await connection.fetchval(_UNFINISHED):  # noqa: ASYNC110 - it changes in other processes
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            await connection.close()

    async def onboard_one_by_one(self, count: int) -> list[float]:
        """Onboard customers one after the other; return the seconds from each request to the answer that it is done."""
        run = f"lone-{next(self._runs)}"
        client = await Client.connect(self._port, self._key)
        seconds = []
        for number in range(count):
            started = time.perf_counter()
            workflow = json.loads((await client.request("POST", "/v1/onboardings", request(run, number))).body)
            answer = json.loads((await client.request("GET", f"/v1/workflows/{workflow['id']}?wait=30")).body)
            seconds.append(time.perf_counter() - started)
            if answer["status"] != "completed":
                raise RuntimeError(f"an onboarding did not complete: {answer}")
        client.close()
        return seconds


@asynccontextmanager
async def running_system(stack: Stack) -> AsyncIterator[System]:
    """Run all six services until the end of the block, ready from its start."""
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
        async with running_children(stack.environment, Path(folder), print) as children:
            async with asyncio.timeout(_READY_SECONDS):
                for child in children:
                    await until_ready(child.port)
            yield System(stack, {child.name: child for child in children})


async def until_ready(port: int) -> None:
    """Return when a service on this machine can do its work."""
    while not await _is_ready(port):  # noqa: ASYNC110 - it changes in another process
        await asyncio.sleep(_POLL_SECONDS)


async def _is_ready(port: int) -> bool:
    try:
        client = await Client.connect(port, "")
        answer = await client.request("GET", "/readyz")
    except OSError:
        return False
    client.close()
    return answer.status == 200  # noqa: PLR2004 - OK
