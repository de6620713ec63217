"""What unpaid invoices order, found by asking `review` about accounts that are as far behind as they can be."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, get_args

from services.onboarding.overdue import review
from shared.contracts.billing import Overdue

_SUSPENDED_FOR: Final = (None, "operator", "expiration", "payment")
_NOW = datetime(2001, 1, 1, tzinfo=UTC)


def ordered_by_dunning() -> set[str]:
    """Return the kinds of workflows that unpaid invoices, or their payment, order."""
    accounts: list[Mapping[str, Any]] = [
        {
            "tenant_id": "tenant",
            "overdue": overdue,
            "suspended_for": suspended_for,
            "is_busy": False,
            "is_onboarded": True,
        }
        for overdue in get_args(Overdue)
        for suspended_for in _SUSPENDED_FOR
    ]
    reviews = [review(account, now=_NOW) for account in accounts]
    return {made.order.definition.kind for made in reviews if made.order}
