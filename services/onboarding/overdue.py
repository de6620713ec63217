"""What unpaid invoices ask for, by how far behind billing says that a customer is: suspended, and off-boarded.

Whoever has paid is let in again. Pure functions; `services.onboarding.reviews` does what they decide.
"""

from datetime import datetime
from typing import Any

from services.onboarding.expiration import AGAIN, BUSY, Review
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.orders import Account, Order

PRINCIPAL = "dunning"
"""Who orders what unpaid invoices order."""

REASON = "unpaid"


def review(account: Account, *, now: datetime) -> Review:
    """Decide what the payments of an account ask for; where that is nothing, billing tells when it has changed.

    Args:
        account: as `queries.lock_accounts_to_review` returns it.
    """
    order = _order(account)
    if order is None:
        return Review(None)
    if account["is_busy"] or not account["is_onboarded"]:
        return Review(now + BUSY)
    return Review(now + AGAIN, order=order, principal=PRINCIPAL)


def is_unpaid(account: Account) -> bool:
    """Tell whether an account is so far behind that nobody is to get in."""
    return account["overdue"] in ("suspension", "termination")


def _order(account: Account) -> Order | None:
    overdue, suspended_for = account["overdue"], account["suspended_for"]
    if overdue == "termination":
        return _to(OFFBOARD, account, reason=REASON, graceDays=0, export=True)
    if overdue == "suspension" and suspended_for is None:
        return _to(SUSPEND, account, reason=REASON, suspendedFor="payment")
    if not is_unpaid(account) and suspended_for == "payment":
        return _to(REACTIVATE, account)
    return None


def _to(definition: Any, account: Account, **request: Any) -> Order:
    # Somebody may pay between this decision and its order.
    return Order(definition, {"tenantId": account["tenant_id"], **request}, {"overdue": account["overdue"]})
