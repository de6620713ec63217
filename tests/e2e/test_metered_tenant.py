"""A tenant whose usage costs something, from the first event to its final invoice, over every service."""

from typing import Any

import pytest

from shared.testing import eventually
from tests.e2e.test_products import done
from tests.system import System

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session")]

NAME = "metered"
CALLS, PRICE = 120, "0.25"
PLAN: dict[str, Any] = {
    "name": NAME,
    "rank": 500,
    "currency": "USD",
    "prices": {"USD": "0"},
    "proration": "second",  # or nothing would be charged that comes and goes on one day
    "charges": [
        {"meter": "api_calls", "currency": "USD", "included": "20", "price": {"model": "per_unit", "unitAmount": PRICE}}
    ],
}


async def tier_is_known(system: System, tier: str = NAME) -> None:
    imaginary = [{"name": "imaginary", "version": "1.0"}]  # so that nothing is begun
    body = {"customerName": "Knows the tier", "adminEmails": ["a@tenants.example"], "tier": tier, "products": imaginary}

    async def is_known() -> bool:
        refused = await system.client.post("/v1/onboardings", json=body)
        return all(error["pointer"] != "/tier" for error in refused.json()["errors"])

    await eventually(is_known, describe="onboarding knows the tier")


async def sent(system: System, events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the answer to usage, which is not taken at once where tests before have put the clock forward by days."""

    async def is_taken() -> bool:
        answers.append(await system.client.post("/v1/usage", json=events))
        return bool(answers[-1].is_success)

    answers: list[Any] = []
    await eventually(is_taken, within=20, describe=lambda: str(answers[-1].text))
    return dict(answers[-1].json())


async def test_what_was_used_is_on_the_final_invoice_of_a_tenant_that_goes(system: System) -> None:
    await done(system.client.post("/v1/plans", json=PLAN))
    tier = {"name": NAME, "rank": 500, "plan": NAME, "quotas": {}, "isolation": "pool"}
    await done(system.client.post("/v1/tiers", json=tier))
    await tier_is_known(system)
    workflow = await system.finished(await system.onboard("Metered", tier=NAME))
    tenant_id = workflow["tenantId"]
    events = [
        {
            "specversion": "1.0",
            "source": "/test",
            "id": str(number),
            "type": "api_call",
            "subject": tenant_id,
            "time": system.clock.now().isoformat(),
        }
        for number in range(CALLS)
    ]
    taken = [await sent(system, events) for _ in range(2)]  # the very same ones twice
    assert [(answer["accepted"], answer["duplicates"]) for answer in taken] == [(CALLS, 0), (0, CALLS)], taken

    gone = await system.finished(
        await system.order("/v1/offboardings", tenantId=tenant_id, graceDays=0, reason="a test", export=False)
    )

    assert gone["status"] == "completed", gone
    (invoice,) = await system.items("/v1/invoices", tenantId=tenant_id)
    assert (invoice["state"], invoice["kind"], invoice["total"]) == ("final", "closing", "25.00")
    usage = [line for line in invoice["lines"] if "api_calls" in line["description"]]
    assert [(line["quantity"], line["amount"]) for line in usage] == [("100", "25.00")]
    assert (await system.audit()).findings == ()
