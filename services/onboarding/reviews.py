"""Every customer is looked at when its contract or its payments may want something done.

Every customer has a moment at which to look at it next. Whatever is done then is an ordinary workflow, so that it can
be followed, cancelled and undone like any other; one that came to nothing is tried again later.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog

from services.onboarding import expiration, overdue, queries
from services.onboarding.expiration import Review, Terms
from services.onboarding.intake import Application, Intake
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.orders import Account, Order
from shared.audit import Actor
from shared.contracts.onboarding import TenantExpiring
from shared.messaging import outbox
from shared.messaging.event import Event, Outgoing
from shared.messaging.topology import STATUS_EXCHANGE
from shared.postgres import transaction
from shared.repeating import repeat
from shared.service import Kernel

log = structlog.get_logger(__name__)

_NEVER = "infinity"
_LIMIT = 100
_POLL_SECONDS = 5.0


def review(account: Account, *, now: datetime, terms: Terms) -> Review:
    """Decide what a customer's contract, and then its payments, ask for.

    Nobody is let in again by one of them who is kept out by the other.

    Args:
        account: as `queries.lock_accounts_to_review` returns it.
    """
    contract = expiration.review(account, now=now, terms=terms)
    payments = overdue.review(account, now=now)
    is_kept_out = expiration.has_ended(account, now=now) or overdue.is_unpaid(account)
    wanted = [each for each in (contract, payments) if each.order and not (is_kept_out and _lets_in(each))]
    next_at = min((each.next_at for each in (contract, payments) if each.next_at), default=None)
    if not wanted:
        return Review(next_at, contract.warns)
    return Review(next_at, contract.warns, wanted[0].order, wanted[0].principal)


def _lets_in(made: Review) -> bool:
    return made.order is not None and made.order.definition is REACTIVATE


class Reviews:
    """Reviews the customers that have to be looked at.

    Args:
        terms: what the end of a contract means.
    """

    def __init__(self, kernel: Kernel, intake: Intake, terms: Terms) -> None:
        self._kernel = kernel
        self._intake = intake
        self._terms = terms

    async def run(self) -> None:
        """Review for ever; an outage of the database is waited out, and what was due then is due afterwards."""
        clock = self._kernel.ports.clock
        await repeat("reviews", self._work, lambda: clock.sleep(_POLL_SECONDS), clock=clock)

    async def _work(self) -> None:
        while await self.review() == _LIMIT:
            pass

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
        await asyncio.gather(*(self._submit(made.order, made.principal) for made in reviews if made.order is not None))
        return len(accounts)

    async def _submit(self, order: Order, principal: str) -> None:
        """Order something; whatever keeps it from being accepted, it is tried again at the next look."""
        try:
            accepted = await self._intake.submit(Application(order, principal, None, b"", Actor(principal)))
        except Exception as error:  # noqa: BLE001 - the intake gives each order its own error, which is nobody else's
            log.warning(
                "what a review wants waits",
                action="order_postponed",
                principal=principal,
                tenant_id=order.request["tenantId"],
                error=repr(error),
            )
        else:
            log.info(
                "a review wants something done",
                action="order_accepted",
                principal=principal,
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
