"""The rows of all databases that tell of one tenant, so that a test can say that none of them has changed."""

import asyncio
import re
from collections import Counter
from collections.abc import Collection, Mapping

import asyncpg

from shared.postgres import Connection
from shared.testing import eventually
from tests.snapshot import BOOKKEEPING

Rows = Counter[str]
"""How often there is which row, written as text with its table before it."""


async def quiet_rows(databases: Mapping[str, str], marks: Collection[str]) -> Rows:
    """Return all rows with one of these marks, as soon as nothing is under way about them."""
    seen: list[Rows] = [Counter({"nothing was looked at": 1})]

    async def is_quiet() -> bool:
        await asyncio.sleep(0.2)
        seen.append(await rows(databases, marks))
        return seen[-1] == seen[-2]

    await eventually(is_quiet, within=30, describe=lambda: f"two equal looks; {changes(seen[-2], seen[-1])}")
    return seen[-1]


async def rows(databases: Mapping[str, str], marks: Collection[str]) -> Rows:
    """Return all rows with one of these marks."""
    pattern = "|".join(map(re.escape, sorted(marks)))
    found = await asyncio.gather(*(_rows(name, url, pattern) for name, url in databases.items()))
    return sum(found, Counter())


async def _rows(database: str, url: str, pattern: str) -> Rows:
    connection: Connection = await asyncpg.connect(url, timeout=10)
    try:
        tables = await connection.fetch(
            """
            SELECT format('%I.%I', nspname, relname) AS name
            FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE relkind = 'r' AND nspname IN ('public', 'tenancy', 'app')
            """
        )
        found: Rows = Counter()
        for table in (each["name"] for each in tables):
            query = f"SELECT (to_jsonb(each) - $2::text[])::text AS row FROM {table} AS each WHERE each::text ~* $1"
            found_here = await connection.fetch(query, pattern, BOOKKEEPING)
            found.update(f"{database} {table} {row['row']}" for row in found_here)
        return found
    finally:
        await connection.close()


def changes(before: Rows, after: Rows) -> list[str]:
    """Return what is there no more and what is there besides, a line for each row."""
    return [*(f"- {row}" for row in before - after), *(f"+ {row}" for row in after - before)]
