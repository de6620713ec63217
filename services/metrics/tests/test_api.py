from collections.abc import AsyncIterator

import httpx2
import pytest

from services.metrics import handlers
from services.metrics.api import PATHS, routes
from shared.clock import ManualClock
from shared.contracts.metrics import TrackTenant
from shared.http import create_api
from shared.postgres import Pool, transaction

KEY = "a-key-of-the-administrator"


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    api = create_api("metrics", routers=[routes(pool)], admin_key=KEY, checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


@pytest.fixture(autouse=True)
async def two_tenants(pool: Pool) -> None:
    asks = [
        TrackTenant(tenant_id="t1", quotas={"api_calls": 10_000, "seats": 3, "storage_gb": 1}),
        TrackTenant(tenant_id="t2", quotas={"seats": 25}),
    ]
    async with transaction(pool) as connection:
        await handlers.track_tenants(connection, asks, clock=ManualClock())


async def test_the_quotas_of_one_tenant_are_listed_in_pages_by_meter(client: httpx2.AsyncClient) -> None:
    first = (await client.get("/v1/quotas", params={"tenantId": "t1", "limit": 2})).json()
    rest = (await client.get("/v1/quotas", params={"tenantId": "t1", "cursor": first["nextCursor"]})).json()

    assert first["items"] == [
        {"meter": "api_calls", "limit": 10_000, "unit": "call", "enforcement": "soft"},
        {"meter": "seats", "limit": 3, "unit": "seat", "enforcement": "hard"},
    ]
    assert rest == {
        "items": [{"meter": "storage_gb", "limit": 1, "unit": "GB", "enforcement": "soft"}],
        "nextCursor": None,
    }


async def test_a_tenant_that_is_not_tracked_has_an_empty_list(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/quotas", params={"tenantId": "t0"})

    assert answer.json() == {"items": [], "nextCursor": None}


async def test_the_catalog_is_listed_in_pages_by_name(client: httpx2.AsyncClient) -> None:
    first = (await client.get("/v1/meters", params={"limit": 2})).json()
    rest = (await client.get("/v1/meters", params={"cursor": first["nextCursor"]})).json()

    assert [meter["name"] for meter in first["items"]] == ["api_calls", "seats"]
    assert rest == {"items": [{"name": "storage_gb", "unit": "GB", "enforcement": "soft"}], "nextCursor": None}


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({}, "tenantId"),
        ({"tenantId": "no tenant"}, "tenantId"),
        ({"tenantId": "t1", "limit": "0"}, "limit"),
        ({"tenantId": "t1", "cursor": "made-up"}, "cursor"),
    ],
)
async def test_a_malformed_query_is_refused_by_name(
    client: httpx2.AsyncClient, query: dict[str, str], name: str
) -> None:
    answer = await client.get("/v1/quotas", params=query)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"]


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_shown_without_the_administrators_key(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path, params={"tenantId": "t1"}, headers={"Authorization": "Bearer another"})

    assert answer.status_code == 401
