"""What the next invoice would say: made as the loop makes it, and not written down."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from services.billing.dossiers import Dossier
from services.billing.statement import Billed, Item, next_close

_NO_NUMBER = 0


@dataclass(frozen=True, slots=True)
class Upcoming:
    """The next invoice as it would be.

    Attributes:
        closes_at: when it closes; None where nothing is charged.
        lines: what it would say; none where there would be no invoice.
        total: their sum, in the digits of the currency.
        is_complete: whether all the usage is known that it needs.
    """

    closes_at: datetime | None
    lines: Sequence[Item]
    total: Decimal
    is_complete: bool


def upcoming(dossier: Dossier, *, at: datetime, grace: timedelta) -> Upcoming:
    """Return the first invoice that is not made before a moment, if all goes on as it is.

    Args:
        grace: how long after the end of a period its usage may still come in.
    """
    closes_at, billed = dossier.closes_at, dossier.billed
    while closes_at is not None and _made_at(dossier, closes_at, grace) < at:
        billed = _with(billed, dossier.lines(closes_at, billed))
        closes_at = next_close(dossier.account, after=closes_at)
    if closes_at is None:
        return Upcoming(None, (), dossier.total(()), is_complete=True)
    wanted = dossier.wanted(closes_at)
    said = dossier.lines(closes_at, billed)
    is_complete = not wanted or dossier.stated_at(wanted, since=closes_at + grace) is not None
    return Upcoming(closes_at, said, dossier.total(said), is_complete)


def _made_at(dossier: Dossier, closes_at: datetime, grace: timedelta) -> datetime:
    return closes_at + grace if dossier.wanted(closes_at) else closes_at


def _with(billed: Mapping[str, Billed], said: Iterable[Item]) -> Mapping[str, Billed]:
    """Return what will be billed after an invoice that is not made yet."""
    after = dict(billed)
    for each in said:
        before = billed.get(each.key)
        after[each.key] = Billed(
            amount=each.amount + (before.amount if before else 0),
            number=before.number if before else _NO_NUMBER,
            description=before.description if before else each.description,
            quantity=each.quantity + (before.quantity if before else 0),
            since=each.since,
            until=each.until,
        )
    return after
