from decimal import Decimal

from services.billing.statement import (
    Billed,
    Item,
    lines,
)
from services.billing.tests.statements import (
    moment,
)

ITEM = Item("a", "one", Decimal(2), Decimal("2.00"), moment("2026-03-01"), moment("2026-03-03"))


def billed(amount: str, quantity: str = "2", number: int = 12) -> Billed:
    return Billed(Decimal(amount), number, "one as it was", Decimal(quantity), ITEM.since, ITEM.until)


def test_what_was_not_billed_yet_is_listed_as_it_is() -> None:
    nothing = Item("b", "nothing", Decimal(1), Decimal("0.00"), ITEM.since, ITEM.until)

    assert lines([ITEM, nothing], {}) == [ITEM, nothing]


def test_what_was_billed_is_not_listed_again() -> None:
    assert lines([ITEM], {"a": billed("2.0000")}) == []


def test_what_was_billed_at_another_price_is_corrected() -> None:
    (line,) = lines([ITEM], {"a": billed("5.0000")})

    assert line == Item("a", "correction of invoice 00000012: one", Decimal(), Decimal("-3.00"), ITEM.since, ITEM.until)
    assert str(line.amount) == "-3.00"


def test_more_of_what_costs_nothing_is_told() -> None:
    free = Item("a", "one", Decimal(2), Decimal("0.00"), ITEM.since, ITEM.until, "day")

    (line,) = lines([free], {"a": billed("0.00", "1")})

    assert (str(line.quantity), str(line.amount)) == ("1", "0.00")
    assert line.description == "correction of invoice 00000012: one, 1 day more"


def test_what_is_not_owed_any_more_is_taken_back_after_all_others() -> None:
    gone = {"c": billed("3.00", "4"), "b": billed("1.00", "1", 7), "d": billed("0.00"), "e": billed("0.00", "0")}

    made = lines([ITEM], gone)

    assert [(line.key, str(line.quantity), str(line.amount)) for line in made] == [
        ("a", "2", "2.00"),
        ("b", "-1", "-1.00"),
        ("c", "-4", "-3.00"),
        ("d", "-2", "0.00"),
    ]
    assert made[1].description == "correction of invoice 00000007: one as it was, taken back"
