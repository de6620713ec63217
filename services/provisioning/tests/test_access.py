"""Who may see what, and that a tenant cannot tell another one's environment from one that is not there."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from services.provisioning.api import routes
from services.provisioning.queries import environments as environment_queries
from services.provisioning.queries import exports as export_queries
from services.provisioning.queries import jobs as job_queries
from services.provisioning.tests.world import PostgresWorld
from shared.contracts.provisioning import DecisionRecorded, ExportData, ThrottleEnvironment
from shared.http import create_api
from shared.testing.decisions import changes_on
from shared.testing.plans import general_plan
from shared.testing.principals import Cast, as_, declared, let_in, told

OWN, OTHER, ABSENT = "own", "oth", "abs"

NO_EXPORT = "018f0000-0000-7000-8000-000000000000"

RULES: dict[tuple[str, str], set[str]] = {
    ("GET", "/v1/environments"): {"operator", "support", "administrator"},
    ("GET", "/v1/environments/{environment_id}/inspection"): {"operator", "support"},
    ("GET", "/v1/deployments"): {"operator", "support", "administrator"},
    ("GET", "/v1/drivers"): {"operator", "support"},
    ("GET", "/v1/jobs"): {"operator", "support"},
    ("GET", "/v1/mail"): {"operator", "support", "administrator"},
    ("GET", "/v1/mail/oddities"): {"operator", "support"},
    ("POST", "/v1/mail-resumptions"): {"operator", "support"},
    ("POST", "/v1/credentials"): {"operator", "administrator"},
    ("GET", "/v1/exports"): {"operator", "administrator"},
    ("GET", "/v1/exports/{export_id}"): {"operator", "administrator"},
}


@pytest.fixture
def api(world: PostgresWorld) -> FastAPI:
    changes = changes_on(world.pool, DecisionRecorded, clock=world.clock)
    router = routes(world.pool, changes=changes, **world.routed)
    return create_api("provisioning", routers=[router], admin_key="key", credentials=Cast(OWN), checks={}, version="1")


@pytest.fixture
async def client(api: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        yield client


@pytest.fixture
async def exports(client: httpx2.AsyncClient, world: PostgresWorld) -> dict[str, str]:
    """The identity of each tenant's export; the other tenants' are around the own one's, in the order of the list."""
    await world.provision(OTHER, OWN, "end", products=[{"name": "tasks", "version": "1"}])
    await world.do(*(ExportData(tenant_id=tenant_id) for tenant_id in (OTHER, OWN, "end")))
    listed = (await client.get("/v1/exports", headers=as_("operator"))).json()["items"]
    return {item["tenantId"]: item["exportId"] for item in listed}


def test_every_route_says_whom_it_is_for(api: FastAPI) -> None:
    assert declared(api) == RULES


async def test_a_route_is_for_its_roles_alone(client: httpx2.AsyncClient) -> None:
    assert {(method, path): await let_in(client, method, path) for method, path in RULES} == RULES


@pytest.mark.parametrize("path", ["/v1/environments", "/v1/deployments", "/v1/exports"])
async def test_members_are_shown_what_is_their_tenants_and_of_others_what_is_there_of_none(
    client: httpx2.AsyncClient, exports: dict[str, str], path: str
) -> None:
    first = (await client.get(path, params={"limit": 1}, headers=as_("operator"))).json()
    for who in ("administrator", "visitor", "reader"):
        for query in ({}, {"tenantId": OWN}, {"limit": 1}, {"cursor": first["nextCursor"]}):
            listed = (await client.get(path, params=query, headers=as_(who))).json()
            assert [item["tenantId"] for item in listed["items"]] == [OWN]
            assert listed["nextCursor"] is None
        other = await client.get(path, params={"tenantId": OTHER}, headers=as_(who))
        absent = await client.get(path, params={"tenantId": ABSENT}, headers=as_(who))
        assert told(other) == told(absent)
        assert other.json() == {"items": [], "nextCursor": None}


async def test_another_tenants_export_is_like_none(client: httpx2.AsyncClient, exports: dict[str, str]) -> None:
    for who in ("administrator", "visitor", "reader"):
        own = await client.get(f"/v1/exports/{exports[OWN]}", headers=as_(who))
        other = await client.get(f"/v1/exports/{exports[OTHER]}", headers=as_(who))
        absent = await client.get(f"/v1/exports/{NO_EXPORT}", headers=as_(who))
        assert own.headers["Content-Type"] == "application/gzip"
        assert told(other, exports[OTHER]) == told(absent, NO_EXPORT)
        assert (other.status_code, other.json()["code"]) == (404, "unknown_export")
    assert (await client.get(f"/v1/exports/{exports[OTHER]}", headers=as_("operator"))).status_code == 200


async def test_members_get_credentials_for_their_own_tenant_and_no_other(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    await world.provision(OWN, OTHER)

    async def credentials(who: str, tenant_id: str) -> httpx2.Response:
        return await client.post("/v1/credentials", json={"tenantId": tenant_id}, headers=as_(who))

    for who in ("administrator", "visitor"):
        assert (await credentials(who, OWN)).status_code == 201
        other, absent = await credentials(who, OTHER), await credentials(who, ABSENT)
        assert told(other, OTHER) == told(absent, ABSENT)
        assert (other.status_code, other.json()["code"]) == (404, "unknown_environment")
    assert (await credentials("operator", OTHER)).status_code == 201
    assert len(await world.application.logins()) == 3  # none for what was refused

    await world.do(ThrottleEnvironment(tenant_id=OTHER, reason="secret"))
    assert told(await credentials("administrator", OTHER), OTHER) == told(other, OTHER)


async def test_without_the_scope_nothing_is_given(client: httpx2.AsyncClient) -> None:
    for who, method, path in (
        ("reader", "POST", "/v1/credentials"),
        ("stranger", "GET", "/v1/environments"),
        ("stranger", "GET", f"/v1/exports/{NO_EXPORT}"),
    ):
        answer = await client.request(method, path, headers=as_(who))
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def test_a_tenants_rows_are_found_by_an_index_of_tenants(world: PostgresWorld) -> None:
    """Also once the server has made a plan that is for every tenant alike."""
    first: Any = {"after": None, "limit": 50, "tenant_id": OWN}
    async with world.pool.acquire() as connection:
        of_environments = await general_plan(connection, environment_queries.page(connection, **first))
        of_exports = await general_plan(connection, export_queries.find(connection, now=world.clock.now(), **first))

        of_jobs = await general_plan(connection, job_queries.page(connection, **first))

    assert "environment_tenant_id_key" in of_environments
    assert "export_tenant_id" in of_exports
    assert "job_tenant_id" in of_jobs
