"""What the databases and queues say: read from outside, never through the services that are being tested."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import aio_pika
import asyncpg

from services.onboarding.lifecycles.onboard import ONBOARD
from shared.contracts import SERVICES
from shared.messaging.topology import RETRY_DELAYS, parking_queue_of, retry_queue_of, work_queue_of

STEPS = {
    service: tuple(step.name for step in ONBOARD.plan if step.service == service)
    for service in SERVICES
    if service != "onboarding"
}
"""The steps that each service is asked to do."""

_CONNECT_SECONDS = 10.0
_SHOWN = 8
_UNFINISHED = """
    SELECT workflow.id, workflow.customer_name, workflow.status, workflow.updated_at,
           jsonb_object_agg(step.name, step.status || ' ' || step.attempts || '/' || step.undo_attempts) AS steps
    FROM workflow JOIN step ON step.workflow_id = workflow.id
    WHERE starts_with(workflow.name_key, $1) AND workflow.finished_at IS NULL
    GROUP BY workflow.id ORDER BY workflow.id
"""
_OPEN_STEPS = """
    SELECT step.workflow_id, step.name, step.status FROM step JOIN workflow ON workflow.id = step.workflow_id
    WHERE starts_with(workflow.name_key, $1) AND step.status IN ('running', 'undoing')
"""
_IN_FLIGHT_AT = """
    SELECT count(*) FROM workflow
    WHERE starts_with(name_key, $1) AND created_at < $2 AND (finished_at IS NULL OR finished_at > $2)
"""


class Ledger:
    """Reads all databases, keeping a connection to each for as long as that lasts.

    Args:
        databases: the URL of each service's database.
        brokers: each service's AMQP login.
    """

    def __init__(self, *, databases: Mapping[str, str], brokers: Mapping[str, str]) -> None:
        self._databases = databases
        self._brokers = brokers
        self._connections: dict[str, asyncpg.Connection[asyncpg.Record]] = {}
        self._turns = {service: asyncio.Lock() for service in databases}

    async def close(self) -> None:
        """Let go of all connections."""
        for connection in self._connections.values():
            connection.terminate()

    async def outcomes(self, prefix: str) -> dict[str, Mapping[str, Any]]:
        """Return ``status``, ``failure`` and final ``endings`` in the history of each workflow of a load, by id."""
        rows = await self._fetch(
            "onboarding",
            """
            SELECT id::text, status, failure::text AS failure, (
                SELECT count(*) FROM history WHERE workflow_id = workflow.id
                AND kind IN ('completed', 'compensated', 'abandoned')
            ) AS endings
            FROM workflow WHERE starts_with(name_key, $1)
            """,
            prefix,
        )
        return {row["id"]: dict(row) for row in rows}

    async def timeouts(self, prefix: str) -> list[str]:
        """Return the steps of a load whose answer did not come in time, once for each time."""
        rows = await self._fetch(
            "onboarding",
            """
            SELECT history.workflow_id || ' ' || history.step AS step
            FROM history JOIN workflow ON workflow.id = history.workflow_id
            WHERE starts_with(workflow.name_key, $1) AND history.kind IN ('timed_out', 'undo_timed_out')
            """,
            prefix,
        )
        return [row["step"] for row in rows]

    async def counts(self, prefix: str) -> tuple[int, int]:
        """Return how many workflows of a load have ended, and how many have not."""
        rows = await self._fetch(
            "onboarding",
            "SELECT count(finished_at) AS ended, count(*) AS all FROM workflow WHERE starts_with(name_key, $1)",
            prefix,
        )
        return rows[0]["ended"], rows[0]["all"] - rows[0]["ended"]

    async def in_flight_at(self, prefix: str, moment: datetime) -> int:
        """Return how many workflows of a load had begun before a moment and ended after it."""
        rows = await self._fetch("onboarding", _IN_FLIGHT_AT, prefix, moment)
        return int(rows[0]["count"])

    async def open_work(self, prefix: str) -> Counter[str]:
        """Count what each service still has to handle for a load.

        For onboarding these are answers: steps that it waits for although their effect has been committed elsewhere.
        For the others these are asks whose effect has not been committed. Exact for a service that stands still.
        """
        found: Counter[str] = Counter()
        steps = await self._fetch("onboarding", _OPEN_STEPS, prefix)
        for service, names in STEPS.items():
            asked = {(row["workflow_id"], row["name"], row["status"]) for row in steps if row["name"] in names}
            effective = asked & await self._effects(service, [workflow_id for workflow_id, _, _ in asked])
            found[service] = len(asked - effective)
            found["onboarding"] += len(effective)
        return found

    async def _effects(self, service: str, workflow_ids: list[Any]) -> set[tuple[Any, str, str]]:
        rows = await self._fetch(
            service,
            """
            SELECT workflow_id, step, CASE state WHEN 'undone' THEN 'undoing' ELSE 'running' END AS status
            FROM operation WHERE workflow_id = ANY($1::uuid[])
            """,
            workflow_ids,
        )
        return {(row["workflow_id"], row["step"], row["status"]) for row in rows}

    async def stuck(self, prefix: str) -> str:
        """Describe the workflows of a load that have not ended, with where each of their steps stands."""
        rows = await self._fetch("onboarding", _UNFINISHED, prefix)
        lines = [f"{row['id']} {row['customer_name']} {row['status']}: {row['steps']}" for row in rows[:_SHOWN]]
        return f"{len(rows)} workflows have not ended:\n" + "\n".join(lines)

    async def outboxes(self) -> dict[str, int]:
        """Return how many messages each service has committed and not got rid of, leaving out those with none."""
        rows = {service: await self._fetch(service, "SELECT count(*) FROM outbox") for service in SERVICES}
        return {service: found[0]["count"] for service, found in rows.items() if found[0]["count"]}

    async def make_due(self, prefix: str) -> int:
        """Let the timers of all open steps of a load go off now, and return how many those are."""
        rows = await self._fetch(
            "onboarding",
            """
            UPDATE step SET due_at = now() FROM workflow
            WHERE workflow.id = step.workflow_id AND starts_with(workflow.name_key, $1) AND due_at IS NOT NULL
            RETURNING 1
            """,
            prefix,
        )
        return len(rows)

    async def queues(self) -> dict[str, int]:
        """Return how many messages wait in each queue, leaving out empty ones."""
        found = await asyncio.gather(*(self._queues_of(service) for service in SERVICES))
        return {queue: count for each in found for queue, count in each.items() if count}

    async def _queues_of(self, service: str) -> dict[str, int]:
        names = [work_queue_of(service), parking_queue_of(service)]
        names += [retry_queue_of(service, delay) for delay in RETRY_DELAYS]
        url = self._brokers[service]
        counts: dict[str, int] = {}
        async with await aio_pika.connect(url, timeout=_CONNECT_SECONDS) as connection, connection.channel() as channel:
            for name in names:
                queue = await channel.declare_queue(name, passive=True, timeout=_CONNECT_SECONDS)
                counts[name] = queue.declaration_result.message_count or 0
        return counts

    async def _fetch(self, service: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._turns[service]:
            connection = self._connections.get(service)
            if connection is None or connection.is_closed():
                connection = await asyncpg.connect(self._databases[service], timeout=_CONNECT_SECONDS)
                self._connections[service] = connection
            return await connection.fetch(query, *arguments, timeout=_CONNECT_SECONDS)
