"""Connections, pools and migrations: everything about Postgres that is no service's own."""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg
import orjson
import structlog
from asyncpg.pool import PoolConnectionProxy

log = structlog.get_logger(__name__)

# Quoted: asyncpg's classes are generic for type checkers only.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
if TYPE_CHECKING:
    _Base = asyncpg.Pool[asyncpg.Record]
else:
    _Base = asyncpg.Pool

UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DiskFullError,
    asyncpg.QueryCanceledError,  # by `statement_timeout`, which tells no more than a `TimeoutError`
    OSError,
    TimeoutError,
)
"""What says that the database is away, not that a statement was wrong. It is waited out, never counted."""


def is_unavailable(error: BaseException) -> bool:
    """Tell whether an error says that the database is away; asyncpg reports a closed connection as misuse."""
    if isinstance(error, asyncpg.InterfaceError):
        return "clos" in str(error)
    if isinstance(error, asyncpg.InternalClientError):
        # An idle connection has read the server's farewell and not yet seen that it is closed.
        return str(error).startswith("cannot switch to state")
    return isinstance(error, UNAVAILABLE)


CONTENTION = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""What says that the same transaction may succeed when it is tried again at once."""


def is_transient(error: BaseException) -> bool:
    """Tell whether what failed may succeed later as it is: the database was away, or somebody else in the way."""
    return is_unavailable(error) or isinstance(error, CONTENTION)


_ROOT = Path(__file__).resolve().parent.parent
_MIGRATION_NAME = re.compile(r"^\d{4}_[a-z0-9_]+\.sql$")
_MIGRATION_LOCK = 0x7E9C0DE
_CONNECT_SECONDS = 10.0
_MAX_QUERIES = 50_000


class MigrationError(Exception):
    """The database and the migrations of this code do not belong together."""


class MeasuredPool(_Base):
    """A pool that knows how long it lets wait.

    Attributes:
        waiting: how many wait for a connection now.
        on_wait: told the seconds that somebody has waited, with or without success.
    """

    waiting = 0
    on_wait: Callable[[float], None] | None = None

    async def _acquire(self, timeout: float | None) -> Any:  # noqa: ASYNC109 - asyncpg's own
        """Do what every way to get a connection ends in, with a watch in hand; asyncpg has no place for it."""
        started = time.perf_counter()
        self.waiting += 1
        try:
            return await super()._acquire(timeout)  # type: ignore[misc]  # the stubs name only what is public
        finally:
            self.waiting -= 1
            if self.on_wait is not None:
                self.on_wait(time.perf_counter() - started)


async def open_pool(url: str, *, size: int = 8, name: str = "tenure") -> Pool:
    """Open a pool of connections on which ``jsonb`` is a Python value.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        size: the most connections it holds; it starts with one.
        name: shown by Postgres as ``application_name``.

    Raises:
        OSError: nothing listens there. Other members of `UNAVAILABLE`: it does, but cannot serve yet.
    """
    return await MeasuredPool(
        url,
        connection_class=asyncpg.Connection,
        record_class=asyncpg.Record,
        init_size=1,
        min_size=1,
        max_size=size,
        max_queries=_MAX_QUERIES,
        max_inactive_connection_lifetime=60.0,
        connect=None,
        setup=None,
        init=use_json,
        reset=None,
        loop=None,
        timeout=_CONNECT_SECONDS,
        command_timeout=30.0,
        server_settings={"application_name": name},
    )


async def use_json(connection: Connection) -> None:
    """Let ``jsonb`` parameters and columns of this connection be Python values."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + orjson.dumps(value, default=str),  # asyncpg has a UUID of its own
        decoder=lambda value: orjson.loads(value[1:]),
    )


@asynccontextmanager
async def transaction(pool: Pool, *, seconds: float = 30.0) -> AsyncIterator[Connection]:
    """Run a block in one transaction, on a connection that is given up when the block takes too long.

    asyncpg's own timeouts do not bound a frozen server (asyncpg#1326), so the connection is terminated, not asked.

    Args:
        pool: where the connection comes from; waiting for one is bounded by the same time.
        seconds: the bound for the whole block, commit included.

    Raises:
        TimeoutError: it took longer. A commit that was on its way may have happened.
    """
    connection = await pool.acquire(timeout=seconds)
    try:
        async with asyncio.timeout(seconds), connection.transaction():
            yield connection
    except Exception as error:
        if isinstance(error, TimeoutError):
            connection.terminate()
        # asyncpg reports a connection that is lost while it rolls back in place of the cancellation that made it do so.
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError from error
        raise
    finally:
        await pool.release(connection, timeout=_CONNECT_SECONDS)


def service_migrations(service: str) -> list[Path]:
    """Return the folders whose migrations make a service's schema, the kernel's first."""
    return [_ROOT / "shared" / "migrations", _ROOT / "services" / service / "migrations"]


async def migrate(url: str, folders: Sequence[Path]) -> list[str]:
    """Bring a database up to the migrations in ``folders``, each in its own transaction, in the order of their names.

    Any number of callers may start at once: an advisory lock lets one of them do the work.

    Args:
        url: a login that owns the schema.
        folders: applied one after the other; a file is known as ``<folder's parent>/<file>``.

    Returns:
        The names of the migrations that were applied by this call.

    Raises:
        MigrationError: an applied file was edited, or the database has migrations that this code does not know.
    """
    files = [(f"{folder.parent.name}/{path.name}", path) for folder in folders for path in _files(folder)]
    connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration ("
            " name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        rows = await connection.fetch("SELECT name, checksum FROM schema_migration")
        applied: dict[str, str] = {row["name"]: row["checksum"] for row in rows}
        _refuse_mismatch(applied, files, urlsplit(url).path.lstrip("/"))
        missing = [(name, path) for name, path in files if name not in applied]
        for name, path in missing:
            await _apply(connection, name, path)
        return [name for name, _ in missing]
    finally:
        await connection.close(timeout=_CONNECT_SECONDS)


async def pending_migrations(connection: Connection, service: str) -> list[str]:
    """Return the migrations of a service that this database lacks; readiness depends on there being none."""
    known = [f"{folder.parent.name}/{path.name}" for folder in service_migrations(service) for path in _files(folder)]
    applied = {row["name"] for row in await connection.fetch("SELECT name FROM schema_migration")}
    return [name for name in known if name not in applied]


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.sql"))
    for path in files:
        if not _MIGRATION_NAME.match(path.name):
            raise MigrationError(f"{path.name}: a migration is called NNNN_what_it_does.sql")
    return files


def _refuse_mismatch(applied: dict[str, str], files: Sequence[tuple[str, Path]], database: str) -> None:
    known = {name: _checksum(path) for name, path in files}
    if unknown := sorted(applied.keys() - known.keys()):
        raise MigrationError(
            f"database {database!r} is newer than this code: it has {', '.join(unknown)}. Deploy the newer code."
        )
    if edited := sorted(name for name, checksum in applied.items() if known[name] != checksum):
        raise MigrationError(
            f"{', '.join(edited)} was edited after database {database!r} had applied it. Add a new migration instead."
        )


async def _apply(connection: Connection, name: str, path: Path) -> None:
    async with connection.transaction():
        await connection.execute(await asyncio.to_thread(path.read_text, encoding="utf-8"))
        await connection.execute("INSERT INTO schema_migration (name, checksum) VALUES ($1, $2)", name, _checksum(path))
    log.info("migration applied", action="migrate", migration=name)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
