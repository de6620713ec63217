"""Jobs from the ask to the answer: step by step, back again, and whoever crashes on the way."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from services.provisioning.drivers import Retry
from services.provisioning.jobs.course import MOST_ATTEMPTS, PATIENCE
from services.provisioning.jobs.worker import CLAIM, TOLD_EVERY, Worker
from services.provisioning.queries import jobs as queries
from services.provisioning.tests.staged import STAGES, Made, StagedDriver
from services.provisioning.tests.support import ask
from services.provisioning.tests.world import World, undo_of
from shared.contracts.base import Message
from shared.contracts.provisioning import (
    DeprovisionEnvironment,
    EnvironmentDeprovisioned,
    EnvironmentMoved,
    EnvironmentMovedBack,
    EnvironmentMoveRefused,
    EnvironmentProvisioned,
    EnvironmentRefused,
    EnvironmentRemoved,
    EnvironmentThrottled,
    EnvironmentUnthrottled,
    MoveEnvironment,
    ProvisionEnvironment,
    RemoveEnvironment,
    StepProgressed,
    ThrottleEnvironment,
)
from shared.postgres import Pool
from shared.testing.three_services import asked

TENANT = "somebody"


@pytest.fixture
def driver() -> StagedDriver:
    return StagedDriver()


@pytest.fixture
def world(pool: Pool, driver: StagedDriver) -> World:
    return World(pool, driver)


def wanted(tenant_id: str = TENANT, **details: Any) -> ProvisionEnvironment:
    return ask(tenant_id, driver="staged", **details)


def moved(isolation: str = "silo", connections: int | None = None) -> MoveEnvironment:
    return MoveEnvironment(tenant_id=TENANT, isolation=isolation, connections=connections, driver="staged")


def types(messages: list[Message]) -> list[type[Message]]:
    return [type(message) for message in messages]


async def status(world: World) -> str | None:
    found: str | None = await world.pool.fetchval("SELECT status FROM environment")
    return found


async def resources(world: World) -> Any:
    return await world.pool.fetchval("SELECT resources FROM environment")


async def nothing_is_left(world: World) -> bool:
    return not await world.pool.fetch("SELECT FROM live_record")


async def begin(worker: Worker) -> None:
    """Let a worker take what is due, and wait until its calls have begun."""
    await worker.look()
    await asyncio.sleep(0.05)


async def test_an_ask_is_taken_without_waiting_for_its_driver_and_answered_in_the_end(
    world: World, driver: StagedDriver
) -> None:
    said = await world.take(asked(wanted()))

    assert said == []
    assert driver.asked == []
    assert await status(world) == "provisioning"

    assert types(await world.work()) == [EnvironmentProvisioned]
    assert driver.stages == [("provision", ""), ("provision", "build"), ("provision", "open")]
    assert await status(world) == "ready"
    assert await resources(world) == {"place": f"place of {TENANT}"}
    assert await world.jobs() == []


async def test_the_answer_belongs_to_the_step_that_asked(world: World) -> None:
    event = asked(wanted())
    await world.handle(event)

    answer = world.said[-1]
    assert (answer.workflow_id, answer.step, answer.causation_id) == (event.workflow_id, event.step, event.id)


async def test_each_step_is_told_while_the_job_goes_on(world: World) -> None:
    event = asked(wanted())
    await world.handle(event)

    told = [each for each in world.said if isinstance(each.message, StepProgressed)]
    assert [(each.message.stage, each.message.detail) for each in told] == [  # type: ignore[attr-defined]
        ("build", "on to build"),
        ("open", "on to open"),
    ]
    assert {(each.workflow_id, each.step) for each in told} == {(event.workflow_id, event.step)}


async def test_who_asks_again_is_answered_once_while_it_lasts_and_as_before_afterwards(world: World) -> None:
    event = asked(wanted())
    await world.take(event)
    again = asked(wanted(), workflow_id=event.workflow_id)
    assert await world.take(again) == []

    (answer,) = await world.work()

    later = asked(wanted(), workflow_id=event.workflow_id)
    assert await world.handle(later) == [answer]


async def test_a_batch_is_one_call_of_the_driver_and_one_transaction(world: World, driver: StagedDriver) -> None:
    tenants = [f"t{number}" for number in range(5)]
    await world.take(*(asked(wanted(each)) for each in tenants))
    await world.worker.look()
    await asyncio.wait(list(world.worker.running))

    assert driver.asked == [("provision", each, "") for each in tenants]
    assert await world.pool.fetchval("SELECT count(DISTINCT xmin::text) FROM job") == 1


async def test_one_that_breaks_a_batch_is_tried_alone_and_the_others_go_on(world: World, driver: StagedDriver) -> None:
    driver.breaks = [("provision", ""), ("provision", "")]  # the call, and the first alone
    await world.take(asked(wanted("a")), asked(wanted("b")))

    assert [answer.tenant_id for answer in await world.work()] == ["b"]
    assert [answer.tenant_id for answer in await world.wait(1)] == ["a"]


async def test_what_a_driver_raises_is_not_shown_to_anybody(world: World, driver: StagedDriver) -> None:
    driver.breaks = [("provision", "build")]
    await world.handle(asked(wanted()))

    details = [each.message.detail for each in world.said if isinstance(each.message, StepProgressed)]
    assert "attempt 1 failed: The driver of staged/pool failed with BrokenError." in details
    assert "secret" not in str(details)
    assert types(await world.wait(1)) == [EnvironmentProvisioned]


async def test_a_step_is_tried_again_with_longer_and_longer_waits(world: World, driver: StagedDriver) -> None:
    driver.fail("provision", "build", times=3)
    await world.handle(asked(wanted()))

    assert await world.wait(0.9) == []
    assert driver.stages.count(("provision", "build")) == 1
    await world.wait(0.1)
    assert driver.stages.count(("provision", "build")) == 2
    await world.wait(2)
    assert driver.stages.count(("provision", "build")) == 3
    assert types(await world.wait(4)) == [EnvironmentProvisioned]


async def test_a_driver_can_ask_for_a_longer_wait(world: World, driver: StagedDriver) -> None:
    driver.fail("provision", "build", times=1, after=timedelta(seconds=30))
    await world.handle(asked(wanted()))

    assert await world.wait(29) == []
    assert types(await world.wait(1)) == [EnvironmentProvisioned]


async def test_what_cannot_be_made_is_taken_back_and_then_refused(world: World, driver: StagedDriver) -> None:
    driver.refuse("provision", "open")
    (answer,) = await world.handle(asked(wanted()))

    assert isinstance(answer, EnvironmentRefused)
    assert (answer.code, answer.detail) == ("no_room", "There is no room.")
    assert driver.made == {}
    assert driver.stages[-2:] == [("deprovision", ""), ("deprovision", "clear")]
    assert await nothing_is_left(world)


async def test_what_fails_again_and_again_is_taken_back_in_the_end(world: World, driver: StagedDriver) -> None:
    driver.fail("provision", "build", times=MOST_ATTEMPTS)
    said = await world.handle(asked(wanted()))
    for _ in range(MOST_ATTEMPTS):
        assert said == []
        said = await world.wait(60)
        if said:
            break

    (answer,) = said
    assert isinstance(answer, EnvironmentRefused)
    assert (answer.code, answer.detail) == ("provisioning_failed", "The line is busy.")
    assert driver.stages.count(("provision", "build")) == MOST_ATTEMPTS
    assert driver.made == {}
    assert await nothing_is_left(world)


async def test_the_refusal_is_given_again_to_who_asks_again(world: World, driver: StagedDriver) -> None:
    driver.refuse("provision", "open")
    event = asked(wanted())
    (answer,) = await world.handle(event)

    assert await world.handle(asked(wanted(), workflow_id=event.workflow_id)) == [answer]


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_an_undo_that_comes_between_two_steps_takes_back_what_was_made(
    world: World, driver: StagedDriver, steps: int
) -> None:
    event = asked(wanted())
    await world.take(event)
    for _ in range(steps):
        await world.worker.look()
        await asyncio.wait(list(world.worker.running))

    assert types(await world.handle(undo_of(event))) == [EnvironmentDeprovisioned]
    assert len([each for each in driver.stages if each[0] == "provision"]) == steps
    assert driver.made == {}
    assert await nothing_is_left(world)


async def test_an_undo_that_comes_while_a_step_is_under_way_takes_back_what_that_makes(
    world: World, driver: StagedDriver
) -> None:
    event = asked(wanted())
    await world.take(event)
    await world.worker.look()  # its call has not begun yet
    assert await world.take(undo_of(event)) == []

    assert types(await world.work()) == [EnvironmentDeprovisioned]
    assert driver.stages == [("provision", ""), ("deprovision", ""), ("deprovision", "clear")]
    assert await nothing_is_left(world)


async def test_what_a_step_has_made_while_it_was_taken_back_is_known_on_the_way_back(
    world: World, driver: StagedDriver
) -> None:
    event = asked(wanted())
    await world.take(event)
    await world.worker.look()
    await world.take(undo_of(event))
    await asyncio.wait(list(world.worker.running))

    assert await resources(world) == {"place": f"place of {TENANT}"}
    assert await world.jobs() == [("provision", "undoing", "")]


async def test_a_step_that_hangs_is_ended_when_it_is_taken_back(world: World, driver: StagedDriver) -> None:
    driver.hangs = {("provision", "")}
    event = asked(wanted())
    await world.take(event)
    await begin(world.worker)
    await world.take(undo_of(event))

    await world.worker.hold()

    assert types(await world.work()) == [EnvironmentDeprovisioned]
    assert driver.made == {}
    assert await nothing_is_left(world)


async def test_an_undo_that_comes_first_keeps_the_ask_from_ever_taking_effect(
    world: World, driver: StagedDriver
) -> None:
    event = asked(wanted())
    assert types(await world.handle(undo_of(event))) == [EnvironmentDeprovisioned]

    assert await world.handle(event) == []
    assert driver.asked == []
    assert await nothing_is_left(world)


async def test_an_undo_that_is_repeated_is_answered_once_while_it_lasts_and_at_once_afterwards(
    world: World, driver: StagedDriver
) -> None:
    event = asked(wanted())
    await world.handle(event)
    undo = undo_of(event)
    assert await world.take(undo, asked(undo.message, workflow_id=event.workflow_id)) == []  # type: ignore[arg-type]
    assert await world.take(undo_of(event)) == []

    assert types(await world.work()) == [EnvironmentDeprovisioned]
    assert types(await world.take(undo_of(event))) == [EnvironmentDeprovisioned]
    assert driver.stages.count(("deprovision", "")) == 1


async def test_what_was_undone_is_never_asked_for_again_with_any_effect(world: World, driver: StagedDriver) -> None:
    event = asked(wanted())
    await world.handle(event)
    await world.handle(undo_of(event))

    assert await world.handle(asked(wanted(), workflow_id=event.workflow_id)) == []
    assert driver.made == {}


async def test_an_undo_while_a_failed_job_is_on_its_way_back_is_answered_as_an_undo(
    world: World, driver: StagedDriver
) -> None:
    driver.refuse("provision", "open")
    driver.fail("deprovision", "clear", times=1)
    event = asked(wanted())
    assert await world.handle(event) == []
    assert await world.jobs() == [("provision", "failing", "clear")]
    await world.take(undo_of(event))
    assert await world.jobs() == [("provision", "undoing", "clear")]

    assert types(await world.wait(1)) == [EnvironmentDeprovisioned]
    assert await nothing_is_left(world)


async def test_the_way_back_is_never_given_up_and_in_the_end_no_longer_told(world: World, driver: StagedDriver) -> None:
    event = asked(wanted())
    await world.handle(event)
    driver.fail("deprovision", "clear", times=MOST_ATTEMPTS + 5)
    await world.handle(undo_of(event))
    world.said.clear()
    for _ in range(MOST_ATTEMPTS + 3):
        await world.wait(60)
        await world.worker.tell()

    assert len(world.said) < 2 * PATIENCE + 2
    assert types(await world.wait(60) + await world.wait(60)) == [EnvironmentDeprovisioned]


async def test_a_worker_that_dies_is_followed_by_another_when_its_claim_has_ended(
    world: World, driver: StagedDriver
) -> None:
    driver.hangs = {("provision", "build")}
    await world.take(asked(wanted()))
    other = world.another_worker()
    await _die(other)
    driver.hangs = set()

    assert await world.wait(CLAIM.total_seconds() - 1) == []
    assert types(await world.wait(1)) == [EnvironmentProvisioned]
    assert driver.stages.count(("provision", "")) == 1  # what was stored is not done again


async def _die(worker: Worker) -> None:
    """Let a worker come as far as it gets, and end it as a crash would: nothing more is stored."""
    for _ in range(2):
        await begin(worker)
    for task in list(worker.running):
        task.cancel()
    await asyncio.sleep(0)


async def test_a_worker_that_has_lost_its_claim_stores_nothing(world: World, driver: StagedDriver) -> None:
    await world.take(asked(wanted()))
    slow = world.another_worker()
    await slow.look()
    await world.clock.advance(CLAIM.total_seconds())

    assert types(await world.work()) == [EnvironmentProvisioned]
    before = await world.snapshot()
    world.said.clear()
    await slow.settle_down()

    assert await world.snapshot() == before
    assert world.said == []


async def test_a_worker_that_has_lost_its_claim_ends_what_it_does(world: World, driver: StagedDriver) -> None:
    driver.hangs = {("provision", "")}
    await world.take(asked(wanted()))
    slow, quick = world.another_worker(), world.another_worker()
    await begin(slow)
    await world.clock.advance(CLAIM.total_seconds())
    await begin(quick)

    await slow.hold()
    await quick.hold()

    assert not slow.running
    assert quick.running
    await _die(quick)


async def test_a_call_that_begins_while_claims_are_kept_goes_on(
    world: World, driver: StagedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.hangs = {("provision", "")}
    await world.take(asked(wanted()))
    holding = queries.hold

    async def hold_slowly(*given: Any, **named: Any) -> dict[UUID, str]:
        states = await holding(*given, **named)
        await world.take(asked(wanted("another")))
        await begin(world.worker)
        return states

    monkeypatch.setattr(queries, "hold", hold_slowly)
    await begin(world.worker)
    await world.worker.hold()

    assert len(world.worker.running) == 2
    await _die(world.worker)


async def test_what_is_stored_is_sent_although_its_claim_is_given_back(
    world: World, driver: StagedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.take(asked(wanted()))
    keep, sent = world.keep, asyncio.Event()

    async def send_slowly(outgoing: Any) -> None:
        await world.worker.hold()
        await asyncio.sleep(0)
        await keep(outgoing)
        sent.set()

    monkeypatch.setattr(world.worker, "_send", send_slowly)
    await world.worker.look()
    await asyncio.wait(list(world.worker.running))

    assert sent.is_set()


async def test_a_claim_lasts_as_long_as_its_holder_keeps_it(world: World, driver: StagedDriver) -> None:
    driver.hangs = {("provision", "")}
    await world.take(asked(wanted()))
    holder = world.another_worker()
    await begin(holder)
    for _ in range(5):
        await world.clock.advance(CLAIM.total_seconds() - 1)
        await holder.hold()
        assert await world.worker.look() == 0
    await _die(holder)


async def test_a_worker_that_is_stopped_gives_its_jobs_back_at_once(world: World, driver: StagedDriver) -> None:
    driver.hangs = {("provision", "")}
    await world.take(asked(wanted()))
    running = asyncio.create_task(world.another_worker().run())
    await asyncio.sleep(0.1)
    assert driver.stages == [("provision", "")]
    running.cancel()
    await asyncio.wait([running])
    driver.hangs = set()

    assert types(await world.work()) == [EnvironmentProvisioned]


async def test_two_workers_never_share_a_job(world: World, driver: StagedDriver) -> None:
    tenants = [f"t{number}" for number in range(30)]
    await world.take(*(asked(wanted(each)) for each in tenants))
    await asyncio.gather(world.worker.settle_down(), world.another_worker().settle_down())

    assert sorted(driver.asked) == sorted(
        ("provision", tenant, stage) for tenant in tenants for stage in ("", "build", "open")
    )


async def test_of_one_tenant_only_the_oldest_job_is_worked_on(world: World, driver: StagedDriver) -> None:
    await world.provision(TENANT)
    driver.fail("throttle", "", times=1)
    first = asked(ThrottleEnvironment(tenant_id=TENANT, reason="unpaid"))
    second = asked(moved())
    await world.handle(first, second)
    assert ("move", "") not in driver.stages

    assert types(await world.wait(1)) == [EnvironmentThrottled, EnvironmentMoved]


async def test_a_full_lane_holds_up_no_other(world: World, driver: StagedDriver) -> None:
    await world.provision(TENANT)
    driver.hangs = {("move", "")}
    await world.take(asked(moved()))
    await begin(world.worker)
    await world.take(asked(wanted("another")))
    for _ in STAGES:
        await begin(world.worker)

    assert driver.made["another"].stage == "open"
    await _die(world.worker)


async def test_whoever_waits_hears_of_a_long_step_now_and_then(world: World, driver: StagedDriver) -> None:
    event = asked(wanted())
    await world.take(event)
    await world.worker.tell()
    assert world.said == []

    await world.clock.advance(TOLD_EVERY.total_seconds())
    await world.worker.tell()
    await world.worker.tell()

    (told,) = world.said
    assert told.message == StepProgressed(tenant_id=TENANT, stage="provision")
    assert (told.workflow_id, told.step) == (event.workflow_id, event.step)


async def test_a_move_carries_and_is_taken_back_by_carrying_back(world: World, driver: StagedDriver) -> None:
    await world.provision(TENANT, connections=5)
    before = await world.snapshot()
    event = asked(moved(connections=7))

    (answer,) = await world.handle(event)
    assert answer == EnvironmentMoved(tenant_id=TENANT, isolation="silo", frozen_milliseconds=12)
    assert driver.made[TENANT].isolation == "silo"
    assert await resources(world) == {"place": f"silo of {TENANT}"}
    assert await world.pool.fetchval("SELECT connections FROM environment") == 7
    assert await world.jobs() == [("move", "done", "")]

    assert types(await world.handle(undo_of(event))) == [EnvironmentMovedBack]
    assert driver.made[TENANT].isolation == "pool"
    after = await world.snapshot()
    assert [row[:8] for row in after["environment"]] == [row[:8] for row in before["environment"]]
    assert await world.jobs() == []


async def test_a_move_that_fails_leaves_the_environment_where_it_was(world: World, driver: StagedDriver) -> None:
    await world.provision(TENANT)
    before = await world.snapshot()
    driver.refuse("move", "switch", code="verification_failed")

    (answer,) = await world.handle(asked(moved()))

    assert isinstance(answer, EnvironmentMoveRefused)
    assert answer.code == "verification_failed"
    assert driver.made == {TENANT: Made("pool", stage="open")}
    assert await world.snapshot() == before
    assert await world.jobs() == []


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_move_that_is_taken_back_on_the_way_ends_where_it_began(
    world: World, driver: StagedDriver, steps: int
) -> None:
    await world.provision(TENANT)
    event = asked(moved())
    await world.take(event)
    for _ in range(steps):
        await world.worker.look()
        await asyncio.wait(list(world.worker.running))

    assert types(await world.handle(undo_of(event))) == [EnvironmentMovedBack]
    assert driver.made == {TENANT: Made("pool", stage="open")}
    assert await status(world) == "ready"
    assert await world.jobs() == []


async def test_a_move_within_one_isolation_carries_nothing(world: World, driver: StagedDriver) -> None:
    await world.provision(TENANT)
    event = asked(moved("pool", connections=3))
    assert types(await world.handle(event)) == [EnvironmentMoved]

    assert ("move", "") not in driver.stages
    assert driver.made[TENANT].connections == 3
    await world.handle(undo_of(event))
    assert driver.made[TENANT].connections is None


async def test_what_was_throttled_already_stays_so_when_the_throttling_is_taken_back(
    world: World, driver: StagedDriver
) -> None:
    await world.provision(TENANT)
    first, second = (asked(ThrottleEnvironment(tenant_id=TENANT, reason=reason)) for reason in ("first", "second"))
    await world.handle(first)
    await world.handle(second)

    assert types(await world.handle(undo_of(second))) == [EnvironmentUnthrottled]
    assert driver.made[TENANT].is_throttled
    assert await world.pool.fetchval("SELECT throttle_reason FROM environment") == "first"


async def test_what_an_earlier_workflow_did_is_forgotten_with_the_next_one(world: World) -> None:
    await world.provision(TENANT)
    await world.handle(asked(ThrottleEnvironment(tenant_id=TENANT)))
    assert await world.jobs() == [("throttle", "done", "")]

    await world.handle(asked(moved()))
    assert await world.jobs() == [("move", "done", "")]


async def test_a_removal_leaves_nothing_of_any_job(world: World, driver: StagedDriver) -> None:
    await world.provision(TENANT, products=[{"name": "notes", "version": "1.0"}])
    event = asked(ThrottleEnvironment(tenant_id=TENANT))
    await world.handle(event)
    (answer,) = await world.handle(asked(RemoveEnvironment(tenant_id=TENANT), workflow_id=event.workflow_id, step="x"))

    assert answer == EnvironmentRemoved(tenant_id=TENANT, deleted={"environments": 1, "deployments": 1, "app.note": 3})
    assert driver.made == {}
    assert await nothing_is_left(world)


async def test_a_removal_is_tried_until_it_succeeds(world: World, driver: StagedDriver) -> None:
    await world.provision(TENANT)
    driver.answers = [("deprovision", "clear", Retry(detail="busy"))] * (MOST_ATTEMPTS + 3)
    said = await world.handle(asked(RemoveEnvironment(tenant_id=TENANT)))
    for _ in range(MOST_ATTEMPTS + 3):
        said += await world.wait(60)

    assert types(said) == [EnvironmentRemoved]


async def test_who_asks_for_what_is_there_already_is_told_so_at_once(world: World, driver: StagedDriver) -> None:
    await world.provision(TENANT)
    calls = len(driver.asked)

    assert types(await world.take(asked(wanted(isolation="silo")))) == [EnvironmentProvisioned]
    assert len(driver.asked) == calls


async def test_who_asks_for_what_another_workflow_is_making_is_to_ask_again(world: World) -> None:
    await world.take(asked(wanted()))
    (answer,) = await world.take(asked(wanted()))

    assert isinstance(answer, EnvironmentRefused)
    assert (answer.code, answer.retryable) == ("environment_busy", True)


async def test_an_unknown_driver_is_refused(world: World) -> None:
    assert await world.refusal(ask(TENANT, driver="clouds")) == "unknown_driver"
    await world.provision(TENANT)
    assert await world.refusal(MoveEnvironment(tenant_id=TENANT, isolation="silo", driver="clouds")) == (
        "unsupported_move"
    )


async def test_a_crash_before_the_commit_leaves_no_job(world: World, driver: StagedDriver) -> None:
    await world.lose(asked(wanted()))

    assert await world.work() == []
    assert driver.asked == []
    assert await nothing_is_left(world)


async def test_what_a_process_of_the_release_before_has_undone_is_taken_back(
    world: World, driver: StagedDriver
) -> None:
    """It closes the operation and deletes the environment, and knows nothing of jobs."""
    event = asked(wanted())
    await world.take(event)
    await world.worker.look()
    await asyncio.wait(list(world.worker.running))
    await world.pool.execute("UPDATE operation SET state = 'undone'")
    await world.pool.execute("DELETE FROM environment")

    await world.work()

    assert driver.made == {}
    assert await nothing_is_left(world)


async def test_what_a_process_of_the_release_before_has_made_is_removed(world: World, driver: StagedDriver) -> None:
    driver.made["old"] = Made("pool")
    await world.pool.execute(
        """
        INSERT INTO environment (environment_id, tenant_id, isolation, region, created_at, driver)
        VALUES (gen_random_uuid(), 'old', 'pool', 'local', now(), 'staged')
        """
    )

    assert types(await world.handle(asked(DeprovisionEnvironment(tenant_id="old")))) == [EnvironmentDeprovisioned]
    assert driver.made == {}
    assert await nothing_is_left(world)
