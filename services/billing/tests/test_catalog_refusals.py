"""What no plan and no version of one can be: refused by the name of the field, before anything is looked up."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import httpx2
import pytest
import pytest_asyncio

from services.billing.tests.support import all_routes
from shared.http import create_api
from shared.postgres import Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "a-key-of-the-administrator"
NO_DATABASE = cast("Pool", None)
"""Nothing that is refused here is looked up."""

PLAN: Mapping[str, Any] = {"name": "gold", "rank": 4, "currency": "USD"}
VERSION: Mapping[str, Any] = {"prices": {"USD": "30"}}
FLAT: Mapping[str, Any] = {"model": "flat", "flatAmount": "1"}
CHARGE: Mapping[str, Any] = {"meter": "api_calls", "currency": "USD", "price": FLAT}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    api = create_api("billing", routers=[all_routes(NO_DATABASE)], admin_key=KEY, checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


async def post(client: httpx2.AsyncClient, path: str, body: Mapping[str, Any]) -> httpx2.Response:
    """Send what a JSON encoder that minds would not."""
    return await client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})


def charging(**details: Any) -> list[Any]:
    return [{**CHARGE, **details}]


NUMBERS = ("-1", "1e5", "NaN", "Infinity", "", "9" * 16, "1.", "0." + "1" * 13, "1\x00", "\udc00", 1, 1.5, None, True)
"""What is no exact number, not below 0, written plainly."""

BAD_TERMS: list[tuple[str, Any, str]] = [
    *(("prices", {"USD": number}, "/prices/USD") for number in NUMBERS),
    ("prices", {"USD": "30.005"}, "/prices/USD"),
    ("prices", {"USD": "30", "JPY": "0.5"}, "/prices/JPY"),
    ("prices", {"USD": "30", "KWD": "1.0005"}, "/prices/KWD"),
    ("prices", {}, "/prices"),
    ("prices", {"USD": "30", "XAU": "1"}, "/prices/XAU"),
    ("prices", {"USD": "30", "XXX": "1"}, "/prices/XXX"),
    ("prices", {"USD": "30", "usd": "1"}, "/prices/usd"),
    ("prices", {"USD": "30", "\x00": "1"}, "/prices"),
    ("prices", {"USD": "30", "\udc00": "1"}, "/prices"),
    ("prices", [["USD", "30"]], "/prices"),
    ("prices", None, "/prices"),
    ("paysIn", "never", "/paysIn"),
    ("paysIn", None, "/paysIn"),
    ("trialDays", -1, "/trialDays"),
    ("trialDays", 366, "/trialDays"),
    ("trialDays", 1.5, "/trialDays"),
    ("trialDays", 10**400, "/trialDays"),
    ("trialDays", "7", "/trialDays"),
    ("trialDays", True, "/trialDays"),
    ("proration", "hour", "/proration"),
    ("startsAt", "2026-03-01", "/startsAt"),
    ("startsAt", "2026-03-01T12:00:00", "/startsAt"),
    ("startsAt", "2026-13-01T12:00:00Z", "/startsAt"),
    ("startsAt", "0001-01-01T00:00:00Z", "/startsAt"),
    ("startsAt", "9999-12-31T23:59:59Z", "/startsAt"),
    ("startsAt", 1772366400, "/startsAt"),
    ("charges", None, "/charges"),
    ("charges", {}, "/charges"),
    ("charges", [CHARGE] * 201, "/charges"),
    ("charges", charging(meter="API calls"), "/charges/0/meter"),
    ("charges", charging(meter="a\x00"), "/charges/0/meter"),
    ("charges", charging(currency="EUR"), "/charges/0/currency"),
    ("charges", charging(currency="XAU"), "/charges/0/currency"),
    *(("charges", charging(included=number), "/charges/0/included") for number in NUMBERS),
    *(("charges", charging(minimum=number), "/charges/0/minimum") for number in NUMBERS if number is not None),
    ("charges", [CHARGE, CHARGE], "/charges/1/meter"),
    ("charges", charging(price=None), "/charges/0/price"),
    ("charges", charging(price={"model": "free"}), "/charges/0/price/model"),
    ("charges", charging(price={"model": "per_unit"}), "/charges/0/price/unitAmount"),
    ("charges", charging(price={**FLAT, "unitAmount": "1"}), "/charges/0/price/unitAmount"),
    ("charges", charging(price={**FLAT, "flatOnZero": True}), "/charges/0/price/flatOnZero"),
    ("charges", charging(price={**FLAT, "quantity": "1"}), "/charges/0/price/quantity"),
    ("charges", charging(price={"model": "graduated", "tiers": []}), "/charges/0/price/tiers"),
    (
        "charges",
        charging(price={"model": "volume", "tiers": [{"upTo": "1", "unitAmount": "1"}]}),
        "/charges/0/price/tiers/0/upTo",
    ),
    (
        "charges",
        charging(price={"model": "package", "package": {"size": "0", "amount": "1"}}),
        "/charges/0/price/package/size",
    ),
    ("version", 7, "/version"),
]
BAD_PLANS: list[tuple[str, Any, str]] = [
    ("name", "Gold", "/name"),
    ("name", "", "/name"),
    ("name", "g" * 64, "/name"),
    ("name", "g\x00", "/name"),
    ("name", None, "/name"),
    ("rank", 0, "/rank"),
    ("rank", 2**31, "/rank"),
    ("rank", "4", "/rank"),
    ("rank", True, "/rank"),
    ("interval", "year", "/interval"),
    ("currency", "EUR", "/currency"),
    ("currency", "XAU", "/currency"),
    ("currency", "usd", "/currency"),
    ("reachesExistingAt", "2026-03-01T12:00:00Z", "/reachesExistingAt"),
]


@pytest.mark.parametrize(("field", "value", "pointer"), [*BAD_TERMS, *BAD_PLANS], ids=lambda value: repr(value)[:40])
async def test_a_bad_value_is_refused_by_the_name_of_its_field(
    client: httpx2.AsyncClient, field: str, value: Any, pointer: str
) -> None:
    answers = [await post(client, "/v1/plans", {**PLAN, **VERSION, field: value})]
    if (field, value, pointer) in BAD_TERMS:
        answers.append(await post(client, "/v1/plans/gold/versions", {**VERSION, field: value}))

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) in {(422, "validation_failed"), (400, "malformed_json")}
        assert pointer in [error["pointer"][: len(pointer)] for error in answer.json()["errors"]], answer.text
        assert pointer.rpartition("/")[2] in answer.json()["detail"]


@pytest.mark.parametrize("value", ["2026-03-01", "9999-12-31T23:59:59Z", 7])
async def test_a_version_reaches_those_who_have_the_plan_at_a_moment(client: httpx2.AsyncClient, value: Any) -> None:
    answer = await client.post("/v1/plans/gold/versions", json={**VERSION, "reachesExistingAt": value})

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/reachesExistingAt"]


async def test_what_is_missing_is_named(client: httpx2.AsyncClient) -> None:
    plan = await client.post("/v1/plans", json={"charges": [{}]})
    version = await client.post("/v1/plans/gold/versions", json={"charges": [{"price": {}}]})

    assert {error["pointer"] for error in plan.json()["errors"]} == {
        "/name", "/rank", "/currency", "/prices",
        "/charges/0/meter", "/charges/0/currency", "/charges/0/price",
    }  # fmt: skip
    assert {error["pointer"] for error in version.json()["errors"]} == {
        "/prices", "/charges/0/meter", "/charges/0/currency", "/charges/0/price/model",
    }  # fmt: skip


async def test_all_that_is_wrong_is_named_at_once(client: httpx2.AsyncClient) -> None:
    tiers = [{"upTo": "5", "unitAmount": "1"}, {"upTo": "5", "unitAmount": "1"}]
    body = {
        **PLAN,
        "currency": "EUR",
        "prices": {"JPY": "0.5"},
        "charges": [CHARGE, {**CHARGE, "price": {"model": "graduated", "tiers": tiers}}],
    }

    answer = await client.post("/v1/plans", json=body)

    assert [(error["pointer"], error["detail"]) for error in answer.json()["errors"]] == [
        ("/currency", "`currency` must be a currency of `prices`."),
        ("/prices/JPY", "`prices/JPY` must have at most 0 digits behind the point."),
        ("/charges/0/currency", "`charges/0/currency` must be a currency of `prices`."),
        ("/charges/1/currency", "`charges/1/currency` must be a currency of `prices`."),
        ("/charges/1/meter", "`charges/1/meter` is charged in USD already."),
        ("/charges/1/price/tiers/1/upTo", "`upTo` of the last tier must be null."),
    ]
