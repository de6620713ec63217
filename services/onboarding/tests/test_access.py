"""Who may do what, and that a tenant cannot tell another one from one that is not there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx2
import pytest
from fastapi import FastAPI

from services.onboarding.tests.catalogue import MINIMAL
from services.onboarding.tests.support import KEY, Replica, go_on
from shared.access import Authenticator
from shared.http import HttpServer
from shared.testing import eventually
from shared.testing.principals import Cast, as_, declared, let_in, told

pytestmark = pytest.mark.timeout(60)

RULES: dict[tuple[str, str], set[str]] = {
    ("POST", "/v1/onboardings"): {"operator"},
    ("PUT", "/v1/accounts"): {"operator"},
    ("POST", "/v1/tier-changes"): {"operator", "administrator"},
    ("POST", "/v1/product-changes"): {"operator", "administrator"},
    ("POST", "/v1/suspensions"): {"operator"},
    ("POST", "/v1/reactivations"): {"operator"},
    ("POST", "/v1/offboardings"): {"operator"},
    ("GET", "/v1/workflows"): {"operator", "support", "administrator"},
    ("GET", "/v1/workflows/{workflow_id}"): {"operator", "support", "administrator"},
    ("GET", "/v1/workflows/{workflow_id}/history"): {"operator", "support", "administrator"},
    ("GET", "/v1/workflows/{workflow_id}/events"): {"operator", "support", "administrator"},
    ("GET", "/v1/events"): {"operator", "support", "administrator"},
    ("POST", "/v1/workflows/{workflow_id}/cancel"): {"operator"},
    ("POST", "/v1/workflows/{workflow_id}/retry"): {"operator"},
    ("POST", "/v1/workflows/{workflow_id}/skip"): {"operator"},
    ("POST", "/v1/workflows/{workflow_id}/abandon"): {"operator"},
}

MEMBERS = ("administrator", "visitor", "reader")
CHANGES: dict[str, dict[str, Any]] = {"/v1/tier-changes": {"tier": "premium"}, "/v1/product-changes": {"products": []}}


@dataclass
class Tenant:
    """A customer with the workflow that has made it a tenant."""

    name: str
    tenant_id: str
    workflow_id: str


@dataclass
class World:
    """The tenant that the cast belongs to, another one, and one that is not there."""

    own: Tenant
    other: Tenant
    absent: Tenant


@contextmanager
def played_by(replica: Replica, principals: Cast) -> Iterator[None]:
    """Let a service know these principals instead of those that identity has told it of."""
    state = cast("FastAPI", replica.service.api).state
    before, state.authenticator = state.authenticator, Authenticator(KEY, principals)
    yield
    state.authenticator = before


async def become_tenant(replica: Replica, name: str) -> Tenant:
    body = {**MINIMAL, "customerName": name}
    workflow = (await replica.client.post("/v1/onboardings", json=body)).json()
    await go_on(replica.pool, UUID(workflow["id"]))
    return Tenant(name, workflow["tenantId"], workflow["id"])


@pytest.fixture
async def world(replica: Replica) -> AsyncIterator[World]:
    """There is a tenant before the own one in every list, and one behind it."""
    other, own = await become_tenant(replica, "Other"), await become_tenant(replica, "Own")
    await become_tenant(replica, "Another")
    with played_by(replica, Cast(own.tenant_id)):
        yield World(own, other, absent=Tenant("None", str(uuid4()), str(uuid4())))


async def workflow_like_none(client: httpx2.AsyncClient, world: World, path: str, **sent: Any) -> httpx2.Response:
    """Expect that another tenant's workflow is like none; return the answer."""
    other, absent = [await client.get(path.format(each.workflow_id), **sent) for each in (world.other, world.absent)]
    assert told(other, world.other.workflow_id) == told(absent, world.absent.workflow_id)
    return other


def test_every_route_says_whom_it_is_for(replica: Replica) -> None:
    assert declared(cast("FastAPI", replica.service.api)) == RULES


async def test_a_route_is_for_its_roles_alone(replica: Replica) -> None:
    with played_by(replica, Cast("own")):
        found = {
            (method, path): await let_in(replica.client, method, path.format(workflow_id=uuid4()))
            for method, path in RULES
        }

    assert found == RULES


@pytest.mark.parametrize("who", MEMBERS)
async def test_members_follow_what_is_done_for_their_own_tenant(
    client: httpx2.AsyncClient, world: World, who: str
) -> None:
    path = f"/v1/workflows/{world.own.workflow_id}"
    shown = await client.get(path, headers=as_(who))
    history = await client.get(f"{path}/history", headers=as_(who))
    stream = await client.get(f"{path}/events", headers=as_(who))
    tenants_stream = await client.get("/v1/events", params={"tenantId": world.own.tenant_id}, headers=as_(who))

    assert (shown.json()["tenantId"], shown.json()["status"]) == (world.own.tenant_id, "completed")
    assert history.json()["items"][0]["kind"] == "started"
    assert "event: completed" in stream.text
    assert "event: completed" in tenants_stream.text


@pytest.mark.parametrize("who", MEMBERS)
@pytest.mark.parametrize("query", [{}, {"limit": 1}, {"q": "o"}, {"kind": "onboard"}, {"status": "completed"}], ids=str)
async def test_a_list_has_the_workflows_of_ones_own_tenant_alone(
    client: httpx2.AsyncClient, world: World, who: str, query: dict[str, str]
) -> None:
    for more in ({}, {"tenantId": world.own.tenant_id}):
        listed = (await client.get("/v1/workflows", params={**query, **more}, headers=as_(who))).json()
        assert [workflow["tenantId"] for workflow in listed["items"]] == [world.own.tenant_id]
        assert listed["nextCursor"] is None


@pytest.mark.parametrize("who", MEMBERS)
@pytest.mark.parametrize("query", [{}, {"q": "Other"}, {"kind": "onboard"}, {"status": "completed"}], ids=str)
async def test_a_list_for_another_tenant_is_as_empty_as_for_none(
    client: httpx2.AsyncClient, world: World, who: str, query: dict[str, str]
) -> None:
    answers = [
        await client.get("/v1/workflows", params={**query, "tenantId": each.tenant_id}, headers=as_(who))
        for each in (world.other, world.absent)
    ]

    assert told(answers[0]) == told(answers[1])
    assert answers[0].json() == {"items": [], "nextCursor": None}


async def test_an_operators_cursor_does_not_lead_a_member_to_others(client: httpx2.AsyncClient, world: World) -> None:
    first = (await client.get("/v1/workflows", params={"limit": 1}, headers=as_("operator"))).json()
    query = {"cursor": first["nextCursor"]}

    rest = (await client.get("/v1/workflows", params=query, headers=as_("administrator"))).json()

    assert [workflow["tenantId"] for workflow in rest["items"]] == [world.own.tenant_id]


@pytest.mark.parametrize("who", MEMBERS)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/workflows/{}",
        "/v1/workflows/{}/history",
        "/v1/workflows/{}/history?cursor=made-up",
        "/v1/workflows/{}/events",
    ],
)
async def test_another_tenants_workflow_is_like_none(
    client: httpx2.AsyncClient, world: World, who: str, path: str
) -> None:
    answer = await workflow_like_none(client, world, path, headers=as_(who) | {"Last-Event-ID": "3"})

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_workflow")


async def test_nobody_waits_for_another_tenants_workflow(client: httpx2.AsyncClient, world: World) -> None:
    body = {"tenantId": world.other.tenant_id, "tier": "premium"}
    changing = (await client.post("/v1/tier-changes", json=body, headers=as_("operator"))).json()
    running = Tenant(world.other.name, world.other.tenant_id, changing["id"])

    async with asyncio.timeout(5):
        path, busy = "/v1/workflows/{}?wait=60", replace(world, other=running)
        answer = await workflow_like_none(client, busy, path, headers=as_("administrator"))

    assert answer.status_code == 404
    assert "Retry-After" not in answer.headers


@pytest.fixture
async def listener(replica: Replica) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the service behind a real socket, which a stream needs that does not end."""
    server = HttpServer(replica.service.api, host="127.0.0.1", port=0)
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    host, port = server.servers[0].sockets[0].getsockname()
    async with httpx2.AsyncClient(base_url=f"http://{host}:{port}") as client:
        yield client
    server.should_exit = True
    await running


async def heard(client: httpx2.AsyncClient, tenant_id: str, last_event_id: str) -> tuple[int, list[str]]:
    """Return the beginning of what an administrator hears of a tenant."""
    headers = as_("administrator") | {"Last-Event-ID": last_event_id}
    lines: list[str] = []
    query = {"tenantId": tenant_id}
    async with client.stream("GET", "/v1/events", params=query, headers=headers) as answer:
        coming = answer.aiter_lines()
        while len(lines) < 3:
            lines += filter(None, [await anext(coming)])
    return answer.status_code, lines


@pytest.mark.parametrize("last_event_id", ["0", "2", "999999"])
async def test_a_stream_of_another_tenant_is_as_silent_as_that_of_none(
    listener: httpx2.AsyncClient, world: World, last_event_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.onboarding.streams.HEARTBEAT_SECONDS", 0.05)

    silence = (200, ["retry: 2000", ": alive", ": alive"])

    assert await heard(listener, world.other.tenant_id, last_event_id) == silence
    assert await heard(listener, world.absent.tenant_id, last_event_id) == silence
    assert (await heard(listener, world.own.tenant_id, "0"))[1][2] == "event: started"


async def test_a_stream_ends_with_the_session_that_began_it(
    listener: httpx2.AsyncClient, replica: Replica, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.onboarding.streams.HEARTBEAT_SECONDS", 0.05)
    query = {"tenantId": world.own.tenant_id}
    headers = as_("administrator") | {"Last-Event-ID": "999999"}
    async with listener.stream("GET", "/v1/events", params=query, headers=headers) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 2000"
        cast("FastAPI", replica.service.api).state.authenticator = Authenticator(KEY)

        async with asyncio.timeout(5):
            async for _ in lines:
                pass


@pytest.mark.parametrize("who", ["administrator", "visitor"])
@pytest.mark.parametrize("path", CHANGES)
async def test_administrators_change_their_own_tenant(
    client: httpx2.AsyncClient, world: World, who: str, path: str
) -> None:
    headers, body = as_(who) | {"Idempotency-Key": "k1"}, {"tenantId": world.own.tenant_id, **CHANGES[path]}
    answer = await client.post(path, json=body, headers=headers)
    again = await client.post(path, json=body, headers=headers)

    assert (answer.status_code, answer.json()["tenantId"]) == (202, world.own.tenant_id)
    assert (await client.get(answer.headers["Location"], headers=as_(who))).status_code == 200
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (answer.json(), "true")


@pytest.mark.parametrize("who", ["administrator", "visitor"])
@pytest.mark.parametrize("before", ["", "/v1/suspensions"])
@pytest.mark.parametrize("path", CHANGES)
async def test_an_order_for_another_tenant_is_answered_like_one_for_none(
    replica: Replica, world: World, who: str, before: str, path: str
) -> None:
    client, change = replica.client, CHANGES[path]
    if before:
        await client.post(before, json={"tenantId": world.other.tenant_id}, headers=as_("operator"))
    known = await replica.pool.fetchval("SELECT count(*) FROM workflow")

    for headers in ({}, {"Idempotency-Key": "k1"}, {"Idempotency-Key": "k1"}):
        answers = [
            await client.post(path, json={"tenantId": each.tenant_id, **change}, headers=as_(who) | headers)
            for each in (world.other, world.absent)
        ]
        assert told(answers[0], world.other.tenant_id) == told(answers[1], world.absent.tenant_id)
        assert (answers[0].status_code, answers[0].json()["code"]) == (404, "unknown_tenant")

    assert await replica.pool.fetchval("SELECT count(*) FROM workflow") == known
    assert await replica.pool.fetchval("SELECT count(*) FROM idempotency") == 0


async def test_what_does_not_fit_the_catalog_is_refused_before_any_tenant_is_looked_for(
    client: httpx2.AsyncClient, world: World
) -> None:
    answers = [
        await client.post(
            "/v1/tier-changes", json={"tenantId": each.tenant_id, "tier": "none"}, headers=as_("administrator")
        )
        for each in (world.own, world.other, world.absent)
    ]

    assert {told(answer)[2] for answer in answers} == {answers[0].content}
    assert {answer.status_code for answer in answers} == {422}


async def test_an_idempotency_key_does_not_bring_an_answer_from_one_tenant_into_another(
    replica: Replica, world: World
) -> None:
    """Somebody who gives support, or is a member, here and there is the same person with the same keys."""

    async def change(tenant: Tenant) -> httpx2.Response:
        body, headers = {"tenantId": tenant.tenant_id, "tier": "premium"}, as_("visitor") | {"Idempotency-Key": "k1"}
        return await replica.client.post("/v1/tier-changes", json=body, headers=headers)

    assert (await change(world.own)).status_code == 202
    with played_by(replica, Cast(world.other.tenant_id)):
        assert told(await change(world.own), world.own.tenant_id) == told(
            await change(world.absent), world.absent.tenant_id
        )
        answer = await change(world.other)

    assert (answer.status_code, answer.json()["tenantId"]) == (202, world.other.tenant_id)
    assert "Idempotency-Replayed" not in answer.headers


async def test_operators_see_everybody_and_sign_what_they_do(client: httpx2.AsyncClient, world: World) -> None:
    body = {"tenantId": world.own.tenant_id, "tier": "premium"}
    changing = (await client.post("/v1/tier-changes", json=body, headers=as_("administrator"))).json()
    cancelling = f"/v1/workflows/{changing['id']}/cancel"

    assert (await client.post(cancelling, json={"reason": "Why not."}, headers=as_("operator"))).status_code == 200

    for who in ("operator", "support"):
        listed = (await client.get("/v1/workflows", headers=as_(who))).json()["items"]
        assert {workflow["customerName"] for workflow in listed} == {"Own", "Other", "Another"}
    history = await client.get(f"/v1/workflows/{changing['id']}/history", headers=as_("administrator"))
    assert "user:operator" in {entry["detail"].get("actor") for entry in history.json()["items"]}


async def test_without_the_scope_nothing_is_shown_or_ordered(client: httpx2.AsyncClient, world: World) -> None:
    for who, method, path in (
        ("reader", "POST", "/v1/tier-changes"),
        ("reader", "POST", "/v1/product-changes"),
        ("stranger", "GET", "/v1/workflows"),
        ("stranger", "GET", f"/v1/workflows/{world.own.workflow_id}"),
        ("stranger", "GET", f"/v1/events?tenantId={world.own.tenant_id}"),
    ):
        answer = await client.request(method, path, headers=as_(who))
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
