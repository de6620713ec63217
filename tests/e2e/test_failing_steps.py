"""Each step of the onboarding made to fail, by a refusal or by silence: everything is undone and everybody is told."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aio_pika.abc import AbstractIncomingMessage

from services.onboarding.lifecycles.onboard import ONBOARD
from shared.contracts import Ask, Fact, Refusal, identity, tenant
from shared.ids import TimeOrderedIds
from shared.messaging.event import Outgoing
from shared.messaging.subscriptions import Kind, Subscription
from shared.postgres import Connection
from shared.testing import eventually
from shared.text import name_key
from tests.system import Subscriber, System, Workflow, let_time_run_out, withheld

pytestmark = [pytest.mark.broker, pytest.mark.inside, pytest.mark.asyncio(loop_scope="session")]

STEPS = tuple(ONBOARD.steps)
AFTER = {name: step.after for name, step in ONBOARD.steps.items()}
OWNERS = {step.name: step.service for step in ONBOARD.plan}

Provocation = Callable[[System, str], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def by_the_request_alone(_: System, __: str) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def by_a_tenant_of_that_name(system: System, customer_name: str) -> AsyncIterator[None]:
    """Let the tenant service have a tenant that onboarding has never heard of."""
    tenant_id = str(TimeOrderedIds().new())
    await _run(
        system,
        """
        INSERT INTO tenant (tenant_id, customer_name, name_key, tier, email, created_at, updated_at)
        VALUES ($1, $2, $3, 'free', 'ada@tenants.example', now(), now())
        """,
        tenant_id,
        customer_name,
        name_key(customer_name),
    )
    try:
        yield
    finally:
        await _run(system, "DELETE FROM tenant WHERE tenant_id = $1", tenant_id)


@asynccontextmanager
async def by_a_tier_with_a_meter_that_does_not_exist(system: System, _: str) -> AsyncIterator[None]:
    quotas = await _run(system, "SELECT quotas::text FROM tier WHERE name = 'premium'")
    await _run(system, "UPDATE tier SET quotas = '{\"dreams\": 1}' WHERE name = 'premium'")
    try:
        yield
    finally:
        await _run(system, "UPDATE tier SET quotas = $1::text::jsonb WHERE name = 'premium'", quotas)


async def _run(system: System, statement: str, *values: object) -> Any:
    connection: Connection = await asyncpg.connect(system.audited["tenant"])
    try:
        return await connection.fetchval(statement, *values)
    finally:
        await connection.close()


def by_a_participant_that_refuses(ask: type[Ask], refusal: type[Refusal]) -> Provocation:
    """Put another handler in the place of a participant's own, for what nobody outside can make it refuse."""

    async def refuse(_: Connection, asks: Sequence[Ask]) -> Sequence[Fact]:
        return [refusal(tenant_id=each.tenant_id, code="not_today", detail="Not today.") for each in asks]

    @asynccontextmanager
    async def provoked(system: System, _: str) -> AsyncIterator[None]:
        dispatch = system.services[ask.owner].kernel.dispatch
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(dispatch._subscriptions, ask.routing_key(), Subscription(Kind.DO, refuse))
            yield

    return provoked


@dataclass(frozen=True)
class Failing:
    """A way to make a step be refused.

    Attributes:
        code: with which the participant refuses.
        provoked: in its block the participant refuses.
        request: what the request says besides name and administrators.
    """

    code: str
    provoked: Provocation = by_the_request_alone
    request: Mapping[str, Any] = field(default_factory=dict)


FAILURES: Mapping[str, Failing] = {
    "register-tenant": Failing("name_taken", by_a_tenant_of_that_name),
    "create-administrators": Failing(
        "not_today", by_a_participant_that_refuses(identity.CreateAdministrators, identity.AdministratorsRefused)
    ),
    "open-account": Failing("unsupported_currency", request={"currency": "JPY"}),
    "track-tenant": Failing("unknown_meter", by_a_tier_with_a_meter_that_does_not_exist, {"tier": "premium"}),
    "provision-environment": Failing("unknown_region", request={"region": "mars"}),
    "activate-tenant": Failing(
        "not_today", by_a_participant_that_refuses(tenant.ActivateTenant, tenant.TenantActivationRefused)
    ),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_refused_step_has_everything_undone_and_everybody_told(
    system: System, subscriber: Subscriber, step: str
) -> None:
    failing = FAILURES[step]
    customer_name = f"Refused at {step}"
    async with failing.provoked(system, customer_name):
        undone = await system.finished(await system.onboard(customer_name, **failing.request))

    assert undone["status"] == "compensated"
    assert (undone["failure"]["step"], undone["failure"]["code"]) == (step, failing.code)
    assert statuses(undone) == expected_statuses(step, ends="failed")
    assert_undone_in_reverse_order(undone, await system.history(undone))
    assert_told(undone, await subscriber.told(undone, count=4), step, failing.code, retries=0)
    await assert_nothing_is_left_and_the_name_is_free(system, customer_name)


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_that_never_answers_has_everything_undone_its_own_effect_too(
    system: System, subscriber: Subscriber, step: str
) -> None:
    customer_name = f"Silent at {step}"
    ask = ONBOARD.steps[step].does
    assert ask is not None
    async with withheld(system, ask) as answers:
        workflow = await system.onboard(customer_name)
        for attempt in range(1, ONBOARD.steps[step].attempts + 1):
            await let_time_run_out(system, workflow, step, attempt, seconds=ONBOARD.steps[step].timeout, unsaid=answers)
        undone = await system.finished(workflow)

    assert len(answers) == ONBOARD.steps[step].attempts
    assert undone["status"] == "compensated"
    assert (undone["failure"]["step"], undone["failure"]["code"]) == (step, "timed_out")
    assert statuses(undone) == expected_statuses(step, ends="undone")
    assert_undone_in_reverse_order(undone, await system.history(undone))
    assert_told(undone, await subscriber.told(undone, count=6), step, "timed_out", retries=2)
    await assert_late_answers_change_nothing(system, undone, step, answers)
    await assert_nothing_is_left_and_the_name_is_free(system, customer_name)


async def test_an_undo_that_is_not_answered_is_asked_again(system: System, subscriber: Subscriber) -> None:
    async with withheld(system, identity.RemoveAdministrators) as answers:
        workflow = await system.onboard("Undone at the second attempt", region="mars")
        await eventually(lambda: len(answers) == 1)
    system.clock.put_forward(ONBOARD.steps["create-administrators"].timeout)
    undone = await system.finished(workflow)

    assert (undone["status"], undone["failure"]["code"]) == ("compensated", "unknown_region")
    asked = [
        (entry["kind"], entry["attempt"])
        for entry in await system.history(undone)
        if entry["step"] == "create-administrators" and entry["kind"].startswith("undo")
    ]
    assert asked == [("undo_asked", 1), ("undo_timed_out", 1), ("undo_asked", 2), ("undone", None)]
    told = [message.routing_key for message in await subscriber.told(undone, count=5)]
    assert f"retry.onboard.create-administrators.{undone['tenantId']}" in told
    await assert_nothing_is_left_and_the_name_is_free(system, "Undone at the second attempt")


# How a participant keeps silent


async def assert_late_answers_change_nothing(
    system: System, undone: Workflow, step: str, answers: Sequence[Outgoing]
) -> None:
    kernel = system.services[OWNERS[step]].kernel
    await kernel.relay.send(answers)

    async def all_are_recorded() -> bool:
        late = [entry for entry in await system.history(undone) if entry["kind"] == "late_success"]
        return len(late) == len(answers)

    await eventually(all_are_recorded, describe="every late answer in the history")
    found = await system.finished(undone)
    assert (found["status"], found["steps"]) == (undone["status"], undone["steps"])


# What is true of every onboarding that was undone


def statuses(workflow: Workflow) -> dict[str, str]:
    return {step["name"]: step["status"] for step in workflow["steps"]}


def expected_statuses(failing: str, *, ends: str) -> dict[str, str]:
    """Expect that what comes after the failing step never began, and that all the rest was taken back."""
    return {name: ends if name == failing else "pending" if _comes_after(name, failing) else "undone" for name in STEPS}


def _comes_after(step: str, earlier: str) -> bool:
    return any(before == earlier or _comes_after(before, earlier) for before in AFTER[step])


def assert_undone_in_reverse_order(workflow: Workflow, history: Sequence[Mapping[str, Any]]) -> None:
    """Expect that no step's undo was asked before all that came after it were undone."""
    asked = {entry["step"]: entry["seq"] for entry in history if entry["kind"] == "undo_asked"}
    undone = {entry["step"]: entry["seq"] for entry in history if entry["kind"] == "undone"}
    assert asked.keys() == undone.keys() == {name for name, status in statuses(workflow).items() if status == "undone"}
    for name, undone_at in undone.items():
        for before in AFTER[name]:
            assert undone_at < asked[before], f"the undo of {before} was asked before {name} was undone"


def assert_told(
    workflow: Workflow, told: Sequence[AbstractIncomingMessage], step: str, code: str, *, retries: int
) -> None:
    tenant_id = workflow["tenantId"]
    assert [message.routing_key for message in told] == [
        f"status.onboard.started.{tenant_id}",
        *[f"retry.onboard.{step}.{tenant_id}"] * retries,
        f"error.onboard.{step}.{tenant_id}",
        f"status.onboard.compensating.{tenant_id}",
        f"status.onboard.compensated.{tenant_id}",
    ]
    for message in told:
        assert_is_a_cloud_event(workflow, message)
    failed, final = json.loads(told[-3].body), json.loads(told[-1].body)
    assert (failed["step"], failed["attempt"]) == (step, retries + 1)
    assert failed["error"].startswith(f"{code}: ")
    assert (final["status"], final["step"], final["error"]) == ("compensated", step, failed["error"])


def assert_is_a_cloud_event(workflow: Workflow, message: AbstractIncomingMessage) -> None:
    """Expect the binary content mode: attributes in headers, data in the body."""
    headers, data = message.headers, json.loads(message.body)
    assert UUID(str(headers["ce-id"])) == UUID(message.message_id)
    assert (headers["ce-specversion"], headers["ce-source"]) == ("1.0", "/tenure/onboarding")
    assert str(headers["ce-type"]).startswith("onboarding.")
    assert headers["ce-time"]
    assert message.content_type == "application/json"
    assert headers["ce-subject"] == data["tenantId"] == workflow["tenantId"]
    assert (data["workflowId"], data["kind"]) == (workflow["id"], "onboard")


async def assert_nothing_is_left_and_the_name_is_free(system: System, customer_name: str) -> None:
    found = await system.audit()
    assert (found.findings, found.unfinished) == ((), 0)
    again = await system.finished(await system.onboard(customer_name))
    assert again["status"] == "completed"
