"""Who may do what, and that a tenant cannot tell another one from one that is not there."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from services.tenant.api import routes
from services.tenant.tests.support import ask, open_for_business
from shared.clock import ManualClock
from shared.contracts.tenant import DecisionRecorded
from shared.http import create_api
from shared.postgres import Pool
from shared.testing.decisions import changes_on
from shared.testing.principals import Cast, as_, declared, let_in, told

OWN, OTHER, ABSENT = "own", "oth", "abs"

RULES: dict[tuple[str, str], set[str]] = {
    ("GET", "/v1/tenants"): {"operator", "support"},
    ("GET", "/v1/tenants/{tenant_id}"): {"operator", "support", "administrator"},
    ("PATCH", "/v1/tenants/{tenant_id}"): {"operator", "administrator"},
    ("GET", "/v1/tenants/{tenant_id}/certificate"): {"operator", "support"},
    ("GET", "/v1/tenant-config"): {"operator", "support", "administrator", "user"},
    ("GET", "/v1/tiers"): {"operator", "support", "administrator"},
    ("GET", "/v1/tiers/{name}"): {"operator", "support", "administrator"},
    ("POST", "/v1/tiers"): {"operator"},
    ("PATCH", "/v1/tiers/{name}"): {"operator"},
    ("POST", "/v1/tiers/{name}/retire"): {"operator"},
    ("POST", "/v1/tiers/{name}/reinstate"): {"operator"},
    ("GET", "/v1/products"): {"operator", "support", "administrator"},
    ("GET", "/v1/products/{name}"): {"operator", "support", "administrator"},
    ("GET", "/v1/products/{name}/versions"): {"operator", "support", "administrator"},
    ("POST", "/v1/products"): {"operator"},
    ("PATCH", "/v1/products/{name}"): {"operator"},
    ("POST", "/v1/products/{name}/retire"): {"operator"},
    ("POST", "/v1/products/{name}/reinstate"): {"operator"},
    ("POST", "/v1/products/{name}/versions"): {"operator"},
    ("POST", "/v1/products/{name}/versions/{version}/retire"): {"operator"},
    ("POST", "/v1/products/{name}/versions/{version}/reinstate"): {"operator"},
}


@pytest.fixture
def api(pool: Pool) -> FastAPI:
    clock = ManualClock()
    changes = changes_on(pool, DecisionRecorded, clock=clock)
    router = routes(pool, changes=changes, clock=clock, gateway_url="https://pool.example.com")
    return create_api("tenant", routers=[router], admin_key="key", credentials=Cast(OWN), checks={}, version="1")


@pytest.fixture
async def client(api: FastAPI, pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    await open_for_business(pool, ask(OWN), ask(OTHER))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        yield client


def test_every_route_says_whom_it_is_for(api: FastAPI) -> None:
    assert declared(api) == RULES


@pytest.mark.parametrize(("route", "who"), RULES.items(), ids=str)
async def test_a_route_is_for_its_roles_alone(
    client: httpx2.AsyncClient, route: tuple[str, str], who: set[str]
) -> None:
    assert await let_in(client, *route) == who


@pytest.mark.parametrize("who", ["administrator", "visitor", "reader"])
async def test_members_see_their_own_tenant(client: httpx2.AsyncClient, who: str) -> None:
    shown = await client.get(f"/v1/tenants/{OWN}", headers=as_(who))

    assert (shown.status_code, shown.json()["tenantId"]) == (200, OWN)


@pytest.mark.parametrize("who", ["administrator", "visitor"])
async def test_administrators_change_their_own_tenant(client: httpx2.AsyncClient, who: str) -> None:
    seen = await client.get(f"/v1/tenants/{OWN}", headers=as_(who))
    headers = as_(who) | {"If-Match": seen.headers["ETag"]}

    changed = await client.patch(f"/v1/tenants/{OWN}", json={"tags": {"a": "b"}}, headers=headers)

    assert (changed.status_code, changed.json()["tags"]) == (200, {"a": "b"})


@pytest.mark.parametrize("name", ["state", "tenantTier", "tenantId", "products", "expiration", "isActive"])
async def test_what_workflows_change_is_refused_from_members_too(client: httpx2.AsyncClient, name: str) -> None:
    headers = as_("administrator") | {"If-Match": "*"}

    answer = await client.patch(f"/v1/tenants/{OWN}", json={name: "x"}, headers=headers)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{name}"]


@pytest.mark.parametrize("who", ["administrator", "visitor", "reader"])
@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}, {"If-Match": '"2"'}, {"If-Match": '"9"'}], ids=str)
@pytest.mark.parametrize(("method", "sent"), [("GET", {}), ("PATCH", {"json": {}}), ("PATCH", {"json": {"no": 1}})])
async def test_another_tenant_is_like_none(
    client: httpx2.AsyncClient, who: str, method: str, sent: dict[str, Any], headers: dict[str, str]
) -> None:
    other = await client.request(method, f"/v1/tenants/{OTHER}", headers=as_(who) | headers, **sent)
    absent = await client.request(method, f"/v1/tenants/{ABSENT}", headers=as_(who) | headers, **sent)

    assert told(other, OTHER) == told(absent, ABSENT)
    assert other.status_code in {403, 404, 422}


async def test_nothing_of_another_tenant_was_changed(client: httpx2.AsyncClient, pool: Pool) -> None:
    headers = as_("administrator") | {"If-Match": "*"}

    answer = await client.patch(f"/v1/tenants/{OTHER}", json={"tags": {"a": "b"}}, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_tenant")
    assert await pool.fetchval("SELECT version FROM tenant WHERE tenant_id = $1", OTHER) == 2


@pytest.mark.parametrize("who", ["administrator", "visitor", "user"])
async def test_members_learn_where_their_own_tenant_is_and_no_other(client: httpx2.AsyncClient, who: str) -> None:
    own, other, absent = [
        await client.get("/v1/tenant-config", params={"tenantName": f"Customer {each}"}, headers=as_(who))
        for each in (OWN, OTHER, ABSENT)
    ]

    assert own.json()["tenantId"] == OWN
    assert told(other, OTHER) == told(absent, ABSENT)
    assert (other.status_code, other.json()["code"]) == (404, "unknown_tenant")


async def test_operators_see_every_tenant(client: httpx2.AsyncClient) -> None:
    for who in ("operator", "support"):
        listed = await client.get("/v1/tenants", headers=as_(who))
        config = await client.get("/v1/tenant-config", params={"tenantName": f"Customer {OTHER}"}, headers=as_(who))
        assert {tenant["tenantId"] for tenant in listed.json()["items"]} == {OWN, OTHER}
        assert config.json()["tenantId"] == OTHER


@pytest.mark.parametrize("path", ["/v1/tiers", "/v1/products"])
async def test_what_the_catalog_says_for_drivers_is_told_to_operators_alone(
    client: httpx2.AsyncClient, pool: Pool, path: str
) -> None:
    table, name = ("tier", "free") if path == "/v1/tiers" else ("product", "notes")
    await pool.execute(f"UPDATE {table} SET parameters = $1 WHERE name = $2", {"account": "4711"}, name)

    shown = {}
    for who in ("operator", "support", "visitor", "administrator", "reader"):
        one = await client.get(f"{path}/{name}", headers=as_(who))
        listed = await client.get(path, headers=as_(who))
        (of_list,) = [each for each in listed.json()["items"] if each["name"] == name]
        assert of_list == one.json()
        shown[who] = one.json().pop("parameters")

    assert {who for who, parameters in shown.items() if parameters == {"account": "4711"}} == {"operator", "support"}
    assert {who for who, parameters in shown.items() if parameters is None} == {"visitor", "administrator", "reader"}


async def test_support_that_acts_in_a_tenant_cannot_look_at_all_of_them(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/tenants", headers=as_("visitor"))).json()["code"] == "forbidden"


@pytest.mark.parametrize(
    ("who", "method", "path"),
    [
        ("reader", "PATCH", f"/v1/tenants/{OWN}"),
        ("stranger", "GET", f"/v1/tenants/{OWN}"),
        ("stranger", "GET", "/v1/tiers"),
    ],
)
async def test_without_the_scope_nothing_is_shown_or_changed(
    client: httpx2.AsyncClient, who: str, method: str, path: str
) -> None:
    answer = await client.request(method, path, headers=as_(who))

    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
