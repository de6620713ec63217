"""What may be ordered for whom: who joins, who is refused, and whose name it is."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import orjson
import pytest

from services.onboarding import queries
from services.onboarding.definition import Definition
from services.onboarding.lifecycles.change_products import CHANGE_PRODUCTS
from services.onboarding.lifecycles.change_tier import CHANGE_TIER
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.lifecycles.update_account import UPDATE_ACCOUNT
from services.onboarding.orders import Order
from services.onboarding.saga import Abandon
from services.onboarding.tests.catalogue import REQUEST
from services.onboarding.tests.support import IDS, Desk, account, blocked, go_on, open_desk, stored
from services.onboarding.workflow import Status
from shared.contracts.identity import AddAdministrators
from shared.http import Problem
from shared.messaging.event import decode
from shared.postgres import Pool, transaction
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker

NOTES = {"name": "notes", "version": "1.0"}
CHESS = {"name": "chess", "version": "1.0"}
ACCOUNT: Mapping[str, Any] = {
    "customerName": "Acme",
    "expiration": "2099-12-31",
    "products": [NOTES],
    "adminEmails": ["ada@example.com"],
}
ORDERS: Mapping[str, tuple[Definition, Mapping[str, Any]]] = {
    "change-tier": (CHANGE_TIER, {"tier": "premium"}),
    "change-products": (CHANGE_PRODUCTS, {"products": [CHESS]}),
    "update-account": (UPDATE_ACCOUNT, ACCOUNT),
    "suspend": (SUSPEND, {"suspendedFor": "operator"}),
    "offboard": (OFFBOARD, {"graceDays": 0, "export": True}),
}
"""What can be ordered for an active tenant."""

SPOKEN_AGAINST: list[tuple[Definition, Mapping[str, Any]]] = [(REACTIVATE, {}), (CHANGE_TIER, {"tier": "standard"})]
"""What an active tenant is refused; but while a workflow is at work, nobody knows what it will be."""


@pytest.fixture
async def other_desk(database_url: str, broker: MemoryBroker) -> AsyncIterator[Desk]:
    """The intake of a second replica."""
    async with open_desk(database_url, broker) as desk:
        yield desk


async def refused(attempt: Any, status: int, code: str, pointer: str) -> Problem:
    """Expect a problem that names the field."""
    with pytest.raises(Problem) as problem:
        await attempt
    assert (problem.value.status, problem.value.code) == (status, code)
    assert [error.pointer for error in problem.value.errors] == [pointer]
    return problem.value


def joining(name: str = "Acme", email: str = "cleo@example.com", **insisted: Any) -> Order:
    """Order a second onboarding of a customer, by a request that names the tier or the products itself or does not."""
    request = {**REQUEST, "customerName": name, "adminEmails": [email], **insisted}
    return Order(ONBOARD, request, insisted)


def update(tenant_id: str, name: str = "Acme", **account: Any) -> Order:
    request = {**ACCOUNT, "customerName": name, **account, "tenantId": tenant_id}
    return Order(UPDATE_ACCOUNT, request, tenant_field="accountId")


async def named(pool: Pool) -> dict[str, str]:
    """Return which tenant holds each name."""
    return {row["name_key"]: row["tenant_id"] for row in await pool.fetch("SELECT name_key, tenant_id FROM customer")}


# Whoever is a customer already is joined


async def test_a_second_onboarding_of_a_customer_adds_administrators_and_creates_nothing(
    desk: Desk, pool: Pool
) -> None:
    tenant_id = await desk.tenant("Acme Café")
    before = await account(pool, tenant_id)

    workflow = (await desk.order(joining(" ACME  Cafe\u0301 "))).workflow

    assert (workflow["kind"], workflow["tenantId"], workflow["customerName"]) == ("onboard", tenant_id, "Acme Café")
    assert [step["name"] for step in workflow["steps"]] == ["add-administrators"]
    row = await pool.fetchrow("SELECT event FROM outbox WHERE routing_key = 'identity.add_administrators.v1'")
    assert row is not None
    assert decode(orjson.loads(row["event"])).message == AddAdministrators(
        tenant_id=tenant_id, customer_name="Acme Café", emails=("cleo@example.com",)
    )
    await desk.go_on(UUID(workflow["id"]))
    assert (await stored(pool, UUID(workflow["id"]))).workflow.status is Status.COMPLETED
    assert (await account(pool, tenant_id), await named(pool)) == (before, {"acme café": tenant_id})


async def test_a_join_that_is_refused_leaves_the_tenant_its_name(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme")
    workflow_id = UUID((await desk.order(joining())).workflow["id"])

    await desk.go_on(workflow_id, refuse="add-administrators")

    assert (await stored(pool, workflow_id)).workflow.status is Status.COMPENSATED
    assert await named(pool) == {"acme": tenant_id}


async def test_people_join_one_after_the_other(desk: Desk, pool: Pool) -> None:
    await desk.tenant("Acme")
    first = await desk.order(joining(email="cleo@example.com"))

    problem = await refused(desk.order(joining(email="dora@example.com")), 409, "workflow_active", "/customerName")
    assert first.workflow["id"] in problem.detail
    await desk.go_on(UUID(first.workflow["id"]))

    assert (await desk.order(joining(email="dora@example.com"))).workflow["status"] == "running"


@pytest.mark.parametrize(
    "insisted",
    [{}, {"tier": "standard"}, {"products": [CHESS, NOTES]}, {"tier": "standard", "products": [NOTES, CHESS]}],
)
async def test_whoever_insists_on_what_the_tenant_has_joins(desk: Desk, insisted: dict[str, Any]) -> None:
    tenant_id = await desk.tenant("Acme", products=[NOTES, CHESS])

    assert (await desk.order(joining(**insisted))).workflow["tenantId"] == tenant_id


@pytest.mark.parametrize(
    ("insisted", "pointer"),
    [
        ({"tier": "premium"}, "/tier"),
        ({"products": [NOTES]}, "/products"),
        ({"products": [NOTES, {**CHESS, "version": "2.0"}]}, "/products"),
        ({"tier": "standard", "products": [CHESS]}, "/products"),
    ],
)
async def test_whoever_insists_on_something_else_is_refused(
    desk: Desk, pool: Pool, insisted: dict[str, Any], pointer: str
) -> None:
    tenant_id = await desk.tenant("Acme", products=[NOTES, CHESS])

    problem = await refused(desk.order(joining(**insisted)), 409, "tenant_differs", pointer)

    assert tenant_id in problem.detail
    assert await pool.fetchval("SELECT count(*) FROM workflow") == 1


async def test_what_the_tenant_has_now_is_what_counts(desk: Desk) -> None:
    tenant_id = await desk.tenant("Acme", products=[NOTES])
    await desk.finish(CHANGE_TIER, tenant_id, tier="premium")
    await desk.finish(CHANGE_PRODUCTS, tenant_id, products=[CHESS])

    await refused(desk.order(joining(tier="standard")), 409, "tenant_differs", "/tier")
    await refused(desk.order(joining(products=[NOTES])), 409, "tenant_differs", "/products")

    assert (await desk.order(joining(tier="premium", products=[CHESS]))).workflow["tenantId"] == tenant_id


# One workflow at a time


@pytest.mark.parametrize("first", ORDERS)
async def test_while_one_workflow_is_at_work_on_a_tenant_no_other_starts(desk: Desk, pool: Pool, first: str) -> None:
    tenant_id = await desk.tenant("Acme", products=[NOTES])
    definition, request = ORDERS[first]
    workflow_id = await desk.begin(definition, tenant_id, **request)
    holders = await named(pool)

    for second, details in (*ORDERS.values(), *SPOKEN_AGAINST):
        order = Order(second, {"tenantId": tenant_id, **details})
        problem = await refused(desk.order(order), 409, "workflow_active", "/tenantId")
        assert (str(workflow_id) in problem.detail, tenant_id in problem.detail) == (True, True)
    for order in (joining(), joining(tier="premium")):
        await refused(desk.order(order), 409, "workflow_active", "/customerName")

    assert await pool.fetchval("SELECT count(*) FROM workflow") == 2
    assert await named(pool) == holders


async def test_while_a_customer_is_onboarded_nothing_else_is_done_with_it(desk: Desk) -> None:
    accepted = await desk.submit("Acme")

    for definition, details in (*ORDERS.values(), *SPOKEN_AGAINST):
        order = Order(definition, {"tenantId": accepted.workflow["tenantId"], **details})
        problem = await refused(desk.order(order), 409, "workflow_active", "/tenantId")
        assert accepted.workflow["id"] in problem.detail
    await refused(desk.order(joining()), 409, "workflow_active", "/customerName")


async def test_a_workflow_that_needs_attention_is_still_at_work(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme")
    workflow_id = await desk.begin(SUSPEND, tenant_id, suspendedFor="operator")
    await pool.execute("UPDATE workflow SET status = 'needs_attention' WHERE id = $1", workflow_id)

    order = Order(CHANGE_TIER, {"tenantId": tenant_id, "tier": "premium"})
    problem = await refused(desk.order(order), 409, "workflow_active", "/tenantId")

    assert str(workflow_id) in problem.detail


async def test_of_many_orders_for_one_tenant_at_once_exactly_one_is_accepted(
    desk: Desk, other_desk: Desk, pool: Pool
) -> None:
    tenant_id = await desk.tenant("Acme", products=[NOTES])
    wanted = [Order(definition, {"tenantId": tenant_id, **details}) for definition, details in ORDERS.values()]
    wanted += [joining(), update(tenant_id, "Bolt"), update(tenant_id, "Cargo")]

    attempts = [each.order(order) for order in wanted for each in (desk, other_desk)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)

    problems = [each for each in outcomes if isinstance(each, Problem)]
    (accepted,) = [each for each in outcomes if not isinstance(each, BaseException)]
    assert [problem.code for problem in problems] == ["workflow_active"] * (2 * len(wanted) - 1)
    assert all(accepted.workflow["id"] in problem.detail for problem in problems)
    assert await pool.fetchval("SELECT count(*) FROM workflow") == 2
    assert set((await named(pool)).values()) == {tenant_id}
    held = await pool.fetch("SELECT workflow_id FROM customer WHERE name_key <> 'acme'")
    assert [str(row["workflow_id"]) for row in held] in ([], [accepted.workflow["id"]])


async def test_of_orders_that_are_accepted_together_the_first_for_a_tenant_and_for_a_name_wins(
    desk: Desk, database_url: str, broker: MemoryBroker, pool: Pool
) -> None:
    acme, bolt = await desk.tenant("Acme"), await desk.tenant("Bolt")
    together = [
        Order(SUSPEND, {"tenantId": acme, "suspendedFor": "operator"}),
        update(acme, "Dock"),
        update(bolt, "Cargo"),
        update(bolt, "Cargo"),
        update(acme, "Cargo"),
        Order(CHANGE_TIER, {"tenantId": bolt, "tier": "premium"}),
    ]
    async with open_desk(database_url, broker, is_open=False) as closed:
        attempts = [asyncio.create_task(closed.order(order)) for order in together]
        await asyncio.sleep(0)
        opened = asyncio.create_task(closed.intake.run())
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        opened.cancel()

    codes = [each.code if isinstance(each, Problem) else "accepted" for each in outcomes]
    accepted, outrun = "accepted", "workflow_active"
    assert codes == [accepted, outrun, accepted, outrun, "customer_exists", outrun]
    assert await named(pool) == {"acme": acme, "bolt": bolt, "cargo": bolt}


async def test_orders_for_many_tenants_at_once_disturb_each_other_only_where_they_meet(
    desk: Desk, other_desk: Desk, pool: Pool
) -> None:
    tenants = [await desk.tenant(f"Customer {number}") for number in range(6)]

    attempts = [
        each.order(Order(SUSPEND, {"tenantId": tenant_id, "suspendedFor": "operator"}))
        for each, order in ((desk, tenants), (other_desk, tenants[::-1]))
        for tenant_id in order
    ]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)

    problems = [each for each in outcomes if isinstance(each, Problem)]
    assert [problem.code for problem in problems] == ["workflow_active"] * len(tenants)
    assert await pool.fetchval("SELECT count(DISTINCT tenant_id) FROM workflow WHERE status = 'running'") == 6


async def test_an_order_is_held_against_what_the_tenant_is_when_it_starts(desk: Desk, pool: Pool) -> None:
    """It was looked at before, and then another replica has begun and ended a workflow."""
    tenant_id = await desk.tenant("Acme")

    async with transaction(pool) as connection:
        await connection.execute("LOCK TABLE workflow IN SHARE MODE")
        late = asyncio.create_task(desk.order(Order(SUSPEND, {"tenantId": tenant_id, "suspendedFor": "operator"})))
        await eventually(lambda: _are_blocked(pool, 1))
        await queries.change_accounts(connection, [{"tenant_id": tenant_id, "suspended_for": "operator"}])

    await refused(late, 409, "wrong_state", "/tenantId")
    assert await pool.fetchval("SELECT count(*) FROM workflow") == 1


async def test_a_tenant_that_goes_before_its_order_starts_is_not_there(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme")

    async with transaction(pool) as connection:
        await connection.execute("LOCK TABLE workflow IN SHARE MODE")
        late = asyncio.create_task(desk.order(Order(SUSPEND, {"tenantId": tenant_id, "suspendedFor": "operator"})))
        await eventually(lambda: _are_blocked(pool, 1))
        await queries.forget_accounts(connection, [tenant_id])

    await refused(late, 404, "unknown_tenant", "/tenantId")


async def _are_blocked(pool: Pool, sessions: int) -> bool:
    return await blocked(pool) == sessions


# What the tenant is speaks against it


@pytest.mark.parametrize("name", [*ORDERS, "reactivate"])
async def test_a_tenant_that_is_not_there_is_named(desk: Desk, pool: Pool, name: str) -> None:
    definition, details = ORDERS.get(name, (REACTIVATE, {}))

    problem = await refused(
        desk.order(Order(definition, {"tenantId": "nobody", **details})), 404, "unknown_tenant", "/tenantId"
    )

    assert "nobody" in problem.detail
    assert await pool.fetchval("SELECT count(*) FROM workflow") == 0


async def test_the_problem_names_the_tenant_as_the_request_does(desk: Desk) -> None:
    await refused(desk.order(update("nobody")), 404, "unknown_tenant", "/accountId")


@pytest.mark.parametrize("name", ["change-tier", "change-products", "suspend"])
async def test_what_only_an_active_tenant_can_have_is_refused_to_a_suspended_one(desk: Desk, name: str) -> None:
    tenant_id = await desk.tenant("Acme")
    await desk.finish(SUSPEND, tenant_id, suspendedFor="operator")
    definition, details = ORDERS[name]

    await refused(desk.order(Order(definition, {"tenantId": tenant_id, **details})), 409, "wrong_state", "/tenantId")
    await desk.finish(REACTIVATE, tenant_id)

    assert await desk.begin(definition, tenant_id, **details)


@pytest.mark.parametrize("name", ["update-account", "offboard", "onboard"])
async def test_a_suspended_tenant_can_be_updated_joined_and_off_boarded(desk: Desk, name: str) -> None:
    tenant_id = await desk.tenant("Acme")
    await desk.finish(SUSPEND, tenant_id, suspendedFor="operator")
    definition, details = ORDERS.get(name, (ONBOARD, {}))
    order = joining() if definition is ONBOARD else Order(definition, {"tenantId": tenant_id, **details})

    assert (await desk.order(order)).workflow["tenantId"] == tenant_id


async def test_a_tenant_that_is_not_suspended_cannot_be_reactivated(desk: Desk) -> None:
    tenant_id = await desk.tenant("Acme")

    await refused(desk.order(Order(REACTIVATE, {"tenantId": tenant_id})), 409, "wrong_state", "/tenantId")


async def test_after_an_abandoned_workflow_the_tenant_service_judges_not_the_door(desk: Desk, pool: Pool) -> None:
    """What it left is not known here: a reactivation must be possible, and a suspension, and the tier it may have."""
    tenant_id = await desk.tenant("Acme")
    workflow_id = await desk.begin(SUSPEND, tenant_id, suspendedFor="operator")
    await pool.execute("UPDATE workflow SET status = 'needs_attention' WHERE id = $1", workflow_id)
    async with transaction(pool) as connection:
        assert await desk.engine.act(connection, workflow_id, Abandon("ada", "By hand."))

    await desk.finish(REACTIVATE, tenant_id)

    await refused(desk.order(Order(REACTIVATE, {"tenantId": tenant_id})), 409, "wrong_state", "/tenantId")


async def test_a_suspension_that_was_undone_did_not_suspend(desk: Desk) -> None:
    tenant_id = await desk.tenant("Acme")
    await desk.finish(SUSPEND, tenant_id, suspendedFor="operator", refuse="throttle-environment")

    await refused(desk.order(Order(REACTIVATE, {"tenantId": tenant_id})), 409, "wrong_state", "/tenantId")


async def test_a_tenant_is_not_put_on_the_tier_that_it_is_on(desk: Desk) -> None:
    tenant_id = await desk.tenant("Acme", tier="free")

    for tier in ("premium", "free"):
        await desk.finish(CHANGE_TIER, tenant_id, tier=tier)
        order = Order(CHANGE_TIER, {"tenantId": tenant_id, "tier": tier})
        await refused(desk.order(order), 409, "same_tier", "/tier")


# Off-boarding by the customer's name


async def test_a_tenant_is_off_boarded_by_its_id_or_by_its_customers_name(desk: Desk) -> None:
    rest = {"graceDays": 0, "export": False}
    by_id, by_name, by_both = [await desk.tenant(name) for name in ("Acme", "Bolt Café", "Cargo")]

    accepted = [
        await desk.order(Order(OFFBOARD, {**named, **rest}))
        for named in (
            {"tenantId": by_id},
            {"customerName": " BOLT  cafe\u0301"},
            {"tenantId": by_both, "customerName": "CARGO"},
        )
    ]

    assert [each.workflow["tenantId"] for each in accepted] == [by_id, by_name, by_both]


async def test_an_off_boarding_whose_name_and_id_are_of_two_customers_is_refused(desk: Desk, pool: Pool) -> None:
    tenant_id, _ = await desk.tenant("Acme"), await desk.tenant("Bolt")
    rest = {"graceDays": 0, "export": False}

    disagreeing = Order(OFFBOARD, {"tenantId": tenant_id, "customerName": "Bolt", **rest})
    problem = await refused(desk.order(disagreeing), 409, "tenant_differs", "/customerName")
    await refused(
        desk.order(Order(OFFBOARD, {"customerName": "Cargo", **rest})), 404, "unknown_tenant", "/customerName"
    )

    assert tenant_id in problem.detail
    assert await pool.fetchval("SELECT count(*) FROM workflow") == 2


async def test_after_an_off_boarding_the_name_is_free_and_the_tenant_unknown(desk: Desk, pool: Pool) -> None:
    gone = await desk.tenant("Acme")
    await desk.finish(OFFBOARD, gone, graceDays=0, export=True)

    order = Order(SUSPEND, {"tenantId": gone, "suspendedFor": "operator"})
    await refused(desk.order(order), 404, "unknown_tenant", "/tenantId")
    assert await pool.fetch("SELECT * FROM live_record") == []
    workflow = (await desk.submit("ACME")).workflow

    assert workflow["tenantId"] != gone
    assert workflow["steps"][0]["name"] == "register-tenant"


async def test_until_its_data_is_deleted_a_tenant_that_goes_keeps_its_name(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme")
    await desk.finish(OFFBOARD, tenant_id, graceDays=30, export=True, refuse="close-account")

    assert await named(pool) == {"acme": tenant_id}
    assert (await desk.order(joining())).workflow["tenantId"] == tenant_id


# Renaming


async def test_while_a_customer_is_renamed_both_names_are_its_own(desk: Desk, pool: Pool) -> None:
    tenant_id, other = await desk.tenant("Acme"), await desk.tenant("Bolt")
    renaming = (await desk.order(update(tenant_id, "Cargo"))).workflow

    problem = await refused(desk.order(update(other, "CARGO")), 409, "customer_exists", "/customerName")
    assert (tenant_id in problem.detail, renaming["id"] in problem.detail) == (True, True)
    for name in ("Acme", "cargo"):
        problem = await refused(desk.submit(name), 409, "workflow_active", "/customerName")
        assert renaming["id"] in problem.detail
    order = Order(OFFBOARD, {"customerName": "Cargo", "graceDays": 0, "export": False})
    await refused(desk.order(order), 404, "unknown_tenant", "/customerName")

    assert await named(pool) == {"acme": tenant_id, "cargo": tenant_id, "bolt": other}
    assert (await account(pool, tenant_id))["customer_name"] == "Acme"


async def test_a_second_renaming_of_the_same_customer_is_told_of_the_first(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme")
    first = (await desk.order(update(tenant_id, "Cargo"))).workflow

    for name in ("Cargo", "Dock"):
        problem = await refused(desk.order(update(tenant_id, name)), 409, "workflow_active", "/accountId")
        assert first["id"] in problem.detail

    assert await named(pool) == {"acme": tenant_id, "cargo": tenant_id}


async def test_a_renamed_customer_has_its_new_name_and_not_its_old_one(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme")
    await desk.go_on(UUID((await desk.order(update(tenant_id, "Cargo"))).workflow["id"]))

    known = await account(pool, tenant_id)
    assert (known["customer_name"], known["name_key"], known["is_onboarded"]) == ("Cargo", "cargo", True)
    assert await named(pool) == {"cargo": tenant_id}
    assert (await desk.order(joining("CARGO"))).workflow["tenantId"] == tenant_id
    assert (await desk.submit("Acme")).workflow["tenantId"] != tenant_id


async def test_a_customer_may_be_renamed_again_and_back(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme")
    for name in ("Bolt", "Cargo", "Acme"):
        await desk.go_on(UUID((await desk.order(update(tenant_id, name))).workflow["id"]))

    assert (await named(pool), (await account(pool, tenant_id))["customer_name"]) == ({"acme": tenant_id}, "Acme")


async def test_writing_the_same_name_differently_takes_no_other_name(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme")
    workflow_id = UUID((await desk.order(update(tenant_id, "ACME"))).workflow["id"])

    assert await named(pool) == {"acme": tenant_id}
    await desk.go_on(workflow_id)

    assert ((await account(pool, tenant_id))["customer_name"], await named(pool)) == ("ACME", {"acme": tenant_id})


async def test_a_customer_cannot_take_the_name_of_another(desk: Desk, pool: Pool) -> None:
    tenant_id, other = await desk.tenant("Acme"), await desk.tenant("Bolt")

    problem = await refused(desk.order(update(tenant_id, "bolt")), 409, "customer_exists", "/customerName")

    assert other in problem.detail
    assert await pool.fetchval("SELECT count(*) FROM workflow") == 2


@pytest.mark.parametrize("refuse", ["update-tenant", "set-administrators", "deploy-products"])
async def test_a_renaming_that_was_undone_gives_the_new_name_back(desk: Desk, pool: Pool, refuse: str) -> None:
    tenant_id = await desk.tenant("Acme")
    await desk.go_on(UUID((await desk.order(update(tenant_id, "Cargo"))).workflow["id"]), refuse=refuse)

    assert await named(pool) == {"acme": tenant_id}
    assert (await account(pool, tenant_id))["customer_name"] == "Acme"
    assert (await desk.submit("Cargo")).workflow["tenantId"] != tenant_id


async def test_of_two_customers_that_want_one_name_at_once_one_gets_it(
    desk: Desk, other_desk: Desk, pool: Pool
) -> None:
    tenants = [await desk.tenant(name) for name in ("Acme", "Bolt")]

    attempts = [
        *(each.order(update(tenant, "Cargo")) for each, tenant in zip((desk, other_desk), tenants, strict=True)),
        *(each.submit("CARGO") for each in (desk, other_desk)),
    ]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)

    problems = [each for each in outcomes if isinstance(each, Problem)]
    (accepted,) = [each for each in outcomes if not isinstance(each, BaseException)]
    assert {problem.code for problem in problems} <= {"customer_exists", "workflow_active"}
    assert (len(problems), (await named(pool))["cargo"]) == (3, accepted.workflow["tenantId"])


async def test_names_that_are_taken_together_are_taken_in_any_order(desk: Desk, other_desk: Desk, pool: Pool) -> None:
    """Two replicas that take the same names in other orders must not wait for each other."""
    names = [f"Customer {number}" for number in range(10)]

    attempts = [each.submit(name) for each, order in ((desk, names), (other_desk, names[::-1])) for name in order]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)

    assert [each.code for each in outcomes if isinstance(each, Problem)] == ["workflow_active"] * 10
    assert len(await named(pool)) == 10


# What the code of the release before has written


async def onboarded_before(pool: Pool, desk: Desk, name: str = "Acme", **request: Any) -> tuple[UUID, str]:
    """Begin an onboarding as the release before does: without the columns that it does not know."""
    workflow_id, tenant_id = IDS.new(), str(IDS.new())
    template = await stored(pool, await desk.start("Template"))
    await pool.execute("DELETE FROM customer WHERE name_key = 'template'")
    async with transaction(pool) as connection:
        await connection.execute(
            "INSERT INTO customer (name_key, tenant_id, workflow_id) VALUES ($1, $2, $3)",
            name.casefold(),
            tenant_id,
            workflow_id,
        )
        await connection.execute(
            """
            INSERT INTO workflow (
                id, kind, version, tenant_id, customer_name, name_key, plan, request, seq, created_at, updated_at)
            SELECT $2, kind, version, $3, $4, $5, plan, $6, seq, created_at, updated_at FROM workflow WHERE id = $1
            """,
            template.workflow.id,
            workflow_id,
            tenant_id,
            name,
            name.casefold(),
            {**REQUEST, "customerName": name, **request},
        )
        await connection.execute(
            """
            INSERT INTO step (workflow_id, name, status, attempts, undo_attempts, may_have_effect, ask_id, due_at, due)
            SELECT $2, name, status, attempts, undo_attempts, may_have_effect, ask_id, due_at, due
            FROM step WHERE workflow_id = $1
            """,
            template.workflow.id,
            workflow_id,
        )
    return workflow_id, tenant_id


async def test_what_the_release_before_has_begun_is_finished_and_goes_on_like_any_other(desk: Desk, pool: Pool) -> None:
    workflow_id, tenant_id = await onboarded_before(pool, desk, products=[NOTES], expiration="2099-12-31")
    await refused(desk.order(joining()), 409, "workflow_active", "/customerName")

    await desk.go_on(workflow_id)

    known = await account(pool, tenant_id)
    assert (known["tier"], known["products"], str(known["expiration"])) == ("standard", [NOTES], "2099-12-31")
    assert (known["suspended_for"], known["is_onboarded"]) == (None, True)
    await refused(desk.order(joining(tier="premium")), 409, "tenant_differs", "/tier")
    await desk.finish(CHANGE_TIER, tenant_id, tier="premium")
    await desk.finish(SUSPEND, tenant_id, suspendedFor="operator")
    await desk.finish(REACTIVATE, tenant_id)
    await desk.go_on(UUID((await desk.order(update(tenant_id, "Bolt"))).workflow["id"]))
    await desk.finish(OFFBOARD, tenant_id, graceDays=0, export=False)
    assert await pool.fetch("SELECT * FROM live_record WHERE tenant_id = $1", tenant_id) == []


async def test_what_the_release_before_has_begun_is_undone_and_its_name_free(desk: Desk, pool: Pool) -> None:
    workflow_id, tenant_id = await onboarded_before(pool, desk)

    await go_on(pool, workflow_id, refuse="track-tenant")

    assert (await stored(pool, workflow_id)).workflow.status is Status.COMPENSATED
    assert await account(pool, tenant_id) == {}
    assert (await desk.submit("Acme")).workflow["tenantId"] != tenant_id
