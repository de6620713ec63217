import json
from typing import Any

import asyncpg
import pytest

from services.tenant import certificates, handlers
from services.tenant.tests.support import archive, ask, deliver, open_for_business, register, statements
from shared.clock import ManualClock
from shared.contracts.tenant import (
    ArchiveTenant,
    BeginOffboarding,
    Deletion,
    SuspendTenant,
    TenantArchived,
    TenantArchivingRefused,
)
from shared.postgres import Pool, transaction

NOTES_1 = {"name": "notes", "version": "1.0"}
PERSONAL: dict[str, Any] = {
    "email": "ada@example.com",
    "phone": "+49 30 1234",
    "address": "Ring 1",
    "tags": {"segment": "smb"},
    "attributes": {"crm": "42"},
}


def archiving(tenant_id: str, **details: Any) -> ArchiveTenant:
    return ArchiveTenant.model_validate({"tenant_id": tenant_id, "workflow_id": "w1", "deletions": ()} | details)


async def certificate(pool: Pool, tenant_id: str = "t1") -> dict[str, Any]:
    row = await pool.fetchrow("SELECT * FROM certificate WHERE tenant_id = $1", tenant_id)
    assert row is not None
    return dict(row)


async def test_only_the_archive_record_and_the_certificate_remain(pool: Pool) -> None:
    clock = ManualClock()
    await open_for_business(pool, ask("t1", "Acme", tier="premium", products=[NOTES_1], region="eu", **PERSONAL))
    await clock.advance(3600)

    (fact,) = await archive(pool, "t1", clock=clock)

    row = await pool.fetchrow("SELECT * FROM tenant")
    assert row is not None
    assert (row["state"], row["customer_name"], row["tier"]) == ("archived", "Acme", "premium")
    assert (row["version"], row["updated_at"]) == (4, clock.now())
    assert (row["email"], row["phone"], row["address"], row["tags"], row["attributes"]) == (None, None, None, {}, {})
    assert await pool.fetch("SELECT FROM tenant_product") == []
    assert await pool.fetch("SELECT FROM live_record") == []
    assert fact == TenantArchived(tenant_id="t1", certificate_sha256=(await certificate(pool))["sha256"])
    kept = " ".join([str(value) for value in [*row, *(await certificate(pool)).values()]])
    assert not any(value in kept for value in ("ada@", "1234", "Ring 1", "smb", "42"))


async def test_a_certificate_says_what_was_deleted_everywhere(pool: Pool) -> None:
    clock = ManualClock()
    await register(pool, ask("t1", "Café 東京", products=[NOTES_1], **PERSONAL), clock=clock)
    await pool.execute("UPDATE tenant SET state = 'active'")
    await clock.advance(86400.25)
    deletions = (
        Deletion(service="identity", deleted={"users": 3, "memberships": 4}),
        Deletion(service="billing", is_confirmed=False),
    )
    details = {"export_id": "e1", "export_sha256": "f" * 64, "invoice_id": "i1", "reason": "expired"}

    await archive(pool, "t1", clock=clock, deletions=deletions, **details)

    kept = await certificate(pool)
    assert (kept["workflow_id"], kept["issued_at"]) == ("w1", clock.now())
    assert kept["content"] == {
        "tenantId": "t1",
        "customerName": "Café 東京",
        "tier": "free",
        "workflowId": "w1",
        "reason": "expired",
        "createdAt": "2026-01-01T00:00:00Z",
        "archivedAt": "2026-01-02T00:00:00.250000Z",
        "deletions": [
            {"service": "identity", "deleted": {"users": 3, "memberships": 4}, "isConfirmed": True},
            {"service": "billing", "deleted": {}, "isConfirmed": False},
            {"service": "tenant", "deleted": {"products": 1, "personal_fields": 5}, "isConfirmed": True},
        ],
        "exportId": "e1",
        "exportSha256": "f" * 64,
        "invoiceId": "i1",
    }


async def test_fields_that_were_empty_are_not_counted_as_deleted(pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))

    await archive(pool, "t1")

    own = (await certificate(pool))["content"]["deletions"][-1]
    assert own["deleted"] == {"products": 0, "personal_fields": 1}


async def test_the_digest_is_of_sorted_keys_without_whitespace_in_utf_8() -> None:
    content = {"b": ["é", None, True], "a": {"z": 1, "y": ""}}

    canonical = '{"a":{"y":"","z":1},"b":["é",null,true]}'
    assert json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == canonical
    # printf '%s' "$canonical" | sha256sum
    assert certificates.digest(content) == "39360a3cbf5e081c6ff3fc28f27430afa45a519f4061ff2821638f4175b0e4ba"


async def test_the_digest_is_the_same_of_what_the_database_gives_back(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", 'Quote " \\ / é 🚀 \u2028'))
    deletions = (Deletion(service="provisioning", deleted={"zebra": 1, "Äpfel": 2, "a": 2**53}),)

    await archive(pool, "t1", deletions=deletions)

    kept = await certificate(pool)
    assert certificates.digest(kept["content"]) == kept["sha256"]


@pytest.mark.parametrize("state", ["registered", "active", "suspended", "archived"])
async def test_only_a_tenant_on_its_way_out_is_archived(pool: Pool, state: str) -> None:
    await (register if state == "registered" else open_for_business)(pool, ask("t1", "Acme", **PERSONAL))
    if state == "suspended":
        await deliver(pool, SuspendTenant(tenant_id="t1"))
    if state == "archived":
        await archive(pool, "t1")
    before = await pool.fetch("SELECT * FROM tenant LEFT JOIN certificate USING (tenant_id)")

    assert await deliver(pool, archiving("t1", workflow_id="w2")) == [
        TenantArchivingRefused(
            tenant_id="t1",
            code="wrong_state",
            detail=f"A tenant that is {state} cannot be archived.",
            retryable=True,
        )
    ]
    assert await pool.fetch("SELECT * FROM tenant LEFT JOIN certificate USING (tenant_id)") == before


async def test_a_batch_archives_each_of_its_tenants_once_and_refuses_the_others(pool: Pool) -> None:
    await open_for_business(pool, ask("t1", "Acme"), ask("t2", "Bolt"), ask("t3", "Eta"))
    await deliver(pool, BeginOffboarding(tenant_id="t1"), BeginOffboarding(tenant_id="t3"))
    asks = [archiving(tenant_id) for tenant_id in ("t3", "t0", "t2", "t1", "t1")]

    facts = await deliver(pool, *asks, workflows=("one", "one", "one", "one", "two"))

    refusals = [(fact.tenant_id, fact.code) for fact in facts if isinstance(fact, TenantArchivingRefused)]
    assert [fact.tenant_id for fact in facts] == ["t3", "t0", "t2", "t1", "t1"]
    assert refusals == [("t0", "unknown_tenant"), ("t2", "wrong_state"), ("t1", "wrong_state")]
    rows = await pool.fetch("SELECT tenant_id, state FROM tenant ORDER BY 1")
    assert [tuple(row) for row in rows] == [("t1", "archived"), ("t2", "active"), ("t3", "archived")]
    assert await pool.fetchval("SELECT count(*) FROM certificate") == 2


async def test_an_archiving_that_is_repeated_is_answered_as_before(pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))
    facts = await archive(pool, "t1")

    assert await deliver(pool, archiving("t1"), workflow="archiving") == facts


async def test_five_hundred_archivings_are_three_statements(pool: Pool) -> None:
    tenant_ids = [f"t{number}" for number in range(500)]
    await open_for_business(pool, *(ask(tenant_id, products=[NOTES_1]) for tenant_id in tenant_ids))
    await deliver(pool, *(BeginOffboarding(tenant_id=tenant_id) for tenant_id in tenant_ids))
    asks = [archiving(tenant_id) for tenant_id in tenant_ids]
    async with transaction(pool) as connection, statements(connection) as sent:
        facts = await handlers.archive_tenants(connection, asks, clock=ManualClock())

    assert len(sent) == 3, "lock, look, and write"
    assert {type(fact) for fact in facts} == {TenantArchived}
    assert await pool.fetch("SELECT FROM live_record") == []


async def test_a_tenant_with_a_certificate_cannot_be_deleted(pool: Pool) -> None:
    await open_for_business(pool, ask("t1"))
    await archive(pool, "t1")

    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await pool.execute("DELETE FROM tenant")
