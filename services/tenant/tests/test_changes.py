import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from services.tenant import handlers
from services.tenant.tests.support import archive, are_waiting, ask, deliver, open_for_business, register, statements
from shared.clock import ManualClock
from shared.contracts import Ask, Fact, Message, Refusal
from shared.contracts.tenant import (
    BeginOffboarding,
    CancelOffboarding,
    ChangeProducts,
    ChangeTier,
    LicensedProduct,
    LiftSuspension,
    OffboardingBegun,
    OffboardingCancelled,
    OffboardingRefused,
    ProductChangeRefused,
    ProductsChanged,
    ProductsRestored,
    ReactivateTenant,
    ReactivationWithdrawn,
    RestoreProducts,
    RestoreTenant,
    RestoreTier,
    SuspendTenant,
    SuspensionLifted,
    TenantReactivated,
    TenantReactivationRefused,
    TenantRestored,
    TenantSuspended,
    TenantSuspensionRefused,
    TenantUpdated,
    TenantUpdateRefused,
    TierChanged,
    TierChangeRefused,
    TierRestored,
    UpdateTenant,
    UsagePlan,
    WithdrawReactivation,
)
from shared.messaging.subscriptions import Restoration
from shared.postgres import Pool, transaction
from shared.testing import eventually

NOTES_1 = {"name": "notes", "version": "1.0"}
NOTES_2 = {"name": "notes", "version": "2.0"}
CHESS = {"name": "chess", "version": "1.0"}
MEANING: dict[str, Any] = {"plan": None, "isolation": None, "driver": "postgres", "region": None, "parameters": {}}
"""What a product means of which nothing is said."""

UNDOS: dict[type[Ask], type[Ask]] = {
    SuspendTenant: LiftSuspension,
    ReactivateTenant: WithdrawReactivation,
    BeginOffboarding: CancelOffboarding,
    ChangeTier: RestoreTier,
    ChangeProducts: RestoreProducts,
    UpdateTenant: RestoreTenant,
}


def tier_change(tenant_id: str, tier: str = "premium") -> ChangeTier:
    return ChangeTier(tenant_id=tenant_id, tier=tier)


def product_change(tenant_id: str, *products: dict[str, str]) -> ChangeProducts:
    return ChangeProducts.model_validate({"tenant_id": tenant_id, "products": products})


def update(tenant_id: str, customer_name: str = "Bolt", *products: dict[str, str]) -> UpdateTenant:
    details = {"customer_name": customer_name, "expiration": "2031-12-31", "products": products}
    return UpdateTenant.model_validate({"tenant_id": tenant_id} | details)


def licensed(*products: dict[str, str]) -> tuple[LicensedProduct, ...]:
    """Return products of which the catalog says nothing."""
    return tuple(LicensedProduct.model_validate(product) for product in products)


async def put_into(pool: Pool, state: str, *tenant_ids: str) -> None:
    """Bring registered tenants into a state, by the ways there are."""
    ways = {
        "registered": (),
        "active": ("active",),
        "suspended": ("active", "suspended"),
        "offboarding": ("active", "offboarding"),
    }
    if state == "archived":
        await put_into(pool, "active", *tenant_ids)
        await archive(pool, *tenant_ids)
        return
    for step in ways[state]:
        await pool.execute("UPDATE tenant SET state = $1 WHERE tenant_id = ANY ($2)", step, list(tenant_ids))


async def states(pool: Pool) -> dict[str, str]:
    return {row["tenant_id"]: row["state"] for row in await pool.fetch("SELECT tenant_id, state FROM tenant")}


async def record(pool: Pool, tenant_id: str = "t1") -> dict[str, Any]:
    """Return the whole record of a tenant, but for what grows with every change."""
    row = await pool.fetchrow("SELECT * FROM tenant WHERE tenant_id = $1", tenant_id)
    assert row is not None
    counted = {"version", "updated_at"}
    details = {name: value for name, value in row.items() if name not in counted}
    rows = await pool.fetch("SELECT product, meaning FROM tenant_product WHERE tenant_id = $1", tenant_id)
    meanings = {row["product"]: row["meaning"] for row in rows}
    return details | {"products": await products_of(pool, tenant_id), "product_meanings": meanings}


async def version(pool: Pool, tenant_id: str = "t1") -> int:
    return int(await pool.fetchval("SELECT version FROM tenant WHERE tenant_id = $1", tenant_id))


async def products_of(pool: Pool, tenant_id: str = "t1") -> dict[str, str]:
    rows = await pool.fetch("SELECT product, version FROM tenant_product WHERE tenant_id = $1", tenant_id)
    return {row["product"]: row["version"] for row in rows}


async def add_chess(pool: Pool) -> None:
    await pool.execute("INSERT INTO product (name, description) VALUES ('chess', 'A game.')")
    await pool.execute("INSERT INTO product_version (product, version) VALUES ('chess', '1.0')")


def codes(facts: Sequence[Message]) -> list[str | None]:
    return [fact.code if isinstance(fact, Refusal) else None for fact in facts]


def plainly(facts: Sequence[Message]) -> list[Message]:
    """Leave out what a tier lets a tenant use, whose version depends on what came before; it has tests of its own."""
    return [
        fact.model_copy(update={"usage_plan": None}) if isinstance(fact, TierChanged | TierRestored) else fact
        for fact in facts
    ]


STARTS: dict[str, tuple[str, Ask, Fact]] = {
    "suspend": ("active", SuspendTenant(tenant_id="t1", reason="unpaid"), TenantSuspended(tenant_id="t1")),
    "reactivate": ("suspended", ReactivateTenant(tenant_id="t1"), TenantReactivated(tenant_id="t1")),
    "off-board active": ("active", BeginOffboarding(tenant_id="t1"), OffboardingBegun(tenant_id="t1")),
    "off-board suspended": ("suspended", BeginOffboarding(tenant_id="t1"), OffboardingBegun(tenant_id="t1")),
    "change tier": (
        "active",
        tier_change("t1"),
        TierChanged(
            tenant_id="t1",
            tier="premium",
            plan="premium",
            quotas={"api_calls": 1_000_000, "storage_gb": 100, "seats": 250},
            isolation="silo",
            connections=50,
        ),
    ),
    "change products": (
        "active",
        product_change("t1", NOTES_2),
        ProductsChanged(tenant_id="t1", products=licensed(NOTES_2)),
    ),
    "take none": ("active", product_change("t1"), ProductsChanged(tenant_id="t1", products=())),
    "update active": (
        "active",
        update("t1", "Bolt", NOTES_2),
        TenantUpdated(tenant_id="t1", products=licensed(NOTES_2)),
    ),
    "update suspended": ("suspended", update("t1", "Bolt"), TenantUpdated(tenant_id="t1", products=())),
    "keep the name": (
        "active",
        update("t1", "ACME", NOTES_1),
        TenantUpdated(tenant_id="t1", products=licensed(NOTES_1)),
    ),
}
"""Every change: the state in which it finds the tenant, the ask, and the answer."""

UNDONE: dict[type[Ask], type[Fact]] = {
    LiftSuspension: SuspensionLifted,
    WithdrawReactivation: ReactivationWithdrawn,
    CancelOffboarding: OffboardingCancelled,
    RestoreTier: TierRestored,
    RestoreProducts: ProductsRestored,
    RestoreTenant: TenantRestored,
}


@pytest.fixture(params=STARTS)
async def story(request: pytest.FixtureRequest, pool: Pool) -> tuple[Ask, Fact, Ask, Fact]:
    """A tenant that finds each change in turn; the ask, its answer, the undo and its answer."""
    state, change, done = STARTS[request.param]
    details = {"phone": "1", "tags": {"a": "1"}, "expiration": "2027-01-31"}
    await register(pool, ask("t1", "Acme", tier="standard", products=[NOTES_1], **details), ask("t2"))
    await put_into(pool, state, "t1", "t2")
    undo = UNDOS[type(change)](tenant_id="t1")
    return change, done, undo, UNDONE[type(undo)](tenant_id="t1")


Story = tuple[Ask, Fact, Ask, Fact]


async def test_a_change_is_made_and_makes_a_new_version(pool: Pool, story: Story) -> None:
    change, done, _, _ = story
    before, other = await record(pool), await record(pool, "t2")
    clock = ManualClock()
    await clock.advance(60)

    assert plainly(await deliver(pool, change, clock=clock)) == [done]

    assert await record(pool) != before
    assert await record(pool, "t2") == other
    row = await pool.fetchrow("SELECT version, updated_at FROM tenant WHERE tenant_id = 't1'")
    assert row is not None
    assert (row["version"], row["updated_at"]) == (2, clock.now())


async def test_a_change_that_is_taken_back_leaves_exactly_what_was_found(pool: Pool, story: Story) -> None:
    change, _, undo, undone = story
    before = await record(pool)
    await deliver(pool, change)

    assert plainly(await deliver(pool, undo)) == [undone]

    assert await record(pool) == before
    assert await version(pool) == 3


async def test_a_change_comes_to_nothing_after_its_undo(pool: Pool, story: Story) -> None:
    change, _, undo, undone = story
    before = await record(pool)

    assert plainly(await deliver(pool, undo)) == [undone]
    assert await deliver(pool, change) == []

    assert await record(pool) == before
    assert await version(pool) == 1


async def test_an_undo_that_is_repeated_does_not_touch_what_a_later_workflow_changed(pool: Pool, story: Story) -> None:
    change, done, undo, undone = story
    await deliver(pool, change)
    await deliver(pool, undo)
    assert plainly(await deliver(pool, change, workflow="later")) == [done]
    changed = await record(pool)

    assert plainly(await deliver(pool, undo)) == [undone]
    assert plainly(await deliver(pool, undo, undo)) == [undone, undone]

    assert await record(pool) == changed


async def test_a_change_that_is_repeated_is_answered_as_before(pool: Pool, story: Story) -> None:
    change, done, _, _ = story
    await deliver(pool, change)

    assert plainly(await deliver(pool, change)) == [done]
    assert await version(pool) == 2


async def test_a_change_of_an_unknown_tenant_is_refused_and_its_undo_answered(pool: Pool, story: Story) -> None:
    change, _, undo, undone = story
    (refusal,) = await deliver(pool, change.model_copy(update={"tenant_id": "t0"}))

    assert isinstance(refusal, Refusal)
    assert (refusal.tenant_id, refusal.code) == ("t0", "unknown_tenant")
    assert await deliver(pool, undo.model_copy(update={"tenant_id": "t0"})) == [
        undone.model_copy(update={"tenant_id": "t0"})
    ]


REFUSALS: dict[type[Ask], tuple[type[Refusal], set[str]]] = {
    SuspendTenant: (TenantSuspensionRefused, {"registered", "suspended", "offboarding", "archived"}),
    ReactivateTenant: (TenantReactivationRefused, {"registered", "active", "offboarding", "archived"}),
    BeginOffboarding: (OffboardingRefused, {"registered", "archived"}),
    ChangeTier: (TierChangeRefused, {"registered", "suspended", "offboarding", "archived"}),
    ChangeProducts: (ProductChangeRefused, {"registered", "suspended", "offboarding", "archived"}),
    UpdateTenant: (TenantUpdateRefused, {"registered", "offboarding", "archived"}),
}
"""How each ask is refused, and the states of the tenant that forbid it."""

WRONG = [
    pytest.param(start, state, id=f"{start} when {state}")
    for start in ("suspend", "reactivate", "off-board active", "change tier", "change products", "update active")
    for state in sorted(REFUSALS[type(STARTS[start][1])][1])
]


@pytest.mark.parametrize(("start", "state"), WRONG)
async def test_a_change_that_the_state_forbids_is_refused(pool: Pool, start: str, state: str) -> None:
    change = STARTS[start][1]
    await register(pool, ask("t1", "Acme"))
    await put_into(pool, state, "t1")
    before, seen = await record(pool), await version(pool)

    (refusal,) = await deliver(pool, change)

    assert isinstance(refusal, REFUSALS[type(change)][0])
    assert refusal.code == "wrong_state"
    assert refusal.detail.startswith(f"A tenant that is {state} cannot be ")
    undo = UNDOS[type(change)]
    assert plainly(await deliver(pool, undo(tenant_id="t1"))) == [UNDONE[undo](tenant_id="t1")]
    assert (await record(pool), await version(pool)) == (before, seen)


async def test_an_offboarding_that_finds_the_tenant_on_its_way_out_leaves_it_there_when_cancelled(pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))
    await deliver(pool, BeginOffboarding(tenant_id="t1"), workflow="abandoned")

    assert await deliver(pool, BeginOffboarding(tenant_id="t1")) == [OffboardingBegun(tenant_id="t1")]
    assert await deliver(pool, CancelOffboarding(tenant_id="t1")) == [OffboardingCancelled(tenant_id="t1")]

    assert await states(pool) == {"t1": "offboarding"}
    assert await version(pool) == 3


@pytest.mark.parametrize("start", ["suspend", "reactivate", "off-board active"])
async def test_a_state_that_has_changed_since_stays(pool: Pool, start: str) -> None:
    state, change, _ = STARTS[start]
    await register(pool, ask("t1"))
    await put_into(pool, state, "t1")
    await deliver(pool, change)
    await pool.execute(
        "UPDATE tenant SET state = CASE state WHEN 'offboarding' THEN 'suspended' ELSE 'offboarding' END"
    )
    changed, seen = await states(pool), await version(pool)

    await deliver(pool, UNDOS[type(change)](tenant_id="t1"))

    assert (await states(pool), await version(pool)) == (changed, seen)


@pytest.mark.parametrize("start", ["change tier", "change products", "update active"])
async def test_terms_that_a_later_workflow_has_changed_since_stay(pool: Pool, start: str) -> None:
    _, change, _ = STARTS[start]
    await add_chess(pool)
    await open_for_business(pool, ask("t1", "Acme"))
    await deliver(pool, change)
    later: tuple[Ask, ...] = (tier_change("t1", "standard"), product_change("t1", CHESS))
    assert codes(await deliver(pool, *later, workflow="later")) == [None, None]
    changed = await record(pool)

    await deliver(pool, UNDOS[type(change)](tenant_id="t1"))

    assert await record(pool) == changed


async def test_a_late_undo_does_not_touch_an_archive_record(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", "Acme", products=[NOTES_1]))
    await deliver(pool, tier_change("t1"), product_change("t1"), BeginOffboarding(tenant_id="t1"))
    await archive(pool, "t1")
    archived, seen = await record(pool), await version(pool)

    undos = (RestoreTier(tenant_id="t1"), RestoreProducts(tenant_id="t1"), CancelOffboarding(tenant_id="t1"))
    await deliver(pool, *undos)

    assert (await record(pool), await version(pool)) == (archived, seen)


async def test_a_batch_changes_each_of_its_tenants_and_refuses_the_others(pool: Pool) -> None:
    await register(pool, *(ask(f"t{number}") for number in range(1, 5)))
    await put_into(pool, "active", "t1", "t2", "t4")

    facts = await deliver(pool, *(tier_change(f"t{number}", "standard") for number in (4, 3, 0, 1)))

    assert [fact.tenant_id for fact in facts] == ["t4", "t3", "t0", "t1"]
    assert codes(facts) == [None, "wrong_state", "unknown_tenant", None]
    tiers = {row["tenant_id"]: row["tier"] for row in await pool.fetch("SELECT tenant_id, tier FROM tenant")}
    assert tiers == {"t1": "standard", "t2": "free", "t3": "free", "t4": "standard"}

    await deliver(pool, *(RestoreTier(tenant_id=f"t{number}") for number in (4, 3, 0, 1)))
    assert await pool.fetchval("SELECT count(*) FROM tenant WHERE tier <> 'free'") == 0


async def test_of_two_changes_of_one_tenant_in_a_batch_the_second_finds_what_the_first_made_of_it(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", "Acme"), ask("t2", "Zeta"))
    workflows = ("one", "two", "one", "three")
    asks = (tier_change("t1"), tier_change("t1", "standard"), tier_change("t2"), tier_change("t1", "standard"))

    facts = await deliver(pool, *asks, workflows=workflows)

    assert [fact.tenant_id for fact in facts] == ["t1", "t1", "t2", "t1"]
    assert codes(facts) == [None, None, None, "same_tier"]
    assert (await record(pool))["tier"] == "standard"

    undos = [RestoreTier(tenant_id=one.tenant_id) for one in reversed(asks)]
    assert len(await deliver(pool, *undos, workflows=tuple(reversed(workflows)))) == 4
    assert [(await record(pool, tenant_id))["tier"] for tenant_id in ("t1", "t2")] == ["free", "free"]


async def test_the_second_suspension_of_one_tenant_in_a_batch_finds_it_suspended(pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))
    asks = (SuspendTenant(tenant_id="t1"), SuspendTenant(tenant_id="t1"))

    assert codes(await deliver(pool, *asks, workflows=("one", "two"))) == [None, "wrong_state"]

    undos = (LiftSuspension(tenant_id="t1"), LiftSuspension(tenant_id="t1"))
    await deliver(pool, *undos, workflows=("two", "one"))
    assert await states(pool) == {"t1": "active"}


async def test_the_second_offboarding_of_one_tenant_in_a_batch_finds_it_on_its_way_out(pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))
    asks = (BeginOffboarding(tenant_id="t1"), BeginOffboarding(tenant_id="t1"))

    assert await deliver(pool, *asks, workflows=("one", "two")) == [OffboardingBegun(tenant_id="t1")] * 2

    await deliver(pool, CancelOffboarding(tenant_id="t1"), workflow="two")
    assert await states(pool) == {"t1": "offboarding"}


@pytest.mark.parametrize(
    ("change", "code", "detail"),
    [
        (tier_change("t1", "gold"), "unknown_tier", "The catalog offers no tier 'gold'."),
        (tier_change("t1", "free"), "same_tier", "The tenant is on tier 'free' already."),
        (
            product_change("t1", NOTES_2, CHESS),
            "unknown_product",
            "The catalog does not offer all of: chess 1.0, notes 2.0.",
        ),
        (product_change("t1", NOTES_1, NOTES_2), "duplicate_product", None),
        (product_change("t1", NOTES_1, NOTES_1), "duplicate_product", None),
        (update("t1", "Bolt", CHESS), "unknown_product", None),
        (update("t1", "Bolt", NOTES_1, NOTES_2), "duplicate_product", None),
        (update("t1", " ZETA "), "name_taken", "A tenant named ' ZETA ' is already registered."),
    ],
)
async def test_what_cannot_be_had_is_refused_and_nothing_is_changed(
    pool: Pool, change: Ask, code: str, detail: str | None
) -> None:
    await open_for_business(pool, ask("t1", "Acme", products=[NOTES_1]), ask("t2", "Zeta"))
    before = await record(pool)

    (refusal,) = await deliver(pool, change)

    assert isinstance(refusal, REFUSALS[type(change)][0])
    assert refusal.code == code
    assert detail is None or refusal.detail == detail
    assert await record(pool) == before
    assert await version(pool) == 2


@pytest.mark.parametrize(
    ("retire", "change", "code"),
    [
        ("UPDATE tier SET retired_at = now() WHERE name = 'premium'", tier_change("t1"), "unknown_tier"),
        ("UPDATE product SET retired_at = now()", product_change("t1", NOTES_2), "unknown_product"),
        ("UPDATE product_version SET retired_at = now()", update("t1", "Bolt", NOTES_2), "unknown_product"),
    ],
)
async def test_what_was_retired_can_no_longer_be_changed_to(pool: Pool, retire: str, change: Ask, code: str) -> None:
    await open_for_business(pool, ask("t1"))
    await pool.execute(retire)

    assert codes(await deliver(pool, change)) == [code]


async def test_a_retired_product_that_the_tenant_has_already_can_be_kept(pool: Pool) -> None:
    await add_chess(pool)
    await open_for_business(pool, ask("t1", products=[NOTES_1]))
    await pool.execute("UPDATE product_version SET retired_at = now() WHERE product = 'notes'")

    assert codes(await deliver(pool, product_change("t1", NOTES_1, CHESS))) == [None]
    assert await products_of(pool) == {"notes": "1.0", "chess": "1.0"}


async def test_what_was_retired_since_is_given_back_by_an_undo(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", tier="premium", products=[NOTES_1]))
    await deliver(pool, tier_change("t1", "free"), product_change("t1", NOTES_2))
    await pool.execute("UPDATE tier SET retired_at = now() WHERE name = 'premium'")
    await pool.execute("UPDATE product_version SET retired_at = now() WHERE version = '1.0'")

    await deliver(pool, RestoreTier(tenant_id="t1"), RestoreProducts(tenant_id="t1"))

    assert (await record(pool))["tier"] == "premium"
    assert await products_of(pool) == {"notes": "1.0"}


async def test_the_order_in_which_products_are_named_does_not_matter(pool: Pool) -> None:
    await add_chess(pool)
    await open_for_business(pool, ask("t1"))

    await deliver(pool, product_change("t1", NOTES_1, CHESS))
    assert await products_of(pool) == {"notes": "1.0", "chess": "1.0"}

    await deliver(pool, RestoreProducts(tenant_id="t1"))
    assert await products_of(pool) == {}


async def test_an_update_is_on_record_as_it_was_asked_for(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", "Acme", products=[NOTES_1]))

    await deliver(pool, update("t1", "  Bolt ÉCLAIR ", NOTES_2))

    found = await record(pool)
    assert (found["customer_name"], found["name_key"]) == ("  Bolt ÉCLAIR ", "bolt éclair")
    assert (found["expiration"].isoformat(), await products_of(pool)) == ("2031-12-31", {"notes": "2.0"})


async def test_a_name_that_a_tenant_has_given_up_can_be_taken(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", "Acme"))
    await deliver(pool, update("t1", "Bolt"))

    assert codes(await register(pool, ask("t2", "Bolt"), ask("t3", "Acme"))) == ["name_taken", None]


async def test_of_two_tenants_that_are_renamed_to_one_name_in_a_batch_the_first_gets_it(pool: Pool) -> None:
    await open_for_business(pool, *(ask(f"t{number}") for number in range(1, 5)))
    asks = (update("t1", "Bolt", CHESS), update("t3", "Bolt"), update("t2", "BOLT"), update("t4", "Zeta"))

    assert codes(await deliver(pool, *asks)) == ["unknown_product", None, "name_taken", None]

    names = {row["tenant_id"]: row["name_key"] for row in await pool.fetch("SELECT tenant_id, name_key FROM tenant")}
    assert names == {"t1": "customer t1", "t2": "customer t2", "t3": "bolt", "t4": "zeta"}


async def test_a_name_that_is_given_up_in_the_same_batch_is_still_taken(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", "Acme"), ask("t2", "Bolt"))

    assert codes(await deliver(pool, update("t1", "Bolt"), update("t2", "Acme"))) == ["name_taken", "name_taken"]


async def test_the_name_of_an_archived_tenant_can_be_changed_to(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", "Acme"), ask("t2", "Bolt"))
    await archive(pool, "t2")

    assert codes(await deliver(pool, update("t1", "Bolt"))) == [None]


@pytest.mark.parametrize("rival", ["registration", "update"])
async def test_a_name_that_another_is_taking_at_the_moment_is_waited_for_and_refused(pool: Pool, rival: str) -> None:
    await open_for_business(pool, ask("t1", "Acme"), ask("t2", "Zeta"), ask("t3", "Eta"))
    async with transaction(pool) as connection:
        if rival == "registration":
            await handlers.register_tenants(connection, [ask("t9", "Bolt")], clock=ManualClock())
        else:
            await handlers.update_tenants(connection, [update("t2", "Bolt")], clock=ManualClock())
        second = asyncio.create_task(deliver(pool, update("t1", "BOLT"), update("t3", "Theta")))
        await eventually(lambda: are_waiting(pool, 1), describe="the second waits for the first")

    assert codes(await second) == ["name_taken", None]
    assert (await record(pool))["customer_name"] == "Acme"
    assert (await record(pool, "t3"))["customer_name"] == "Theta"


async def test_a_name_whose_taking_is_rolled_back_goes_to_whoever_waits(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", "Acme"))
    async with pool.acquire() as connection:
        attempt = connection.transaction()
        await attempt.start()
        await handlers.register_tenants(connection, [ask("t9", "Bolt")], clock=ManualClock())
        second = asyncio.create_task(deliver(pool, update("t1", "Bolt")))
        await eventually(lambda: are_waiting(pool, 1), describe="the second waits for the first")
        await attempt.rollback()

    assert codes(await second) == [None]


async def test_a_name_that_was_taken_since_is_not_taken_away_again_and_the_undo_fails_until_it_is_free(
    pool: Pool,
) -> None:
    await open_for_business(pool, ask("t1", "Acme"))
    await deliver(pool, update("t1", "Bolt"))
    await register(pool, ask("t2", "Acme"))

    with pytest.raises(asyncpg.UniqueViolationError, match="tenant_name"):
        await deliver(pool, RestoreTenant(tenant_id="t1"))
    assert (await record(pool))["customer_name"] == "Bolt"

    await pool.execute("DELETE FROM tenant WHERE tenant_id = 't2'")
    await deliver(pool, RestoreTenant(tenant_id="t1"))
    assert (await record(pool))["customer_name"] == "Acme"


async def test_changes_of_the_same_tenants_in_opposite_order_do_not_lock_each_other_out(pool: Pool) -> None:
    await open_for_business(pool, ask("t1"), ask("t2"), ask("t3"))
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM tenant WHERE tenant_id = 't2' FOR UPDATE")
        forward = asyncio.create_task(deliver(pool, *(tier_change(tenant) for tenant in ("t1", "t2", "t3"))))
        asks = [product_change(tenant, NOTES_1) for tenant in ("t3", "t2", "t1")]
        backward = asyncio.create_task(deliver(pool, *asks, workflow="second"))
        await eventually(lambda: are_waiting(pool, 2), describe="both wait for a tenant")

    assert codes([*await forward, *await backward]) == [None] * 6
    assert await pool.fetchval("SELECT count(*) FROM tenant WHERE version = 4 AND tier = 'premium'") == 3


async def test_a_change_that_waited_finds_what_the_other_made_of_the_products(pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))
    async with transaction(pool) as connection:
        await handlers.change_products(connection, [product_change("t1", NOTES_1)], clock=ManualClock())
        second = asyncio.create_task(deliver(pool, product_change("t1")))
        await eventually(lambda: are_waiting(pool, 1), describe="the second waits for the first")
    await second
    assert await products_of(pool) == {}

    await deliver(pool, RestoreProducts(tenant_id="t1"))
    assert await products_of(pool) == {"notes": "1.0"}


async def test_five_hundred_changes_are_as_many_statements_as_one(pool: Pool) -> None:
    asks = [ask(f"t{number}", products=[NOTES_1]) for number in range(500)]
    await open_for_business(pool, *asks)
    updates = [update(one.tenant_id, f"New {one.tenant_id}", NOTES_2) for one in asks]
    async with transaction(pool) as connection, statements(connection) as sent:
        changes = await handlers.update_tenants(connection, updates, clock=ManualClock())
    assert len(sent) == 5, "lock, judge, and write within a savepoint"

    restorations = [Restoration(change.answer.tenant_id, change.before) for change in changes]
    async with transaction(pool) as connection, statements(connection) as sent:
        await handlers.restore_tenants(connection, restorations, clock=ManualClock())
    assert len(sent) == 3, "lock, look, and write"
    assert await pool.fetchval("SELECT count(*) FROM tenant WHERE customer_name NOT LIKE 'Customer%'") == 0


async def test_a_tenant_that_is_gone_needs_nothing_restored(pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))
    await deliver(pool, tier_change("t1"))
    await pool.execute("DELETE FROM tenant")

    assert await deliver(pool, RestoreTier(tenant_id="t1")) == [TierRestored(tenant_id="t1")]


async def test_a_tier_that_says_nothing_of_connections_leaves_them_to_provisioning(pool: Pool) -> None:
    await pool.execute("UPDATE tier SET connections = NULL")
    await open_for_business(pool, ask("t1"))

    (fact,) = await deliver(pool, tier_change("t1"))

    assert isinstance(fact, TierChanged)
    assert fact.connections is None


async def test_a_change_of_tier_and_its_undo_tell_what_the_tier_lets_use_in_an_order_that_can_be_told(
    pool: Pool,
) -> None:
    await open_for_business(pool, ask("t1", tier="standard"))

    told = [*await deliver(pool, tier_change("t1")), *await deliver(pool, RestoreTier(tenant_id="t1"))]

    assert [fact.usage_plan for fact in told if isinstance(fact, TierChanged | TierRestored)] == [
        UsagePlan(tier="premium", version=3, requests_per_second=500, requests_per_day=None),
        UsagePlan(tier="standard", version=4, requests_per_second=50, requests_per_day=200_000),
    ]
    assert await version(pool) == 4


async def test_an_undo_that_changes_nothing_tells_what_the_present_tier_lets_use(pool: Pool) -> None:
    await pool.execute("UPDATE tier SET requests_per_second = NULL, requests_per_day = 7 WHERE name = 'free'")
    await open_for_business(pool, ask("t1"))

    assert await deliver(pool, RestoreTier(tenant_id="t1")) == [
        TierRestored(tenant_id="t1", usage_plan=UsagePlan(tier="free", version=2, requests_per_day=7))
    ]


async def test_before_images_are_json(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", "Acme", products=[NOTES_1]))
    await deliver(pool, update("t1", "Bolt"))

    before = await pool.fetchval("SELECT before FROM operation WHERE before IS NOT NULL")

    assert before["found"] == {
        "customer_name": "Acme",
        "name_key": "acme",
        "expiration": None,
        "products": [NOTES_1],
        "product_meanings": {"notes": MEANING},
    }
