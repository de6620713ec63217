from datetime import date
from decimal import Decimal

from services.billing.proration import midnight
from services.billing.statement import (
    next_close,
    targets,
    window_start,
)
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


def test_what_pays_in_arrears_is_due_when_the_month_is_over() -> None:
    known = account(stretch("2026-03-11T12:00"))

    assert due(known, "2026-03-31T23:59:59.999999") == []
    assert figures(due(known, "2026-04-01")) == [("21", "33.19")]  # 49 * 21/31 = 33.1935...


def test_what_pays_in_advance_is_due_at_the_activation_and_when_a_month_begins() -> None:
    known = account(stretch("2026-03-11T12:00"), terms=[terms(pays_in_advance=True)])

    assert due(known, "2026-03-11T11:59:59") == []
    assert figures(due(known, "2026-03-11T12:00")) == [("21", "33.19")]
    assert figures(due(known, "2026-03-31T23:59:59")) == [("21", "33.19")]
    assert figures(due(known, "2026-04-01")) == [("21", "33.19"), ("30", "49.00")]


def test_the_months_of_a_zone_begin_when_they_begin_there() -> None:
    known = account(stretch("2026-03-01", zone=BERLIN), zone=BERLIN)

    assert targets(known, {}, closes_at=moment("2026-03-31T21:59:59"), window_from=EVER) == []
    assert figures(targets(known, {}, closes_at=moment("2026-03-31T22:00"), window_from=EVER)) == [("31", "49.00")]


def test_what_happens_after_an_invoice_closes_is_not_on_it_however_late_it_is_made() -> None:
    in_advance = [terms(pays_in_advance=True), terms("premium", pays_in_advance=True)]
    stretches = [stretch("2026-03-01", "2026-04-11"), stretch("2026-04-11", amount="98.00", plan="premium")]

    known = account(*stretches, terms=in_advance)

    assert figures(due(known, "2026-04-10")) == [("31", "49.00"), ("30", "49.00")]
    assert figures(due(known, "2026-04-11")) == [("31", "49.00"), ("10", "16.33"), ("20", "65.33")]


def test_of_a_closed_account_all_is_due_and_no_more() -> None:
    known = account(stretch("2026-03-11", "2026-04-06T12:00"), terms=[terms(pays_in_advance=True)], is_closed=True)

    assert figures(due(known, "2026-04-06T12:00")) == [("21", "33.19"), ("5", "8.17")]


def test_only_the_months_of_the_window_are_looked_at() -> None:
    known = account(stretch("2026-01-11"))

    items = targets(known, {}, closes_at=moment("2026-04-01"), window_from=moment("2026-03-01"))

    assert [item.key for item in items] == ["base::standard.v1@49:2026-03:2026-03-01"]


def test_a_change_gives_back_the_rest_of_the_old_plan_and_charges_that_of_the_new_one() -> None:
    # G-P5: 20 to 40 on 11 May; 40 * 21/31 = 27.0967..., 20 * 21/31 = 13.5483...
    in_advance = [terms(pays_in_advance=True), terms("premium", pays_in_advance=True)]
    ledger = Ledger()
    ledger.issue(account(stretch("2026-05-01", amount="20.00"), terms=in_advance), {}, closes_at=moment("2026-05-01"))
    changed = account(
        stretch("2026-05-01", "2026-05-11T10:00", "20.00"),
        stretch("2026-05-11T10:00", amount="40.00", plan="premium"),
        terms=in_advance,
    )

    credit, charge, *_ = made = ledger.issue(changed, {}, closes_at=moment("2026-05-31"))

    assert figures(made) == [("-21", "-13.55"), ("21", "27.10")]
    assert sum(line.amount for line in made) == Decimal("13.55")
    assert credit.description == (
        "correction of invoice 00000001: standard, 2026-05-01 to 2026-05-10: 10 of 31 days at 20.00 USD a month,"
        " 21 days less"
    )
    assert charge.description == "premium, 2026-05-11 to 2026-05-31: 21 of 31 days at 40.00 USD a month"


def test_a_closing_gives_back_what_was_paid_for_later() -> None:
    in_advance = [terms(pays_in_advance=True)]
    ledger = Ledger()
    ledger.issue(account(stretch("2026-04-01", amount="30.00"), terms=in_advance), {}, closes_at=moment("2026-04-01"))
    closed = account(stretch("2026-04-01", "2026-04-30T08:00", "30.00"), terms=in_advance, is_closed=True)

    (line,) = ledger.issue(closed, {}, closes_at=moment("2026-04-30T08:00"))

    assert (str(line.quantity), str(line.amount)) == ("-1", "-1.00")
    assert line.description.endswith(", 1 day less")


def test_invoices_are_made_at_the_activation_and_when_months_begin() -> None:
    known = account(stretch("2026-03-11T12:00", zone=BERLIN), stretch("2026-03-12", product="go"), zone=BERLIN)

    first = next_close(known, after=None)
    second = next_close(known, after=first)
    third = next_close(known, after=second)

    assert [first, second, third] == [
        moment("2026-03-11T12:00", BERLIN),
        moment("2026-04-01", BERLIN),
        moment("2026-05-01", BERLIN),
    ]


def test_no_invoice_is_made_for_the_end_of_a_trial_after_which_nothing_is_paid_at_once() -> None:
    in_arrears = account(stretch("2026-03-11"), terms=[terms(trial_days=5)])
    paused = account(stretch("2026-03-11", "2026-03-13"), terms=[terms(trial_days=5, pays_in_advance=True)])

    assert next_close(in_arrears, after=moment("2026-03-11")) == moment("2026-04-01")
    assert next_close(paused, after=moment("2026-03-11")) == moment("2026-04-01")


def test_an_invoice_is_made_at_the_end_of_every_trial_before_the_month_ends() -> None:
    known = account(
        stretch("2026-03-01"), stretch("2026-03-11", product="go"), terms=[terms(trial_days=5, pays_in_advance=True)]
    )

    ends = [next_close(known, after=moment(f"2026-03-{day:02}")) for day in (1, 5, 6, 15, 16)]

    assert ends == [
        moment("2026-03-06"),
        moment("2026-03-06"),
        moment("2026-03-16"),
        moment("2026-03-16"),
        moment("2026-04-01"),
    ]


def test_no_invoice_is_made_for_what_was_never_charged_or_is_closed() -> None:
    assert next_close(account(), after=None) is None
    assert next_close(account(stretch("2026-03-11", "2026-03-13"), is_closed=True), after=moment("2026-03-11")) is None


def test_an_invoice_looks_back_over_the_months_of_which_usage_can_come() -> None:
    known = account(stretch("2025-06-11"), zone=BERLIN)

    assert window_start(known, closes_at=moment("2026-02-01", BERLIN)) == midnight(date(2025, 11, 1), BERLIN)
    assert window_start(known, closes_at=moment("2026-05-15", BERLIN)) == midnight(date(2026, 2, 1), BERLIN)
    assert window_start(known, closes_at=None) <= midnight(date(2025, 6, 1), BERLIN)
