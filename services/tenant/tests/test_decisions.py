"""What the audit trail is told of a tenant whose details are changed."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from services.tenant.api import routes
from services.tenant.tests.support import ask, open_for_business
from shared.clock import ManualClock
from shared.contracts.tenant import DecisionRecorded
from shared.http import create_api
from shared.postgres import Pool
from shared.testing.decisions import changes_on, decided
from shared.testing.principals import Cast, as_

OWN, OTHER = "own", "oth"


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    """The service, with two tenants, of which nothing was decided yet."""
    clock = ManualClock()
    changes = changes_on(pool, DecisionRecorded, clock=clock)
    router = routes(pool, changes=changes, clock=clock, gateway_url="https://pool.example.com")
    api = create_api("tenant", routers=[router], admin_key="key", credentials=Cast(OWN), checks={}, version="1")
    await open_for_business(pool, ask(OWN, phone="+49 30 1234", tags={"segment": "smb"}), ask(OTHER))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        yield client


async def patch(client: httpx2.AsyncClient, who: str, body: dict[str, Any], tenant_id: str = OWN) -> int:
    answer = await client.patch(f"/v1/tenants/{tenant_id}", json=body, headers=as_(who) | {"If-Match": "*"})
    return answer.status_code


async def test_what_somebody_changed_is_told_as_it_was_and_as_it_is(client: httpx2.AsyncClient, pool: Pool) -> None:
    assert await patch(client, "administrator", {"tags": {"segment": "pro"}, "attributes": {"crm": "7"}}) == 200

    (decision,) = await decided(pool)
    assert (decision.actor, decision.role, decision.reason) == ("user:administrator", "TenantAdmin", None)
    assert (decision.tenant_id, decision.action, decision.subject) == (OWN, "tenant.details_changed", f"tenant:{OWN}")
    assert decision.before == {"tags": {"segment": "smb"}, "attributes": {}}
    assert decision.after == {"tags": {"segment": "pro"}, "attributes": {"crm": "7"}}


async def test_of_a_person_only_that_it_changed_is_told(client: httpx2.AsyncClient, pool: Pool) -> None:
    body = {"tenantEmail": "new@example.com", "tenantPhone": None, "tenantAddress": "Ring 1"}
    assert await patch(client, "operator", body) == 200

    (decision,) = await decided(pool)
    assert (decision.before, decision.after) == (
        {"tenantEmail": "…", "tenantPhone": "…"},
        {"tenantEmail": "…", "tenantAddress": "…"},
    )
    told = decision.model_dump_json()
    assert [each for each in ("example.com", "1234", "Ring") if each in told] == []


async def test_support_changes_something_for_the_reason_of_its_visit(client: httpx2.AsyncClient, pool: Pool) -> None:
    assert await patch(client, "visitor", {"tags": {}}) == 200

    (decision,) = await decided(pool)
    assert (decision.actor, decision.role, decision.reason) == ("user:support", "CustomerSupport", "asked to")


async def test_what_is_refused_or_changes_nothing_is_not_told(client: httpx2.AsyncClient, pool: Pool) -> None:
    assert await patch(client, "administrator", {"tags": {}}, OTHER) == 404
    assert await patch(client, "user", {"tags": {}}) == 403
    assert await patch(client, "operator", {"tags": {"segment": "smb"}}) == 200
    stale = await client.patch(f"/v1/tenants/{OWN}", json={"tags": {}}, headers=as_("operator") | {"If-Match": '"1"'})
    assert stale.status_code == 412

    assert await decided(pool) == []


async def test_what_cannot_be_told_is_not_changed(
    client: httpx2.AsyncClient, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("shared.changes.outbox.insert", fail)
    assert await patch(client, "operator", {"tags": {}}) == 503

    assert await pool.fetchval("SELECT tags FROM tenant WHERE tenant_id = $1", OWN) == {"segment": "smb"}
