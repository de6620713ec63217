import subprocess
import sys
from dataclasses import dataclass

import asyncpg
import httpx2
import pytest

from deploy.audit import Finding, audit
from deploy.databases import APPLICATION
from deploy.local.secrets import load_or_create
from deploy.tests.conftest import ROOT, Up, environment_of
from shared.contracts import SERVICES

pytestmark = pytest.mark.broker

STUCK_COPY = """
    INSERT INTO workflow (id, kind, version, tenant_id, customer_name, name_key, status, plan, request,
                          created_at, updated_at)
    SELECT gen_random_uuid(), kind, version, 'under-way', 'Under Way', 'under way', 'needs_attention', plan, request,
           now(), now()
    FROM workflow WHERE tenant_id = $1
"""


@dataclass(frozen=True)
class Audited:
    """An installation in which one onboarding completed and one was undone."""

    urls: dict[str, str]
    completed: str
    undone: str

    async def change(self, database: str, statement: str, *values: str) -> str | None:
        connection = await asyncpg.connect(self.urls[database])
        try:
            answer: str | None = await connection.fetchval(statement, *values)
        finally:
            await connection.close()
        return answer


@pytest.fixture
async def audited(installation: Up) -> Audited:
    key = load_or_create(installation.folder).admin_key
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=installation.url, headers=headers, timeout=30, trust_env=False) as client:
        tenants = [await onboarded(client, region) for region in ("local", "mars")]
    kept = dict(line.split("=", 1) for line in (installation.folder / "operator.env").read_text().splitlines())
    urls = {name: kept[f"TENURE_{name.upper()}_DATABASE_URL"] for name in (*SERVICES, APPLICATION)}
    return Audited(urls, *tenants)


async def onboarded(client: httpx2.AsyncClient, region: str) -> str:
    """Onboard somebody under a name that is free, and return the tenant's id when it has ended."""
    taken = len((await client.get("/v1/workflows", params={"limit": 100})).json()["items"])
    body = {"customerName": f"Audited {taken} {region}", "adminEmails": ["a@b.example"], "region": region}
    accepted = await client.post("/v1/onboardings", json=body)
    ended = await client.get(accepted.json()["links"]["self"], params={"wait": 20})
    assert ended.json()["status"] == ("completed" if region == "local" else "compensated")
    return str(ended.json()["tenantId"])


async def test_nothing_is_found_where_everything_is_as_it_ended(audited: Audited) -> None:
    found = await audit(audited.urls)
    assert found.findings == ()
    assert found.alive >= 1
    assert found.gone >= 1


async def test_what_an_undone_tenant_left_is_found_with_its_place(audited: Audited) -> None:
    await audited.change("metrics", "INSERT INTO tracked_tenant VALUES ($1, now())", audited.undone)
    found = await audit(audited.urls)
    await audited.change("metrics", "DELETE FROM tracked_tenant WHERE tenant_id = $1", audited.undone)
    assert found.findings == (Finding("metrics", audited.undone, "left over: tracked_tenant"),)
    assert (await audit(audited.urls)).findings == ()


async def test_what_a_completed_tenant_lacks_is_found(audited: Audited) -> None:
    quotas = "SELECT jsonb_agg(quota)::text FROM quota WHERE tenant_id = $1"
    kept = await audited.change("metrics", quotas, audited.completed)
    assert kept is not None
    await audited.change("metrics", "DELETE FROM quota WHERE tenant_id = $1", audited.completed)
    await audited.change("metrics", "DELETE FROM tracked_tenant WHERE tenant_id = $1", audited.completed)
    found = await audit(audited.urls)
    await audited.change("metrics", "INSERT INTO tracked_tenant VALUES ($1, now())", audited.completed)
    await audited.change("metrics", "INSERT INTO quota SELECT * FROM jsonb_populate_recordset(NULL::quota, $1)", kept)
    assert found.findings == (Finding("metrics", audited.completed, "completed, but nothing of it is here"),)
    assert (await audit(audited.urls)).findings == ()


async def test_a_tenant_that_is_charged_while_it_is_not_active_is_found(audited: Audited) -> None:
    await audited.change("tenant", "UPDATE tenant SET state = 'suspended' WHERE tenant_id = $1", audited.completed)
    found = await audit(audited.urls)
    await audited.change("tenant", "UPDATE tenant SET state = 'active' WHERE tenant_id = $1", audited.completed)
    contradictions = [
        ("billing", "charged", "true"),
        ("identity", "blocked", "false"),
        ("provisioning", "throttled", "false"),
    ]
    assert found.findings == tuple(
        Finding(
            database,
            audited.completed,
            f"{fact} is {value}, but for a tenant that is suspended {'false' if value == 'true' else 'true'}",
        )
        for database, fact, value in contradictions
    )


async def test_a_tenant_on_another_plan_than_its_tier_says_is_found(audited: Audited) -> None:
    change = """
        UPDATE subscription SET plan = $2 FROM account
        WHERE account.tenant_id = $1 AND subscription.account_id = account.account_id
    """
    await audited.change("billing", change, audited.completed, "premium")
    found = await audit(audited.urls)
    await audited.change("billing", change, audited.completed, "free")
    assert found.findings == (
        Finding("billing", audited.completed, "plan is premium, but for a tenant that is active free"),
    )


async def test_a_product_without_the_licence_and_the_environment_that_it_was_given_is_found(audited: Audited) -> None:
    take = """
        INSERT INTO tenant_product (tenant_id, product, version, meaning) VALUES ($1, 'notes', '1.0', $2::text::jsonb)
    """
    meaning = '{"plan": "premium", "isolation": "bridge", "driver": "postgres", "region": null, "parameters": {}}'
    await audited.change("tenant", take, audited.completed, meaning)
    found = await audit(audited.urls)
    await audited.change("tenant", "DELETE FROM tenant_product WHERE tenant_id = $1", audited.completed)
    missing = [
        ("billing", "licence:notes", "premium"),
        ("provisioning", "environment:notes", "bridge"),
        ("provisioning", "throttled:notes", "false"),
    ]
    assert found.findings == tuple(
        Finding(database, audited.completed, f"{fact} is None, but for a tenant that is active {value}")
        for database, fact, value in missing
    )
    assert (await audit(audited.urls)).findings == ()


async def test_what_a_product_has_left_that_the_tenant_has_no_more_is_found(audited: Audited) -> None:
    keep = """
        INSERT INTO environment (environment_id, tenant_id, owner_id, product, isolation, region, created_at)
        VALUES (gen_random_uuid(), $1 || ':notes', $1, 'notes', 'bridge', 'local', now())
    """
    await audited.change("provisioning", keep, audited.completed)
    found = await audit(audited.urls)
    await audited.change("provisioning", "DELETE FROM environment WHERE owner_id = $1", audited.completed)
    assert found.findings == tuple(
        Finding("provisioning", audited.completed, problem)
        for problem in (
            "environment:notes is bridge, but for a tenant that is active None",
            "left over of products that it has no more: environment:notes",
            "throttled:notes is false, but for a tenant that is active None",
        )
    )
    assert (await audit(audited.urls)).findings == ()


async def test_a_licence_that_the_tenant_does_not_have_is_found(audited: Audited) -> None:
    add = """
        INSERT INTO subscription (subscription_id, account_id, product, plan, currency, amount, state, started_at)
        SELECT gen_random_uuid(), account_id, 'chess', 'free', currency, 0, state, started_at
        FROM subscription JOIN account USING (account_id, currency) WHERE tenant_id = $1
    """
    await audited.change("billing", add, audited.completed)
    found = await audit(audited.urls)
    await audited.change("billing", "DELETE FROM subscription WHERE product = 'chess'")
    assert found.findings == (
        Finding("billing", audited.completed, "licence:chess is free, but for a tenant that is active None"),
    )


async def test_what_there_is_twice_is_found(audited: Audited) -> None:
    double = """
        INSERT INTO customer (name_key, tenant_id, workflow_id, review_at)
        SELECT name_key || ' again', tenant_id, gen_random_uuid(), 'infinity' FROM customer WHERE tenant_id = $1
    """
    await audited.change("onboarding", double, audited.completed)
    found = await audit(audited.urls)
    await audited.change(
        "onboarding", "DELETE FROM customer WHERE tenant_id = $1 AND name_key LIKE '% again'", audited.completed
    )
    assert found.findings == (Finding("onboarding", audited.completed, "more than one: customer"),)


async def test_what_belongs_to_nobody_that_was_ever_onboarded_is_found(audited: Audited) -> None:
    await audited.change("metrics", "INSERT INTO tracked_tenant VALUES ('nobody', now())")
    found = await audit(audited.urls)
    await audited.change("metrics", "DELETE FROM tracked_tenant WHERE tenant_id = 'nobody'")
    assert found.findings == (Finding("metrics", "nobody", "left over: tracked_tenant"),)


async def test_nothing_is_said_of_a_tenant_whose_workflow_is_under_way(audited: Audited) -> None:
    await audited.change("onboarding", STUCK_COPY, audited.completed)
    await audited.change("metrics", "INSERT INTO tracked_tenant VALUES ('under-way', now())")
    found = await audit(audited.urls)
    await audited.change("metrics", "DELETE FROM tracked_tenant WHERE tenant_id = 'under-way'")
    await audited.change("onboarding", "DELETE FROM workflow WHERE tenant_id = 'under-way'")
    assert (found.findings, found.unfinished) == ((), 1)


async def test_the_command_fails_for_a_finding_and_names_it(audited: Audited, installation: Up) -> None:
    assert command(installation).returncode == 0
    await audited.change("metrics", "INSERT INTO tracked_tenant VALUES ($1, now())", audited.undone)
    outcome = command(installation)
    await audited.change("metrics", "DELETE FROM tracked_tenant WHERE tenant_id = $1", audited.undone)
    assert outcome.returncode == 1
    assert f"metrics: tenant {audited.undone}: left over: tracked_tenant" in outcome.stdout
    assert "1 findings" in outcome.stdout


def test_the_command_cannot_look_at_databases_that_are_away(installation: Up) -> None:
    outcome = command(installation, TENURE_BILLING_DATABASE_URL="postgresql://a:secret@127.0.0.1:1/b")
    assert outcome.returncode == 2
    assert "Traceback" not in outcome.stdout


def command(installation: Up, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "deploy.audit"],
        cwd=ROOT,
        env=environment_of(installation.folder, **environment),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
