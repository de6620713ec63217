"""An invoice as it is written down, and what becomes of it when it is issued."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from services.billing import queries
from services.billing.dossiers import Dossier
from services.billing.numbers import invoice_number
from services.billing.statement import Item
from shared.contracts.billing import InvoiceIssued
from shared.ids import uuid7_at
from shared.postgres import Connection

PERIODIC: Final = "periodic"
CLOSING: Final = "closing"

_DIGEST_BITS = 256
_TAIL_BITS = 74

Draft = Mapping[str, Any]
"""An invoice as `queries.invoices.draft` takes it."""


def draft(
    dossier: Dossier, lines: Sequence[Item], *, kind: str, closes_at: datetime, usage_stated_at: datetime | None = None
) -> Draft:
    """Return an invoice that is the same, to the last byte, for the same inputs.

    Args:
        kind: `PERIODIC` or `CLOSING`.
        usage_stated_at: of usage it says what was stored before; None where it says nothing of any.
    """
    return {
        "invoice_id": _identity(dossier.account_id, kind, closes_at),
        "tenant_id": dossier.tenant_id,
        "currency": dossier.account.currency.code,
        "kind": kind,
        "closes_at": closes_at,
        "usage_stated_at": usage_stated_at,
        "total": dossier.total(lines),
        "lines": [asdict(line) for line in lines],
    }


def _identity(account_id: UUID, kind: str, closes_at: datetime) -> UUID:
    """Return an identity that sorts by time as all others do, and has nothing of chance."""
    what = f"{account_id} {kind} {closes_at.isoformat()}".encode()
    tail = int.from_bytes(hashlib.sha256(what).digest()) >> (_DIGEST_BITS - _TAIL_BITS)
    return uuid7_at(closes_at, tail)


async def issue(connection: Connection, drafts: Sequence[Draft], *, now: datetime) -> Sequence[InvoiceIssued]:
    """Write invoices down and make them final, numbered in their order; return what is told of them."""
    if not drafts:
        return []
    await queries.invoices.draft(connection, drafts, now=now)
    taken = await queries.invoices.take_numbers(connection, len(drafts))
    numbers = {each["invoice_id"]: number for each, number in zip(drafts, taken, strict=True)}
    await queries.invoices.issue(connection, numbers, now=now)
    return [issued(each, numbers[each["invoice_id"]], now=now) for each in drafts]


def issued(invoice: Draft | asyncpg.Record, number: int, *, now: datetime) -> InvoiceIssued:
    """Return what is told of an invoice that is final, whose ``total`` is in the digits of its ``currency``."""
    return InvoiceIssued(
        tenant_id=invoice["tenant_id"],
        invoice_id=str(invoice["invoice_id"]),
        number=invoice_number(number),
        currency=invoice["currency"],
        total=f"{invoice['total']:f}",
        issued_at=now,
    )
