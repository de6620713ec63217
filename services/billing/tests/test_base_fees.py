"""All figures were worked out by hand, or are others' as the comment beside them says."""

from zoneinfo import ZoneInfo

import pytest

from services.billing.money import Currency
from services.billing.statement import targets
from services.billing.stretch import Stretch
from services.billing.tests.statements import (
    BERLIN,
    USD,
    Figures,
    account,
    closed,
    due,
    figures,
    moment,
    stretch,
    terms,
)


@pytest.mark.parametrize(
    ("stretches", "owed"),
    [
        pytest.param([], [], id="never charged"),
        pytest.param(
            [stretch("2026-03-01", "2026-04-01")],
            [("31", "49.00")],  # 49 * 31/31
            id="a full month",
        ),
        pytest.param(
            [stretch("2026-08-10T15:00", "2026-09-01", "50.00")],
            [("22", "35.48")],  # 50 * 22/31 = 35.4838..., Lago's G-P2
            id="from the day of activation to the end of the month",
        ),
        pytest.param(
            [stretch("2026-04-01", "2026-04-16T23:59:59", "30.00")],
            [("15", "15.00")],  # the 16th is not charged: 30 * 15/30
            id="to the day before the closing",
        ),
        pytest.param(
            [
                stretch("2026-05-01", "2026-05-11T09:00", "20.00"),
                stretch("2026-05-11T09:00", "2026-06-01", "40.00", plan="premium"),
            ],
            [("10", "6.45"), ("21", "27.10")],  # 20 * 10/31 = 6.4516..., 40 * 21/31 = 27.0967...
            id="the day of a plan change belongs to the new plan",
        ),
        pytest.param(
            [
                stretch("2026-05-01", "2026-05-11T09:00", "20.00"),
                stretch("2026-05-11T09:00", "2026-05-11T10:00", "500.00", plan="premium"),
                stretch("2026-05-11T10:00", "2026-06-01", "20.00"),
            ],
            [("31", "20.00")],  # no day closes on the premium plan
            id="of two plan changes on one day the last counts",
        ),
        pytest.param(
            [stretch("2026-03-10T12:00", "2026-03-20T12:00"), stretch("2026-04-05T12:00", "2026-04-10T12:00")],
            [("10", "15.81"), ("5", "8.17")],  # 49 * 10/31 = 15.8064..., 49 * 5/30 = 8.1666...
            id="a pause across the end of a month",
        ),
        pytest.param(
            [stretch("2026-03-10T12:00", "2026-03-20T12:00"), stretch("2026-03-20T18:00", "2026-03-22T00:00")],
            [("12", "18.97")],  # 10 to 21 March: 49 * 12/31 = 18.9677...
            id="the day of a pause is charged if billing is resumed on it",
        ),
        pytest.param(
            [stretch("2026-03-10T00:00", "2026-03-10T23:59:59.999999")],
            [],
            id="activation and closing on one day",
        ),
        pytest.param(
            [stretch("2026-03-10T23:59:59.999999", "2026-03-11T00:00")],
            [("1", "1.58")],  # the 10th ends in force: 49 * 1/31 = 1.5806...
            id="a single midnight",
        ),
        pytest.param(
            [stretch("2026-12-30T23:59", "2027-01-02T00:01")],
            [("2", "3.16"), ("1", "1.58")],  # 49 * 2/31 = 3.1612..., 49 * 1/31 = 1.5806...
            id="across the end of a year",
        ),
        pytest.param(
            [stretch("2026-01-31T08:00", "2026-04-02T08:00", "30.00")],
            [("1", "0.97"), ("28", "30.00"), ("31", "30.00"), ("1", "1.00")],  # 30/31 = 0.9677..., 30/30
            id="one item for each month",
        ),
        pytest.param(
            [stretch("2028-02-28T10:00", "2028-03-01T10:00")],
            [("2", "3.38")],  # the 28th and the 29th: 49 * 2/29 = 3.3793...
            id="the last days of a leap February",
        ),
        pytest.param(
            [stretch("2026-03-01", "2026-03-11", "0.0000", plan="free")],
            [("10", "0.00")],
            id="a plan that costs nothing is an item",
        ),
        pytest.param(
            [stretch("2026-04-01", "2026-04-02", "3.75")],
            [("1", "0.13")],  # 3.75 * 1/30 = 0.125: half up, where half even gives 0.12
            id="half a cent is rounded up",
        ),
        pytest.param(
            [
                stretch("2026-04-01", "2026-04-11", "10.00"),
                stretch("2026-04-11", "2026-04-21", "10.00", plan="other"),
                stretch("2026-04-21", "2026-05-01", "10.00"),
            ],
            [("10", "3.33"), ("10", "3.33"), ("10", "3.33")],  # 10 * 10/30 = 3.3333... each
            id="items are rounded before they are summed",
        ),
        pytest.param(
            [stretch("2026-04-01", "2026-04-11", "10.00"), stretch("2026-04-11", "2026-05-01", "40.00")],
            [("10", "3.33"), ("20", "26.67")],  # 10 * 10/30 and 40 * 20/30
            id="one plan at another amount is another run",
        ),
    ],
)
def test_days_are_charged_by_what_is_in_force_at_their_end(stretches: list[Stretch], owed: Figures) -> None:
    assert closed(*stretches) == owed


@pytest.mark.parametrize(
    ("currency", "price", "amount"),
    [
        (Currency("JPY", 0), "1000", "323"),  # 322.5806...
        (Currency("KWD", 3), "10", "3.226"),  # 3.2258...
        (Currency("CLF", 4), "1.0001", "0.3226"),  # 0.32261...
        (USD, "9999999999999999.9999", "3225806451612903.23"),  # 3225806451612903.2257...
    ],
)
def test_amounts_are_exact_in_the_digits_of_their_currency(currency: Currency, price: str, amount: str) -> None:
    assert closed(stretch("2026-03-01", "2026-03-11", price), currency=currency) == [("10", amount)]


def test_days_and_months_are_those_of_the_zone() -> None:
    (march, april) = due(
        account(stretch("2026-03-01T23:30", "2026-04-01T22:30"), zone=BERLIN, is_closed=True)  # in UTC
    )

    assert figures([march, april]) == [
        ("30", "47.42"),
        ("1", "1.63"),
    ]  # since 2 March: 49 * 30/31; until 2 April: 49/30
    assert (march.since, march.until) == (moment("2026-03-01T23:00"), moment("2026-03-31T22:00"))
    assert (april.since, april.until) == (moment("2026-03-31T22:00"), moment("2026-04-01T22:00"))


def test_a_day_that_comes_back_is_charged_once() -> None:
    # On 29 October 2006 at 0:01 clocks were set back to 23:01 of the day before, which had been charged by then.
    known = account(
        stretch("2006-10-27T12:00", "2006-10-29T02:30:30", "31.00"),  # in UTC, at 0:00:30
        stretch("2006-10-29T03:00", "2006-10-30T12:00", "31.00", plan="other"),  # at 23:30 again
        zone=ZoneInfo("America/St_Johns"),
        is_closed=True,
    )

    items = targets(known, {}, closes_at=moment("2006-11-01"), window_from=moment("2006-10-01"))

    assert figures(items) == [("2", "2.00"), ("1", "1.00")]


def test_an_item_says_how_its_amount_comes_about() -> None:
    items = due(
        account(
            stretch("2026-03-20T12:00", "2026-03-31T12:00"),
            stretch("2026-03-31T12:00", "2026-04-01T12:00", "0.0125"),
            stretch("2026-03-20", "2026-03-31", product="chess"),
            is_closed=True,
        )
    )

    assert [item.description for item in items] == [
        "standard, 2026-03-20 to 2026-03-30: 11 of 31 days at 49.00 USD a month",
        "standard, 2026-03-31 to 2026-03-31: 1 of 31 days at 0.0125 USD a month",
        "standard for chess, 2026-03-20 to 2026-03-30: 11 of 31 days at 49.00 USD a month",
    ]


def test_licences_are_charged_beside_the_plan_of_the_account_and_listed_after_it() -> None:
    items = due(
        account(
            stretch("2026-03-11", "2026-04-01", "31.00", product="go"),
            stretch("2026-03-21", "2026-04-01", "62.00", product="chess"),
            stretch("2026-03-21", "2026-04-01", "93.00"),
            stretch("2026-03-01", "2026-03-21", "31.00"),
            stretch("2026-03-01", "2026-03-11", "31.00", product="chess"),
            is_closed=True,
        )
    )

    assert figures(items) == [("20", "20.00"), ("11", "33.00"), ("10", "10.00"), ("11", "22.00"), ("21", "21.00")]
    assert [item.description.partition(",")[0] for item in items] == [
        *2 * ["standard"],
        *2 * ["standard for chess"],
        "standard for go",
    ]


def test_a_key_names_what_is_charged_and_when() -> None:
    (item,) = due(account(stretch("2026-03-20", "2026-03-31", "49.0000", product="chess"), is_closed=True))

    assert item.key == "base:chess:standard.v1@49:2026-03:2026-03-20"


def test_of_a_month_in_which_clocks_change_seconds_tell_another_part_than_days() -> None:
    # G-P12: 518 400 of 2 682 000 seconds, for October 2026 has an hour more in Berlin.
    change = [
        stretch("2026-10-01", "2026-10-26", "0", plan="free", zone=BERLIN),
        stretch("2026-10-26", "2026-11-01", "31.00", zone=BERLIN),
    ]

    assert closed(*change, zone=BERLIN)[1] == ("6", "6.00")
    assert closed(*change, zone=BERLIN, terms=[terms(by_second=True)])[1] == ("518400", "5.99")


def test_of_seconds_exactly_those_are_charged_that_passed() -> None:
    (item, other) = due(
        account(
            stretch("2026-04-01T12:00", "2026-04-01T12:00:00.25", "2592000"),
            stretch("2026-04-01T12:00:01", "2026-04-01T12:00:03", "2592000"),
            terms=[terms(by_second=True)],
            is_closed=True,
        )
    )

    assert figures([item, other]) == [("0.25", "0.25"), ("2", "2.00")]  # April has 2 592 000 seconds
    assert item.key != other.key
    assert item.description == (
        "standard, 2026-04-01 12:00:00+00:00 to 2026-04-01 12:00:00.250000+00:00:"
        " 0.25 of 2592000 seconds at 2592000.00 USD a month"
    )


def test_no_second_is_charged_in_a_day_that_is_charged() -> None:
    by_second = [terms("timed", by_second=True)]
    to_days = [
        stretch("2026-04-01", "2026-04-11T12:00", "30.00", plan="timed"),
        stretch("2026-04-11T12:00", "2026-05-01", "30.00"),
    ]
    to_seconds = [
        stretch("2026-04-01", "2026-04-11T12:00", "30.00"),
        stretch("2026-04-11T12:00", "2026-05-01", "30.00", plan="timed"),
    ]

    assert closed(*to_days, terms=by_second) == [("864000", "10.00"), ("20", "20.00")]
    assert closed(*to_seconds, terms=by_second) == [("10", "10.00"), ("1684800", "19.50")]  # 19.5 of 30 days


def test_seconds_that_go_on_after_a_day_without_any_are_one_run() -> None:
    stretches = [
        stretch("2026-04-01", "2026-04-02T12:00", "30.00", plan="timed"),
        stretch("2026-04-02T12:00", "2026-04-02T13:00", "99.00"),
        stretch("2026-04-02T13:00", "2026-04-03", "30.00", plan="timed"),
    ]

    # The plan between is charged by days, and at the end of no day: its hour costs nothing.
    assert closed(*stretches, terms=[terms("timed", by_second=True)]) == [("129600", "1.50"), ("39600", "0.46")]
