"""What onboarding knows of a customer after each kind of workflow, however it ends."""

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from services.onboarding.definition import Definition
from services.onboarding.lifecycles.change_products import CHANGE_PRODUCTS
from services.onboarding.lifecycles.change_tier import CHANGE_TIER
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.lifecycles.update_account import UPDATE_ACCOUNT
from services.onboarding.saga import Abandon
from services.onboarding.tests.catalogue import FULL, REQUEST, answers
from services.onboarding.tests.support import Desk, account, hear, kinds, stored, told
from services.onboarding.workflow import Status
from shared.postgres import Pool, transaction

NOTES = {"name": "notes", "version": "1.0"}
CHESS = {"name": "chess", "version": "1.0"}
BEFORE: Mapping[str, Any] = {
    "customer_name": "Acme",
    "tier": "standard",
    "products": [NOTES],
    "expiration": date(2099, 1, 31),
    "suspended_for": None,
}
"""What is known of the customer of all these tests once it is onboarded."""

UPDATE: Mapping[str, Any] = {
    "customerName": "Bolt",
    "expiration": "2099-12-31",
    "products": [CHESS],
    "adminEmails": ["bea@example.com"],
}


class Change(NamedTuple):
    """What is ordered, and what that changes."""

    definition: Definition
    request: Mapping[str, Any]
    changed: Mapping[str, Any]


CHANGES = [
    Change(CHANGE_TIER, {"tier": "premium"}, {"tier": "premium"}),
    Change(CHANGE_PRODUCTS, {"products": [CHESS]}, {"products": [CHESS]}),
    Change(CHANGE_PRODUCTS, {"products": []}, {"products": []}),
    Change(UPDATE_ACCOUNT, UPDATE, {"customer_name": "Bolt", "products": [CHESS], "expiration": date(2099, 12, 31)}),
    Change(SUSPEND, {"suspendedFor": "operator"}, {"suspended_for": "operator"}),
    Change(SUSPEND, {"suspendedFor": "expiration"}, {"suspended_for": "expiration"}),
]


@pytest.fixture
async def tenant_id(desk: Desk) -> str:
    return await desk.tenant("Acme", products=[NOTES], expiration="2099-01-31")


async def known(pool: Pool, tenant_id: str) -> dict[str, Any]:
    row = await account(pool, tenant_id)
    return {name: row[name] for name in BEFORE}


async def test_a_customer_that_is_onboarded_has_what_it_ordered(pool: Pool, tenant_id: str) -> None:
    assert await known(pool, tenant_id) == BEFORE


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.definition.name)
async def test_a_workflow_that_is_completed_changes_what_it_was_ordered_to_and_nothing_else(
    desk: Desk, pool: Pool, tenant_id: str, change: Change
) -> None:
    workflow_id = await desk.begin(change.definition, tenant_id, **change.request)
    assert await known(pool, tenant_id) == BEFORE

    await desk.go_on(workflow_id)

    assert await known(pool, tenant_id) == {**BEFORE, **change.changed}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.definition.name)
async def test_a_workflow_that_was_undone_changes_nothing(
    desk: Desk, pool: Pool, tenant_id: str, change: Change
) -> None:
    last = [step.name for step in change.definition.plan if step.undo][-1]

    await desk.finish(change.definition, tenant_id, refuse=last, **change.request)

    assert await known(pool, tenant_id) == BEFORE


async def test_a_workflow_that_was_abandoned_changes_nothing_and_gives_back_the_name_it_took(
    desk: Desk, pool: Pool, tenant_id: str
) -> None:
    workflow_id = await desk.begin(UPDATE_ACCOUNT, tenant_id, **UPDATE)
    await pool.execute("UPDATE workflow SET status = 'needs_attention' WHERE id = $1", workflow_id)
    async with transaction(pool) as connection:
        assert await desk.engine.act(connection, workflow_id, Abandon("ada", "By hand."))

    assert (await stored(pool, workflow_id)).workflow.status is Status.ABANDONED
    assert await known(pool, tenant_id) == BEFORE
    assert [row["name_key"] for row in await pool.fetch("SELECT name_key FROM customer")] == ["acme"]


async def test_a_reactivated_customer_is_not_suspended_any_more(desk: Desk, pool: Pool, tenant_id: str) -> None:
    for reason in ("operator", "expiration"):
        await desk.finish(SUSPEND, tenant_id, suspendedFor=reason)
        await desk.finish(REACTIVATE, tenant_id)

        assert await known(pool, tenant_id) == BEFORE


async def test_a_reactivation_that_was_undone_leaves_the_customer_suspended(
    desk: Desk, pool: Pool, tenant_id: str
) -> None:
    await desk.finish(SUSPEND, tenant_id, suspendedFor="operator")
    await desk.finish(REACTIVATE, tenant_id, refuse="resume-billing")

    assert await known(pool, tenant_id) == {**BEFORE, "suspended_for": "operator"}


async def test_changes_add_up(desk: Desk, pool: Pool, tenant_id: str) -> None:
    for change in CHANGES[:4]:
        await desk.finish(change.definition, tenant_id, **change.request)
    await desk.finish(SUSPEND, tenant_id, suspendedFor="operator")

    assert await known(pool, tenant_id) == {
        "customer_name": "Bolt",
        "tier": "premium",
        "products": [CHESS],
        "expiration": date(2099, 12, 31),
        "suspended_for": "operator",
    }


async def test_of_an_off_boarded_customer_nothing_is_known(desk: Desk, pool: Pool, tenant_id: str) -> None:
    await desk.finish(OFFBOARD, tenant_id, graceDays=0, export=True)

    assert await account(pool, tenant_id) == {}
    assert await pool.fetch("SELECT * FROM live_record") == []


async def test_what_was_requested_for_an_off_boarded_customer_tells_nothing_of_people_any_more(
    desk: Desk, pool: Pool, tenant_id: str
) -> None:
    gone, other = await desk.tenant("Bolt", **{**FULL, "customerName": "Bolt"}), tenant_id
    await desk.finish(UPDATE_ACCOUNT, gone, **{**UPDATE, "adminEmails": ["cleo@example.com"]})
    await desk.finish(OFFBOARD, gone, graceDays=0, export=True, reason="They moved on.")

    rows = await pool.fetch("SELECT kind, request FROM workflow WHERE tenant_id = $1 ORDER BY id", gone)
    onboarding, update, offboarding = [row["request"] for row in rows]
    assert onboarding == {"customerName": "Bolt", **{name: FULL[name] for name in ("tier", "products", "expiration")}}
    assert update == {name: UPDATE[name] for name in ("customerName", "products", "expiration")} | {"tenantId": gone}
    assert (offboarding["reason"], offboarding["graceDays"], offboarding["export"]) == ("They moved on.", 0, True)
    kept = await pool.fetchval("SELECT request FROM workflow WHERE tenant_id = $1", other)
    assert kept["adminEmails"] == REQUEST["adminEmails"]


async def test_an_off_boarding_that_was_undone_leaves_everything_as_it_was(
    desk: Desk, pool: Pool, tenant_id: str
) -> None:
    await desk.finish(OFFBOARD, tenant_id, graceDays=0, export=True, refuse="export-data")

    assert await known(pool, tenant_id) == BEFORE


async def test_each_workflow_changes_its_own_customer(desk: Desk, pool: Pool, tenant_id: str) -> None:
    other = await desk.tenant("Cargo")
    first = await desk.begin(CHANGE_TIER, tenant_id, tier="premium")
    second = await desk.begin(CHANGE_TIER, other, tier="free")
    for workflow_id in (first, second):
        await desk.go_on(workflow_id, until=["move-environment"])

    await hear(pool, *(told(each, "move-environment", answers()["move-environment"]) for each in (first, second)))

    assert ((await known(pool, tenant_id))["tier"], (await known(pool, other))["tier"]) == ("premium", "free")


async def test_an_answer_that_comes_after_the_end_does_not_bring_back_what_has_changed_since(
    desk: Desk, pool: Pool, tenant_id: str
) -> None:
    """A step that was asked twice is answered twice, and the second answer may be slow."""
    suspension = await desk.begin(SUSPEND, tenant_id, suspendedFor="operator")
    await desk.go_on(suspension)
    renaming = await desk.begin(UPDATE_ACCOUNT, tenant_id, **UPDATE)
    await desk.go_on(renaming)
    await desk.finish(REACTIVATE, tenant_id)
    await desk.finish(UPDATE_ACCOUNT, tenant_id, **{**UPDATE, "customerName": "Cargo", "products": []})
    since = await known(pool, tenant_id)

    for workflow_id, step in ((suspension, "suspend-tenant"), (renaming, "update-tenant")):
        await hear(pool, told(workflow_id, step, answers()[step]))
        assert (await kinds(pool, workflow_id))[-1] == "late_success"

    assert await known(pool, tenant_id) == since
    assert (since["customer_name"], since["suspended_for"]) == ("Cargo", None)


async def test_a_late_answer_of_an_onboarding_that_was_undone_does_not_free_the_name_of_the_next(
    desk: Desk, pool: Pool
) -> None:
    undone = await desk.start("Acme")
    await desk.go_on(undone, refuse="open-account")
    workflow = (await desk.submit("Acme")).workflow

    await hear(pool, told(undone, "track-tenant", answers()["track-tenant"]))

    holder = await pool.fetchval("SELECT workflow_id FROM customer WHERE name_key = 'acme'")
    assert holder == UUID(workflow["id"])
