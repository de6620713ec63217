import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from asyncpg.connection import LoggedQuery

from services.metrics import handlers
from shared.clock import ManualClock
from shared.contracts import CATALOGUE, Ask, Fact
from shared.contracts.metrics import (
    ChangeQuotas,
    MetricsPurged,
    PurgeMetrics,
    QuotaChangeRefused,
    QuotasChanged,
    QuotasRestored,
    TenantTracked,
    TenantTrackingRefused,
    TenantUntracked,
    TrackTenant,
    UntrackTenant,
)
from shared.contracts.provisioning import MailReported
from shared.messaging.subscriptions import Changed, Restoration
from shared.postgres import Connection, Pool, transaction
from shared.testing import eventually

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


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


def to(tenant_id: str, **quotas: int) -> ChangeQuotas:
    return ChangeQuotas(tenant_id=tenant_id, quotas=quotas)


async def change(pool: Pool, *asks: ChangeQuotas) -> Sequence[Changed]:
    async with transaction(pool) as connection:
        return await handlers.change_quotas(connection, asks)


async def restore(pool: Pool, *restorations: tuple[str, Mapping[str, Any] | None]) -> Sequence[Fact]:
    """Bring back before-images as they come out of the database: as JSON."""
    async with transaction(pool) as connection:
        return await handlers.restore_quotas(
            connection,
            [Restoration(tenant_id, orjson.loads(orjson.dumps(before))) for tenant_id, before in restorations],
        )


async def purge(pool: Pool, *tenant_ids: str) -> Sequence[Fact]:
    async with transaction(pool) as connection:
        return await handlers.purge_metrics(connection, [PurgeMetrics(tenant_id=tenant_id) for tenant_id in tenant_ids])


def purged(
    tenant_id: str, *, quotas: int, tracked_tenants: int, usage_hours: int = 0, usage_events: int = 0
) -> MetricsPurged:
    deleted = {
        "quotas": quotas,
        "usage_hours": usage_hours,
        "usage_events": usage_events,
        "tracked_tenants": tracked_tenants,
    }
    return MetricsPurged(tenant_id=tenant_id, deleted=deleted)


async def tracked(pool: Pool) -> list[str]:
    return [row["tenant_id"] for row in await pool.fetch("SELECT tenant_id FROM tracked_tenant ORDER BY tenant_id")]


async def quotas(pool: Pool) -> set[tuple[str, str, int, str]]:
    return {tuple(row) for row in await pool.fetch("SELECT tenant_id, meter, limit_value, enforcement FROM quota")}


async def hear_of_mail(pool: Pool, *facts: MailReported) -> None:
    async with transaction(pool) as connection:
        assert await handlers.meter_mail(connection, facts, clock=ManualClock()) == []


def mailed(tenant_id: str, hour: datetime = NOON, **counts: int) -> MailReported:
    return MailReported(tenant_id=tenant_id, hour=hour, counts=counts)


async def used(pool: Pool) -> set[tuple[str, str, datetime, Decimal]]:
    return {tuple(row) for row in await pool.fetch("SELECT tenant_id, meter, hour, quantity FROM usage_hour")}


async def are_waiting(pool: Pool, count: int) -> bool:
    waiting = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(waiting == count)


async def statements_for(connection: Connection, asks: Sequence[TrackTenant]) -> int:
    """Track, change, restore, meter, purge and forget these tenants, and count what the database is sent for it."""
    sent: list[LoggedQuery] = []
    with connection.query_logger(sent.append):
        did = await handlers.track_tenants(connection, asks, clock=ManualClock())
        changes = await handlers.change_quotas(connection, [to(one.tenant_id, storage_gb=1) for one in asks])
        await handlers.restore_quotas(connection, [Restoration(each.answer.tenant_id, each.before) for each in changes])
        await handlers.meter_mail(connection, [mailed(one.tenant_id, send=1) for one in asks], clock=ManualClock())
        await handlers.purge_metrics(connection, [PurgeMetrics(tenant_id=one.tenant_id) for one in asks])
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
        group.create_task(purge(pool, "b", "a"))
        await eventually(lambda: are_waiting(pool, 4), describe="four wait for a lock")

    assert await tracked(pool) == []
    assert await quotas(pool) == set()


async def test_a_tenant_that_is_tracked_while_it_is_being_forgotten_is_tracked(pool: Pool) -> None:
    await track(pool, ask("t1", seats=1))
    async with asyncio.TaskGroup() as group, transaction(pool) as forgetting:
        await handlers.untrack_tenants(forgetting, [UntrackTenant(tenant_id="t1")])
        group.create_task(track(pool, ask("t1", seats=2)))
        await eventually(lambda: are_waiting(pool, 1), describe="one waits for a lock")

    assert await quotas(pool) == {("t1", "seats", 2, "hard")}


async def test_a_tenant_is_held_to_exactly_the_quotas_it_is_changed_to(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3, storage_gb=1), ask("t2", seats=3))

    (changed,) = await change(pool, to("t1", seats=5, api_calls=9))

    assert changed.answer == QuotasChanged(tenant_id="t1")
    assert changed.before == {
        "quotas": {
            "seats": {"value": 3, "enforcement": "hard"},
            "storage_gb": {"value": 1, "enforcement": "soft"},
        }
    }
    assert await quotas(pool) == {
        ("t1", "seats", 5, "hard"),
        ("t1", "api_calls", 9, "soft"),
        ("t2", "seats", 3, "hard"),
    }


async def test_a_quota_that_was_made_soft_stays_soft_when_it_is_changed(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3))
    await pool.execute("UPDATE quota SET enforcement = 'soft'")

    await change(pool, to("t1", seats=5))

    assert await quotas(pool) == {("t1", "seats", 5, "soft")}


async def test_quotas_that_are_as_asked_already_are_nothing_to_restore(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3), ask("t2"))

    facts = await change(pool, to("t1", seats=3), to("t2"))

    assert facts == [Changed(QuotasChanged(tenant_id=tenant_id)) for tenant_id in ("t1", "t2")]
    assert await quotas(pool) == {("t1", "seats", 3, "hard")}


async def test_a_change_that_is_refused_stops_no_other_of_the_batch(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3), ask("t2", seats=3))

    first, second, third = await change(pool, to("t0", seats=1), to("t1", wishes=1, seats=1, dreams=1), to("t2"))

    assert first == Changed(
        QuotaChangeRefused(tenant_id="t0", code="unknown_tenant", detail="Tenant t0 is not metered.")
    )
    assert second == Changed(
        QuotaChangeRefused(tenant_id="t1", code="unknown_meter", detail="The catalog has no meter dreams, wishes.")
    )
    assert third.answer == QuotasChanged(tenant_id="t2")
    assert await quotas(pool) == {("t1", "seats", 3, "hard")}
    assert await tracked(pool) == ["t1", "t2"]


async def test_a_restoration_brings_back_exactly_the_quotas_that_were_found(pool: Pool) -> None:
    await track(pool, ask("t1", api_calls=2**63 - 1, seats=3), ask("t2"))
    await pool.execute("UPDATE quota SET enforcement = 'soft'")
    found = await quotas(pool)
    one, other = await change(pool, to("t1", seats=4, storage_gb=1), to("t2", seats=1))

    facts = await restore(pool, ("t1", one.before), ("t2", other.before))

    assert facts == [QuotasRestored(tenant_id=tenant_id) for tenant_id in ("t1", "t2")]
    assert await quotas(pool) == found


async def test_where_there_is_nothing_to_restore_the_quotas_stay(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3))

    facts = await restore(pool, ("t1", None), ("t0", None))

    assert facts == [QuotasRestored(tenant_id=tenant_id) for tenant_id in ("t1", "t0")]
    assert await quotas(pool) == {("t1", "seats", 3, "hard")}


async def test_two_changes_of_one_tenant_in_a_batch_are_restored_one_after_the_other(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3))

    first, second = await change(pool, to("t1", storage_gb=1, seats=4), to("t1", api_calls=7))
    assert await quotas(pool) == {("t1", "api_calls", 7, "soft")}

    await restore(pool, ("t1", second.before))
    assert await quotas(pool) == {("t1", "storage_gb", 1, "soft"), ("t1", "seats", 4, "hard")}
    await restore(pool, ("t1", first.before))
    assert await quotas(pool) == {("t1", "seats", 3, "hard")}


async def test_a_tenant_that_is_not_tracked_any_more_is_left_alone_by_a_restoration(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3), ask("t2", seats=3))
    one, other = await change(pool, to("t1", seats=4), to("t2", seats=4))
    await untrack(pool, "t1")

    facts = await restore(pool, ("t1", one.before), ("t2", other.before))

    assert facts == [QuotasRestored(tenant_id=tenant_id) for tenant_id in ("t1", "t2")]
    assert await quotas(pool) == {("t2", "seats", 3, "hard")}


async def test_a_quota_of_a_meter_that_has_left_the_catalog_is_not_brought_back(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3, storage_gb=1))
    (changed,) = await change(pool, to("t1", seats=4))
    await pool.execute("DELETE FROM meter WHERE name = 'storage_gb'")

    await restore(pool, ("t1", changed.before))

    assert await quotas(pool) == {("t1", "seats", 3, "hard")}


async def test_a_purge_leaves_no_live_record_and_counts_what_it_deleted(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3, storage_gb=1), ask("t2"), ask("t3", seats=3))

    facts = await purge(pool, "t2", "t1", "t0")

    assert facts == [
        purged("t2", quotas=0, tracked_tenants=1),
        purged("t1", quotas=2, tracked_tenants=1),
        purged("t0", quotas=0, tracked_tenants=0),
    ]
    rows = await pool.fetch("SELECT tenant_id FROM live_record")
    assert {row["tenant_id"] for row in rows} == {"t3"}


async def test_what_is_purged_is_counted_once(pool: Pool) -> None:
    await track(pool, ask("t1", seats=3))

    facts = await purge(pool, "t1", "t1")

    nothing = purged("t1", quotas=0, tracked_tenants=0)
    assert facts == [purged("t1", quotas=1, tracked_tenants=1), nothing]
    assert await purge(pool, "t1") == [nothing]


async def test_a_change_waits_for_whoever_is_at_work_on_the_tenant_and_finds_what_that_left(pool: Pool) -> None:
    await track(pool, ask("t1", seats=1), ask("t2", seats=1))
    async with asyncio.TaskGroup() as group, transaction(pool) as connection:
        await handlers.track_tenants(connection, [ask("t1", seats=2)], clock=ManualClock())
        await handlers.untrack_tenants(connection, [UntrackTenant(tenant_id="t2")])
        changing = group.create_task(change(pool, to("t2", seats=9), to("t1", seats=9)))
        await eventually(lambda: are_waiting(pool, 1), describe="one waits for a lock")

    second, first = changing.result()
    assert first.before == {"quotas": {"seats": {"value": 2, "enforcement": "hard"}}}
    assert isinstance(second.answer, QuotaChangeRefused)
    assert await quotas(pool) == {("t1", "seats", 9, "hard")}


async def test_mails_are_added_to_the_usage_of_the_hour_in_which_something_happened_to_them(pool: Pool) -> None:
    await track(pool, ask("t1"), ask("t2"))
    later = NOON + timedelta(hours=1)

    await hear_of_mail(
        pool, mailed("t1", send=3, open=1), mailed("t2", permanent_bounce=1), mailed("t1", later, send=1)
    )
    await hear_of_mail(pool, mailed("t1", send=2), mailed("t1", send=1))

    assert await used(pool) == {
        ("t1", "mail_sends", NOON, Decimal(6)),
        ("t1", "mail_opens", NOON, Decimal(1)),
        ("t1", "mail_sends", later, Decimal(1)),
        ("t2", "mail_permanent_bounces", NOON, Decimal(1)),
    }


async def test_every_event_of_mail_has_a_meter_in_the_catalog(pool: Pool) -> None:
    await track(pool, ask("t1"))

    await hear_of_mail(pool, mailed("t1", NOON, **dict.fromkeys(handlers.MAIL_METERS, 1)))

    assert {meter for _, meter, _, _ in await used(pool)} == set(handlers.MAIL_METERS.values())
    assert await pool.fetchval("SELECT count(*) FROM meter WHERE name LIKE 'mail%'") == len(handlers.MAIL_METERS)


async def test_mails_of_tenants_that_are_not_tracked_and_events_of_newer_code_are_left_out(pool: Pool) -> None:
    await track(pool, ask("t1"))

    await hear_of_mail(pool, mailed("t0", send=1), mailed("t1", send=1, dance=1))

    assert await used(pool) == {("t1", "mail_sends", NOON, Decimal(1))}


@pytest.mark.parametrize("forget", [untrack, purge])
async def test_with_a_tenant_its_usage_goes(pool: Pool, forget: Callable[..., Awaitable[Sequence[Fact]]]) -> None:
    await track(pool, ask("t1"), ask("t2"))
    await hear_of_mail(pool, mailed("t1", send=1, open=2), mailed("t2", send=1))

    (fact,) = await forget(pool, "t1")

    assert fact in (TenantUntracked(tenant_id="t1"), purged("t1", quotas=0, tracked_tenants=1, usage_hours=2))
    assert {tenant_id for tenant_id, *_ in await used(pool)} == {"t2"}


def test_every_ask_of_the_contract_is_heard_and_every_fact_is_said() -> None:
    owned = {message for message in CATALOGUE.values() if message.owner == "metrics"}
    asks = {message for message in owned if issubclass(message, Ask)}

    assert {message for message in handlers.SUBSCRIPTIONS if message.owner == "metrics"} == asks
    assert set(handlers.PUBLISHES) == owned - asks
