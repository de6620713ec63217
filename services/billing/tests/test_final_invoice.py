from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.final_invoice import FinalInvoice, Stretch, final_invoice
from services.billing.money import Currency, rounded

USD = Currency("USD", 2)


def stretch(start: str, end: str, amount: str = "49.00", *, plan: str = "standard", product: str = "") -> Stretch:
    return Stretch(
        plan,
        Decimal(amount),
        datetime.fromisoformat(start).replace(tzinfo=UTC),
        datetime.fromisoformat(end).replace(tzinfo=UTC),
        product,
    )


def amounts(invoice: FinalInvoice) -> list[tuple[int, str]]:
    return [(line.quantity, str(line.amount)) for line in invoice.lines]


# Every value below was worked out by hand, as the comment beside it says.
@pytest.mark.parametrize(
    ("stretches", "lines", "total"),
    [
        pytest.param([], [], "0.00", id="never charged"),
        pytest.param(
            [stretch("2026-03-01", "2026-04-01")],
            [(31, "49.00")],  # 49 * 31/31
            "49.00",
            id="a full month",
        ),
        pytest.param(
            [stretch("2026-08-10T15:00", "2026-09-01", "50.00")],
            [(22, "35.48")],  # 50 * 22/31 = 35.4838...
            "35.48",
            id="from the day of activation to the end of the month",
        ),
        pytest.param(
            [stretch("2026-04-01", "2026-04-16T23:59:59", "30.00")],
            [(15, "15.00")],  # the 16th is not charged: 30 * 15/30
            "15.00",
            id="to the day before the closing",
        ),
        pytest.param(
            [
                stretch("2026-05-01", "2026-05-11T09:00", "20.00"),
                stretch("2026-05-11T09:00", "2026-06-01", "40.00", plan="premium"),
            ],
            [(10, "6.45"), (21, "27.10")],  # 20 * 10/31 = 6.4516..., 40 * 21/31 = 27.0967...
            "33.55",
            id="the day of a plan change belongs to the new plan",
        ),
        pytest.param(
            [
                stretch("2026-05-01", "2026-05-11T09:00", "20.00"),
                stretch("2026-05-11T09:00", "2026-05-11T10:00", "500.00", plan="premium"),
                stretch("2026-05-11T10:00", "2026-06-01", "20.00"),
            ],
            [(10, "6.45"), (21, "13.55")],  # 20 * 10/31 = 6.4516..., 20 * 21/31 = 13.5483...
            "20.00",
            id="of two plan changes on one day the last counts",
        ),
        pytest.param(
            [stretch("2026-03-10T12:00", "2026-03-20T12:00"), stretch("2026-04-05T12:00", "2026-04-10T12:00")],
            [(10, "15.81"), (5, "8.17")],  # 49 * 10/31 = 15.8064..., 49 * 5/30 = 8.1666...
            "23.98",
            id="a pause across the end of a month",
        ),
        pytest.param(
            [stretch("2026-03-10T12:00", "2026-03-20T12:00"), stretch("2026-03-20T18:00", "2026-03-22T00:00")],
            [(10, "15.81"), (2, "3.16")],  # 20 and 21 March: 49 * 2/31 = 3.1612...
            "18.97",
            id="the day of a pause is charged if billing is resumed on it",
        ),
        pytest.param(
            [stretch("2026-03-10T00:00", "2026-03-10T23:59:59.999999")],
            [],
            "0.00",
            id="activation and closing on one day",
        ),
        pytest.param(
            [stretch("2026-03-10T23:59:59.999999", "2026-03-11T00:00")],
            [(1, "1.58")],  # the 10th ends in force: 49 * 1/31 = 1.5806...
            "1.58",
            id="a single midnight",
        ),
        pytest.param(
            [stretch("2026-12-30T23:59", "2027-01-02T00:01")],
            [(2, "3.16"), (1, "1.58")],  # 49 * 2/31 = 3.1612..., 49 * 1/31 = 1.5806...
            "4.74",
            id="across the end of a year",
        ),
        pytest.param(
            [stretch("2026-01-31T08:00", "2026-04-02T08:00", "30.00")],
            [(1, "0.97"), (28, "30.00"), (31, "30.00"), (1, "1.00")],  # 30/31 = 0.9677..., 30/30
            "61.97",
            id="one line for each month",
        ),
        pytest.param(
            [stretch("2028-02-01", "2028-03-01")],
            [(29, "49.00")],  # 49 * 29/29
            "49.00",
            id="a whole leap February",
        ),
        pytest.param(
            [stretch("2028-02-28T10:00", "2028-03-01T10:00")],
            [(2, "3.38")],  # the 28th and the 29th: 49 * 2/29 = 3.3793...
            "3.38",
            id="the last days of a leap February",
        ),
        pytest.param(
            [stretch("2026-02-28T10:00", "2026-03-01T10:00")],
            [(1, "1.75")],  # 49 * 1/28
            "1.75",
            id="the last day of a common February",
        ),
        pytest.param(
            [stretch("2026-03-01", "2026-03-11", "0.0000", plan="free")],
            [(10, "0.00")],
            "0.00",
            id="a plan that costs nothing is listed",
        ),
        pytest.param(
            [stretch("2026-04-01", "2026-04-02", "3.75")],
            [(1, "0.13")],  # 3.75 * 1/30 = 0.125: half up, where half even gives 0.12
            "0.13",
            id="half a cent is rounded up",
        ),
        pytest.param(
            [
                stretch("2026-04-01", "2026-04-11", "10.00"),
                stretch("2026-04-11", "2026-04-21", "10.00"),
                stretch("2026-04-21", "2026-05-01", "10.00"),
            ],
            [(10, "3.33"), (10, "3.33"), (10, "3.33")],  # 10 * 10/30 = 3.3333... each
            "9.99",
            id="lines are rounded before they are summed",
        ),
    ],
)
def test_what_is_owed(stretches: list[Stretch], lines: list[tuple[int, str]], total: str) -> None:
    invoice = final_invoice(stretches, USD)

    assert amounts(invoice) == lines
    assert str(invoice.total) == total


@pytest.mark.parametrize(
    ("currency", "price", "amount"),
    [
        (Currency("JPY", 0), "1000", "323"),  # 322.5806...
        (Currency("KWD", 3), "10", "3.226"),  # 3.2258...
        (Currency("CLF", 4), "1.0001", "0.3226"),  # 0.32261...
    ],
)
def test_amounts_have_the_digits_of_their_currency(currency: Currency, price: str, amount: str) -> None:
    invoice = final_invoice([stretch("2026-03-01", "2026-03-11", price)], currency)

    assert (amounts(invoice), str(invoice.total)) == ([(10, amount)], amount)


def test_the_largest_amount_there_can_be_is_charged_to_the_cent() -> None:
    invoice = final_invoice([stretch("2026-03-01", "2026-03-31", "9999999999999999.9999")], USD)

    assert str(invoice.total) == "9677419354838709.68"  # ... * 30/31 = 9677419354838709.6773...


def test_days_are_those_of_utc_whatever_the_offset_of_the_times() -> None:
    abroad = Stretch(
        "standard",
        Decimal("31.00"),
        datetime.fromisoformat("2026-03-02T01:00+02:00"),  # 23:00 on the 1st
        datetime.fromisoformat("2026-03-31T22:00-02:00"),  # midnight between March and April
    )

    assert amounts(final_invoice([abroad], USD)) == [(31, "31.00")]


def test_a_line_says_how_its_amount_comes_about() -> None:
    lines = final_invoice(
        [stretch("2026-03-20T12:00", "2026-03-31T12:00"), stretch("2026-03-31T12:00", "2026-04-01T12:00", "0.0125")],
        USD,
    ).lines

    assert [line.description for line in lines] == [
        "standard, 2026-03-20 to 2026-03-30: 11 of 31 days at 49.00 USD a month",
        "standard, 2026-03-31 to 2026-03-31: 1 of 31 days at 0.0125 USD a month",
    ]


def test_a_line_of_a_licence_names_its_product() -> None:
    (line,) = final_invoice([stretch("2026-03-20", "2026-03-31", product="chess")], USD).lines

    assert line.description == "standard for chess, 2026-03-20 to 2026-03-30: 11 of 31 days at 49.00 USD a month"


def test_licences_are_charged_beside_the_plan_of_the_account_and_listed_after_it() -> None:
    stretches = [
        stretch("2026-03-11", "2026-04-01", "31.00", product="go"),
        stretch("2026-03-21", "2026-04-01", "62.00", product="chess"),
        stretch("2026-03-21", "2026-04-01", "93.00"),
        stretch("2026-03-01", "2026-03-21", "31.00"),
        stretch("2026-03-01", "2026-03-11", "31.00", product="chess"),
    ]

    invoice = final_invoice(stretches, USD)

    assert amounts(invoice) == [(20, "20.00"), (11, "33.00"), (10, "10.00"), (11, "22.00"), (21, "21.00")]
    assert [line.description.partition(",")[0] for line in invoice.lines] == [
        "standard",
        "standard",
        "standard for chess",
        "standard for chess",
        "standard for go",
    ]
    assert str(invoice.total) == "106.00"


def test_lines_are_in_the_order_of_time() -> None:
    march, april = stretch("2026-03-01", "2026-03-02"), stretch("2026-04-01", "2026-04-03")

    assert final_invoice([april, march], USD) == final_invoice([march, april], USD)


@st.composite
def stretches_one_after_the_other(draw: st.DrawFn) -> list[Stretch]:
    """Draw stretches that touch or leave gaps, with ends on midnights and everywhere else."""
    steps = st.one_of(st.integers(0, 200).map(lambda hours: 3600 * hours), st.integers(1, 10**6))
    moment = datetime(2027, 12, 1, tzinfo=UTC)
    made = []
    for index in range(draw(st.integers(0, 8))):
        start = moment + timedelta(seconds=draw(st.sampled_from([0, 0, 1]) | steps))
        moment = start + timedelta(seconds=draw(steps) or 1)
        made.append(Stretch(f"plan-{index}", Decimal(draw(st.integers(0, 10**8))) / 10_000, start, moment))
    return made


@given(stretches_one_after_the_other())
def test_a_day_is_charged_once_at_most_and_by_what_is_in_force_at_its_end(stretches: list[Stretch]) -> None:
    invoice = final_invoice(stretches, USD)

    charged: dict[str, int] = {}
    touched: set[date] = set()
    for each in stretches:
        day = each.started_at.replace(hour=0, minute=0, second=0)
        while day < each.ended_at:
            touched.add(day.date())
            day += timedelta(days=1)
            if each.started_at < day <= each.ended_at:
                charged[each.plan] = charged.get(each.plan, 0) + 1
    by_plan: dict[str, int] = {}
    for line in invoice.lines:
        plan = line.description.partition(",")[0]
        by_plan[plan] = by_plan.get(plan, 0) + line.quantity
    assert by_plan == charged
    assert sum(by_plan.values()) <= len(touched)
    assert invoice.total == sum(line.amount for line in invoice.lines)


@given(st.decimals(min_value=0, max_value=10**16, places=4), st.integers(0, 4))
def test_rounding_is_never_off_by_more_than_half_a_unit(amount: Decimal, digits: int) -> None:
    short = rounded(amount, digits)

    assert short.as_tuple().exponent == -digits
    assert abs(short - amount) * 2 <= Decimal(1).scaleb(-digits)
