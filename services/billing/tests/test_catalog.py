"""Plans that are published, in versions, over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from services.billing.tests.support import NOON, all_routes, are_waiting
from shared.audit import Details
from shared.clock import ManualClock
from shared.contracts.base import Decision
from shared.http import create_api
from shared.postgres import Pool
from shared.testing import eventually
from shared.testing.decisions import decided
from shared.testing.principals import Cast, as_

GOLD: Mapping[str, Any] = {"name": "gold", "rank": 4, "currency": "USD", "prices": {"USD": "30"}}
DEFAULTS: Mapping[str, Any] = {"version": 1, "paysIn": "arrears", "trialDays": 0, "proration": "day", "charges": []}
"""What a plan is of which nothing of this is said."""

CALLS: list[dict[str, Any]] = [
    {
        "meter": "api_calls",
        "currency": "JPY",
        "price": {"model": "per_unit", "unitAmount": "0.05"},
        "included": "1000",
        "minimum": "100",
    },
    {
        "meter": "api_calls",
        "currency": "KWD",
        "price": {
            "model": "graduated",
            "tiers": [
                {"upTo": "1000", "unitAmount": "0.0000001", "flatAmount": "0"},
                {"upTo": None, "unitAmount": "0.5", "flatAmount": "2.125"},
            ],
            "flatOnZero": True,
        },
        "included": "0",
        "minimum": None,
    },
    {
        "meter": "storage",
        "currency": "JPY",
        "price": {"model": "package", "package": {"size": "10", "amount": "100", "free": "5"}},
        "included": "0.5",
        "minimum": None,
    },
]
METERED: Mapping[str, Any] = {
    **GOLD,
    "currency": "JPY",
    "prices": {"JPY": "3000", "KWD": "7.5"},
    "paysIn": "advance",
    "trialDays": 14,
    "proration": "second",
    "charges": CALLS,
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
async def client(pool: Pool, clock: ManualClock) -> AsyncIterator[httpx2.AsyncClient]:
    """A system administrator, and a catalog in which nobody has published anything yet."""
    router = all_routes(pool, clock=clock)
    api = create_api("billing", routers=[router], admin_key="key", credentials=Cast("t1"), checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers=as_("operator")
    ) as client:
        yield client


def day(number: int, month: int = 3) -> str:
    return f"2026-{month:02}-{number:02}T00:00:00Z"


def without_nothing(charges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return charges without the fields of other price models, which are null."""
    return [
        charge
        | {
            "price": {
                name: value
                for name, value in charge["price"].items()
                if value is not None and (name != "flatOnZero" or charge["price"]["tiers"])
            }
        }
        for charge in charges
    ]


async def told(pool: Pool) -> list[tuple[str, str, Details | None, Details | None]]:
    """Return what the audit trail was told, by the system administrator, of no one tenant."""
    decisions = await decided(pool)
    assert {(each.tenant_id, each.actor) for each in decisions} <= {("_", "user:operator")}
    assert all(isinstance(each, Decision) and each.owner == "billing" for each in decisions)
    return [(each.action, each.subject, each.before, each.after) for each in decisions]


async def test_a_plan_is_published_with_no_more_than_it_needs(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/plans", json=GOLD)

    terms = {**DEFAULTS, "startsAt": "2026-03-01T12:00:00Z", "prices": [{"currency": "USD", "amount": "30.00"}]}
    assert (answer.status_code, answer.headers["Location"]) == (201, "/v1/plans/gold")
    assert answer.json() == {
        "name": "gold",
        "rank": 4,
        "interval": "month",
        "currency": "USD",
        "amount": "30.00",
        **terms,
        "versions": [{**terms, "reachesExistingAt": None}],
    }
    assert (await client.get("/v1/plans/gold")).json() == answer.json()
    (listed,) = [each for each in (await client.get("/v1/plans")).json()["items"] if each["name"] == "gold"]
    assert listed == {name: value for name, value in answer.json().items() if name != "versions"}


async def test_a_plan_is_published_with_all_that_can_be_said(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/plans", json={**METERED, "startsAt": day(2)})

    plan = answer.json()
    assert answer.status_code == 201, answer.text
    assert {name: plan[name] for name in ("paysIn", "trialDays", "proration", "startsAt", "currency", "amount")} == {
        **{name: METERED[name] for name in ("paysIn", "trialDays", "proration", "currency")},
        "startsAt": day(2),
        "amount": "3000",
    }
    assert plan["prices"] == [{"currency": "JPY", "amount": "3000"}, {"currency": "KWD", "amount": "7.500"}]
    assert without_nothing(plan["charges"]) == CALLS


async def test_a_charge_as_it_is_shown_can_be_previewed_and_published_again(client: httpx2.AsyncClient) -> None:
    shown = (await client.post("/v1/plans", json=METERED)).json()["charges"]

    previews = [
        await client.post("/v1/price-preview", json={**each["price"], "currency": each["currency"], "quantity": "2000"})
        for each in shown
    ]
    again = await client.post("/v1/plans", json={**METERED, "charges": shown})

    assert [each.json()["total"] for each in previews] == ["100", "502.125", "20000"]
    assert again.status_code == 200


async def test_what_is_published_is_told_to_the_audit_trail(client: httpx2.AsyncClient, pool: Pool) -> None:
    await client.post("/v1/plans", json=GOLD)
    charge = {"meter": "seats", "currency": "USD", "price": {"model": "flat", "flatAmount": "1.50"}}
    body = {"prices": {"USD": "60", "EUR": "50"}, "charges": [charge], "startsAt": day(5), "reachesExistingAt": day(9)}
    await client.post("/v1/plans/gold/versions", json=body)

    common = {"paysIn": "arrears", "trialDays": 0, "proration": "day"}
    assert await told(pool) == [
        (
            "plan.created",
            "plan:gold",
            None,
            {
                "rank": 4,
                "interval": "month",
                "currency": "USD",
                "version": 1,
                "startsAt": "2026-03-01T12:00:00+00:00",
                **common,
                "prices": {"USD": "30.00"},
                "charges": [],
            },
        ),
        (
            "plan.version_published",
            "plan:gold",
            None,
            {
                "version": 2,
                "startsAt": day(5).replace("Z", "+00:00"),
                "reachesExistingAt": day(9).replace("Z", "+00:00"),
                **common,
                "prices": {"EUR": "50.00", "USD": "60.00"},
                "charges": [
                    {
                        "meter": "seats",
                        "currency": "USD",
                        "price": {"model": "flat", "flatAmount": "1.5"},
                        "included": "0",
                        "minimum": None,
                    }
                ],
            },
        ),
    ]


@pytest.mark.parametrize("body", [GOLD, METERED, {**METERED, "startsAt": day(2)}], ids=["least", "all", "later"])
async def test_whoever_asks_for_a_plan_again_gets_the_same_one_and_nothing_is_told(
    client: httpx2.AsyncClient, pool: Pool, clock: ManualClock, body: Mapping[str, Any]
) -> None:
    first = await client.post("/v1/plans", json=body)
    await clock.advance(86_400 * 3)
    version = {name: body[name] for name in body if name not in ("name", "rank", "currency", "startsAt")}
    again = await client.post("/v1/plans", json=body)
    another = {**version, "trialDays": 7}
    second = await client.post("/v1/plans/gold/versions", json=another)
    await clock.advance(86_400 * 3)
    second_again = await client.post("/v1/plans/gold/versions", json=another)
    once_more = await client.post("/v1/plans", json=body)

    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    assert (second.status_code, second_again.status_code) == (201, 200)
    assert second_again.json() == second.json()
    assert (once_more.status_code, len(once_more.json()["versions"])) == (200, 2)
    assert [action for action, *_ in await told(pool)] == ["plan.created", "plan.version_published"]


@pytest.mark.parametrize(
    ("difference", "code", "pointer"),
    [
        ({"rank": 5}, "plan_exists", "/name"),
        ({"prices": {"USD": "31"}}, "plan_exists", "/name"),
        ({"prices": {"USD": "30", "EUR": "30"}}, "plan_exists", "/name"),
        ({"prices": {"USD": "30", "EUR": "30"}, "currency": "EUR"}, "plan_exists", "/name"),
        ({"paysIn": "advance"}, "plan_exists", "/name"),
        ({"trialDays": 1}, "plan_exists", "/name"),
        ({"proration": "second"}, "plan_exists", "/name"),
        ({"startsAt": day(9)}, "plan_exists", "/name"),
        (
            {"charges": [{"meter": "a", "currency": "USD", "price": {"model": "flat", "flatAmount": "0"}}]},
            "plan_exists",
            "/name",
        ),
        ({"name": "standard", "rank": 2}, "plan_exists", "/name"),
        ({"name": "silver"}, "rank_taken", "/rank"),
    ],
    ids=str,
)
async def test_another_plan_of_a_name_or_a_rank_that_is_taken_is_refused(
    client: httpx2.AsyncClient, pool: Pool, difference: Mapping[str, Any], code: str, pointer: str
) -> None:
    before = (await client.post("/v1/plans", json=GOLD)).json()

    answer = await client.post("/v1/plans", json={**GOLD, **difference})

    assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert (await client.get("/v1/plans/gold")).json() == before
    assert len(await told(pool)) == 1


async def test_a_plan_that_was_there_before_versions_can_be_asked_for_again(client: httpx2.AsyncClient) -> None:
    body = {"name": "standard", "rank": 2, "currency": "USD", "prices": {"USD": "49.00", "EUR": "45"}}

    answers = [await client.post("/v1/plans", json=body), await client.get("/v1/plans/standard")]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["versions"] == answers[1].json()["versions"]
    assert (answers[0].json()["startsAt"], answers[0].json()["version"]) == (None, 1)


async def test_a_version_is_in_force_from_its_start_on(client: httpx2.AsyncClient, clock: ManualClock) -> None:
    async def shown() -> list[tuple[int, str]]:
        listed = (await client.get("/v1/plans")).json()["items"]
        plans = [each for each in listed if each["name"] == "gold"]
        return [(each["version"], each["amount"]) for each in (*plans, (await client.get("/v1/plans/gold")).json())]

    await client.post("/v1/plans", json=GOLD)
    answer = await client.post("/v1/plans/gold/versions", json={"prices": {"USD": "60"}, "startsAt": day(5)})
    before = await shown()
    await clock.advance(timedelta(days=3, hours=12).total_seconds() - 1)
    just_before = await shown()
    await clock.advance(1)

    assert (answer.status_code, answer.headers["Location"]) == (201, "/v1/plans/gold")
    assert (answer.json()["version"], answer.json()["startsAt"]) == (2, day(5))
    assert before == just_before == [(1, "30.00")] * 2
    assert await shown() == [(2, "60.00")] * 2


async def test_a_plan_that_is_yet_to_start_shows_its_first_version(client: httpx2.AsyncClient) -> None:
    await client.post("/v1/plans", json={**GOLD, "startsAt": day(5)})
    await client.post("/v1/plans/gold/versions", json={"prices": {"USD": "60"}, "startsAt": day(6)})

    listed = (await client.get("/v1/plans", params={"limit": 1})).json()
    gold = (await client.get("/v1/plans/gold")).json()

    assert listed["nextCursor"] is not None
    assert (gold["version"], gold["startsAt"], len(gold["versions"])) == (1, day(5), 2)
    items = (await client.get("/v1/plans")).json()["items"]
    assert [(each["name"], each["version"]) for each in items][-1] == ("gold", 1)


@pytest.mark.parametrize(
    ("body", "outcome", "pointer"),
    [
        ({"startsAt": "2026-03-01T11:58:59Z"}, (422, "validation_failed"), "/startsAt"),
        ({"reachesExistingAt": "2026-03-01T11:59:59Z"}, (422, "validation_failed"), "/reachesExistingAt"),
        ({"startsAt": day(5), "reachesExistingAt": day(4)}, (422, "validation_failed"), "/reachesExistingAt"),
        ({"prices": {"EUR": "60"}}, (422, "validation_failed"), "/prices"),
        ({"startsAt": "2026-03-01T12:59:59Z"}, (409, "starts_too_early"), "/startsAt"),
        ({}, (409, "starts_too_early"), "/startsAt"),
    ],
    ids=str,
)
async def test_a_version_that_cannot_come_next_is_refused(
    client: httpx2.AsyncClient, pool: Pool, body: Mapping[str, Any], outcome: tuple[int, str], pointer: str
) -> None:
    await client.post("/v1/plans", json={**GOLD, "startsAt": "2026-03-01T13:00:00Z"})

    answer = await client.post("/v1/plans/gold/versions", json={"prices": {"USD": "60"}, **body})

    assert (answer.status_code, answer.json()["code"]) == outcome
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert len(await told(pool)) == 1


async def test_a_start_may_lie_back_as_far_as_clocks_differ(client: httpx2.AsyncClient) -> None:
    punctual = "2026-03-01T11:59:00Z"

    plan = await client.post("/v1/plans", json={**GOLD, "startsAt": punctual})
    late = await client.post("/v1/plans", json={**GOLD, "name": "late", "rank": 5, "startsAt": "2026-03-01T11:58:00Z"})
    version = {"prices": {"USD": "60"}, "startsAt": punctual, "reachesExistingAt": punctual}
    answer = await client.post("/v1/plans/gold/versions", json=version)

    assert [each.status_code for each in (plan, late, answer)] == [201, 422, 201]
    assert answer.json()["reachesExistingAt"] == punctual


async def test_a_version_that_was_scheduled_is_replaced_by_one_that_starts_with_it(
    client: httpx2.AsyncClient, clock: ManualClock
) -> None:
    await client.post("/v1/plans", json=GOLD)
    for amount in ("60", "30"):
        body = {"prices": {"USD": amount}, "startsAt": day(5)}
        assert (await client.post("/v1/plans/gold/versions", json=body)).status_code == 201
    sooner = await client.post("/v1/plans/gold/versions", json={"prices": {"USD": "30"}})
    await clock.advance(86_400 * 5)

    assert (sooner.status_code, sooner.json()["code"]) == (409, "starts_too_early")
    gold = (await client.get("/v1/plans/gold")).json()
    assert (gold["version"], gold["amount"]) == (3, "30.00")


async def test_a_plan_that_is_not_there_is_named(client: httpx2.AsyncClient) -> None:
    answers = [
        await client.get("/v1/plans/nowhere"),
        await client.post("/v1/plans/nowhere/versions", json={"prices": {"USD": "1"}}),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "unknown_plan")] * 2


async def test_versions_never_change(client: httpx2.AsyncClient) -> None:
    first = (await client.post("/v1/plans", json=METERED)).json()["versions"]

    second = (await client.post("/v1/plans/gold/versions", json={"prices": {"JPY": "1", "USD": "2"}})).json()

    assert (await client.get("/v1/plans/gold")).json()["versions"] == [*first, second]


async def test_currencies_are_added_when_they_are_first_used(client: httpx2.AsyncClient, pool: Pool) -> None:
    await client.post("/v1/plans", json=METERED)
    await client.post("/v1/plans/gold/versions", json={"prices": {"JPY": "1", "TND": "0.125"}})

    rows = await pool.fetch("SELECT code, digits FROM currency")
    assert {row["code"]: row["digits"] for row in rows} == {"EUR": 2, "JPY": 0, "KWD": 3, "TND": 3, "USD": 2}


async def test_the_release_before_reads_the_newest_prices(client: httpx2.AsyncClient, pool: Pool) -> None:
    await client.post("/v1/plans", json=METERED)
    await client.post("/v1/plans/gold/versions", json={"prices": {"JPY": "4000", "USD": "40"}})

    rows = await pool.fetch("SELECT currency, amount::float FROM plan_price WHERE plan = 'gold'")
    assert {row["currency"]: row["amount"] for row in rows} == {"JPY": 4000, "USD": 40, "KWD": 7.5}


async def test_publishers_at_once_never_publish_a_version_twice(client: httpx2.AsyncClient, pool: Pool) -> None:
    await client.post("/v1/plans", json=GOLD)

    answers = await asyncio.gather(
        *(client.post("/v1/plans/gold/versions", json={"prices": {"USD": str(amount)}}) for amount in range(5)),
        *(client.post("/v1/plans/gold/versions", json={"prices": {"USD": "7"}}) for _ in range(2)),
    )

    created = [answer.json()["version"] for answer in answers if answer.status_code == 201]
    assert sorted(created) == list(range(2, len(created) + 2))
    assert len(created) in (6, 7)  # the same again is the same one, unless another came in between
    assert len((await client.get("/v1/plans/gold")).json()["versions"]) == len(created) + 1
    assert len(await told(pool)) == len(created) + 1


async def test_of_publishers_of_a_plan_at_once_one_is_first(client: httpx2.AsyncClient, pool: Pool) -> None:
    answers = await asyncio.gather(
        client.post("/v1/plans", json=GOLD),
        client.post("/v1/plans", json=GOLD),
        client.post("/v1/plans", json={**GOLD, "name": "silver"}),
    )

    codes = sorted((answer.status_code, answer.json().get("code", "")) for answer in answers)
    assert codes in (
        [(200, ""), (201, ""), (409, "rank_taken")],
        [(201, ""), (409, "rank_taken"), (409, "rank_taken")],
    )
    assert len(await told(pool)) == 1


async def test_whoever_publishes_waits_for_whoever_does_so_already(client: httpx2.AsyncClient, pool: Pool) -> None:
    async def is_waiting() -> bool:
        return await are_waiting(pool, 1)

    async with pool.acquire() as other, other.transaction():
        await other.execute("UPDATE plan SET rank = 4 WHERE name = 'premium'")
        waiting = asyncio.create_task(client.post("/v1/plans", json=GOLD))
        await eventually(is_waiting, describe="the publisher waits")
        assert (await client.get("/v1/plans")).status_code == 200

    assert (await waiting).json()["code"] == "rank_taken"


async def test_what_cannot_be_told_is_not_published(
    client: httpx2.AsyncClient, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("shared.changes.outbox.insert", fail)

    answers = [
        await client.post("/v1/plans", json=GOLD),
        await client.post("/v1/plans/standard/versions", json={"prices": {"USD": "1"}}),
    ]

    assert [answer.status_code for answer in answers] == [503, 503]
    assert await pool.fetchval("SELECT count(*) FROM plan_version WHERE plan = 'gold' OR version > 1") == 0
