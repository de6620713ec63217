"""What the end of a contract asks for: warned before, suspended on the day, off-boarded after the grace.

A contract that is prolonged after its end lets the tenant in again. Pure functions; `services.onboarding.reviews` does
what they decide.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.orders import Account, Order

PRINCIPAL = "expiration"
"""Who orders what the end of a contract orders."""

REASON = "expired"

BUSY: Final = timedelta(minutes=1)
"""How long a customer is left alone that a workflow is at work on."""

AGAIN: Final = timedelta(hours=1)
"""When to look again whether what was ordered came to something."""


@dataclass(frozen=True)
class Terms:
    """What the end of a contract means in this installation.

    Attributes:
        warning: how long before it is told.
        grace: how long after it the tenant is off-boarded.
    """

    warning: timedelta
    grace: timedelta


@dataclass(frozen=True)
class Review:
    """What to do about a customer now, and when to look again.

    Attributes:
        next_at: when; None for never, until something changes.
        warns: whether everybody is told that the end is near.
        order: what is ordered.
        principal: who orders it.
    """

    next_at: datetime | None
    warns: bool = False
    order: Order | None = None
    principal: str = PRINCIPAL


def review(account: Account, *, now: datetime, terms: Terms) -> Review:
    """Decide what the expiration of an account asks for.

    Args:
        account: as `queries.lock_accounts_to_review` returns it.
    """
    expiration: date | None = account["expiration"]
    if expiration is None:
        return Review(None)
    if account["is_busy"] or not account["is_onboarded"]:
        return Review(now + BUSY)
    if not has_ended(account, now=now):
        return _before(account, expiration, now=now, terms=terms)
    return _after(account, expiration, now=now, terms=terms)


def _before(account: Account, expiration: date, *, now: datetime, terms: Terms) -> Review:
    if account["suspended_for"] == "expiration":
        return Review(now + AGAIN, order=_order(REACTIVATE, account))
    warning_at = _begin(expiration) - terms.warning
    if now < warning_at:
        return Review(warning_at)
    return Review(_begin(expiration), warns=account["warned_for"] != expiration)


def _after(account: Account, expiration: date, *, now: datetime, terms: Terms) -> Review:
    end = _begin(expiration) + terms.grace
    if now >= end:
        return Review(now + AGAIN, order=_order(OFFBOARD, account, reason=REASON, graceDays=0, export=True))
    if account["suspended_for"] is None:
        order = _order(SUSPEND, account, reason=REASON, suspendedFor="expiration")
        return Review(min(now + AGAIN, end), order=order)
    return Review(end)


def has_ended(account: Account, *, now: datetime) -> bool:
    """Tell whether an account's contract is over."""
    return account["expiration"] is not None and now >= _begin(account["expiration"])


def _begin(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _order(definition: Any, account: Account, **request: Any) -> Order:
    # A contract may be prolonged between this decision and its order.
    return Order(definition, {"tenantId": account["tenant_id"], **request}, {"expiration": account["expiration"]})
