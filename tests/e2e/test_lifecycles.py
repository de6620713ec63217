"""What becomes of a tenant after its onboarding: every lifecycle in all six services, done, and undone step by step."""

import gzip
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import httpx2
import pytest

from services.onboarding.definition import STEP_TIMEOUT_SECONDS, Definition
from services.onboarding.lifecycles import CURRENT
from shared.contracts import Ask
from shared.postgres import Connection
from shared.testing import eventually
from tests.system import System, Workflow, let_time_run_out, withheld

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session")]

NOTES = [{"name": "notes", "version": "1.0"}]
Picture = Mapping[str, Any]


async def tenant_of(system: System, customer_name: str, **fields: Any) -> str:
    """Onboard a customer and return its tenant, which is charged by then."""
    workflow = await system.finished(
        await system.onboard(customer_name, **{"tier": "standard", "products": NOTES} | fields)
    )
    assert workflow["status"] == "completed", workflow["failure"]
    tenant_id: str = workflow["tenantId"]

    async def is_settled() -> bool:  # billing hears of the activation by itself, and mails go out after the workflow
        subscriptions = await system.items("/v1/subscriptions", tenantId=tenant_id)
        invitations = await system.items("/v1/invitations", tenantId=tenant_id)
        is_charged = [each["status"] for each in subscriptions] == ["active"]
        return is_charged and {each["delivery"] for each in invitations} == {"sent"}

    await eventually(is_settled)
    return tenant_id


async def picture(system: System, tenant_id: str) -> Picture:
    """Return all that six services show of a tenant."""
    paths = ("users", "invitations", "subscriptions", "quotas", "environments", "exports", "invoices")
    lists = {path: await system.items(f"/v1/{path}", tenantId=tenant_id) for path in paths}
    return lists | {"tenant": (await system.client.get(f"/v1/tenants/{tenant_id}")).json()}


async def completed(system: System, path: str, **body: Any) -> Workflow:
    workflow = await system.finished(await system.order(path, **body))
    assert (workflow["status"], workflow["failure"]) == ("completed", None)
    return workflow


async def credentials(system: System, tenant_id: str) -> httpx2.Response:
    return await system.client.post("/v1/credentials", json={"tenantId": tenant_id})


async def write_note(system: System, tenant_id: str, body: str) -> None:
    connection: Connection = await asyncpg.connect((await credentials(system, tenant_id)).json()["url"], timeout=10)
    try:
        await connection.execute("INSERT INTO note (body) VALUES ($1)", body)
    finally:
        await connection.close()


# Done


async def test_another_tier_is_another_plan_other_quotas_and_another_environment(system: System) -> None:
    tenant_id = await tenant_of(system, "Grows", tier="free")

    await completed(system, "/v1/tier-changes", tenantId=tenant_id, tier="premium")

    after = await picture(system, tenant_id)
    assert after["tenant"]["tenantTier"] == "premium"
    assert [(each["plan"], each["status"]) for each in after["subscriptions"]] == [("premium", "active")]
    assert {each["meter"]: each["limit"] for each in after["quotas"]}["seats"] == 250
    assert [each["connections"] for each in after["environments"]] == [50]


async def test_a_suspended_tenant_can_do_nothing_pays_nothing_and_loses_nothing(system: System) -> None:
    tenant_id = await tenant_of(system, "Pauses")
    await write_note(system, tenant_id, "kept")
    before = await picture(system, tenant_id)

    await completed(system, "/v1/suspensions", tenantId=tenant_id, reason="unpaid")

    during = await picture(system, tenant_id)
    assert (during["tenant"]["state"], during["tenant"]["isActive"]) == ("suspended", False)
    assert [each["status"] for each in during["subscriptions"]] == ["paused"]
    assert {"tenantId": tenant_id, "role": "TenantAdmin", "blocked": True} in during["users"][0]["memberships"]
    refused = await credentials(system, tenant_id)
    assert (refused.status_code, refused.json()["code"]) == (409, "environment_throttled")

    await completed(system, "/v1/reactivations", tenantId=tenant_id)

    after = await picture(system, tenant_id)
    assert {**after, "subscriptions": None} == {**before, "subscriptions": None}
    assert [each["status"] for each in after["subscriptions"]] == ["active"]
    await write_note(system, tenant_id, "new")


async def test_other_products_are_deployed(system: System) -> None:
    tenant_id = await tenant_of(system, "Updates")
    wanted = [{"name": "notes", "version": "2.0"}]

    await completed(system, "/v1/product-changes", tenantId=tenant_id, products=wanted)

    after = await picture(system, tenant_id)
    assert after["tenant"]["products"] == wanted
    assert [each["products"] for each in after["environments"]] == [wanted]


async def test_an_account_is_updated_as_it_was_created(system: System) -> None:
    tenant_id = await tenant_of(system, "Was called so", adminEmails=["old@update.example", "stays@update.example"])
    body = {
        "accountId": tenant_id,
        "customerName": "Is called so",
        "expiration": "2099-01-31",
        "products": [],
        "adminEmails": ["stays@update.example", "new@update.example"],
    }

    answer = await system.client.put("/v1/accounts", json=body)
    workflow = await system.finished(answer.json())

    assert (answer.status_code, answer.json()["accountId"], workflow["status"]) == (202, tenant_id, "completed")
    after = await picture(system, tenant_id)
    assert (after["tenant"]["tenantName"], after["tenant"]["expiration"]) == ("Is called so", "2099-01-31")
    assert after["tenant"]["products"] == after["environments"][0]["products"] == []
    assert sorted(user["email"] for user in after["users"]) == ["new@update.example", "stays@update.example"]
    again = await tenant_of(system, "Was called so")
    assert again != tenant_id


async def test_a_second_onboarding_of_a_customer_adds_its_administrators_and_nothing_else(system: System) -> None:
    tenant_id = await tenant_of(system, "Meets again", adminEmails=["first@join.example"])
    before = await picture(system, tenant_id)

    joined = await system.finished(await system.onboard(" MEETS  again", adminEmails=["second@join.example"]))

    assert (joined["kind"], joined["status"], joined["tenantId"]) == ("onboard", "completed", tenant_id)
    after = await picture(system, tenant_id)
    assert sorted(user["email"] for user in after["users"]) == ["first@join.example", "second@join.example"]
    assert {**after, "users": 0, "invitations": 0} == {**before, "users": 0, "invitations": 0}
    contradiction = await system.client.post(
        "/v1/onboardings", json={"customerName": "Meets again", "adminEmails": ["a@join.example"], "tier": "premium"}
    )
    assert (contradiction.status_code, contradiction.json()["code"]) == (409, "tenant_differs")


async def test_off_boarding_leaves_the_archive_record_the_history_and_the_certificate(system: System) -> None:
    tenant_id = await tenant_of(system, "Leaves", adminEmails=["ada@leaves.example"])
    await write_note(system, tenant_id, "goodbye")
    assert await mentions(system, "ada@leaves.example")

    workflow = await completed(system, "/v1/offboardings", tenantId=tenant_id, reason="moves away", graceDays=0)

    assert await everywhere(system, tenant_id) == {}
    assert await mentions(system, "ada@leaves.example") == []
    archived = (await system.client.get(f"/v1/tenants/{tenant_id}")).json()
    assert (archived["state"], archived["tenantName"], archived["tenantEmail"]) == ("archived", "Leaves", None)
    await assert_certified(system, tenant_id, workflow)
    assert [entry["kind"] for entry in await system.history(workflow)][-1] == "completed"
    assert (await system.audit()).findings == ()
    assert await tenant_of(system, "Leaves") != tenant_id


async def assert_certified(system: System, tenant_id: str, workflow: Workflow) -> None:
    """Expect a certificate that anybody can check, of everything that there was."""
    found = (await system.client.get(f"/v1/tenants/{tenant_id}/certificate")).json()
    certificate = found["certificate"]
    canonical = json.dumps(certificate, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert hashlib.sha256(canonical).hexdigest() == found["sha256"]
    assert (certificate["workflowId"], certificate["reason"]) == (workflow["id"], "moves away")
    deleted = {each["service"]: each["deleted"] for each in certificate["deletions"]}
    assert deleted["provisioning"]["app.note"] == 1
    assert deleted["identity"] == {"memberships": 1, "invitations": 1, "users": 1}
    assert deleted["billing"] == {"accounts": 1, "subscriptions": 1}
    assert deleted["metrics"] == {"quotas": 3, "usage_hours": 0, "usage_events": 0, "tracked_tenants": 1}
    export = await system.client.get(f"/v1/exports/{certificate['exportId']}")
    assert hashlib.sha256(export.content).hexdigest() == certificate["exportSha256"]
    assert b"goodbye" in gzip.decompress(export.content)
    invoice = (await system.client.get(f"/v1/invoices/{certificate['invoiceId']}")).json()
    assert (invoice["tenantId"], invoice["state"]) == (tenant_id, "final")


async def everywhere(system: System, tenant_id: str) -> Mapping[str, Sequence[str]]:
    """Return what each database lists as left of a tenant."""
    found: dict[str, Sequence[str]] = {}
    for name, url in system.audited.items():
        view = "tenancy.live_record" if name == "application" else "live_record"
        connection: Connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch(f"SELECT place FROM {view} WHERE tenant_id = $1", tenant_id)
        finally:
            await connection.close()
        if rows:
            found[name] = [row["place"] for row in rows]
    return found


async def mentions(system: System, text: str) -> Sequence[str]:
    """Return the tables, of all databases, that have a row with a text in it; what is on its way out is waited for."""
    found: list[str] = []
    for name, url in system.audited.items():
        connection: Connection = await asyncpg.connect(url)
        try:
            tables = await connection.fetch(
                "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
                " WHERE schemaname IN ('public', 'tenancy', 'app') AND tablename <> 'outbox'"
            )
            for table in tables:
                rows = f"SELECT EXISTS (SELECT FROM {table['name']} AS t WHERE strpos(t::text, $1) > 0)"
                if await connection.fetchval(rows, text):
                    found.append(f"{name}: {table['name']}")
        finally:
            await connection.close()
    return found


@pytest.mark.inside
async def test_an_off_boarding_waits_for_its_grace_period_and_can_be_cancelled_until_then(system: System) -> None:
    tenant_id = await tenant_of(system, "Stays after all")
    before = await picture(system, tenant_id)
    workflow = await system.order("/v1/offboardings", customerName="stays AFTER all", graceDays=1)
    await eventually(lambda: _waits(system, workflow, "grace-period"))
    assert (await picture(system, tenant_id))["tenant"]["state"] == "offboarding"

    await system.act(workflow, "cancel", reason="changed their mind")
    cancelled = await system.finished(workflow)

    assert (cancelled["status"], cancelled["failure"]["code"]) == ("compensated", "cancelled")
    assert await picture(system, tenant_id) == before
    again = await system.order("/v1/offboardings", tenantId=tenant_id, graceDays=1, export=False)
    await eventually(lambda: _waits(system, again, "grace-period"))
    system.clock.put_forward(86_400)
    assert (await system.finished(again))["status"] == "completed"
    refused = await system.client.post(f"{again['links']['self']}/cancel", json={"reason": "too late"})
    assert (refused.status_code, refused.json()["code"]) == (409, "workflow_ended")


async def _waits(system: System, workflow: Workflow, step: str) -> bool:
    found = (await system.client.get(workflow["links"]["self"])).json()
    return any((each["name"], each["status"]) == (step, "running") for each in found["steps"])


async def test_a_second_workflow_on_a_tenant_is_refused_naming_the_first(system: System) -> None:
    tenant_id = await tenant_of(system, "Is busy")
    first = await system.order("/v1/offboardings", tenantId=tenant_id, graceDays=30)

    second = await system.client.post("/v1/tier-changes", json={"tenantId": tenant_id, "tier": "premium"})

    assert (second.status_code, second.json()["code"]) == (409, "workflow_active")
    assert first["id"] in second.json()["detail"]
    await system.act(first, "cancel")
    await system.finished(first)


# Undone

ORDERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "join": ("/v1/onboardings", {"adminEmails": ["joins@undone.example"]}),
    "change-tier": ("/v1/tier-changes", {"tier": "premium"}),
    "change-products": ("/v1/product-changes", {"products": []}),
    "suspend": ("/v1/suspensions", {}),
    "reactivate": ("/v1/reactivations", {}),
    "offboard": ("/v1/offboardings", {"graceDays": 0}),
    "update-account": (
        "/v1/accounts",
        {"expiration": "2098-01-01", "products": [], "adminEmails": ["another@undone.example"]},
    ),
}
"""What starts each lifecycle, besides the tenant."""

UNDOABLE = tuple(
    pytest.param(definition, step.name, step.does, id=f"{definition.name}-{step.name}")
    for definition in CURRENT
    if definition.name in ORDERS
    for step in definition.steps.values()
    if step.undo is not None
)


async def start(system: System, name: str, tenant_id: str, customer_name: str) -> Workflow:
    path, body = ORDERS[name]
    if name == "join":
        return await system.order(path, customerName=customer_name, **body)
    if name != "update-account":
        return await system.order(path, tenantId=tenant_id, **body)
    renamed = {"accountId": tenant_id, "customerName": f"{customer_name}, renamed", **body}
    answer = await system.client.put(path, json=renamed)
    assert answer.status_code == httpx2.codes.ACCEPTED, answer.text
    workflow: Workflow = answer.json()
    return workflow


@pytest.mark.parametrize(("definition", "step", "ask"), UNDOABLE)
@pytest.mark.inside
async def test_a_step_that_never_answers_has_everything_taken_back_its_own_effect_too(
    system: System, definition: Definition, step: str, ask: type[Ask]
) -> None:
    customer_name = f"Silent at {definition.name} {step}"
    tenant_id = await tenant_of(system, customer_name, adminEmails=[f"{step}@{definition.name}.example"])
    if definition.name == "reactivate":
        await completed(system, "/v1/suspensions", tenantId=tenant_id)
    before = await picture(system, tenant_id)

    async with withheld(system, ask) as answers:
        workflow = await start(system, definition.name, tenant_id, customer_name)
        for attempt in range(1, definition.steps[step].attempts + 1):
            await let_time_run_out(system, workflow, step, attempt, seconds=STEP_TIMEOUT_SECONDS, unsaid=answers)
        undone = await system.finished(workflow)

    assert len(answers) == definition.steps[step].attempts
    assert (undone["status"], undone["failure"]["step"], undone["failure"]["code"]) == (
        "compensated",
        step,
        "timed_out",
    )
    assert await picture(system, tenant_id) == before
    assert (await system.audit()).findings == ()
    again = await system.finished(await start(system, definition.name, tenant_id, customer_name))
    assert again["status"] == "completed"


Waiting = Callable[[], Awaitable[bool]]


@pytest.mark.inside
async def test_past_the_point_of_no_return_an_off_boarding_is_tried_until_it_succeeds(system: System) -> None:
    tenant_id = await tenant_of(system, "Goes on")
    ask = next(step.does for step in _offboard().steps.values() if step.pivot)
    assert ask is not None

    async with withheld(system, ask) as answers:
        workflow = await system.order("/v1/offboardings", tenantId=tenant_id, graceDays=0, export=False)
        for attempt in range(1, 5):
            await let_time_run_out(
                system, workflow, "remove-environment", attempt, seconds=STEP_TIMEOUT_SECONDS, unsaid=answers
            )
        refused = await system.client.post(f"{workflow['links']['self']}/cancel", json={"reason": "too late"})
        assert (refused.status_code, refused.json()["code"]) == (409, "past_point_of_no_return")
    await system.act(workflow, "retry", reason="provisioning is back")

    assert (await system.finished(workflow))["status"] == "completed"
    assert await everywhere(system, tenant_id) == {}


def _offboard() -> Definition:
    return next(definition for definition in CURRENT if definition.name == "offboard")


# The end of a contract


@pytest.mark.inside
async def test_the_end_of_a_contract_is_told_suspends_and_off_boards(system: System, subscriber: Any) -> None:
    today = system.clock.now().date()

    tenant_id = await tenant_of(system, "Expires", expiration=str(today + timedelta(days=3)))

    def is_warned() -> bool:
        return any(each.routing_key == f"warning.expiration.{tenant_id}" for each in subscriber.messages)

    await eventually(is_warned, within=20, describe="a warning")
    system.clock.put_forward(3 * 86_400)
    await eventually(lambda: _has_state(system, tenant_id, "suspended"), within=20)
    renewed = {
        "accountId": tenant_id,
        "customerName": "Expires",
        "expiration": str(today + timedelta(days=6)),
        "products": NOTES,
        "adminEmails": ["ada@tenants.example"],
    }
    await eventually(lambda: _is_accepted(system, renewed), describe="the suspension has ended")
    await eventually(lambda: _has_state(system, tenant_id, "active"), within=20)
    system.clock.put_forward(3 * 86_400)
    await eventually(lambda: _has_state(system, tenant_id, "suspended"), within=20)
    system.clock.put_forward(30 * 86_400)
    await eventually(lambda: _is_nowhere(system, tenant_id), within=30)
    assert await _has_state(system, tenant_id, "archived")


async def _is_nowhere(system: System, tenant_id: str) -> bool:
    return await everywhere(system, tenant_id) == {}


async def _is_accepted(system: System, account: Mapping[str, Any]) -> bool:
    return (await system.client.put("/v1/accounts", json=account)).status_code == httpx2.codes.ACCEPTED


async def _has_state(system: System, tenant_id: str, state: str) -> bool:
    return bool((await system.client.get(f"/v1/tenants/{tenant_id}")).json()["state"] == state)
