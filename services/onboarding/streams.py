"""Server-sent events out of the history: whoever reconnects, to whichever replica, goes on where it stopped."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import asyncpg
import orjson

from services.onboarding import queries
from services.onboarding.presentation import HistoryEntry
from services.onboarding.watch import Watch
from services.onboarding.workflow import Status
from shared.postgres import Pool

HEARTBEAT_SECONDS = 15.0
"""A comment is sent when nothing has happened for so long, so that proxies keep the stream open."""

_PAGE = 100
_FINAL = {status.value for status in Status if status.is_final}
_HELLO = b"retry: 2000\n\n"
_HEARTBEAT = b": alive\n\n"


class Streams:
    """Follows workflows and tenants for as long as the client listens."""

    def __init__(self, pool: Pool, watch: Watch) -> None:
        self._pool = pool
        self._watch = watch

    async def workflow(self, workflow_id: UUID, *, after: int) -> AsyncIterator[bytes]:
        """Yield the workflow's history from ``after`` on; end with its final status."""
        yield _HELLO
        while True:
            rows, is_over = await self._workflow_page(workflow_id, after)
            for row in rows:
                yield _event(row, row["seq"])
                after = row["seq"]
            if is_over and len(rows) < _PAGE:
                return
            if not rows:
                await self._watch.workflow(workflow_id, seen=after, within=HEARTBEAT_SECONDS)
                yield _HEARTBEAT

    async def tenant(self, tenant_id: str, *, after: int) -> AsyncIterator[bytes]:
        """Yield what happens to the tenant's workflows from position ``after`` on; end when the last one has ended.

        Whoever resumes after that end waits for the tenant's next workflow.
        """
        yield _HELLO
        kind = ""
        while True:
            rows = await self._tenant_page(tenant_id, after)
            for row in rows:
                yield _event(row, row["position"])
                after, kind = row["position"], row["kind"]
            if kind in _FINAL and len(rows) < _PAGE:
                return
            if not rows:
                await self._watch.tenant(tenant_id, seen=after, within=HEARTBEAT_SECONDS)
                yield _HEARTBEAT

    async def _workflow_page(self, workflow_id: UUID, after: int) -> tuple[Sequence[asyncpg.Record], bool]:
        """Return what comes next, and whether nothing comes after it."""
        async with self._pool.acquire(timeout=5.0) as connection:
            row = await queries.workflow(connection, workflow_id)  # first: the end is then among what comes next
            rows = await queries.history(connection, workflow_id, after=after, limit=_PAGE)
        return rows, row is None or Status(row["status"]).is_final

    async def _tenant_page(self, tenant_id: str, after: int) -> Sequence[asyncpg.Record]:
        async with self._pool.acquire(timeout=5.0) as connection:
            return await queries.history_of_tenant(connection, tenant_id, after=after, limit=_PAGE)


def _event(row: asyncpg.Record, number: int) -> bytes:
    data = HistoryEntry.of(row).model_dump(mode="json", by_alias=True)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, row["kind"].encode(), orjson.dumps(data))
