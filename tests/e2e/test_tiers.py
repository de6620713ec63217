"""One run, three tiers: a pool, a bridge and a silo, and a tenant that is moved with all it has."""

import sys
from typing import Any

import asyncpg
import httpx2
import pytest

from shared.postgres import Connection
from tests.system import System, Workflow

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROWS = 100_000
ISOLATIONS = {"free": "pool", "standard": "bridge", "premium": "silo"}
_CONTENT = "SELECT count(*), md5(string_agg(note::text, '|' ORDER BY note_id)) FROM note"
_PLACE = "SELECT current_database(), current_schema()"


async def onboarded(system: System, customer_name: str, tier: str) -> str:
    workflow = await system.finished(await system.onboard(customer_name, tier=tier))
    assert workflow["status"] == "completed", workflow["failure"]
    return str(workflow["tenantId"])


async def opened(system: System, tenant_id: str) -> Connection:
    """Open a session of the tenant's, wherever its environment is."""
    answer = await system.client.post("/v1/credentials", json={"tenantId": tenant_id})
    assert answer.status_code == httpx2.codes.CREATED, answer.text
    connection: Connection = await asyncpg.connect(answer.json()["url"], timeout=10)
    return connection


async def value(system: System, tenant_id: str, query: str) -> Any:
    session = await opened(system, tenant_id)
    try:
        return tuple(await session.fetchrow(query, timeout=60) or ())
    finally:
        await session.close()


async def moved(system: System, tenant_id: str, tier: str) -> Workflow:
    workflow = await system.finished(await system.order("/v1/tier-changes", tenantId=tenant_id, tier=tier))
    assert workflow["status"] == "completed", workflow["failure"]
    return workflow


async def told_of(system: System, workflow: Workflow) -> list[str]:
    """Return what the history tells of the move as it went on."""
    history = await system.items(f"/v1/workflows/{workflow['id']}/history")
    told = [entry["detail"]["detail"] for entry in history if entry["kind"] == "progressed"]
    return [each for each in told if each]  # of what takes long is also told that it goes on


async def test_each_tier_lands_where_it_is_to_and_none_reaches_another(system: System) -> None:
    tenants = {tier: await onboarded(system, f"Customer of {tier}", tier) for tier in ISOLATIONS}

    found = {tier: await system.items("/v1/environments", tenantId=tenants[tier]) for tier in tenants}
    assert {tier: [(each["isolation"], each["status"]) for each in found[tier]] for tier in tenants} == {
        tier: [(isolation, "ready")] for tier, isolation in ISOLATIONS.items()
    }
    places = {tier: await value(system, tenants[tier], _PLACE) for tier in tenants}
    assert len(set(places.values())) == len(ISOLATIONS)
    assert places["free"][0] == places["standard"][0] != places["premium"][0]
    for tier, tenant_id in tenants.items():
        session = await opened(system, tenant_id)
        await session.execute("INSERT INTO note (body) VALUES ($1)", f"of {tier}")
        assert [row["body"] for row in await session.fetch("SELECT body FROM note")] == [f"of {tier}"]
        await session.close()


async def test_a_tenant_with_a_hundred_thousand_rows_is_moved_to_a_silo_and_back_and_loses_none(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    tenant_id = await onboarded(system, "Moves house", "free")
    session = await opened(system, tenant_id)
    await session.execute(
        f"INSERT INTO note (body) SELECT repeat(md5(n::text), 4) FROM generate_series(1, {ROWS}) AS n", timeout=60
    )
    await session.close()
    before, pool = await value(system, tenant_id, _CONTENT), await value(system, tenant_id, _PLACE)
    assert before[0] == ROWS

    there = await moved(system, tenant_id, "premium")

    assert await value(system, tenant_id, _CONTENT) == before
    silo = await value(system, tenant_id, _PLACE)
    assert silo[0] != pool[0]
    session = await opened(system, tenant_id)
    await session.execute("DELETE FROM note WHERE note_id IN (SELECT note_id FROM note LIMIT 10)")
    await session.close()
    changed = await value(system, tenant_id, _CONTENT)

    back = await moved(system, tenant_id, "free")

    assert await value(system, tenant_id, _CONTENT) == changed
    assert changed[0] == ROWS - 10
    assert await value(system, tenant_id, _PLACE) == pool
    with capsys.disabled():
        for name, workflow in (("pool to silo", there), ("silo to pool", back)):
            sys.stdout.write(f"\n{name}: {'; '.join(await told_of(system, workflow))}")
        sys.stdout.write("\n")
