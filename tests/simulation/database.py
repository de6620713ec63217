"""Real databases behind a gate that lets one operation through at a time, the next one chosen by the seed.

Each database has one real connection, which is leased to one user at a time. So a statement never waits for a lock, and
with one operation under way at a time in the whole simulation its answer cannot overtake anything. Of those that wait
for a connection or with a statement, chance picks who is next, and only when nothing else is ready: everybody who wants
something has said so by then.

What is not simulated because of that: two transactions of one database that overlap. Those are tested on real servers.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, Self

import asyncpg

from tests.simulation.loop import VirtualLoop
from tests.simulation.process import Process
from tests.simulation.trace import Trace

RealConnection = Any
"""``asyncpg.Connection``, which is generic for type checkers only."""

_EMPTY: Mapping[str, Any] = {"fetch": (), "fetchval": None, "fetchrow": None, "execute": "SELECT 0"}


@dataclass(frozen=True)
class Poll:
    """A statement that services repeat in case there is something to do.

    Attributes:
        begins: how its text begins, white space aside.
        soonest: asks when it will find something; null for never.
        now: the place of the time among the parameters; None where it finds something at any time, or never.
    """

    begins: str
    soonest: str
    now: int | None


OUTBOX = Poll("UPDATE outbox SET due_at = $1 WHERE id IN", "SELECT min(due_at) FROM outbox", 1)
TIMERS = Poll(
    "SELECT * FROM workflow WHERE id IN ( SELECT id FROM ( (SELECT workflow_id AS id, due_at FROM step WHERE due_at <=",
    "SELECT least((SELECT min(due_at) FROM step), (SELECT min(deadline_at) FROM workflow))",
    0,
)
REVIEWS = Poll(
    "SELECT name_key FROM customer WHERE review_at <=",
    "SELECT greatest(min(review_at), '2000-01-01') FROM customer WHERE review_at < 'infinity'",
    0,
)
LEFT_ACCOUNTS = Poll(
    "SELECT account.*, pool_id, pool.client_id, provider.kind IS NOT NULL AS has_provider",
    "SELECT min(next_attempt_at) FROM provider_account WHERE member_id IS NULL",
    0,
)
DUE_POOLS = Poll(
    "SELECT pool.*, provider.tenant_id IS NOT NULL AS is_wanted", "SELECT min(next_attempt_at) FROM provider_pool", 0
)
DUE_JOBS = Poll("WITH room AS ( SELECT * FROM unnest", "SELECT min(due_at) FROM job", 2)
UNTOLD_JOBS = Poll(
    "WITH untold AS ( SELECT job_id FROM job WHERE due_at IS NOT NULL AND told_at <=",
    "SELECT min(told_at) FROM job WHERE due_at IS NOT NULL",
    1,
)
DUE_INVOICES = Poll(
    "SELECT tenant_id FROM account WHERE look_at <=", "SELECT greatest(min(look_at), '2000-01-01') FROM account", 0
)
DUE_LIMITS = Poll(
    "SELECT tenant_id FROM spending_limit WHERE look_at <=",
    "SELECT greatest(min(look_at), '2000-01-01') FROM spending_limit",
    0,
)
UNBOOKED = Poll(
    "SELECT EXISTS (SELECT FROM invoice WHERE number >",
    "SELECT min(issued_at) FROM invoice WHERE number > (SELECT last FROM booking)",
    None,
)
BEHIND = Poll(
    "SELECT tenant_id FROM debtor WHERE overdue <>",
    "SELECT min(overdue_since) FROM debtor WHERE overdue <> 'clear'",
    None,
)
POLLS = (
    OUTBOX,
    TIMERS,
    REVIEWS,
    LEFT_ACCOUNTS,
    DUE_POOLS,
    DUE_JOBS,
    UNTOLD_JOBS,
    DUE_INVOICES,
    DUE_LIMITS,
    UNBOOKED,
    BEHIND,
)
"""Asked several times in a second of virtual time. Between two changes of a database their answer depends on the time

alone, so they are really asked only when they may find something.
"""


class Troubles(Protocol):
    """What may go wrong with a database."""

    def refuses(self, database: str) -> Exception | None:
        """Return why no connection can be had now, or None."""
        ...

    def statement(self, database: str, *, only_reads: bool) -> Exception | None:
        """Return what a statement fails with, or None."""
        ...

    def commit(self, database: str) -> str | None:
        """Return ``happened`` or ``absent`` where the committer is not to learn which; else None."""
        ...

    def delay(self, database: str) -> float:
        """Return the seconds that it takes to get a connection."""
        ...


Observer = Callable[["Lease", str, Sequence[Any], Any], None]
"""Sees every statement that succeeded: on what, its beginning, its parameters and its result."""


@dataclass(eq=False)
class Database:
    """One real database.

    Attributes:
        changes: how often something may have been written.
        soonest: of each poll, when it will find something, as of which count of changes.
        polls_saved: how many were not worth asking.
    """

    name: str
    connection: RealConnection
    holder: "Lease | None" = None
    changes: int = 0
    soonest: dict[str, tuple[int, datetime | None]] = field(default_factory=dict)
    polls_saved: int = 0

    def forget(self) -> None:
        """Begin anew, with other contents."""
        self.holder = None
        self.changes += 1
        self.soonest.clear()
        self.polls_saved = 0


@dataclass(eq=False)
class _Turn:
    """Somebody who waits at the gate."""

    lease: "Lease"
    work: Callable[[], Awaitable[Any]] | None
    done: asyncio.Future[Any]


class Gate:
    """Lets those through who wait, one at a time.

    Args:
        chance: picks the next one.
        world: the context in which real operations run, so that they belong to no process.
    """

    def __init__(self, loop: VirtualLoop, chance: random.Random, trace: Trace) -> None:
        self._loop = loop
        self._chance = chance
        self.trace = trace
        self._waiting: list[_Turn] = []
        self.operations = 0

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits and nothing is under way."""
        return not self._waiting and not self._loop.under_way

    def wait(self, lease: "Lease", work: Callable[[], Awaitable[Any]] | None) -> asyncio.Future[Any]:
        """Queue up for a connection, or on one for a statement."""
        turn = _Turn(lease, work, self._loop.create_future())
        self._waiting.append(turn)
        return turn.done

    def in_any_order(self, rows: Sequence[Any]) -> list[Any]:
        """Put rows that were asked for in no order into one that the seed chooses, not the history of the pages."""
        some = sorted(rows, key=lambda row: repr(tuple(row.values())))
        self._chance.shuffle(some)
        return some

    def takes_at_once(self, lease: "Lease") -> bool:
        """Take a connection that nobody has and nobody else waits for, without queueing up."""
        if lease.database.holder is not None or any(turn.lease.database is lease.database for turn in self._waiting):
            return False
        lease.database.holder = lease
        return True

    def advance(self) -> bool:
        """Let the next one through, if there is one; called when nothing else is ready."""
        self._waiting = [turn for turn in self._waiting if not turn.done.done()]
        able = [turn for turn in self._waiting if turn.work is not None or turn.lease.database.holder is None]
        if not able:
            return False
        turn = able[0] if len(able) == 1 else self._chance.choice(able)
        self._waiting.remove(turn)
        if turn.work is None:
            turn.lease.database.holder = turn.lease
            turn.done.set_result(None)
        else:
            self._begin(turn.work, turn.done)
        return True

    def _begin(self, work: Callable[[], Awaitable[Any]], done: asyncio.Future[Any]) -> None:
        """Begin a real operation now; whoever waits for it may have gone away before it ends."""
        self._loop.under_way += 1
        self.operations += 1
        task = self._loop.create_task(_awaited(work))
        task.add_done_callback(lambda ended: self._ended(ended, done))

    def _ended(self, task: asyncio.Task[Any], done: asyncio.Future[Any]) -> None:
        self._loop.under_way -= 1
        error = task.exception()
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(task.result())


async def _awaited(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()


class Pool:
    """What a service takes for its pool of connections."""

    def __init__(
        self, database: Database, gate: Gate, troubles: Troubles, process: Process | None, observe: "Observer"
    ) -> None:
        self.database = database
        self._gate = gate
        self._troubles = troubles
        self._process = process
        self._observe = observe
        self._leases: dict[Lease, None] = {}
        if process is not None:
            process.on_death.append(self._drop)

    def acquire(self, *, timeout: float | None = None) -> "_Acquisition":
        """Take a connection, as ``await`` or as ``async with``."""
        return _Acquisition(self, timeout)

    async def release(self, lease: "Lease", *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Give a connection back, which takes no time here."""
        del timeout
        self._leases.pop(lease, None)
        lease.end()

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        """Run a statement on any connection."""
        async with self.acquire() as lease:
            return await lease.execute(query, *args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        """Return rows, on any connection."""
        async with self.acquire() as lease:
            return await lease.fetch(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        """Return a value, on any connection."""
        async with self.acquire() as lease:
            return await lease.fetchval(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        """Return a row, on any connection."""
        async with self.acquire() as lease:
            return await lease.fetchrow(query, *args, **options)

    async def close(self) -> None:
        """Do nothing: the real connections outlive every simulation."""

    def terminate(self) -> None:
        """Cut all connections."""
        self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def take(self, timeout: float | None) -> "Lease":  # noqa: ASYNC109 - asyncpg's own
        """Wait for a connection."""
        if self._process is not None:
            self._process.require_alive()
        name = self.database.name
        seconds = self._troubles.delay(name)
        if seconds > 0:
            async with asyncio.timeout(timeout):
                await asyncio.sleep(seconds)
        if (refusal := self._troubles.refuses(name)) is not None:
            raise refusal
        lease = Lease(self.database, self._gate, self._troubles, self._process, self._observe)
        self._leases[lease] = None
        if self._gate.takes_at_once(lease):
            return lease
        try:
            async with asyncio.timeout(None if timeout is None else max(0.0, timeout - seconds)):
                await self._gate.wait(lease, None)
        except BaseException:
            self._leases.pop(lease, None)
            lease.end()
            raise
        return lease

    def cut(self) -> None:
        """Let every connection of this pool break."""
        for lease in self._leases:
            lease.terminate()

    def _drop(self) -> None:
        for lease in self._leases:
            lease.end()
        self._leases.clear()


class _Acquisition:
    def __init__(self, pool: Pool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lease: Lease | None = None

    def __await__(self) -> Any:
        return self._pool.take(self._timeout).__await__()

    async def __aenter__(self) -> "Lease":
        self._lease = await self._pool.take(self._timeout)
        return self._lease

    async def __aexit__(self, *_: object) -> None:
        assert self._lease is not None
        await self._pool.release(self._lease)


class Lease:
    """What a service takes for a connection, from when it was acquired until it is released.

    Attributes:
        on_commit: called with the transaction's notes when it has been committed, whoever still knows of it.
        notes: what observers want to know of this transaction if it is committed.
    """

    def __init__(
        self, database: Database, gate: Gate, troubles: Troubles, process: Process | None, observe: "Observer"
    ) -> None:
        self.database = database
        self._observe = observe
        self.notes: list[Callable[[], None]] = []
        self._gate = gate
        self._troubles = troubles
        self._process = process
        self._wanted: list[str] = []
        self._has_begun = False
        self._depth = 0
        self._is_busy = False
        self._is_closed = False
        self._has_ended = False

    def transaction(self, *, isolation: str | None = None, **_: Any) -> "_Transaction":
        """Return a transaction, or within one a savepoint, for ``async with``."""
        return _Transaction(self, isolation)

    async def fetch(self, query: str, *args: Any, **_: Any) -> Any:
        """Return all rows."""
        return await self._run("fetch", query, args)

    async def fetchval(self, query: str, *args: Any, **_: Any) -> Any:
        """Return the first value of the first row."""
        return await self._run("fetchval", query, args)

    async def fetchrow(self, query: str, *args: Any, **_: Any) -> Any:
        """Return the first row."""
        return await self._run("fetchrow", query, args)

    async def execute(self, query: str, *args: Any, **_: Any) -> Any:
        """Return the statement's tag."""
        return await self._run("execute", query, args)

    async def executemany(self, query: str, args: Sequence[Sequence[Any]], **_: Any) -> Any:
        """Run a statement once for each row of parameters."""
        return await self._run("executemany", query, (list(args),))

    def is_closed(self) -> bool:
        """Tell whether the connection is gone."""
        return self._is_closed

    def terminate(self) -> None:
        """Cut the connection; what it had begun is rolled back."""
        self._is_closed = True

    def end(self) -> None:
        """Let the next one have the real connection, as soon as nothing of this one is under way on it."""
        if self._has_ended:
            return
        self._has_ended = self._is_closed = True
        if self.database.holder is self and not self._is_busy:
            self._clean_up()

    def _clean_up(self) -> None:
        """Roll back what nobody will commit any more; the database is taken until that is done."""
        if not self._has_begun:
            self.database.holder = None
            return
        self._has_begun = False
        self._gate.trace.add(self.database.name, "rolled back, connection gone")
        self._gate.wait(self, self._roll_back_and_leave)

    async def _roll_back_and_leave(self) -> None:
        await self.database.connection.execute("ROLLBACK")
        self.database.holder = None

    async def _run(self, method: str, query: str, args: tuple[Any, ...]) -> Any:
        if self._process is not None:
            self._process.require_alive()
        self._require_open()
        about = _about(query)
        if about.poll is not None and not await self._finds_something(about.poll, args):
            return _EMPTY[method]
        if (error := self._troubles.statement(self.database.name, only_reads=about.only_reads)) is not None:
            if isinstance(error, asyncpg.PostgresConnectionError):
                self.terminate()
            raise error
        if not about.only_reads:
            self.database.changes += 1
        result = await self._gate.wait(self, lambda: self._perform(method, query, args))
        if about.is_unordered and method == "fetch" and len(result) > 1:
            result = self._gate.in_any_order(result)
        self._gate.trace.add(self.database.name, method, about.beginning, _size(result))
        self._observe(self, about.beginning, args, result)
        return result

    def _require_open(self) -> None:
        if self._is_closed:
            raise asyncpg.InterfaceError("cannot perform operation: connection is closed")

    async def _perform(self, method: str, query: str, args: tuple[Any, ...]) -> Any:
        self._is_busy = True
        try:
            await self._begin_if_wanted()
            return await getattr(self.database.connection, method)(query, *args)
        finally:
            self._idle_again()

    async def _begin_if_wanted(self) -> None:
        for statement in self._wanted:
            await self.database.connection.execute(statement)
            self._has_begun = True
        self._wanted.clear()

    def _idle_again(self) -> None:
        self._is_busy = False
        if self._has_ended:
            self._clean_up()

    async def _finds_something(self, poll: Poll, args: tuple[Any, ...]) -> bool:
        """Tell whether a poll may find something now."""
        database = self.database
        known = database.soonest.get(poll.begins)
        if known is None or known[0] != database.changes:
            changes = database.changes
            soonest = await self._gate.wait(self, lambda: self._perform("fetchval", poll.soonest, ()))
            known = database.soonest[poll.begins] = (changes, soonest)
        is_due = known[1] is not None and (poll.now is None or known[1] <= args[poll.now])
        database.polls_saved += not is_due
        return is_due

    # What transactions need

    async def begin(self, isolation: str | None) -> None:
        """Begin a transaction, in front of its first statement, or set a savepoint."""
        if self._process is not None:
            self._process.require_alive()
        self._require_open()
        if self._depth == 0:
            self.notes = []
            self._wanted.append(f"BEGIN ISOLATION LEVEL {isolation}" if isolation else "BEGIN")
        else:
            self._wanted.append(f"SAVEPOINT level_{self._depth}")
        self._depth += 1

    async def commit(self) -> None:
        """Commit, or release the savepoint; what becomes of the answer is chance's."""
        if self._process is not None:
            self._process.require_alive()
        self._depth -= 1
        self._require_open()
        if self._depth > 0:
            self._wanted.append(f"RELEASE SAVEPOINT level_{self._depth}")
            return
        self._wanted.clear()
        if not self._has_begun:
            return
        trouble = self._troubles.commit(self.database.name)
        if trouble != "absent":
            await self._gate.wait(self, self._commit)
        self._gate.trace.add(self.database.name, "commit", trouble or "")
        if trouble is not None:
            self.terminate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    async def roll_back(self) -> None:
        """Roll back, to the savepoint if there is one."""
        if self._process is not None and self._process.is_dead:
            return
        self._depth -= 1
        self._require_open()
        if self._depth > 0:
            self._wanted.append(f"ROLLBACK TO SAVEPOINT level_{self._depth}")
            return
        self._wanted.clear()
        if self._has_begun:
            await self._gate.wait(self, self._roll_back)
            self._gate.trace.add(self.database.name, "rollback")

    async def _commit(self) -> None:
        self._is_busy = True
        try:
            self._has_begun = False
            await self.database.connection.execute("COMMIT")
            for note in self.notes:
                note()
        finally:
            self._idle_again()

    async def _roll_back(self) -> None:
        self._is_busy = True
        try:
            self._has_begun = False
            await self.database.connection.execute("ROLLBACK")
        finally:
            self._idle_again()


class _Transaction:
    def __init__(self, lease: Lease, isolation: str | None) -> None:
        self._lease = lease
        self._isolation = isolation

    async def __aenter__(self) -> None:
        await self._lease.begin(self._isolation)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self._lease.commit()
        else:
            await self._lease.roll_back()


@dataclass(frozen=True)
class _About:
    poll: Poll | None
    beginning: str
    only_reads: bool
    is_unordered: bool


_known: dict[str, _About] = {}
_ENDING = 120
"""Characters at the end of a statement among which its own ORDER BY is; one further in front is a part's."""


def _about(query: str) -> _About:
    """Return what is known of a statement from its text."""
    if query not in _known:
        text = re.sub(r"\s+", " ", query).strip()
        poll = next((each for each in POLLS if text.startswith(each.begins)), None)
        _known[query] = _About(
            poll,
            text[:60],
            only_reads=text.startswith("SELECT") and "FOR UPDATE" not in text,
            # What an INSERT returns comes as it was inserted; there is no promise of that, and no exception to it.
            is_unordered=not text.startswith("INSERT") and "ORDER BY" not in text[-_ENDING:],
        )
    return _known[query]


def _size(result: Any) -> object:
    return len(result) if isinstance(result, list) else result if isinstance(result, int) else ""
