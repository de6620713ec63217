"""Telling those who wait that a workflow has moved on: one query for all of them, on whichever replica they wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

import structlog

from services.onboarding import queries
from shared.postgres import Connection, Pool, is_unavailable

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.25
"""How late somebody hears of what another replica did; what this process did is heard of at once."""

Key = TypeVar("Key", UUID, str)


@dataclass
class _Waiters(Generic[Key]):
    """Who waits for what, and how far each of them has read."""

    progress: Callable[[Connection, list[Key]], Awaitable[dict[Key, int]]]
    waiting: dict[Key, list[tuple[int, asyncio.Event]]] = field(default_factory=dict)

    async def look(self, pool: Pool) -> None:
        if not self.waiting:
            return
        async with pool.acquire(timeout=5.0) as connection:
            reached = await self.progress(connection, list(self.waiting))
        for key, number in reached.items():
            for seen, event in self.waiting.get(key, ()):
                if number > seen:
                    event.set()

    @asynccontextmanager
    async def enter(self, key: Key, seen: int) -> AsyncIterator[asyncio.Event]:
        entry = (seen, asyncio.Event())
        self.waiting.setdefault(key, []).append(entry)
        try:
            yield entry[1]
        finally:
            self.waiting[key].remove(entry)
            if not self.waiting[key]:
                del self.waiting[key]


class Watch:
    """Wakes those who wait for a workflow, or for anything of a tenant."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._workflows: _Waiters[UUID] = _Waiters(queries.progress)
        self._tenants: _Waiters[str] = _Waiters(queries.progress_of_tenants)
        self._committed = asyncio.Event()

    def wake(self) -> None:
        """Look now: this process has just committed something."""
        self._committed.set()

    async def workflow(self, workflow_id: UUID, *, seen: int, within: float) -> None:
        """Return when the workflow's history goes beyond ``seen``, or after ``within`` seconds."""
        async with self._workflows.enter(workflow_id, seen) as moved:
            await self._wait(moved, within)

    async def tenant(self, tenant_id: str, *, seen: int, within: float) -> None:
        """Return when something has happened to the tenant beyond position ``seen``, or after ``within`` seconds."""
        async with self._tenants.enter(tenant_id, seen) as moved:
            await self._wait(moved, within)

    async def run(self) -> None:
        """Look for those who wait, for ever; an outage of the database is waited out."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._committed.wait()
            self._committed.clear()
            try:
                await self._workflows.look(self._pool)
                await self._tenants.look(self._pool)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                log.warning("waiters see nothing", action="watch_unavailable", error=repr(error))
                await asyncio.sleep(POLL_SECONDS)

    async def _wait(self, moved: asyncio.Event, within: float) -> None:
        self.wake()  # what happened before the entry was made is seen by the look that this asks for
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await moved.wait()
