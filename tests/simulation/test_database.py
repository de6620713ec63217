# ruff: noqa: ARG002, PT012 - stand-ins ignore what they are told, and what fails here takes several statements
import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from deploy.local.throwaway import Server
from tests.simulation.database import OUTBOX, Database, Gate, Lease, Pool
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import Process, adopt
from tests.simulation.trace import Trace

Story = Callable[["Bench"], Awaitable[None]]


class NoTroubles:
    """Nothing goes wrong, but what a test says."""

    def __init__(self) -> None:
        self.next_commit: str | None = None
        self.next_error: Exception | None = None

    def refuses(self, database: str) -> Exception | None:
        return None

    def statement(self, database: str, *, only_reads: bool) -> Exception | None:
        error, self.next_error = self.next_error, None
        return error

    def commit(self, database: str) -> str | None:
        fate, self.next_commit = self.next_commit, None
        return fate

    def delay(self, database: str) -> float:
        return 0.0


class Bench:
    """A gate in front of one real database with a table of numbers."""

    def __init__(self, loop: VirtualLoop, connection: Any, seed: int) -> None:
        self.loop = loop
        self.trace = Trace(loop.time)
        self.gate = Gate(loop, random.Random(seed), self.trace)
        self.database = Database("billing", connection)
        self.troubles = NoTroubles()
        self.seen: list[str] = []
        loop.when_idle = self.gate.advance

    def pool(self, process: Process | None = None) -> Pool:
        return Pool(self.database, self.gate, self.troubles, process, self._see)

    def _see(self, lease: Lease, beginning: str, args: Sequence[Any], result: Any) -> None:
        self.seen.append(beginning)

    async def numbers(self) -> list[int]:
        return [row["value"] for row in await self.pool().fetch("SELECT value FROM number ORDER BY value")]


@pytest.fixture
def tell(postgres_server: Server) -> Iterator[Callable[..., Bench]]:
    """Tell a story at a bench, on an empty table."""
    loop = VirtualLoop()
    loop.set_task_factory(adopt)  # type: ignore[arg-type] # typeshed knows it without the context

    def really(work: Coroutine[Any, Any, Any]) -> Any:
        async def counted() -> Any:
            loop.under_way += 1
            try:
                return await work
            finally:
                loop.under_way -= 1

        return loop.run_until_complete(counted())

    connection = really(asyncpg.connect(postgres_server.admin_url))
    really(connection.execute("CREATE TEMPORARY TABLE number (value integer)"))
    really(connection.execute("CREATE TEMPORARY TABLE outbox (id uuid, due_at timestamptz)"))

    def tell(story: Story, seed: int = 1) -> Bench:
        really(connection.execute("TRUNCATE number, outbox"))
        loop.rewind()
        bench = Bench(loop, connection, seed)

        async def told() -> None:
            await story(bench)

        loop.run_until_complete(told())
        loop.when_idle = lambda: False
        return bench

    yield tell
    really(connection.close())
    loop.close()


async def add(pool: Pool, *values: int) -> None:
    async with pool.acquire() as connection, connection.transaction():
        for value in values:
            await connection.execute("INSERT INTO number VALUES ($1)", value)


def test_a_transaction_is_there_when_it_is_committed_and_not_when_it_fails(tell: Callable[..., Bench]) -> None:
    async def story(bench: Bench) -> None:
        await add(bench.pool(), 1, 2)
        with pytest.raises(ZeroDivisionError):
            async with bench.pool().acquire() as connection, connection.transaction():
                await connection.execute("INSERT INTO number VALUES (3)")
                raise ZeroDivisionError
        assert await bench.numbers() == [1, 2]

    tell(story)


def test_a_savepoint_is_undone_alone(tell: Callable[..., Bench]) -> None:
    async def story(bench: Bench) -> None:
        async with bench.pool().acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO number VALUES (1)")
            with pytest.raises(asyncpg.PostgresError):
                async with connection.transaction():
                    await connection.execute("INSERT INTO number VALUES (2)")
                    await connection.execute("INSERT INTO nowhere VALUES (2)")
            await connection.execute("INSERT INTO number VALUES (3)")
        assert await bench.numbers() == [1, 3]

    tell(story)


def test_one_transaction_at_a_time_in_an_order_that_the_seed_chooses(tell: Callable[..., Bench]) -> None:
    orders: set[tuple[int, ...]] = set()

    def with_seed(seed: int) -> tuple[int, ...]:
        order: list[int] = []

        async def story(bench: Bench) -> None:
            async def work(number: int) -> None:
                async with bench.pool().acquire() as connection, connection.transaction():
                    await connection.execute("INSERT INTO number VALUES ($1)", number)
                    order.append(number)
                    await asyncio.sleep(1)
                    assert order[-1] == number, "somebody else got in between"

            await asyncio.gather(*(work(number) for number in range(5)))

        tell(story, seed)
        return tuple(order)

    for seed in range(6):
        orders.add(with_seed(seed))
        assert with_seed(seed) in orders
    assert len(orders) > 1


def test_what_a_dead_process_had_begun_is_rolled_back_and_it_touches_nothing_more(tell: Callable[..., Bench]) -> None:
    async def story(bench: Bench) -> None:
        process = Process("billing", 1, bench.loop)
        pool = bench.pool(process)

        async def work() -> None:
            try:
                async with pool.acquire() as connection, connection.transaction():
                    await connection.execute("INSERT INTO number VALUES (1)")
                    await asyncio.sleep(100)
            finally:
                await pool.execute("INSERT INTO number VALUES (2)")

        task = process.start(work())
        await asyncio.sleep(1)
        process.kill()
        await asyncio.wait([task])
        assert await bench.numbers() == []

    tell(story)


@pytest.mark.parametrize(("fate", "left"), [("happened", [1]), ("absent", [])])
def test_a_committer_may_not_learn_what_happened(tell: Callable[..., Bench], fate: str, left: list[int]) -> None:
    async def story(bench: Bench) -> None:
        noted: list[str] = []
        bench.troubles.next_commit = fate
        with pytest.raises(asyncpg.PostgresConnectionError):
            async with bench.pool().acquire() as connection, connection.transaction():
                await connection.execute("INSERT INTO number VALUES (1)")
                connection.notes.append(lambda: noted.append("committed"))
        assert await bench.numbers() == left
        assert bool(noted) == bool(left)

    tell(story)


def test_a_lost_connection_is_lost_for_good_and_the_next_one_works(tell: Callable[..., Bench]) -> None:
    async def story(bench: Bench) -> None:
        pool = bench.pool()
        with pytest.raises(asyncpg.InterfaceError):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("INSERT INTO number VALUES (1)")
                pool.cut()
                await connection.execute("INSERT INTO number VALUES (2)")
        await add(pool, 3)
        assert await bench.numbers() == [3]

    tell(story)


def test_a_poll_is_asked_only_when_it_may_find_something(tell: Callable[..., Bench]) -> None:
    poll = f"{OUTBOX.begins} (SELECT id FROM outbox WHERE due_at <= $2) RETURNING id"
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    later = datetime(2026, 3, 2, 13, tzinfo=UTC)

    async def story(bench: Bench) -> None:
        pool = bench.pool()
        for _ in range(10):
            assert list(await pool.fetch(poll, noon, noon)) == []
        assert bench.gate.operations == 1
        await pool.execute("INSERT INTO outbox VALUES (gen_random_uuid(), $1)", later)
        assert list(await pool.fetch(poll, noon, noon)) == []
        assert len(await pool.fetch(poll, noon, later)) == 1
        assert bench.database.polls_saved == 11

    tell(story)


def test_rows_in_no_order_come_in_one_that_the_seed_chooses(tell: Callable[..., Bench]) -> None:
    orders: list[tuple[int, ...]] = []

    async def story(bench: Bench) -> None:
        await add(bench.pool(), *range(6))
        rows = await bench.pool().fetch("SELECT value FROM number")
        orders.append(tuple(row["value"] for row in rows))
        assert await bench.numbers() == list(range(6))

    for seed in (1, 1, 2, 3):
        tell(story, seed)

    assert orders[0] == orders[1]
    assert len(set(orders)) == 3
    assert all(sorted(order) == list(range(6)) for order in orders)


def test_two_tellings_leave_the_same_trace(tell: Callable[..., Bench]) -> None:
    async def story(bench: Bench) -> None:
        await asyncio.gather(*(add(bench.pool(), number) for number in range(4)))

    assert list(tell(story, 7).trace.lines()) == list(tell(story, 7).trace.lines())
