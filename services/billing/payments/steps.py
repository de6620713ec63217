"""What is done about a bill next, and what an answer of the provider makes of it. Nothing here waits or asks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Literal, TypeAlias
from uuid import UUID

from services.billing.payments.port import (
    ChargeRefusedError,
    Paid,
    Pending,
    ProviderUnavailableError,
    Standing,
    Unpaid,
    Void,
)

_DAILY = timedelta(days=1)
_PENDING = timedelta(hours=1)
_OUTAGE = timedelta(minutes=1)


class Step(Enum):
    """What to do about a bill: `REST` and `DROP` without the provider, the others by asking it."""

    MAKE = "make"
    LOOK_UP = "look_up"
    WITHDRAW = "withdraw"
    COLLECT = "collect"
    DROP = "drop"
    REST = "rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a provider is asked to take for an invoice; see the table ``bill``.

    Attributes:
        due: of the invoice now.
        attempts: how often the provider has answered when the money of the invoice was asked for.
        customer: by which the provider knows who pays; None until it is told.
    """

    invoice_id: UUID
    edition: int
    tenant_id: str
    number: int
    customer_name: str
    customer: str | None
    currency: str
    amount: Decimal
    due: Decimal
    attempts: int
    issued_at: datetime
    reference: str | None
    state: Literal["open", "paid", "void"]
    is_known: bool
    ask_at: datetime | None
    asked_at: datetime | None
    failures: int
    news: int
    held_until: datetime

    @property
    def key(self) -> str:
        """The idempotency key of what is asked now: the same until it is answered."""
        return f"tenure-{self.invoice_id}-{self.edition}-{self.attempts}-{self.failures}"


@dataclass(frozen=True, slots=True)
class Made:
    """The provider has a bill that is known by a reference."""

    reference: str


Answer: TypeAlias = Made | Standing | ChargeRefusedError | ProviderUnavailableError
"""What became of a step."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The money was asked for in vain.

    Attributes:
        attempt: how often it was asked for, this time included.
        code: why, in the provider's words.
        next_at: when it is asked for next; None for never.
    """

    attempt: int
    code: str
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class Result:
    """What a step has made of a bill.

    Attributes:
        look_at: when there may be something to do about it; None for when there is news.
        paid: what has come in.
        failure: of which tenants are told.
        bills_again: whether what is still due of the invoice needs another bill.
    """

    bill: Bill
    look_at: datetime | None
    paid: Paid | None = None
    failure: Failure | None = None
    bills_again: bool = False


def next_step(bill: Bill, *, now: datetime) -> Step:
    """Decide what to do about a bill."""
    if bill.reference is None:
        return _unmade(bill, now=now)
    if not bill.is_known:
        return Step.LOOK_UP
    if bill.state != "open":
        return Step.REST
    if bill.due != bill.amount:
        return Step.WITHDRAW
    return Step.COLLECT if bill.ask_at is not None and bill.ask_at <= now else Step.REST


def _unmade(bill: Bill, *, now: datetime) -> Step:
    if bill.state != "open":
        return Step.REST
    if bill.due != bill.amount:
        return Step.DROP
    return Step.MAKE if bill.ask_at is not None and bill.ask_at <= now else Step.REST


def rested(bill: Bill, *, now: datetime) -> Result:
    """Leave a bill alone until there is something to do; an open one is looked up every day, for news may get lost."""
    if bill.state != "open":
        return Result(bill, None)
    tomorrow = now + _DAILY
    look_at = tomorrow if bill.ask_at is None else min(bill.ask_at, tomorrow)
    return Result(replace(bill, is_known=bill.reference is None), look_at)


def dropped(bill: Bill) -> Result:
    """Give up a bill that the provider was never asked for."""
    return Result(replace(bill, state="void"), None, bills_again=True)


def answered(bill: Bill, step: Step, answer: Answer, *, now: datetime, retries: Sequence[timedelta]) -> Result:
    """Return what an answer makes of a bill.

    Args:
        step: that was taken.
        retries: when after the issue of an invoice the money is asked for again.
    """
    match answer:
        case Made(reference):
            return Result(replace(bill, reference=reference, failures=0), now)
        case ChargeRefusedError():
            return _failed(bill, answer.code, now=now, retries=retries)
        case ProviderUnavailableError():
            failures = bill.failures + answer.has_failed
            return Result(replace(bill, failures=failures, is_known=bill.reference is None), now + _OUTAGE)
        case _:
            return _stands(bill, step, answer, now=now, retries=retries)


def _stands(bill: Bill, step: Step, standing: Standing, *, now: datetime, retries: Sequence[timedelta]) -> Result:
    match standing:
        case Paid():
            attempts = bill.attempts + (bill.asked_at is not None)
            settled = replace(bill, state="paid", is_known=True, ask_at=None, asked_at=None, attempts=attempts)
            return Result(settled, None, paid=standing, bills_again=True)
        case Pending():
            return Result(replace(bill, asked_at=bill.asked_at or now, is_known=False), now + _PENDING)
        case Void():
            return _void(bill, step)
        case Unpaid(code) if step is Step.COLLECT:
            return _failed(bill, code or "unpaid", now=now, retries=retries)
        case Unpaid() if step is Step.WITHDRAW:
            return Result(replace(bill, is_known=False), now + _OUTAGE)
        case Unpaid():
            return Result(replace(bill, is_known=True), now)


def _void(bill: Bill, step: Step) -> Result:
    if step is Step.WITHDRAW:
        return Result(replace(bill, state="void", is_known=True, asked_at=None), None, bills_again=True)
    # Somebody has withdrawn it at the provider, who will have had a reason: nothing is collected for this invoice.
    given_up = replace(bill, state="void", is_known=True, asked_at=None, ask_at=None)
    failure = Failure(max(bill.attempts, 1), "withdrawn_at_provider", None) if bill.state == "open" else None
    return Result(given_up, None, failure=failure)


def _failed(bill: Bill, code: str, *, now: datetime, retries: Sequence[timedelta]) -> Result:
    attempts = bill.attempts + 1
    next_at = _next_at(bill.issued_at, attempts, now=now, retries=retries)
    failed = replace(bill, attempts=attempts, ask_at=next_at, asked_at=None, failures=0, is_known=True)
    return Result(failed, now, failure=Failure(attempts, code, next_at))


def _next_at(issued_at: datetime, attempts: int, *, now: datetime, retries: Sequence[timedelta]) -> datetime | None:
    """Return when to ask again: in time, but not twice within a day where an outage has made it late."""
    if attempts > len(retries):
        return None
    return max(issued_at + retries[attempts - 1], now + _DAILY)
