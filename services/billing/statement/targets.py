"""All that an account owes for the months of a window: what its invoices have to sum up to."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from services.billing.statement.account import Account, Usage
from services.billing.statement.base_fees import base_fees
from services.billing.statement.items import Item
from services.billing.statement.periods import Month, next_full_hour
from services.billing.statement.runs import Run, in_months, runs
from services.billing.statement.usage_fees import by_month, usage_fees


def targets(account: Account, usage: Usage, *, closes_at: datetime, window_from: datetime) -> Sequence[Item]:
    """Return all that is due, whether it was billed or not, in a fixed order; each key once.

    Args:
        usage: what was used in `months_wanted`. A month that it says nothing of has no lines of usage yet.
        closes_at: what happened later is not known, unless the account is closed.
        window_from: the beginning of the first month to look at.

    Raises:
        KeyError: the versions lack one that a stretch names.
    """
    used = by_month(usage)
    due: list[Item] = []
    for product, month, parts in _charged(account, closes_at, window_from):
        due.extend(base_fees(product, month, parts, account, closes_at=closes_at))
        if month.since in used and _is_over(month, account, closes_at):
            due.extend(usage_fees(product, month, parts, account, used[month.since]))
    return due


def months_wanted(
    account: Account, *, closes_at: datetime, window_from: datetime
) -> Sequence[tuple[datetime, datetime]]:
    """Return the months of which the usage is needed for `targets`, in their order; none where nothing is metered.

    The last one of a closed account is cut off at the full hour that follows ``closes_at``.

    Raises:
        KeyError: the versions lack one that a stretch names.
    """
    wanted = {
        (month.since, min(month.until, next_full_hour(closes_at, account.zone)))
        for _, month, parts in _charged(account, closes_at, window_from)
        if parts[-1].terms.charges and _is_over(month, account, closes_at)
    }
    return sorted(wanted)


def _charged(
    account: Account, closes_at: datetime, window_from: datetime
) -> Iterator[tuple[str, Month, Sequence[Run]]]:
    """Yield, product by product, every month in which it was charged, and by which runs."""
    for product, own in runs(account, closes_at=closes_at, window_from=window_from).items():
        for month, parts in in_months(own, account.zone, window_from=window_from):
            yield product, month, parts


def _is_over(month: Month, account: Account, closes_at: datetime) -> bool:
    return account.is_closed or month.until <= closes_at
