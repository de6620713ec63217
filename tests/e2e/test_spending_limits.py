"""A tenant that has spent what it may, from the limit in billing to the usage that metrics refuses, and back."""

import itertools
from typing import Any

import pytest

from shared.testing import eventually
from tests.e2e.test_metered_tenant import sent, tier_is_known
from tests.e2e.test_products import done
from tests.system import System

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session")]

NAME = "limited"
CHARGE = {"meter": "api_calls", "currency": "USD", "price": {"model": "per_unit", "unitAmount": "0.25"}}
PLAN = {"name": NAME, "rank": 510, "currency": "USD", "prices": {"USD": "0"}, "charges": [CHARGE]}
TIER = {"name": NAME, "rank": 510, "plan": NAME, "quotas": {}, "isolation": "pool"}


_numbers = itertools.count()


def call(system: System, tenant_id: str, number: int) -> dict[str, Any]:
    time = system.clock.now().isoformat()
    event = {"specversion": "1.0", "source": "/limited", "id": str(number), "type": "api_call", "subject": tenant_id}
    return event | {"time": time}


async def limit(system: System, tenant_id: str, amount: str) -> None:
    body = {"amount": amount, "currency": "USD", "action": "block"}
    await done(system.client.put(f"/v1/spending-limits/{tenant_id}", json=body))


async def becomes(system: System, tenant_id: str, code: str | None) -> None:
    """Wait until usage is refused with a code, or taken."""

    async def is_so() -> bool:
        (result,) = (await sent(system, [call(system, tenant_id, next(_numbers))]))["results"]
        return bool(result["code"] == code)

    await eventually(is_so, within=30, describe=f"usage of which is said {code}")


async def test_usage_is_refused_at_the_limit_and_taken_when_it_is_raised(system: System) -> None:
    await done(system.client.post("/v1/plans", json=PLAN))
    await done(system.client.post("/v1/tiers", json=TIER))
    await tier_is_known(system, NAME)
    workflow = await system.finished(await system.onboard("Limited", tier=NAME))
    tenant_id = workflow["tenantId"]
    taken = await sent(system, [call(system, tenant_id, next(_numbers)) for _ in range(40)])
    assert taken["accepted"] == 40, taken

    await limit(system, tenant_id, "10")
    await becomes(system, tenant_id, "spending_limit")
    blocked = (await system.client.get(f"/v1/spending-limits/{tenant_id}")).json()
    await limit(system, tenant_id, "1000")
    await becomes(system, tenant_id, None)

    assert (blocked["isBlocked"], blocked["spent"] >= "10.00") == (True, True)
    gone = await system.finished(
        await system.order("/v1/offboardings", tenantId=tenant_id, graceDays=0, reason="a test", export=False)
    )
    assert gone["status"] == "completed", gone
    assert (await system.audit()).findings == ()
