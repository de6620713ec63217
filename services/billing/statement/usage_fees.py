"""What the usage of a month costs, by the plan of a product."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.billing.money import EXACT, plain
from services.billing.pricing import price
from services.billing.proration import prorated
from services.billing.statement.account import Account, Usage
from services.billing.statement.items import Item, what
from services.billing.statement.periods import Month, length
from services.billing.statement.runs import Run
from services.billing.terms import Charge

_NOTHING = Decimal()
_KEY = "usage:"


@dataclass(frozen=True, slots=True)
class Used:
    """What was used in a month.

    Attributes:
        until: when it ended, or the account was closed.
        quantities: by meter.
    """

    until: datetime
    quantities: Mapping[str, Decimal]


def by_month(usage: Usage) -> Mapping[datetime, Used]:
    """Return what was used by the first moment of the month, as the longest report of it has it."""
    return {
        since: Used(until, quantities) for (since, until), quantities in sorted(usage.items(), key=lambda of: of[0])
    }


def usage_fees(product: str, month: Month, parts: Sequence[Run], account: Account, used: Used) -> Iterator[Item]:
    """Yield what the usage of a month costs by the terms of a product that were in force last in it.

    Args:
        parts: of the product's runs, those in the month; at least one.
    """
    terms = parts[-1].terms
    for charge in terms.charges:
        beyond = max(EXACT.subtract(used.quantities.get(charge.meter, _NOTHING), charge.included), _NOTHING)
        minimum = _minimum(charge, month, parts, account)
        included = f" after {plain(charge.included)} included" if charge.included else ""
        said = f"{what(terms.plan, product)}, {charge.meter} in {month.name}{included}"
        for number, line in enumerate(price(charge.model, beyond, account.currency, minimum=minimum).lines, start=1):
            yield Item(
                key=f"{_KEY}{product}:{terms.plan}:{charge.meter}:{month.name}:{number}",
                description=f"{said}: {line.description}",
                quantity=line.quantity,
                amount=line.amount,
                since=month.since,
                until=used.until,
            )


def is_usage(key: str) -> bool:
    """Tell whether an item of this key is what usage costs."""
    return key.startswith(_KEY)


def _minimum(charge: Charge, month: Month, parts: Sequence[Run], account: Account) -> Decimal | None:
    """Return what the charge costs at least, for the part of the month in which its plan was charged, trial or not."""
    if charge.minimum is None:
        return None
    terms = parts[-1].terms
    charged = sum(
        length(part.since, part.until, account.zone, by_second=terms.by_second)
        for part in parts
        if part.terms.plan == terms.plan
    )
    return prorated(charge.minimum, charged, month.length(by_second=terms.by_second), account.currency.digits)
