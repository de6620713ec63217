"""What a version of a plan says of a month: its base fee, and what usage costs. Values without I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.billing.pricing import Model


@dataclass(frozen=True, slots=True)
class Charge:
    """What the usage of a meter in a month costs, after the month.

    Attributes:
        meter: of metrics' catalog.
        model: by which what exceeds ``included`` is priced.
        included: units that cost nothing.
        minimum: what a whole month costs at least; None for nothing.
    """

    meter: str
    model: Model
    included: Decimal = Decimal()
    minimum: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """A version of a plan, in one currency.

    Attributes:
        plan: its name.
        version: from 1.
        amount: the base fee of a month.
        pays_in_advance: whether the base fee is charged before the month, and not after it.
        trial_days: so many days since the first one cost no base fee.
        by_second: whether a part of a month is measured in the time that passes, and not in days.
        starts_at: whoever takes the plan from then on is charged by it.
        reaches_at: whoever has an earlier version is charged by this one from then on; None for never.
        charges: what usage costs, in the order of the meters' names.
    """

    plan: str
    version: int
    amount: Decimal
    pays_in_advance: bool = False
    trial_days: int = 0
    by_second: bool = False
    starts_at: datetime | None = None
    reaches_at: datetime | None = None
    charges: Sequence[Charge] = ()


Versions = Mapping[str, Sequence[Terms]]
"""The versions of each plan in one currency, from the first to the last."""
