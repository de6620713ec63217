"""What is known of an account when its invoice is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from services.billing.money import Currency
from services.billing.stretch import Stretch
from services.billing.terms import Versions

Usage = Mapping[tuple[datetime, datetime], Mapping[str, Decimal]]
"""What was used from a moment on until before another, by meter; of a meter that is not named nothing was used."""


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of an account.

    Attributes:
        currency: of all amounts.
        zone: in whose days and months it is charged.
        stretches: all that there ever were, in any order, of its plan and of its licences: the first one of a product
            tells when a trial began. No two of one product overlap.
        versions: of every plan that a stretch names, in the account's currency.
        is_closed: whether nothing is charged any more, so that all that is owed is due.
    """

    currency: Currency
    zone: ZoneInfo
    stretches: Sequence[Stretch]
    versions: Versions
    is_closed: bool = False
