"""Where a system administrator changes the catalog, and what others are told of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson

from services.tenant.tests.support import are_waiting
from shared.contracts.tenant import CatalogPublished
from shared.messaging.event import decode
from shared.postgres import Pool


@dataclass
class Office:
    """A system administrator at work."""

    client: httpx2.AsyncClient
    pool: Pool

    async def get(self, path: str) -> httpx2.Response:
        return await self.client.get(path)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> httpx2.Response:
        return await self.client.post(path, json=body)

    async def patch(self, path: str, body: Mapping[str, Any], if_match: str | None = "*") -> httpx2.Response:
        headers = {} if if_match is None else {"If-Match": if_match}
        return await self.client.patch(path, json=body, headers=headers)

    async def defaults(self) -> list[str]:
        """Return the tiers that are the default."""
        return [tier["name"] for tier in (await self.get("/v1/tiers")).json()["items"] if tier["isDefault"]]

    async def is_waiting(self) -> bool:
        """Tell whether somebody waits for a lock."""
        return await are_waiting(self.pool, 1)


async def announced(pool: Pool) -> list[CatalogPublished]:
    """Return the catalogs that everybody was told, the first first."""
    rows = await pool.fetch("SELECT event FROM outbox ORDER BY id")
    told = [decode(orjson.loads(row["event"])).message for row in rows]
    return [each for each in told if isinstance(each, CatalogPublished)]


async def revision(pool: Pool) -> int:
    number: int = await pool.fetchval("SELECT revision FROM catalog")
    return number
