"""`make bench` in the small: what it measures and what it is held against both run on the schemas of today."""

import pytest

from bench import bare_usage, environments, invoices, metering
from bench.metered import opened_bench, remove_tenants
from bench.usage_offered import offer
from deploy.local.stack import Stack


async def test_environments_are_made_beside_their_floor(capsys: pytest.CaptureFixture[str]) -> None:
    await environments.compare(rounds=1, counts={"pool": 4, "bridge": 2, "silo": 1})

    told = capsys.readouterr().out
    assert all(f"{isolation} (" in told for isolation in environments.COUNTS)


@pytest.mark.asyncio(loop_scope="session")
async def test_usage_is_taken_beside_its_floor_and_is_exact(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    async with opened_bench(stack, tenants=5) as bench:
        try:
            await metering.compare(bench, rounds=1, count=2)
            wrong = await offer(bench, seconds=1, rate=5000, kill=True)
        finally:
            await bare_usage.remove(bench.own)
            await remove_tenants(bench.own, bench.tenants)  # The stack is that of other tests, too.

    told = capsys.readouterr().out
    assert "usage events, per second" in told
    assert "killed with" in told
    assert wrong == []


async def test_a_killed_run_of_invoices_is_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    """On servers of its own: the system that other tests let run would make invoices too."""
    await invoices.compare(count=1200)

    assert "killed after" in capsys.readouterr().out
