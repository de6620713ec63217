"""Invoices as people get them, over HTTP."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from starlette.responses import Response

from services.billing import queries
from services.billing.documents import MEDIA_TYPES, PAGE_HEADERS, Format, Printer
from services.billing.numbers import invoice_number
from shared.http import PROBLEM_CONTENT
from shared.postgres import Pool

VARIES = {"Vary": "Accept"}
"""Sent with every form of an invoice: which one it is depends on what was acceptable."""

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The invoice in the form that was asked for.",
        "headers": {"Vary": {"description": "Always `Accept`.", "schema": {"type": "string"}}},
        "content": {
            MEDIA_TYPES["html"]: {"schema": {"type": "string"}},
            MEDIA_TYPES["pdf"]: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    406: {"description": "No form that the invoice has is acceptable.", "content": PROBLEM_CONTENT},
}
"""What the route that returns one invoice answers besides JSON."""


class Documents:
    """Finds invoices and has them printed."""

    def __init__(self, pool: Pool, printer: Printer) -> None:
        self._pool = pool
        self._printer = printer

    async def find(self, invoice_id: UUID, form: Format, *, within: str | None) -> Response | None:
        """Return an invoice as a page or a PDF; None where there is none, or it is another tenant's than ``within``.

        Raises:
            Problem: 406 for an invoice of too many lines, 503 when too many documents are being made.
        """
        async with self._pool.acquire() as connection:
            row = await queries.documents.invoice(connection, invoice_id, within=within)
        if row is None:
            return None
        invoice = dict(row)
        if form == "pdf":
            return Response(await self._printer.pdf(invoice), headers=_headers(invoice), media_type=MEDIA_TYPES["pdf"])
        content = await self._printer.page(invoice)
        return Response(content, headers={**_BASE, **PAGE_HEADERS}, media_type=MEDIA_TYPES["html"])


_BASE = {**VARIES, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _headers(invoice: Mapping[str, Any]) -> dict[str, str]:
    name = "draft" if invoice["number"] is None else invoice_number(invoice["number"])
    return {**_BASE, "Content-Disposition": f'inline; filename="invoice-{name}.pdf"'}
