import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from services.tenant.api import PATHS, routes
from services.tenant.tests.support import activate, archive, ask, open_for_business, register
from shared.clock import ManualClock
from shared.contracts.tenant import DecisionRecorded, Deletion, TenantArchived
from shared.http import create_api
from shared.postgres import Pool
from shared.testing.decisions import changes_on

KEY = "a-key-of-the-administrator"
GATEWAY = "https://pool.example.com"
NOTES_1 = {"name": "notes", "version": "1.0"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def client(pool: Pool, clock: ManualClock) -> AsyncIterator[httpx2.AsyncClient]:
    changes = changes_on(pool, DecisionRecorded, clock=clock)
    router = routes(pool, changes=changes, clock=clock, gateway_url=GATEWAY)
    api = create_api("tenant", routers=[router], admin_key=KEY, checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


async def patch(client: httpx2.AsyncClient, body: dict[str, Any], if_match: str = "*") -> httpx2.Response:
    return await client.patch("/v1/tenants/t1", json=body, headers={"If-Match": if_match})


async def every_page(client: httpx2.AsyncClient, path: str, **query: Any) -> list[list[dict[str, Any]]]:
    """Follow the cursors of a list from its beginning to its end."""
    pages, cursor = [], None
    while True:
        parameters = query | ({"cursor": cursor} if cursor else {})
        body = (await client.get(path, params=parameters)).json()
        pages.append(body["items"])
        cursor = body["nextCursor"]
        if cursor is None:
            return pages


async def test_a_tenant_is_shown_as_the_contract_says(client: httpx2.AsyncClient, pool: Pool) -> None:
    await register(
        pool,
        ask(
            "t1",
            "Café 東京",
            tier="premium",
            products=[NOTES_1],
            phone="+49 30 1234",
            address="Ring 1\nBerlin",
            expiration="2027-01-31",
            tags={"segment": "smb"},
            attributes={"crm": "42"},
        ),
    )

    answer = await client.get("/v1/tenants/t1")

    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"1"'
    assert answer.json() == {
        "tenantId": "t1",
        "tenantName": "Café 東京",
        "tenantTier": "premium",
        "state": "registered",
        "isActive": False,
        "dedicatedTenancy": True,
        "tenantEmail": "ada@example.com",
        "tenantPhone": "+49 30 1234",
        "tenantAddress": "Ring 1\nBerlin",
        "apiGatewayUrl": GATEWAY,
        "products": [NOTES_1],
        "expiration": "2027-01-31",
        "tags": {"segment": "smb"},
        "attributes": {"crm": "42"},
        "createdAt": "2026-01-01T00:00:00Z",
    }


async def test_an_activated_tenant_is_active_and_has_another_etag(client: httpx2.AsyncClient, pool: Pool) -> None:
    await register(pool, ask("t1"))
    await activate(pool, "t1")

    answer = await client.get("/v1/tenants/t1")

    assert (answer.json()["state"], answer.json()["isActive"]) == ("active", True)
    assert answer.headers["ETag"] == '"2"'


async def test_only_a_tenant_of_a_silo_tier_has_dedicated_tenancy(client: httpx2.AsyncClient, pool: Pool) -> None:
    await register(pool, ask("t1", tier="free"), ask("t2", tier="standard"), ask("t3", tier="premium"))

    (tenants,) = await every_page(client, "/v1/tenants")

    assert [tenant["dedicatedTenancy"] for tenant in tenants] == [False, False, True]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/tenants/t0", "unknown_tenant"),
        ("/v1/tenants/t0/certificate", "unknown_tenant"),
        ("/v1/tenant-config?tenantName=Nobody", "unknown_tenant"),
        ("/v1/tiers/gold", "unknown_tier"),
        ("/v1/products/chess", "unknown_product"),
        ("/v1/products/chess/versions", "unknown_product"),
    ],
)
async def test_what_does_not_exist_is_a_problem_with_its_own_code(
    client: httpx2.AsyncClient, path: str, code: str
) -> None:
    answer = await client.get(path)

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == code


async def test_tenants_are_listed_in_pages(client: httpx2.AsyncClient, pool: Pool) -> None:
    await register(pool, *(ask(f"t{number}") for number in range(5)))

    pages = await every_page(client, "/v1/tenants", limit=2)

    assert [[tenant["tenantId"] for tenant in tenants] for tenants in pages] == [["t0", "t1"], ["t2", "t3"], ["t4"]]


async def test_the_list_of_tenants_is_narrowed_by_name_state_and_tier(client: httpx2.AsyncClient, pool: Pool) -> None:
    await register(pool, ask("t1", "Acme", tier="premium"), ask("t2", "ACME Café"), ask("t3", "Bolt"))
    await activate(pool, "t2")

    async def found(**query: str) -> list[str]:
        answer = await client.get("/v1/tenants", params=query)
        return [tenant["tenantId"] for tenant in answer.json()["items"]]

    assert await found(q="acme") == ["t1", "t2"]
    assert await found(q="cafe\u0301") == ["t2"]
    assert await found(state="active") == ["t2"]
    assert await found(tier="premium") == ["t1"]
    assert await found(tier="premium", q="bolt") == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"state": "dormant"}, "query/state"),
        ({"limit": "0"}, "query/limit"),
        ({"cursor": "made-up"}, "query/cursor"),
        ({"q": "\x1b"}, "query/q"),
        ({"tier": "No Such Tier"}, "query/tier"),
    ],
)
async def test_a_malformed_query_is_refused_by_the_name_of_its_parameter(
    client: httpx2.AsyncClient, query: dict[str, str], pointer: str
) -> None:
    answer = await client.get("/v1/tenants", params=query)

    assert 400 <= answer.status_code < 500
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_details_are_changed_and_the_others_stay(client: httpx2.AsyncClient, pool: Pool) -> None:
    await register(pool, ask("t1", phone="+1 555 0100", address="Main St 1", attributes={"crm": "42"}))
    before = await client.get("/v1/tenants/t1")

    answer = await patch(
        client,
        {"tenantEmail": "bea@EXAMPLE.com", "tenantPhone": None, "tags": {"segment": "smb"}},
        before.headers["ETag"],
    )

    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"2"'
    changed = {"tenantEmail": "bea@example.com", "tenantPhone": None, "tags": {"segment": "smb"}}
    assert answer.json() == before.json() | changed == (await client.get("/v1/tenants/t1")).json()


async def test_a_change_is_recorded_with_its_time(client: httpx2.AsyncClient, pool: Pool, clock: ManualClock) -> None:
    await register(pool, ask("t1"), clock=clock)
    await clock.advance(3600)

    await patch(client, {"tenantAddress": "Main St 2"})

    assert await pool.fetchval("SELECT updated_at FROM tenant") == clock.now()


async def test_an_empty_change_changes_nothing(client: httpx2.AsyncClient, pool: Pool) -> None:
    await register(pool, ask("t1"))

    answer = await patch(client, {})

    assert (answer.status_code, answer.headers["ETag"]) == (200, '"1"')


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenantName", "Bolt"),
        ("tenantTier", "premium"),
        ("state", "active"),
        ("isActive", True),
        ("products", [NOTES_1]),
        ("expiration", "2030-01-01"),
        ("tenantId", "t2"),
        ("createdAt", "2026-01-01T00:00:00Z"),
        ("apiGatewayUrl", "https://evil.example.com"),
        ("version", 7),
        ("tenantEmail", None),
        ("tenantEmail", "nobody"),
        ("tenantPhone", "call me"),
        ("tenantAddress", ""),
        ("tags", None),
        ("tags", ["smb"]),
        ("attributes", {"crm": 42}),
    ],
)
async def test_a_field_that_cannot_be_changed_so_is_refused_by_its_name(
    client: httpx2.AsyncClient, pool: Pool, field: str, value: Any
) -> None:
    await register(pool, ask("t1"))

    answer = await patch(client, {field: value, "tags": {"a": "b"}} if field != "tags" else {field: value})

    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"].split("/")[1] == field
    assert await pool.fetchval("SELECT version FROM tenant") == 1


async def test_a_change_needs_the_version_that_was_seen(client: httpx2.AsyncClient, pool: Pool) -> None:
    await register(pool, ask("t1"))

    without = await client.patch("/v1/tenants/t1", json={"tags": {}})
    first = await patch(client, {"tags": {"a": "1"}}, '"1"')
    stale = await patch(client, {"tags": {"a": "2"}}, '"1"')

    assert [answer.status_code for answer in (without, first, stale)] == [428, 200, 412]
    assert await pool.fetchval("SELECT tags FROM tenant") == {"a": "1"}


async def test_of_two_changes_of_one_version_at_once_one_is_refused(client: httpx2.AsyncClient, pool: Pool) -> None:
    await register(pool, ask("t1"))

    answers = await asyncio.gather(*(patch(client, {"tags": {"a": str(number)}}, '"1"') for number in range(5)))

    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]


async def test_an_unknown_tenant_cannot_be_changed(client: httpx2.AsyncClient) -> None:
    answer = await patch(client, {"tags": {}})

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_tenant")


async def test_an_archived_tenant_cannot_be_changed(client: httpx2.AsyncClient, pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))
    await archive(pool, "t1")

    answer = await patch(client, {"tags": {"a": "1"}})

    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")


async def test_an_archived_tenant_is_shown_without_anything_personal(client: httpx2.AsyncClient, pool: Pool) -> None:
    await open_for_business(
        pool,
        ask("t1", "Acme", products=[NOTES_1], phone="1", address="Ring 1", tags={"a": "1"}, attributes={"b": "2"}),
    )
    await archive(pool, "t1")

    answer = await client.get("/v1/tenants/t1")

    shown = answer.json()
    assert answer.headers["ETag"] == '"4"'
    assert (shown["tenantName"], shown["state"], shown["isActive"]) == ("Acme", "archived", False)
    assert (shown["tenantEmail"], shown["tenantPhone"], shown["tenantAddress"]) == (None, None, None)
    assert (shown["tags"], shown["attributes"], shown["products"]) == ({}, {}, [])
    assert (await client.get("/v1/tenants", params={"state": "archived"})).json()["items"] == [shown]
    assert (await client.get("/v1/tenant-config", params={"tenantName": "Acme"})).status_code == 404


async def test_anybody_can_work_out_the_digest_of_a_certificate_from_what_is_delivered(
    client: httpx2.AsyncClient, pool: Pool
) -> None:
    await open_for_business(pool, ask("t1", 'Café 東京 🚀 "\\\t\u2028</b>'))
    deletions = (Deletion(service="identity", deleted={"users": 3, "memberships": 4}),)
    (archived,) = await archive(pool, "t1", deletions=deletions, reason="A\nline\x7f é")

    answer = await client.get("/v1/tenants/t1/certificate")

    assert answer.status_code == 200
    canonical = json.dumps(answer.json()["certificate"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert answer.json()["sha256"] == hashlib.sha256(canonical.encode()).hexdigest()
    assert archived == TenantArchived(tenant_id="t1", certificate_sha256=answer.json()["sha256"])


async def test_a_tenant_that_is_not_archived_has_no_certificate(client: httpx2.AsyncClient, pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))

    answer = await client.get("/v1/tenants/t1/certificate")

    assert (answer.status_code, answer.json()["code"]) == (404, "no_certificate")


@pytest.mark.parametrize("path", ["/v1/tenants/t1", "/v1/tenants/t1/certificate"])
async def test_only_an_administrator_is_told_of_a_tenant(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Authorization": ""})

    assert answer.status_code == 401


async def test_routing_facts_are_found_by_the_name_however_it_is_written(
    client: httpx2.AsyncClient, pool: Pool
) -> None:
    await register(pool, ask("t1", "Café Central"))
    await activate(pool, "t1")

    answer = await client.get("/v1/tenant-config", params={"tenantName": " CAFE\u0301  central"})

    assert answer.json() == {
        "tenantId": "t1",
        "tenantName": "Café Central",
        "state": "active",
        "isActive": True,
        "dedicatedTenancy": False,
        "apiGatewayUrl": GATEWAY,
    }


async def test_routing_facts_need_a_name(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/tenant-config")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "query/tenantName"


async def test_tiers_are_listed_from_the_smallest_to_the_largest(client: httpx2.AsyncClient) -> None:
    pages = await every_page(client, "/v1/tiers", limit=2)

    assert [[tier["name"] for tier in tiers] for tiers in pages] == [["free", "standard"], ["premium"]]
    assert pages[0][0].pop("createdAt")
    assert pages[0][0] == {
        "name": "free",
        "rank": 1,
        "plan": "free",
        "quotas": {"api_calls": 10_000, "storage_gb": 1, "seats": 3},
        "isolation": "pool",
        "driver": "postgres",
        "region": None,
        "parameters": {},
        "connections": 2,
        "requestsPerSecond": 10,
        "requestsPerDay": 10_000,
        "isDefault": True,
        "retiredAt": None,
    }


async def test_a_retired_tier_is_still_shown(client: httpx2.AsyncClient, pool: Pool) -> None:
    await pool.execute("UPDATE tier SET retired_at = '2026-11-21T12:00:00Z' WHERE name = 'premium'")

    assert (await client.get("/v1/tiers/premium")).json()["retiredAt"] == "2026-11-21T12:00:00Z"


async def test_products_are_listed_in_pages_with_their_versions(client: httpx2.AsyncClient, pool: Pool) -> None:
    await pool.execute("INSERT INTO product (name, description) VALUES ('chess', 'A game.')")

    pages = await every_page(client, "/v1/products", limit=1)

    assert [[(product["name"], product["versions"]) for product in products] for products in pages] == [
        [("chess", [])],
        [("notes", ["1.0", "2.0"])],
    ]
    assert (await client.get("/v1/products/notes")).json() == pages[1][0]


async def test_versions_are_listed_in_pages_retired_ones_included(client: httpx2.AsyncClient, pool: Pool) -> None:
    await pool.execute("UPDATE product_version SET retired_at = now() WHERE version = '1.0'")

    pages = await every_page(client, "/v1/products/notes/versions", limit=1)

    assert [[(one["version"], one["retiredAt"] is None) for one in versions] for versions in pages] == [
        [("1.0", False)],
        [("2.0", True)],
    ]


async def test_every_route_is_under_the_paths_of_the_service_and_needs_the_key(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    routes = [(method, path) for path, item in document["paths"].items() for method in item if path.startswith("/v1/")]

    assert routes
    for method, path in routes:
        assert path.startswith(PATHS)
        assert (await client.request(method, path, headers={"Authorization": "Bearer wrong"})).status_code == 401
