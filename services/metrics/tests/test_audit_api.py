"""The audit trail over HTTP: the newest first, each tenant's for itself, and verified by whoever wants to."""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from services.metrics import audit, queries
from services.metrics.queries.audit import EntryFilter
from services.metrics.tests.support import api_of
from shared.audit import Actor, decision
from shared.clock import ManualClock
from shared.contracts.base import INSTALLATION, Decision
from shared.contracts.identity import DecisionRecorded
from shared.ids import TimeOrderedIds
from shared.postgres import Pool, transaction
from shared.testing.plans import general_plan
from shared.testing.principals import Cast, as_, told

OWN, OTHER, ABSENT = "own", "oth", "abs"
MEMBERS = ("administrator", "visitor", "reader")
IDS = TimeOrderedIds()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    api = api_of(pool, credentials=Cast(OWN))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        yield client


@pytest.fixture(autouse=True)
async def trail(pool: Pool, clock: ManualClock) -> Sequence[Decision]:
    """Six decisions, an hour apart, appended in another order than they were taken in."""
    made = []
    for number, (tenant_id, actor, action) in enumerate(
        [
            (OWN, "user:anna", "session.begun"),
            (OTHER, "user:bela", "session.begun"),
            (OWN, "user:anna", "api_key.issued"),
            (INSTALLATION, "system-administrator", "client.registered"),
            (OWN, "user:otto", "support.begun"),
            (OTHER, "user:bela", "api_key.issued"),
        ]
    ):
        made.append(
            decision(
                DecisionRecorded,
                Actor(actor, reason="Ticket 7" if actor == "user:otto" else None),
                tenant_id=tenant_id,
                action=action,
                subject=f"thing:{number}",
                before={"n": number},
                after={"name": "Zoë", "n": number + 1},
                clock=clock,
                ids=IDS,
            )
        )
        await clock.advance(3600)
    async with transaction(pool) as connection:
        await audit.append(connection, made[::-1], now=clock.now())
    return made


async def get(client: httpx2.AsyncClient, who: str, path: str = "/v1/audit", **query: Any) -> Any:
    answer = await client.get(path, params=query, headers=as_(who))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def listed(client: httpx2.AsyncClient, who: str = "operator", **query: Any) -> list[int]:
    """Return the numbers of the decisions that are shown."""
    return [int(item["subject"].removeprefix("thing:")) for item in (await get(client, who, **query))["items"]]


async def verified(client: httpx2.AsyncClient, who: str = "operator", **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = await get(client, who, "/v1/audit/verification", **query)
    return found


async def test_an_entry_shows_who_decided_what(client: httpx2.AsyncClient, trail: Sequence[Decision]) -> None:
    (newest, *_) = (await get(client, "administrator"))["items"]

    assert newest == {
        "tenantId": OWN,
        "seq": 1,
        "decisionId": str(trail[4].decision_id),
        "decidedAt": "2026-01-01T04:00:00Z",
        "recordedAt": "2026-01-01T06:00:00Z",
        "service": "identity",
        "actor": "user:otto",
        "role": None,
        "reason": "Ticket 7",
        "action": "support.begun",
        "subject": "thing:4",
        "before": {"n": 4},
        "after": {"name": "Zoë", "n": 5},
        "previousHash": "0" * 64,
        "hash": newest["hash"],
    }


async def test_an_operator_sees_all_the_newest_first_page_by_page(client: httpx2.AsyncClient) -> None:
    assert await listed(client) == [5, 4, 3, 2, 1, 0]

    seen: list[int] = []
    query: dict[str, Any] = {"limit": 4}
    for _ in range(2):
        page = await get(client, "operator", **query)
        seen += [item["before"]["n"] for item in page["items"]]
        query["cursor"] = page["nextCursor"]
    assert seen == [5, 4, 3, 2, 1, 0]
    assert query["cursor"] is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"tenantId": OTHER}, [5, 1]),
        ({"tenantId": INSTALLATION}, [3]),
        ({"actor": "user:anna"}, [2, 0]),
        ({"action": "api_key.issued"}, [5, 2]),
        ({"action": "api_key.issued", "tenantId": OWN}, [2]),
        ({"actor": "user:anna", "action": "session.begun"}, [0]),
        ({"from": "2026-01-01T04:00:00Z"}, [5, 4]),
        ({"to": "2026-01-01T04:00:00Z"}, [3, 2, 1, 0]),
        ({"from": "2026-01-01T02:00:00+01:00", "to": "2026-01-01T03:00:00Z"}, [2, 1]),
        ({"from": "2026-01-02T00:00:00Z"}, []),
        ({"actor": "nobody"}, []),
    ],
)
async def test_a_trail_is_searched(client: httpx2.AsyncClient, query: dict[str, str], expected: list[int]) -> None:
    assert await listed(client, **query) == expected


@pytest.mark.parametrize(
    ("query", "name"),
    [({"from": "yesterday"}, "from"), ({"to": "2026-13-01T00:00:00Z"}, "to"), ({"cursor": "made-up"}, "cursor"),
     ({"tenantId": "no tenant"}, "tenantId")],
)  # fmt: skip
async def test_a_malformed_query_is_refused_by_name(
    client: httpx2.AsyncClient, query: dict[str, str], name: str
) -> None:
    answer = await client.get("/v1/audit", params=query, headers=as_("operator"))

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"]


@pytest.mark.parametrize("who", MEMBERS)
async def test_members_and_visitors_see_their_own_tenants_trail_and_no_other(
    client: httpx2.AsyncClient, who: str
) -> None:
    assert await listed(client, who) == await listed(client, who, tenantId=OWN) == [4, 2, 0]
    assert await listed(client, who, actor="user:bela") == []
    page = await get(client, "operator", limit=2)
    assert await listed(client, who, cursor=page["nextCursor"]) == [2, 0]
    assert await listed(client, who, tenantId=INSTALLATION) == []


@pytest.mark.parametrize("who", MEMBERS)
@pytest.mark.parametrize("path", ["/v1/audit", "/v1/audit/verification"])
async def test_another_tenant_has_as_little_of_a_trail_as_none(client: httpx2.AsyncClient, who: str, path: str) -> None:
    for more in ({}, {"fromSeq": "2"}) if path.endswith("verification") else ({}, {"actor": "user:bela"}):
        other = await client.get(path, params={"tenantId": OTHER, **more}, headers=as_(who))
        absent = await client.get(path, params={"tenantId": ABSENT, **more}, headers=as_(who))
        assert told(other, OTHER) == told(absent, ABSENT)
        assert other.status_code == 200


async def test_a_chain_is_verified(client: httpx2.AsyncClient) -> None:
    newest = (await get(client, "administrator"))["items"]
    end = max(newest, key=lambda entry: entry["seq"])
    expected = {
        "tenantId": OWN,
        "isWhole": True,
        "checked": 3,
        "brokenAt": None,
        "nextSeq": None,
        "end": {"seq": 3, "hash": end["hash"]},
    }

    assert await verified(client, "administrator") == expected
    assert await verified(client, "operator", tenantId=OWN) == expected
    assert (await verified(client, "operator"))["tenantId"] is None
    assert (await verified(client, "operator"))["checked"] == 1
    assert (await verified(client, "administrator", fromSeq=3))["checked"] == 1


async def test_a_long_chain_is_verified_in_parts(client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MOST_VERIFIED", 2)

    first = await verified(client, "administrator")
    second = await verified(client, "administrator", fromSeq=first["nextSeq"])

    assert (first["isWhole"], first["checked"], first["nextSeq"]) == (True, 2, 3)
    assert (second["isWhole"], second["checked"], second["nextSeq"]) == (True, 1, None)


async def test_a_broken_chain_is_told(client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    intact = audit.hash_of

    def forged(entry: audit.Entry) -> bytes:
        return intact({**entry, "actor": "user:eve"} if entry["seq"] == 2 else entry)

    monkeypatch.setattr(audit, "hash_of", forged)
    found = await verified(client, "administrator")

    assert (found["isWhole"], found["checked"], found["brokenAt"], found["nextSeq"]) == (False, 1, 2, None)


async def test_whoever_has_the_entries_can_work_out_the_hashes(client: httpx2.AsyncClient) -> None:
    for entry in (await get(client, "operator"))["items"]:
        sealed = entry.pop("hash")
        content = {**entry, "tenantId": entry["tenantId"] or "_"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(text.encode()).hexdigest() == sealed


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (EntryFilter(), "audit_entry_by_time"),
        (EntryFilter("t1"), "audit_entry_by_tenant"),
        (EntryFilter("t1", since=datetime(2026, 1, 1, tzinfo=UTC)), "audit_entry_by_tenant"),
        (EntryFilter(actor="user:anna"), "audit_entry_by_actor"),
        (EntryFilter(action="session.begun"), "audit_entry_by_action"),
    ],
)
async def test_every_list_is_found_by_an_index(pool: Pool, wanted: EntryFilter, index: str) -> None:
    after = (datetime.now(UTC) - timedelta(days=1), IDS.new())
    async with pool.acquire() as connection:
        plan = await general_plan(connection, queries.audit.entries(connection, wanted, after=after, limit=50))

    assert f"Index Scan Backward using {index}" in plan
    assert "Sort" not in plan
