"""What the answers of the other services make of stored workflows."""

import asyncio
import itertools
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from services.onboarding import handlers, queries
from services.onboarding.engine import UnknownWorkflowError
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.tests.catalogue import CATALOG, FULL, answers, refusals
from services.onboarding.tests.support import Desk, go_on, hear, kinds, stored, told, waiting
from services.onboarding.workflow import Failure, Status
from shared.clock import ManualClock
from shared.contracts.base import Ask, Fact, Message
from shared.contracts.billing import SubscriptionStarted
from shared.contracts.metrics import QuotaCrossed
from shared.contracts.onboarding import (
    MailCounted,
    StepFailed,
    TenantMailPaused,
    TenantMailResumed,
    TenantQuotaCrossed,
    WorkflowStatusChanged,
)
from shared.contracts.provisioning import (
    MailReported,
    MailSendingPaused,
    MailSendingResumed,
    ProvisionEnvironment,
)
from shared.contracts.tenant import ActivateTenant, LicensedProduct, PlacedProduct
from shared.ids import TimeOrderedIds
from shared.messaging.event import Event, UndecodableError, decode
from shared.postgres import Pool, transaction

MIDDLE = ("create-administrators", "open-account", "track-tenant", "provision-environment")


async def registered(desk: Desk, pool: Pool, name: str = "Acme", **details: Any) -> UUID:
    """Have an onboarding accepted and its tenant registered."""
    workflow_id = await desk.start(name, **details)
    await go_on(pool, workflow_id, until=MIDDLE)
    return workflow_id


async def statuses(pool: Pool, workflow_id: UUID) -> dict[str, str]:
    workflow = (await stored(pool, workflow_id)).workflow
    return {name: step.status.value for name, step in workflow.steps.items()}


# Answers


async def test_an_answer_moves_its_workflow_on(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start()
    (ask_id,) = (await waiting(pool, workflow_id, "running")).values()

    said = await hear(pool, told(workflow_id, "register-tenant", answers()["register-tenant"], ask_id=ask_id))

    assert [event.step for event in said] == list(MIDDLE)
    assert {event.id for event in said} == set((await waiting(pool, workflow_id, "running")).values())
    assert {event.workflow_id for event in said} == {workflow_id}
    step = (await stored(pool, workflow_id)).workflow.steps["register-tenant"]
    assert (step.status, step.due_at, step.attempts) == ("succeeded", None, 1)
    assert step.result == answers()["register-tenant"].model_dump(mode="json")
    assert await pool.fetchval("SELECT message_id FROM history WHERE kind = 'succeeded'") == ask_id


async def test_asks_are_made_of_the_stored_request_and_answers(desk: Desk, pool: Pool) -> None:
    details = {name: FULL[name] for name in ("products", "region")}
    workflow_id = await desk.start(**details)
    tenant_id = (await stored(pool, workflow_id)).workflow.tenant_id

    notes = {"name": "notes", "version": "2.0", "isolation": "silo", "driver": "script"}
    answer = answers(tenant_id)["register-tenant"].model_copy(
        update={"products": (LicensedProduct(**notes, plan="notes"),)}
    )

    said = await hear(pool, told(workflow_id, "register-tenant", answer))

    assert said[-1].message == ProvisionEnvironment(
        tenant_id=tenant_id, isolation="pool", region="eu-central", products=(PlacedProduct(**notes),)
    )


async def test_several_answers_for_one_workflow_in_one_batch_all_count(desk: Desk, pool: Pool) -> None:
    workflow_id = await registered(desk, pool)

    said = await hear(pool, *(told(workflow_id, step, answers()[step]) for step in MIDDLE))

    assert [type(event.message) for event in said] == [ActivateTenant]
    assert set((await statuses(pool, workflow_id)).values()) == {"succeeded", "running"}


async def test_answers_at_once_on_several_connections_all_count(desk: Desk, pool: Pool) -> None:
    workflow_id = await registered(desk, pool)

    said = await asyncio.gather(*(hear(pool, told(workflow_id, step, answers()[step])) for step in MIDDLE))

    assert [type(event.message) for events in said for event in events] == [ActivateTenant]


async def test_batches_of_the_same_workflows_in_other_orders_do_not_block_each_other(desk: Desk, pool: Pool) -> None:
    workflows = [await registered(desk, pool, f"Customer {number}") for number in range(6)]
    orders = [workflows, workflows[::-1], workflows[3:] + workflows[:3], workflows[::2] + workflows[1::2]]

    async with asyncio.timeout(20):
        await asyncio.gather(
            *(
                hear(pool, *(told(workflow_id, step, answers()[step]) for workflow_id in order))
                for step, order in zip(MIDDLE, orders, strict=True)
            )
        )

    for workflow_id in workflows:
        assert list(await waiting(pool, workflow_id, "running")) == ["activate-tenant"]


async def test_each_answer_of_a_batch_moves_its_own_workflow(desk: Desk, pool: Pool) -> None:
    first, second = await desk.start("Acme"), await desk.start("Bolt")

    said = await hear(
        pool,
        told(second, "register-tenant", refusals()["register-tenant"]),
        told(first, "register-tenant", answers()["register-tenant"]),
    )

    assert (await stored(pool, first)).workflow.status is Status.RUNNING
    assert (await stored(pool, second)).workflow.status is Status.COMPENSATED
    assert [event.workflow_id for event in said] == [second] * 6 + [first] * 4


async def test_a_workflow_ends_completed(desk: Desk, pool: Pool) -> None:
    workflow_id = await registered(desk, pool)
    await go_on(pool, workflow_id)

    workflow = (await stored(pool, workflow_id)).workflow
    assert workflow.status is Status.COMPLETED
    assert workflow.finished_at == workflow.updated_at
    assert (await kinds(pool, workflow_id))[-1] == "completed"
    assert await pool.fetchval("SELECT count(*) FROM step WHERE due_at IS NOT NULL") == 0


@pytest.mark.parametrize("refused", ["register-tenant", *MIDDLE, "activate-tenant"])
async def test_whatever_step_is_refused_the_workflow_ends_compensated(desk: Desk, pool: Pool, refused: str) -> None:
    workflow_id = await desk.start()

    await go_on(pool, workflow_id, refuse=refused)

    workflow = (await stored(pool, workflow_id)).workflow
    assert workflow.status is Status.COMPENSATED
    assert workflow.failure == Failure(refused, "no_room", "No.")
    assert await pool.fetch("SELECT * FROM live_record") == []
    assert await pool.fetchval("SELECT count(*) FROM step WHERE due_at IS NOT NULL OR may_have_effect") == 0


async def test_a_repeated_answer_changes_nothing_and_is_written_down(desk: Desk, pool: Pool) -> None:
    workflow_id = await registered(desk, pool)
    before = (await stored(pool, workflow_id)).workflow

    assert await hear(pool, told(workflow_id, "register-tenant", answers()["register-tenant"])) == []

    after = (await stored(pool, workflow_id)).workflow
    assert (after.steps, after.seq) == (before.steps, before.seq + 1)
    assert (await kinds(pool, workflow_id))[-1] == "late_success"


# What everybody outside is told


async def test_everybody_outside_is_told_of_a_failure_and_of_the_end(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start()
    tenant_id = (await stored(pool, workflow_id)).workflow.tenant_id

    said = await hear(pool, told(workflow_id, "register-tenant", refusals(tenant_id)["register-tenant"]))

    common = {"tenant_id": tenant_id, "workflow_id": str(workflow_id), "kind": "onboard"}
    outside, inside = said[::2], said[1::2]
    assert [event.message for event in outside] == [event.message for event in inside]
    told_of = [event.message.model_dump(exclude={"occurred_at"}) for event in outside]
    failed = {**common, "step": "register-tenant", "error": "no: No."}
    assert told_of == [
        failed | {"status": "compensating", "attempt": 1},
        failed | {"status": "compensating"},
        failed | {"status": "compensated"},
    ]
    assert [type(event.message) for event in outside] == [StepFailed, WorkflowStatusChanged, WorkflowStatusChanged]
    rows = await pool.fetch("SELECT routing_key FROM outbox WHERE exchange = 'tenure.status' ORDER BY id")
    assert [row["routing_key"] for row in rows] == [
        f"status.onboard.started.{tenant_id}",
        f"error.onboard.register-tenant.{tenant_id}",
        f"status.onboard.compensating.{tenant_id}",
        f"status.onboard.compensated.{tenant_id}",
    ]
    rows = await pool.fetch("SELECT routing_key FROM outbox WHERE exchange = 'tenure.onboarding' ORDER BY id")
    assert [row["routing_key"] for row in rows if "decision" not in row["routing_key"]][2:] == [
        "onboarding.step_failed.v1",
        "onboarding.workflow_status_changed.v1",
        "onboarding.workflow_status_changed.v1",
    ]


async def test_a_step_that_is_tried_again_is_told(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start()
    tenant_id = (await stored(pool, workflow_id)).workflow.tenant_id
    (ask_id,) = (await waiting(pool, workflow_id, "running")).values()
    busy = refusals(tenant_id, retryable=True)["register-tenant"]

    await hear(pool, told(workflow_id, "register-tenant", busy, ask_id=ask_id))

    assert await pool.fetchval("SELECT count(*) FROM outbox WHERE routing_key LIKE 'retry%'") == 1
    assert await pool.fetchval("SELECT max(routing_key) FROM outbox WHERE routing_key LIKE 'retry%'") == (
        f"retry.onboard.register-tenant.{tenant_id}"
    )


# Answers to nothing


async def test_an_answer_to_an_unknown_workflow_is_an_error_and_changes_nothing(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start()
    good = told(workflow_id, "register-tenant", answers()["register-tenant"])
    bad = told(UUID(int=7), "register-tenant", answers()["register-tenant"])

    with pytest.raises(UnknownWorkflowError, match="there is no workflow"):
        await hear(pool, good, bad)

    assert list(await waiting(pool, workflow_id, "running")) == ["register-tenant"]


async def test_an_answer_to_an_unknown_step_is_an_error(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start()

    with pytest.raises(UnknownWorkflowError, match="has no step paint-it-black"):
        await hear(pool, told(workflow_id, "paint-it-black", answers()["track-tenant"]))


@pytest.mark.parametrize("wrong", ["track-tenant", "activate-tenant"])
async def test_an_answer_to_another_ask_than_the_steps_is_an_error(desk: Desk, pool: Pool, wrong: str) -> None:
    """Whoever may speak for metrics must not be able to say that billing is done."""
    workflow_id = await registered(desk, pool)

    with pytest.raises(UnknownWorkflowError, match="open-account is not answered by"):
        await hear(pool, told(workflow_id, "open-account", answers()[wrong]))

    assert (await statuses(pool, workflow_id))["open-account"] == "running"


async def test_an_answer_to_a_step_that_asks_nothing_is_an_error(desk: Desk, pool: Pool) -> None:
    """What waits must be waited out, whatever anybody tells."""
    tenant_id = await desk.tenant("Acme")
    workflow_id = await desk.begin(OFFBOARD, tenant_id, graceDays=30, export=False)
    await desk.go_on(workflow_id, until=["grace-period"])

    for fact in (CATALOG, SubscriptionStarted(tenant_id=tenant_id, plan="gold"), answers(tenant_id)["block-sign-in"]):
        with pytest.raises(UnknownWorkflowError, match="grace-period is not answered by"):
            await hear(pool, told(workflow_id, "grace-period", fact))

    assert list(await waiting(pool, workflow_id, "running")) == ["grace-period"]


async def test_an_answer_without_a_workflow_is_an_error(pool: Pool) -> None:
    event = told(UUID(int=7), "register-tenant", answers()["register-tenant"])

    with pytest.raises(UndecodableError):
        await hear(pool, Event(event.id, event.publisher, event.time, event.message))


# What the database itself refuses


async def test_a_final_workflow_never_gets_another_status(desk: Desk, pool: Pool) -> None:
    await go_on(pool, await desk.start("Acme"))
    await go_on(pool, await desk.start("Bolt"), refuse="register-tenant")

    for old, new in itertools.permutations((each.value for each in Status), 2):
        if Status(old).is_final and old != Status.ABANDONED:
            with pytest.raises(asyncpg.RaiseError, match="is final"):
                await pool.execute("UPDATE workflow SET status = $2 WHERE status = $1", old, new)


async def test_the_history_is_only_ever_added_to(desk: Desk, pool: Pool) -> None:
    await desk.start()

    for statement in ("UPDATE history SET kind = 'completed'", "DELETE FROM history"):
        with pytest.raises(asyncpg.RaiseError, match="is final"):
            await pool.execute(statement)


async def test_the_history_has_no_gaps_and_no_line_twice(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start()
    await go_on(pool, workflow_id, refuse="activate-tenant")

    rows = await pool.fetch("SELECT seq, position FROM history ORDER BY position")
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) == (await stored(pool, workflow_id)).workflow.seq


# The catalog


async def test_the_newest_catalog_is_kept_whatever_the_order(pool: Pool) -> None:
    def catalog(revision: int) -> Any:
        return CATALOG.model_copy(update={"revision": revision, "default_tier": f"tier{revision}"})

    for batch in ([2, 3, 1], [3], [2]):
        async with transaction(pool) as connection:
            assert await handlers.keep_catalog(connection, [catalog(revision) for revision in batch]) == []

    async with pool.acquire() as connection:
        kept = await queries.catalog(connection)
    assert kept is not None
    assert (kept["revision"], kept["default_tier"]) == (3, "tier3")


# What is said on


async def relayed(fact: Fact) -> list[tuple[str, str, Message]]:
    """Return the exchange, the key and what is said of a fact of another service."""
    event = Event(TimeOrderedIds().new(), fact.owner, ManualClock().now(), fact)
    said = await handlers.relay(None, [event], clock=ManualClock(), ids=TimeOrderedIds())  # type: ignore[arg-type]
    return [(each.exchange, each.routing_key, decode(orjson.loads(each.event)).message) for each in said]


async def test_what_becomes_of_mails_is_said_to_everybody_outside_by_event_and_tenant() -> None:
    now = ManualClock().now()

    about: dict[str, Any] = {"tenant_id": "t1", "product": "crm", "hour": now}
    said = await relayed(MailReported(counts={"send": 3, "permanent_bounce": 1}, **about))

    about["occurred_at"] = now
    assert said == [
        ("tenure.status", "mail.send.t1", MailCounted(event="send", count=3, **about)),
        ("tenure.status", "mail.permanent_bounce.t1", MailCounted(event="permanent_bounce", count=1, **about)),
    ]


async def test_everybody_outside_is_warned_of_a_tenant_whose_mail_is_paused_and_told_when_it_goes_on() -> None:
    now = ManualClock().now()
    about: dict[str, Any] = {
        "tenant_id": "t1", "product": "crm", "code": "bounce_rate", "sends": 100, "bounces": 9, "complaints": 0,
        "limit_percent": 8.0, "hours": 24, "occurred_at": now,
    }  # fmt: skip

    assert await relayed(MailSendingPaused(**about)) == [
        ("tenure.status", "warning.mail.t1", TenantMailPaused(**about))
    ]
    whose: dict[str, Any] = {"tenant_id": "t1", "product": "crm", "occurred_at": now}
    assert await relayed(MailSendingResumed(**whose)) == [
        ("tenure.status", "mail.resumed.t1", TenantMailResumed(**whose))
    ]


async def test_everybody_outside_is_warned_of_a_quota_that_is_used_up() -> None:
    about: dict[str, Any] = {
        "tenant_id": "t1", "meter": "seats", "percent": 80, "used": "4", "limit_value": 5, "month": "2026-03",
        "enforcement": "hard", "occurred_at": ManualClock().now(),
    }  # fmt: skip

    assert await relayed(QuotaCrossed(**about)) == [("tenure.status", "warning.quota.t1", TenantQuotaCrossed(**about))]


def test_every_answer_to_every_ask_is_heard() -> None:
    """A step whose answers nobody hears would always time out."""
    asks = {message for message in handlers.PUBLISHES if issubclass(message, Ask)}
    heard = {getattr(message, "answers", None) for message in handlers.SUBSCRIPTIONS}

    assert heard - {None} == asks
