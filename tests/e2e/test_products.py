"""Products with licences and environments of their own: taken, changed, changed in vain, and gone with their tenant."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from shared.postgres import Connection
from shared.testing import eventually
from tests.e2e.test_lifecycles import Picture, everywhere, picture
from tests.system import System, Workflow

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session")]

CATALOG: Mapping[str, Mapping[str, Any]] = {
    "board": {},
    "chat": {"plan": "standard", "isolation": "bridge"},
    "vault": {"plan": "premium", "isolation": "silo"},
    "sketch": {"plan": "free", "isolation": "pool"},
    "rover": {"isolation": "pool", "region": "mars"},
    "relic": {"isolation": "silo", "driver": "no-longer-there"},
    "crown": {"plan": "priceless", "isolation": "pool"},
}
"""What the products of these tests mean; the last three cannot be had."""

VERSIONS = ("1.0", "2.0")
Environments = Mapping[str | None, tuple[str, Mapping[str, str]]]
"""The isolation of each environment, and what runs there, by the product whose own it is, None for the tenant's."""


def products(*wanted: str) -> list[dict[str, str]]:
    """Return products as they are ordered, from their names and versions."""
    return [dict(zip(("name", "version"), each.split(), strict=True)) for each in wanted]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def catalog(system: System) -> None:
    """The products are there, and onboarding knows of them."""
    for name, meaning in CATALOG.items():
        await done(system.client.post("/v1/products", json={"name": name, "description": f"{name}.", **meaning}))
        for version in VERSIONS:
            await done(system.client.post(f"/v1/products/{name}/versions", json={"version": version}))
    body = {"customerName": "Knows the catalog", "adminEmails": ["ada@tenants.example"], "tier": "imaginary"}

    async def are_known() -> bool:
        wanted = products(*(f"{name} {version}" for name in CATALOG for version in VERSIONS[:1]))
        refused = await system.client.post("/v1/onboardings", json={**body, "products": wanted})
        return [error["pointer"] for error in refused.json()["errors"]] == ["/tier"]

    await eventually(are_known, describe="onboarding knows the products")


async def done(answer: Any) -> None:
    found: httpx2.Response = await answer
    assert found.status_code in {200, 201}, found.text


async def tenant_with(system: System, customer_name: str, *wanted: str) -> str:
    """Onboard a customer with products, on the tier whose environment is a pool and whose plan costs nothing."""
    accepted = await system.onboard(customer_name, tier="free", products=products(*wanted))
    workflow = await system.finished(accepted)
    assert workflow["status"] == "completed", workflow["failure"]
    tenant_id: str = workflow["tenantId"]

    async def is_settled() -> bool:  # billing hears of the activation by itself, and mails go out after the workflow
        invitations = await system.items("/v1/invitations", tenantId=tenant_id)
        is_charged = set((await licences(system, tenant_id)).values()) == {"active"}
        return is_charged and {each["delivery"] for each in invitations} == {"sent"}

    await eventually(is_settled)
    return tenant_id


async def change(system: System, tenant_id: str, *wanted: str) -> Workflow:
    """Change the products of a tenant, and return how that has ended."""
    accepted = await system.order("/v1/product-changes", tenantId=tenant_id, products=products(*wanted))
    return await system.finished(accepted)


async def environments(system: System, tenant_id: str) -> Environments:
    found = await system.items("/v1/environments", tenantId=tenant_id)
    assert {(each["tenantId"], each["status"]) for each in found} == {(tenant_id, "ready")}
    assert len({each["product"] for each in found}) == len(found)
    return {
        each["product"]: (each["isolation"], {one["name"]: one["version"] for one in each["products"]})
        for each in found
    }


async def licences(system: System, tenant_id: str) -> Mapping[tuple[str | None, str], str]:
    """Return the status of each subscription that was not ended, by product, None for the account's, and plan."""
    found = await system.items("/v1/subscriptions", tenantId=tenant_id)
    return {(each["product"], each["plan"]): each["status"] for each in found if each["status"] != "ended"}


async def opened(system: System, tenant_id: str, product: str | None) -> Connection:
    """Open a session in an environment."""
    answer = await system.client.post("/v1/credentials", json={"tenantId": tenant_id, "product": product})
    assert answer.status_code == httpx2.codes.CREATED, answer.text
    connection: Connection = await asyncpg.connect(answer.json()["url"], timeout=10)
    return connection


async def note(system: System, tenant_id: str, *apart: str | None) -> None:
    """Write a note into each of these environments."""
    for product in apart:
        session = await opened(system, tenant_id, product)
        await session.execute("INSERT INTO note (body) VALUES ($1)", f"of {product}")
        await session.close()


async def notes(system: System, tenant_id: str, product: str | None) -> Sequence[str]:
    session = await opened(system, tenant_id, product)
    rows = await session.fetch("SELECT body FROM note")
    await session.close()
    return [row["body"] for row in rows]


async def refusal(system: System, tenant_id: str, product: str | None) -> str:
    """Return why no session can be opened in an environment."""
    answer = await system.client.post("/v1/credentials", json={"tenantId": tenant_id, "product": product})
    code: str = answer.json()["code"]
    return code


async def without_findings(system: System) -> bool:
    return (await system.audit()).findings == ()


THREE = ("board 1.0", "chat 1.0", "vault 1.0")
"""One beside others, one with a schema and a plan of its own, one with a database and a plan of its own."""


@pytest.mark.usefixtures("catalog")
async def test_each_product_has_the_licence_and_the_environment_that_the_catalog_gives_it(system: System) -> None:
    tenant_id = await tenant_with(system, "Takes three", *THREE)

    assert await environments(system, tenant_id) == {
        None: ("pool", {"board": "1.0"}),
        "chat": ("bridge", {"chat": "1.0"}),
        "vault": ("silo", {"vault": "1.0"}),
    }
    assert await licences(system, tenant_id) == {
        (None, "free"): "active",
        ("chat", "standard"): "active",
        ("vault", "premium"): "active",
    }
    await note(system, tenant_id, None, "chat", "vault")
    for product in (None, "chat", "vault"):
        assert await notes(system, tenant_id, product) == [f"of {product}"]
    assert (await system.audit()).findings == ()


@pytest.mark.usefixtures("catalog")
async def test_a_product_that_is_dropped_leaves_nothing_and_one_that_stays_keeps_what_it_has(system: System) -> None:
    tenant_id = await tenant_with(system, "Changes three", *THREE)
    await note(system, tenant_id, None, "chat", "vault")

    changed = await change(system, tenant_id, "board 1.0", "sketch 1.0", "vault 2.0")

    assert changed["status"] == "completed", changed["failure"]
    assert await environments(system, tenant_id) == {
        None: ("pool", {"board": "1.0"}),
        "sketch": ("pool", {"sketch": "1.0"}),
        "vault": ("silo", {"vault": "2.0"}),
    }
    assert await licences(system, tenant_id) == {
        (None, "free"): "active",
        ("sketch", "free"): "active",
        ("vault", "premium"): "active",
    }
    assert [await notes(system, tenant_id, each) for each in (None, "sketch", "vault")] == [
        ["of None"],
        [],
        ["of vault"],
    ]
    assert await refusal(system, tenant_id, "chat") == "unknown_environment"
    left = await everywhere(system, tenant_id)
    assert [place for places in left.values() for place in places if place.endswith(":chat")] == []
    assert (await system.audit()).findings == ()

    again = await change(system, tenant_id, "chat 1.0")

    assert again["status"] == "completed", again["failure"]
    assert await environments(system, tenant_id) == {None: ("pool", {}), "chat": ("bridge", {"chat": "1.0"})}
    assert await notes(system, tenant_id, "chat") == []
    assert (await system.audit()).findings == ()


async def shown(system: System, tenant_id: str) -> Picture:
    """Return all that six services show of a tenant, but for subscriptions that were ended."""
    found = await picture(system, tenant_id)
    return {**found, "subscriptions": [each for each in found["subscriptions"] if each["status"] != "ended"]}


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize(
    ("impossible", "step", "code"),
    [
        ("rover 1.0", "deploy-products", "unknown_region"),
        ("relic 1.0", "deploy-products", "unknown_driver"),
        ("crown 1.0", "change-licences", "unknown_plan"),
    ],
)
async def test_a_change_that_somebody_refuses_leaves_every_product_as_it_was(
    system: System, impossible: str, step: str, code: str
) -> None:
    tenant_id = await tenant_with(system, f"Changes in vain to {impossible}", *THREE)
    await note(system, tenant_id, None, "chat", "vault")
    before = await shown(system, tenant_id)

    changed = await change(system, tenant_id, "vault 2.0", "sketch 1.0", impossible)

    assert (changed["status"], changed["failure"]["step"], changed["failure"]["code"]) == ("compensated", step, code)
    assert await shown(system, tenant_id) == before
    for product in (None, "chat", "vault"):
        assert await notes(system, tenant_id, product) == [f"of {product}"]
    assert await refusal(system, tenant_id, "sketch") == "unknown_environment"
    assert (await system.audit()).findings == ()


@pytest.mark.usefixtures("catalog")
async def test_an_onboarding_with_a_product_that_cannot_be_had_leaves_nothing(system: System) -> None:
    wanted = products(*THREE, "rover 1.0")

    undone = await system.finished(await system.onboard("Wants too much", tier="free", products=wanted))

    assert (undone["status"], undone["failure"]["code"]) == ("compensated", "unknown_region")
    assert await everywhere(system, undone["tenantId"]) == {}
    assert (await system.audit()).findings == ()


@pytest.mark.usefixtures("catalog")
async def test_an_account_is_updated_with_the_licences_and_environments_of_its_products(system: System) -> None:
    tenant_id = await tenant_with(system, "Updates three", *THREE)
    body = {
        "accountId": tenant_id,
        "customerName": "Updates three",
        "expiration": "2099-01-31",
        "products": products("chat 2.0", "sketch 1.0"),
        "adminEmails": ["ada@tenants.example"],
    }

    updated = await system.finished((await system.client.put("/v1/accounts", json=body)).json())

    assert updated["status"] == "completed", updated["failure"]
    assert await environments(system, tenant_id) == {
        None: ("pool", {}),
        "chat": ("bridge", {"chat": "2.0"}),
        "sketch": ("pool", {"sketch": "1.0"}),
    }
    assert set(await licences(system, tenant_id)) == {(None, "free"), ("chat", "standard"), ("sketch", "free")}
    assert (await system.audit()).findings == ()


@pytest.mark.usefixtures("catalog")
async def test_a_suspension_closes_every_product_and_charges_for_none(system: System) -> None:
    tenant_id = await tenant_with(system, "Pauses three", *THREE)
    await note(system, tenant_id, None, "chat", "vault")

    await system.finished(await system.order("/v1/suspensions", tenantId=tenant_id))

    assert {await refusal(system, tenant_id, each) for each in (None, "chat", "vault")} == {"environment_throttled"}
    assert set((await licences(system, tenant_id)).values()) == {"paused"}
    await eventually(lambda: without_findings(system))

    await system.finished(await system.order("/v1/reactivations", tenantId=tenant_id))

    for product in (None, "chat", "vault"):
        assert await notes(system, tenant_id, product) == [f"of {product}"]
    assert set((await licences(system, tenant_id)).values()) == {"active"}
    assert (await system.audit()).findings == ()


@pytest.mark.usefixtures("catalog")
async def test_a_tenant_takes_its_products_with_it(system: System) -> None:
    tenant_id = await tenant_with(system, "Leaves with three", *THREE)
    await note(system, tenant_id, None, "chat", "vault")

    workflow = await system.finished(await system.order("/v1/offboardings", tenantId=tenant_id, graceDays=0))

    assert workflow["status"] == "completed", workflow["failure"]
    assert await everywhere(system, tenant_id) == {}
    found = (await system.client.get(f"/v1/tenants/{tenant_id}/certificate")).json()["certificate"]
    deleted = {each["service"]: each["deleted"] for each in found["deletions"]}
    assert deleted["provisioning"]["environments"] == len(THREE)
    assert deleted["billing"] == {"accounts": 1, "subscriptions": len(THREE)}
    invoice = (await system.client.get(f"/v1/invoices/{found['invoiceId']}")).json()
    assert invoice["state"] == "final"
    assert (await system.audit()).findings == ()


@pytest.mark.usefixtures("catalog")
async def test_what_the_catalog_says_later_changes_nothing_for_a_tenant_that_has_the_product(system: System) -> None:
    tenant_id = await tenant_with(system, "Keeps its terms", "chat 1.0")
    shown = await system.client.get("/v1/products/chat")
    etag = shown.headers["ETag"]
    body = {"plan": "premium", "isolation": "silo"}
    changed = await system.client.patch("/v1/products/chat", json=body, headers={"If-Match": etag})
    latest = changed.headers["ETag"]
    try:
        other = await change(system, tenant_id, "chat 2.0", "board 1.0")

        assert other["status"] == "completed", other["failure"]
        assert await environments(system, tenant_id) == {
            None: ("pool", {"board": "1.0"}),
            "chat": ("bridge", {"chat": "2.0"}),
        }
        assert set(await licences(system, tenant_id)) == {(None, "free"), ("chat", "standard")}
    finally:
        await system.client.patch("/v1/products/chat", json=CATALOG["chat"], headers={"If-Match": latest})
    assert (await system.audit()).findings == ()
