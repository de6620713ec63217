"""When an account's invoices are made, and how far back they look."""

from collections.abc import Iterator
from datetime import UTC, datetime

from services.billing.statement.account import Account
from services.billing.statement.periods import month_of, months_before
from services.billing.statement.runs import by_product, phases

_MONTHS_OF_LATE_USAGE = 3
"""Usage comes up to 35 days late. What of January comes in March is on the invoice that is made on the 1st of April."""


def next_close(account: Account, *, after: datetime | None) -> datetime | None:
    """Return when the next invoice is to be made, of what has happened until then, in UTC.

    Args:
        after: when the one before was; None for the first, which is made at the activation.

    Returns:
        None where the account was never charged, or is closed.

    Raises:
        KeyError: the versions lack one that a stretch names.
    """
    if account.is_closed or not account.stretches:
        return None
    if after is None:
        return _activation(account)
    end = month_of(after, account.zone).until
    return min((each for each in _ends_of_trials(account, end) if each > after), default=end)


def window_start(account: Account, *, closes_at: datetime | None) -> datetime:
    """Return the beginning of the first month that an invoice looks at, in UTC.

    Args:
        closes_at: of the next invoice by `next_close`, also for a closing one that comes before it or after its time:
            what is older was looked at by the invoices before. None for the first.

    Raises:
        ValueError: the account was never charged, and there is no ``closes_at`` either.
    """
    month = month_of(_activation(account) if closes_at is None else closes_at, account.zone)
    return months_before(month, _MONTHS_OF_LATE_USAGE, account.zone).since


def _activation(account: Account) -> datetime:
    return min(stretch.started_at for stretch in account.stretches).astimezone(UTC)


def _ends_of_trials(account: Account, until: datetime) -> Iterator[datetime]:
    """Yield when a trial ends after which a month is paid in advance, that is at once, before a moment."""
    for stretches in by_product(account).values():
        for stretch in stretches:
            end = until if stretch.ended_at is None else min(until, stretch.ended_at)
            for phase in phases(stretch, end, account, stretches[0].started_at):
                trial_end = phase.free_until
                if trial_end is not None and phase.terms.pays_in_advance and phase.since <= trial_end < phase.until:
                    yield trial_end
