"""Whether an invoice can be paid, or credited: one that was issued and is booked."""

from uuid import UUID

import asyncpg

from services.billing import queries
from shared.http import FieldError, Problem
from shared.postgres import Connection


async def payable(
    connection: Connection, invoice_id: UUID, *, currency: str, tenant_id: str | None = None
) -> asyncpg.Record:
    """Return whose an invoice is, and its currency.

    Args:
        currency: that it must be in.
        tenant_id: whose it must be; None for anybody's.

    Raises:
        Problem: 404, there is no such invoice; 409, nothing was to be paid of it, or it is not booked yet; 422, of the
            currency.
    """
    found = await queries.receivables.standing(connection, invoice_id)
    if found is None or tenant_id not in (None, found["tenant_id"]):
        detail = f"There is no invoice {invoice_id}."
        raise Problem(404, code="unknown_invoice", detail=detail, errors=[FieldError("/invoiceId", detail)])
    if found["is_waiting"]:
        detail = f"The invoice {invoice_id} is about to be booked; ask again in a moment."
        raise Problem(409, code="not_booked_yet", detail=detail, retryable=True, headers={"Retry-After": "1"})
    if not found["is_booked"]:
        why = "is a draft" if found["state"] == "draft" else "is none of which something was to be paid"
        detail = f"The invoice {invoice_id} {why}."
        raise Problem(409, code="nothing_to_pay", detail=detail, errors=[FieldError("/invoiceId", detail)])
    if found["currency"] != currency:
        raise wrong("/currency", f"`currency` must be {found['currency']}, as on the invoice.")
    return found


def wrong(pointer: str, detail: str) -> Problem:
    """Return the problem of a field that does not fit."""
    return Problem(422, code="validation_failed", detail=detail, errors=[FieldError(pointer, detail)])
