"""The end of a contract acts: warned before, suspended on the day, off-boarded after the grace.

Every customer has a moment at which to look at it next. Whatever is done then is an ordinary workflow, so that it can
be followed, cancelled and undone like any other; one that came to nothing is tried again later. A contract that is
prolonged after its end lets the tenant in again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import asyncpg
import structlog

from services.onboarding import queries
from services.onboarding.intake import Application, Intake
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.orders import Order
from shared.audit import Actor
from shared.contracts.onboarding import TenantExpiring
from shared.messaging import outbox
from shared.messaging.event import Event, Outgoing
from shared.messaging.topology import STATUS_EXCHANGE
from shared.postgres import CONTENTION, is_unavailable, transaction
from shared.service import Kernel

log = structlog.get_logger(__name__)

PRINCIPAL = "expiration"
"""Who orders what the end of a contract orders."""

REASON = "expired"

_NEVER = "infinity"
_LIMIT = 100
_POLL_SECONDS = 5.0
_OUTAGE_SECONDS = 1.0
_BUSY = timedelta(minutes=1)
_AGAIN = timedelta(hours=1)

Account = Mapping[str, Any] | asyncpg.Record


@dataclass(frozen=True)
class Terms:
    """What the end of a contract means in this installation.

    Attributes:
        warning: how long before it is told.
        grace: how long after it the tenant is off-boarded.
    """

    warning: timedelta
    grace: timedelta


@dataclass(frozen=True)
class Review:
    """What to do about a customer now, and when to look again.

    Attributes:
        next_at: when; None for never, until something changes.
        warns: whether everybody is told that the end is near.
        order: what is ordered.
    """

    next_at: datetime | None
    warns: bool = False
    order: Order | None = None


def review(account: Account, *, now: datetime, terms: Terms) -> Review:
    """Decide what the expiration of an account asks for.

    Args:
        account: as `queries.lock_accounts_to_review` returns it.
    """
    expiration: date | None = account["expiration"]
    if expiration is None:
        return Review(None)
    if account["is_busy"] or not account["is_onboarded"]:
        return Review(now + _BUSY)
    if now < _begin(expiration):
        return _before(account, expiration, now=now, terms=terms)
    return _after(account, expiration, now=now, terms=terms)


def _before(account: Account, expiration: date, *, now: datetime, terms: Terms) -> Review:
    if account["suspended_for"] == "expiration":
        return Review(now + _AGAIN, order=_order(REACTIVATE, account))
    warning_at = _begin(expiration) - terms.warning
    if now < warning_at:
        return Review(warning_at)
    return Review(_begin(expiration), warns=account["warned_for"] != expiration)


def _after(account: Account, expiration: date, *, now: datetime, terms: Terms) -> Review:
    end = _begin(expiration) + terms.grace
    if now >= end:
        return Review(now + _AGAIN, order=_order(OFFBOARD, account, reason=REASON, graceDays=0, export=True))
    if account["suspended_for"] is None:
        order = _order(SUSPEND, account, reason=REASON, suspendedFor="expiration")
        return Review(min(now + _AGAIN, end), order=order)
    return Review(end)


def _begin(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _order(definition: Any, account: Account, **request: Any) -> Order:
    # A contract may be prolonged between this decision and its order.
    return Order(definition, {"tenantId": account["tenant_id"], **request}, {"expiration": account["expiration"]})


class Expirations:
    """Reviews the customers whose contract's end has to be looked at."""

    def __init__(self, kernel: Kernel, intake: Intake, terms: Terms) -> None:
        self._kernel = kernel
        self._intake = intake
        self._terms = terms

    async def run(self) -> None:
        """Review for ever; an outage of the database is waited out, and what was due then is due afterwards."""
        while True:
            try:
                while await self.review() == _LIMIT:
                    pass
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    raise
                log.warning("expirations wait for the database", action="expirations_unavailable", error=repr(error))
                await self._kernel.ports.clock.sleep(_OUTAGE_SECONDS)
            await self._kernel.ports.clock.sleep(_POLL_SECONDS)

    async def review(self) -> int:
        """Do what is to be done now, up to a limit; return how many customers were looked at."""
        now = self._kernel.ports.clock.now()
        async with transaction(self._kernel.pool) as connection:
            accounts = await queries.lock_accounts_to_review(connection, now=now, limit=_LIMIT)
            reviews = [review(account, now=now, terms=self._terms) for account in accounts]
            await queries.schedule_reviews(connection, _rows(accounts, reviews))
            warnings = [self._warning(each, now) for each, made in zip(accounts, reviews, strict=True) if made.warns]
            await outbox.insert(connection, warnings, now=now)
        await self._kernel.relay.send(warnings)
        # All at once, so that the intake accepts them in one transaction.
        await asyncio.gather(*(self._submit(made.order) for made in reviews if made.order is not None))
        return len(accounts)

    async def _submit(self, order: Order) -> None:
        """Order something; whatever keeps it from being accepted, it is tried again at the next look."""
        try:
            accepted = await self._intake.submit(Application(order, PRINCIPAL, None, b"", Actor(PRINCIPAL)))
        except Exception as error:  # noqa: BLE001 - the intake gives each order its own error, which is nobody else's
            tenant_id = order.request["tenantId"]
            log.warning(
                "the contract's end waits", action="expiration_postponed", tenant_id=tenant_id, error=repr(error)
            )
        else:
            log.info(
                "a contract has ended",
                action="expired",
                workflow_id=accepted.workflow["id"],
                kind=order.definition.kind,
            )

    def _warning(self, account: Account, now: datetime) -> Outgoing:
        fact = TenantExpiring(
            tenant_id=account["tenant_id"],
            expiration=account["expiration"],
            offboarded_on=account["expiration"] + self._terms.grace,
            occurred_at=now,
        )
        event = Event(self._kernel.ports.ids.new(), fact.owner, now, fact)
        return Outgoing(event.id, STATUS_EXCHANGE, f"warning.expiration.{fact.tenant_id}", event.encode())


def _rows(accounts: Sequence[Account], reviews: Sequence[Review]) -> list[dict[str, Any]]:
    return [
        {
            "name_key": account["name_key"],
            "review_at": _NEVER if made.next_at is None else made.next_at,
            "warned_for": account["expiration"] if made.warns else None,
        }
        for account, made in zip(accounts, reviews, strict=True)
    ]
