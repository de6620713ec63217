"""How the database finds what a statement asks for."""

import asyncio
from collections.abc import Awaitable

from asyncpg.connection import LoggedQuery

from shared.postgres import Connection


async def general_plan(connection: Connection, asking: Awaitable[object]) -> str:
    """Return the plan that fits all values alike, which the server may choose for a statement that is often run.

    Args:
        connection: with which ``asking`` asks; sequential scans are avoided on it from now on, for there are few rows.
        asking: sends one statement with parameters.
    """
    seen: list[LoggedQuery] = []
    with connection.query_logger(seen.append):
        await asking
        await asyncio.sleep(0)  # the logger is called in the loop's next turn
    (asked,) = seen
    kinds = [parameter.name for parameter in (await connection.prepare(asked.query)).get_parameters()]
    values = ["NULL" if value is None else f"'{value}'" for value in asked.args]
    await connection.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
    await connection.execute(f"PREPARE asked ({', '.join(kinds)}) AS {asked.query}")
    rows = await connection.fetch(f"EXPLAIN EXECUTE asked ({', '.join(values)})")
    await connection.execute("DEALLOCATE asked")
    return "\n".join(row[0] for row in rows)
