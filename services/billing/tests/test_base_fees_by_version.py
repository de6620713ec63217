import pytest

from services.billing.statement import (
    next_close,
)
from services.billing.tests.ledger import Ledger
from services.billing.tests.statements import (
    BERLIN,
    account,
    closed,
    due,
    figures,
    moment,
    stretch,
    terms,
)


def test_a_new_version_reaches_who_has_an_earlier_one_from_its_day_on() -> None:
    # Kill Bill's catalog: 30, and 60 since 15 January, for those who had it before since 1 March.
    versions = [
        terms(amount="30.00", pays_in_advance=True),
        terms(
            version=2,
            amount="60.00",
            pays_in_advance=True,
            starts_at=moment("2026-01-15"),
            reaches_at=moment("2026-03-01"),
        ),
    ]
    ledger, known = Ledger(), account(stretch("2026-01-01", amount="30.00"), terms=versions)

    invoices = [ledger.issue(known, {}, closes_at=moment(f"2026-0{month}-01")) for month in (1, 2, 3, 4)]

    assert [figures(invoice) for invoice in invoices] == [
        [("31", "30.00")],
        [("28", "30.00")],
        [("31", "60.00")],
        [("30", "60.00")],
    ]


def test_in_arrears_a_version_charges_the_months_since_it_has_reached_somebody() -> None:
    versions = [terms(amount="30.00"), terms(version=2, amount="60.00", reaches_at=moment("2026-03-01"))]

    items = due(account(stretch("2026-01-01", amount="30.00"), terms=versions), "2026-04-01")

    assert figures(items) == [("31", "30.00"), ("28", "30.00"), ("31", "60.00")]


def test_the_day_on_which_a_version_reaches_somebody_is_its_own() -> None:
    versions = [terms(amount="30.00"), terms(version=2, amount="60.00", reaches_at=moment("2026-04-11T18:00"))]

    assert closed(stretch("2026-04-01", "2026-05-01", "15.00"), terms=versions) == [
        ("10", "5.00"),  # at the amount agreed: 15 * 10/30
        ("20", "40.00"),  # at its own: 60 * 20/30
    ]


def test_a_version_that_was_taken_with_the_plan_is_not_left_for_an_earlier_one() -> None:
    versions = [
        terms(amount="30.00"),
        terms(version=2, amount="60.00", reaches_at=moment("2026-04-11")),
        terms(version=3, amount="90.00"),
    ]

    assert closed(stretch("2026-04-01", "2026-05-01", "90.00", version=3), terms=versions) == [("30", "90.00")]


def test_a_version_that_reaches_nobody_is_for_who_takes_it() -> None:
    versions = [terms(amount="30.00"), terms(version=2, amount="60.00", starts_at=moment("2026-04-01"))]

    assert closed(stretch("2026-04-01", "2026-05-01", "30.00"), terms=versions) == [("30", "30.00")]


def test_a_version_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError):
        closed(stretch("2026-04-01", "2026-05-01", version=2), terms=[terms()])


def test_after_a_trial_the_rest_of_the_month_is_charged() -> None:
    # Lago's G-P1: 50 * 25/30.
    known = account(stretch("2026-04-01T09:00", amount="50.00"), terms=[terms(trial_days=5, pays_in_advance=True)])

    assert figures(due(known, "2026-04-06")) == [("25", "41.67")]


def test_a_month_in_advance_is_charged_when_the_trial_is_over_and_not_before() -> None:
    # Lago's G-P4: 5 000 000 minor * (31 - 4 - 10)/31 = 2 741 935.
    known = account(stretch("2026-03-05T09:00", amount="50000.00"), terms=[terms(trial_days=10, pays_in_advance=True)])
    closings = [next_close(known, after=None)]
    while closings[-1] is not None and len(closings) < 4:
        closings.append(next_close(known, after=closings[-1]))

    assert closings == [
        moment("2026-03-05T09:00"),
        moment("2026-03-15"),
        moment("2026-04-01"),
        moment("2026-05-01"),
    ]
    assert figures(due(known, "2026-03-05T09:00")) == []
    assert figures(due(known, "2026-03-14T23:59:59")) == []
    assert figures(due(known, "2026-03-15")) == [("17", "27419.35")]


def test_a_trial_counts_the_days_of_a_pause_and_starts_once() -> None:
    stretches = [
        stretch("2026-04-01", "2026-04-04", "30.00"),
        stretch("2026-04-09", "2026-04-21", "30.00"),  # 10 days since the 1st are over when the 11th begins
        stretch("2026-04-26", "2026-05-01", "30.00"),
    ]

    assert closed(*stretches, terms=[terms(trial_days=10)]) == [("10", "10.00"), ("5", "5.00")]


def test_the_trial_of_a_day_is_that_of_the_version_in_force() -> None:
    stretches = [
        stretch("2026-04-01", "2026-04-06", "30.00"),
        stretch("2026-04-06", "2026-05-01", "60.00", plan="premium"),
    ]

    assert closed(*stretches, terms=[terms(trial_days=30)]) == [("25", "50.00")]
    assert closed(*stretches, terms=[terms("premium", trial_days=20)]) == [("5", "5.00"), ("10", "20.00")]


def test_a_licence_has_a_trial_of_its_own() -> None:
    stretches = [
        stretch("2026-04-01", "2026-05-01", "30.00"),
        stretch("2026-04-11", "2026-05-01", "30.00", product="go"),
    ]

    assert closed(*stretches, terms=[terms(trial_days=5)]) == [("25", "25.00"), ("15", "15.00")]


def test_a_trial_by_seconds_ends_at_midnight() -> None:
    known = account(
        stretch("2026-04-01T09:00", "2026-05-01", "30.00", zone=BERLIN),
        zone=BERLIN,
        terms=[terms(trial_days=5, by_second=True)],
        is_closed=True,
    )

    (item,) = due(known)
    assert (item.since, str(item.amount)) == (moment("2026-04-06", BERLIN), "25.00")
