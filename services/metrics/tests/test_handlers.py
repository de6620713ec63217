import asyncio
from collections.abc import Sequence

from asyncpg.connection import LoggedQuery

from services.metrics import handlers
from shared.clock import ManualClock
from shared.contracts import CATALOGUE, Ask, Fact
from shared.contracts.metrics import TenantTracked, TenantTrackingRefused, TenantUntracked, TrackTenant, UntrackTenant
from shared.postgres import Connection, Pool, transaction
from shared.testing import eventually


def ask(tenant_id: str, **quotas: int) -> TrackTenant:
    return TrackTenant(tenant_id=tenant_id, quotas=quotas)


async def track(pool: Pool, *asks: TrackTenant, clock: ManualClock | None = None) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        return await handlers.track_tenants(connection, asks, clock=clock or ManualClock())


async def untrack(pool: Pool, *tenant_ids: str) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        return await handlers.untrack_tenants(
            connection, [UntrackTenant(tenant_id=tenant_id) for tenant_id in tenant_ids]
        )


async def tracked(pool: Pool) -> list[str]:
    return [row["tenant_id"] for row in await pool.fetch("SELECT tenant_id FROM tracked_tenant ORDER BY tenant_id")]


async def quotas(pool: Pool) -> set[tuple[str, str, int, str]]:
    return {tuple(row) for row in await pool.fetch("SELECT tenant_id, meter, limit_value, enforcement FROM quota")}


async def are_waiting(pool: Pool, count: int) -> bool:
    waiting = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(waiting == count)


async def statements_for(connection: Connection, asks: Sequence[TrackTenant]) -> int:
    """Track and forget these tenants, and count what is sent to the database for it."""
    sent: list[LoggedQuery] = []
    with connection.query_logger(sent.append):
        did = await handlers.track_tenants(connection, asks, clock=ManualClock())
        undid = await handlers.untrack_tenants(connection, [UntrackTenant(tenant_id=one.tenant_id) for one in asks])
    assert did == [TenantTracked(tenant_id=one.tenant_id) for one in asks]
    assert undid == [TenantUntracked(tenant_id=one.tenant_id) for one in asks]
    return len(sent)


async def test_a_tenant_is_tracked_within_its_quotas_enforced_as_each_meter_says(pool: Pool) -> None:
    clock = ManualClock()

    facts = await track(pool, ask("t1", api_calls=10_000, seats=3), clock=clock)

    assert facts == [TenantTracked(tenant_id="t1")]
    assert await pool.fetchval("SELECT tracked_at FROM tracked_tenant") == clock.now()
    assert await quotas(pool) == {("t1", "api_calls", 10_000, "soft"), ("t1", "seats", 3, "hard")}


async def test_a_tenant_without_quotas_is_tracked_without_limits(pool: Pool) -> None:
    assert await track(pool, ask("t1")) == [TenantTracked(tenant_id="t1")]

    assert await tracked(pool) == ["t1"]
    assert await quotas(pool) == set()


async def test_an_unknown_meter_is_named_and_stops_no_other_ask_of_the_batch(pool: Pool) -> None:
    first, second, third = await track(
        pool, ask("t1", seats=3), ask("t2", wishes=3, seats=3, dreams=1), ask("t3", storage_gb=1)
    )

    assert first == TenantTracked(tenant_id="t1")
    assert second == TenantTrackingRefused(
        tenant_id="t2", code="unknown_meter", detail="The catalog has no meter dreams, wishes."
    )
    assert third == TenantTracked(tenant_id="t3")
    assert await tracked(pool) == ["t1", "t3"]
    assert await quotas(pool) == {("t1", "seats", 3, "hard"), ("t3", "storage_gb", 1, "soft")}


async def test_of_two_limits_for_one_meter_the_later_counts(pool: Pool) -> None:
    await track(pool, ask("t1", seats=1, storage_gb=5))

    await track(pool, ask("t1", seats=2), ask("t1", seats=3))

    assert await tracked(pool) == ["t1"]
    assert await quotas(pool) == {("t1", "seats", 3, "hard"), ("t1", "storage_gb", 5, "soft")}


async def test_a_limit_may_be_as_large_as_the_column(pool: Pool) -> None:
    await track(pool, ask("t1", api_calls=2**63 - 1))

    assert await quotas(pool) == {("t1", "api_calls", 2**63 - 1, "soft")}


async def test_untracking_leaves_no_live_record(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3), ask("t2", seats=3))

    assert await untrack(pool, "t1") == [TenantUntracked(tenant_id="t1")]

    rows = await pool.fetch("SELECT tenant_id, place FROM live_record")
    assert {(row["tenant_id"], row["place"]) for row in rows} == {("t2", "tracked_tenant"), ("t2", "quota")}


async def test_untracking_twice_or_what_was_never_tracked_gives_the_same_answer(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3))

    facts = await untrack(pool, "t1", "t1", "t0")

    assert facts == [TenantUntracked(tenant_id=tenant_id) for tenant_id in ("t1", "t1", "t0")]
    assert await untrack(pool, "t1") == [TenantUntracked(tenant_id="t1")]
    assert await tracked(pool) == []


async def test_five_hundred_tenants_take_as_many_statements_as_one(pool: Pool) -> None:
    asks = [ask(f"t{number}", api_calls=number, seats=number) for number in range(500)]
    async with transaction(pool) as connection:
        await statements_for(connection, asks[:1])  # asyncpg asks once for the types
        for_one = await statements_for(connection, asks[:1])
        for_all = await statements_for(connection, asks)

    assert for_all == for_one
    assert await tracked(pool) == []


async def test_batches_that_name_the_same_tenants_in_opposite_orders_wait_for_each_other_and_both_succeed(
    pool: Pool,
) -> None:
    await track(pool, ask("b", seats=1))
    await track(pool, ask("a", seats=1))
    async with pool.acquire() as blocker, asyncio.TaskGroup() as group, blocker.transaction():
        await blocker.execute("SELECT FROM tracked_tenant WHERE tenant_id = 'a' FOR UPDATE")
        group.create_task(track(pool, ask("a", seats=2), ask("b", seats=2)))
        await eventually(lambda: are_waiting(pool, 1), describe="one waits for a lock")
        group.create_task(track(pool, ask("b", seats=3), ask("a", seats=3)))
        await eventually(lambda: are_waiting(pool, 2), describe="two wait for a lock")
        group.create_task(untrack(pool, "b", "a"))
        await eventually(lambda: are_waiting(pool, 3), describe="three wait for a lock")

    assert await tracked(pool) == []
    assert await quotas(pool) == set()


async def test_a_tenant_that_is_tracked_while_it_is_being_forgotten_is_tracked(pool: Pool) -> None:
    await track(pool, ask("t1", seats=1))
    async with asyncio.TaskGroup() as group, transaction(pool) as forgetting:
        await handlers.untrack_tenants(forgetting, [UntrackTenant(tenant_id="t1")])
        group.create_task(track(pool, ask("t1", seats=2)))
        await eventually(lambda: are_waiting(pool, 1), describe="one waits for a lock")

    assert await quotas(pool) == {("t1", "seats", 2, "hard")}


def test_every_ask_of_the_contract_is_heard_and_every_fact_is_said() -> None:
    owned = {message for message in CATALOGUE.values() if message.owner == "metrics"}
    asks = {message for message in owned if issubclass(message, Ask)}

    assert set(handlers.SUBSCRIPTIONS) == asks
    assert set(handlers.PUBLISHES) == owned - asks
