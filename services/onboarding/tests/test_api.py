"""The contract's onboarding table, line by line."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import httpx2
import pytest

from services.onboarding.api import PATHS
from services.onboarding.tests.catalogue import CATALOG, FULL, MINIMAL
from services.onboarding.tests.support import Replica, go_on, open_replica, publish_catalog
from shared.postgres import Pool
from shared.testing.memory_bus import MemoryBroker

ACCOUNT: dict[str, Any] = {
    "customerName": "Acme",
    "expiration": "2099-12-31",
    "products": [{"name": "notes", "version": "1.0"}],
    "adminEmails": ["ada@example.com"],
}


async def onboard(client: httpx2.AsyncClient, name: str = "Acme", **details: Any) -> dict[str, Any]:
    answer = await client.post("/v1/onboardings", json={**MINIMAL, "customerName": name, **details})
    assert answer.status_code == 202, answer.text
    workflow: dict[str, Any] = answer.json()
    return workflow


async def become_tenant(client: httpx2.AsyncClient, pool: Pool, name: str = "Acme", **details: Any) -> str:
    """Have a customer onboarded; return the tenant that it has become."""
    workflow = await onboard(client, name, **details)
    await go_on(pool, UUID(workflow["id"]))
    tenant_id: str = workflow["tenantId"]
    return tenant_id


async def refused(attempt: Any, status: int, code: str, pointer: str) -> str:
    """Expect a problem that names the field; return its sentence."""
    answer = await attempt
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    detail: str = problem["detail"]
    return detail


async def names(client: httpx2.AsyncClient, **query: str) -> list[str]:
    answer = await client.get("/v1/workflows", params=query)
    assert answer.status_code == 200, answer.text
    return [workflow["customerName"] for workflow in answer.json()["items"]]


# POST /v1/onboardings


async def test_an_onboarding_is_accepted_with_its_workflow(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/onboardings", json=MINIMAL)

    workflow = answer.json()
    own = f"/v1/workflows/{workflow['id']}"
    assert (answer.status_code, answer.headers["Location"]) == (202, own)
    assert "Idempotency-Replayed" not in answer.headers
    started_at = workflow["createdAt"]
    assert workflow == {
        "id": str(UUID(workflow["id"])),
        "kind": "onboard",
        "tenantId": workflow["tenantId"],
        "customerName": "Acme",
        "status": "running",
        "steps": [
            _step("register-tenant", "tenant", "running", attempts=1, startedAt=started_at),
            _step("create-administrators", "identity"),
            _step("open-account", "billing"),
            _step("track-tenant", "metrics"),
            _step("provision-environment", "provisioning"),
            _step("activate-tenant", "tenant"),
        ],
        "failure": None,
        "createdAt": started_at,
        "updatedAt": started_at,
        "finishedAt": None,
        "links": {
            "self": own,
            "history": f"{own}/history",
            "events": f"{own}/events",
            "tenant": f"/v1/tenants/{workflow['tenantId']}",
        },
    }
    assert (await client.get(own)).json() == workflow


def _step(name: str, service: str, status: str = "pending", **seen: Any) -> dict[str, Any]:
    nothing = {"attempts": 0, "startedAt": None, "finishedAt": None, "error": None, "progress": None}
    return {"name": name, "service": service, "status": status} | nothing | seen


async def test_everything_that_is_ordered_is_kept(client: httpx2.AsyncClient, pool: Pool) -> None:
    answer = await client.post("/v1/onboardings", json=FULL)

    assert answer.status_code == 202
    assert await pool.fetchval("SELECT request FROM workflow") == FULL


async def test_a_request_without_a_tier_gets_the_default_of_the_catalog(client: httpx2.AsyncClient, pool: Pool) -> None:
    await onboard(client)

    request = await pool.fetchval("SELECT request FROM workflow")
    assert request == {**MINIMAL, "tier": "standard", "products": [], "tags": {}, "attributes": {}}


async def test_a_customers_name_is_kept_as_it_is_written_normalised(client: httpx2.AsyncClient) -> None:
    workflow = await onboard(client, "  Cafe\u0301   \uff34okyo ")

    assert workflow["customerName"] == "Caf\u00e9 Tokyo"


async def test_a_name_that_is_taken_is_refused(client: httpx2.AsyncClient) -> None:
    first = await onboard(client, "Straße")

    answer = await client.post("/v1/onboardings", json={**MINIMAL, "customerName": " STRASSE "})

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "workflow_active")
    assert [error["pointer"] for error in problem["errors"]] == ["/customerName"]
    assert first["tenantId"] in problem["detail"]


async def test_a_repeated_request_gets_the_first_answer_again(client: httpx2.AsyncClient, pool: Pool) -> None:
    keyed = {"Idempotency-Key": "k1"}
    first = await client.post("/v1/onboardings", json=FULL, headers=keyed)
    await go_on(pool, UUID(first.json()["id"]))
    shuffled = dict(reversed(list(FULL.items())))
    again = await client.post("/v1/onboardings", json=shuffled, headers={"Idempotency-Key": '"k1"'})

    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert await pool.fetchval("SELECT count(*) FROM workflow") == 1


async def test_a_repeated_request_gets_the_first_answer_also_when_it_could_not_be_accepted_any_more(
    database_url: str, broker: MemoryBroker, pool: Pool
) -> None:
    keyed = {"Idempotency-Key": "k1"}
    await publish_catalog(pool)
    async with open_replica(database_url, broker) as replica:
        first = await replica.client.post("/v1/onboardings", json=FULL, headers=keyed)
    await publish_catalog(pool, CATALOG.model_copy(update={"revision": 2, "tiers": ("free", "standard")}))

    async with open_replica(database_url, broker) as replica:
        again = await replica.client.post("/v1/onboardings", json=FULL, headers=keyed)
        anew = await replica.client.post("/v1/onboardings", json=FULL)
        other = await replica.client.post("/v1/onboardings", json={**FULL, "region": "us-east"}, headers=keyed)

    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (anew.status_code, anew.json()["errors"][0]["pointer"]) == (422, "/tier")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_key_is_good_for_one_request(client: httpx2.AsyncClient) -> None:
    keyed = {"Idempotency-Key": "k1"}
    await client.post("/v1/onboardings", json=MINIMAL, headers=keyed)

    other_body = await client.post("/v1/onboardings", json={**MINIMAL, "tier": "free"}, headers=keyed)
    other_way = await client.put("/v1/accounts", json=ACCOUNT, headers=keyed)

    for answer in (other_body, other_way):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_repetitions_at_once_on_two_replicas_are_accepted_once(
    replica: Replica, other_replica: Replica, pool: Pool
) -> None:
    answers = await asyncio.gather(
        *(
            each.client.post("/v1/onboardings", json=MINIMAL, headers={"Idempotency-Key": "k1"})
            for _ in range(10)
            for each in (replica, other_replica)
        )
    )

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert ["Idempotency-Replayed" in answer.headers for answer in answers].count(False) == 1
    assert await pool.fetchval("SELECT count(*) FROM workflow") == 1


async def test_before_the_catalog_is_known_clients_are_told_to_come_back(
    database_url: str, broker: MemoryBroker
) -> None:
    async with open_replica(database_url, broker) as replica:
        answer = await replica.client.post("/v1/onboardings", json=MINIMAL)
        ready = await replica.client.get("/readyz")

    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (503, "catalog_unknown", True)
    assert int(answer.headers["Retry-After"]) > 0
    assert (ready.status_code, "catalog" in ready.text) == (503, True)


# PUT /v1/accounts


async def test_an_account_without_an_id_is_created(client: httpx2.AsyncClient, pool: Pool) -> None:
    answer = await client.put("/v1/accounts", json=ACCOUNT, headers={"Idempotency-Key": "k1"})
    again = await client.put("/v1/accounts", json=ACCOUNT, headers={"Idempotency-Key": "k1"})

    account = answer.json()
    assert answer.status_code == 202
    assert account["accountId"] == account["tenantId"]
    assert answer.headers["Location"] == f"/v1/workflows/{account['id']}"
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (account, "true")
    request = await pool.fetchval("SELECT request FROM workflow")
    assert request == {**ACCOUNT, "tier": "standard", "tags": {}, "attributes": {}}


async def test_an_account_with_an_id_is_no_new_one(client: httpx2.AsyncClient, pool: Pool) -> None:
    known = await onboard(client)
    unknown = str(uuid4())

    answers = [
        await client.put("/v1/accounts", json={**ACCOUNT, "accountId": account_id})
        for account_id in (known["tenantId"], unknown)
    ]

    assert [answer.status_code for answer in answers] == [409, 404]
    assert [answer.json()["code"] for answer in answers] == ["workflow_active", "unknown_tenant"]
    assert {answer.json()["errors"][0]["pointer"] for answer in answers} == {"/accountId"}
    assert await pool.fetchval("SELECT count(*) FROM workflow") == 1


async def test_an_account_with_its_id_is_updated(client: httpx2.AsyncClient, pool: Pool) -> None:
    tenant_id = await become_tenant(client, pool)
    update = {**ACCOUNT, "customerName": "Bolt", "accountId": tenant_id}

    answer = await client.put("/v1/accounts", json=update, headers={"Idempotency-Key": "k1"})
    again = await client.put("/v1/accounts", json=update, headers={"Idempotency-Key": "k1"})

    account = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/workflows/{account['id']}")
    assert (account["kind"], account["accountId"], account["tenantId"]) == ("update-account", tenant_id, tenant_id)
    assert [step["name"] for step in account["steps"]] == [
        "update-tenant",
        "set-administrators",
        "update-account",
        "change-licences",
        "deploy-products",
        "remove-products",
    ]
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (account, "true")
    request = await pool.fetchval("SELECT request FROM workflow WHERE kind = 'update-account'")
    assert request == {name: value for name, value in update.items() if name != "accountId"} | {"tenantId": tenant_id}


async def test_an_account_without_an_id_whose_customer_is_there_is_joined(
    client: httpx2.AsyncClient, pool: Pool
) -> None:
    tenant_id = await become_tenant(client, pool, products=ACCOUNT["products"])
    other_products = {**ACCOUNT, "products": [{"name": "chess", "version": "1.0"}]}

    await refused(client.put("/v1/accounts", json=other_products), 409, "tenant_differs", "/products")
    account = (await client.put("/v1/accounts", json=ACCOUNT)).json()

    assert (account["kind"], account["accountId"]) == ("onboard", tenant_id)
    assert [step["name"] for step in account["steps"]] == ["add-administrators"]


# A second onboarding of the same customer


async def test_a_second_onboarding_joins_unless_it_names_another_tier_itself(
    client: httpx2.AsyncClient, pool: Pool
) -> None:
    tenant_id = await become_tenant(client, pool, tier="premium")
    again = {**MINIMAL, "customerName": " ACME", "adminEmails": ["bea@example.com"]}

    detail = await refused(
        client.post("/v1/onboardings", json={**again, "tier": "standard"}), 409, "tenant_differs", "/tier"
    )
    answer = await client.post("/v1/onboardings", json=again)

    assert tenant_id in detail
    workflow = answer.json()
    assert (answer.status_code, workflow["tenantId"], workflow["customerName"]) == (202, tenant_id, "Acme")
    assert (workflow["kind"], [step["name"] for step in workflow["steps"]]) == ("onboard", ["add-administrators"])


# Every other lifecycle


OFFBOARDING_STEPS = [
    *("begin-offboarding", "grace-period", "block-sign-in", "throttle-environment", "export-data", "close-account"),
    *("remove-environment", "purge-users", "purge-account", "purge-metrics", "archive-tenant"),
]
CHANGING_PRODUCTS = ["change-products", "change-licences", "deploy-products", "remove-products"]
CHESS = {"name": "chess", "version": "1.0"}


class Lifecycle(NamedTuple):
    """What is ordered where, and the workflow that this becomes."""

    path: str
    details: Mapping[str, Any]
    kind: str
    steps: list[str]


LIFECYCLES = [
    Lifecycle(
        "/v1/tier-changes",
        {"tier": "premium"},
        "change-tier",
        ["change-tier", "change-plan", "change-quotas", "move-environment"],
    ),
    Lifecycle("/v1/product-changes", {"products": [CHESS]}, "change-products", CHANGING_PRODUCTS),
    Lifecycle("/v1/product-changes", {"products": []}, "change-products", CHANGING_PRODUCTS),
    Lifecycle(
        "/v1/suspensions",
        {"reason": "They do not pay."},
        "suspend",
        ["suspend-tenant", "block-sign-in", "throttle-environment", "pause-billing"],
    ),
    Lifecycle("/v1/offboardings", {"reason": "Bye.", "graceDays": 7, "export": True}, "offboard", OFFBOARDING_STEPS),
    Lifecycle(
        "/v1/offboardings",
        {"graceDays": 0, "export": False},
        "offboard",
        [name for name in OFFBOARDING_STEPS if name != "export-data"],
    ),
]


@pytest.mark.parametrize("expected", LIFECYCLES, ids=lambda expected: expected.path)
async def test_every_lifecycle_is_accepted_with_its_workflow(
    client: httpx2.AsyncClient, pool: Pool, expected: Lifecycle
) -> None:
    tenant_id = await become_tenant(client, pool)

    answer = await client.post(expected.path, json={"tenantId": tenant_id, **expected.details})

    workflow = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/workflows/{workflow['id']}"), workflow
    assert (workflow["kind"], workflow["tenantId"], workflow["customerName"]) == (expected.kind, tenant_id, "Acme")
    assert [step["name"] for step in workflow["steps"]] == expected.steps
    assert [step["status"] for step in workflow["steps"]] == ["running"] + ["pending"] * (len(expected.steps) - 1)
    assert (await client.get(f"/v1/workflows/{workflow['id']}")).json() == workflow
    kept = await pool.fetchval("SELECT request FROM workflow WHERE id = $1", UUID(workflow["id"]))
    assert expected.details.items() <= kept.items()
    await go_on(pool, UUID(workflow["id"]))
    assert (await client.get(f"/v1/workflows/{workflow['id']}")).json()["status"] == "completed"


async def test_a_suspended_tenant_is_reactivated(client: httpx2.AsyncClient, pool: Pool) -> None:
    tenant_id = await become_tenant(client, pool)
    body = {"tenantId": tenant_id}
    await refused(client.post("/v1/reactivations", json=body), 409, "wrong_state", "/tenantId")
    await go_on(pool, UUID((await client.post("/v1/suspensions", json=body)).json()["id"]))
    await refused(client.post("/v1/suspensions", json=body), 409, "wrong_state", "/tenantId")

    answer = await client.post("/v1/reactivations", json=body)

    workflow = answer.json()
    assert (answer.status_code, workflow["kind"]) == (202, "reactivate")
    assert answer.headers["Location"] == f"/v1/workflows/{workflow['id']}"
    assert [step["name"] for step in workflow["steps"]] == [
        "reactivate-tenant",
        "allow-sign-in",
        "release-environment",
        "resume-billing",
    ]


async def test_an_off_boarding_that_does_not_say_has_the_grace_of_the_installation_and_an_export(
    database_url: str, broker: MemoryBroker, pool: Pool
) -> None:
    await publish_catalog(pool)
    async with open_replica(database_url, broker, grace_days=5) as replica:
        await become_tenant(replica.client, pool, "Café")
        answer = await replica.client.post("/v1/offboardings", json={"customerName": " CAFÉ "})

    assert answer.status_code == 202
    row = await pool.fetchrow("SELECT * FROM workflow WHERE kind = 'offboard'")
    assert row is not None
    assert {name: row["request"][name] for name in ("graceDays", "export")} == {"graceDays": 5, "export": True}
    assert "export-data" in [step["name"] for step in answer.json()["steps"]]
    assert timedelta(0) <= timedelta(days=5, hours=1) - (row["deadline_at"] - row["created_at"]) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("path", "details"),
    [
        ("/v1/tier-changes", {"tier": "premium"}),
        ("/v1/product-changes", {"products": []}),
        ("/v1/suspensions", {}),
        ("/v1/reactivations", {}),
        ("/v1/offboardings", {}),
    ],
)
async def test_a_tenant_that_is_not_there_is_named(client: httpx2.AsyncClient, path: str, details: Any) -> None:
    detail = await refused(
        client.post(path, json={"tenantId": "nobody", **details}), 404, "unknown_tenant", "/tenantId"
    )

    assert "nobody" in detail


async def test_a_second_workflow_on_a_tenant_is_refused_by_the_name_of_the_first(
    client: httpx2.AsyncClient, other_replica: Replica, pool: Pool
) -> None:
    tenant_id = await become_tenant(client, pool)
    first = (await client.post("/v1/suspensions", json={"tenantId": tenant_id})).json()

    for path, details in (("/v1/tier-changes", {"tier": "premium"}), ("/v1/offboardings", {})):
        attempt = other_replica.client.post(path, json={"tenantId": tenant_id, **details})
        assert first["id"] in await refused(attempt, 409, "workflow_active", "/tenantId")


async def test_a_tenant_is_not_put_on_the_tier_that_it_is_on(client: httpx2.AsyncClient, pool: Pool) -> None:
    body = {"tenantId": await become_tenant(client, pool), "tier": "standard"}

    await refused(client.post("/v1/tier-changes", json=body), 409, "same_tier", "/tier")


async def test_a_repeated_order_gets_the_first_answer_also_when_it_could_not_be_accepted_any_more(
    client: httpx2.AsyncClient, pool: Pool
) -> None:
    body = {"tenantId": await become_tenant(client, pool)}
    keyed = {"Idempotency-Key": "k1"}
    first = await client.post("/v1/suspensions", json=body, headers=keyed)
    await go_on(pool, UUID(first.json()["id"]))

    again = await client.post("/v1/suspensions", json=body, headers=keyed)

    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    await refused(client.post("/v1/suspensions", json=body), 409, "wrong_state", "/tenantId")


async def test_a_key_is_good_for_one_kind_of_order(client: httpx2.AsyncClient, pool: Pool) -> None:
    """A tenant's id alone is a whole body: what it orders is in the path."""
    body = {"tenantId": await become_tenant(client, pool)}
    keyed = {"Idempotency-Key": "k1"}
    await client.post("/v1/suspensions", json=body, headers=keyed)

    for path in ("/v1/reactivations", "/v1/offboardings"):
        attempt = client.post(path, json=body, headers=keyed)
        await refused(attempt, 422, "idempotency_key_reused", "header/Idempotency-Key")

    assert await pool.fetchval("SELECT count(*) FROM workflow") == 2


# The list of workflows


async def test_workflows_are_listed_in_pages_the_newest_first(client: httpx2.AsyncClient) -> None:
    for number in range(5):
        await onboard(client, f"Customer {number}")

    pages: list[list[str]] = []
    cursor: dict[str, str] = {}
    while True:
        body = (await client.get("/v1/workflows", params={"limit": "2", **cursor})).json()
        pages.append([workflow["customerName"] for workflow in body["items"]])
        if body["nextCursor"] is None:
            break
        cursor = {"cursor": body["nextCursor"]}

    assert pages == [["Customer 4", "Customer 3"], ["Customer 2", "Customer 1"], ["Customer 0"]]


async def test_workflows_accepted_together_are_neither_skipped_nor_repeated(client: httpx2.AsyncClient) -> None:
    await asyncio.gather(*(onboard(client, f"Customer {number}") for number in range(9)))

    first = (await client.get("/v1/workflows", params={"limit": "4"})).json()
    rest = (await client.get("/v1/workflows", params={"cursor": first["nextCursor"]})).json()

    assert len({workflow["id"] for workflow in (*first["items"], *rest["items"])}) == 9


async def test_the_list_of_workflows_is_narrowed(client: httpx2.AsyncClient, pool: Pool) -> None:
    acme, cafe = await onboard(client, "Acme"), await onboard(client, "Café Acme")
    await onboard(client, "Bolt_100%")
    await go_on(pool, UUID(acme["id"]))
    await go_on(pool, UUID(cafe["id"]), refuse="activate-tenant")

    assert await names(client, tenantId=acme["tenantId"]) == ["Acme"]
    assert await names(client, tenantId="nobody") == []
    assert await names(client, status="completed") == ["Acme"]
    assert await names(client, status="compensated") == ["Café Acme"]
    assert await names(client, status="running") == ["Bolt_100%"]
    assert await names(client, kind="onboard") == ["Bolt_100%", "Café Acme", "Acme"]
    assert await names(client, kind="offboard") == []
    assert await names(client, q="ACME") == ["Café Acme", "Acme"]
    assert await names(client, q="cafe\u0301") == ["Café Acme"]
    assert await names(client, q="%") == ["Bolt_100%"]
    assert await names(client, q="acme", status="completed", kind="onboard") == ["Acme"]


# One workflow


async def test_a_workflow_that_was_undone_shows_why(client: httpx2.AsyncClient, pool: Pool) -> None:
    workflow_id = (await onboard(client))["id"]
    await go_on(pool, UUID(workflow_id), refuse="open-account")

    workflow = (await client.get(f"/v1/workflows/{workflow_id}")).json()

    assert workflow["status"] == "compensated"
    assert workflow["failure"] == {"step": "open-account", "code": "no_room", "detail": "No."}
    assert workflow["finishedAt"] == workflow["updatedAt"]
    steps = {step["name"]: (step["status"], step["error"]) for step in workflow["steps"]}
    assert steps["open-account"] == ("failed", "no_room: No.")
    assert steps["register-tenant"] == ("undone", None)
    assert steps["activate-tenant"] == ("pending", None)


async def test_an_unknown_workflow_is_a_problem(client: httpx2.AsyncClient) -> None:
    for path in ("", "/history", "/events"):
        answer = await client.get(f"/v1/workflows/{uuid4()}{path}")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_workflow"), path


async def test_whoever_waits_gets_the_workflow_as_soon_as_it_has_ended(
    client: httpx2.AsyncClient, other_replica: Replica, pool: Pool
) -> None:
    workflow_id = (await onboard(client))["id"]
    waiters = [
        asyncio.create_task(each.get(f"/v1/workflows/{workflow_id}", params={"wait": "60"}))
        for each in (client, other_replica.client)
    ]

    await go_on(pool, UUID(workflow_id))

    async with asyncio.timeout(10):
        answers = await asyncio.gather(*waiters)
    assert {answer.json()["status"] for answer in answers} == {"completed"}
    assert not [answer for answer in answers if "Retry-After" in answer.headers]


async def test_whoever_waits_too_short_gets_the_workflow_as_it_is(client: httpx2.AsyncClient) -> None:
    workflow_id = (await onboard(client))["id"]

    answer = await client.get(f"/v1/workflows/{workflow_id}", params={"wait": "0.05"})

    assert (answer.status_code, answer.json()["status"]) == (200, "running")
    assert int(answer.headers["Retry-After"]) > 0


# The history


async def test_the_history_is_listed_in_pages_in_order(client: httpx2.AsyncClient, pool: Pool) -> None:
    workflow = await onboard(client)
    await go_on(pool, UUID(workflow["id"]))
    path = f"/v1/workflows/{workflow['id']}/history"

    first = (await client.get(path, params={"limit": "10"})).json()
    rest = (await client.get(path, params={"cursor": first["nextCursor"]})).json()

    entries = [*first["items"], *rest["items"]]
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert (entries[0]["kind"], entries[-1]["kind"], rest["nextCursor"]) == ("started", "completed", None)
    assert entries[1] == {
        "seq": 2,
        "workflowId": workflow["id"],
        "tenantId": workflow["tenantId"],
        "at": workflow["createdAt"],
        "kind": "asked",
        "step": "register-tenant",
        "attempt": 1,
        "detail": {},
    }


async def test_the_reason_of_a_refusal_is_in_the_history(client: httpx2.AsyncClient, pool: Pool) -> None:
    workflow_id = (await onboard(client))["id"]
    await go_on(pool, UUID(workflow_id), refuse="register-tenant")

    entries = (await client.get(f"/v1/workflows/{workflow_id}/history")).json()["items"]

    refused = next(entry for entry in entries if entry["kind"] == "refused")
    assert refused["detail"] == {"code": "no_room", "detail": "No."}


# All of them


async def test_every_route_is_under_the_paths_of_the_service_and_needs_the_key(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operations = [
        (method, path) for path, item in document["paths"].items() if path.startswith("/v1/") for method in item
    ]

    assert {path.split("/")[2] for _, path in operations} == {path.split("/")[2] for path in PATHS}
    for method, path in operations:
        concrete = path.replace("{workflow_id}", str(uuid4()))
        answer = await client.request(method, concrete, headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 401, path
