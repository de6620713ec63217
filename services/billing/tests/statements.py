"""Accounts in few words, and what is due of them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from services.billing.money import Currency
from services.billing.statement import (
    Account,
    Item,
    months_wanted,
    targets,
)
from services.billing.stretch import Stretch
from services.billing.terms import Terms
from services.billing.tests.ledger import EVER

USD = Currency("USD", 2)
BERLIN, UNIVERSAL = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")

Figures = list[tuple[str, str]]


def moment(text: str, zone: ZoneInfo = UNIVERSAL) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)


def stretch(
    start: str,
    end: str | None = None,
    amount: str = "49.00",
    *,
    plan: str = "standard",
    product: str = "",
    version: int = 1,
    zone: ZoneInfo = UNIVERSAL,
) -> Stretch:
    ended_at = None if end is None else moment(end, zone)
    return Stretch(plan, Decimal(amount), moment(start, zone), ended_at, product, version)


def terms(plan: str = "standard", version: int = 1, amount: str = "49.00", **terms: Any) -> Terms:
    return Terms(plan, version, Decimal(amount), **terms)


def account(
    *stretches: Stretch,
    terms: Sequence[Terms] = (),
    zone: ZoneInfo = UNIVERSAL,
    currency: Currency = USD,
    is_closed: bool = False,
) -> Account:
    """Return an account by whose plans nothing special is agreed, but for those whose terms are given."""
    versions: dict[str, list[Terms]] = {}
    for each in terms:
        versions.setdefault(each.plan, []).append(each)
    for plan in {each.plan for each in stretches}:
        versions.setdefault(plan, [Terms(plan, 1, Decimal("49.00"))])
    return Account(currency, zone, stretches, versions, is_closed=is_closed)


def due(account: Account, at: str = "2030-01-01", usage: Mapping[str, str] | None = None) -> Sequence[Item]:
    """Return all that is due at a moment of the account's zone, with the same usage in every month."""
    closes_at = moment(at, account.zone)
    used = {
        month: {meter: Decimal(quantity) for meter, quantity in (usage or {}).items()}
        for month in months_wanted(account, closes_at=closes_at, window_from=EVER)
    }
    return targets(account, used, closes_at=closes_at, window_from=EVER)


def figures(items: Sequence[Item]) -> Figures:
    return [(str(item.quantity), str(item.amount)) for item in items]


def closed(*stretches: Stretch, **known: Any) -> Figures:
    return figures(due(account(*stretches, is_closed=True, **known)))
