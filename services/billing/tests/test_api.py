from collections.abc import AsyncIterator

import httpx2
import pytest

from services.billing.api import PATHS
from services.billing.tests.support import (
    activated,
    all_routes,
    ask,
    do_it,
    hear,
    licences,
    on,
    open_accounts,
    open_active,
    purge,
)
from shared.contracts.billing import ChangePlan, CloseAccount, PauseBilling
from shared.http import create_api
from shared.postgres import Pool

KEY = "a-key-of-the-administrator"


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    api = create_api("billing", routers=[all_routes(pool)], admin_key=KEY, checks={}, version="1")
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
                "version": 1,
                "startsAt": None,
                "paysIn": "arrears",
                "trialDays": 0,
                "proration": "day",
                "charges": [],
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
    assert {name: pending[name] for name in ("tenantId", "product", "plan", "currency", "amount")} == {
        "tenantId": "t1",
        "product": None,
        "plan": "standard",
        "currency": "EUR",
        "amount": "45.00",
    }
    assert pending.keys() == active.keys()
    assert pending.keys() >= {"subscriptionId", "accountId"}


async def test_licences_are_listed_with_their_products_those_that_are_no_more_included(
    client: httpx2.AsyncClient, pool: Pool
) -> None:
    await open_active(pool, "t1", licences=[{"product": "chess", "plan": "premium"}])
    await do_it(pool, licences("t1", go="free"), at=on(5))

    items = (await client.get("/v1/subscriptions", params={"tenantId": "t1"})).json()["items"]

    assert [(each["product"], each["plan"], each["amount"], each["status"]) for each in items] == [
        (None, "standard", "49.00", "active"),
        ("chess", "premium", "499.00", "ended"),
        ("go", "free", "0.00", "active"),
    ]
    assert {each["startedAt"] for each in items} == {"2026-03-01T12:00:00Z"}
    assert len({each["accountId"] for each in items}) == 1


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


async def test_the_states_of_a_subscription_are_shown(client: httpx2.AsyncClient, pool: Pool) -> None:
    await open_active(pool, "t1")
    await open_accounts(pool, ask("t2"))
    await do_it(pool, PauseBilling(tenant_id="t1"), at=on(5))
    await do_it(pool, CloseAccount(tenant_id="t2"))

    items = (await client.get("/v1/subscriptions")).json()["items"]

    assert {item["tenantId"]: (item["status"], item["startedAt"]) for item in items} == {
        "t1": ("paused", "2026-03-01T12:00:00Z"),
        "t2": ("ended", None),
    }


async def test_a_draft_is_shown_before_and_after_it_is_issued(client: httpx2.AsyncClient, pool: Pool) -> None:
    await open_active(pool, "t1")
    await do_it(pool, ChangePlan(tenant_id="t1", plan="premium"), at=on(11))
    done = await do_it(pool, CloseAccount(tenant_id="t1"), at=on(13))
    invoice_id = done.answer.model_dump()["invoice_id"]

    draft = (await client.get(f"/v1/invoices/{invoice_id}")).json()
    await purge(pool, "t1", at=on(20))
    final = (await client.get(f"/v1/invoices/{invoice_id}")).json()

    assert draft == {
        "invoiceId": invoice_id,
        "tenantId": "t1",
        "customerName": "Acme",
        "currency": "USD",
        "state": "draft",
        "number": None,
        "kind": "closing",
        "closesAt": "2026-03-13T12:00:00Z",
        "lines": [
            {
                "description": "standard, 2026-03-01 to 2026-03-10: 10 of 31 days at 49.00 USD a month",
                "quantity": "10",
                "unit": "day",
                "amount": "15.81",
                "since": "2026-03-01T00:00:00Z",
                "until": "2026-03-11T00:00:00Z",
            },
            {
                "description": "premium, 2026-03-11 to 2026-03-12: 2 of 31 days at 499.00 USD a month",
                "quantity": "2",
                "unit": "day",
                "amount": "32.19",
                "since": "2026-03-11T00:00:00Z",
                "until": "2026-03-13T00:00:00Z",
            },
        ],
        "total": "48.00",
        "draftedAt": "2026-03-13T12:00:00Z",
        "issuedAt": None,
        "amountDue": None,
        "settledAt": None,
    }
    assert final == draft | {"state": "final", "number": "00000001", "issuedAt": "2026-03-20T12:00:00Z"}


async def test_invoices_are_listed_in_pages_all_or_one_tenants(client: httpx2.AsyncClient, pool: Pool) -> None:
    for day, tenant_id in enumerate(("t2", "t1", "t3"), start=2):
        await open_active(pool, tenant_id)
        await do_it(pool, CloseAccount(tenant_id=tenant_id), at=on(day))
    await purge(pool, "t2")

    first = (await client.get("/v1/invoices", params={"limit": 2})).json()
    rest = (await client.get("/v1/invoices", params={"cursor": first["nextCursor"]})).json()
    (of_one,) = (await client.get("/v1/invoices", params={"tenantId": "t1"})).json()["items"]
    issued = (await client.get("/v1/invoices", params={"state": "final"})).json()["items"]

    assert [item["tenantId"] for item in (*first["items"], *rest["items"])] == ["t2", "t1", "t3"]
    assert rest["nextCursor"] is None
    assert (of_one, of_one["total"]) == (first["items"][1], "3.16")
    assert [item["tenantId"] for item in issued] == ["t2"]


@pytest.mark.parametrize("invoice_id", ["018f0000-0000-7000-8000-000000000000", "nonsense"])
async def test_an_invoice_that_is_not_there_is_not_found(client: httpx2.AsyncClient, invoice_id: str) -> None:
    answer = await client.get(f"/v1/invoices/{invoice_id}")

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_invoice")


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


ROOTS = {"/v1/spending-limits", "/v1/payment-webhooks"}
"""Nothing is there but what is below: whose tenant a limit is, and what a provider signs instead of having a key."""

ITEMS = ("/v1/invoices/018f0000-0000-7000-8000-000000000000", "/v1/spending-limits/t1")


@pytest.mark.parametrize("path", [*sorted({*PATHS} - ROOTS), *ITEMS])
async def test_nothing_is_shown_without_the_administrators_key(client: httpx2.AsyncClient, path: str) -> None:
    method = "POST" if path.endswith("-preview") else "GET"

    answer = await client.request(method, path, headers={"Authorization": "Bearer another"})

    assert answer.status_code == 401
