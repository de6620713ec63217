"""How operators step in: what each action does, when it is refused, and that it is told who did it and why."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx2
import orjson
import pytest

from services.onboarding import watch
from services.onboarding.saga import NEEDS_ATTENTION_AFTER
from services.onboarding.tests.catalogue import MINIMAL, answers, refusals
from services.onboarding.tests.support import (
    Replica,
    account,
    go_on,
    hear,
    pass_time,
    stored,
    told,
    waiting,
)
from shared import failpoints
from shared.access import ADMINISTRATOR
from shared.contracts.tenant import ArchiveTenant
from shared.messaging.event import decode, parse_batch
from shared.postgres import Pool
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker

REASON = "Ticket 4711: they changed their mind."
SIGNED = {"actor": ADMINISTRATOR.id, "reason": REASON}


async def order(client: httpx2.AsyncClient, path: str, **body: Any) -> UUID:
    answer = await client.post(path, json=body)
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["id"])


async def onboard(client: httpx2.AsyncClient, name: str = "Acme") -> UUID:
    return await order(client, "/v1/onboardings", **{**MINIMAL, "customerName": name})


@pytest.fixture
async def tenant_id(client: httpx2.AsyncClient, pool: Pool) -> str:
    workflow_id = await onboard(client)
    await go_on(pool, workflow_id)
    return (await stored(pool, workflow_id)).workflow.tenant_id


async def act(client: httpx2.AsyncClient, workflow_id: UUID, action: str, **more: str) -> httpx2.Response:
    return await client.post(f"/v1/workflows/{workflow_id}/{action}", json={"reason": REASON, **more})


async def acted(client: httpx2.AsyncClient, workflow_id: UUID, action: str, **more: str) -> dict[str, Any]:
    """Act, expect that it is allowed, and return the workflow as it is then."""
    answer = await act(client, workflow_id, action, **more)
    workflow: dict[str, Any] = answer.json()
    assert answer.status_code == 200, workflow
    assert (await client.get(f"/v1/workflows/{workflow_id}")).json() == workflow
    return workflow


async def forbidden(client: httpx2.AsyncClient, workflow_id: UUID, action: str, code: str, **more: str) -> None:
    """Expect that the state of the workflow forbids an action, and that nothing has changed."""
    before = await client.get(f"/v1/workflows/{workflow_id}/history")

    answer = await act(client, workflow_id, action, **more)

    assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert answer.json()["detail"].endswith(".")
    assert (await client.get(f"/v1/workflows/{workflow_id}/history")).json() == before.json()


async def signed(client: httpx2.AsyncClient, workflow_id: UUID) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Return the lines of the history that an operator has caused: what, at which step, by whom and why."""
    answer = await client.get(f"/v1/workflows/{workflow_id}/history", params={"limit": 100})
    entries = [entry for entry in answer.json()["items"] if "actor" in entry["detail"]]
    return [(entry["kind"], entry["step"], entry["detail"]) for entry in entries]


def listen(broker: MemoryBroker) -> None:
    broker.declare_queue("listener")
    broker.bind("tenure.status", "listener", "status.#")


def statuses_told(broker: MemoryBroker, workflow_id: UUID) -> list[str]:
    """Return what everybody outside has been told of a workflow."""
    bodies = [orjson.loads(message.body) for message in broker.messages("listener")]
    return [body["status"] for body in bodies if body["workflowId"] == str(workflow_id)]


async def stuck_at_its_end(client: httpx2.AsyncClient, pool: Pool, tenant_id: str, step: str) -> UUID:
    """Return an off-boarding past its pivot, one step of which does not succeed however often it is asked."""
    workflow_id = await order(client, "/v1/offboardings", tenantId=tenant_id, graceDays=0)
    await go_on(pool, workflow_id, until=[step])
    for _ in range(NEEDS_ATTENTION_AFTER):
        await pass_time(pool, workflow_id, step)
    assert (await stored(pool, workflow_id)).workflow.status == "needs_attention"
    return workflow_id


async def stuck_on_its_way_back(client: httpx2.AsyncClient, pool: Pool, tenant_id: str) -> UUID:
    """Return a suspension whose undo does not succeed however often it is asked."""
    workflow_id = await order(client, "/v1/suspensions", tenantId=tenant_id)
    await acted(client, workflow_id, "cancel")
    for _ in range(NEEDS_ATTENTION_AFTER):
        await pass_time(pool, workflow_id, "suspend-tenant")
    assert (await stored(pool, workflow_id)).workflow.status == "needs_attention"
    return workflow_id


# Cancel


async def test_a_workflow_that_is_cancelled_is_undone_and_says_why(
    client: httpx2.AsyncClient, pool: Pool, broker: MemoryBroker
) -> None:
    listen(broker)
    workflow_id = await onboard(client)
    await go_on(pool, workflow_id, until=["open-account"])

    workflow = await acted(client, workflow_id, "cancel")

    assert workflow["status"] == "compensating"
    assert workflow["failure"] == {"step": "open-account", "code": "cancelled", "detail": REASON}
    assert await signed(client, workflow_id) == [("cancel_requested", None, SIGNED)]
    await go_on(pool, workflow_id)
    ended = (await client.get(f"/v1/workflows/{workflow_id}")).json()
    assert (ended["status"], ended["failure"]) == ("compensated", workflow["failure"])
    assert await pool.fetch("SELECT * FROM live_record") == []
    assert statuses_told(broker, workflow_id) == ["started", "compensating"]


async def test_whoever_waits_for_a_workflow_is_told_at_once_of_what_an_operator_did(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 60)
    workflow_id = await stuck_at_its_end(client, pool, tenant_id, "archive-tenant")
    waiting_client = asyncio.create_task(client.get(f"/v1/workflows/{workflow_id}", params={"wait": "30"}))

    await acted(client, workflow_id, "abandon")

    async with asyncio.timeout(10):
        assert (await waiting_client).json()["status"] == "abandoned"


async def test_what_is_undone_is_asked_at_once(client: httpx2.AsyncClient, broker: MemoryBroker) -> None:
    workflow_id = await onboard(client)

    await acted(client, workflow_id, "cancel")

    await eventually(lambda: "tenant.deregister_tenant.v1" in asked_of(broker, "tenant"), within=2)


async def test_what_is_undone_is_on_disk_before_it_is_asked(client: httpx2.AsyncClient, pool: Pool) -> None:
    workflow_id = await onboard(client)

    with failpoints.armed("before_publish=raise"):
        await acted(client, workflow_id, "cancel")

    assert await pool.fetchval("SELECT count(*) FROM outbox WHERE routing_key = 'tenant.deregister_tenant.v1'") == 1


def asked_of(broker: MemoryBroker, service: str) -> list[str]:
    return [message.routing_key for message in broker.messages(f"{service}.work")]


async def test_an_off_boarding_can_be_taken_back_as_long_as_its_grace_lasts(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str
) -> None:
    before = await account(pool, tenant_id)
    workflow_id = await order(client, "/v1/offboardings", tenantId=tenant_id, graceDays=30)
    await go_on(pool, workflow_id, until=["grace-period"])

    workflow = await acted(client, workflow_id, "cancel")

    steps = {step["name"]: step["status"] for step in workflow["steps"]}
    assert (steps["grace-period"], steps["begin-offboarding"]) == ("undone", "undoing")
    await go_on(pool, workflow_id)
    ended = (await stored(pool, workflow_id)).workflow
    assert ended.failure is not None
    assert (ended.status, ended.failure.step, ended.failure.code) == ("compensated", "grace-period", "cancelled")
    assert await account(pool, tenant_id) == before
    assert await order(client, "/v1/offboardings", tenantId=tenant_id)


async def test_a_workflow_is_cancelled_once(client: httpx2.AsyncClient, other_replica: Replica, pool: Pool) -> None:
    workflow_id = await onboard(client)

    outcomes = await asyncio.gather(*(act(each, workflow_id, "cancel") for each in (client, other_replica.client) * 4))

    refused = [answer.json()["code"] for answer in outcomes if answer.status_code == 409]
    assert sorted(answer.status_code for answer in outcomes) == [200] + [409] * 7
    assert set(refused) == {"already_undoing"}
    assert len(await signed(client, workflow_id)) == 1
    await go_on(pool, workflow_id)
    await forbidden(client, workflow_id, "cancel", "workflow_ended")


async def test_what_has_done_what_cannot_be_undone_is_not_cancelled(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str
) -> None:
    workflow_id = await order(client, "/v1/offboardings", tenantId=tenant_id, graceDays=0)
    await go_on(pool, workflow_id, until=["remove-environment"])

    await forbidden(client, workflow_id, "cancel", "past_point_of_no_return")

    await go_on(pool, workflow_id)
    assert (await stored(pool, workflow_id)).workflow.status == "completed"


# Retry


async def test_whatever_is_waited_for_is_asked_again_now(
    client: httpx2.AsyncClient, pool: Pool, broker: MemoryBroker
) -> None:
    workflow_id = await onboard(client)

    workflow = await acted(client, workflow_id, "retry")

    assert (workflow["status"], workflow["steps"][0]["attempts"]) == ("running", 2)
    assert await signed(client, workflow_id) == [("retry_requested", None, SIGNED)]
    await eventually(lambda: asked_of(broker, "tenant") == ["tenant.register_tenant.v1"] * 2, within=2)


async def test_a_workflow_that_needs_attention_goes_on_when_it_is_tried_again(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str
) -> None:
    workflow_id = await stuck_at_its_end(client, pool, tenant_id, "archive-tenant")

    assert (await acted(client, workflow_id, "retry"))["status"] == "running"

    await go_on(pool, workflow_id)
    assert (await stored(pool, workflow_id)).workflow.status == "completed"


async def test_an_undo_that_needs_attention_goes_on_when_it_is_tried_again(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str
) -> None:
    workflow_id = await stuck_on_its_way_back(client, pool, tenant_id)

    assert (await acted(client, workflow_id, "retry"))["status"] == "compensating"

    await go_on(pool, workflow_id)
    assert (await stored(pool, workflow_id)).workflow.status == "compensated"


async def test_a_workflow_that_only_waits_is_not_tried_again(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str
) -> None:
    workflow_id = await order(client, "/v1/offboardings", tenantId=tenant_id, graceDays=30)
    await go_on(pool, workflow_id, until=["grace-period"])

    await forbidden(client, workflow_id, "retry", "nothing_to_retry")
    await acted(client, workflow_id, "cancel")
    await go_on(pool, workflow_id)
    await forbidden(client, workflow_id, "retry", "workflow_ended")


# Skip


async def test_a_step_that_an_operator_vouches_for_is_gone_on_without(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str, broker: MemoryBroker
) -> None:
    workflow_id = await stuck_at_its_end(client, pool, tenant_id, "purge-users")

    workflow = await acted(client, workflow_id, "skip", step="purge-users")

    steps = {step["name"]: step["status"] for step in workflow["steps"]}
    assert (workflow["status"], steps["purge-users"], steps["archive-tenant"]) == ("running", "skipped", "running")
    assert await signed(client, workflow_id) == [("skipped", "purge-users", SIGNED)]
    await eventually(lambda: "tenant.archive_tenant.v1" in asked_of(broker, "tenant"))
    certificate = _said(broker, "tenant", ArchiveTenant)
    assert [each.service for each in certificate.deletions if not each.is_confirmed] == ["identity"]
    await go_on(pool, workflow_id)
    assert (await stored(pool, workflow_id)).workflow.status == "completed"
    assert await account(pool, tenant_id) == {}


def _said(broker: MemoryBroker, service: str, kind: type[ArchiveTenant]) -> ArchiveTenant:
    events = [
        decode(each)
        for message in broker.messages(f"{service}.work")
        if message.routing_key == kind.routing_key()
        for each in parse_batch(message.body)
    ]
    (message,) = [event.message for event in events]
    assert isinstance(message, kind)
    return message


async def test_an_undo_that_an_operator_vouches_for_is_gone_on_without(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str
) -> None:
    workflow_id = await stuck_on_its_way_back(client, pool, tenant_id)

    workflow = await acted(client, workflow_id, "skip", step="suspend-tenant")

    assert (workflow["status"], workflow["steps"][0]["status"]) == ("compensated", "skipped")
    assert workflow["failure"]["code"] == "cancelled"
    assert (await account(pool, tenant_id))["suspended_for"] is None


async def test_only_what_a_stuck_workflow_waits_for_is_skipped(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str
) -> None:
    sound = await onboard(client, "Bolt")
    await forbidden(client, sound, "skip", "not_stuck", step="register-tenant")
    stuck = await stuck_at_its_end(client, pool, tenant_id, "purge-users")
    for step in ("block-sign-in", "grace-period", "archive-tenant"):
        await forbidden(client, stuck, "skip", "not_waiting", step=step)
    await go_on(pool, stuck)
    await forbidden(client, stuck, "skip", "workflow_ended", step="purge-users")


async def test_a_step_that_there_is_not_is_not_skipped(client: httpx2.AsyncClient, pool: Pool, tenant_id: str) -> None:
    for workflow_id in (await stuck_on_its_way_back(client, pool, tenant_id), await onboard(client, "Bolt")):
        answer = await act(client, workflow_id, "skip", step="paint-it-black")

        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "unknown_step")
        assert [error["pointer"] for error in problem["errors"]] == ["/step"]
        assert "paint-it-black" in problem["detail"]


# Abandon


async def test_a_workflow_that_is_abandoned_rests_for_ever_and_makes_room_for_the_next(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str, broker: MemoryBroker
) -> None:
    workflow_id = await stuck_on_its_way_back(client, pool, tenant_id)
    listen(broker)

    workflow = await acted(client, workflow_id, "abandon")

    assert (workflow["status"], workflow["finishedAt"]) == ("abandoned", workflow["updatedAt"])
    assert await signed(client, workflow_id) == [
        ("cancel_requested", None, SIGNED),
        ("abandon_requested", None, SIGNED),
    ]
    await eventually(lambda: statuses_told(broker, workflow_id) == ["abandoned"])
    assert (
        await pool.fetchval("SELECT count(*) FROM step WHERE workflow_id = $1 AND due_at IS NOT NULL", workflow_id) == 0
    )
    for action, more in (("cancel", {}), ("retry", {}), ("skip", {"step": "suspend-tenant"}), ("abandon", {})):
        await forbidden(client, workflow_id, action, "workflow_ended", **more)
    assert await order(client, "/v1/suspensions", tenantId=tenant_id)


async def test_a_workflow_that_can_go_on_is_not_abandoned(client: httpx2.AsyncClient) -> None:
    workflow_id = await onboard(client)

    await forbidden(client, workflow_id, "abandon", "not_stuck")
    await acted(client, workflow_id, "cancel")
    await forbidden(client, workflow_id, "abandon", "not_stuck")


# All of them


@pytest.mark.parametrize(("action", "more"), [("cancel", {}), ("retry", {}), ("skip", {"step": "a"}), ("abandon", {})])
async def test_a_workflow_that_there_is_not_is_a_problem(
    client: httpx2.AsyncClient, action: str, more: dict[str, str]
) -> None:
    answer = await act(client, uuid4(), action, **more)

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_workflow")


async def test_a_refusal_past_the_point_of_no_return_calls_for_somebody_at_once(
    client: httpx2.AsyncClient, pool: Pool, tenant_id: str, broker: MemoryBroker
) -> None:
    listen(broker)
    workflow_id = await order(client, "/v1/offboardings", tenantId=tenant_id, graceDays=0)
    await go_on(pool, workflow_id, until=["archive-tenant"])
    (ask_id,) = (await waiting(pool, workflow_id, "running")).values()

    await hear(pool, told(workflow_id, "archive-tenant", refusals(tenant_id)["archive-tenant"], ask_id=ask_id))

    assert (await stored(pool, workflow_id)).workflow.status == "needs_attention"
    assert (await acted(client, workflow_id, "retry"))["status"] == "running"
    await hear(pool, told(workflow_id, "archive-tenant", answers(tenant_id)["archive-tenant"]))
    assert (await stored(pool, workflow_id)).workflow.status == "completed"
    await eventually(lambda: "running" in statuses_told(broker, workflow_id))
