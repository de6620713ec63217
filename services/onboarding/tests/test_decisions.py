"""What the audit trail is told of orders and of what operators do, in the transaction of what was decided."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest

from services.onboarding.expiration import Terms
from services.onboarding.lifecycles.change_products import CHANGE_PRODUCTS
from services.onboarding.lifecycles.change_tier import CHANGE_TIER
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.lifecycles.update_account import UPDATE_ACCOUNT
from services.onboarding.operators import Operators
from services.onboarding.orders import Order
from services.onboarding.reviews import Reviews
from services.onboarding.saga import Cancel, Retry, Skip
from services.onboarding.tests.catalogue import FULL
from services.onboarding.tests.support import Desk, open_desk
from shared import failpoints
from shared.access import ADMINISTRATOR
from shared.clock import ManualClock
from shared.contracts.base import Decision
from shared.http import Problem
from shared.postgres import Pool
from shared.testing.decisions import decided
from shared.testing.memory_bus import MemoryBroker

PERSONAL = ("ada@example.com", "bea@example.com", "Ring 1", "4930", "1234", "Postfach")


async def last(pool: Pool) -> Decision:
    return (await decided(pool))[-1]


@pytest.fixture(autouse=True)
def silence(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave everything in the outbox."""

    async def send(_: object) -> None:
        pass

    monkeypatch.setattr(desk.kernel.relay, "send", send)


async def test_an_accepted_order_is_told_with_who_ordered_what_and_of_persons_nothing(desk: Desk, pool: Pool) -> None:
    accepted = await desk.order(Order(ONBOARD, FULL), principal="user:ada")

    (decision,) = await decided(pool)
    assert (decision.actor, decision.action, decision.tenant_id) == (
        "user:ada",
        "onboard.ordered",
        accepted.workflow["tenantId"],
    )
    assert (decision.subject, decision.before) == (f"workflow:{accepted.workflow['id']}", None)
    hidden = dict.fromkeys(("adminEmails", "address", "phone", "billingAddress"), "…")
    assert decision.after == {**FULL, **hidden}
    told = decision.model_dump_json()
    assert [each for each in PERSONAL if each in told] == []


async def test_of_a_tenant_that_is_there_is_told_what_is_to_change(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme", products=[{"name": "notes", "version": "1.0"}], expiration="2027-01-31")
    orders: list[tuple[Order, dict[str, Any], dict[str, Any]]] = [
        (Order(CHANGE_TIER, {"tenantId": tenant_id, "tier": "premium"}), {"tier": "standard"}, {"tier": "premium"}),
        (
            Order(CHANGE_PRODUCTS, {"tenantId": tenant_id, "products": []}),
            {"products": [{"name": "notes", "version": "1.0"}]},
            {"products": []},
        ),
        (
            Order(UPDATE_ACCOUNT, {"tenantId": tenant_id, "customerName": "Bolt", "adminEmails": ["bea@example.com"],
                                   "products": [], "expiration": "2028-01-31"}),
            {"customerName": "Acme", "expiration": "2027-01-31"},
            {"customerName": "Bolt", "adminEmails": "…", "expiration": "2028-01-31"},
        ),
        (
            Order(SUSPEND, {"tenantId": tenant_id, "suspendedFor": "operator", "reason": "unpaid"}),
            {},
            {"suspendedFor": "operator"},
        ),
        (
            Order(OFFBOARD, {"customerName": "Bolt", "graceDays": 30, "export": True}),
            {},
            {"graceDays": 30, "export": True},
        ),
    ]  # fmt: skip
    for order, before, after in orders:
        accepted = await desk.order(order)
        decision = await last(pool)
        assert decision.action == f"{order.definition.kind}.ordered"
        assert (decision.tenant_id, decision.subject) == (tenant_id, f"workflow:{accepted.workflow['id']}")
        assert (decision.before, decision.after) == (before, after)
        assert decision.reason == order.request.get("reason")
        if order.definition is not OFFBOARD:
            await desk.go_on(UUID(accepted.workflow["id"]))


async def test_an_order_that_joins_a_tenant_is_one_of_that_tenant(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme")
    await desk.submit("Acme", adminEmails=["bea@example.com"])

    decision = await last(pool)
    assert (decision.tenant_id, decision.action) == (tenant_id, "onboard.ordered")
    assert (decision.before, decision.after) == ({}, {"adminEmails": "…"})


async def test_of_many_that_are_accepted_together_each_is_told_once(desk: Desk, pool: Pool) -> None:
    accepted = await asyncio.gather(*(desk.submit(f"Customer {number}") for number in range(20)))

    told = [(each.subject, each.tenant_id) for each in await decided(pool)]
    assert sorted(told) == sorted((f"workflow:{each.workflow['id']}", each.workflow["tenantId"]) for each in accepted)


async def test_what_is_refused_replayed_or_rolled_back_is_not_told(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant("Acme")
    await desk.submit("Bolt", key="k1")
    before = await decided(pool)

    assert (await desk.submit("Bolt", key="k1")).replayed
    with pytest.raises(Problem):
        await desk.order(Order(CHANGE_TIER, {"tenantId": tenant_id, "tier": "standard"}))
    with failpoints.armed("outbox_inserted=raise"), pytest.raises(failpoints.FailpointError):
        await desk.submit("Cargo")

    assert await decided(pool) == before


async def test_what_an_operator_does_is_told_with_the_reason_and_what_became_of_the_workflow(
    desk: Desk, pool: Pool
) -> None:
    operators = Operators(desk.kernel, desk.engine, desk.watch)
    workflow_id = await desk.start()
    tenant_id = (await last(pool)).tenant_id
    before = len(await decided(pool))
    await operators.act(workflow_id, Retry(ADMINISTRATOR.id, "It is slow."), ADMINISTRATOR)
    await operators.act(workflow_id, Cancel(ADMINISTRATOR.id, "Ticket 7"), ADMINISTRATOR)

    retried, cancelled = (await decided(pool))[before:]
    for decision in (retried, cancelled):
        assert (decision.actor, decision.role) == ("system-administrator", "SystemAdmin")
        assert (decision.tenant_id, decision.subject) == (tenant_id, f"workflow:{workflow_id}")
    assert (retried.action, retried.reason) == ("workflow.retried", "It is slow.")
    assert (retried.before, retried.after) == ({}, {})
    assert (cancelled.action, cancelled.reason) == ("workflow.cancelled", "Ticket 7")
    assert (cancelled.before, cancelled.after) == ({"status": "running"}, {"status": "compensating"})


async def test_an_action_that_is_forbidden_is_not_told(desk: Desk, pool: Pool) -> None:
    operators = Operators(desk.kernel, desk.engine, desk.watch)
    workflow_id = await desk.start()
    before = await decided(pool)

    with pytest.raises(Problem):
        await operators.act(workflow_id, Skip("register-tenant", ADMINISTRATOR.id, "By hand."), ADMINISTRATOR)
    with failpoints.armed("outbox_inserted=raise"), pytest.raises(failpoints.FailpointError):
        await operators.act(workflow_id, Cancel(ADMINISTRATOR.id, "Ticket 7"), ADMINISTRATOR)

    assert await decided(pool) == before


async def test_what_the_end_of_a_contract_orders_is_decided_by_it(database_url: str, broker: MemoryBroker) -> None:
    clock = ManualClock()
    async with open_desk(database_url, broker, clock=clock) as desk:
        broker.go_away()
        tenant_id = await desk.tenant("Acme", expiration="2026-03-01")
        await clock.advance(timedelta(days=60).total_seconds())
        terms = Terms(warning=timedelta(days=14), grace=timedelta(days=30))
        await Reviews(desk.kernel, desk.intake, terms).review()

        decision = await last(desk.pool)
    assert (decision.actor, decision.role) == ("expiration", None)
    assert (decision.tenant_id, decision.action, decision.reason) == (tenant_id, "suspend.ordered", "expired")
    assert (decision.before, decision.after) == ({}, {"suspendedFor": "expiration"})


async def test_whoever_asks_at_the_door_is_the_one_who_decides(
    client: httpx2.AsyncClient, broker: MemoryBroker, pool: Pool
) -> None:
    broker.go_away()
    workflow = (await client.post("/v1/onboardings", json=dict(FULL))).json()
    path, body = f"/v1/workflows/{workflow['id']}", {"reason": "Ticket 7"}
    assert (await client.post(f"{path}/cancel", json=body)).status_code == 200
    assert (await client.post(f"{path}/abandon", json=body)).status_code == 409

    assert [(each.actor, each.role, each.action, each.reason) for each in await decided(pool)] == [
        ("system-administrator", "SystemAdmin", "onboard.ordered", None),
        ("system-administrator", "SystemAdmin", "workflow.cancelled", "Ticket 7"),
    ]
