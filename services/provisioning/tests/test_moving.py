"""A tenant's way from one kind of place to another: nothing lost, nobody else's touched, and always a way back."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.databases import DatabaseUrls
from deploy.local.throwaway import Server
from services.provisioning.drivers import Done, Environment, Refused, Retry
from services.provisioning.drivers.postgres import moving
from services.provisioning.drivers.postgres.carrying import ExpiredSessionError, MissingTableError, quoted
from services.provisioning.drivers.postgres.driver import PostgresDriver
from services.provisioning.drivers.postgres.installing import install
from services.provisioning.drivers.postgres.moving import Mover
from services.provisioning.tests.moves import ROWS, SAMPLE, THING, Fuse, Killed, Moves, Travelling
from shared.clock import SystemClock
from shared.postgres import open_pool

PAIRS = list(combinations(("pool", "bridge", "silo"), 2))
ROUND = [("pool", "bridge"), ("bridge", "silo"), ("silo", "pool")]


@pytest.fixture
async def moves(application_urls: DatabaseUrls, postgres_server: Server, tmp_path: Path) -> AsyncIterator[Moves]:
    """Environments in an application database with tables of a team's own."""
    folder = tmp_path / "sample" / "migrations"
    folder.mkdir(parents=True)
    (folder / "0001_sample.sql").write_text(SAMPLE)
    await install(application_urls.owner, [folder])
    pool = await open_pool(application_urls.owner)
    clock = SystemClock()
    driver = PostgresDriver(pool, url=application_urls.owner, clock=clock, migrations=[folder])
    made = Moves(driver, partial(Mover, pool=pool, clock=clock), pool, postgres_server.admin_url)
    yield made
    await made.close()
    pool.terminate()


@pytest.mark.parametrize(("here", "there"), PAIRS)
async def test_an_environment_is_moved_there_and_back_with_all_that_is_in_it(
    moves: Moves, here: str, there: str
) -> None:
    neighbours = [await moves.make(f"b of {isolation}", isolation) for isolation in (here, there)]
    before = [await moves.content(neighbour) for neighbour in neighbours]
    environment = await moves.make("a", here)
    content = await moves.content(environment)

    moved = await moves.move(environment, there)

    assert moved.isolation == there
    assert await moves.content(moved) == content
    assert await moves.places(moved) == [there]
    assert await moves.is_open(moved)
    back = await moves.move(moved, here)
    assert await moves.content(back) == content
    assert await moves.places(back) == [here]
    assert await moves.is_open(back)
    assert [await moves.content(neighbour) for neighbour in neighbours] == before
    assert all([await moves.is_open(neighbour) for neighbour in neighbours])


async def test_whoever_asked_is_told_how_much_was_moved_and_how_long_the_freeze_was(moves: Moves) -> None:
    travelling = moves.travel(await moves.make("a", "pool"), "bridge")

    result = await travelling.finish()

    assert result["rows"] == 300 + 4 + 16 + 2 + 5
    assert 0 < result["frozenMilliseconds"] < 60_000
    assert travelling.said[-1].startswith("moved 327 rows, frozen for ")


@pytest.mark.parametrize(("here", "there"), ROUND)
async def test_what_is_written_while_rows_are_copied_is_moved_too(
    moves: Moves, here: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mover, "_delete_and_change", None)
    monkeypatch.setattr(Mover, "_renew", None)  # all would be there in the end, but nobody could work for too long
    environment = await moves.make("a", here)
    session, earlier = [await moves.enter(environment) for _ in range(2)]
    open_before = earlier.transaction()
    await open_before.start()
    await earlier.execute("INSERT INTO note (body) VALUES ('begun before the copy')")
    async with earlier.transaction():
        await earlier.execute("INSERT INTO note (body) VALUES ('in a subtransaction of before')")
        await earlier.execute("UPDATE member SET above = NULL WHERE name = 'dan'")
    travelling = moves.travel(environment, there)
    await travelling.until("switch")

    await session.execute(
        f"""
        INSERT INTO note (body) VALUES ('late');
        UPDATE note SET body = 'changed' WHERE body LIKE 'no. 1%';
        DELETE FROM note WHERE body LIKE 'no. 2%';
        INSERT INTO member (name) VALUES ('eve');
        INSERT INTO {THING} (member_id, "tags ,{{x") SELECT member_id, '{{late}}' FROM member WHERE name = 'eve';
        UPDATE {THING} SET member_id = (SELECT member_id FROM member WHERE name = 'eve') WHERE raw IS NOT NULL;
        DELETE FROM member WHERE name = 'cyd';
        DELETE FROM ticket;
        INSERT INTO ticket DEFAULT VALUES;
        INSERT INTO event (said) VALUES ('late')
        """
    )
    async with earlier.transaction():
        await earlier.execute("INSERT INTO note (body) VALUES ('in a subtransaction of after')")
    await open_before.commit()
    content = await moves.content(environment)
    await travelling.finish()

    assert await moves.content(travelling.environment) == content
    assert {"late", "changed", "begun before the copy", "in a subtransaction of before"} <= set(
        await bodies(moves, travelling.environment)
    )


async def test_what_was_not_committed_before_the_freeze_never_is(moves: Moves) -> None:
    environment = await moves.make("a", "pool")
    session = await moves.enter(environment)
    travelling = moves.travel(environment, "bridge")
    await travelling.until("switch")
    await session.execute("BEGIN; INSERT INTO note (body) VALUES ('hanging')")

    await travelling.finish()

    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError)):
        await session.execute("COMMIT")
    assert "hanging" not in await bodies(moves, travelling.environment)


async def test_nobody_gets_in_anywhere_from_the_freeze_until_the_move_is_recorded(moves: Moves) -> None:
    environment = await moves.make("a", "pool")
    travelling = moves.travel(environment, "bridge")
    await travelling.until("switch")
    assert await moves.is_open(environment)
    assert not await moves.is_open(replace(environment, isolation="bridge"))

    await travelling.step()

    assert not await moves.is_open(environment)
    assert not await moves.is_open(travelling.environment)
    await travelling.step()
    assert await moves.is_open(travelling.environment)


@pytest.mark.parametrize("there", ["bridge", "silo"])
async def test_a_suspended_environment_stays_suspended_wherever_it_is(moves: Moves, there: str) -> None:
    environment = await moves.make("a", "pool", is_throttled=True, connections=3)
    content = await moves.content(environment)

    moved = await moves.move(environment, there)

    assert await moves.content(moved) == content
    assert not await moves.is_open(moved)
    travelling = moves.travel(moved, "pool")
    await travelling.until("switch")
    await travelling.give_up()
    assert not await moves.is_open(moved)
    (inspection,) = await moves.driver.inspect([moved])
    assert inspection.is_throttled


@pytest.mark.parametrize(
    ("here", "there", "stride"), [("pool", "bridge", 3), ("bridge", "pool", 4), ("pool", "silo", 7)]
)
async def test_a_move_survives_that_its_worker_is_killed_anywhere(
    moves: Moves, here: str, there: str, stride: int
) -> None:
    """Each stage is begun again and again, and each time gets a bit further."""
    environment = await moves.make("a", here)
    content = await moves.content(environment)
    travelling = moves.travel(environment, there)
    kills = 0

    while not isinstance(travelling.outcome, Done):
        kills += await step_at_last(moves, travelling, stride)

    assert kills > 100 / stride
    assert await moves.content(travelling.environment) == content
    assert await moves.places(travelling.environment) == [there]
    assert await moves.is_open(travelling.environment)


async def step_at_last(moves: Moves, travelling: Travelling, stride: int) -> int:
    """Try a step that is killed until it is not, and return how many times it was."""
    for kills in range(1000):
        fuse = Fuse(stride * kills)
        try:
            await travelling.step(moves.fused(fuse))
        except Killed:
            continue
        return kills
    raise AssertionError


async def test_a_step_that_was_done_but_not_recorded_is_done_again(moves: Moves) -> None:
    environment = await moves.make("a", "bridge")
    content = await moves.content(environment)
    travelling = moves.travel(environment, "pool")

    while not isinstance(travelling.outcome, Done):
        await moves.mover.move(travelling.task)
        await travelling.step()

    assert await moves.content(travelling.environment) == content
    assert await moves.places(travelling.environment) == ["pool"]


@pytest.mark.parametrize("there", ["pool", "silo"])
async def test_a_move_can_be_given_up_at_every_stage(moves: Moves, there: str) -> None:
    environment = await moves.make("a", "bridge")
    content = await moves.content(environment)

    for stage in ("", "copy", "switch"):
        travelling = moves.travel(environment, there)
        await travelling.until(stage)
        assert await travelling.give_up() == {}
        assert await moves.places(environment) == ["bridge"]
        assert await moves.is_open(environment)

    await travelling.until("switch")
    await moves.mover.move(replace(travelling.task, stage="copy"))
    await moves.mover.move(travelling.task)  # its worker does not live to tell that it has switched
    await travelling.give_up()
    assert await moves.places(environment) == ["bridge"]
    assert await moves.is_open(environment)
    assert await moves.content(environment) == content


async def test_a_move_is_given_up_wherever_its_worker_was_killed(moves: Moves) -> None:
    environment = await moves.make("a", "pool")
    content = await moves.content(environment)

    for stage, lefts in (("copy", range(0, 70, 6)), ("switch", range(0, 90, 8))):
        for left in lefts:
            travelling = moves.travel(environment, "bridge")
            await travelling.until(stage)
            with suppress(Killed):
                await travelling.step(moves.fused(Fuse(left)))
            if travelling.environment == environment:
                await travelling.give_up()
                assert await moves.places(environment) == ["pool"]
                assert await moves.is_open(environment)

    assert await moves.content(environment) == content


@pytest.mark.parametrize("stage", ["open", "clear"])
async def test_a_move_is_taken_back_after_it_has_switched(moves: Moves, stage: str) -> None:
    environment = await moves.make("a", "pool")
    content = await moves.content(environment)
    travelling = moves.travel(environment, "silo")
    await travelling.until(stage)
    with suppress(Killed):
        await travelling.step(moves.fused(Fuse(3)))  # what is left of the pool is half removed, or not at all

    back = Travelling(moves.mover, travelling.environment, "pool")
    back.notes = travelling.notes
    await back.finish()

    assert await moves.content(environment) == content
    assert await moves.places(environment) == ["pool"]
    assert await moves.is_open(environment)


async def test_whoever_fails_while_the_tenant_is_kept_out_lets_it_in_again(moves: Moves) -> None:
    environment = await moves.make("a", "pool")
    travelling = moves.travel(environment, "bridge")
    await travelling.until("switch")

    def broken(there: Environment, place: Any) -> Any:
        return _Broken(place) if there.isolation == "bridge" else place

    with pytest.raises(OSError, match="gone"):
        await travelling.step(moves.wrapped(broken))

    assert await moves.is_open(environment)


class _Broken:
    def __init__(self, place: Any) -> None:
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place, name)

    @asynccontextmanager
    async def session(self, *, writes: bool) -> AsyncIterator[Any]:
        async with self._place.session(writes=writes) as session:
            yield session
            raise OSError("gone")


async def test_a_freeze_that_takes_too_long_is_broken_off(moves: Moves) -> None:
    environment = await moves.make("a", "pool")
    travelling = moves.travel(environment, "bridge")
    await travelling.until("switch")
    hasty = moves.mover_with(longest_freeze=timedelta(milliseconds=1))

    outcome = await travelling.step(hasty)

    assert isinstance(outcome, Retry)
    assert "without the tenant" in outcome.detail
    assert await moves.is_open(environment)
    await travelling.finish()


async def test_a_row_that_was_tampered_with_on_the_way_is_found_and_everything_copied_anew(moves: Moves) -> None:
    environment = await moves.make("a", "bridge")
    content = await moves.content(environment)
    travelling = moves.travel(environment, "silo")
    await travelling.until("switch")
    async with moves.driver.place(travelling.target).session(writes=True) as session:
        assert await session.execute("UPDATE note SET body = 'No. 7' WHERE body LIKE 'no. 7\t%'") == "UPDATE 1"

    await travelling.finish()

    assert await moves.content(travelling.environment) == content


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ("NEW.body := NEW.body || '!'; RETURN NEW", "300 rows here and 300 there, which are not the same"),
        ("RETURN CASE WHEN NEW.body LIKE 'no. 7%' THEN NULL ELSE NEW END", "300 rows here and 289 there"),
    ],
)
async def test_a_move_is_refused_where_rows_do_not_arrive_as_they_were(moves: Moves, change: str, detail: str) -> None:
    environment = await moves.make("a", "bridge")
    content = await moves.content(environment)
    await moves.execute(
        f"""
        CREATE FUNCTION app.tamper() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {change}; END $$;
        CREATE TRIGGER tamper BEFORE INSERT ON app.note FOR EACH ROW EXECUTE FUNCTION app.tamper()
        """
    )
    travelling = moves.travel(environment, "pool")
    await travelling.until("switch")

    outcome = await travelling.step()

    assert outcome == Refused(code="verification_failed", detail=f"Not moved: table note has {detail}.")
    assert await moves.is_open(environment)
    await travelling.give_up()
    assert await moves.places(environment) == ["bridge"]
    assert await moves.content(environment) == content


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM member WHERE name = 'cyd'; INSERT INTO member (name) VALUES ('cyd')",
        """
        UPDATE member SET name = '' WHERE name = 'ada';
        UPDATE member SET name = 'ada' WHERE name = 'bob';
        UPDATE member SET name = 'bob' WHERE name = ''
        """,
        f"DELETE FROM {THING}; DELETE FROM member; {ROWS}",
    ],
)
async def test_unique_values_may_change_their_rows_on_the_way(moves: Moves, change: str) -> None:
    environment = await moves.make("a", "pool")
    travelling = moves.travel(environment, "bridge")
    await travelling.until("switch")
    session = await moves.enter(environment)
    await session.execute(change)
    content = await moves.content(environment)

    await travelling.finish()

    assert await moves.content(travelling.environment) == content


async def test_what_is_written_all_the_time_is_followed_before_the_tenant_is_kept_out(
    moves: Moves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_FEW", 3)
    environment = await moves.make("a", "pool")
    session = await moves.enter(environment)
    travelling = moves.travel(environment, "bridge")
    await travelling.until("follow")
    for rows in (5, 4, 2):
        assert travelling.stage == "follow"
        await session.execute("INSERT INTO note (body) SELECT 'late' FROM generate_series(1, $1)", rows)
        await travelling.step()

    assert travelling.said[1:] == ["copied 5 rows more", "copied 4 rows more", "copied 2 rows more"]
    assert travelling.stage == "switch"
    content = await moves.content(environment)
    await travelling.finish()
    assert await moves.content(travelling.environment) == content


async def test_sequences_go_on_after_what_they_have_given_and_leave_others_alone(moves: Moves) -> None:
    environment = await moves.make("a", "bridge")
    session = await moves.enter(environment)
    await session.execute("INSERT INTO ticket SELECT FROM generate_series(1, 998)")
    await session.execute("INSERT INTO member (name) SELECT n::text FROM generate_series(1, 500) AS n")
    neighbour = await moves.enter(await moves.make("b", "pool"))

    moved = await moves.move(environment, "pool")

    for tenant in (await moves.enter(moved), neighbour):
        assert await tenant.fetchval("INSERT INTO ticket DEFAULT VALUES RETURNING ticket_id") > 1000
        assert await tenant.fetchval("INSERT INTO member (name) VALUES ('new') RETURNING member_id") > 504
    back = await moves.move(moved, "bridge")
    session = await moves.enter(back)
    ticket_id = await neighbour.fetchval("INSERT INTO ticket DEFAULT VALUES RETURNING ticket_id")
    assert await session.fetchval("INSERT INTO ticket DEFAULT VALUES RETURNING ticket_id") < ticket_id + 200


async def test_only_one_at_a_time_works_on_a_move(moves: Moves) -> None:
    travelling = moves.travel(await moves.make("a", "pool"), "bridge")
    await travelling.step()

    outcomes = await asyncio.gather(moves.mover.move(travelling.task), moves.mover.move(travelling.task))

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Next", "Retry"]


async def test_a_worker_that_wakes_up_too_late_destroys_nothing(moves: Moves) -> None:
    environment = await moves.make("a", "pool")
    content = await moves.content(environment)
    travelling = moves.travel(environment, "bridge")
    await travelling.step()
    late = []
    while not isinstance(travelling.outcome, Done):
        late.append(travelling.task)
        await travelling.step()
        outcomes = [await moves.mover.move(task) for task in late[:-1]]
        assert all(isinstance(outcome, Retry) for outcome in outcomes)
    assert await moves.content(travelling.environment) == content
    late.append(replace(late[0], target=environment, stage=""))

    back = await moves.move(travelling.environment, "pool")

    outcomes = [await moves.mover.move(task) for task in late]
    assert all(isinstance(outcome, Retry) for outcome in outcomes)
    assert await moves.content(back) == content
    assert await moves.is_open(back)


async def test_a_session_that_expires_on_the_way_is_not_taken_for_an_empty_table(moves: Moves) -> None:
    environment = await moves.make("a", "pool")
    travelling = moves.travel(environment, "bridge")
    await travelling.until("switch")

    for expired in ("pool", "bridge"):
        mover = moves.wrapped(partial(_expiring, moves, expired))
        with pytest.raises((ExpiredSessionError, asyncpg.InsufficientPrivilegeError)):
            await travelling.step(mover)
        assert await moves.is_open(environment)


def _expiring(moves: Moves, expired: str, environment: Environment, place: Any) -> Any:
    return _Expiring(place, moves) if environment.isolation == expired else place


class _Expiring(_Broken):
    def __init__(self, place: Any, moves: Moves) -> None:
        super().__init__(place)
        self._moves = moves

    @asynccontextmanager
    async def session(self, *, writes: bool) -> AsyncIterator[Any]:
        async with self._place.session(writes=writes) as session:
            login = await session.fetchval("SELECT session_user")
            await self._moves.execute(f"UPDATE tenancy.login SET expires_at = now() WHERE login = '{login}'")
            yield session


async def test_an_environment_that_is_not_there_is_not_moved(moves: Moves) -> None:
    environment = await moves.make("a", "pool")
    await moves.driver.place(environment).remove()

    outcome = await moves.travel(environment, "bridge").step()

    assert isinstance(outcome, Refused)
    assert outcome.code == "unknown_environment"


async def test_nothing_is_moved_where_there_is_no_room_for_all_of_it(moves: Moves) -> None:
    environment = await moves.make("a", "bridge")
    schema = moves.driver.place(environment).schema
    await moves.execute(f"ALTER TABLE {quoted(schema)}.note ADD COLUMN extra text")
    travelling = moves.travel(environment, "pool")
    await travelling.step()

    with pytest.raises(MissingTableError, match="table note lacks extra"):
        await travelling.step()

    await travelling.give_up()
    assert await moves.places(environment) == ["bridge"]


@pytest.mark.parametrize(("here", "there"), [("pool", "silo"), ("silo", "pool")])
async def test_a_hundred_thousand_rows_are_moved_with_a_short_freeze(
    moves: Moves, here: str, there: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "INSERT INTO note (body) SELECT 'no. ' || n FROM generate_series(1, 100000) AS n"
    environment = await moves.make("a", here, rows)
    content = await moves.content(environment)
    travelling = moves.travel(environment, there)
    started = time.perf_counter()

    result = await travelling.finish()

    with capsys.disabled():
        print(f"\n{here} to {there}: {travelling.said[-1]} of {time.perf_counter() - started:.1f} s")  # noqa: T201
    assert result["rows"] == 100_000
    assert await moves.content(travelling.environment) == content


async def test_big_rows_pass_through_a_small_memory(moves: Moves) -> None:
    rows = "INSERT INTO note (body) SELECT repeat(md5(n::text), 32768) FROM generate_series(1, 60) AS n"
    environment = await moves.make("a", "pool", rows)
    travelling = moves.travel(environment, "bridge")
    await travelling.until("copy")

    tracemalloc.start()
    await travelling.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 15 * 1024 * 1024
    await travelling.finish()
    assert await moves.count(travelling.environment, "note") == 60


async def bodies(moves: Moves, environment: Environment) -> list[str]:
    session = await moves.enter(environment)
    return [row["body"] for row in await session.fetch("SELECT body FROM note")]
