"""Both calculators over HTTP, against numbers that others have published. Each case says whose they are.

Not here, because it is no price of a quantity and no part of a period: percentages (Lago's, with free events and
amounts), credit notes, credits and prepayments. Published numbers that contradict their own rule are left out too:
Lago's "5" for half of April from the 15th, its upgrade that gives ten days for nothing, its 22 days of July as 22/30.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

import httpx2
import pytest
import pytest_asyncio

from services.billing.api.previews import PRICE_EXAMPLES, PRORATION_EXAMPLES
from services.billing.tests.support import all_routes
from shared.http import create_api
from shared.postgres import Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "a-key-of-the-administrator"
PRICE, PRORATION = "/v1/price-preview", "/v1/proration-preview"
NO_DATABASE = cast("Pool", None)
"""Nothing that is asked for here is looked up."""

Body = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    api = create_api("billing", routers=[all_routes(NO_DATABASE)], admin_key=KEY, checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


async def preview(client: httpx2.AsyncClient, path: str, body: Body) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    previewed: dict[str, Any] = answer.json()
    return previewed


def asked(**details: Any) -> Body:
    """Ask for a price in dollars."""
    return {"currency": "USD"} | details


def tiers(*each: tuple[str | None, str] | tuple[str | None, str, str]) -> list[Body]:
    """Make tiers of bounds, unit amounts and flat amounts."""
    return [dict(zip(("upTo", "unitAmount", "flatAmount"), tier, strict=False)) for tier in each]


def package(amount: str, size: str, free: str = "0") -> Body:
    return {"model": "package", "package": {"size": size, "amount": amount, "free": free}}


LAGO_TIERS = tiers(("10", "10", "2"), ("20", "5", "3"), (None, "5", "3"))
LAGO_SMALL_TIERS = tiers(("0.1", "10"), ("1", "5"), (None, "2"))
LAGO_VOLUME = tiers(
    ("10000", "0.0010", "10"), ("50000", "0.0008", "10"), ("100000", "0.0006", "10"), (None, "0.0004", "10")
)
STRIPE_TIERS = tiers(("5", "7"), ("10", "6.5"), (None, "6"))
KILL_BILL_MINUTES, KILL_BILL_BYTES = tiers(("100", "1.00"), (None, "0.50")), tiers(("1024", "0.5"), (None, "0.1"))
KILL_BILL_TIERS, KILL_BILL_FLAT = tiers(("20", "2"), (None, "20")), tiers((None, "10"))
AUTUMN_TIERS = tiers(("1000", "0.01"), ("10000", "0.008"), (None, "0.005"))

LAGO = {"model": "graduated", "tiers": LAGO_TIERS}
STRIPE = {"model": "volume", "tiers": STRIPE_TIERS}

PRICES = [
    # G-M1: Lago, graduated_service_spec.rb. It charges the first flat amount at 0, we when asked to.
    *(
        pytest.param(LAGO | {"quantity": quantity}, total, id=f"G-M1 {quantity}")
        for quantity, total in {"1": "12.00", "10": "102.00", "11": "110.00", "12": "115.00", "21": "163.00"}.items()
    ),
    pytest.param(LAGO | {"quantity": "0", "flatOnZero": True}, "2.00", id="G-M1 0 as Lago has it"),
    pytest.param(LAGO | {"quantity": "0"}, "0.00", id="G-M1 0"),
    # G-M2: the same, tiers that adjoin at decimals.
    pytest.param({"model": "graduated", "tiers": LAGO_SMALL_TIERS, "quantity": "0.05"}, "0.50", id="G-M2 0.05"),
    pytest.param({"model": "graduated", "tiers": LAGO_SMALL_TIERS, "quantity": "0.5"}, "3.00", id="G-M2 0.5"),
    # G-M4: Lago, package_service_spec.rb. G-M5: its documentation.
    pytest.param(package("100", "10") | {"quantity": "121"}, "1300.00", id="G-M4 free 0"),
    pytest.param(package("100", "10", "10") | {"quantity": "121"}, "1200.00", id="G-M4 free 10"),
    pytest.param(package("100", "10", "200") | {"quantity": "121"}, "0.00", id="G-M4 free 200"),
    pytest.param(package("5", "100", "100") | {"quantity": "201"}, "10.00", id="G-M5"),
    # G-M6: Lago's documentation of volume.
    pytest.param({"model": "volume", "tiers": LAGO_VOLUME, "quantity": "65000"}, "49.00", id="G-M6"),
    # G-M8, G-M9: Stripe, tiered pricing by volume, and the same tiers graduated.
    *(
        pytest.param(STRIPE | {"quantity": quantity}, total, id=f"G-M8 {quantity}")
        for quantity, total in {"1": "7.00", "5": "35.00", "6": "39.00", "20": "120.00", "25": "150.00"}.items()
    ),
    *(
        pytest.param(STRIPE | {"model": "graduated", "quantity": quantity}, total, id=f"G-M9 {quantity}")
        for quantity, total in {"1": "7.00", "5": "35.00", "6": "41.50", "20": "127.50", "25": "157.50"}.items()
    ),
    # G-M10: Stripe, transformed quantities.
    pytest.param(package("10", "60") | {"quantity": "150"}, "30.00", id="G-M10 150 minutes by the hour"),
    *(
        pytest.param(package("10", "5") | {"quantity": quantity}, total, id=f"G-M10 {quantity} of 5 users")
        for quantity, total in {"1": "10.00", "3": "10.00", "5": "10.00", "6": "20.00", "7": "20.00"}.items()
    ),
    # G-M15: OpenMeter, packages.
    pytest.param(package("15", "10") | {"quantity": "0"}, "0.00", id="G-M15 0"),
    pytest.param(package("15", "10") | {"quantity": "10"}, "15.00", id="G-M15 10"),
    # G-M18: Autumn's documentation.
    pytest.param({"model": "graduated", "tiers": AUTUMN_TIERS, "quantity": "15000"}, "107.00", id="G-M18"),
    # G-R1: Stripe, decimal amounts: 1.5 cents are 2; and half up where half to even gives 0.12.
    pytest.param({"model": "per_unit", "unitAmount": "0.0005", "quantity": "30"}, "0.02", id="G-R1"),
    pytest.param({"model": "flat", "flatAmount": "0.125", "quantity": "1"}, "0.13", id="G-R1 half up"),
    # 4.4: OpenMeter, what is billed late: 7 at 10 where 50 were billed, and a cheaper volume where 150 were.
    pytest.param(
        {"model": "per_unit", "unitAmount": "10", "quantity": "7", "alreadyBilled": "50"}, "20.00", id="4.4 late"
    ),
    pytest.param(
        {"model": "volume", "tiers": tiers(("15", "10"), (None, "5")), "quantity": "16", "alreadyBilled": "150"},
        "-70.00",
        id="4.4 repriced",
    ),
]


@pytest.mark.parametrize(("body", "total"), PRICES)
async def test_a_price_is_the_published_one(client: httpx2.AsyncClient, body: Body, total: str) -> None:
    previewed = await preview(client, PRICE, asked(**body))

    assert (previewed["subtotal"], previewed["tax"], previewed["total"]) == (total, "0.00", total)
    assert sum(Decimal(line["amount"]) for line in previewed["lines"]) == Decimal(total)


@pytest.mark.parametrize(
    ("quantity", "lines"),
    [("0", []), ("10", [("10", "102.00")]), ("21", [("10", "102.00"), ("10", "53.00"), ("1", "8.00")])],
)
async def test_graduated_has_a_line_for_each_tier_that_is_entered(
    client: httpx2.AsyncClient, quantity: str, lines: list[tuple[str, str]]
) -> None:
    previewed = await preview(client, PRICE, asked(**LAGO, quantity=quantity))

    assert [(line["quantity"], line["amount"]) for line in previewed["lines"]] == lines


async def test_a_package_of_nothing_has_no_line(client: httpx2.AsyncClient) -> None:
    """As OpenMeter has it (G-M15)."""
    assert (await preview(client, PRICE, asked(**package("15", "10"), quantity="0")))["lines"] == []


@pytest.mark.parametrize(
    ("model", "meters", "total"),
    [
        # G-M16: Kill Bill, catalog usage: 1500 minutes in blocks of 10, 2048 MB. ALL_TIER is graduated, TOP_TIER is
        # volume.
        pytest.param("graduated", [(KILL_BILL_MINUTES, "150"), (KILL_BILL_BYTES, "2048")], "739.40", id="G-M16 all"),
        pytest.param("volume", [(KILL_BILL_MINUTES, "150"), (KILL_BILL_BYTES, "2048")], "279.80", id="G-M16 top"),
        # G-M17: Kill Bill, invoicing usage.
        pytest.param("graduated", [(KILL_BILL_TIERS, "120"), (KILL_BILL_FLAT, "10")], "2140.00", id="G-M17 all"),
        pytest.param("volume", [(KILL_BILL_TIERS, "120"), (KILL_BILL_FLAT, "10")], "2500.00", id="G-M17 top"),
    ],
)
async def test_two_meters_cost_together_what_kill_bill_says(
    client: httpx2.AsyncClient, model: str, meters: Sequence[tuple[list[Body], str]], total: str
) -> None:
    previewed = [
        await preview(client, PRICE, asked(model=model, tiers=each, quantity=quantity)) for each, quantity in meters
    ]

    assert sum(Decimal(each["total"]) for each in previewed) == Decimal(total)


@pytest.mark.parametrize(
    ("amounts", "rate", "taxes", "sums"),
    [
        pytest.param(("0.43", "4.84"), "15", ["0.06", "0.73"], ("0.79", "6.06"), id="G-R2, Stripe"),
        # Lago rounds once and gets 5.56; by line, as Stripe does, it is 5.55.
        pytest.param(("0.17", "4.46"), "20", ["0.03", "0.89"], ("0.92", "5.55"), id="G-R3, by line"),
    ],
)
async def test_tax_is_rounded_line_by_line(
    client: httpx2.AsyncClient, amounts: tuple[str, str], rate: str, taxes: list[str], sums: tuple[str, str]
) -> None:
    """Two lines of given amounts: one unit in each of two tiers."""
    first, second = amounts
    body = asked(model="graduated", tiers=tiers(("1", first), (None, second)), quantity="2", taxRate=rate)

    previewed = await preview(client, PRICE, body)

    assert [line["tax"] for line in previewed["lines"]] == taxes
    assert (previewed["tax"], previewed["total"]) == sums


async def test_what_was_billed_takes_its_tax_with_it(client: httpx2.AsyncClient) -> None:
    """Lago's credit notes (G-R8): 50 and 20, less 10 of a coupon, taxed with 10 %."""
    body = asked(
        model="graduated", tiers=tiers(("1", "50"), (None, "20")), quantity="2", alreadyBilled="10", taxRate="10"
    )

    previewed = await preview(client, PRICE, body)

    assert (previewed["subtotal"], previewed["tax"], previewed["total"]) == ("60.00", "6.00", "66.00")


async def test_a_price_is_told_with_all_its_lines(client: httpx2.AsyncClient) -> None:
    body = asked(model="per_unit", unitAmount="0.5", quantity="10.50", minimum="7", alreadyBilled="2", taxRate="7.5")

    assert await preview(client, PRICE, body) == {
        "lines": [
            {"description": "10.5 at 0.50 USD each", "quantity": "10.5", "amount": "5.25", "tax": "0.39"},
            {"description": "up to the minimum of 7.00 USD", "quantity": "1", "amount": "1.75", "tax": "0.13"},
            {"description": "already billed for the period", "quantity": "1", "amount": "-2.00", "tax": "-0.15"},
        ],
        "subtotal": "5.00",
        "tax": "0.37",
        "total": "5.37",
    }


async def test_without_a_rate_lines_have_no_tax(client: httpx2.AsyncClient) -> None:
    previewed = await preview(client, PRICE, asked(model="flat", flatAmount="49", quantity="7"))

    assert previewed == {
        "lines": [{"description": "flat, 49.00 USD", "quantity": "1", "amount": "49.00"}],
        "subtotal": "49.00",
        "tax": "0.00",
        "total": "49.00",
    }


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "2"), ("USD", "1.50"), ("KWD", "1.500")])
async def test_amounts_have_the_digits_of_their_currency(
    client: httpx2.AsyncClient, currency: str, amount: str
) -> None:
    priced = await preview(
        client, PRICE, {"currency": currency, "model": "per_unit", "unitAmount": "0.0005", "quantity": "3000"}
    )
    prorated = await preview(
        client, PRORATION, period("2026-04-01", "2026-05-01", "2026-04-16", to="3") | {"currency": currency}
    )

    assert (priced["lines"][0]["amount"], priced["total"], prorated["charge"]) == (amount, amount, amount)


def period(start: str, end: str, change: str, *, of: str = "0", to: str = "0", **more: str) -> Body:
    """Ask for a change in dollars."""
    dates = {"periodStart": start, "periodEnd": end, "changeAt": change}
    return {"currency": "USD", "fromAmount": of, "toAmount": to} | dates | more


BERLIN = {"timeZone": "Europe/Berlin"}

# Credit, charge and net. What begins or ends within a period changes from 0, or to it.
PRORATIONS = [
    pytest.param(
        period("2026-04-01", "2026-05-01", "2026-04-06", to="50"),
        ("0.00", "41.67", "41.67"),  # 25/30
        id="G-P1: Lago, plan model: 50 a month from 1 April, the first five days free",
    ),
    pytest.param(
        period("2026-08-01", "2026-09-01", "2026-08-10", to="50"),
        ("0.00", "35.48", "35.48"),  # 22/31
        id="G-P2: Lago, subscription: 50 a month from 10 August",
    ),
    pytest.param(
        period("2022-03-01", "2022-04-01", "2022-03-15", to="50000.00"),
        ("0.00", "27419.35", "27419.35"),  # 17/31
        id="G-P4: Lago, free_trial_billing_spec.rb: from 5 March, ten days free",
    ),
    pytest.param(
        period("2026-05-01", "2026-06-01", "2026-05-11", of="20", to="40"),
        ("13.55", "27.10", "13.55"),  # 21/31 of both
        id="G-P5: Lago, an upgrade on 11 May",
    ),
    pytest.param(
        period("2026-03-22", "2026-06-21", "2026-05-20", to="910"),
        ("0.00", "320.00", "320.00"),  # 32/91
        id="G-P7: Lago, upgrade_proration_spec.rb: a quarter of 91 days, begun on 20 May, used to 20 June",
    ),
    pytest.param(
        period("2026-05-20", "2026-08-19", "2026-06-21", of="910"),
        ("590.00", "0.00", "-590.00"),  # 59/91 are not used, 320.00 are
        id="G-P7: the same for the quarter that begins on 20 May",
    ),
    pytest.param(
        period("2026-04-01", "2026-05-01", "2026-04-16", of="10", to="20"),
        ("5.00", "10.00", "5.00"),  # -5 + 10 = +5
        id="G-P11: Stripe, from 10 to 20 in the middle",
    ),
    pytest.param(
        period("2026-10-01", "2026-11-01", "2026-10-26", to="31.00", mode="day", **BERLIN),
        ("0.00", "6.00", "6.00"),  # 6/31
        id="G-P12: by day, when clocks go back",
    ),
    pytest.param(
        period("2026-10-01", "2026-11-01", "2026-10-26", to="31.00", mode="second", **BERLIN),
        ("0.00", "5.99", "5.99"),  # 518 400 / 2 682 000 seconds
        id="G-P12: by second, when clocks go back",
    ),
    pytest.param(
        period("2026-10-01", "2026-11-01", "2026-10-26", to="31.00", mode="second"),
        ("0.00", "6.00", "6.00"),
        id="by second, where clocks do not go back",
    ),
    pytest.param(
        period("2026-03-01", "2026-04-01", "2026-03-15", of="10.00", to="20.00"),
        ("5.48", "10.97", "5.49"),  # 17/31: each is rounded, then they are taken off each other
        id="the example of the contract",
    ),
    pytest.param(
        period("2026-03-01", "2026-04-01", "2026-03-01", of="10", to="20"),
        ("10.00", "20.00", "10.00"),
        id="at the beginning",
    ),
    pytest.param(
        period("2026-03-01", "2026-04-01", "2026-03-31T23:59:59.999999Z", of="31", to="62"),
        ("1.00", "2.00", "1.00"),
        id="on the last day, which belongs to what comes after",
    ),
    pytest.param(
        period("2026-03-01T00:00:00+02:00", "2026-04-01T00:00:00+02:00", "2026-03-16T22:00:00-02:00", to="31"),
        ("0.00", "14.00", "14.00"),  # 28 February to 30 March in UTC, from 17 March on
        id="moments with offsets",
    ),
    pytest.param(
        period("2026-03-01", "2026-03-02", "2026-03-01T18:00:00Z", of="24", to="48", mode="second"),
        ("6.00", "12.00", "6.00"),
        id="six hours of a day",
    ),
]


@pytest.mark.parametrize(("body", "figures"), PRORATIONS)
async def test_a_proration_is_the_published_one(
    client: httpx2.AsyncClient, body: Body, figures: tuple[str, str, str]
) -> None:
    assert await preview(client, PRORATION, body) == dict(zip(("credit", "charge", "net"), figures, strict=True))


@pytest.mark.parametrize(
    ("start", "change", "end", "ratio"),
    [
        ("2026-05-15", "2026-05-23", "2026-06-15", "741935.484"),
        ("2026-06-15", "2026-06-23", "2026-07-15", "733333.333"),
        ("2023-02-15", "2023-02-23", "2023-03-15", "714285.714"),
        ("2024-02-15", "2024-02-23", "2024-03-15", "724137.931"),
    ],
)
async def test_ratios_are_those_of_kill_bill(
    client: httpx2.AsyncClient, start: str, change: str, end: str, ratio: str
) -> None:
    """G-P8, in the digits of a million dinars; G-P9, where each month has 30 days, is no rule of ours."""
    body = period(start, end, change, to="1000000") | {"currency": "KWD"}

    assert (await preview(client, PRORATION, body))["charge"] == ratio


async def test_the_days_of_a_quarter_are_charged_by_two_changes(client: httpx2.AsyncClient) -> None:
    """G-P7 in the quarter of the calendar: what begins on 20 May and ends after 20 June costs 32 of 91 days."""
    quarter = ("2026-04-01", "2026-07-01")

    begun = await preview(client, PRORATION, period(*quarter, "2026-05-20", to="910"))
    ended = await preview(client, PRORATION, period(*quarter, "2026-06-21", of="910"))

    assert Decimal(begun["net"]) + Decimal(ended["net"]) == Decimal("320.00")


@pytest.mark.parametrize(("path", "examples"), [(PRICE, PRICE_EXAMPLES), (PRORATION, PRORATION_EXAMPLES)])
async def test_every_example_of_the_document_gives_what_it_says(
    client: httpx2.AsyncClient, path: str, examples: Mapping[str, Any]
) -> None:
    document = (await client.get("/openapi.json")).json()
    published = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]

    assert published.keys() == examples.keys()
    for example in published.values():
        told = await preview(client, path, example["value"])
        assert told.get("total", told.get("net")) in example["summary"]
