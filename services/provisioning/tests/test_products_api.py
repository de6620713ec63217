"""Products with environments of their own, in Postgres, as people see and use them."""

import gzip
from typing import Any

import asyncpg
import httpx2
import orjson
import pytest

from services.provisioning.drivers import tenancy_of
from services.provisioning.tests.support import ask
from services.provisioning.tests.world import PostgresWorld
from shared.contracts.provisioning import DataExported, DeployProducts, ExportData, RemoveProducts
from shared.contracts.tenant import PlacedProduct
from shared.testing.three_services import asked

TASKS = PlacedProduct(name="tasks", version="1")
CRM = PlacedProduct(name="crm", version="2", isolation="bridge")
SHOP = PlacedProduct(name="shop", version="3", isolation="silo")


@pytest.fixture(autouse=True)
async def tenants(world: PostgresWorld) -> None:
    """A tenant with a product beside others, one in a bridge and one in a silo; its neighbour has one bridge."""
    await world.do(ask("a", products=[TASKS, CRM, SHOP]), ask("b", products=[CRM]))


async def items(client: httpx2.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def credentials(client: httpx2.AsyncClient, product: str | None) -> httpx2.Response:
    return await client.post("/v1/credentials", json={"tenantId": "a", "product": product})


async def written(client: httpx2.AsyncClient, product: str | None, body: str) -> list[str]:
    """Write a note with new credentials, and return all that they see."""
    session = await asyncpg.connect((await credentials(client, product)).json()["url"])
    try:
        await session.execute("INSERT INTO note (body) VALUES ($1)", body)
        return [row["body"] for row in await session.fetch("SELECT body FROM note ORDER BY body")]
    finally:
        await session.close()


async def test_environments_are_listed_by_the_tenant_whose_they_are(client: httpx2.AsyncClient) -> None:
    shown = await items(client, "/v1/environments", tenantId="a")

    assert {(each["tenantId"], each["product"], each["isolation"], each["status"]) for each in shown} == {
        ("a", None, "pool", "ready"),
        ("a", "crm", "bridge", "ready"),
        ("a", "shop", "silo", "ready"),
    }
    assert len(await items(client, "/v1/environments")) == 5


async def test_a_products_environment_is_inspected_where_it_is(client: httpx2.AsyncClient) -> None:
    (shop,) = [each for each in await items(client, "/v1/environments", tenantId="a") if each["product"] == "shop"]

    seen = (await client.get(f"/v1/environments/{shop['environmentId']}/inspection")).json()

    assert (seen["tenantId"], seen["product"], seen["exists"], seen["isolation"]) == ("a", "shop", True, "silo")


async def test_deployments_say_which_version_runs_where(client: httpx2.AsyncClient) -> None:
    environments = {
        each["product"]: each["environmentId"] for each in await items(client, "/v1/environments", tenantId="a")
    }

    shown = await items(client, "/v1/deployments", tenantId="a")

    assert sorted(shown, key=lambda each: str(each["product"])) == [
        _deployment("crm", "2", environments["crm"], own=True),
        _deployment("shop", "3", environments["shop"], own=True),
        _deployment("tasks", "1", environments[None], own=False),
    ]


def _deployment(product: str, version: str, environment_id: str, *, own: bool) -> dict[str, Any]:
    return {
        "tenantId": "a",
        "product": product,
        "version": version,
        "environmentId": environment_id,
        "ownEnvironment": own,
    }


async def test_deployments_are_listed_in_pages(client: httpx2.AsyncClient) -> None:
    first = (await client.get("/v1/deployments", params={"limit": 3})).json()
    rest = (await client.get("/v1/deployments", params={"cursor": first["nextCursor"]})).json()

    found = [(each["tenantId"], each["product"]) for each in (*first["items"], *rest["items"])]
    assert sorted(found) == [("a", "crm"), ("a", "shop"), ("a", "tasks"), ("b", "crm")]
    assert rest["nextCursor"] is None


async def test_credentials_for_a_product_open_its_own_environment_alone(client: httpx2.AsyncClient) -> None:
    assert await written(client, None, "own") == ["own"]
    assert await written(client, "crm", "of the crm") == ["of the crm"]
    assert await written(client, "shop", "of the shop") == ["of the shop"]
    assert await written(client, None, "own again") == ["own", "own again"]


async def test_there_are_none_for_a_product_without_an_environment_of_its_own(client: httpx2.AsyncClient) -> None:
    answer = await credentials(client, "tasks")

    assert answer.status_code == 404
    assert answer.json()["code"] == "unknown_environment"
    assert answer.json()["detail"] == "There is no environment of tenant a for tasks."


async def test_what_is_no_name_of_a_product_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await credentials(client, "a:b")

    assert [each["pointer"] for each in answer.json()["errors"]] == ["/product"]


async def test_credentials_of_a_product_that_was_dropped_end(client: httpx2.AsyncClient, world: PostgresWorld) -> None:
    await world.do(DeployProducts(tenant_id="a", products=(TASKS, SHOP)))

    answer = await credentials(client, "crm")

    assert (answer.status_code, answer.json()["code"]) == (409, "environment_throttled")
    assert "the product no more" in answer.json()["detail"]


async def test_an_export_holds_what_is_in_all_environments_and_says_which_product_it_is_of(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    for product in (None, "crm", "shop"):
        await written(client, product, f"of {product}")

    (fact,) = await world.handle(asked(ExportData(tenant_id="a")))

    assert isinstance(fact, DataExported)
    assert fact.rows == {"app.note": 1, "crm:app.note": 1, "shop:app.note": 1}
    content = (await client.get(f"/v1/exports/{fact.export_id}")).content
    lines = [orjson.loads(line) for line in gzip.decompress(content).splitlines()]
    assert [line.get("product") or line["row"]["body"] for line in lines] == [
        "of None",
        "crm",
        "of crm",
        "shop",
        "of shop",
    ]


async def test_of_products_that_are_gone_nothing_is_left_in_postgres(world: PostgresWorld) -> None:
    await world.do(DeployProducts(tenant_id="a", products=(TASKS,)))
    await world.do(RemoveProducts(tenant_id="a", products=("tasks",)))

    for isolation, product in (("bridge", "crm"), ("silo", "shop")):
        (found,) = await world.driver.inspect(
            [world.application.environment(tenancy_of("a", product), isolation, product=product)]
        )
        assert not found.exists
    assert {tenant_id for tenant_id, _ in await world.application.residue()} == {"a", "b"}
    (neighbour,) = await world.driver.inspect(
        [world.application.environment(tenancy_of("b", "crm"), "bridge", product="crm")]
    )
    assert neighbour.exists
