"""What is written in the databases, read with statements of our own as their owner."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg

from tests.chaos.campaign.tenants import Picture, products_of

Rows = list[asyncpg.Record]

_CONNECT_SECONDS = 10.0
_RECOVERY_SECONDS = 30.0
_LOOK_SECONDS = 0.2

_WORKFLOWS = """
    SELECT workflow.id::text, workflow.kind, workflow.tenant_id, workflow.status,
           workflow.failure ->> 'code' AS failure, workflow.created_at, workflow.finished_at, workflow.seq,
           array_agg(history.kind ORDER BY history.seq) AS kinds,
           max(history.seq) AS last, count(history.seq) AS entries
    FROM workflow LEFT JOIN history ON history.workflow_id = workflow.id
    GROUP BY workflow.id
"""
_TENANTS = """
    SELECT tenant_id, state, customer_name, tier, expiration::text, (
        SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'version', version)), '[]')::text
        FROM tenant_product WHERE tenant_product.tenant_id = tenant.tenant_id
    ) AS products
    FROM tenant
"""
_SUBSCRIPTIONS = "SELECT tenant_id, plan, state FROM subscription RIGHT JOIN account USING (account_id)"
_ENVIRONMENTS = """
    SELECT tenant_id, connections, throttled_at IS NOT NULL AS throttled, (
        SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'version', version)), '[]')::text
        FROM deployment WHERE deployment.tenant_id = environment.tenant_id
    ) AS products
    FROM environment
"""


class Records:
    """Reads the six databases.

    Args:
        urls: of each service's database, as its owner.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls

    async def keys(self) -> list[tuple[str, str]]:
        """Return every idempotency key with its workflow."""
        rows = await self._fetch("onboarding", "SELECT key, workflow_id::text FROM idempotency")
        return [(row["key"], row["workflow_id"]) for row in rows]

    async def workflows(self) -> dict[str, Mapping[str, Any]]:
        """Return every workflow with the kinds of its history, by id."""
        return {row["id"]: dict(row) for row in await self._fetch("onboarding", _WORKFLOWS)}

    async def names(self) -> dict[str, str]:
        """Return who holds each customer's name."""
        rows = await self._fetch("onboarding", "SELECT name_key, tenant_id FROM customer")
        return {row["name_key"]: row["tenant_id"] for row in rows}

    async def final_invoices(self) -> dict[str, int]:
        """Return how many final invoices each tenant has."""
        rows = await self._fetch(
            "billing", "SELECT tenant_id, count(*) FROM invoice WHERE state = 'final' GROUP BY tenant_id"
        )
        return {row["tenant_id"]: row["count"] for row in rows}

    async def onboarded_after(self, moment: datetime) -> datetime | None:
        """Return when the first onboarding was completed after a moment; it needs all six services."""
        rows = await self._fetch(
            "onboarding",
            """
            SELECT min(finished_at) AS first FROM workflow
            WHERE kind = 'onboard' AND coalesce(definition, kind) = 'onboard' AND status = 'completed'
            AND finished_at > $1
            """,
            moment,
        )
        first: datetime | None = rows[0]["first"]
        return first

    async def longest_met(self, *, since: datetime, struck_at: datetime, healed_at: datetime) -> float:
        """Return how long the longest workflow took that a fault has met, leaving out those that were cancelled.

        Args:
            since: when the fault before was over; who began earlier had met that one first.
        """
        rows = await self._fetch(
            "onboarding",
            """
            SELECT coalesce(extract(epoch FROM max(finished_at - created_at)), 0)::float8 AS seconds
            FROM workflow WHERE created_at BETWEEN $1 AND $3 AND finished_at > $2
            AND failure ->> 'code' IS DISTINCT FROM 'cancelled'
            """,
            since,
            struck_at,
            healed_at,
        )
        return float(rows[0]["seconds"])

    async def met(self, *, asked_at: datetime, ready_at: datetime) -> tuple[int, float]:
        """Return how many workflows were under way at some time of a restart, and how long the longest of them took.

        Those that were cancelled are left out.
        """
        rows = await self._fetch(
            "onboarding",
            """
            SELECT count(*) AS met,
                   coalesce(extract(epoch FROM max(finished_at - created_at)), 0)::float8 AS seconds
            FROM workflow WHERE created_at < $2 AND coalesce(finished_at, 'infinity') > $1
            AND failure ->> 'code' IS DISTINCT FROM 'cancelled'
            """,
            asked_at,
            ready_at,
        )
        return int(rows[0]["met"]), float(rows[0]["seconds"])

    async def pictures(self) -> dict[str, Picture]:
        """Return what five databases hold of each tenant, by id."""
        records = {row["tenant_id"]: _record(row) for row in await self._fetch("tenant", _TENANTS)}
        admins = await self._gathered(
            "identity", "SELECT tenant_id, email FROM membership JOIN users USING (user_id)", lambda row: row["email"]
        )
        blocked = {row["tenant_id"] for row in await self._fetch("identity", "SELECT tenant_id FROM tenant_block")}
        charged = await self._gathered("billing", _SUBSCRIPTIONS, lambda row: (row["plan"], row["state"]))
        quotas = await self._gathered(
            "metrics",
            "SELECT tenant_id, meter, limit_value FROM tracked_tenant LEFT JOIN quota USING (tenant_id)",
            lambda row: (row["meter"], row["limit_value"]),
        )
        rooms = await self._gathered(
            "provisioning",
            _ENVIRONMENTS,
            lambda row: (row["connections"], row["throttled"], products_of(json.loads(row["products"]))),
        )
        return {
            tenant_id: Picture(
                record=records.get(tenant_id),
                admins=tuple(sorted(admins.get(tenant_id, ()))),
                blocked=tenant_id in blocked,
                subscriptions=tuple(charged.get(tenant_id, ())),
                quotas=dict(quotas[tenant_id]) if tenant_id in quotas else None,
                environments=tuple(rooms.get(tenant_id, ())),
            )
            for tenant_id in {*records, *admins, *blocked, *charged, *quotas, *rooms}
        }

    async def _gathered(self, service: str, query: str, value: Any) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = defaultdict(list)
        for row in await self._fetch(service, query):
            found[row["tenant_id"]].append(value(row))
        return dict(found)

    async def _fetch(self, service: str, query: str, *values: object) -> Rows:
        connection = await self._connection(service)
        try:
            return await connection.fetch(query, *values, timeout=60)
        finally:
            await connection.close(timeout=_CONNECT_SECONDS)

    async def _connection(self, service: str) -> asyncpg.Connection:
        """Connect to a database that may still be recovering from what was done to it."""
        deadline = asyncio.get_running_loop().time() + _RECOVERY_SECONDS
        while True:
            try:
                return await asyncpg.connect(self._urls[service], timeout=_CONNECT_SECONDS)
            except asyncpg.CannotConnectNowError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_LOOK_SECONDS)


def _record(row: asyncpg.Record) -> tuple[Any, ...]:
    if row["state"] == "archived":
        return (row["state"], row["customer_name"])
    products = products_of(json.loads(row["products"]))
    return (row["state"], row["customer_name"], row["tier"], products, row["expiration"])
