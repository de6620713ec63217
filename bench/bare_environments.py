"""The floor of the benchmark of environments: the statements that making them takes, and nothing else.

No broker, no contracts, no decisions: the same SQL in the same batches, on the same pools.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from services.provisioning.drivers.postgres.bridge import PostgresBridges
from services.provisioning.drivers.postgres.place import Partition
from services.provisioning.drivers.postgres.pool import PostgresPool
from services.provisioning.queries import environments, jobs
from shared.clock import SystemClock
from shared.contracts.provisioning import EnvironmentProvisioned
from shared.ids import TimeOrderedIds
from shared.messaging import barrier, inbox, outbox
from shared.messaging.event import Event, Outgoing
from shared.postgres import Pool, transaction

TOGETHER = 200
"""Tenants of one transaction."""

_CLAIM = timedelta(seconds=15)
_IDS, _CLOCK = TimeOrderedIds(), SystemClock()


async def pool_seconds(own: Pool, application: Pool, url: str, tenants: Sequence[str], *, isolation: str) -> float:
    """Make places in the pool, or bridges, with all that is recorded of them; return how long that took."""
    kind = PostgresBridges if isolation == "bridge" else PostgresPool
    partitions = kind(application, url=url, clock=_CLOCK)
    started = time.perf_counter()
    for start in range(0, len(tenants), TOGETHER):
        some = tenants[start : start + TOGETHER]
        await _take(own, some, isolation)
        claim = await _claim(own, isolation)
        await partitions.provision([Partition(tenant_id) for tenant_id in some])
        await _settle(own, claim)
    return time.perf_counter() - started


async def _take(own: Pool, tenants: Sequence[str], isolation: str) -> None:
    now, workflows = _CLOCK.now(), {tenant_id: _IDS.new() for tenant_id in tenants}
    asks = [_ask(tenant_id, workflow_id) for tenant_id, workflow_id in workflows.items()]
    wanted = [
        {"environment_id": _IDS.new(), "tenant_id": tenant_id, "driver": "postgres", "isolation": isolation,
         "region": "local", "connections": None, "parameters": {}, "products": {"notes": "1.0"}}
        for tenant_id in tenants
    ]  # fmt: skip
    begun: list[dict[str, Any]] = [
        {"job_id": _IDS.new(), "tenant_id": tenant_id, "workflow_id": workflows[tenant_id], "step": "bench",
         "ask_id": _IDS.new(), "asked": None, "tenancy": None, "operation": "provision",
         "lane": f"postgres/{isolation}", "wanted": {}, "found": None, "ahead": [], "behind": [], "state": "running"}
        for tenant_id in tenants
    ]  # fmt: skip
    async with transaction(own) as connection:
        await inbox.admit(connection, [ask.id for ask in asks])
        await barrier.enter(connection, asks)
        await environments.create(connection, wanted, now=now)
        await jobs.create(connection, begun, now=now)


def _ask(tenant_id: str, workflow_id: UUID) -> Event:
    fact = EnvironmentProvisioned(tenant_id=tenant_id, environment_id="0", isolation="pool", region="local")
    return Event(_IDS.new(), "onboarding", _CLOCK.now(), fact, workflow_id=workflow_id, step="bench")


async def _claim(own: Pool, isolation: str) -> UUID:
    claim, now = _IDS.new(), _CLOCK.now()
    async with own.acquire() as connection:
        room = {f"postgres/{isolation}": TOGETHER}
        await jobs.claim(connection, room, now=now, until=now + _CLAIM, claim=claim)
    return claim


async def _settle(own: Pool, claim: UUID) -> None:
    async with transaction(own) as connection:
        held = await connection.fetch("SELECT job_id, workflow_id, step, tenant_id FROM job WHERE claim = $1", claim)
        keys = [(row["workflow_id"], row["step"]) for row in held]
        await barrier.lock(connection, keys)
        rows = await jobs.lock_claimed(connection, [row["job_id"] for row in held], [claim] * len(held))
        answers = {
            (row["workflow_id"], row["step"]): EnvironmentProvisioned(
                tenant_id=row["tenant_id"], environment_id="0", isolation="pool", region="local"
            )
            for row in rows
        }
        await barrier.remember(connection, answers)
        await jobs.delete(connection, [row["job_id"] for row in rows])
        await environments.store(connection, [dict(row["environment"]) | {"status": "ready"} for row in rows])
        outgoing = [
            Outgoing(_IDS.new(), "tenure.provisioning", answer.routing_key(), orjson.dumps(answer.model_dump()))
            for answer in answers.values()
        ]
        await outbox.insert(connection, outgoing, now=_CLOCK.now())
    async with transaction(own) as connection:
        await outbox.delete(connection, [each.id for each in outgoing])


async def silo_seconds(application: Pool, names: Sequence[str], *, at_once: int) -> float:
    """Create databases like those of silos, some at once; return how long that took."""
    template = await application.fetchval("SELECT database FROM tenancy.template")
    free = asyncio.Semaphore(at_once)

    async def create(name: str) -> None:
        async with free:
            await application.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"', timeout=240)

    started = time.perf_counter()
    await asyncio.gather(*map(create, names))
    seconds = time.perf_counter() - started
    for name in names:
        await application.execute(f'DROP DATABASE "{name}"', timeout=240)
    return seconds
