import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from deploy.local.throwaway import FreshDatabases
from shared.ids import TimeOrderedIds, uuid7_at
from shared.messaging import inbox
from shared.postgres import Pool, open_pool, transaction

TODAY = datetime(2026, 11, 21, 13, 45, tzinfo=UTC)
ids = TimeOrderedIds()


async def admit(pool: Pool, *messages: UUID) -> set[UUID]:
    async with transaction(pool) as connection:
        return await inbox.admit(connection, messages)


async def keep(pool: Pool, now: datetime) -> None:
    async with transaction(pool) as connection:
        await inbox.keep_partitions(connection, now=now)


async def partitions(pool: Pool) -> set[str]:
    rows = await pool.fetch("SELECT relid::regclass::text AS name FROM pg_partition_tree('inbox') WHERE isleaf")
    return {row["name"] for row in rows}


async def home_of(pool: Pool, message: UUID) -> str:
    return str(await pool.fetchval("SELECT tableoid::regclass::text FROM inbox WHERE message_id = $1", message))


async def test_a_message_is_admitted_once(pool: Pool) -> None:
    one, other, third = (ids.new() for _ in range(3))

    assert await admit(pool, one, other) == {one, other}
    assert await admit(pool, other, third) == {third}
    assert await admit(pool, one, other, third) == set()


async def test_a_message_that_is_twice_in_a_batch_is_admitted_once(pool: Pool) -> None:
    one = ids.new()

    assert await admit(pool, one, one, one) == {one}


async def test_nothing_is_admitted_out_of_nothing(pool: Pool) -> None:
    assert await admit(pool) == set()


async def test_what_is_rolled_back_was_never_there(pool: Pool) -> None:
    one = ids.new()

    with pytest.raises(RuntimeError):
        await admit_and_fail(pool, one)

    assert await admit(pool, one) == {one}


async def admit_and_fail(pool: Pool, message: UUID) -> None:
    async with transaction(pool) as connection:
        await inbox.admit(connection, [message])
        raise RuntimeError


async def test_two_replicas_that_get_the_same_messages_in_other_orders_share_them(pool: Pool) -> None:
    messages = [ids.new() for _ in range(20_000)]  # long enough to meet in the middle

    one, other = await asyncio.gather(admit(pool, *messages), admit(pool, *reversed(messages)))

    assert one | other == set(messages)
    assert one & other == set()


async def test_identities_of_other_kinds_and_times_find_their_place_too(pool: Pool) -> None:
    odd = [uuid4(), uuid7_at(datetime(1999, 1, 1, tzinfo=UTC)), uuid7_at(datetime(2100, 1, 1, tzinfo=UTC))]

    assert await admit(pool, *odd) == set(odd)
    assert await admit(pool, *odd) == set()


class TestPartitions:
    """In databases of their own: partitions outlive a test."""

    @pytest.fixture
    async def own_pool(self, fresh_database: FreshDatabases) -> Pool:
        return await open_pool(await fresh_database("kernel"))

    @pytest.fixture(autouse=True)
    async def closed(self, own_pool: Pool) -> object:
        yield
        await own_pool.close()

    async def test_the_coming_days_have_a_partition_each(self, own_pool: Pool) -> None:
        await keep(own_pool, TODAY)

        names = {"inbox_default", "inbox_20261121", "inbox_20261122", "inbox_20261123"}
        assert await partitions(own_pool) == names

    async def test_a_message_lies_in_the_partition_of_its_day(self, own_pool: Pool) -> None:
        await keep(own_pool, TODAY)
        midnight = datetime(2026, 11, 22, tzinfo=UTC)
        last, first = uuid7_at(midnight - timedelta(milliseconds=1), (1 << 74) - 1), uuid7_at(midnight)
        outside = uuid7_at(TODAY + timedelta(days=3))
        await admit(own_pool, last, first, outside)

        assert await home_of(own_pool, last) == "inbox_20261121"
        assert await home_of(own_pool, first) == "inbox_20261122"
        assert await home_of(own_pool, outside) == "inbox_default"

    async def test_days_past_the_retention_are_dropped_and_no_others(self, own_pool: Pool) -> None:
        await keep(own_pool, TODAY)
        old, young = uuid7_at(TODAY), uuid7_at(TODAY + timedelta(days=1))
        await admit(own_pool, old, young)

        await keep(own_pool, TODAY + inbox.RETENTION)
        assert await admit(own_pool, old) == set()

        await keep(own_pool, TODAY + inbox.RETENTION + timedelta(days=1))
        assert "inbox_20261121" not in await partitions(own_pool)
        assert "inbox_20261122" in await partitions(own_pool)
        assert await admit(own_pool, young) == set()

    async def test_a_message_older_than_the_retention_is_admitted_again(self, own_pool: Pool) -> None:
        """The barrier is what protects effects of workflows then."""
        await keep(own_pool, TODAY)
        ancient = uuid7_at(TODAY, 5)
        await admit(own_pool, ancient)
        await keep(own_pool, TODAY + inbox.RETENTION + timedelta(days=1))

        assert await admit(own_pool, ancient) == {ancient}
        assert await admit(own_pool, ancient) == set()

    async def test_keeping_them_again_changes_nothing(self, own_pool: Pool) -> None:
        await keep(own_pool, TODAY)
        before = await partitions(own_pool)

        await asyncio.gather(*(keep(own_pool, TODAY) for _ in range(3)))

        assert await partitions(own_pool) == before

    async def test_a_day_whose_messages_came_before_its_partition_stops_nothing(self, own_pool: Pool) -> None:
        """After a stop of some days the default partition may hold messages of a day that gets one now."""
        early = uuid7_at(TODAY + timedelta(days=1))
        await admit(own_pool, early)

        await keep(own_pool, TODAY)

        assert await admit(own_pool, early) == set()

    async def test_the_services_login_can_keep_partitions_of_the_inbox_and_no_other_tables(
        self, own_pool: Pool
    ) -> None:
        with pytest.raises(asyncpg.RaiseError, match="not a partition name"):
            await own_pool.execute(
                "SELECT keep_inbox_partitions(ARRAY['evil; DROP TABLE outbox'], ARRAY[$1::uuid], ARRAY[$1::uuid], '')",
                uuid4(),
            )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await own_pool.execute("CREATE TABLE mine ()")
