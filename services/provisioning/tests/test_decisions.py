"""What the audit trail is told when somebody gets into a tenant's environment, or gets all that is in it."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx2
import pytest

from services.provisioning.api import routes
from services.provisioning.tests.world import PostgresWorld
from shared.contracts.provisioning import DecisionRecorded, ExportData
from shared.http import create_api
from shared.testing.decisions import changes_on, decided
from shared.testing.principals import Cast, as_

OWN, OTHER = "own", "oth"


@pytest.fixture
async def client(world: PostgresWorld) -> AsyncIterator[httpx2.AsyncClient]:
    changes = changes_on(world.pool, DecisionRecorded, clock=world.clock)
    router = routes(world.pool, changes=changes, **world.routed)
    api = create_api("provisioning", routers=[router], admin_key="key", credentials=Cast(OWN), checks={}, version="1")
    await world.provision(OWN, OTHER)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        yield client


async def test_credentials_are_told_with_who_got_them_and_not_what_they_are(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    answer = await client.post("/v1/credentials", json={"tenantId": OWN}, headers=as_("visitor"))
    issued = answer.json()

    (decision,) = await decided(world.pool)
    assert (decision.actor, decision.role, decision.reason) == ("user:support", "CustomerSupport", "asked to")
    assert (decision.tenant_id, decision.action) == (OWN, "credentials.issued")
    assert decision.subject == f"login:{issued['username']}"
    assert decision.after is not None
    assert decision.after.keys() == {"driver", "database", "expiresAt"}
    assert issued["password"] not in decision.model_dump_json()


async def test_an_export_is_told_each_time_that_somebody_fetches_it(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    await world.do(ExportData(tenant_id=OWN), ExportData(tenant_id=OTHER))
    (listed,) = (await client.get("/v1/exports", headers=as_("administrator"))).json()["items"]
    for _ in range(2):
        assert (await client.get(f"/v1/exports/{listed['exportId']}", headers=as_("administrator"))).status_code == 200

    first, second = await decided(world.pool)
    assert (first.actor, first.role, first.action) == ("user:administrator", "TenantAdmin", "export.fetched")
    assert (first.tenant_id, first.subject) == (OWN, f"export:{listed['exportId']}")
    assert first.decision_id != second.decision_id


async def test_what_nobody_gets_is_not_told(client: httpx2.AsyncClient, world: PostgresWorld) -> None:
    await world.do(ExportData(tenant_id=OTHER))
    (listed,) = (await client.get("/v1/exports", headers=as_("operator"))).json()["items"]

    for tenant_id in (OTHER, "absent"):
        answer = await client.post("/v1/credentials", json={"tenantId": tenant_id}, headers=as_("administrator"))
        assert answer.status_code == 404
    answer = await client.get(f"/v1/exports/{listed['exportId']}", headers=as_("administrator"))
    assert answer.status_code == 404
    await world.clock.advance(timedelta(days=60).total_seconds())
    assert (await client.get(f"/v1/exports/{listed['exportId']}", headers=as_("operator"))).status_code == 404

    assert await decided(world.pool) == []


async def test_credentials_that_cannot_be_told_are_given_to_nobody(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("shared.changes.outbox.insert", fail)
    answer = await client.post("/v1/credentials", json={"tenantId": OWN}, headers=as_("operator"))

    assert answer.status_code == 503
    assert "password" not in answer.json()
