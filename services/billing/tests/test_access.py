"""Who may see what, and that a tenant cannot tell another one's invoice from one that is not there."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from services.billing import queries
from services.billing.tests.support import all_routes, do_it, on, open_active
from shared.contracts.billing import CloseAccount
from shared.http import create_api
from shared.postgres import Pool
from shared.testing.plans import general_plan
from shared.testing.principals import Cast, as_, declared, let_in, told

OWN, OTHER, ABSENT = "own", "oth", "abs"

NO_INVOICE = "018f0000-0000-7000-8000-000000000000"

RULES: dict[tuple[str, str], set[str]] = {
    ("GET", "/v1/plans"): {"operator", "support", "administrator"},
    ("GET", "/v1/plans/{name}"): {"operator", "support", "administrator"},
    ("POST", "/v1/plans"): {"operator"},
    ("POST", "/v1/plans/{name}/versions"): {"operator"},
    ("GET", "/v1/subscriptions"): {"operator", "administrator"},
    ("GET", "/v1/invoices"): {"operator", "administrator"},
    ("GET", "/v1/invoices/preview"): {"operator", "administrator"},
    ("GET", "/v1/invoices/{invoice_id}"): {"operator", "administrator"},
    ("GET", "/v1/balances"): {"operator", "administrator"},
    ("GET", "/v1/payments"): {"operator", "administrator"},
    ("POST", "/v1/payments"): {"operator"},
    ("GET", "/v1/payment-drifts"): {"operator"},
    ("GET", "/v1/credits"): {"operator", "administrator"},
    ("POST", "/v1/credits"): {"operator"},
    ("GET", "/v1/credit-notes"): {"operator", "administrator"},
    ("GET", "/v1/spending-limits/{tenant_id}"): {"operator", "administrator"},
    ("PUT", "/v1/spending-limits/{tenant_id}"): {"operator"},
    ("DELETE", "/v1/spending-limits/{tenant_id}"): {"operator"},
    ("POST", "/v1/price-preview"): {"operator", "support", "administrator", "user"},
    ("POST", "/v1/proration-preview"): {"operator", "support", "administrator", "user"},
}


@pytest.fixture
def api(pool: Pool) -> FastAPI:
    router = all_routes(pool)
    return create_api("billing", routers=[router], admin_key="key", credentials=Cast(OWN), checks={}, version="1")


@pytest.fixture
async def client(api: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        yield client


@pytest.fixture
async def invoices(pool: Pool) -> dict[str, str]:
    """The identity of each tenant's invoice. The other tenant's are around the own one's, in the order of the list."""
    ids = {}
    for day, tenant_id in enumerate((OTHER, OWN, "end"), start=2):
        await open_active(pool, tenant_id)
        done = await do_it(pool, CloseAccount(tenant_id=tenant_id), at=on(day))
        ids[tenant_id] = str(done.answer.model_dump()["invoice_id"])
    return ids


def test_every_route_says_whom_it_is_for(api: FastAPI) -> None:
    assert declared(api) == RULES


@pytest.mark.parametrize(("route", "who"), RULES.items(), ids=str)
async def test_a_route_is_for_its_roles_alone(
    client: httpx2.AsyncClient, route: tuple[str, str], who: set[str]
) -> None:
    assert await let_in(client, *route) == who


@pytest.mark.parametrize("who", ["administrator", "visitor", "reader"])
@pytest.mark.parametrize("path", ["/v1/subscriptions", "/v1/invoices"])
async def test_members_are_shown_what_is_their_tenants_whatever_they_ask_for(
    client: httpx2.AsyncClient, invoices: dict[str, str], who: str, path: str
) -> None:
    for query in ({}, {"tenantId": OWN}, {"limit": 1}):
        listed = (await client.get(path, params=query, headers=as_(who))).json()
        assert [item["tenantId"] for item in listed["items"]] == [OWN]
        assert listed["nextCursor"] is None


@pytest.mark.parametrize("who", ["administrator", "visitor", "reader"])
@pytest.mark.parametrize("path", ["/v1/subscriptions", "/v1/invoices"])
async def test_a_list_for_another_tenant_is_as_empty_as_for_none(
    client: httpx2.AsyncClient, invoices: dict[str, str], who: str, path: str
) -> None:
    other = await client.get(path, params={"tenantId": OTHER}, headers=as_(who))
    absent = await client.get(path, params={"tenantId": ABSENT}, headers=as_(who))
    for_the_operator = await client.get(path, params={"tenantId": ABSENT}, headers=as_("operator"))

    assert told(other) == told(absent) == told(for_the_operator)
    assert other.json() == {"items": [], "nextCursor": None}


@pytest.mark.parametrize("path", ["/v1/subscriptions", "/v1/invoices"])
async def test_an_operators_cursor_does_not_lead_a_member_to_others(
    client: httpx2.AsyncClient, invoices: dict[str, str], path: str
) -> None:
    first = (await client.get(path, params={"limit": 1}, headers=as_("operator"))).json()

    rest = await client.get(path, params={"cursor": first["nextCursor"]}, headers=as_("administrator"))

    assert [item["tenantId"] for item in first["items"]] == [OTHER]
    assert [item["tenantId"] for item in rest.json()["items"]] == [OWN]


@pytest.mark.parametrize("who", ["administrator", "visitor", "reader"])
async def test_another_tenants_invoice_is_like_none(
    client: httpx2.AsyncClient, invoices: dict[str, str], who: str
) -> None:
    own = await client.get(f"/v1/invoices/{invoices[OWN]}", headers=as_(who))
    other = await client.get(f"/v1/invoices/{invoices[OTHER]}", headers=as_(who))
    absent = await client.get(f"/v1/invoices/{NO_INVOICE}", headers=as_(who))

    assert (own.status_code, own.json()["tenantId"]) == (200, OWN)
    assert told(other, invoices[OTHER]) == told(absent, NO_INVOICE)
    assert (other.status_code, other.json()["code"]) == (404, "unknown_invoice")


async def test_the_operator_sees_everybodys(client: httpx2.AsyncClient, invoices: dict[str, str]) -> None:
    listed = (await client.get("/v1/invoices", headers=as_("operator"))).json()["items"]
    answer = await client.get(f"/v1/invoices/{invoices[OTHER]}", headers=as_("operator"))

    assert [item["tenantId"] for item in listed] == [OTHER, OWN, "end"]
    assert answer.json()["tenantId"] == OTHER


async def test_without_the_scope_nothing_is_shown(client: httpx2.AsyncClient) -> None:
    for path in ("/v1/plans", "/v1/invoices", f"/v1/invoices/{NO_INVOICE}"):
        answer = await client.get(path, headers=as_("stranger"))
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def test_a_tenants_rows_are_found_by_an_index_of_tenants(pool: Pool) -> None:
    """Also once the server has made a plan that is for every tenant alike."""
    async with pool.acquire() as connection:
        first: Any = {"after": None, "limit": 50, "tenant_id": OWN}
        invoices = await general_plan(connection, queries.invoices.page(connection, **first))
        subscriptions = await general_plan(connection, queries.subscriptions.page(connection, **first))

    assert "invoice_of_tenant" in invoices
    assert "account_tenant_id_key" in subscriptions
