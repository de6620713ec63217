"""What is to be done about a tenant's limit: pure, from what is known of its account."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

from services.billing.dossiers import Dossier, Period
from services.billing.statement import Item, Month, is_usage, month_of
from services.billing.upcoming import upcoming

Action = Literal["alert", "invoice_now", "block"]

EVERY: Final = timedelta(hours=1)
"""How often it is asked what tenants with a limit have used."""

PERCENTS: Final = (80, 100)
"""Of a limit: what is told when it is reached, each once a month."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a tenant may spend in a month, and what was found and told of it.

    Attributes:
        amount: above zero, in the currency of the account.
        action: what is done when it is reached.
        usage_wanted_at: when metrics was asked last what was used; None if it was not.
        month: that was looked at last, as in ``2026-03``; None if none was.
        percent_told: of the limit, the most that was told of that month; 0 for nothing.
        invoiced_at: when an invoice was made because of it last; None for never.
        is_blocked: whether it was told last that the tenant's usage is to be refused.
    """

    tenant_id: str
    amount: Decimal
    action: Action
    usage_wanted_at: datetime | None = None
    month: str | None = None
    percent_told: int = 0
    invoiced_at: datetime | None = None
    is_blocked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What to do about a limit now, and when to look again.

    Attributes:
        look_at: when.
        month: in which the tenant is now.
        spent: in it, in the digits of the currency.
        usage_wanted_at: when metrics was asked last, be it now.
        wanted: what metrics is asked for now.
        reached: percents of the limit that are told now, in their order.
        percent_told: as `Limit` has it, afterwards.
        is_blocked: whether the tenant's usage is to be refused.
        lines: of the invoice that is made at once; none where none is.
        usage_stated_at: of usage it says what was stored before.
    """

    look_at: datetime
    month: Month
    spent: Decimal
    usage_wanted_at: datetime | None
    wanted: Sequence[Period]
    reached: Sequence[int]
    percent_told: int
    is_blocked: bool
    lines: Sequence[Item]
    usage_stated_at: datetime | None


def review(limit: Limit, dossier: Dossier, *, now: datetime) -> Review:
    """Decide what a limit asks for, by the usage that is known: more may have been used since it was reported."""
    month = month_of(now, dossier.account.zone)
    said = upcoming(dossier, at=month.until, grace=timedelta())  # of the running month, whatever else is to come yet
    spent = said.total + _invoiced(dossier, month)
    told = limit.percent_told if limit.month == month.name else 0
    reached = [percent for percent in PERCENTS if percent > told and spent * 100 >= limit.amount * percent]
    asks = _asks(limit, dossier, month, now=now)
    report = dossier.reports.get((month.since, month.until))
    return Review(
        look_at=min(now + EVERY, month.until),
        month=month,
        spent=spent,
        usage_wanted_at=now if asks else limit.usage_wanted_at,
        wanted=((month.since, month.until),) if asks else (),
        reached=reached,
        percent_told=max(told, *reached, 0),
        is_blocked=limit.action == "block" and spent >= limit.amount,
        lines=_early(limit, dossier, month, said.lines, now=now) if spent >= limit.amount else (),
        usage_stated_at=None if report is None else report.stated_at,
    )


def _invoiced(dossier: Dossier, month: Month) -> Decimal:
    """Return what was invoiced early of a month that is not over."""
    early = (each.amount for key, each in dossier.billed.items() if is_usage(key) and each.since >= month.since)
    return sum(early, dossier.total(()))


def _asks(limit: Limit, dossier: Dossier, month: Month, *, now: datetime) -> bool:
    """Tell whether metrics is to be asked what was used in a month: of nothing that costs nothing, and once an hour."""
    if (month.since, month.until) not in dossier.wanted(month.until):
        return False
    asked_at = limit.usage_wanted_at
    return asked_at is None or asked_at < month.since or asked_at + EVERY <= now


def _early(limit: Limit, dossier: Dossier, month: Month, said: Sequence[Item], *, now: datetime) -> Sequence[Item]:
    """Return what was used so far and not invoiced, where the limit wants an invoice of it.

    The first one of a month is of whatever there is, later ones of as much as the limit. None is made while an older
    one is still to come, nor once the account is closed: its last one is drafted.
    """
    if limit.action != "invoice_now" or dossier.state == "ended":
        return ()
    if dossier.closes_at is None or dossier.closes_at <= now:
        return ()
    used = [each for each in said if is_usage(each.key) and each.since >= month.since]
    is_first = limit.invoiced_at is None or limit.invoiced_at < month.since
    owed = dossier.total(used)
    return used if owed >= (Decimal() if is_first else limit.amount) and owed > 0 else ()
