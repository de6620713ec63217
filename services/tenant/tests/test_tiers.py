"""Tiers that are created, changed, retired and reinstated over HTTP."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from services.tenant.tests.catalogue import Office, announced, revision
from shared.audit import Details
from shared.clock import ManualClock
from shared.contracts import Message
from shared.contracts.base import Decision
from shared.postgres import Pool
from shared.testing import eventually
from shared.testing.decisions import decided

GOLD: Mapping[str, Any] = {
    "name": "gold",
    "rank": 4,
    "plan": "premium",
    "quotas": {"seats": 1000},
    "isolation": "silo",
}
FULL_GOLD = {
    **GOLD,
    "driver": "script",
    "region": "eu-west-1",
    "parameters": {"size": "large", "zones": ["a", "b"], "replicas": 2, "spot": False, "note": None},
    "connections": 100,
    "requestsPerSecond": 1000,
    "requestsPerDay": 5_000_000_000,
    "isDefault": True,
}
REST: Mapping[str, Any] = {
    "driver": "postgres",
    "region": None,
    "parameters": {},
    "connections": None,
    "requestsPerSecond": None,
    "requestsPerDay": None,
    "isDefault": False,
    "retiredAt": None,
}
"""What a tier is of which nothing of this is said."""


async def told(pool: Pool) -> list[tuple[str, str, Details | None, Details | None]]:
    """Return what the audit trail was told."""
    assert {each.tenant_id for each in await decided(pool)} <= {"_"}
    return [(each.action, each.subject, each.before, each.after) for each in await decided(pool)]


def by_whom(decision: Message) -> str:
    assert isinstance(decision, Decision)
    return decision.actor


async def test_a_tier_is_created_with_no_more_than_it_needs(office: Office, clock: ManualClock) -> None:
    answer = await office.post("/v1/tiers", GOLD)

    assert (answer.status_code, answer.headers["Location"], answer.headers["ETag"]) == (201, "/v1/tiers/gold", '"1"')
    assert answer.json() == {**GOLD, **REST, "createdAt": clock.now().isoformat().replace("+00:00", "Z")}
    assert (await office.get("/v1/tiers/gold")).json() == answer.json()


async def test_a_tier_is_created_with_all_that_can_be_said(office: Office) -> None:
    answer = await office.post("/v1/tiers", FULL_GOLD)

    assert answer.status_code == 201
    assert answer.json() == FULL_GOLD | {"createdAt": answer.json()["createdAt"], "retiredAt": None}
    assert await office.defaults() == ["gold"]


async def test_a_new_tier_is_announced_and_told_to_the_audit_trail(office: Office, pool: Pool) -> None:
    await office.post("/v1/tiers", GOLD)

    (catalog,) = await announced(pool)
    assert (catalog.tiers, catalog.default_tier) == (("free", "standard", "premium", "gold"), "free")
    assert catalog.revision == await revision(pool)
    assert await told(pool) == [
        (
            "tier.created",
            "tier:gold",
            None,
            {
                "rank": 4,
                "plan": "premium",
                "quotas": {"seats": 1000},
                "isolation": "silo",
                "driver": "postgres",
                "parameters": {},
                "isDefault": False,
            },
        )
    ]
    assert [by_whom(each) for each in await decided(pool)] == ["user:operator"]


async def test_whoever_asks_for_a_tier_again_gets_the_same_one_and_nothing_is_told(office: Office, pool: Pool) -> None:
    first = await office.post("/v1/tiers", FULL_GOLD)
    before = await revision(pool)

    again = await office.post("/v1/tiers", FULL_GOLD)

    assert (again.status_code, again.json(), again.headers["ETag"]) == (200, first.json(), '"1"')
    assert (await revision(pool), len(await announced(pool))) == (before, 1)
    assert [action for action, *_ in await told(pool)] == ["tier.changed", "tier.created"]


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({**GOLD, "name": "free"}, "tier_exists", "/name"),
        ({**GOLD, "rank": 3}, "rank_taken", "/rank"),
        ({**GOLD, "name": "old", "rank": 9}, "tier_exists", "/name"),  # retired, and the very same otherwise
    ],
)
async def test_a_name_or_a_rank_that_is_taken_is_refused(
    office: Office, pool: Pool, body: Mapping[str, Any], code: str, pointer: str
) -> None:
    await office.post("/v1/tiers", {**GOLD, "name": "old", "rank": 9})
    await office.post("/v1/tiers/old/retire")
    before = await revision(pool)

    answer = await office.post("/v1/tiers", body)

    assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert await revision(pool) == before


NESTED: dict[str, Any] = {"a": {"b": {"c": {"d": {"e": {"f": {"g": {}}}}}}}}
BAD: list[tuple[str, Any, str]] = [
    ("name", "Gold", "/name"),
    ("name", "", "/name"),
    ("name", "g" * 64, "/name"),
    ("rank", 0, "/rank"),
    ("rank", 2**31, "/rank"),
    ("rank", "4", "/rank"),
    ("rank", True, "/rank"),
    ("plan", "no plan", "/plan"),
    ("quotas", {"seats": -1}, "/quotas/seats"),
    ("quotas", {"seats": 1.5}, "/quotas/seats"),
    ("quotas", {"seats": 2**53}, "/quotas/seats"),
    ("quotas", {"No Meter": 1}, "/quotas/No Meter"),
    ("quotas", {f"m{number}": 1 for number in range(101)}, "/quotas"),
    ("quotas", ["seats"], "/quotas"),
    ("quotas", None, "/quotas"),
    ("isolation", "island", "/isolation"),
    ("isolation", None, "/isolation"),
    ("driver", "../script", "/driver"),
    ("driver", None, "/driver"),
    ("region", "EU West", "/region"),
    ("connections", 0, "/connections"),
    ("requestsPerSecond", -1, "/requestsPerSecond"),
    ("requestsPerDay", 2**53, "/requestsPerDay"),
    ("isDefault", 1, "/isDefault"),
    ("parameters", None, "/parameters"),
    ("parameters", ["a"], "/parameters"),
    ("parameters", {"size": 1.5}, "/parameters"),
    ("parameters", {"list": [{"n": 2**53}]}, "/parameters"),
    ("parameters", NESTED | {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": []}}}}}}}}, "/parameters"),
    ("parameters", {"text": "x" * 16_384}, "/parameters"),
    ("parameters", {"text": "é" * 8_190}, "/parameters"),
    ("edition", 7, "/edition"),
    ("retiredAt", "2026-01-01T00:00:00Z", "/retiredAt"),
]


@pytest.mark.parametrize(("field", "value", "pointer"), BAD, ids=lambda value: str(value)[:40])
async def test_a_bad_value_is_refused_by_the_name_of_its_field(
    office: Office, pool: Pool, field: str, value: Any, pointer: str
) -> None:
    before = await revision(pool)

    answers = [await office.post("/v1/tiers", {**GOLD, field: value})]
    if field != "name":
        answers.append(await office.patch("/v1/tiers/premium", {field: value}))

    for answer in answers:
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error["pointer"].startswith(pointer)
        assert field in error["detail"]
    assert await revision(pool) == before


async def test_of_bad_parameters_the_place_is_named(office: Office) -> None:
    answer = await office.post("/v1/tiers", {**GOLD, "parameters": {"zones": [{"a/b": 0.5}]}})

    assert answer.json()["detail"] == (
        "`parameters` must have no numbers but whole ones below 2^53; write the one at /zones/0/a~1b as text."
    )


@pytest.mark.parametrize(
    "parameters",
    [
        NESTED,
        {"largest": 2**53 - 1, "smallest": 1 - 2**53},
        {"text": "x" * (16_384 - len('{"text": ""}'))},
        {"all\n\t\x7f\x1f": 'é"\\/ 😀', "é": [[], {}, True]},
        {"text": '\n"é' * 2000},
    ],
    ids=lambda value: str(value)[:30],
)
async def test_parameters_come_back_as_they_were_given(office: Office, parameters: Mapping[str, Any]) -> None:
    answer = await office.post("/v1/tiers", {**GOLD, "parameters": parameters})

    assert answer.status_code == 201, answer.text
    assert (await office.get("/v1/tiers/gold")).json()["parameters"] == parameters


async def test_what_is_missing_of_a_tier_is_named(office: Office) -> None:
    answer = await office.post("/v1/tiers", {})

    assert answer.status_code == 422
    pointers = {error["pointer"] for error in answer.json()["errors"]}
    assert pointers == {"/name", "/rank", "/plan", "/quotas", "/isolation"}


async def test_what_a_change_does_not_name_stays(office: Office, pool: Pool) -> None:
    created = (await office.post("/v1/tiers", FULL_GOLD)).json()
    change = {"quotas": {"seats": 5}, "region": None, "requestsPerDay": None, "parameters": {"size": "small"}}

    answer = await office.patch("/v1/tiers/gold", change, '"1"')

    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    assert answer.json() == created | change == (await office.get("/v1/tiers/gold")).json()
    assert (await told(pool))[-1] == (
        "tier.changed",
        "tier:gold",
        {
            "quotas": {"seats": 1000},
            "requestsPerDay": 5_000_000_000,
            "region": "eu-west-1",
            "parameters": FULL_GOLD["parameters"],
        },
        {"quotas": {"seats": 5}, "parameters": {"size": "small"}},
    )
    assert [each.revision for each in await announced(pool)][-1] == await revision(pool)


@pytest.mark.parametrize("body", [{}, {"plan": "premium", "isolation": "silo", "rank": 3, "isDefault": False}])
async def test_a_change_to_what_is_there_already_changes_nothing(
    office: Office, pool: Pool, body: Mapping[str, Any]
) -> None:
    before = await revision(pool)

    answer = await office.patch("/v1/tiers/premium", body)

    assert (answer.status_code, answer.headers["ETag"]) == (200, '"1"')
    assert (await revision(pool), await told(pool), await announced(pool)) == (before, [], [])


async def test_a_change_needs_the_edition_that_was_seen(office: Office) -> None:
    seen = (await office.get("/v1/tiers/premium")).headers["ETag"]

    without = await office.patch("/v1/tiers/premium", {"plan": "free"}, if_match=None)
    first = await office.patch("/v1/tiers/premium", {"plan": "standard"}, seen)
    stale = await office.patch("/v1/tiers/premium", {"plan": "free"}, seen)

    assert [answer.status_code for answer in (without, first, stale)] == [428, 200, 412]
    assert stale.headers["ETag"] == '"2"'
    assert (await office.get("/v1/tiers/premium")).json()["plan"] == "standard"


async def test_of_two_editors_of_one_edition_one_is_refused(office: Office, pool: Pool) -> None:
    answers = await asyncio.gather(
        *(office.patch("/v1/tiers/premium", {"quotas": {"seats": number}}, '"1"') for number in range(5))
    )

    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]
    assert len(await told(pool)) == 1


async def test_of_two_who_want_a_rank_at_once_one_is_refused(office: Office, pool: Pool) -> None:
    answers = await asyncio.gather(
        office.post("/v1/tiers", GOLD),
        office.post("/v1/tiers", {**GOLD, "name": "silver"}),
        office.patch("/v1/tiers/premium", {"rank": 4}),
    )

    codes = [answer.json().get("code") for answer in answers]
    assert sorted(map(str, codes)) == ["None", "rank_taken", "rank_taken"]
    assert len(await announced(pool)) == 1


async def test_whoever_edits_the_catalog_waits_for_whoever_does_so_already(office: Office, pool: Pool) -> None:
    async with pool.acquire() as other, other.transaction():
        await other.execute("UPDATE tier SET edition = 7 WHERE name = 'premium'")
        waiting = asyncio.create_task(office.patch("/v1/tiers/premium", {"plan": "free"}, '"1"'))
        await eventually(office.is_waiting, describe="the editor waits")

    assert (await waiting).status_code == 412


async def test_another_tier_becomes_the_default_in_one_change(office: Office, pool: Pool) -> None:
    answer = await office.patch("/v1/tiers/premium", {"isDefault": True})

    assert answer.status_code == 200
    assert await office.defaults() == ["premium"]
    assert (await office.get("/v1/tiers/free")).headers["ETag"] == '"2"'
    assert [each.default_tier for each in await announced(pool)] == ["premium"]
    assert await told(pool) == [
        ("tier.changed", "tier:free", {"isDefault": True}, {"isDefault": False}),
        ("tier.changed", "tier:premium", {"isDefault": False}, {"isDefault": True}),
    ]


async def test_there_always_is_a_default_tier(office: Office, pool: Pool) -> None:
    unset = await office.patch("/v1/tiers/free", {"isDefault": False})
    retired = await office.post("/v1/tiers/free/retire")

    assert (unset.status_code, unset.json()["code"]) == (409, "default_tier")
    assert [error["pointer"] for error in unset.json()["errors"]] == ["/isDefault"]
    assert (retired.status_code, retired.json()["code"]) == (409, "default_tier")
    assert retired.json()["detail"] == ("Tier free is the default. Make another one the default before you retire it.")
    assert (await office.defaults(), await told(pool)) == (["free"], [])


async def test_a_rank_that_another_tier_has_is_refused_from_a_change_too(office: Office) -> None:
    answer = await office.patch("/v1/tiers/premium", {"rank": 1})

    assert (answer.status_code, answer.json()["code"]) == (409, "rank_taken")
    assert answer.json()["detail"] == "Tier free has rank 1 already."


async def test_a_retired_tier_is_not_offered_until_it_is_reinstated(
    office: Office, pool: Pool, clock: ManualClock
) -> None:
    when = clock.now().isoformat().replace("+00:00", "Z")

    retired = await office.post("/v1/tiers/premium/retire")
    await clock.advance(60)
    again = await office.post("/v1/tiers/premium/retire")
    changed = await office.patch("/v1/tiers/premium", {"plan": "free"})
    reinstated = await office.post("/v1/tiers/premium/reinstate")
    once_more = await office.post("/v1/tiers/premium/reinstate")

    assert [each.status_code for each in (retired, again, changed, reinstated, once_more)] == [200, 200, 409, 200, 200]
    assert retired.json()["retiredAt"] == again.json()["retiredAt"] == when
    assert changed.json()["code"] == "tier_retired"
    assert reinstated.json()["retiredAt"] is once_more.json()["retiredAt"] is None
    assert [each.headers["ETag"] for each in (retired, again, reinstated, once_more)] == ['"2"', '"2"', '"3"', '"3"']
    assert ["premium" in each.tiers for each in await announced(pool)] == [False, True]
    assert await told(pool) == [
        ("tier.retired", "tier:premium", None, {"retiredAt": when.replace("Z", "+00:00")}),
        ("tier.reinstated", "tier:premium", {"retiredAt": when.replace("Z", "+00:00")}, None),
    ]


async def test_a_tier_that_is_not_there_cannot_be_changed(office: Office) -> None:
    answers = [
        await office.patch("/v1/tiers/nowhere", {"plan": "free"}),
        await office.post("/v1/tiers/nowhere/retire"),
        await office.post("/v1/tiers/nowhere/reinstate"),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "unknown_tier")] * 3


async def test_a_change_that_cannot_be_announced_is_not_made(
    office: Office, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("shared.changes.outbox.insert", fail)
    before = await revision(pool)

    assert (await office.post("/v1/tiers", GOLD)).status_code == 503
    assert await revision(pool) == before
