"""How onboardings are accepted: together, once, durably, or not at all."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from deploy.local.throwaway import FreshDatabases
from services.onboarding.tests.catalogue import FULL
from services.onboarding.tests.support import Desk, blocked, go_on, open_desk
from shared import failpoints
from shared.http import Problem
from shared.postgres import Pool
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker

ROWS = "SELECT count(*) FROM workflow"


@pytest.fixture
async def other_desk(database_url: str, broker: MemoryBroker) -> AsyncIterator[Desk]:
    """The intake of a second replica."""
    async with open_desk(database_url, broker) as desk:
        yield desk


async def problem_of(attempt: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        await attempt
    return refused.value


# Accepting


async def test_an_accepted_onboarding_runs_and_its_first_step_is_asked(desk: Desk, pool: Pool) -> None:
    accepted = await desk.submit("Café 東京")

    assert not accepted.replayed
    assert accepted.workflow["status"] == "running"
    assert [(step["name"], step["status"]) for step in accepted.workflow["steps"]][:2] == [
        ("register-tenant", "running"),
        ("create-administrators", "pending"),
    ]
    row = await pool.fetchrow("SELECT * FROM workflow")
    assert row is not None
    assert (str(row["id"]), row["tenant_id"]) == (accepted.workflow["id"], accepted.workflow["tenantId"])
    assert (row["customer_name"], row["name_key"], row["kind"]) == ("Café 東京", "café 東京", "onboard")
    sent = await pool.fetch("SELECT routing_key FROM outbox ORDER BY id")
    assert {each["routing_key"] for each in sent} == {
        "tenant.register_tenant.v1",
        f"status.onboard.started.{row['tenant_id']}",
        "onboarding.workflow_status_changed.v1",
        "onboarding.decision_recorded.v1",
    }


async def test_what_is_asked_leaves_at_once(desk: Desk, broker: MemoryBroker) -> None:
    await desk.submit()

    await eventually(lambda: broker.depth("tenant.work") == 1, within=2)


async def test_the_whole_request_is_kept(desk: Desk, pool: Pool) -> None:
    await desk.submit("Café 東京", **{name: FULL[name] for name in FULL.keys() - {"customerName"}})

    assert await pool.fetchval("SELECT request FROM workflow") == FULL


async def test_many_at_once_share_a_few_transactions(desk: Desk, pool: Pool) -> None:
    accepted = await asyncio.gather(*(desk.submit(f"Customer {number}") for number in range(150)))

    assert len({each.workflow["id"] for each in accepted}) == await pool.fetchval(ROWS) == 150
    assert await pool.fetchval("SELECT count(DISTINCT xmin::text) FROM workflow") <= 3
    assert await pool.fetchval("SELECT count(*) FROM step") == 150 * 6
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 150 * 4


async def test_nothing_is_answered_before_it_is_on_disk(desk: Desk, pool: Pool) -> None:
    with failpoints.armed("before_202=hang"):
        submission = asyncio.create_task(desk.submit())
        await eventually(lambda: failpoints.hits("before_202") == 1)

        assert await pool.fetchval(ROWS) == 1
        assert not submission.done()
    submission.cancel()


async def test_a_request_whose_transaction_is_still_open_is_not_answered(desk: Desk, pool: Pool) -> None:
    with failpoints.armed("outbox_inserted=hang"):
        submission = asyncio.create_task(desk.submit())
        await eventually(lambda: failpoints.hits("outbox_inserted") == 1)

        assert await pool.fetchval(ROWS) == 0
        assert not submission.done()
    submission.cancel()


async def test_somebody_who_has_gone_away_does_not_disturb_the_others(database_url: str, broker: MemoryBroker) -> None:
    async with open_desk(database_url, broker, is_open=False) as desk:
        gone, patient = asyncio.create_task(desk.submit("Gone")), asyncio.create_task(desk.submit("Patient"))
        await asyncio.sleep(0)
        gone.cancel()
        running = asyncio.create_task(desk.intake.run())

        assert (await patient).workflow["customerName"] == "Patient"
        running.cancel()


# Names


async def test_a_name_that_is_taken_is_refused_however_it_is_written(desk: Desk, pool: Pool) -> None:
    first = await desk.submit("Acme Café")

    wide = "\uff21\uff23\uff2d\uff25 Café"
    for name in ("ACME Café", "acme cafe\u0301", "  Acme   Café ", wide, "Acme\u00a0Café"):
        problem = await problem_of(desk.submit(name))
        assert (problem.status, problem.code) == (409, "workflow_active"), name
        assert [error.pointer for error in problem.errors] == ["/customerName"]
        assert first.workflow["tenantId"] in problem.detail
        assert first.workflow["id"] in problem.detail
    assert await pool.fetchval(ROWS) == 1


async def test_another_name_is_another_customer(desk: Desk, pool: Pool) -> None:
    for name in ("Acme Café", "Acme Cafe", "AcmeCafé", "Acme Café 2"):
        await desk.submit(name)

    assert await pool.fetchval(ROWS) == 4


async def test_of_many_at_once_under_one_name_one_is_accepted(desk: Desk, other_desk: Desk, pool: Pool) -> None:
    attempts = [
        each.submit("Straße" if number % 2 else "STRASSE") for number in range(10) for each in (desk, other_desk)
    ]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)

    problems = [each for each in outcomes if isinstance(each, Problem)]
    assert len(problems) == 19
    assert {problem.code for problem in problems} == {"workflow_active"}
    assert await pool.fetchval(ROWS) == 1


async def test_the_name_of_an_onboarding_that_was_undone_is_free_again(desk: Desk, pool: Pool) -> None:
    undone = await desk.submit("Acme")
    await go_on(pool, UUID(undone.workflow["id"]), refuse="open-account")

    again = await desk.submit("Acme")

    assert again.workflow["status"] == "running"
    assert again.workflow["tenantId"] != undone.workflow["tenantId"]


async def test_the_name_of_a_completed_onboarding_stays_its_tenants(desk: Desk, pool: Pool) -> None:
    first = await desk.submit("Acme")
    await go_on(pool, UUID(first.workflow["id"]))

    assert (await desk.submit("ACME")).workflow["tenantId"] == first.workflow["tenantId"]


# Idempotency


async def test_the_same_request_under_the_same_key_gets_the_first_answer_again(desk: Desk, pool: Pool) -> None:
    first = await desk.submit(key="k1")
    await go_on(pool, UUID(first.workflow["id"]))
    again = await desk.submit(key="k1")

    assert again.replayed
    assert again.workflow == first.workflow
    assert await pool.fetchval(ROWS) == 1


async def test_another_request_under_the_same_key_is_refused(desk: Desk, pool: Pool) -> None:
    await desk.submit("Acme", key="k1")
    problem = await problem_of(desk.submit("Bolt", key="k1"))

    assert (problem.status, problem.code) == (422, "idempotency_key_reused")
    assert [error.pointer for error in problem.errors] == ["header/Idempotency-Key"]
    assert await pool.fetchval(ROWS) == 1


async def test_keys_belong_to_whoever_uses_them(desk: Desk, pool: Pool) -> None:
    await desk.submit("Acme", key="k1", principal="ada")
    await desk.submit("Bolt", key="k1", principal="bea")

    assert await pool.fetchval(ROWS) == 2


async def test_a_refused_request_may_be_sent_again_under_its_key(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start("Acme")
    await problem_of(desk.submit("Acme", key="k1"))
    await go_on(pool, workflow_id, refuse="register-tenant")

    assert not (await desk.submit("Acme", key="k1")).replayed


async def test_repetitions_at_once_are_accepted_once(desk: Desk, other_desk: Desk, pool: Pool) -> None:
    accepted = await asyncio.gather(*(each.submit(key="k1") for _ in range(20) for each in (desk, other_desk)))

    assert len({each.workflow["id"] for each in accepted}) == 1
    assert [each.replayed for each in accepted].count(False) == 1
    assert await pool.fetchval(ROWS) == 1


async def test_other_requests_at_once_under_one_key_are_refused(desk: Desk, other_desk: Desk, pool: Pool) -> None:
    attempts = [each.submit(f"Customer {n}", key="k1") for n in range(10) for each in (desk, other_desk)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)

    codes = [each.code for each in outcomes if isinstance(each, Problem)]
    assert codes == ["idempotency_key_reused"] * 18
    assert await pool.fetchval(ROWS) == 1


@pytest.mark.parametrize("name", ["Acme", "Bolt"])
async def test_a_replica_that_is_overtaken_answers_like_the_one_that_was_faster(
    desk: Desk, other_desk: Desk, pool: Pool, name: str
) -> None:
    """Both have looked for the key and found nothing; one of them is about to commit."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE outbox")
        faster = asyncio.create_task(desk.submit("Acme", key="k1"))
        await eventually(lambda: _is_blocked(pool, 1))
        slower = asyncio.create_task(other_desk.submit(name, key="k1"))
        await eventually(lambda: _is_blocked(pool, 2))

    first = await faster
    if name == "Acme":
        assert (await slower).replayed
        assert (await slower).workflow == first.workflow
    else:
        assert (await problem_of(slower)).code == "idempotency_key_reused"
    assert await pool.fetchval(ROWS) == 1


async def _is_blocked(pool: Pool, sessions: int) -> bool:
    return await blocked(pool) == sessions


# Failing


async def test_a_commit_that_fails_fails_each_that_waits_and_leaves_nothing(
    fresh_database: FreshDatabases, broker: MemoryBroker
) -> None:
    urls = await fresh_database.urls("onboarding")
    owner = await asyncpg.connect(urls.owner)
    await owner.execute(
        """
        CREATE FUNCTION refuse_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
        CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON workflow DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.customer_name LIKE 'Poison%') EXECUTE FUNCTION refuse_commit();
        """
    )
    async with open_desk(urls.app, broker) as desk:
        names = [f"{kind} {number}" for number in range(3) for kind in ("Poison", "Good")]
        attempts = [desk.submit(name, key=name.replace(" ", "-")) for name in names]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)

        assert [isinstance(each, asyncpg.RaiseError) for each in outcomes] == [True, False] * 3
        rows = await owner.fetch("SELECT customer_name FROM workflow ORDER BY id")
        assert [row["customer_name"] for row in rows] == ["Good 0", "Good 1", "Good 2"]
        for table in ("customer", "idempotency"):
            assert await owner.fetchval(f"SELECT count(*) FROM {table}") == 3
        assert await owner.fetchval("SELECT count(*) FROM outbox") == 12
    await owner.close()


async def test_an_outage_is_told_to_each_that_waits_and_the_next_are_accepted(desk: Desk, pool: Pool) -> None:
    with failpoints.armed("outbox_inserted=raise"):
        outcomes = await asyncio.gather(*(desk.submit(f"Customer {n}") for n in range(5)), return_exceptions=True)

    assert [type(each) for each in outcomes] == [failpoints.FailpointError] * 5
    assert await pool.fetchval(ROWS) == 0
    assert (await desk.submit("Customer 1")).workflow["status"] == "running"


async def test_after_an_answer_that_got_lost_the_key_finds_what_was_accepted(desk: Desk, pool: Pool) -> None:
    with failpoints.armed("before_202=raise"), pytest.raises(failpoints.FailpointError):
        await desk.submit(key="k1")

    again = await desk.submit(key="k1")
    assert again.replayed
    assert again.workflow["id"] == str(await pool.fetchval("SELECT id FROM workflow"))


async def test_an_absent_broker_does_not_keep_anybody_waiting(desk: Desk, broker: MemoryBroker, pool: Pool) -> None:
    broker.go_away()

    await desk.submit("Acme")
    await desk.submit("Bolt")

    assert await pool.fetchval("SELECT count(*) FROM outbox") == 8


async def test_who_comes_when_too_many_wait_is_told_to_come_back(database_url: str, broker: MemoryBroker) -> None:
    async with open_desk(database_url, broker, backlog=2, is_open=False) as desk:
        patient = [asyncio.create_task(desk.submit(f"Customer {number}")) for number in range(2)]
        await asyncio.sleep(0)
        problem = await problem_of(desk.submit("Bolt"))
        running = asyncio.create_task(desk.intake.run())

        assert (problem.status, problem.code, problem.retryable) == (503, "overloaded", True)
        assert int(problem.headers["Retry-After"]) > 0
        assert len(await asyncio.gather(*patient)) == 2
        assert (await desk.submit("Bolt")).workflow["status"] == "running"
        running.cancel()
