"""What is shown of tenants' mails and to whom, and an operator's word that one may send again."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import orjson
import pytest
from fastapi import FastAPI

from services.provisioning.api import routes
from services.provisioning.mail import Limits, Recorder, Reporter
from services.provisioning.mail.notices import Event, Notice, Occurrence, Oddity
from services.provisioning.queries import mail as queries
from services.provisioning.tests.mail_kit import hour_of
from services.provisioning.tests.world import PostgresWorld
from shared.changes import Changes
from shared.contracts.provisioning import DecisionRecorded, MailReported, MailSendingPaused, MailSendingResumed
from shared.http import create_api
from shared.messaging.event import decode
from shared.testing.decisions import changes_on, decided
from shared.testing.plans import general_plan
from shared.testing.principals import Cast, as_, told

OWN, OTHER, ABSENT = "own", "oth", "abs"
ACCOUNTS = {OWN: "1" * 12, OTHER: "2" * 12}
LIMITS = Limits(least_sends=10)


@pytest.fixture
def changes(world: PostgresWorld) -> Changes:
    return changes_on(world.pool, DecisionRecorded, clock=world.clock)


@pytest.fixture
def api(world: PostgresWorld, changes: Changes) -> FastAPI:
    router = routes(world.pool, changes=changes, **world.routed | {"limits": LIMITS})
    return create_api("provisioning", routers=[router], admin_key="key", credentials=Cast(OWN), checks={}, version="1")


@pytest.fixture
async def client(api: FastAPI, world: PostgresWorld) -> AsyncIterator[httpx2.AsyncClient]:
    await world.clock.advance(timedelta(minutes=30).total_seconds())
    await world.provision("quiet", *ACCOUNTS)
    for tenant_id, account_id in ACCOUNTS.items():
        await world.pool.execute(
            "UPDATE environment SET driver = 'aws', resources = $2 WHERE tenant_id = $1",
            tenant_id,
            {"accountId": account_id},
        )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        yield client


async def happen(world: PostgresWorld, tenant_id: str, event: Event, count: int = 1, *, hours_ago: int = 0) -> None:
    at = world.clock.now() - timedelta(hours=hours_ago)
    says = Occurrence(event, ACCOUNTS[tenant_id], at, at, count)
    await Recorder(world.pool, clock=world.clock).record([Notice(uuid.uuid4(), at.date(), says)])


async def pause(world: PostgresWorld, changes: Changes, tenant_id: str) -> None:
    await happen(world, tenant_id, Event.SEND, 20)
    await happen(world, tenant_id, Event.PERMANENT_BOUNCE, 5)
    await Reporter(changes, LIMITS, clock=world.clock).report_all()


async def shown(client: httpx2.AsyncClient, who: str = "operator", **query: Any) -> Any:
    answer = await client.get("/v1/mail", params=query, headers=as_(who))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def resume(client: httpx2.AsyncClient, tenant_id: str, who: str = "operator") -> httpx2.Response:
    body = {"tenantId": tenant_id, "reason": "They have cleaned their list."}
    return await client.post("/v1/mail-resumptions", json=body, headers=as_(who))


async def test_what_became_of_a_tenants_mails_is_shown_with_its_rates(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    await happen(world, OWN, Event.SEND, 200)
    await happen(world, OWN, Event.SEND, 200, hours_ago=24)
    await happen(world, OWN, Event.SEND, 1000, hours_ago=25)
    await happen(world, OWN, Event.PERMANENT_BOUNCE, 3)
    await happen(world, OWN, Event.COMPLAINT)
    await happen(world, OWN, Event.OPEN, 7)

    (item,) = (await shown(client))["items"]

    since = hour_of(world.clock.now(), back=24)
    assert datetime.fromisoformat(item.pop("since")).astimezone(UTC) == since
    assert item == {
        "tenantId": OWN,
        "product": None,
        "counts": {"send": 400, "permanent_bounce": 3, "complaint": 1, "open": 7},
        "score": {"sends": 400, "bounces": 3, "complaints": 1, "bounceRate": 0.75, "complaintRate": 0.25},
        "limits": {"hours": 24, "bounceRate": 8.0, "complaintRate": 0.4, "leastSends": 10},
        "paused": False,
        "pausedAt": None,
        "reason": None,
        "grounds": None,
        "appliedAt": None,
        "attempts": 0,
        "problem": None,
    }


async def test_a_tenant_that_is_paused_is_shown_with_why(
    client: httpx2.AsyncClient, world: PostgresWorld, changes: Changes
) -> None:
    await pause(world, changes, OWN)
    await happen(world, OWN, Event.SEND, 80)

    (item,) = (await shown(client, "administrator"))["items"]

    assert (item["paused"], item["reason"], item["appliedAt"]) == (True, "bounce_rate", None)
    grounds = {"sends": 20, "bounces": 5, "complaints": 0, "bounceRate": 25.0, "complaintRate": 0.0}
    assert item["grounds"] == grounds
    assert item["score"]["sends"] == 100


async def test_members_are_shown_their_own_tenant_and_of_others_what_is_there_of_none(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    for tenant_id in ACCOUNTS:
        await happen(world, tenant_id, Event.SEND)
    first = await shown(client, limit=1)
    assert [item["tenantId"] for item in first["items"]] == [OTHER]
    rest = await shown(client, cursor=first["nextCursor"])
    assert ([item["tenantId"] for item in rest["items"]], rest["nextCursor"]) == ([OWN], None)

    for who in ("administrator", "visitor", "reader"):
        for query in ({}, {"tenantId": OWN}, {"limit": 1}, {"cursor": first["nextCursor"]}):
            assert [item["tenantId"] for item in (await shown(client, who, **query))["items"]] == [OWN]
        other = await client.get("/v1/mail", params={"tenantId": OTHER}, headers=as_(who))
        absent = await client.get("/v1/mail", params={"tenantId": ABSENT}, headers=as_(who))
        assert told(other) == told(absent)
        assert other.json()["items"] == []


async def test_what_was_nobodys_is_shown_by_its_reason(client: httpx2.AsyncClient, world: PostgresWorld) -> None:
    now = world.clock.now()
    recorder = Recorder(world.pool, clock=world.clock)
    for _ in range(2):
        await recorder.record([Notice(uuid.uuid4(), now.date(), Oddity.UNREADABLE)])
    stranger = Occurrence(Event.SEND, "9" * 12, now, now, 1)
    await recorder.record([Notice(uuid.uuid4(), now.date(), stranger)])

    answer = await client.get("/v1/mail/oddities", headers=as_("support"))

    items = {item["reason"]: item["count"] for item in answer.json()["items"]}
    assert items == {"stranger": 1, "unreadable": 2}


async def test_an_operator_lets_a_tenant_send_again_and_that_is_told_with_a_reason(
    client: httpx2.AsyncClient, world: PostgresWorld, changes: Changes
) -> None:
    await pause(world, changes, OWN)
    await world.clock.advance(60)

    answer = await resume(client, OWN, "support")

    assert answer.status_code == 202
    resumed = answer.json()
    assert (resumed["paused"], resumed["reason"], resumed["grounds"]) == (False, None, None)
    assert (resumed["score"]["sends"], resumed["counts"]["send"]) == (0, 20)
    _, decision = await decided(world.pool)
    assert (decision.actor, decision.action, decision.reason) == (
        "user:support", "mail.resumed", "They have cleaned their list.",
    )  # fmt: skip
    assert decision.before is not None
    assert (decision.tenant_id, decision.before["reason"], decision.before["bounces"]) == (OWN, "bounce_rate", 5)
    rows = await world.pool.fetch("SELECT event FROM outbox ORDER BY id")
    said = [decode(orjson.loads(row["event"])).message for row in rows]
    (fact,) = [each for each in said if isinstance(each, MailSendingResumed)]
    assert fact == MailSendingResumed(tenant_id=OWN, occurred_at=world.clock.now())


async def test_what_is_not_paused_cannot_be_resumed(
    client: httpx2.AsyncClient, world: PostgresWorld, changes: Changes
) -> None:
    await pause(world, changes, OWN)
    await happen(world, OTHER, Event.SEND)

    answers = [await resume(client, each) for each in (OTHER, OWN, OWN, "quiet", ABSENT)]

    assert [answer.status_code for answer in answers] == [409, 202, 409, 404, 404]
    assert {answer.json().get("code") for answer in answers} == {"not_paused", "unknown_mail", None}
    assert [each.action for each in await decided(world.pool)] == ["mail.paused", "mail.resumed"]


async def test_a_tenant_cannot_let_itself_send_again(
    client: httpx2.AsyncClient, world: PostgresWorld, changes: Changes
) -> None:
    await pause(world, changes, OWN)

    for who in ("administrator", "visitor", "user", "reader"):
        assert (await resume(client, OWN, who)).status_code == 403

    assert (await shown(client))["items"][0]["paused"]


async def test_a_tenants_mail_is_found_by_an_index_of_tenants(world: PostgresWorld) -> None:
    async with world.pool.acquire() as connection:
        listing = queries.page(connection, after="", limit=50, tenant_id=OWN, since=world.clock.now())
        of_mail = await general_plan(connection, listing)

    assert "mail_sending_pkey" in of_mail
    assert "mail_count_pkey" in of_mail


async def test_an_account_of_a_products_own_is_judged_by_itself_and_shown_with_its_tenants(
    client: httpx2.AsyncClient, world: PostgresWorld, changes: Changes
) -> None:
    tenancy = f"{OWN}:crm"
    await world.pool.execute(
        """
        INSERT INTO environment (environment_id, tenant_id, owner_id, product, driver, isolation, region, resources,
                                 created_at)
        VALUES ($1, $2, $3, 'crm', 'aws', 'silo', 'local', $4, $5)
        """,
        uuid.uuid4(),
        tenancy,
        OWN,
        {"accountId": "3" * 12},
        world.clock.now(),
    )
    ACCOUNTS[tenancy] = "3" * 12
    try:
        await happen(world, OWN, Event.SEND, 20)
        await pause(world, changes, tenancy)
    finally:
        del ACCOUNTS[tenancy]

    items = (await shown(client, who="administrator"))["items"]
    assert [(each["tenantId"], each["product"], each["paused"]) for each in items] == [
        (OWN, None, False),
        (OWN, "crm", True),
    ]
    assert (await resume(client, OWN)).status_code == 409
    body = {"tenantId": OWN, "product": "crm", "reason": "They have cleaned their list."}
    answer = await client.post("/v1/mail-resumptions", json=body, headers=as_("operator"))
    assert (answer.status_code, answer.json()["product"], answer.json()["paused"]) == (202, "crm", False)
    rows = await world.pool.fetch("SELECT event FROM outbox ORDER BY id")
    facts = [decode(orjson.loads(row["event"])).message for row in rows]
    assert {(each.tenant_id, each.product) for each in facts if isinstance(each, MailReported)} == {
        (OWN, None),
        (OWN, "crm"),
    }
    assert [each.product for each in facts if isinstance(each, MailSendingPaused | MailSendingResumed)] == ["crm"] * 2
