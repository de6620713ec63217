"""What an invoice for people says, in the words and the order in which they read it. Values without I/O.

The page and the PDF only lay it out. Nothing here depends on when or where it is made: all dates are the invoice's own,
in its own time zone.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any, Self
from zoneinfo import ZoneInfo

from services.billing.money import EXACT
from services.billing.numbers import invoice_number

DRAFT = "Draft"
TO = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_END_OF_LINE = re.compile(r"\r\n|[\n\r\v\f\x85\u2028\u2029]")
_A_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Seller:
    """Who sells; what is empty is left out.

    Attributes:
        address: in lines.
        tax_id: as the law wants it on an invoice.
    """

    name: str = ""
    address: str = ""
    tax_id: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an invoice.

    Attributes:
        period: its first and its last day, one where they are the same; none where the line has none.
        is_negative: whether it gives something back.
    """

    description: str
    period: Sequence[str]
    quantity: str
    amount: str
    is_negative: bool


@dataclass(frozen=True, slots=True)
class Content:
    """What an invoice says.

    Attributes:
        name: of the document as a whole, and of its file.
        is_draft: whether it was not issued yet.
        written_at: when it was issued, or drafted.
        seller: lines, the name first; empty where nobody is named.
        customer: likewise.
        facts: headings with what they say.
        currency: the code.
        total_label: what the total is called.
        notes: paragraphs.
    """

    name: str
    is_draft: bool
    written_at: datetime
    seller: Sequence[str]
    customer: Sequence[str]
    facts: Sequence[tuple[str, str]]
    currency: str
    rows: Sequence[Row]
    total_label: str
    total: str
    notes: Sequence[str]

    @classmethod
    def of(cls, invoice: Mapping[str, Any], seller: Seller) -> Self:
        """Make it from a row of `queries.documents.invoice`."""
        zone = ZoneInfo(invoice["time_zone"])
        is_draft = invoice["state"] == "draft"
        total: Decimal = invoice["total"]
        return cls(
            name=f"{DRAFT} invoice" if is_draft else f"Invoice {_number(invoice)}",
            is_draft=is_draft,
            written_at=invoice["issued_at"] or invoice["drafted_at"],
            seller=_party(seller.name, seller.address, f"Tax ID {seller.tax_id}" if seller.tax_id else ""),
            customer=_party(invoice["customer_name"], invoice["billing_address"] or ""),
            facts=list(_facts(invoice, zone)),
            currency=invoice["currency"],
            rows=[_row(line, zone) for line in invoice["lines"]],
            total_label="Total in your favour" if total < 0 else "Total",
            total=amount(total),
            notes=list(_notes(invoice, zone)),
        )

    def texts(self) -> Iterator[str]:
        """Yield everything in it that somebody has written."""
        yield from chain(self.seller, self.customer, (value for _, value in self.facts))
        yield from (row.description for row in self.rows)


def amount(number: Decimal) -> str:
    """Write a number in groups of three digits, with all that it has, and what is below zero with a real minus."""
    return f"{number:,f}".replace("-", _MINUS)


def _number(invoice: Mapping[str, Any]) -> str:
    return DRAFT if invoice["number"] is None else invoice_number(invoice["number"])


def _facts(invoice: Mapping[str, Any], zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    yield "Invoice number", _number(invoice)
    if invoice["issued_at"] is not None:
        yield "Issued", _day(invoice["issued_at"], zone)
    yield "Drafted", _day(invoice["drafted_at"], zone)
    stretches = [stretch for line in invoice["lines"] if (stretch := _stretch(line))]
    if stretches:
        days = _days(min(since for since, _ in stretches), max(until for _, until in stretches), zone)
        yield "Service period", f" {TO} ".join(days)
    yield "Currency", invoice["currency"]
    yield "Account", _clean(invoice["tenant_id"])


def _row(line: Mapping[str, Any], zone: ZoneInfo) -> Row:
    stretch, price = _stretch(line), Decimal(line["amount"])
    return Row(
        description=_clean(line["description"]),
        period=_days(*stretch, zone) if stretch else (),
        quantity=_quantity(Decimal(line["quantity"]).normalize(EXACT), line["unit"]),
        amount=amount(price),
        is_negative=price < 0,
    )


def _quantity(number: Decimal, unit: str) -> str:
    if not unit:
        return amount(number)
    return f"{amount(number)} {unit}{'' if abs(number) == 1 else 's'}"


def _stretch(line: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """Return when the line's service began and ended; None where nothing is known of that."""
    if line["since"] is None or line["until"] is None:
        return None
    return datetime.fromisoformat(line["since"]), datetime.fromisoformat(line["until"])


def _days(since: datetime, until: datetime, zone: ZoneInfo) -> Sequence[str]:
    """Return the first and the last day; the moment at which something ends is no part of it."""
    first, last = _day(since, zone), _day(max(since, until - _A_MOMENT), zone)
    return [first] if first == last else [first, last]


def _day(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).date().isoformat()


def _notes(invoice: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    if invoice["state"] == "draft":
        yield "This is a draft: it has no number yet, nothing is to be paid for it, and it may still change."
    digits, currency = invoice["digits"], invoice["currency"]
    unit = f"{digits} digits" if digits > 1 else "a digit" if digits else "whole units"
    yield f"Each line is rounded half up to {unit} of {currency}; the total is the sum of the lines."
    if invoice["usage_stated_at"] is not None:
        stated = invoice["usage_stated_at"].astimezone(zone)
        yield f"Of usage, what had been recorded by {stated:%Y-%m-%d %H:%M:%S} is counted."
    yield f"All dates are in the time zone {zone.key}; a period includes its last day."


def _party(*parts: str) -> Sequence[str]:
    lines = (line for part in parts for line in _END_OF_LINE.split(part))
    return [line for line in map(_clean, lines) if line]


def _clean(text: str) -> str:
    """Compose characters where they are written in parts, and leave out what is no text."""
    return unicodedata.normalize("NFC", _NO_TEXT.sub(" ", text)).strip()
