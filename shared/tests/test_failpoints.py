import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.failpoints import (
    FAILPOINTS,
    FailpointError,
    arm,
    arm_from_environment,
    armed,
    failpoint,
    hits,
    visited_by,
)

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import asyncio
from shared.failpoints import arm_from_environment, failpoint

async def main():
    arm_from_environment()
    for _ in range(3):
        await failpoint("after_commit")
        print("survived", flush=True)

asyncio.run(main())
"""


async def test_a_failpoint_that_is_not_armed_does_nothing() -> None:
    for name in FAILPOINTS:
        await failpoint(name)


async def test_an_armed_failpoint_strikes_once_at_its_visit() -> None:
    with armed("confirmed:3=raise"):
        await failpoint("confirmed")
        await failpoint("confirmed")
        with pytest.raises(FailpointError, match="confirmed"):
            await failpoint("confirmed")
        await failpoint("confirmed")

        assert hits("confirmed") == 1


async def test_only_the_armed_place_is_struck() -> None:
    with armed("confirmed=raise"):
        await failpoint("before_commit")

        assert hits("before_commit") == hits("confirmed") == 0


async def test_several_places_are_armed_at_once() -> None:
    with armed("received=raise,acked:2=raise"):
        with pytest.raises(FailpointError):
            await failpoint("received")
        await failpoint("acked")
        with pytest.raises(FailpointError):
            await failpoint("acked")


async def test_a_block_disarms_when_it_ends_even_by_an_exception() -> None:
    with pytest.raises(FailpointError), armed("handled=raise,acked=raise"):
        await failpoint("handled")

    await failpoint("acked")


async def test_hits_are_counted_anew_for_each_block() -> None:
    for _ in range(2):
        with armed("handled=raise"):
            assert hits("handled") == 0
            with pytest.raises(FailpointError):
                await failpoint("handled")
            assert hits("handled") == 1


async def test_a_failure_looks_like_an_outage() -> None:
    with armed("handled=raise"), pytest.raises(ConnectionError):
        await failpoint("handled")


async def test_a_hanging_failpoint_hangs_until_it_is_cancelled() -> None:
    with armed("before_publish=hang"):
        hanging = asyncio.create_task(failpoint("before_publish"))
        await asyncio.sleep(0.01)
        assert not hanging.done()
        assert hits("before_publish") == 1

        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging


async def test_a_visitor_decides_about_every_visit_of_a_block_and_of_no_other() -> None:
    visits: list[str] = []

    async def visit(name: str) -> None:
        visits.append(name)
        if name == "confirmed":
            raise FailpointError(name)

    with armed("acked=raise"):
        with visited_by(visit):
            await failpoint("received")
            await failpoint("acked")
            with pytest.raises(FailpointError):
                await failpoint("confirmed")
        with pytest.raises(FailpointError):
            await failpoint("acked")
    await failpoint("confirmed")

    assert visits == ["received", "acked", "confirmed"]


@pytest.mark.parametrize("specification", ["nowhere=raise", "acked=explode", "acked", "=raise", "acked:x=raise"])
def test_a_text_that_names_nothing_known_is_refused(specification: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        arm(specification)


async def test_the_environment_arms_a_process() -> None:
    arm_from_environment({"TENURE_FAIL": "acked=raise"})
    with pytest.raises(FailpointError):
        await failpoint("acked")

    arm_from_environment({})
    await failpoint("acked")


def test_a_process_is_killed_at_exactly_the_visit_that_was_asked_for() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "TENURE_FAIL": "after_commit:2=kill", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert finished.returncode == -signal.SIGKILL
    assert finished.stdout == "survived\n"
    assert "failpoint after_commit: kill" in finished.stderr
