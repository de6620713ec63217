"""Who does not pay is told, refused, suspended and goes; who has paid is let in again: over every service.

On servers of its own: weeks pass, and an installation where dunning is on takes everybody in it for a debtor.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from deploy.local.stack import Stack
from services.billing import booking, dunning, invoicing
from services.onboarding import reviews
from shared.testing import eventually
from tests.e2e.test_lifecycles import completed, everywhere, tenant_of
from tests.system import System, running_system

pytestmark = [pytest.mark.broker, pytest.mark.inside, pytest.mark.asyncio(loop_scope="session")]

DAY = 86_400.0

module = pytest_asyncio.fixture(scope="module", loop_scope="session")


@pytest.fixture(scope="module", autouse=True)
def often() -> Iterator[None]:
    """Let loops look several times a second."""
    with pytest.MonkeyPatch.context() as patch:
        for loop in (invoicing, booking, dunning, reviews):
            patch.setattr(loop, "_POLL_SECONDS", 0.2)
        yield


@module
async def own_system(own_stack: Stack) -> AsyncIterator[System]:
    """The six services, with dunning on."""
    told = own_stack.environment
    environment = {**told, "billing": {**told["billing"], "TENURE_BILLING_DUNNING": "true"}}
    async with running_system(environment, audited=own_stack.audited, admin_key=own_stack.admin_key) as system:
        yield system


async def overdue(system: System, tenant_id: str) -> str:
    """Return how far behind a tenant is."""
    (balance,) = await system.items("/v1/balances", tenantId=tenant_id)
    return str(balance["overdue"])


async def state(system: System, tenant_id: str) -> str:
    return str((await system.client.get(f"/v1/tenants/{tenant_id}")).json()["state"])


async def unpaid(system: System, tenant_id: str) -> list[Mapping[str, Any]]:
    """Return the invoices of a tenant of which something is due, when all are booked."""
    invoices: Sequence[Mapping[str, Any]] = ()

    async def are_booked() -> bool:
        nonlocal invoices
        invoices = await system.items("/v1/invoices", tenantId=tenant_id)
        return all(each["amountDue"] is not None for each in invoices)

    await eventually(are_booked, within=20, describe="all invoices are booked")
    return [each for each in invoices if Decimal(each["amountDue"]) > 0]


async def pay(system: System, tenant_id: str) -> None:
    """Record that all is paid, each payment twice."""
    for invoice in await unpaid(system, tenant_id):
        body = {
            "invoiceId": invoice["invoiceId"],
            "amount": invoice["amountDue"],
            "currency": invoice["currency"],
            "reference": f"transfer {invoice['number']}",
        }
        answers = [await system.client.post("/v1/payments", json=body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 200], [answer.text for answer in answers]
        settled = (await system.client.get(f"/v1/invoices/{invoice['invoiceId']}")).json()
        assert (settled["amountDue"], settled["settledAt"] is None) == ("0.00", False)


async def is_in(system: System, tenant_id: str) -> bool:
    """Tell whether a tenant's administrator may sign in."""
    memberships = [each for user in await system.items("/v1/users", tenantId=tenant_id) for each in user["memberships"]]
    return {each["blocked"] for each in memberships if each["tenantId"] == tenant_id} == {False}


async def test_who_does_not_pay_is_suspended_and_goes_and_who_has_paid_is_let_in_again(own_system: System) -> None:
    system = own_system
    pays_late, never_pays = await tenant_of(system, "Pays late"), await tenant_of(system, "Never pays")
    both = (pays_late, never_pays)

    async def are(states: tuple[str, str]) -> bool:
        return (await state(system, pays_late), await state(system, never_pays)) == states

    async def are_behind(step: str) -> bool:
        return {await overdue(system, each) for each in both} == {step}

    async def owe() -> bool:
        return all([await unpaid(system, each) for each in both])

    system.clock.put_forward(31 * DAY)
    await eventually(owe, within=20, describe="invoices of which something is due")
    assert await are_behind("clear")

    system.clock.put_forward(10 * DAY)
    await eventually(lambda: are_behind("past_due"), within=20, describe="told to be past due")
    refused = await system.finished(await system.order("/v1/tier-changes", tenantId=pays_late, tier="premium"))
    assert (refused["status"], refused["failure"]["code"]) == ("compensated", "past_due")
    assert await are(("active", "active"))

    system.clock.put_forward(4 * DAY)
    await eventually(lambda: are(("suspended", "suspended")), within=20, describe="suspended")
    (workflow,) = await system.items("/v1/workflows", tenantId=pays_late, kind="suspend")
    assert (await system.finished(workflow))["status"] == "completed"
    assert not await is_in(system, pays_late)
    (subscription,) = await system.items("/v1/subscriptions", tenantId=pays_late)
    assert subscription["status"] == "paused"

    await pay(system, pays_late)
    await eventually(lambda: are(("active", "suspended")), within=20, describe="let in again")
    (workflow,) = await system.items("/v1/workflows", tenantId=pays_late, kind="reactivate")
    assert (await system.finished(workflow))["status"] == "completed"
    assert await is_in(system, pays_late)
    assert await overdue(system, pays_late) == "clear"
    await completed(system, "/v1/tier-changes", tenantId=pays_late, tier="premium")

    system.clock.put_forward(7 * DAY)
    await eventually(lambda: are(("active", "archived")), within=30, describe="gone")
    await eventually(lambda: is_nowhere(system, never_pays), describe="left nothing")
    assert await unpaid(system, never_pays)  # what it owes it still owes
    assert (await system.audit()).findings == ()


async def is_nowhere(system: System, tenant_id: str) -> bool:
    return await everywhere(system, tenant_id) == {}
