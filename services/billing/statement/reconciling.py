"""What an invoice says: what is owed, less what was billed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from services.billing.money import EXACT, plain
from services.billing.numbers import invoice_number
from services.billing.statement.items import Billed, Item
from services.billing.statement.usage_fees import is_usage


def lines(targets: Sequence[Item], billed: Mapping[str, Billed]) -> Sequence[Item]:
    """Return the lines of an invoice, in a fixed order; all of them 0.00 where there is no reason to make one.

    Args:
        targets: all that is owed for the months of a window, in the order in which it is to be listed.
        billed: by key, what all final invoices say of the same months, that is of what was provided since the window
            began. What is not owed any more is taken back, after all others.
    """
    owed = {target.key for target in targets}
    gone = ((key, each) for key, each in billed.items() if key not in owed)
    return [*_owed(targets, billed), *_taken_back(sorted(gone, key=lambda line: (line[1].since, line[0])))]


def without_early(billed: Mapping[str, Billed], *, closes_at: datetime) -> Mapping[str, Billed]:
    """Leave out what was billed of the usage of months that are not over at a time: their own invoices look at it."""
    return {key: each for key, each in billed.items() if not (is_usage(key) and each.until > closes_at)}


def _owed(targets: Sequence[Item], billed: Mapping[str, Billed]) -> Iterator[Item]:
    for target in targets:
        before = billed.get(target.key)
        if before is None:
            yield target
        elif (target.amount, target.quantity) != (before.amount, before.quantity):
            yield _correction(target, before)


def _correction(target: Item, before: Billed) -> Item:
    difference = EXACT.subtract(target.quantity, before.quantity)
    corrected = f"correction of invoice {invoice_number(before.number)}: {target.description}"
    return replace(
        target,
        description=f"{corrected}{_written(difference, target.unit)}",
        quantity=difference,
        amount=EXACT.subtract(target.amount, before.amount).quantize(target.amount, context=EXACT),
    )


def _written(difference: Decimal, unit: str) -> str:
    if not difference:
        return ""
    number = plain(difference.copy_abs())
    units = f" {unit}" if number == "1" else f" {unit}s"
    return f", {number}{units if unit else ''} {'more' if difference > 0 else 'less'}"


def _taken_back(gone: Sequence[tuple[str, Billed]]) -> Iterator[Item]:
    for key, before in gone:
        if before.amount or before.quantity:  # also of what cost nothing nobody is to be told more than there was
            yield Item(
                key=key,
                description=f"correction of invoice {invoice_number(before.number)}: {before.description}, taken back",
                quantity=EXACT.minus(before.quantity),
                amount=EXACT.minus(before.amount),
                since=before.since,
                until=before.until,
            )
