"""One onboarding from the request to a tenant that works in all six services, and the ways to follow it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from services.onboarding.app import build
from services.onboarding.settings import OnboardingSettings
from shared.ids import TimeOrderedIds
from shared.messaging.consumer import wait_until_consuming
from shared.postgres import Connection
from shared.service import Ports, Service
from shared.testing import eventually
from tests.system import System, Workflow

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session")]

STEPS = {
    "register-tenant": "tenant",
    "create-administrators": "identity",
    "open-account": "billing",
    "track-tenant": "metrics",
    "provision-environment": "provisioning",
    "activate-tenant": "tenant",
}


def key() -> dict[str, str]:
    return {"Idempotency-Key": str(TimeOrderedIds().new())}


@pytest_asyncio.fixture(loop_scope="session")
async def completed(system: System, request: pytest.FixtureRequest) -> Workflow:
    """A customer named like the test, onboarded with everything that can be said of one."""
    workflow = await system.onboard(
        f"Café 株式会社 {request.node.name}",
        adminEmails=["ada@tenants.example", "grace@tenants.example"],
        tier="standard",
        products=[{"name": "notes", "version": "1.0"}],
        expiration="2099-12-31",
        currency="EUR",
        tags={"stage": "pilot"},
    )
    return await system.finished(workflow)


async def test_a_customer_becomes_a_tenant_in_every_service(system: System, completed: Workflow) -> None:
    tenant_id = completed["tenantId"]

    assert (completed["status"], completed["failure"]) == ("completed", None)
    assert {step["name"]: step["service"] for step in completed["steps"]} == STEPS
    assert {step["status"] for step in completed["steps"]} == {"succeeded"}
    await _is_active_in_tenant(system, completed)
    await _has_invited_administrators(system, tenant_id)
    await _is_charged(system, tenant_id)
    assert {quota["meter"]: quota["limit"] for quota in await system.items("/v1/quotas", tenantId=tenant_id)} == {
        "api_calls": 100_000,
        "storage_gb": 10,
        "seats": 25,
    }
    (environment,) = await system.items("/v1/environments", tenantId=tenant_id)
    assert environment["status"] == "ready"
    assert environment["products"] == [{"name": "notes", "version": "1.0"}]


async def _is_active_in_tenant(system: System, completed: Workflow) -> None:
    tenant = (await system.client.get(completed["links"]["tenant"])).json()
    assert (tenant["tenantName"], tenant["tenantTier"]) == (completed["customerName"], "standard")
    assert (tenant["state"], tenant["isActive"]) == ("active", True)
    assert tenant["products"] == [{"name": "notes", "version": "1.0"}]
    assert (tenant["expiration"], tenant["tags"]) == ("2099-12-31", {"stage": "pilot"})


async def _has_invited_administrators(system: System, tenant_id: str) -> None:
    users = await system.items("/v1/users", tenantId=tenant_id)
    assert sorted(user["email"] for user in users) == ["ada@tenants.example", "grace@tenants.example"]
    membership = {"tenantId": tenant_id, "role": "TenantAdmin", "blocked": False}
    assert all(membership in user["memberships"] for user in users)
    invitations = await system.items("/v1/invitations", tenantId=tenant_id)
    assert sorted(each["email"] for each in invitations) == ["ada@tenants.example", "grace@tenants.example"]


async def _is_charged(system: System, tenant_id: str) -> None:
    async def is_active() -> bool:  # billing hears of the activation by itself, after the workflow has ended
        subscriptions = await system.items("/v1/subscriptions", tenantId=tenant_id)
        return [(each["plan"], each["currency"], each["status"]) for each in subscriptions] == [
            ("standard", "EUR", "active")
        ]

    await eventually(is_active, describe="an active subscription")


async def test_the_environment_is_used_with_credentials_that_reach_one_tenant(
    system: System, completed: Workflow
) -> None:
    other = await system.finished(await system.onboard(f"Neighbour of {completed['customerName']}"))
    mine, theirs = await _open(system, completed["tenantId"]), await _open(system, other["tenantId"])
    try:
        await theirs.execute("INSERT INTO note (body) VALUES ('theirs')")
        await mine.execute("INSERT INTO note (body) VALUES ('mine')")

        assert await mine.fetchval("SELECT array_agg(body) FROM note") == ["mine"]
        assert await theirs.fetchval("SELECT array_agg(body) FROM note") == ["theirs"]
        with pytest.raises(asyncpg.PostgresError):
            await mine.execute("INSERT INTO note (tenant_id, body) VALUES ($1, 'planted')", other["tenantId"])
    finally:
        await mine.close()
        await theirs.close()


async def _open(system: System, tenant_id: str) -> Connection:
    answer = await system.client.post("/v1/credentials", json={"tenantId": tenant_id})
    assert answer.status_code == httpx2.codes.CREATED
    connection: Connection = await asyncpg.connect(answer.json()["url"], timeout=10)
    return connection


async def test_an_account_is_created_in_the_shape_of_the_service_providers(system: System) -> None:
    body = {
        "customerName": "An account",
        "expiration": "2099-01-31",
        "products": [{"name": "notes", "version": "2.0"}],
        "adminEmails": ["ada@tenants.example"],
    }

    answer = await system.client.put("/v1/accounts", json=body)

    assert answer.status_code == httpx2.codes.ACCEPTED
    assert answer.json()["accountId"] == answer.json()["tenantId"]
    assert (await system.finished(answer.json()))["status"] == "completed"
    tenant = (await system.client.get(answer.json()["links"]["tenant"])).json()
    assert (tenant["tenantName"], tenant["isActive"]) == ("An account", True)
    again = await system.client.put("/v1/accounts", json=body)
    assert (again.status_code, again.json()["accountId"]) == (httpx2.codes.ACCEPTED, answer.json()["accountId"])


async def test_a_repeated_request_is_answered_as_before_and_does_nothing_again(system: System) -> None:
    body = {"customerName": "Once", "adminEmails": ["ada@tenants.example"]}
    headers = key()
    first = await system.client.post("/v1/onboardings", json=body, headers=headers)
    await system.finished(first.json())

    again = await system.client.post("/v1/onboardings", json=body, headers=headers)
    other = await system.client.post("/v1/onboardings", json=body | {"customerName": "Else"}, headers=headers)

    assert (again.status_code, again.json()) == (httpx2.codes.ACCEPTED, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"] == first.json()["links"]["self"]
    assert other.status_code == httpx2.codes.UNPROCESSABLE_CONTENT
    assert len(await system.items("/v1/workflows", q="Once")) == 1
    assert len(await system.items("/v1/tenants", q="Once")) == 1
    assert await system.items("/v1/tenants", q="Else") == []


async def test_two_customers_of_one_name_are_not_onboarded(system: System) -> None:
    first = await system.onboard("\N{FULLWIDTH LATIN CAPITAL LETTER A}cme Straße")

    second = await system.client.post(
        "/v1/onboardings", json={"customerName": " acme STRASSE ", "adminEmails": ["ada@tenants.example"]}
    )

    assert (second.status_code, second.json()["code"]) == (httpx2.codes.CONFLICT, "workflow_active")
    assert first["id"] in second.json()["detail"]
    assert (await system.finished(first))["status"] == "completed"


async def test_a_long_poll_waits_for_the_end_and_the_history_tells_the_way(system: System) -> None:
    accepted = await system.onboard("Long-polled")
    assert accepted["status"] == "running"

    finished = await system.finished(accepted)
    history = await system.history(finished)

    assert finished["status"] == "completed"
    assert [entry["seq"] for entry in history] == list(range(1, len(history) + 1))
    assert (history[0]["kind"], history[-1]["kind"]) == ("started", "completed")
    assert sorted(entry["step"] for entry in history if entry["kind"] == "succeeded") == sorted(STEPS)


async def test_a_stream_of_events_ends_with_the_workflow_and_resumes_where_it_was_cut(system: System) -> None:
    workflow = await system.onboard("Streamed")

    path = workflow["links"]["events"]
    live = await _events(system.client, path)
    resumed = await _events(system.client, path, after=live[2]["seq"])

    assert [event["seq"] for event in live] == list(range(1, len(live) + 1))
    assert live[-1]["kind"] == "completed"
    assert resumed == live[3:]
    assert live == await system.history(workflow)


async def test_a_tenant_is_followed_through_all_that_happens_to_it(system: System) -> None:
    workflow = await system.onboard("Followed")

    followed = await _events(system.client, f"/v1/events?tenantId={workflow['tenantId']}")

    assert followed == await system.history(workflow)


class Replica:
    """Another onboarding service.

    Attributes:
        client: an administrator at its own address.
        commits: how many batches of messages it has handled.
    """

    def __init__(self, service: Service, authorization: str) -> None:
        transport, headers = httpx2.ASGITransport(service.api), {"Authorization": authorization}
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://replica", headers=headers)
        self.commits = 0
        self._wake = service.kernel.consumer.on_commit
        service.kernel.consumer.on_commit = self._committed

    def _committed(self) -> None:
        self.commits += 1
        self._wake()


@pytest_asyncio.fixture(loop_scope="session")
async def replica(system: System) -> AsyncIterator[Replica]:
    """A second process of onboarding, as good as: it shares nothing with the first but database and queue."""
    settings = OnboardingSettings.from_environment(system.environment["onboarding"])
    async with build(settings, Ports(clock=system.clock)) as service:
        stopping = asyncio.Event()
        replica = Replica(service, system.client.headers["Authorization"])
        running = asyncio.create_task(service.run(stopping))
        await wait_until_consuming(service.kernel.consumer)
        async with replica.client:
            yield replica
        stopping.set()
        await running


@pytest.mark.inside
async def test_any_replica_accepts_continues_and_shows_any_workflow(system: System, replica: Replica) -> None:
    body = {"customerName": "Accepted elsewhere", "adminEmails": ["ada@tenants.example"]}
    elsewhere = (await replica.client.post("/v1/onboardings", json=body)).json()
    here = [await system.onboard(f"Shared between replicas {number}") for number in range(10)]

    assert {(await system.finished(each))["status"] for each in (elsewhere, *here)} == {"completed"}
    assert replica.commits > 0
    for workflow in (elsewhere, *here):
        path = workflow["links"]["events"]
        begun = await _events(system.client, path)
        assert await _events(replica.client, path, after=begun[2]["seq"]) == begun[3:]


async def _events(client: httpx2.AsyncClient, path: str, *, after: int | None = None) -> Sequence[Mapping[str, Any]]:
    """Read a stream until it is closed."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with client.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in answer.aiter_lines()]
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def test_workflows_are_listed_by_tenant_status_and_name(system: System, completed: Workflow) -> None:
    undone = await system.finished(await system.onboard("Listed and undone", region="mars"))

    by_tenant = await system.items("/v1/workflows", tenantId=completed["tenantId"])
    by_status = await system.items("/v1/workflows", status="compensated", kind="onboard")
    by_name = await system.items("/v1/workflows", q="LISTED and")

    assert by_tenant == [completed]
    assert undone in by_status
    assert completed not in by_status
    assert by_name == [undone]


async def test_what_was_completed_stands_the_audit(system: System, completed: Workflow) -> None:
    found = await system.audit()

    assert (found.findings, found.unfinished) == ((), 0)
    assert found.alive >= 1
