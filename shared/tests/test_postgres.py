import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from deploy.databases import DatabaseUrls
from deploy.local.throwaway import FreshDatabases, Server
from shared.postgres import (
    Connection,
    MigrationError,
    Pool,
    is_unavailable,
    migrate,
    open_pool,
    pending_migrations,
    service_migrations,
    transaction,
)
from shared.testing import eventually
from shared.testing.wire import Wire

KERNEL = service_migrations("kernel")


class TestPool:
    async def test_json_is_a_python_value(self, pool: Pool) -> None:
        value = {"text": "Žofie", "list": [1, 2.5, None, True], "id": str(uuid4())}

        assert await pool.fetchval("SELECT $1::jsonb", value) == value
        assert await pool.fetchval("SELECT $1::jsonb ->> 'text'", value) == "Žofie"
        assert await pool.fetchval("SELECT NULL::jsonb") is None

    async def test_what_json_does_not_know_becomes_text(self, pool: Pool) -> None:
        identity = await pool.fetchval("SELECT gen_random_uuid()")  # of asyncpg's own class

        assert await pool.fetchval("SELECT $1::jsonb", [identity]) == [str(identity)]

    async def test_a_connection_says_whose_it_is(self, kernel_database: DatabaseUrls) -> None:
        pool = await open_pool(kernel_database.app, size=2, name="tenure billing")
        try:
            assert await pool.fetchval("SHOW application_name") == "tenure billing"
            assert (pool.get_min_size(), pool.get_max_size()) == (1, 2)
        finally:
            await pool.close()


class TestTransaction:
    async def test_what_a_block_did_is_committed_at_its_end(self, pool: Pool) -> None:
        async with transaction(pool) as connection:
            await note(connection, "t1")
            assert await noted(pool) == 0

        assert await noted(pool) == 1

    async def test_what_a_failed_block_did_is_undone(self, pool: Pool) -> None:
        with pytest.raises(RuntimeError):
            await note_and_fail(pool)

        assert await noted(pool) == 0

    async def test_a_block_that_takes_too_long_is_given_up_with_its_connection(self, pool: Pool) -> None:
        backends: list[int] = []
        with pytest.raises(TimeoutError):
            await note_and_linger(pool, backends)

        async def is_gone() -> bool:
            return not await pool.fetch("SELECT FROM pg_stat_activity WHERE pid = ANY($1)", backends)

        await eventually(is_gone)
        assert await noted(pool) == 0

    async def test_waiting_for_a_connection_is_bounded_too(self, kernel_database: DatabaseUrls) -> None:
        pool = await open_pool(kernel_database.app, size=1)
        try:
            async with transaction(pool):
                with pytest.raises(TimeoutError):
                    await use(pool, seconds=0.1)
            await use(pool, seconds=5)
        finally:
            await pool.close()

    async def test_a_frozen_server_holds_nobody_longer_than_the_bound(self, kernel_database: DatabaseUrls) -> None:
        async with Wire(kernel_database.app) as wire:
            pool = await open_pool(wire.through(kernel_database.app), size=1)
            await use(pool, seconds=5)
            wire.freeze()
            begun = asyncio.get_running_loop().time()
            with pytest.raises(TimeoutError):
                await use(pool, seconds=0.3)
            assert asyncio.get_running_loop().time() - begun < 2

            wire.cut()
            await use(pool, seconds=5)
            await pool.close()


async def note(connection: Any, tenant_id: str) -> None:
    await connection.execute("INSERT INTO effect (kind, tenant_id) VALUES ('noted', $1)", tenant_id)


async def note_and_fail(pool: Pool) -> None:
    async with transaction(pool) as connection:
        await note(connection, "t1")
        raise RuntimeError


async def note_and_linger(pool: Pool, backends: list[int]) -> None:
    async with transaction(pool, seconds=0.1) as connection:
        backends.append(connection.get_server_pid())
        await note(connection, "t1")
        await asyncio.sleep(60)


async def use(pool: Pool, *, seconds: float) -> None:
    async with transaction(pool, seconds=seconds) as connection:
        await connection.execute("SELECT 1")


async def noted(pool: Pool) -> int:
    return int(await pool.fetchval("SELECT count(*) FROM effect"))


class TestAvailability:
    @pytest.fixture
    async def wire(self, kernel_database: DatabaseUrls) -> AsyncIterator[Wire]:
        async with Wire(kernel_database.app) as wire:
            yield wire

    async def test_a_server_that_nobody_runs_is_unavailable(self, wire: Wire, kernel_database: DatabaseUrls) -> None:
        wire.break_off()
        with pytest.raises(OSError, match=r".") as raised:
            await open_pool(wire.through(kernel_database.app))

        assert is_unavailable(raised.value)

    async def test_a_connection_that_broke_is_unavailable_however_often_it_is_used(
        self, wire: Wire, kernel_database: DatabaseUrls
    ) -> None:
        connection = await asyncpg.connect(wire.through(kernel_database.app))
        wire.cut()
        for _ in range(3):
            assert is_unavailable(await failure(connection, "SELECT 1"))

    async def test_a_backend_that_an_administrator_ended_is_unavailable(
        self, kernel_database: DatabaseUrls, postgres_server: Server
    ) -> None:
        connection = await asyncpg.connect(kernel_database.app)
        admin = await asyncpg.connect(postgres_server.admin_url)
        await admin.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        await admin.close()

        assert is_unavailable(await failure(connection, "SELECT 1"))

    async def test_a_pool_that_is_closed_is_unavailable(self, kernel_database: DatabaseUrls) -> None:
        pool = await open_pool(kernel_database.app)
        await pool.close()

        assert is_unavailable(await failure(pool, "SELECT 1"))

    @pytest.mark.parametrize(
        ("statement", "arguments"),
        [
            ("SELEKT", ()),
            ("SELECT 1 / 0", ()),
            ("SELECT $1::int", ("closed",)),  # what an argument says is not what happened
            ("SELECT $1::int[]", (["the account is closed"],)),
            ("SELECT * FROM closed_accounts", ()),
            ("SELECT $1::text", ("a\x00b",)),
        ],
    )
    async def test_a_wrong_statement_is_no_outage(self, pool: Pool, statement: str, arguments: tuple[Any, ...]) -> None:
        assert not is_unavailable(await failure(pool, statement, *arguments))


async def failure(executor: Any, statement: str, *arguments: Any) -> Exception:
    try:
        await executor.fetchval(statement, *arguments)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        return error
    raise AssertionError(f"{statement} did not fail")


class TestMigrations:
    @pytest.fixture
    async def urls(self, fresh_database: FreshDatabases) -> DatabaseUrls:
        return await fresh_database.urls("kernel")

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "billing" / "migrations"
        folder.mkdir(parents=True)
        return folder

    async def test_migrations_run_once_in_the_order_of_their_names(self, urls: DatabaseUrls, folder: Path) -> None:
        (folder / "0002_more.sql").write_text("ALTER TABLE account ADD COLUMN plan text")
        (folder / "0001_account.sql").write_text("CREATE TABLE account (id text)")

        assert await migrate(urls.owner, [*KERNEL, folder]) == ["billing/0001_account.sql", "billing/0002_more.sql"]
        assert await migrate(urls.owner, [*KERNEL, folder]) == []

        (folder / "0003_index.sql").write_text("CREATE INDEX ON account (plan)")
        assert await migrate(urls.owner, [*KERNEL, folder]) == ["billing/0003_index.sql"]

    async def test_of_many_that_migrate_at_once_one_does_the_work(self, urls: DatabaseUrls, folder: Path) -> None:
        (folder / "0001_account.sql").write_text("SELECT pg_sleep(0.05); CREATE TABLE account (id text)")

        done = await asyncio.gather(*(migrate(urls.owner, [*KERNEL, folder]) for _ in range(4)))

        assert sorted(done) == [[], [], [], ["billing/0001_account.sql"]]

    async def test_a_migration_that_fails_leaves_nothing_and_those_before_it_stay(
        self, urls: DatabaseUrls, folder: Path
    ) -> None:
        (folder / "0001_account.sql").write_text("CREATE TABLE account (id text)")
        (folder / "0002_broken.sql").write_text("CREATE TABLE other (id text); SELEKT 1")
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await migrate(urls.owner, [*KERNEL, folder])

        (folder / "0002_broken.sql").write_text("CREATE TABLE other (id text)")
        assert await migrate(urls.owner, [*KERNEL, folder]) == ["billing/0002_broken.sql"]

    async def test_an_edited_migration_is_refused_by_name(self, urls: DatabaseUrls, folder: Path) -> None:
        path = folder / "0001_account.sql"
        path.write_text("CREATE TABLE account (id text)")
        await migrate(urls.owner, [*KERNEL, folder])
        path.write_text("CREATE TABLE account (id text, plan text)")

        with pytest.raises(MigrationError, match=r"billing/0001_account\.sql was edited .* Add a new migration"):
            await migrate(urls.owner, [*KERNEL, folder])

    async def test_a_database_that_is_newer_than_the_code_is_refused(self, urls: DatabaseUrls, folder: Path) -> None:
        path = folder / "0001_account.sql"
        path.write_text("CREATE TABLE account (id text)")
        await migrate(urls.owner, [*KERNEL, folder])
        path.unlink()

        with pytest.raises(MigrationError, match=r"newer than this code: it has billing/0001_account\.sql"):
            await migrate(urls.owner, [*KERNEL, folder])

    async def test_a_file_that_is_misnamed_is_refused(self, urls: DatabaseUrls, folder: Path) -> None:
        (folder / "1_account.sql").write_text("CREATE TABLE account (id text)")

        with pytest.raises(MigrationError, match=r"1_account\.sql"):
            await migrate(urls.owner, [*KERNEL, folder])

    async def test_what_is_missing_is_named(self, urls: DatabaseUrls) -> None:
        connection = await asyncpg.connect(urls.app)
        try:
            assert await pending_migrations(connection, "kernel") == []
            missing = await pending_migrations(connection, "billing")
        finally:
            await connection.close()

        assert missing
        assert all(name.startswith("billing/0") for name in missing)


async def test_a_cancellation_is_one_although_its_connection_is_lost(kernel_database: DatabaseUrls) -> None:
    """asyncpg reports the loss when it rolls back, and whoever waits out such losses would go on."""
    begun: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def wait(pool: Pool) -> None:
        async with transaction(pool) as connection:
            begun.set_result(connection)
            await asyncio.Event().wait()

    async with await open_pool(kernel_database.owner) as pool:
        waiting = asyncio.create_task(wait(pool))
        connection = await begun
        await pool.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        await eventually(lambda: _is_lost(connection))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # it is so much lost that the pool has it back
        return True
