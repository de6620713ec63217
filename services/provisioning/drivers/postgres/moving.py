"""Moves of a tenant from one kind of place to another, with all its rows and hardly a pause.

======  ================================================================================================================
(none)  what is going to be made is noted, so that giving up removes it whenever it comes
copy    the target is made, closed, and filled with what the source has at one moment; the tenant works on
follow  what was written since is carried, again and again while that is much
switch  the source is closed, what is left is carried, both sides are compared
open    the environment is where it was moved to, and let in again is who may be
clear   what is elsewhere is removed
======  ================================================================================================================

Nobody works in the target before it is recorded as the environment's place. So until then the source has everything,
and a move that breaks off at any point loses nothing: it is repeated, or the source is opened again.
"""

import time
from asyncio import timeout
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from services.provisioning.drivers.port import Done, Environment, Next, Outcome, Refused, Retry, Task
from services.provisioning.drivers.postgres.carrying import Carrier, Content, Contents, carrier, tables_to_carry
from services.provisioning.drivers.postgres.place import Place
from shared.clock import Clock
from shared.postgres import Connection, Pool

LONGEST_FREEZE = timedelta(minutes=2)
"""How long a tenant may be kept out. What takes longer is broken off, and the tenant let in again."""

_LONGEST_STATEMENT = timedelta(minutes=25)
_FEW = 10_000
"""Rows that are carried so fast that those written meanwhile are no reason to go on following."""

_MOST_ROUNDS = 5
_ORDER = ("", "copy", "follow", "switch", "open", "clear")
_TURN = timedelta(seconds=5)

_UNFIT = (asyncpg.IntegrityConstraintViolationError, asyncpg.SyntaxOrAccessError, asyncpg.PLPGSQLError)
"""What says that changes cannot be repeated row by row: where two rows have swapped what is unique, say."""


class DifferenceError(Exception):
    """The rows of a table are not the same on both sides."""

    def __init__(self, table: str, source: Content, target: Content) -> None:
        alike = ", which are not the same" if source.rows == target.rows else ""
        super().__init__(f"table {table} has {source.rows:,} rows here and {target.rows:,} there{alike}")


class _TurnTakenError(Exception):
    """Somebody else is at work on the same move."""


@dataclass(frozen=True, slots=True)
class _Way:
    """A move on its way.

    Attributes:
        wanted: what the environment is to be like.
        turn: holds the lock that keeps others from moving the same environment.
    """

    task: Task
    wanted: Environment
    source: Place
    target: Place
    turn: Connection

    def next(self, stage: str, **outcome: Any) -> Next:
        return Next(stage=stage, resources=self.task.environment.resources, **outcome)


class Mover:
    """Moves one tenant at a time.

    Args:
        place_of: where an environment is, or is to be.
        pool: connections of the login that owns the application database.
        longest_freeze: see `LONGEST_FREEZE`.
    """

    def __init__(
        self,
        place_of: Callable[[Environment], Place],
        pool: Pool,
        clock: Clock,
        *,
        longest_freeze: timedelta = LONGEST_FREEZE,
    ) -> None:
        self._place_of = place_of
        self._pool = pool
        self._clock = clock
        self._longest_freeze = longest_freeze
        self._stages = {"": self._plan, "copy": self._copy, "follow": self._follow, "switch": self._switch}

    async def move(self, task: Task) -> Outcome:
        """Do one step; see `services.provisioning.drivers.Driver.move`."""
        if task.target is None:
            return Refused(code="no_target", detail="It is not said where the environment is to be.")
        try:
            async with self._turn(task.environment) as turn:
                return await self._step(task, task.target, turn)
        except _TurnTakenError:
            return Retry(detail="another step of this move has not ended yet", after=_TURN)

    async def _step(self, task: Task, target: Environment, turn: Connection) -> Outcome:
        has_arrived = task.environment.isolation == target.isolation
        if not await self._may_begin(task, turn, has_arrived=has_arrived):
            return Retry(detail="this move has gone on meanwhile")
        if has_arrived:
            return await self._arrive(task, target)
        way = _Way(task, target, self._place_of(task.environment), self._place_of(target), turn)
        return await self._stages[task.stage](way)

    async def _may_begin(self, task: Task, turn: Connection, *, has_arrived: bool) -> bool:
        """Tell whether nobody is further: what is done late by a worker that was given up would undo it."""
        if "move" not in task.notes or (not task.stage and not has_arrived):
            return True  # nothing is touched
        stage = _ORDER.index(task.stage) if task.stage else len(_ORDER)
        environment_id, move = task.environment.environment_id, task.notes["move"]
        may_begin: bool = await turn.fetchval("SELECT tenancy.begin_stage($1, $2, $3)", environment_id, move, stage)
        return may_begin

    @asynccontextmanager
    async def _turn(self, environment: Environment) -> AsyncIterator[Connection]:
        """Keep out a worker that was given up and works on all the same.

        Raises:
            _TurnTakenError: there is one inside.
        """
        async with self._pool.acquire(timeout=_TURN.total_seconds()) as turn:  # unlocks it when it takes it back
            key = f"tenure move {environment.environment_id}"
            if not await turn.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", key):
                raise _TurnTakenError
            yield turn

    async def _plan(self, way: _Way) -> Outcome:
        environment = way.task.environment
        if not await way.source.exists():
            detail = f"There is no {environment.isolation} of tenant {environment.tenant_id}."
            return Refused(code="unknown_environment", detail=detail)
        move = await way.turn.fetchval("SELECT nextval('tenancy.move_number')")
        places = sorted(_places(way.task) | {environment.isolation, way.wanted.isolation})
        return way.next("copy", notes={"move": move, "places": places})

    async def _copy(self, way: _Way) -> Outcome:
        rows, since = await self._carry_all(way)
        stage = "follow" if rows > _FEW else "switch"
        return way.next(stage, notes={"since": since, "round": 1}, said=f"copied {rows:,} rows")

    async def _follow(self, way: _Way) -> Outcome:
        since, turn = way.task.notes["since"], way.task.notes["round"]
        try:
            async with self._carrier(way) as carrying:
                moment, rows = await carrying.moment(), await carrying.change(since)
        except _UNFIT:
            return way.next("switch")
        is_enough = rows <= _FEW or turn == _MOST_ROUNDS
        notes = {"since": moment, "round": turn + 1}
        return way.next("switch" if is_enough else "follow", notes=notes, said=f"copied {rows:,} rows more")

    async def _switch(self, way: _Way) -> Outcome:
        frozen_at, started = self._clock.now(), time.perf_counter()
        try:
            async with self._frozen(way):
                rows = await self._carry_rest(way)
        except DifferenceError as difference:
            return Refused(code="verification_failed", detail=f"Not moved: {difference}.")
        except TimeoutError:
            return Retry(detail=f"not done within {self._longest_freeze.total_seconds():.0f} s without the tenant")
        milliseconds = round((time.perf_counter() - started) * 1000)
        return replace(
            way.next("open", said=f"moved {rows:,} rows, frozen for {milliseconds:,} ms"),
            notes={"rows": rows, "frozenAt": frozen_at.isoformat(), "frozenMilliseconds": milliseconds},
            has_switched=True,
        )

    async def _arrive(self, task: Task, target: Environment) -> Outcome:
        """Let in who may be in, and leave nothing elsewhere: after the switch, and where a move is given up."""
        if "move" not in task.notes:
            return Done(resources=task.environment.resources)
        await _configure(self._place_of(target), target, is_throttled=target.is_throttled)
        if task.stage == "open":
            notes = {"frozenMilliseconds": self._frozen_milliseconds(task)}
            return Next(stage="clear", resources=task.environment.resources, notes=notes)
        for isolation in sorted(_places(task) - {target.isolation}):
            await self._place_of(replace(target, isolation=isolation, resources={})).remove()
        result = {name: task.notes[name] for name in ("rows", "frozenMilliseconds") if task.stage == "clear"}
        return Done(resources=task.environment.resources, result=result)

    def _frozen_milliseconds(self, task: Task) -> int:
        """Return how long nobody was let in, what other workers and the records took included."""
        pause = self._clock.now() - datetime.fromisoformat(task.notes["frozenAt"])
        return max(int(task.notes["frozenMilliseconds"]), round(pause.total_seconds() * 1000))

    @asynccontextmanager
    async def _frozen(self, way: _Way) -> AsyncIterator[None]:
        """Keep everybody out of the source, and let in again who may be if the block does not end well."""
        environment = way.task.environment
        try:
            await _configure(way.source, environment, is_throttled=True)
            async with timeout(self._longest_freeze.total_seconds()):
                yield
        except BaseException:
            await way.turn.execute("SELECT")  # whoever has lost the lock must not open what another one has closed
            await _configure(way.source, environment, is_throttled=environment.is_throttled)
            raise

    async def _carry_rest(self, way: _Way) -> int:
        """Carry what is left, compare, and return how many rows there are; the faster ways to do it are tried first.

        Raises:
            DifferenceError: there is not the same on both sides, though everything was copied anew.
        """
        for carry in (self._change, self._delete_and_change):
            try:
                return await carry(way)
            except (DifferenceError, *_UNFIT):
                continue
        return await self._renew(way)

    async def _change(self, way: _Way) -> int:
        async with self._carrier(way) as carrying:
            await carrying.change(way.task.notes["since"])
            return await _conclude(carrying)

    async def _delete_and_change(self, way: _Way) -> int:
        """Carry changes after what was deleted is gone: what was unique of it may be another row's now."""
        async with self._carrier(way) as carrying:
            await carrying.delete()
            await carrying.change(way.task.notes["since"])
            return await _conclude(carrying)

    async def _renew(self, way: _Way) -> int:
        await self._carry_all(way)
        async with self._carrier(way) as carrying:
            return await _conclude(carrying)

    async def _carry_all(self, way: _Way) -> tuple[int, int]:
        """Make the target anew and copy everything; return how many rows that were, and as of which moment."""
        target = way.wanted
        await way.target.remove()
        await way.target.prepare(target.connections)
        await _configure(way.target, target, is_throttled=True)
        async with self._carrier(way) as carrying:
            moment = await carrying.moment()
            return await carrying.copy(), moment

    @asynccontextmanager
    async def _carrier(self, way: _Way) -> AsyncIterator[Carrier]:
        tables = await tables_to_carry(way.source, way.target)
        tenant_id = way.task.environment.tenant_id
        async with carrier(
            way.source, way.target, tenant_id=tenant_id, tables=tables, within=_LONGEST_STATEMENT
        ) as carrying:
            yield carrying


async def _conclude(carrying: Carrier) -> int:
    """Delete what the source has no more, let sequences go on, compare, and return how many rows there are.

    Raises:
        DifferenceError: there is not the same on both sides.
    """
    await carrying.advance_sequences()
    if await carrying.has_surplus():
        await carrying.delete()
    contents = await carrying.contents()
    if keyless := carrying.keyless(_differing(contents)):
        await carrying.replace(keyless)
        contents = await carrying.contents()
    for name in _differing(contents):
        raise DifferenceError(name, *contents[name])
    return sum(source.rows for source, _ in contents.values())


def _differing(contents: Contents) -> list[str]:
    return [name for name, (source, target) in contents.items() if source != target]


async def _configure(place: Place, environment: Environment, *, is_throttled: bool) -> None:
    await place.configure(connections=environment.connections, is_throttled=is_throttled)


def _places(task: Task) -> set[str]:
    """Return the isolations of all that the move may have made or left."""
    return set(task.notes.get("places", ()))
