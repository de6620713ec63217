"""Many invoices in one run: how fast they are made, in how much memory, and that a killed run is gone on with.

A process of its own makes them, as the service does it; it is killed in the middle and started again.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from resource import RUSAGE_SELF, getrusage

import asyncpg

from bench.servers import servers
from deploy.local.stack import Stack
from services.billing.handlers import SUBSCRIPTIONS
from services.billing.invoicing import Invoicing
from services.billing.settings import BillingSettings
from shared.clock import ManualClock
from shared.ids import TimeOrderedIds
from shared.logs import configure_logs
from shared.service import MEMORY_MEGABYTES, Ports, open_kernel
from shared.testing.eventually import eventually

NOW = datetime(2026, 4, 1, tzinfo=UTC)
"""When all of them are due."""

_MADE_BEFORE_THE_KILL = 0.3
_LONGEST_SECONDS = 600.0

_ACCOUNTS = """
    INSERT INTO account (account_id, tenant_id, customer_name, currency, opened_at, closes_at, look_at)
    SELECT md5('account' || number)::uuid, 'bench-' || number, 'Customer ' || number, 'USD', $2, $3, $3
    FROM generate_series(1, $1::integer) AS number
"""
_SUBSCRIPTIONS = """
    INSERT INTO subscription (subscription_id, account_id, product, plan, currency, amount, state, started_at)
    SELECT md5(account_id || product)::uuid, account_id, product, 'standard', 'USD', 49, 'active', $1
    FROM account CROSS JOIN unnest('{"", chess}'::text[]) AS product
    WHERE tenant_id LIKE 'bench-%'
"""


async def add_accounts(own: asyncpg.Connection, count: int) -> None:
    """Open accounts with a licence each, whose invoice of a month is due."""
    await own.execute(_ACCOUNTS, count, NOW - timedelta(days=31), NOW)
    await own.execute(_SUBSCRIPTIONS, NOW - timedelta(days=31))
    await own.execute("ANALYZE account; ANALYZE subscription")


async def mistakes(own: asyncpg.Connection, count: int) -> Sequence[str]:
    """Return what is wrong with the invoices when all must have been made."""
    row = await own.fetchrow(
        """
        WITH made AS (
            SELECT invoice.*, (SELECT sum(amount) FROM invoice_line AS line WHERE line.invoice_id = invoice.invoice_id)
                AS listed
            FROM invoice WHERE tenant_id LIKE 'bench-%'
        )
        SELECT count(*) AS made, count(DISTINCT tenant_id) AS tenants, max(number) - min(number) + 1 AS numbers,
               count(*) FILTER (WHERE total <> 98 OR listed IS DISTINCT FROM total OR state <> 'final') AS wrong,
               (SELECT count(*) FROM account WHERE tenant_id LIKE 'bench-%' AND look_at <= $1) AS left_over
        FROM made
        """,
        NOW,
    )
    assert row is not None
    expected = {"made": count, "tenants": count, "numbers": count, "wrong": 0, "left_over": 0}
    return [f"{name}: {row[name]}, not {value}" for name, value in expected.items() if row[name] != value]


async def run(stack: Stack, *, count: int) -> Sequence[str]:
    """Make so many invoices, killed once in the middle; print how it went and return what is wrong afterwards."""
    own = await asyncpg.connect(stack.databases["billing"].owner)
    try:
        await add_accounts(own, count)
        await _killed(stack, own, count)
        before = await own.fetchval("SELECT count(*) FROM invoice WHERE tenant_id LIKE 'bench-%'")
        started = time.perf_counter()
        process = await _started(stack)
        told, _ = await process.communicate()
        seconds = time.perf_counter() - started
        if process.returncode != 0:
            raise RuntimeError(f"the run ended with {process.returncode}")
        made = count - before
        print(f"  killed after {before} invoices, then {made} in {seconds:.1f} s: {made / seconds:.0f} a second")
        print(f"  peak memory {float(told):.0f} MB of {MEMORY_MEGABYTES}")
        return await mistakes(own, count)
    finally:
        await own.close()


async def _killed(stack: Stack, own: asyncpg.Connection, count: int) -> None:
    """Start a run and kill it when a part of the invoices is there."""

    async def has_begun() -> bool:
        made: int = await own.fetchval("SELECT count(*) FROM invoice WHERE tenant_id LIKE 'bench-%'")
        return made >= count * _MADE_BEFORE_THE_KILL

    process = await _started(stack)
    try:
        await eventually(has_begun, within=_LONGEST_SECONDS)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def _started(stack: Stack) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.invoices",
        "--make",
        env={**os.environ, **stack.environment["billing"]},
        stdout=asyncio.subprocess.PIPE,
    )


async def make() -> None:
    """Make all invoices that are due, and print how much memory that took."""
    ports = Ports(clock=ManualClock(NOW), ids=TimeOrderedIds())
    async with open_kernel("billing", BillingSettings(), ports, SUBSCRIPTIONS) as kernel:
        invoicing = Invoicing(kernel, grace=timedelta(days=1))
        while await invoicing.round():
            await kernel.relay.flush()
    print(getrusage(RUSAGE_SELF).ru_maxrss / 1024)


async def compare(*, count: int) -> None:
    """Measure on servers of one's own.

    Raises:
        RuntimeError: an invoice is missing, there twice, or wrong.
    """
    async with servers() as stack:
        if wrong := await run(stack, count=count):
            raise RuntimeError("; ".join(wrong))


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--make", action="store_true", help="make what is due, in a database that the settings name")
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    configure_logs(form="console", level="warning")
    asyncio.run(make() if options.make else compare(count=options.count))


if __name__ == "__main__":
    main()
