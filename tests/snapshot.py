"""All that seven databases hold, so that a test can say that nothing has changed."""

import asyncio
import hashlib
from collections.abc import Mapping

import asyncpg

from shared.postgres import Connection
from shared.testing import eventually
from tests.system import System

BOOKKEEPING = [
    *("review_at", "look_at", "closes_at", "usage_wanted_at", "stuck_since"),
    *("token_hash", "delivery", "attempts", "next_attempt_at"),
]
"""Columns that services move on by themselves at their own time: when something is looked at next, how a mail fares."""


async def quiet_snapshot(system: System) -> Mapping[str, str]:
    """Return a digest of every table of every database, as soon as nothing is under way."""
    seen: list[Mapping[str, str]] = [{}]

    async def is_quiet() -> bool:
        seen.append(await snapshot(system))
        return seen[-1] == seen[-2]

    await eventually(is_quiet, describe="two equal looks at all databases")
    return seen[-1]


async def snapshot(system: System) -> Mapping[str, str]:
    """Return a digest of every table of every database."""
    digests = await asyncio.gather(*(_digests(url) for url in system.audited.values()))
    return {f"{name}.{table}": digest for name, of in zip(system.audited, digests, strict=True) for table, digest in of}


async def _digests(url: str) -> list[tuple[str, str]]:
    connection: Connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            """
            SELECT format('%I.%I', nspname, relname) AS name
            FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE relkind = 'r' AND nspname IN ('public', 'tenancy', 'app')
            ORDER BY 1
            """
        )
        return [(table["name"], await _digest(connection, table["name"])) for table in tables]
    finally:
        await connection.close()


async def _digest(connection: Connection, table: str) -> str:
    query = f"SELECT (to_jsonb(each) - $1::text[])::text AS row FROM {table} AS each ORDER BY 1"
    rows = await connection.fetch(query, BOOKKEEPING)
    return hashlib.sha256("\n".join(row["row"] for row in rows).encode()).hexdigest()
