"""What is decided at four services comes together in one trail."""

from typing import Any

import pytest

from shared.testing import eventually
from tests.system import System

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session")]


async def test_decisions_of_all_services_are_in_the_tenants_trail(system: System) -> None:
    workflow = await system.finished(await system.onboard("Audited", adminEmails=["ada@tenants.example"]))
    tenant_id = workflow["tenantId"]
    path = f"/v1/tenants/{tenant_id}"
    etag = (await system.client.get(path)).headers["ETag"]
    await _done(await system.client.patch(path, json={"tags": {"a": "b"}}, headers={"If-Match": etag}))
    await _done(await system.client.post("/v1/credentials", json={"tenantId": tenant_id}))
    await _done(await system.client.post("/v1/api-keys", json={"tenantId": tenant_id, "name": "ci"}))

    expected = {"onboard.ordered", "tenant.details_changed", "credentials.issued", "api_key.issued"}

    async def is_told() -> bool:
        return {entry["action"] for entry in await system.items("/v1/audit", tenantId=tenant_id)} == expected

    await eventually(is_told, describe="four decisions in the trail")
    trail = await system.items("/v1/audit", tenantId=tenant_id)
    assert {(entry["actor"], entry["role"]) for entry in trail} == {("system-administrator", "SystemAdmin")}
    assert {entry["service"] for entry in trail} == {"onboarding", "tenant", "provisioning", "identity"}
    assert trail[-1]["subject"] == f"workflow:{workflow['id']}"
    assert "tenants.example" not in str(trail)
    found = (await system.client.get("/v1/audit/verification", params={"tenantId": tenant_id})).json()
    assert (found["isWhole"], found["checked"]) == (True, 4)


async def _done(answer: Any) -> None:
    assert answer.status_code in {200, 201}, answer.text
