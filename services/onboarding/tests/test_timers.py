"""What happens when nobody answers: on one replica or several, once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from uuid import UUID

import pytest

from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.tests.catalogue import answers
from services.onboarding.tests.support import Desk, go_on, hear, kinds, open_desk, stored, told, waiting
from services.onboarding.timers import Timers
from services.onboarding.workflow import Status
from shared import failpoints
from shared.clock import ManualClock
from shared.postgres import Pool, transaction
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker

DAY = 86_400.0
TIMEOUT = ONBOARD.plan[0].timeout
MIDDLE = ("create-administrators", "open-account", "track-tenant", "provision-environment")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def desk(database_url: str, broker: MemoryBroker, clock: ManualClock) -> AsyncIterator[Desk]:
    async with open_desk(database_url, broker, clock=clock) as desk:
        yield desk


@pytest.fixture
async def other_desk(database_url: str, broker: MemoryBroker, clock: ManualClock) -> AsyncIterator[Desk]:
    async with open_desk(database_url, broker, clock=clock) as desk:
        yield desk


def timers(desk: Desk) -> Timers:
    return Timers(desk.kernel, desk.engine, desk.watch)


async def asked(pool: Pool, routing_key: str) -> int:
    count: int = await pool.fetchval("SELECT count(*) FROM outbox WHERE routing_key = $1", routing_key)
    return count


async def attempts(pool: Pool, workflow_id: UUID) -> int:
    """Return how often the first step was asked."""
    count: int = await pool.fetchval(
        "SELECT attempts FROM step WHERE workflow_id = $1 AND name = 'register-tenant'", workflow_id
    )
    return count


async def test_a_step_is_asked_again_when_its_time_is_up(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    workflow_id = await desk.start()
    await clock.advance(TIMEOUT)

    assert await timers(desk).fire() == 1

    assert (await kinds(pool, workflow_id))[-2:] == ["timed_out", "asked"]
    assert (await stored(pool, workflow_id)).workflow.steps["register-tenant"].attempts == 2
    assert await asked(pool, "tenant.register_tenant.v1") == 2
    assert await timers(desk).fire() == 0


async def test_a_second_attempt_leaves_at_once(desk: Desk, broker: MemoryBroker, clock: ManualClock) -> None:
    await desk.start()
    await clock.advance(TIMEOUT)

    await timers(desk).fire()

    assert broker.depth("tenant.work") == 2


async def test_nothing_happens_before_the_time_is_up(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    workflow_id = await desk.start()
    await clock.advance(TIMEOUT - 0.001)

    assert await timers(desk).fire() == 0
    assert await kinds(pool, workflow_id) == ["started", "asked"]


async def test_a_step_that_was_answered_has_no_timer(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    await go_on(pool, await desk.start())
    await clock.advance(100 * TIMEOUT)

    assert await timers(desk).fire() == 0


async def test_several_steps_of_one_workflow_may_be_due_at_once(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    workflow_id = await desk.start()
    await hear(pool, told(workflow_id, "register-tenant", answers()["register-tenant"]), clock=clock)
    await clock.advance(TIMEOUT)

    assert await timers(desk).fire() == 1

    steps = (await stored(pool, workflow_id)).workflow.steps
    assert {steps[name].attempts for name in MIDDLE} == {2}


async def test_a_service_that_never_answers_costs_the_workflow_but_leaves_nothing(
    desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    workflow_id = await desk.start()
    for _ in range(ONBOARD.plan[0].attempts):
        await clock.advance(TIMEOUT)
        await timers(desk).fire()
    assert list(await waiting(pool, workflow_id, "undoing")) == ["register-tenant"]

    await go_on(pool, workflow_id)

    workflow = (await stored(pool, workflow_id)).workflow
    assert workflow.status is Status.COMPENSATED
    assert workflow.failure is not None
    assert (workflow.failure.step, workflow.failure.code) == ("register-tenant", "timed_out")
    assert await pool.fetch("SELECT * FROM live_record") == []


async def test_a_workflow_that_cannot_go_on_does_not_hold_up_the_others(
    desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    broken, sound, waiting_too = [await desk.start(f"Customer {number}") for number in range(3)]
    await pool.execute("UPDATE workflow SET definition = 'forgotten' WHERE id = $1", broken)
    await clock.advance(TIMEOUT)

    assert await timers(desk).fire() > 0

    assert [(await kinds(pool, each))[-1] for each in (broken, sound, waiting_too)] == ["asked"] * 3
    assert [await attempts(pool, each) for each in (broken, sound, waiting_too)] == [1, 2, 2]
    assert await timers(desk).fire() == 0


async def test_a_workflow_that_could_not_go_on_is_tried_again_a_minute_later(
    desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    workflow_id = await desk.start()
    await pool.execute("UPDATE workflow SET definition = 'forgotten' WHERE id = $1", workflow_id)
    await clock.advance(TIMEOUT)
    await timers(desk).fire()
    await pool.execute("UPDATE workflow SET definition = 'onboard' WHERE id = $1", workflow_id)

    await clock.advance(59)
    assert await timers(desk).fire() == 0
    await clock.advance(1)
    assert await timers(desk).fire() == 1

    assert await attempts(pool, workflow_id) == 2


# Deadlines


async def test_a_workflow_that_has_not_ended_by_its_deadline_is_undone(
    desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    workflow_id = await desk.start()
    await pool.execute("UPDATE step SET due_at = NULL")
    await clock.advance(ONBOARD.deadline - 0.001)
    assert await timers(desk).fire() == 0

    await clock.advance(0.001)
    assert await timers(desk).fire() == 1

    workflow = (await stored(pool, workflow_id)).workflow
    assert workflow.failure is not None
    assert (workflow.status, workflow.failure.code) == (Status.COMPENSATING, "deadline_exceeded")
    assert workflow.deadline_at is None
    assert await asked(pool, "tenant.deregister_tenant.v1") == 1
    assert await timers(desk).fire() == 0
    await desk.go_on(workflow_id)
    assert await pool.fetch("SELECT * FROM live_record") == []


async def test_a_workflow_that_has_ended_in_time_has_no_deadline_any_more(
    desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    completed, compensated = await desk.start("Acme"), await desk.start("Bolt")
    await desk.go_on(completed)
    await desk.go_on(compensated, refuse="open-account")

    await clock.advance(100 * ONBOARD.deadline)

    assert await timers(desk).fire() == 0
    assert await pool.fetchval("SELECT count(*) FROM workflow WHERE deadline_at IS NOT NULL") == 0


async def test_what_a_workflow_waits_does_not_count_towards_its_deadline(
    desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    tenant_id = await desk.tenant("Acme")
    workflow_id = await desk.begin(OFFBOARD, tenant_id, graceDays=30, export=False)
    await desk.go_on(workflow_id, until=["grace-period"])
    await clock.advance(30 * DAY - 1)
    assert await timers(desk).fire() == 0
    await clock.advance(1)

    assert await timers(desk).fire() == 1

    workflow = (await stored(pool, workflow_id)).workflow
    assert (workflow.status, workflow.steps["grace-period"].status) == (Status.RUNNING, "succeeded")
    assert list(await waiting(pool, workflow_id, "running")) == ["block-sign-in", "throttle-environment"]
    await clock.advance(OFFBOARD.deadline)
    await timers(desk).fire()
    assert (await stored(pool, workflow_id)).workflow.status is Status.COMPENSATING


async def test_a_grace_of_no_days_is_over_at_the_next_look(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    workflow_id = await desk.begin(OFFBOARD, await desk.tenant("Acme"), graceDays=0, export=False)
    await desk.go_on(workflow_id, until=["grace-period"])
    await clock.advance(0)

    assert await timers(desk).fire() == 1

    assert list(await waiting(pool, workflow_id, "running")) == ["block-sign-in", "throttle-environment"]


async def test_past_the_pivot_a_deadline_calls_for_somebody(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    workflow_id = await desk.begin(OFFBOARD, await desk.tenant("Acme"), graceDays=0, export=False)
    await desk.go_on(workflow_id, until=["remove-environment"])
    await pool.execute("UPDATE step SET due_at = NULL")
    await clock.advance(OFFBOARD.deadline)

    await timers(desk).fire()

    assert (await stored(pool, workflow_id)).workflow.status is Status.NEEDS_ATTENTION
    await desk.go_on(workflow_id)
    assert (await stored(pool, workflow_id)).workflow.status is Status.COMPLETED


async def test_a_step_and_its_workflow_may_be_due_at_once(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    workflow_id = await desk.start()
    await clock.advance(ONBOARD.deadline)

    assert await timers(desk).fire() == 1

    assert (await kinds(pool, workflow_id))[2:] == [
        "timed_out",
        "asked",
        "deadline_passed",
        "compensating",
        "undo_asked",
    ]


async def test_a_workflow_that_fails_at_its_deadline_does_not_hold_up_the_others(
    desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    broken, sound = await desk.start("Acme"), await desk.start("Bolt")
    await pool.execute("UPDATE step SET due_at = NULL")
    await pool.execute("UPDATE workflow SET definition = 'forgotten' WHERE id = $1", broken)
    await clock.advance(ONBOARD.deadline)

    await timers(desk).fire()

    assert [(await stored(pool, each)).workflow.status for each in (broken, sound)] == ["running", "compensating"]
    await pool.execute("UPDATE step SET due_at = NULL")
    assert await timers(desk).fire() == 0
    await pool.execute("UPDATE workflow SET definition = 'onboard' WHERE id = $1", broken)
    await clock.advance(60)
    assert await timers(desk).fire() == 1
    assert (await stored(pool, broken)).workflow.status is Status.COMPENSATING


async def test_the_deadline_of_a_workflow_that_the_release_before_has_ended_is_taken_off(
    desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    """That release knows of no deadline; what it ends keeps one, which must not be due for ever."""
    workflow_id = await desk.start()
    await desk.go_on(workflow_id)
    lines = await kinds(pool, workflow_id)
    await pool.execute("UPDATE workflow SET deadline_at = $1", clock.now())

    assert await timers(desk).fire() == 1

    assert await timers(desk).fire() == 0
    assert await kinds(pool, workflow_id) == lines


# Several replicas


async def test_two_replicas_never_take_the_same_timer(
    desk: Desk, other_desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    for number in range(4):
        await desk.start(f"Customer {number}")
    await clock.advance(TIMEOUT)

    async with transaction(desk.pool) as one, transaction(other_desk.pool) as another:
        taken, _ = await desk.engine.take_due(one, limit=2)
        async with asyncio.timeout(5):
            elsewhere, _ = await other_desk.engine.take_due(another, limit=10)
    rest = await timers(other_desk).fire()

    assert (taken, elsewhere, rest) == (2, 2, 0)
    counts = await pool.fetch("SELECT count(*) AS lines FROM history WHERE kind = 'timed_out' GROUP BY workflow_id")
    assert [row["lines"] for row in counts] == [1] * 4


async def test_many_replicas_at_once_let_each_timer_take_effect_once(
    desk: Desk, other_desk: Desk, pool: Pool, clock: ManualClock
) -> None:
    await asyncio.gather(*(desk.start(f"Customer {number}") for number in range(30)))
    await clock.advance(TIMEOUT)

    await asyncio.gather(*(timers(each).fire() for _ in range(4) for each in (desk, other_desk)))

    assert await pool.fetchval("SELECT count(*) FROM history WHERE kind = 'timed_out'") == 30
    assert await asked(pool, "tenant.register_tenant.v1") == 60


async def test_a_workflow_that_is_just_being_answered_is_left_alone(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    workflow_id = await desk.start()
    await clock.advance(TIMEOUT)

    async with transaction(pool) as connection:
        await connection.execute("SELECT 1 FROM workflow WHERE id = $1 FOR UPDATE", workflow_id)
        async with asyncio.timeout(5):
            assert await timers(desk).fire() == 0
    assert await timers(desk).fire() == 1


# Failing


async def test_a_timer_whose_transaction_failed_is_still_due(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    workflow_id = await desk.start()
    await clock.advance(TIMEOUT)

    with failpoints.armed("due_claimed=raise"), pytest.raises(failpoints.FailpointError):
        await timers(desk).fire()

    assert await kinds(pool, workflow_id) == ["started", "asked"]
    assert await timers(desk).fire() == 1


async def test_it_looks_again_and_again_whatever_the_database_does(desk: Desk, pool: Pool, clock: ManualClock) -> None:
    workflow_id = await desk.start()
    running = asyncio.create_task(timers(desk).run())
    try:
        with failpoints.armed("due_claimed=raise"):
            await _let_time_pass_until(clock, _has_struck)
        await _let_time_pass_until(clock, lambda: _has_timed_out(pool, workflow_id))
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_more_timers_than_one_transaction_takes_are_all_taken(
    desk: Desk, pool: Pool, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.onboarding.timers._LIMIT", 3)
    await asyncio.gather(*(desk.start(f"Customer {number}") for number in range(7)))
    await clock.advance(TIMEOUT)
    running = asyncio.create_task(timers(desk).run())

    await eventually(lambda: _count(pool, "timed_out", 7))  # without the clock going on: in one look
    running.cancel()


async def _let_time_pass_until(clock: ManualClock, condition: Callable[[], Awaitable[bool]]) -> None:
    async def holds() -> bool:
        await clock.advance(TIMEOUT / 10)
        return await condition()

    await eventually(holds)


async def _has_struck() -> bool:
    return failpoints.hits("due_claimed") == 1


async def _has_timed_out(pool: Pool, workflow_id: UUID) -> bool:
    return "timed_out" in await kinds(pool, workflow_id)


async def _count(pool: Pool, kind: str, expected: int) -> bool:
    count: int = await pool.fetchval("SELECT count(*) FROM history WHERE kind = $1", kind)
    return count == expected
