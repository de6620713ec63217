import asyncio
from typing import Any

import pytest

from services.tenant import handlers
from services.tenant.announcement import published_catalog
from services.tenant.tests.support import (
    activate,
    archive,
    are_waiting,
    ask,
    deactivate,
    deregister,
    open_for_business,
    register,
    statements,
)
from shared.access import replica
from shared.clock import ManualClock
from shared.contracts import CATALOGUE, Ask
from shared.contracts.tenant import (
    CatalogProduct,
    CatalogPublished,
    DeregisterTenant,
    TenantActivated,
    TenantActivationRefused,
    TenantDeactivated,
    TenantDeregistered,
    TenantRegistered,
    TenantRegistrationRefused,
    UsagePlan,
)
from shared.postgres import Pool, transaction
from shared.testing import eventually

NOTES_1 = {"name": "notes", "version": "1.0"}
NOTES_2 = {"name": "notes", "version": "2.0"}


async def names(pool: Pool) -> dict[str, str]:
    rows = await pool.fetch("SELECT tenant_id, customer_name FROM tenant")
    return {row["tenant_id"]: row["customer_name"] for row in rows}


async def states(pool: Pool) -> dict[str, str]:
    return {row["tenant_id"]: row["state"] for row in await pool.fetch("SELECT tenant_id, state FROM tenant")}


def codes(facts: Any) -> list[str | None]:
    return [fact.code if isinstance(fact, TenantRegistrationRefused) else None for fact in facts]


async def test_a_registration_tells_what_the_tier_means_to_the_other_services(pool: Pool) -> None:
    facts = await register(pool, ask("t1", tier="standard"))

    assert facts == [
        TenantRegistered(
            tenant_id="t1",
            plan="standard",
            quotas={"api_calls": 100_000, "storage_gb": 10, "seats": 25},
            isolation="bridge",
            connections=10,
            usage_plan=UsagePlan(tier="standard", version=1, requests_per_second=50, requests_per_day=200_000),
            products=(),
        )
    ]


async def test_everything_that_was_asked_for_is_on_record(pool: Pool) -> None:
    clock = ManualClock()

    await register(
        pool,
        ask(
            "t1",
            "  Café 東京 ",
            products=[NOTES_1],
            phone="+49 30 1234",
            address="Ring 1\nBerlin",
            region="eu",
            expiration="2027-01-31",
            tags={"segment": "smb"},
            attributes={"crm": "42"},
        ),
        clock=clock,
    )

    row = await pool.fetchrow("SELECT * FROM tenant")
    assert row is not None
    assert (row["customer_name"], row["name_key"], row["tier"]) == ("  Café 東京 ", "café 東京", "free")
    assert (row["state"], row["version"], row["created_at"]) == ("registered", 1, clock.now())
    assert (row["phone"], row["address"], row["region"]) == ("+49 30 1234", "Ring 1\nBerlin", "eu")
    assert (row["expiration"].isoformat(), row["tags"], row["attributes"]) == (
        "2027-01-31",
        {"segment": "smb"},
        {"crm": "42"},
    )
    (taken,) = await pool.fetch("SELECT tenant_id, product, version FROM tenant_product")
    assert tuple(taken) == ("t1", "notes", "1.0")


@pytest.mark.parametrize(
    ("details", "code"),
    [
        ({"tier": "gold"}, "unknown_tier"),
        ({"tier": "Free"}, "unknown_tier"),
        ({"products": [{"name": "chess", "version": "1.0"}]}, "unknown_product"),
        ({"products": [NOTES_1, {"name": "notes", "version": "3.0"}]}, "unknown_product"),
        ({"products": [NOTES_1, NOTES_2]}, "duplicate_product"),
        ({"products": [NOTES_1, NOTES_1]}, "duplicate_product"),
    ],
)
async def test_what_the_catalog_does_not_offer_is_refused(pool: Pool, details: dict[str, Any], code: str) -> None:
    facts = await register(pool, ask("t1", **details))

    assert codes(facts) == [code]
    assert await names(pool) == {}


@pytest.mark.parametrize(
    ("retire", "code"),
    [
        ("UPDATE tier SET retired_at = now() WHERE name = 'standard'", "unknown_tier"),
        ("UPDATE product SET retired_at = now()", "unknown_product"),
        ("UPDATE product_version SET retired_at = now() WHERE version = '1.0'", "unknown_product"),
    ],
)
async def test_what_was_retired_can_no_longer_be_taken(pool: Pool, retire: str, code: str) -> None:
    await pool.execute(retire)

    assert codes(await register(pool, ask("t1", tier="standard", products=[NOTES_1]))) == [code]


@pytest.mark.parametrize(
    "same",
    ["acme café", "ACME CAFÉ", "Acme Cafe\u0301", "\uff21cme Café", "  Acme   Café  "],
    ids=["lower case", "upper case", "decomposed accent", "full width", "spaces"],
)
async def test_a_second_registration_under_the_same_name_is_refused(pool: Pool, same: str) -> None:
    await register(pool, ask("t1", "Acme Café"))

    facts = await register(pool, ask("t2", same))

    assert facts == [
        TenantRegistrationRefused(
            tenant_id="t2", code="name_taken", detail=f"A tenant named {same!r} is already registered."
        )
    ]
    assert await names(pool) == {"t1": "Acme Café"}


async def test_names_that_differ_in_an_accent_are_two_names(pool: Pool) -> None:
    assert codes(await register(pool, ask("t1", "Muller"), ask("t2", "Müller"))) == [None, None]


async def test_of_two_asks_for_one_name_in_a_batch_the_first_gets_it(pool: Pool) -> None:
    facts = await register(pool, ask("t1", "Zeta"), ask("t2", "Acme"), ask("t3", "ACME"), ask("t4", "acme"))

    assert codes(facts) == [None, None, "name_taken", "name_taken"]
    assert await names(pool) == {"t1": "Zeta", "t2": "Acme"}


async def test_an_ask_that_is_refused_does_not_keep_its_name_from_the_next(pool: Pool) -> None:
    facts = await register(pool, ask("t1", "Acme", tier="gold"), ask("t2", "Acme"))

    assert codes(facts) == ["unknown_tier", None]


async def test_a_tenant_that_is_asked_for_twice_in_a_batch_is_what_was_asked_first(pool: Pool) -> None:
    facts = await register(pool, ask("t1", "Zeta", products=[NOTES_1]), ask("t1", "Acme", products=[NOTES_2]))

    assert codes(facts) == [None, "name_taken"]
    assert await names(pool) == {"t1": "Zeta"}
    assert await pool.fetchval("SELECT version FROM tenant_product") == "1.0"


async def test_the_name_of_an_archived_tenant_can_be_taken_again(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", "Acme"))
    await archive(pool, "t1")

    assert codes(await register(pool, ask("t2", "Acme"))) == [None]


async def test_five_hundred_registrations_are_one_statement(pool: Pool) -> None:
    asks = [ask(f"t{number}", tier="premium" if number % 2 else "free", products=[NOTES_2]) for number in range(500)]
    async with transaction(pool) as connection, statements(connection) as sent:
        facts = await handlers.register_tenants(connection, asks, clock=ManualClock())

    assert len(sent) == 1
    assert [(type(fact), fact.tenant_id) for fact in facts] == [(TenantRegistered, one.tenant_id) for one in asks]
    assert await pool.fetchval("SELECT count(*) FROM tenant_product") == 500


async def test_of_two_registrations_at_once_under_one_name_the_second_waits_and_is_refused(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        first = await handlers.register_tenants(connection, [ask("t1", "Acme")], clock=ManualClock())
        second = asyncio.create_task(register(pool, ask("t2", "ACME")))
        await eventually(lambda: are_waiting(pool, 1), describe="the second waits for the first")

    assert codes(first) == [None]
    assert codes(await second) == ["name_taken"]


async def test_a_registration_that_is_rolled_back_leaves_the_name_to_whoever_waits(pool: Pool) -> None:
    async with pool.acquire() as connection:
        attempt = connection.transaction()
        await attempt.start()
        await handlers.register_tenants(connection, [ask("t1", "Acme")], clock=ManualClock())
        second = asyncio.create_task(register(pool, ask("t2", "ACME")))
        await eventually(lambda: are_waiting(pool, 1), describe="the second waits for the first")
        await attempt.rollback()

    assert codes(await second) == [None]
    assert await names(pool) == {"t2": "ACME"}


async def test_batches_with_the_same_names_in_opposite_order_do_not_lock_each_other_out(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await handlers.register_tenants(connection, [ask("t1", "Middle")], clock=ManualClock())
        forward = asyncio.create_task(register(pool, ask("a1", "First"), ask("a2", "Middle"), ask("a3", "Zebra")))
        backward = asyncio.create_task(register(pool, ask("b3", "Zebra"), ask("b2", "Middle"), ask("b1", "First")))
        await eventually(lambda: are_waiting(pool, 2), describe="both wait, each with the names before")

    outcomes = [codes(await forward), codes(await backward)]
    assert sorted(outcome.count("name_taken") for outcome in outcomes) == [1, 3]


async def test_deregistering_leaves_nothing_and_frees_the_name(pool: Pool) -> None:
    await register(pool, ask("t1", "Acme", products=[NOTES_1]), ask("t2"))

    assert await deregister(pool, "t1") == [TenantDeregistered(tenant_id="t1")]

    assert await pool.fetchval("SELECT count(*) FROM live_record WHERE tenant_id = 't1'") == 0
    assert set(await names(pool)) == {"t2"}
    assert codes(await register(pool, ask("t3", "Acme"))) == [None]


async def test_deregistering_does_not_touch_an_archive_record(pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))
    await archive(pool, "t1")

    assert await deregister(pool, "t1") == [TenantDeregistered(tenant_id="t1")]

    assert await states(pool) == {"t1": "archived"}


async def test_deregistering_an_unknown_tenant_is_answered_like_any_other(pool: Pool) -> None:
    assert await deregister(pool, "t1", "t1") == [TenantDeregistered(tenant_id="t1")] * 2


async def test_five_hundred_deregistrations_are_one_statement(pool: Pool) -> None:
    tenant_ids = [f"t{number}" for number in range(500)]
    await register(pool, *(ask(tenant_id) for tenant_id in tenant_ids))
    asks = [DeregisterTenant(tenant_id=tenant_id) for tenant_id in tenant_ids]
    async with transaction(pool) as connection, statements(connection) as sent:
        await handlers.deregister_tenants(connection, asks)

    assert len(sent) == 1
    assert await names(pool) == {}


async def test_a_registered_tenant_is_activated(pool: Pool) -> None:
    clock = ManualClock()
    await register(pool, ask("t1"), ask("t2"), clock=clock)
    await clock.advance(60)

    assert await activate(pool, "t2", clock=clock) == [TenantActivated(tenant_id="t2")]

    assert await states(pool) == {"t1": "registered", "t2": "active"}
    row = await pool.fetchrow("SELECT version, updated_at, created_at FROM tenant WHERE tenant_id = 't2'")
    assert row is not None
    assert row["version"] == 2
    assert (row["updated_at"] - row["created_at"]).total_seconds() == 60


async def test_a_tenant_that_does_not_exist_cannot_be_activated(pool: Pool) -> None:
    assert await activate(pool, "t1") == [
        TenantActivationRefused(tenant_id="t1", code="unknown_tenant", detail="There is no such tenant.")
    ]


@pytest.mark.parametrize("state", ["active", "suspended", "offboarding"])
async def test_only_a_registered_tenant_can_be_activated(pool: Pool, state: str) -> None:
    await register(pool, ask("t1"))
    await activate(pool, "t1")
    await pool.execute("UPDATE tenant SET state = $1", state)

    assert await activate(pool, "t1") == [
        TenantActivationRefused(
            tenant_id="t1", code="wrong_state", detail=f"A tenant that is {state} cannot be activated."
        )
    ]
    assert await states(pool) == {"t1": state}


async def test_the_second_activation_of_one_tenant_in_a_batch_finds_it_active(pool: Pool) -> None:
    await register(pool, ask("t1"))

    assert await activate(pool, "t0", "t1", "t1") == [
        TenantActivationRefused(tenant_id="t0", code="unknown_tenant", detail="There is no such tenant."),
        TenantActivated(tenant_id="t1"),
        TenantActivationRefused(
            tenant_id="t1", code="wrong_state", detail="A tenant that is active cannot be activated."
        ),
    ]


async def test_an_activation_is_taken_back(pool: Pool) -> None:
    await register(pool, ask("t1"))
    await activate(pool, "t1")

    assert await deactivate(pool, "t1") == [TenantDeactivated(tenant_id="t1")]

    assert await states(pool) == {"t1": "registered"}


async def test_taking_back_an_activation_that_never_was_changes_nothing(pool: Pool) -> None:
    await register(pool, ask("t1"), ask("t2"))
    await activate(pool, "t2")
    await pool.execute("UPDATE tenant SET state = 'suspended' WHERE tenant_id = 't2'")

    facts = await deactivate(pool, "t0", "t1", "t2", "t2")

    assert facts == [TenantDeactivated(tenant_id=tenant_id) for tenant_id in ("t0", "t1", "t2", "t2")]
    assert await states(pool) == {"t1": "registered", "t2": "suspended"}


async def test_of_two_activations_at_once_the_second_finds_the_tenants_active(pool: Pool) -> None:
    await register(pool, ask("t1"), ask("t2"), ask("t3"))
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM tenant WHERE tenant_id = 't2' FOR UPDATE")
        forward = asyncio.create_task(activate(pool, "t1", "t2", "t3"))
        backward = asyncio.create_task(activate(pool, "t3", "t2", "t1"))
        await eventually(lambda: are_waiting(pool, 2), describe="both wait for a tenant")

    outcomes = [await forward, await backward]
    assert sorted(sum(isinstance(fact, TenantActivated) for fact in facts) for facts in outcomes) == [0, 3]
    assert await pool.fetch("SELECT FROM tenant WHERE version <> 2") == []


async def test_the_catalog_is_announced_with_all_that_can_be_taken(pool: Pool) -> None:
    async with pool.acquire() as connection:
        assert await published_catalog(connection) == CatalogPublished(
            tenant_id="catalog",
            revision=4,
            tiers=("free", "standard", "premium"),
            default_tier="free",
            products=(CatalogProduct(name="notes", versions=("1.0", "2.0")),),
        )


async def test_the_announced_catalog_leaves_out_what_is_retired(pool: Pool) -> None:
    await pool.execute("UPDATE tier SET retired_at = now() WHERE name = 'premium'")
    await pool.execute("UPDATE product_version SET retired_at = now() WHERE version = '1.0'")

    async with pool.acquire() as connection:
        catalog = await published_catalog(connection)

    assert catalog.tiers == ("free", "standard")
    assert catalog.products == (CatalogProduct(name="notes", versions=("2.0",)),)
    assert catalog.revision == 6


def test_every_ask_of_the_contract_is_heard_and_every_fact_is_said() -> None:
    owned = {message for message in CATALOGUE.values() if message.owner == "tenant"}
    asks = {message for message in owned if issubclass(message, Ask)}

    assert set(handlers.SUBSCRIPTIONS) == asks | replica.SUBSCRIPTIONS.keys()
    assert set(handlers.PUBLISHES) == owned - asks
