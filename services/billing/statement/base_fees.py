"""What the plan of a product costs in a month, whatever is used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from services.billing.money import EXACT, plain, written
from services.billing.proration import day_of, prorated
from services.billing.statement.account import Account
from services.billing.statement.items import Item, what
from services.billing.statement.periods import Month, length
from services.billing.statement.runs import Run

_DAY = timedelta(days=1)
_TICKS_OF_A_SECOND = Decimal(1_000_000)


def base_fees(
    product: str, month: Month, parts: Sequence[Run], account: Account, *, closes_at: datetime
) -> Iterator[Item]:
    """Yield what is due of the base fee of a product in a month, in the order of time.

    Args:
        parts: of the product's runs, those in the month.
        closes_at: what becomes due later is none of it, unless the account is closed.
    """
    for part in parts:
        if part.paid_since < part.until and (account.is_closed or _due_at(part, month) <= closes_at):
            yield _item(product, month, part, account)


def _due_at(part: Run, month: Month) -> datetime:
    if not part.terms.pays_in_advance:
        return month.until
    return month.since if part.free_until is None else max(month.since, part.free_until)


def _item(product: str, month: Month, part: Run, account: Account) -> Item:
    terms, since = part.terms, part.paid_since
    spent = length(since, part.until, account.zone, by_second=terms.by_second)
    whole = month.length(by_second=terms.by_second)
    words = (_in_seconds if terms.by_second else _in_days)(since, part.until, spent, whole, account.zone)
    return Item(
        key=f"base:{product}:{terms.plan}.v{terms.version}@{plain(part.amount)}:{month.name}:{words.first}",
        description=f"{what(terms.plan, product)}, {words.share} at {written(part.amount, account.currency)} a month",
        quantity=words.quantity,
        amount=prorated(part.amount, spent, whole, account.currency.digits),
        since=since,
        until=part.until,
        unit=words.unit,
    )


@dataclass(frozen=True, slots=True)
class _Words:
    """How a part of a month is written.

    Attributes:
        first: with what it begins, as no other part of the month does.
        share: from when to when, and how much of the month.
    """

    first: str
    share: str
    quantity: Decimal
    unit: str


def _in_days(since: datetime, until: datetime, days: int, of: int, zone: ZoneInfo) -> _Words:
    first, last = day_of(since, zone), day_of(until, zone) - _DAY
    return _Words(f"{first}", f"{first} to {last}: {days} of {of} days", Decimal(days), "day")


def _in_seconds(since: datetime, until: datetime, ticks: int, of: int, zone: ZoneInfo) -> _Words:
    seconds, whole = (EXACT.divide(Decimal(each), _TICKS_OF_A_SECOND) for each in (ticks, of))
    share = f"{plain(seconds)} of {plain(whole)} seconds"
    return _Words(
        f"{since:%Y-%m-%dT%H:%M:%S.%fZ}",
        f"{since.astimezone(zone)} to {until.astimezone(zone)}: {share}",
        seconds,
        "second",
    )
