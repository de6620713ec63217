"""Invoices as `queries.documents.invoice` returns them, for what is made of them without a database."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from services.billing.documents import Content, Seller

SELLER = Seller("Tenure Cloud Ltd", "1 Harbour Street\nDublin 2", "IE1234567X")


def line(description: str = "standard, 10 of 31 days", **more: Any) -> dict[str, Any]:
    """A line of ten days of March in Berlin."""
    return {
        "description": description,
        "quantity": "10",
        "unit": "day",
        "amount": "15.81",
        "since": "2026-02-28T23:00:00+00:00",
        "until": "2026-03-10T23:00:00+00:00",
    } | more


def invoice(*lines: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """An invoice that was issued, of one line unless others are given."""
    lines = lines or (line(),)
    return {
        "tenant_id": "t1",
        "customer_name": "Acme",
        "billing_address": "Ring 1\n10115 Berlin",
        "currency": "USD",
        "digits": 2,
        "state": "final",
        "number": 42,
        "time_zone": "Europe/Berlin",
        "drafted_at": datetime(2026, 3, 31, 22, tzinfo=UTC),
        "issued_at": datetime(2026, 4, 1, 22, 30, tzinfo=UTC),
        "usage_stated_at": None,
        "total": sum((Decimal(each["amount"]) for each in lines), Decimal("0.00")),
        "lines": list(lines),
    } | more


def draft(*lines: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The same, not issued yet."""
    return invoice(*lines, **({"state": "draft", "number": None, "issued_at": None} | more))


def content(*lines: Mapping[str, Any], seller: Seller = SELLER, **more: Any) -> Content:
    """What an invoice says that was issued."""
    return Content.of(invoice(*lines, **more), seller)
