"""What a job says, however much later, belongs to the handling of what it answers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from services.provisioning.tests.staged import StagedDriver
from services.provisioning.tests.support import ask
from services.provisioning.tests.world import World, undo_of
from shared.postgres import Pool
from shared.testing.spans import Collected, collecting
from shared.testing.three_services import asked


@pytest.fixture
def collected() -> Iterator[Collected]:
    with collecting() as collected:
        yield collected


@pytest.fixture
def driver() -> StagedDriver:
    return StagedDriver()


@pytest.fixture
def world(pool: Pool, driver: StagedDriver) -> World:
    return World(pool, driver)


def handled(number: int) -> str:
    return f"00-{number:032x}-{number:016x}-01"


def traces(world: World) -> list[tuple[str, int]]:
    """Return what the worker has said, and in which trace."""
    return [(each.type, int((each.traceparent or "00-0")[3:35], 16)) for each in world.said]


def wanted(**details: Any) -> Any:
    return ask("somebody", driver="staged", **details)


async def test_an_answer_and_word_of_progress_are_in_the_trace_of_the_ask(world: World, collected: Collected) -> None:
    await world.take(replace(asked(wanted()), traceparent=handled(7)))
    await world.work()

    assert {kind for kind, _ in traces(world)} >= {
        "provisioning.environment_provisioned.v1",
        "provisioning.step_progressed.v1",
    }
    assert {trace for _, trace in traces(world)} == {7}


async def test_what_is_taken_back_is_answered_in_the_trace_of_the_undo(world: World, collected: Collected) -> None:
    event = replace(asked(wanted()), traceparent=handled(7))
    await world.take(event)
    await world.worker.look()
    await world.take(replace(undo_of(event), traceparent=handled(8)))
    await world.work()

    assert traces(world)[-1] == ("provisioning.environment_deprovisioned.v1", 8)


async def test_what_was_done_is_taken_back_in_the_trace_of_the_undo(world: World, collected: Collected) -> None:
    event = replace(asked(wanted()), traceparent=handled(7))
    await world.handle(event)
    await world.take(replace(undo_of(event), traceparent=handled(8)))
    await world.work()

    assert traces(world)[-1] == ("provisioning.environment_deprovisioned.v1", 8)


async def test_a_job_from_before_there_were_traces_is_answered(world: World, collected: Collected) -> None:
    await world.handle(asked(wanted()))

    assert traces(world)[-1][0] == "provisioning.environment_provisioned.v1"
