"""Steps that take longer than they are waited for: what is stored, refused and shown of how far they are."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest

from services.onboarding.engine import UnknownWorkflowError
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.presentation import presented
from services.onboarding.streams import Streams
from services.onboarding.tests.catalogue import answers, refusals
from services.onboarding.tests.support import (
    IDS,
    Desk,
    hear,
    kinds,
    open_desk,
    open_replica,
    stored,
    told,
    waiting,
)
from services.onboarding.timers import Timers
from services.onboarding.workflow import Progress, Step
from shared.clock import ManualClock
from shared.contracts.provisioning import StepProgressed
from shared.messaging.event import Event, UndecodableError
from shared.postgres import Pool
from shared.testing.memory_bus import MemoryBroker

PROVISION = "provision-environment"
TIMEOUT = ONBOARD.plan[0].timeout


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def desk(database_url: str, broker: MemoryBroker, clock: ManualClock) -> AsyncIterator[Desk]:
    async with open_desk(database_url, broker, clock=clock) as desk:
        yield desk


@pytest.fixture
async def client(database_url: str, broker: MemoryBroker, clock: ManualClock) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_replica(database_url, broker, clock=clock) as replica:
        yield replica.client


@pytest.fixture
async def provisioned(desk: Desk) -> UUID:
    """An onboarding that waits for its environment alone."""
    workflow_id = await desk.start()
    await desk.go_on(workflow_id, until=[PROVISION])
    return workflow_id


def progress(workflow_id: UUID, stage: str = "account", detail: str | None = None, *, step: str = PROVISION) -> Event:
    return told(workflow_id, step, StepProgressed(tenant_id="any", stage=stage, detail=detail), ask_id=IDS.new())


async def step_of(pool: Pool, workflow_id: UUID, name: str = PROVISION) -> Step:
    return (await stored(pool, workflow_id)).workflow.steps[name]


# What is stored


async def test_what_is_told_is_stored_and_written_down_and_asks_nobody(
    desk: Desk, pool: Pool, provisioned: UUID, clock: ManualClock
) -> None:
    await clock.advance(20)
    before = await stored(pool, provisioned)
    event = progress(provisioned, "account", "Two of five.")

    assert await hear(pool, event, engine=desk.engine) == []

    after = await stored(pool, provisioned)
    assert after.workflow.steps[PROVISION] == replace(
        before.workflow.steps[PROVISION],
        due_at=clock.now() + timedelta(seconds=TIMEOUT),
        progress=Progress("account", "Two of five.", clock.now(), 1),
    )
    (row,) = await pool.fetch("SELECT * FROM history WHERE kind = 'progressed'")
    assert (row["step"], row["seq"], row["message_id"]) == (PROVISION, before.workflow.seq + 1, event.causation_id)
    assert row["detail"] == {"stage": "account", "detail": "Two of five."}


async def test_a_step_that_tells_that_it_is_at_work_is_not_asked_again(
    desk: Desk, pool: Pool, provisioned: UUID, clock: ManualClock
) -> None:
    timers = Timers(desk.kernel, desk.engine, desk.watch)
    for _ in range(10):
        await clock.advance(TIMEOUT - 1)
        assert await timers.fire() == 0
        await hear(pool, progress(provisioned), engine=desk.engine)

    assert (await kinds(pool, provisioned)).count("progressed") == 1
    assert (await step_of(pool, provisioned)).attempts == 1
    await clock.advance(TIMEOUT)
    assert await timers.fire() == 1
    assert (await step_of(pool, provisioned)).attempts == 2


async def test_progress_and_the_answer_count_in_the_order_in_which_they_come(
    desk: Desk, pool: Pool, provisioned: UUID
) -> None:
    done = told(provisioned, PROVISION, answers()[PROVISION])

    said = await hear(pool, progress(provisioned, "one"), done, progress(provisioned, "two"), done, engine=desk.engine)

    assert [event.step for event in said] == ["activate-tenant"]
    assert (await kinds(pool, provisioned))[-4:] == ["progressed", "succeeded", "asked", "late_success"]


async def test_progress_of_a_workflow_that_has_ended_leaves_no_trace(desk: Desk, pool: Pool, provisioned: UUID) -> None:
    await desk.go_on(provisioned)
    before = await stored(pool, provisioned)

    await hear(pool, progress(provisioned), engine=desk.engine)

    assert await stored(pool, provisioned) == before
    assert "progressed" not in await kinds(pool, provisioned)


async def test_an_undo_that_takes_long_is_waited_for_too(
    desk: Desk, pool: Pool, provisioned: UUID, clock: ManualClock
) -> None:
    (activate,) = [step.name for step in ONBOARD.plan if PROVISION in step.after]
    await hear(pool, told(provisioned, PROVISION, answers()[PROVISION]), engine=desk.engine)
    await hear(pool, told(provisioned, activate, refusals()[activate]), engine=desk.engine)
    await clock.advance(20)

    await hear(pool, progress(provisioned, "closing"), engine=desk.engine)

    step = await step_of(pool, provisioned)
    assert (step.status, step.undo_attempts, step.progress) == (
        "undoing",
        1,
        Progress("closing", None, clock.now(), 1),
    )
    others = await pool.fetchval("SELECT max(due_at) FROM step WHERE name <> $1", PROVISION)
    assert step.due_at is not None
    assert (step.due_at - others).total_seconds() == 20


async def test_what_no_database_and_no_screen_should_see_is_left_out(desk: Desk, pool: Pool, provisioned: UUID) -> None:
    await hear(pool, progress(provisioned, "a\x00b", "\x1b[31m two\nlines " + "x" * 1000), engine=desk.engine)

    step = await step_of(pool, provisioned)
    assert step.progress is not None
    assert step.progress.stage == "a b"
    assert step.progress.detail == ("[31m two lines " + "x" * 1000)[:200]


# What is refused


@pytest.mark.parametrize("step", ["open-account", "activate-tenant"])
async def test_a_service_cannot_keep_a_workflow_waiting_for_another_one(
    desk: Desk, pool: Pool, provisioned: UUID, step: str
) -> None:
    before = await stored(pool, provisioned)

    with pytest.raises(UnknownWorkflowError, match=f"provisioning is not at work on {step}, but "):
        await hear(pool, progress(provisioned, step=step), engine=desk.engine)
    with pytest.raises(UnknownWorkflowError, match="billing is not at work on provision-environment, but provisioning"):
        await hear(pool, replace(progress(provisioned), publisher="billing"), engine=desk.engine)

    assert await stored(pool, provisioned) == before


async def test_nobody_is_at_work_on_a_step_that_waits(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.begin(OFFBOARD, await desk.tenant("Acme"), graceDays=30, export=False)
    await desk.go_on(workflow_id, until=["grace-period"])

    with pytest.raises(UnknownWorkflowError, match="provisioning is not at work on grace-period, but onboarding"):
        await hear(pool, progress(workflow_id, step="grace-period"), engine=desk.engine)

    assert list(await waiting(pool, workflow_id, "running")) == ["grace-period"]


async def test_progress_of_what_there_is_not_is_an_error(desk: Desk, pool: Pool, provisioned: UUID) -> None:
    with pytest.raises(UnknownWorkflowError, match="there is no workflow"):
        await hear(pool, progress(UUID(int=7)), engine=desk.engine)
    with pytest.raises(UnknownWorkflowError, match="has no step paint-it-black"):
        await hear(pool, progress(provisioned, step="paint-it-black"), engine=desk.engine)
    with pytest.raises(UndecodableError, match="names no workflow step"):
        await hear(pool, replace(progress(provisioned), step=None), engine=desk.engine)


# What is shown


async def test_everybody_who_may_see_the_workflow_sees_how_far_it_is(
    desk: Desk, pool: Pool, provisioned: UUID, clock: ManualClock, client: httpx2.AsyncClient
) -> None:
    told_at = clock.now()
    for _ in range(2):
        await hear(pool, progress(provisioned, "account", "Two of five."), engine=desk.engine)
        await clock.advance(10)

    workflow = (await client.get(f"/v1/workflows/{provisioned}")).json()
    history = (await client.get(f"/v1/workflows/{provisioned}/history")).json()

    seen = {step["name"]: step["progress"] for step in workflow["steps"]}
    at = told_at.isoformat().replace("+00:00", "Z")
    assert seen.pop(PROVISION) == {"stage": "account", "detail": "Two of five.", "at": at}
    assert set(seen.values()) == {None}
    (entry,) = [entry for entry in history["items"] if entry["kind"] == "progressed"]
    assert (entry["step"], entry["detail"]) == (PROVISION, {"stage": "account", "detail": "Two of five."})


async def test_whoever_listens_to_the_workflow_hears_how_far_it_is(desk: Desk, pool: Pool, provisioned: UUID) -> None:
    await hear(pool, progress(provisioned, "network", "Three of five."), engine=desk.engine)
    await desk.go_on(provisioned)

    stream: Any = Streams(desk.pool, desk.watch).workflow(provisioned, after=0)
    async with aclosing(stream) as chunks:
        heard = [chunk.decode() async for chunk in chunks]

    (event,) = [chunk for chunk in heard if "event: progressed\n" in chunk]
    assert '"detail":{"stage":"network","detail":"Three of five."}' in event


@pytest.mark.parametrize("ends", ["succeeds", "is refused", "is refused for the moment"])
async def test_nothing_is_shown_of_a_step_that_is_not_waited_for_any_more(
    desk: Desk, pool: Pool, provisioned: UUID, ends: str
) -> None:
    await hear(pool, progress(provisioned), engine=desk.engine)
    ask_id = (await step_of(pool, provisioned)).ask_id
    fact = {
        "succeeds": answers()[PROVISION],
        "is refused": refusals()[PROVISION],
        "is refused for the moment": refusals(retryable=True)[PROVISION],
    }[ends]

    await hear(pool, told(provisioned, PROVISION, fact, ask_id=ask_id), engine=desk.engine)

    assert [step["progress"] for step in presented(await stored(pool, provisioned))["steps"]] == [None] * 6
