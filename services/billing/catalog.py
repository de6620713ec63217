"""What plans say of a month, as it is read from the catalog."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import asyncpg

from services.billing import queries
from services.billing.price_models import model_of
from services.billing.terms import Charge, Terms, Versions
from shared.postgres import Connection


async def versions_of(connection: Connection, plans: Iterable[str]) -> Mapping[str, Versions]:
    """Return all versions of these plans by currency; a version is in each that it has a price in."""
    found: dict[str, dict[str, list[Terms]]] = {}
    for row in await queries.catalog.versions(connection, sorted(set(plans))):
        for terms, currency in _terms(row):
            found.setdefault(currency, {}).setdefault(terms.plan, []).append(terms)
    return found


def _terms(row: asyncpg.Record) -> Iterator[tuple[Terms, str]]:
    """Yield what a version says in each of its currencies."""
    for currency, amount in zip(row["currencies"], row["amounts"], strict=True):
        terms = Terms(
            plan=row["plan"],
            version=row["version"],
            amount=amount,
            pays_in_advance=row["pays"] == "advance",
            trial_days=row["trial_days"],
            by_second=row["proration"] == "second",
            starts_at=row["starts_at"],
            reaches_at=row["reaches_at"],
            charges=_charges(row["charges"], currency),
        )
        yield terms, currency


def _charges(written: Sequence[Mapping[str, Any]], currency: str) -> Sequence[Charge]:
    return tuple(
        Charge(
            meter=each["meter"],
            model=model_of(each["price"]),
            included=Decimal(each["included"]),
            minimum=None if each["minimum"] is None else Decimal(each["minimum"]),
        )
        for each in written
        if each["currency"] == currency
    )
