from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import asyncpg
import httpx2
import pytest

from services.provisioning.api import routes
from services.provisioning.tests.support import Application, ask, bodies, provision
from shared.clock import ManualClock, SystemClock
from shared.http import create_api
from shared.postgres import Pool

KEY = "a-key-of-the-administrator"


@pytest.fixture
async def client(pool: Pool, application: Application) -> AsyncIterator[httpx2.AsyncClient]:
    router = routes(pool, driver=application.driver)
    api = create_api("provisioning", routers=[router], admin_key=KEY, checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


async def test_an_environment_is_shown_with_what_runs_in_it(
    client: httpx2.AsyncClient, pool: Pool, application: Application
) -> None:
    products = [{"name": "tasks", "version": "1.0"}, {"name": "notes", "version": "2.0"}]
    await provision(pool, application.driver, ask("a", products=products), ask("b"), clock=ManualClock())

    (shown,) = (await client.get("/v1/environments", params={"tenantId": "a"})).json()["items"]

    assert shown == {
        "environmentId": str(await pool.fetchval("SELECT environment_id FROM environment WHERE tenant_id = 'a'")),
        "tenantId": "a",
        "isolation": "pool",
        "region": "local",
        "status": "ready",
        "products": [{"name": "notes", "version": "2.0"}, {"name": "tasks", "version": "1.0"}],
        "createdAt": "2026-01-01T00:00:00Z",
    }


async def test_all_environments_are_listed_in_pages(
    client: httpx2.AsyncClient, pool: Pool, application: Application
) -> None:
    for tenant_id in ("t2", "t1", "t3"):
        await provision(pool, application.driver, ask(tenant_id))

    first = (await client.get("/v1/environments", params={"limit": 2})).json()
    rest = (await client.get("/v1/environments", params={"cursor": first["nextCursor"]})).json()

    assert [item["tenantId"] for item in (*first["items"], *rest["items"])] == ["t2", "t1", "t3"]
    assert rest["nextCursor"] is None


async def test_credentials_open_the_tenants_environment_and_are_not_to_be_kept(
    client: httpx2.AsyncClient, pool: Pool, application: Application
) -> None:
    await provision(pool, application.driver, ask("a"), ask("b"))
    await application.tenants("b")

    answer = await client.post("/v1/credentials", json={"tenantId": "a"})

    given = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert given["driver"] == "postgres"
    assert datetime.fromisoformat(given["expiresAt"]) - SystemClock().now() < timedelta(minutes=15)
    for session in (
        await asyncpg.connect(given["url"]),
        await asyncpg.connect(
            host=given["host"],
            port=given["port"],
            database=given["database"],
            user=given["username"],
            password=given["password"],
        ),
    ):
        await session.execute("INSERT INTO note (body) VALUES ('hello')")
        assert set(await bodies(session)) == {"hello"}
        await session.close()


async def test_a_tenant_without_an_environment_gets_no_credentials(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/credentials", json={"tenantId": "a"})

    assert answer.status_code == 404
    assert answer.json()["code"] == "unknown_environment"


async def test_an_environment_that_is_not_committed_gets_no_credentials(
    client: httpx2.AsyncClient, application: Application
) -> None:
    await application.driver.provision(["a"])

    assert (await client.post("/v1/credentials", json={"tenantId": "a"})).status_code == 404


async def test_an_environment_that_is_removed_at_that_moment_gets_no_credentials(
    client: httpx2.AsyncClient, pool: Pool, application: Application
) -> None:
    await provision(pool, application.driver, ask("a"))
    await application.driver.deprovision(["a"])

    assert (await client.post("/v1/credentials", json={"tenantId": "a"})).status_code == 404


@pytest.mark.parametrize("body", [{}, {"tenantId": "a b"}, {"tenantId": None}, {"tenantId": "a", "role": "owner"}])
async def test_a_malformed_request_for_credentials_is_refused(client: httpx2.AsyncClient, body: object) -> None:
    answer = await client.post("/v1/credentials", json=body)

    assert answer.status_code == 422
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    ("query", "name"),
    [({"tenantId": "no tenant"}, "tenantId"), ({"limit": "0"}, "limit"), ({"cursor": "made-up"}, "cursor")],
)
async def test_a_malformed_query_is_refused_by_name(
    client: httpx2.AsyncClient, query: dict[str, str], name: str
) -> None:
    answer = await client.get("/v1/environments", params=query)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/environments"), ("POST", "/v1/credentials")])
async def test_nothing_is_given_without_the_administrators_key(
    client: httpx2.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, path, headers={"Authorization": "Bearer another"}, json={"tenantId": "a"})

    assert answer.status_code == 401
