"""What a tenant was given of a product stays with it for as long as it has it, whatever becomes of the catalog."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from services.tenant.tests.catalogue import Office
from services.tenant.tests.support import archive, ask, deliver, open_for_business, register
from shared.contracts import Message
from shared.contracts.tenant import (
    ChangeProducts,
    ChangeTier,
    LicensedProduct,
    LiftSuspension,
    ProductsChanged,
    RestoreProducts,
    RestoreTenant,
    SuspendTenant,
    TenantRegistered,
    TenantUpdated,
    UpdateTenant,
)
from shared.postgres import Pool

CHANGE: Mapping[str, Any] = {
    "plan": "premium",
    "isolation": "silo",
    "driver": "script",
    "region": "eu-west-1",
    "parameters": {"size": "large", "zones": [1, 2]},
}
"""What makes another product of any."""

NOTES_1, NOTES_2 = {"name": "notes", "version": "1.0"}, {"name": "notes", "version": "2.0"}
CHESS = {"name": "chess", "version": "1.0"}


def licensed(product: Mapping[str, str], **meaning: Any) -> LicensedProduct:
    return LicensedProduct.model_validate(dict(product) | meaning)


def product_change(*products: Mapping[str, str]) -> ChangeProducts:
    return ChangeProducts.model_validate({"tenant_id": "t1", "products": products})


def update(*products: Mapping[str, str]) -> UpdateTenant:
    details = {"customer_name": "Acme", "expiration": "2031-12-31", "products": products}
    return UpdateTenant.model_validate({"tenant_id": "t1"} | details)


async def changed(office: Office, product: str = "notes", **change: Any) -> None:
    answer = await office.patch(f"/v1/products/{product}", change or CHANGE)
    assert answer.status_code == 200, answer.text


async def add_chess(office: Office, **meaning: Any) -> None:
    """Offer another product, with a licence of its own."""
    details = {"name": "chess", "description": "A game.", "plan": "standard"}
    assert (await office.post("/v1/products", details | meaning)).status_code == 201
    assert (await office.post("/v1/products/chess/versions", {"version": "1.0"})).status_code == 201


async def meanings(pool: Pool) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return the version and the meaning of each product that the tenant has."""
    rows = await pool.fetch("SELECT product, version, meaning FROM tenant_product WHERE tenant_id = 't1'")
    return {row["product"]: (row["version"], row["meaning"]) for row in rows}


async def facts(pool: Pool) -> dict[str, str]:
    """Return what the residue audit compares with billing and provisioning."""
    rows = await pool.fetch("SELECT fact, value FROM audited_fact WHERE tenant_id = 't1' AND strpos(fact, ':') > 0")
    return {row["fact"]: row["value"] for row in rows}


def told(message: Message) -> Sequence[LicensedProduct]:
    assert isinstance(message, TenantRegistered | ProductsChanged | TenantUpdated)
    assert message.products is not None
    return message.products


async def test_a_registration_tells_what_its_products_mean_in_the_order_of_their_names(
    office: Office, pool: Pool
) -> None:
    await add_chess(office)
    await changed(office)

    (fact, other) = await register(pool, ask("t1", products=[NOTES_2, CHESS]), ask("t2", products=[NOTES_1]))

    assert told(fact) == (licensed(CHESS, plan="standard"), licensed(NOTES_2, **CHANGE))
    assert told(other) == (licensed(NOTES_1, **CHANGE),)
    assert await facts(pool) == {
        "licence:chess": "standard",
        "licence:notes": "premium",
        "environment:notes": "silo",
    }


@pytest.mark.parametrize("change", [product_change, update])
async def test_a_change_tells_what_the_products_mean_to_the_tenant(office: Office, pool: Pool, change: Any) -> None:
    await open_for_business(pool, ask("t1", products=[NOTES_1]))
    await changed(office)
    await add_chess(office)

    (fact,) = await deliver(pool, change(NOTES_1, CHESS))

    assert told(fact) == (licensed(CHESS, plan="standard"), licensed(NOTES_1))
    assert await facts(pool) == {"licence:chess": "standard"}


async def test_nothing_of_a_running_tenant_changes_with_the_catalog(office: Office, pool: Pool) -> None:
    await open_for_business(pool, ask("t1", products=[NOTES_1]))
    before = await meanings(pool)

    await changed(office)
    await deliver(pool, ChangeTier(tenant_id="t1", tier="premium"), workflow="another tier")
    await deliver(pool, SuspendTenant(tenant_id="t1"), LiftSuspension(tenant_id="t1"), workflow="in vain")

    assert await meanings(pool) == before
    assert await facts(pool) == {}
    assert before == {"notes": ("1.0", licensed(NOTES_1).model_dump(exclude={"name", "version"}))}


async def test_a_product_goes_on_to_mean_the_same_in_another_version(office: Office, pool: Pool) -> None:
    await changed(office)
    await open_for_business(pool, ask("t1", products=[NOTES_1]))
    await changed(office, plan=None, isolation="bridge")

    (fact,) = await deliver(pool, product_change(NOTES_2))

    assert told(fact) == (licensed(NOTES_2, **CHANGE),)
    assert await meanings(pool) == {"notes": ("2.0", CHANGE)}


async def test_a_product_that_is_taken_anew_means_what_it_means_then(office: Office, pool: Pool) -> None:
    await open_for_business(pool, ask("t1", products=[NOTES_1]))
    await changed(office)

    await deliver(pool, product_change(), workflow="dropped")
    (fact,) = await deliver(pool, product_change(NOTES_1), workflow="taken again")

    assert told(fact) == (licensed(NOTES_1, **CHANGE),)
    assert await meanings(pool) == {"notes": ("1.0", CHANGE)}


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (product_change(), RestoreProducts(tenant_id="t1")),
        (product_change(NOTES_2, CHESS), RestoreProducts(tenant_id="t1")),
        (update(CHESS), RestoreTenant(tenant_id="t1")),
    ],
)
async def test_an_undo_brings_back_what_was_found(
    office: Office, pool: Pool, change: ChangeProducts | UpdateTenant, undo: RestoreProducts | RestoreTenant
) -> None:
    await add_chess(office)
    await open_for_business(pool, ask("t1", "Acme", products=[NOTES_1]))
    before = await meanings(pool)
    await changed(office)

    await deliver(pool, change)
    await changed(office, region=None, plan="standard")
    await office.post("/v1/products/notes/retire")
    await deliver(pool, undo)

    assert await meanings(pool) == before


async def test_an_undo_leaves_alone_what_was_taken_anew_since(office: Office, pool: Pool) -> None:
    await open_for_business(pool, ask("t1", products=[NOTES_1]))
    await deliver(pool, product_change(NOTES_2))
    await changed(office)
    await deliver(pool, product_change(), workflow="dropped")
    await deliver(pool, product_change(NOTES_2), workflow="taken again")

    await deliver(pool, RestoreProducts(tenant_id="t1"))

    assert await meanings(pool) == {"notes": ("2.0", CHANGE)}


async def test_a_retired_product_is_kept_with_what_it_meant(office: Office, pool: Pool) -> None:
    await changed(office)
    await open_for_business(pool, ask("t1", products=[NOTES_1]))
    await changed(office, plan="free")
    await office.post("/v1/products/notes/retire")
    await add_chess(office)

    (fact,) = await deliver(pool, product_change(NOTES_1, CHESS))

    assert told(fact) == (licensed(CHESS, plan="standard"), licensed(NOTES_1, **CHANGE))


async def test_what_the_release_before_has_changed_is_taken_back_by_this_one(office: Office, pool: Pool) -> None:
    """Its before-images know of no meanings: what is kept keeps its own, what comes back means what it means now."""
    await add_chess(office)
    await open_for_business(pool, ask("t1", products=[NOTES_1, CHESS]))
    await deliver(pool, product_change(NOTES_2))
    await pool.execute(
        "UPDATE operation SET before = before #- '{found,product_meanings}' #- '{changed_to,product_meanings}'"
        " WHERE before IS NOT NULL"
    )
    await changed(office)
    await changed(office, "chess", plan="free")

    await deliver(pool, RestoreProducts(tenant_id="t1"))

    rest = licensed(NOTES_1).model_dump(exclude={"name", "version"})
    assert await meanings(pool) == {"notes": ("1.0", rest), "chess": ("1.0", rest | {"plan": "free"})}


async def test_of_an_archived_tenant_no_product_is_stated(office: Office, pool: Pool) -> None:
    await add_chess(office)
    await open_for_business(pool, ask("t1", products=[CHESS]))
    assert await facts(pool) == {"licence:chess": "standard"}

    await archive(pool, "t1")

    assert await facts(pool) == {}
