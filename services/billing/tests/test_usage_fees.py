from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.billing.pricing import Flat, Graduated, PerUnit, Tier, Volume
from services.billing.statement import (
    Item,
    months_wanted,
    targets,
)
from services.billing.terms import Charge
from services.billing.tests.ledger import EVER, Ledger
from services.billing.tests.statements import (
    BERLIN,
    account,
    due,
    figures,
    moment,
    stretch,
    terms,
)

EACH = [Charge("api", PerUnit(Decimal("0.10")), included=Decimal(100))]


def test_usage_is_charged_after_the_month_beyond_what_is_included() -> None:
    known = account(stretch("2026-03-01", amount="0"), terms=[terms(charges=EACH)])

    assert months_wanted(known, closes_at=moment("2026-03-31"), window_from=EVER) == []
    base, usage = due(known, "2026-04-01", {"api": "250", "other": "7"})
    assert (base.key, str(usage.amount)) == ("base::standard.v1@0:2026-03:2026-03-01", "15.00")
    assert usage == Item(
        key="usage::standard:api:2026-03:1",
        description="standard, api in 2026-03 after 100 included: 150 at 0.10 USD each",
        quantity=Decimal(150),
        amount=Decimal("15.00"),
        since=moment("2026-03-01"),
        until=moment("2026-04-01"),
    )


@pytest.mark.parametrize("used", ["0", "99.5", "100"])
def test_what_is_included_costs_nothing(used: str) -> None:
    known = account(stretch("2026-03-01", "2026-04-01"), terms=[terms(charges=EACH)], is_closed=True)

    assert figures(due(known, usage={"api": used})) == [("31", "49.00")]


def test_usage_is_not_prorated() -> None:
    known = account(stretch("2026-03-31T12:00"), terms=[terms(charges=EACH)])

    assert figures(due(known, "2026-04-01", {"api": "200"})) == [("1", "1.58"), ("100", "10.00")]


def test_usage_in_a_trial_is_charged() -> None:
    known = account(stretch("2026-03-01", "2026-03-11"), terms=[terms(trial_days=60, charges=EACH)], is_closed=True)

    assert figures(due(known, usage={"api": "200"})) == [("100", "10.00")]


def test_usage_costs_nothing_in_a_month_that_is_not_charged() -> None:
    known = account(
        stretch("2026-03-01", "2026-03-31T08:00"),
        stretch("2026-05-02T08:00", "2026-05-02T09:00"),
        terms=[terms(charges=EACH)],
    )

    assert months_wanted(known, closes_at=moment("2026-06-01"), window_from=EVER) == [
        (moment("2026-03-01"), moment("2026-04-01"))
    ]


def test_usage_of_a_whole_month_is_priced_by_the_plan_that_was_last_in_force() -> None:
    known = account(
        stretch("2026-03-01", "2026-03-31"),
        stretch("2026-03-31", "2026-04-01", plan="premium"),
        terms=[terms(charges=EACH), terms("premium", charges=[Charge("api", PerUnit(Decimal(1)))])],
        is_closed=True,
    )

    assert due(known, usage={"api": "200"})[-1].description == "premium, api in 2026-03: 200 at 1.00 USD each"


def test_usage_is_priced_by_the_version_that_has_reached_somebody_in_the_month() -> None:
    versions = [
        terms(charges=EACH),
        terms(version=2, charges=[Charge("api", PerUnit(Decimal(1)))], reaches_at=moment("2026-04-30T23:00")),
    ]

    items = due(account(stretch("2026-03-01"), terms=versions), "2026-05-01", {"api": "200"})

    assert [(item.key, str(item.amount)) for item in items if item.key.startswith("usage")] == [
        ("usage::standard:api:2026-03:1", "10.00"),
        ("usage::standard:api:2026-04:1", "200.00"),
    ]


def test_a_licence_prices_usage_by_its_own_plan() -> None:
    known = account(
        stretch("2026-03-01", "2026-04-01", "0", plan="free"),
        stretch("2026-03-01", "2026-04-01", "0", product="chess"),
        terms=[terms(charges=EACH)],
        is_closed=True,
    )

    (usage,) = [item for item in due(known, usage={"api": "200"}) if item.amount]
    assert usage.key == "usage:chess:standard:api:2026-03:1"
    assert usage.description == "standard for chess, api in 2026-03 after 100 included: 100 at 0.10 USD each"


@pytest.mark.parametrize(
    ("used", "amounts"),
    [
        ("0", ["6.00"]),  # 18.60 * 10/31
        ("130", ["3.00", "3.00"]),
        ("160", ["6.00"]),
        ("200", ["10.00"]),
    ],
)
def test_a_minimum_is_for_the_part_of_the_month_in_which_the_plan_was_charged(used: str, amounts: list[str]) -> None:
    charge = Charge("api", PerUnit(Decimal("0.10")), included=Decimal(100), minimum=Decimal("18.60"))
    known = account(
        stretch("2026-03-01", "2026-03-06"),
        stretch("2026-03-06", "2026-03-27", plan="other"),
        stretch("2026-03-27", "2026-04-01"),
        terms=[terms(charges=[charge])],
        is_closed=True,
    )

    usage = [item for item in due(known, usage={"api": used}) if item.key.startswith("usage")]
    assert [str(item.amount) for item in usage] == amounts
    assert len({item.key for item in usage}) == len(usage)


def test_a_minimum_is_prorated_by_second_where_its_version_is() -> None:
    charge = Charge("api", PerUnit(Decimal(1)), minimum=Decimal("30.00"))
    known = account(
        stretch("2026-04-01T12:00", "2026-04-03"),
        terms=[terms(by_second=True, trial_days=30, charges=[charge])],
        is_closed=True,
    )

    assert figures(due(known)) == [("1", "1.50")]


@pytest.mark.parametrize(
    ("model", "quantity", "amounts"),
    [  # Lago's G-M1 and Stripe's G-M8, with 100 units more, that are included
        (
            Graduated(
                [
                    Tier(Decimal(10), Decimal(10), Decimal(2)),
                    Tier(Decimal(20), Decimal(5), Decimal(3)),
                    Tier(None, Decimal(5), Decimal(3)),
                ]
            ),
            "121",
            ["102.00", "53.00", "8.00"],
        ),
        (
            Volume([Tier(Decimal(5), Decimal(7)), Tier(Decimal(10), Decimal("6.5")), Tier(None, Decimal(6))]),
            "106",
            ["39.00"],
        ),
        (Flat(Decimal(9)), "0", ["9.00"]),
    ],
)
def test_usage_is_priced_by_the_model_line_by_line(model: Any, quantity: str, amounts: list[str]) -> None:
    charge = Charge("api", model, included=Decimal(100))
    known = account(stretch("2026-03-01", "2026-04-01"), terms=[terms(charges=[charge])], is_closed=True)

    usage = due(known, usage={"api": quantity})[1:]
    assert [str(item.amount) for item in usage] == amounts
    assert [item.key[-2:] for item in usage] == [f":{number}" for number in range(1, len(usage) + 1)]


def test_late_usage_is_billed_with_the_next_invoice_as_a_correction() -> None:
    # OpenMeter's: 5 at 10 were billed, 7 were used.
    known = account(stretch("2026-03-01", amount="0"), terms=[terms(charges=[Charge("api", PerUnit(Decimal(10)))])])
    ledger = Ledger()
    ledger.issue(known, {"2026-03": {"api": Fraction(5)}}, closes_at=moment("2026-04-01"))

    made = ledger.issue(
        known, {"2026-03": {"api": Fraction(7)}, "2026-04": {"api": Fraction(3)}}, closes_at=moment("2026-05-01")
    )

    assert [(line.description, str(line.quantity), str(line.amount)) for line in made] == [
        ("correction of invoice 00000001: standard, api in 2026-03: 7 at 10.00 USD each, 2 more", "2", "20.00"),
        ("standard, 2026-04-01 to 2026-04-30: 30 of 30 days at 0.00 USD a month", "30", "0.00"),
        ("standard, api in 2026-04: 3 at 10.00 USD each", "3", "30.00"),
    ]


def test_late_usage_that_makes_all_cheaper_gives_the_difference_back() -> None:
    # OpenMeter's: 15 at 10 were billed, 16 cost 5 each.
    volume = Volume([Tier(Decimal(15), Decimal(10)), Tier(None, Decimal(5))])
    known = account(stretch("2026-03-01"), terms=[terms(charges=[Charge("api", volume)])])
    ledger = Ledger()
    ledger.issue(known, {"2026-03": {"api": Fraction(15)}}, closes_at=moment("2026-04-01"))

    (line,) = ledger.issue(known, {"2026-03": {"api": Fraction(16)}}, closes_at=moment("2026-04-01"))

    assert (str(line.quantity), str(line.amount)) == ("1", "-70.00")


def test_of_months_that_nothing_is_said_of_the_longest_report_counts_and_without_one_there_is_no_usage_yet() -> None:
    charge = Charge("api", PerUnit(Decimal(1)), minimum=Decimal(50))
    known = account(stretch("2026-03-01"), terms=[terms(charges=[charge])])
    since, until = moment("2026-03-01"), moment("2026-04-01")

    def usage(*reports: tuple[str, str]) -> list[str]:
        reported = {(since, moment(end)): {"api": Decimal(quantity)} for end, quantity in reports}
        items = targets(known, reported, closes_at=until, window_from=since)
        return [str(item.amount) for item in items[1:]]

    assert usage(("2026-04-01", "200"), ("2026-03-10", "100")) == ["200.00"]
    assert usage(("2026-03-10", "100")) == ["100.00"]
    assert usage() == []


def test_usage_of_every_month_of_the_window_that_is_over_is_wanted() -> None:
    known = account(stretch("2026-01-11", zone=BERLIN), zone=BERLIN, terms=[terms(charges=EACH)])

    wanted = months_wanted(known, closes_at=moment("2026-04-15"), window_from=moment("2026-02-01", BERLIN))

    assert wanted == [
        (moment("2026-02-01", BERLIN), moment("2026-03-01", BERLIN)),
        (moment("2026-03-01", BERLIN), moment("2026-04-01", BERLIN)),
    ]


def test_no_usage_is_wanted_where_none_is_charged() -> None:
    known = account(stretch("2026-01-11"), stretch("2026-01-11", product="chess"))

    assert months_wanted(known, closes_at=moment("2026-04-01"), window_from=EVER) == []


@pytest.mark.parametrize(
    ("closes_at", "until"),
    [
        ("2026-04-15T10:20:30.5", "2026-04-15T11:00"),
        ("2026-04-15T10:00", "2026-04-15T10:00"),
        ("2026-04-30T23:30", "2026-05-01"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])  # where the hours begin a quarter of one later
def test_of_a_closed_account_usage_is_wanted_until_the_next_full_hour(closes_at: str, until: str, zone: str) -> None:
    there = ZoneInfo(zone)
    known = account(
        stretch("2026-03-11", closes_at, zone=there), zone=there, terms=[terms(charges=EACH)], is_closed=True
    )

    assert months_wanted(known, closes_at=moment(closes_at, there), window_from=EVER) == [
        (moment("2026-03-01", there), moment("2026-04-01", there)),
        (moment("2026-04-01", there), moment(until, there)),
    ]
