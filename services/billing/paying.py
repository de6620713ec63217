"""How people record that an invoice was paid."""

from datetime import datetime, timedelta
from decimal import Decimal

import asyncpg

from services.billing import queries
from services.billing.payable import payable, wrong
from services.billing.receivables import Incoming, ReferenceTakenError, receive
from shared.access import Principal
from shared.changes import Change
from shared.http import FieldError, Problem
from shared.ids import Ids

_PUNCTUALITY = timedelta(minutes=5)
"""How far the clock of whoever says when a payment came in may be ahead of ours."""


async def record(
    change: Change, asker: Principal, incoming: Incoming, *, currency: str, now: datetime, ids: Ids
) -> tuple[asyncpg.Record, bool]:
    """Record a payment, and return it and whether it is new: asking again for the same changes nothing.

    Args:
        currency: that its amount is in.

    Raises:
        Problem: 404, there is no such invoice; 409, nothing was to be paid of it, it is not booked yet, or the
            reference is another payment's; 422, of the currency or the time.
    """
    if incoming.received_at > now + _PUNCTUALITY:
        raise wrong("/receivedAt", "`receivedAt` must not be in the future.")
    invoice = await payable(change.connection, incoming.invoice_id, currency=currency)
    try:
        facts = await receive(change.connection, [incoming], now=now, ids=ids)
    except ReferenceTakenError as error:
        known = error.payment
        detail = f"`reference` is that of another payment: of {known.amount} for the invoice {known.invoice_id}."
        error_of_field = FieldError("/reference", detail)
        raise Problem(409, code="reference_taken", detail=detail, errors=[error_of_field]) from None
    (row,) = await queries.ledger.payments_of(change.connection, [(incoming.provider, incoming.reference)])
    if facts:
        change.tell(*facts)
        after = {"amount": _text(row["amount"]), "currency": currency, "reference": incoming.reference}
        change.decided(
            asker,
            "payment.recorded",
            f"payment:{row['payment_id']}",
            tenant_id=invoice["tenant_id"],
            after={**after, "invoiceId": incoming.invoice_id},
        )
    return row, bool(facts)


def _text(amount: Decimal) -> str:
    return f"{amount:f}"
