"""Whoever waits hears of what happens, here or on another replica."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import UUID

import pytest

from services.onboarding.tests.support import Desk, blocked, go_on, stored
from services.onboarding.watch import Watch
from shared.postgres import Pool
from shared.testing import eventually

PROMPTLY = 5.0
"""Seconds within which a waiter is done, on a slow machine, long before the minute that it was ready to wait."""


@pytest.fixture
async def watch(desk: Desk) -> AsyncIterator[Watch]:
    running = asyncio.create_task(desk.watch.run())
    yield desk.watch
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.fixture
def never_looking_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.onboarding.watch.POLL_SECONDS", 3600.0)


async def seq(pool: Pool, workflow_id: UUID) -> int:
    return (await stored(pool, workflow_id)).workflow.seq


async def test_what_another_replica_did_is_heard_of(desk: Desk, watch: Watch, pool: Pool) -> None:
    workflow_id = await desk.start()
    waiter = asyncio.create_task(watch.workflow(workflow_id, seen=await seq(pool, workflow_id), within=60))
    await asyncio.sleep(0.05)
    assert not waiter.done()

    await go_on(pool, workflow_id, until=("open-account",))

    await asyncio.wait_for(waiter, PROMPTLY)


@pytest.mark.usefixtures("never_looking_by_itself")
async def test_what_this_process_did_is_heard_of_at_once(desk: Desk, watch: Watch, pool: Pool) -> None:
    workflow_id = await desk.start()
    waiter = asyncio.create_task(watch.workflow(workflow_id, seen=await seq(pool, workflow_id), within=60))
    await asyncio.sleep(0.05)

    await go_on(pool, workflow_id, until=("open-account",))
    assert not waiter.done()
    watch.wake()

    await asyncio.wait_for(waiter, PROMPTLY)


@pytest.mark.usefixtures("never_looking_by_itself")
async def test_what_happened_before_somebody_began_to_wait_is_not_missed(desk: Desk, watch: Watch) -> None:
    workflow_id = await desk.start()

    await asyncio.wait_for(watch.workflow(workflow_id, seen=0, within=60), PROMPTLY)


async def test_whoever_waits_for_a_tenant_hears_of_its_workflows_only(desk: Desk, watch: Watch, pool: Pool) -> None:
    ours, theirs = (await desk.submit("Acme")).workflow, (await desk.submit("Bolt")).workflow
    position = await pool.fetchval("SELECT max(position) FROM history")
    mine = asyncio.create_task(watch.tenant(ours["tenantId"], seen=position, within=60))
    other = asyncio.create_task(watch.tenant(theirs["tenantId"], seen=position, within=60))

    await go_on(pool, UUID(ours["id"]), until=("open-account",))
    await asyncio.wait_for(mine, PROMPTLY)

    assert not other.done()
    other.cancel()


async def test_waiting_ends_when_the_time_is_up(desk: Desk, watch: Watch, pool: Pool) -> None:
    workflow_id = await desk.start()

    await asyncio.wait_for(watch.workflow(workflow_id, seen=await seq(pool, workflow_id), within=0.05), PROMPTLY)
    await asyncio.wait_for(watch.tenant("nobody", seen=0, within=0.05), PROMPTLY)


async def test_those_who_have_gone_away_are_forgotten(desk: Desk, watch: Watch) -> None:
    workflow_id = await desk.start()
    waiters = [asyncio.create_task(watch.workflow(workflow_id, seen=99, within=60)) for _ in range(3)]
    await asyncio.sleep(0)
    assert len(watch._workflows.waiting[workflow_id]) == 3

    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)

    assert not watch._workflows.waiting


async def test_an_outage_is_waited_out(desk: Desk, watch: Watch, pool: Pool) -> None:
    workflow_id = await desk.start()
    waiter = asyncio.create_task(watch.workflow(workflow_id, seen=await seq(pool, workflow_id), within=60))
    await asyncio.sleep(0.05)

    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE workflow")
        await eventually(lambda: _is_looking(pool))
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    await go_on(pool, workflow_id, until=("open-account",))

    await asyncio.wait_for(waiter, PROMPTLY)
    await eventually(lambda: not watch._workflows.waiting)


async def _is_looking(pool: Pool) -> bool:
    return await blocked(pool) == 1
