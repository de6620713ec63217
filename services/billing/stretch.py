"""A stretch of time that is charged by one plan. A value without I/O."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time that is charged by one plan.

    Attributes:
        plan: the name of the plan.
        amount: what a whole month of it costs, as agreed.
        started_at: its first moment.
        ended_at: the first moment that is not part of it; None as long as it runs.
        product: which the plan licenses; none where it is the account's own.
        plan_version: which was in force when the plan was taken.
    """

    plan: str
    amount: Decimal
    started_at: datetime
    ended_at: datetime | None
    product: str = ""
    plan_version: int = 1
