"""That each row comes into one file of the lake, whatever happens at the same time and whatever fails."""

import asyncio
import os
import secrets
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import IO, Any

import asyncpg
import pytest

from deploy.databases import DatabaseUrls
from services.metrics import handlers
from services.metrics.lake import parquet
from services.metrics.lake.exporter import CounterWentBackError
from services.metrics.lake.stores import StoreUnavailableError
from services.metrics.tests.lake_kit import NOW, Shore
from shared.contracts.metrics import PurgeMetrics
from shared.failpoints import FailpointError, armed, hits
from shared.postgres import transaction
from shared.testing import eventually, hurry

ROOT = Path(__file__).resolve().parents[3]
PLACES = [f"{place}:{visit}" for visit in (1, 2, 3) for place in ("lake_planned", "lake_stored", "lake_written")]


async def test_who_goes_on_after_a_death_writes_each_row_once(shore: Shore) -> None:
    for place in PLACES:
        for hours_ago in ([0, 0, 1], [1, 2], [0]):
            await shore.use(hours_ago)
        with armed(f"{place}=raise"), pytest.raises(FailpointError):
            await asyncio.wait_for(rounds(shore), 10)
        assert hits(place.partition(":")[0]) == 1
        left = {path: (shore.root / path).read_bytes() for path in shore.files()}

        await shore.fill()

        assert shore.ids() == await shore.stored_ids(), place
        assert {path: (shore.root / path).read_bytes() for path in left} == left, place
    assert shore.ids().total() == 6 * len(PLACES)


async def rounds(shore: Shore) -> None:
    while True:
        await shore.lake(most_rows=2).round()


PROGRAM = """
import asyncio, sys
from prometheus_client import CollectorRegistry
from services.metrics.lake import LakeTerms, open_lake
from shared.clock import SystemClock
from shared.failpoints import arm_from_environment
from shared.postgres import open_pool

async def main():
    arm_from_environment()
    pool = await open_pool(sys.argv[1])
    print("begun", flush=True)
    async with open_lake(LakeTerms(sys.argv[2]), pool, SystemClock(), CollectorRegistry()) as lake:
        while True:
            await lake.round()

asyncio.run(main())
"""


async def test_a_process_may_be_killed_at_any_moment(shore: Shore, database_urls: DatabaseUrls) -> None:
    chance = Random(seed := secrets.randbelow(10**6))
    for place in ("lake_planned", "lake_stored:3", "any"):
        await shore.use([0, 1, 25, 26])
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, database_urls.app, str(shore.root)),
            cwd=ROOT,
            env={**os.environ, "TENURE_FAIL": "" if place == "any" else f"{place}=kill"},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        if place == "any":
            await asyncio.sleep(chance.uniform(0, 0.1))
            process.kill()
        assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL

    await shore.fill()

    assert shore.ids() == await shore.stored_ids(), f"seed {seed}"
    assert shore.ids().total() == 12


async def test_a_file_is_there_as_a_whole_or_not_at_all(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    await shore.use()
    seen = list[Path]()

    def copy_half(source: IO[bytes], target: IO[bytes]) -> None:
        target.write(source.read(100))
        target.flush()
        seen.extend(shore.root.rglob("*.parquet"))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", copy_half)
        with pytest.raises(StoreUnavailableError, match="No space left"):
            await shore.fill()

    assert (shore.files(), seen) == ([], [])
    await shore.fill()
    assert shore.ids() == await shore.stored_ids()


async def test_replicas_at_work_at_the_same_time_write_each_row_once(shore: Shore) -> None:
    lakes = [shore.lake(most_rows=5) for _ in range(3)]

    async def use() -> None:
        for _ in range(15):
            await shore.use([0, 1, 2])

    async with asyncio.TaskGroup() as group:
        using = [group.create_task(use()) for _ in range(2)]
        while not all(task.done() for task in using):
            await asyncio.gather(*(lake.round() for lake in lakes))
    await shore.fill()

    assert shore.ids() == await shore.stored_ids()
    assert shore.ids().total() == 90


async def test_what_is_committed_late_is_not_missed(shore: Shore) -> None:
    async with shore.pool.acquire() as early:
        begun = early.transaction()
        await begun.start()
        await early.execute(
            """
            INSERT INTO usage_event (tenant_id, source, id, type, happened_at, stored_at, data)
            VALUES ('t1', '/app', 'early', 'api_call', $1, $1, '{}')
            """,
            NOW,
        )
        late = await shore.use()
        lake = shore.lake()
        await lake.round()
        await begun.commit()
    await shore.fill(lake)

    assert shore.ids() == {"early": 1, late[0]: 1}


async def test_rows_are_dealt_out_a_bounded_number_at_a_time_and_those_of_a_transaction_together(shore: Shore) -> None:
    await shore.use([0] * 7)
    for _ in range(4):
        await shore.use([0] * 2)
    await shore.fill(shore.lake(most_rows=5))

    rows = [row["row_count"] for row in await shore.pool.fetch("SELECT row_count FROM lake_file ORDER BY file_id")]
    assert rows[0] == 7
    assert sum(rows) == 15
    assert max(rows[1:]) <= 5
    assert shore.ids() == await shore.stored_ids()


async def test_an_event_that_comes_late_is_in_another_file_of_its_hour(shore: Shore) -> None:
    await shore.use([30])
    await shore.fill()
    await shore.use([30])
    await shore.fill()

    assert [Path(path).parent for path in shore.files()] == [Path("usage/dt=2026-03-14/hour=06")] * 2
    assert shore.ids().total() == 2


async def test_of_a_tenant_that_is_purged_first_nothing_comes_into_the_lake_and_all_that_is_there_stays(
    shore: Shore,
) -> None:
    await shore.use(tenant_id="t1")
    await shore.fill()
    await shore.use([0, 1], tenant_id="t1")
    await shore.use(tenant_id="t2")
    exporter = shore.exporter()
    await eventually(lambda: planned(shore, exporter.plan, files=3))
    async with transaction(shore.pool) as connection:
        await handlers.purge_metrics(connection, [PurgeMetrics(tenant_id="t1")])
    await shore.fill()

    assert shore.read("tenant_id") == [("t1",), ("t2",)]
    assert len(shore.files()) == 3, "one is empty: it may have been written before and not noted"


async def planned(shore: Shore, plan: Any, *, files: int) -> bool:
    await plan("usage")
    return bool(await shore.pool.fetchval("SELECT count(*) FROM lake_file") == files)


async def test_a_store_that_is_away_is_waited_for_and_nothing_is_lost(shore: Shore) -> None:
    shore.root.write_text("a file where the folder should be")
    lake = shore.lake()
    running = asyncio.create_task(lake.run())
    await shore.use([0, 1])
    await hurry(shore.clock, lambda: lake._failures._value.get() >= 3)
    assert lake._waiting._value.get() == 2
    assert lake._behind_seconds() > 0

    shore.root.unlink()
    await shore.use()
    await hurry(shore.clock, lambda: shore.ids().total() == 3)
    await hurry(shore.clock, lambda: lake._waiting._value.get() == 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert shore.ids() == await shore.stored_ids()
    assert lake._behind_seconds() < 20
    assert lake._rows.labels("usage")._value.get() == 3


async def test_a_file_that_cannot_be_written_holds_up_no_other(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, *_ = await shore.use([5])
    await shore.use([0])
    write = parquet.Spool.write

    def write_good(spool: parquet.Spool, file: IO[bytes]) -> int:
        spool._lines.seek(0)
        if f'"id":"{bad}"'.encode() in spool._lines.read():
            raise ValueError("what nobody has thought of")
        return write(spool, file)

    lake = shore.lake()
    with monkeypatch.context() as patch:
        patch.setattr(parquet.Spool, "write", write_good)
        await eventually(lambda: has(shore, lake, files=1))
        assert await shore.pool.fetchval("SELECT failures FROM lake_file WHERE written_at IS NULL") >= 1
        shore.clock._now += timedelta(seconds=60)
        await lake.round()
        assert lake._behind_seconds() == 60
    await shore.fill(lake)

    assert shore.ids() == await shore.stored_ids()


async def has(shore: Shore, lake: Any, *, files: int) -> bool:
    await lake.round()
    return len(shore.files()) == files


async def test_a_counter_that_went_back_is_noticed_before_rows_are_missed(
    shore: Shore, database_urls: DatabaseUrls
) -> None:
    await shore.use()
    await shore.fill()
    await shore.pool.execute("UPDATE lake_stream SET upto = upto + 1000000")
    await shore.pool.execute("UPDATE usage_event SET written_in = written_in + 1000000")
    await shore.use()
    with pytest.raises(CounterWentBackError, match="usage went back"):
        await shore.lake().round()

    owner = await asyncpg.connect(database_urls.owner)
    await owner.execute(documented("audit_entry DISABLE"))
    await owner.close()
    shore.root = shore.root.with_name("new")
    await shore.fill()
    await shore.use()
    await shore.fill()
    assert shore.ids() == await shore.stored_ids()
    assert shore.ids().total() == 3


def documented(part: str) -> str:
    """Return the SQL in the documentation that has a part."""
    blocks = (ROOT / "docs" / "data-lake.md").read_text(encoding="utf-8").split("```sql\n")[1:]
    (sql,) = [block.partition("```")[0] for block in blocks if part in block]
    return sql


async def test_files_are_kept_as_long_as_wanted_and_nothing_else_is_touched(shore: Shore) -> None:
    await shore.use([0, 24 * 3, 24 * 3 + 5, 24 * 20])
    await shore.fill()
    assert len(shore.files()) == 4
    foreign = shore.root / "usage" / "dt=2026-02-23" / "hour=12" / "notes.txt"
    foreign.write_text("mine")
    (shore.root / "usage" / "dt=2026-13-32").mkdir()
    await shore.use([0])
    unfinished = shore.root / "usage" / "dt=2026-03-15" / "hour=12" / ".unfinished-1"
    unfinished.write_text("by who died")
    os.utime(unfinished, (NOW.timestamp() - 3601, NOW.timestamp() - 3601))
    at_work = unfinished.with_name(".unfinished-2")
    at_work.write_text("by who lives")

    await shore.fill(shore.lake(days={"usage": 2}))

    assert {str(Path(path).parent) for path in shore.files()} == {
        "usage/dt=2026-02-23/hour=12",
        "usage/dt=2026-03-15/hour=12",
    }
    assert (foreign.exists(), at_work.exists(), unfinished.exists()) == (True, True, False)
    assert not (shore.root / "usage" / "dt=2026-03-12").exists()
    assert shore.ids().total() == 2


async def test_a_stream_without_a_limit_is_kept_for_ever(shore: Shore) -> None:
    await shore.use([24 * 30])
    await shore.fill()
    await shore.fill(shore.lake(days={"tenants": 1}))
    assert shore.ids().total() == 1


async def test_what_was_written_long_ago_is_forgotten_and_not_written_again(shore: Shore) -> None:
    await shore.use()
    await shore.fill()
    shore.clock._now += timedelta(days=31)
    await shore.fill()

    assert await shore.pool.fetchval("SELECT count(*) FROM lake_file") == 0
    assert shore.ids() == await shore.stored_ids()
