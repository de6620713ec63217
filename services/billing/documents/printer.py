"""Where documents are made: beside the event loop, one at a time, and not too many waiting."""

from collections.abc import Mapping
from typing import Any

from services.billing.documents.content import Content, Seller
from services.billing.documents.page import page
from services.billing.documents.pdf import pdf
from shared.http import Problem
from shared.threads import Threads

MOST_LINES = 5_000
"""An invoice of more is for machines."""

_MOST_WAITING = 16


class Printer:
    """Makes documents of invoices. It is computing alone, so one thread does as much as several would.

    Args:
        seller: whom they say they are from.
    """

    def __init__(self, seller: Seller) -> None:
        self._seller = seller
        self._threads = Threads(
            1, most=_MOST_WAITING, name="documents", detail="Too many documents are being made at this moment."
        )

    async def page(self, invoice: Mapping[str, Any]) -> bytes:
        """Make a page of a row of `queries.documents.invoice`, in UTF-8.

        Raises:
            Problem: 406 for an invoice of too many lines, 503 when too many documents are being made.
        """
        _refuse_what_is_long(invoice)
        return await self._threads.run(lambda: page(Content.of(invoice, self._seller)).encode())

    async def pdf(self, invoice: Mapping[str, Any]) -> bytes:
        """Make a PDF of a row of `queries.documents.invoice`.

        Raises:
            Problem: 406 for an invoice of too many lines, 503 when too many documents are being made.
        """
        _refuse_what_is_long(invoice)
        return await self._threads.run(lambda: pdf(Content.of(invoice, self._seller)))

    def close(self) -> None:
        """Begin no document any more."""
        self._threads.close()


def _refuse_what_is_long(invoice: Mapping[str, Any]) -> None:
    count = len(invoice["lines"])
    if count > MOST_LINES:
        raise Problem(
            406,
            code="too_many_lines",
            detail=f"The invoice has {count} lines, and a page or PDF at most {MOST_LINES}: ask for application/json.",
        )
