from collections.abc import AsyncIterator

import httpx2
import pytest

from services.billing.api import PATHS, routes
from services.billing.tests.support import activated, ask, hear, open_accounts
from shared.http import create_api
from shared.postgres import Pool

KEY = "a-key-of-the-administrator"


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    api = create_api("billing", routers=[routes(pool)], admin_key=KEY, checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


async def test_plans_are_listed_in_pages_with_amounts_as_decimal_strings(client: httpx2.AsyncClient) -> None:
    first = (await client.get("/v1/plans", params={"limit": 2})).json()
    rest = (await client.get("/v1/plans", params={"cursor": first["nextCursor"]})).json()

    assert [plan["name"] for plan in first["items"]] == ["free", "standard"]
    assert rest == {
        "items": [
            {
                "name": "premium",
                "rank": 3,
                "interval": "month",
                "currency": "USD",
                "amount": "499.00",
                "prices": [{"currency": "EUR", "amount": "459.00"}, {"currency": "USD", "amount": "499.00"}],
            }
        ],
        "nextCursor": None,
    }


async def test_a_subscription_is_shown_before_and_after_its_start(client: httpx2.AsyncClient, pool: Pool) -> None:
    await open_accounts(pool, ask("t1", currency="EUR"), ask("t2"))
    (pending,) = (await client.get("/v1/subscriptions", params={"tenantId": "t1"})).json()["items"]
    await hear(pool, activated("t1"))
    (active,) = (await client.get("/v1/subscriptions", params={"tenantId": "t1"})).json()["items"]

    assert (pending["status"], pending["startedAt"]) == ("pending", None)
    assert active == pending | {"status": "active", "startedAt": "2026-03-01T12:00:00Z"}
    assert {name: pending[name] for name in ("tenantId", "plan", "currency", "amount")} == {
        "tenantId": "t1",
        "plan": "standard",
        "currency": "EUR",
        "amount": "45.00",
    }
    assert pending.keys() == active.keys()
    assert pending.keys() >= {"subscriptionId", "accountId"}


async def test_all_subscriptions_are_listed_in_pages(client: httpx2.AsyncClient, pool: Pool) -> None:
    for tenant_id in ("t2", "t1", "t3"):
        await open_accounts(pool, ask(tenant_id))

    first = (await client.get("/v1/subscriptions", params={"limit": 2})).json()
    rest = (await client.get("/v1/subscriptions", params={"cursor": first["nextCursor"]})).json()

    assert [item["tenantId"] for item in (*first["items"], *rest["items"])] == ["t2", "t1", "t3"]
    assert rest["nextCursor"] is None


async def test_a_tenant_without_an_account_has_an_empty_list(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/subscriptions", params={"tenantId": "t0"})

    assert answer.json() == {"items": [], "nextCursor": None}


@pytest.mark.parametrize(
    ("query", "name"),
    [({"tenantId": "no tenant"}, "tenantId"), ({"limit": "0"}, "limit"), ({"cursor": "made-up"}, "cursor")],
)
async def test_a_malformed_query_is_refused_by_name(
    client: httpx2.AsyncClient, query: dict[str, str], name: str
) -> None:
    answer = await client.get("/v1/subscriptions", params=query)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"]


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_shown_without_the_administrators_key(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Authorization": "Bearer another"})

    assert answer.status_code == 401
