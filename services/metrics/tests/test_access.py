"""Who may do what, and that a tenant cannot tell another one from one that is not there."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx2
import pytest
from fastapi import FastAPI

from services.metrics import handlers
from services.metrics.tests.support import api_of
from shared.clock import ManualClock
from shared.contracts.metrics import TrackTenant
from shared.contracts.provisioning import MailReported
from shared.postgres import Pool, transaction
from shared.testing.principals import Cast, as_, declared, let_in, told

OWN, OTHER, ABSENT = "own", "oth", "abs"

RULES: dict[tuple[str, str], set[str]] = {
    ("GET", "/v1/meters"): {"operator", "support", "administrator"},
    ("GET", "/v1/meters/{name}"): {"operator", "support", "administrator"},
    ("POST", "/v1/meters"): {"operator"},
    ("POST", "/v1/meters/{name}/retire"): {"operator"},
    ("GET", "/v1/usage"): {"operator", "administrator"},
    ("GET", "/v1/usage/amendments"): {"operator"},
    ("POST", "/v1/usage/amendments"): {"operator"},
    ("POST", "/v1/usage"): {"operator", "administrator"},
    ("GET", "/v1/quotas"): {"operator", "administrator"},
    ("GET", "/v1/audit"): {"operator", "administrator"},
    ("GET", "/v1/audit/verification"): {"operator", "administrator"},
    ("GET", "/v1/audit/export"): {"operator", "administrator"},
    ("GET", "/v1/business/tenants"): {"operator", "support"},
    ("GET", "/v1/business/churn"): {"operator", "support"},
    ("GET", "/v1/business/onboardings"): {"operator", "support"},
    ("GET", "/v1/business/revenue"): {"operator"},
}


@pytest.fixture
def api(pool: Pool) -> FastAPI:
    return api_of(pool, credentials=Cast(OWN))


@pytest.fixture
async def client(api: FastAPI, pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    asks = [TrackTenant(tenant_id=tenant_id, quotas={"api_calls": 1, "seats": 3}) for tenant_id in (OWN, OTHER)]
    async with transaction(pool) as connection:
        await handlers.track_tenants(connection, asks, clock=ManualClock())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        yield client


def test_every_route_says_whom_it_is_for(api: FastAPI) -> None:
    assert declared(api) == RULES


@pytest.mark.parametrize(("route", "who"), RULES.items(), ids=str)
async def test_a_route_is_for_its_roles_alone(
    client: httpx2.AsyncClient, route: tuple[str, str], who: set[str]
) -> None:
    assert await let_in(client, *route) == who


@pytest.mark.parametrize("who", ["administrator", "visitor", "reader", "operator"])
async def test_the_quotas_of_ones_own_tenant_are_shown(client: httpx2.AsyncClient, who: str) -> None:
    quotas = (await client.get("/v1/quotas", params={"tenantId": OWN}, headers=as_(who))).json()["items"]

    assert [quota["meter"] for quota in quotas] == ["api_calls", "seats"]


@pytest.mark.parametrize("who", ["administrator", "visitor", "reader"])
async def test_another_tenant_has_as_few_quotas_as_none(client: httpx2.AsyncClient, who: str) -> None:
    first = (await client.get("/v1/quotas", params={"tenantId": OWN, "limit": 1}, headers=as_(who))).json()
    for more in ({}, {"cursor": first["nextCursor"]}):
        other = await client.get("/v1/quotas", params={"tenantId": OTHER, **more}, headers=as_(who))
        absent = await client.get("/v1/quotas", params={"tenantId": ABSENT, **more}, headers=as_(who))
        assert told(other, OTHER) == told(absent, ABSENT)
        assert other.json() == {"items": [], "nextCursor": None}


@pytest.mark.parametrize("who", ["administrator", "visitor", "reader"])
async def test_another_tenant_has_used_as_little_as_none(client: httpx2.AsyncClient, pool: Pool, who: str) -> None:
    hour = datetime(2026, 1, 1, tzinfo=UTC)
    async with transaction(pool) as connection:
        facts = [MailReported(tenant_id=tenant_id, hour=hour, counts={"send": 3}) for tenant_id in (OWN, OTHER)]
        await handlers.meter_mail(connection, facts, clock=ManualClock())

    own = await client.get("/v1/usage", params={"tenantId": OWN}, headers=as_(who))
    other = await client.get("/v1/usage", params={"tenantId": OTHER}, headers=as_(who))
    absent = await client.get("/v1/usage", params={"tenantId": ABSENT}, headers=as_(who))

    assert [item["quantity"] for item in own.json()["items"]] == ["3"]
    assert told(other, OTHER) == told(absent, ABSENT)
    assert other.json() == {"items": [], "nextCursor": None}


async def test_without_the_scope_nothing_is_shown(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/quotas", params={"tenantId": OWN}, headers=as_("stranger"))

    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
