"""Every account gets its invoices in time: closed at the end of a period, issued when the usage of it is known.

Every account has a moment at which to look at it next. Then one invoice at most is made, of the period that is the
earliest to have none, and the account is looked at again; so after an outage every period gets the invoice that it
would have had. What is done for many accounts is one transaction: their invoices with lines and numbers, how far they
have come, and what is told of it. So whatever interrupts it, afterwards none is missing and none is there twice, and
there is no gap in the numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from services.billing import dossiers, queries
from services.billing.dossiers import Dossier, Period
from services.billing.halving import by_halves
from services.billing.issuing import PERIODIC, Draft, draft, issue
from services.billing.statement import Item, next_close
from services.billing.usage import usage_requested
from shared.contracts.base import Fact
from shared.messaging import outbox
from shared.messaging.event import Outgoing
from shared.postgres import transaction
from shared.repeating import repeat
from shared.service import Kernel

log = structlog.get_logger(__name__)

ASK_AGAIN: Final = timedelta(minutes=5)
"""How long metrics is waited for before it is asked again."""

STUCK: Final = timedelta(hours=1)
"""How long an account is left alone whose invoice cannot be made."""

_LIMIT = 500
_POLL_SECONDS = 5.0
_PENDING = timedelta(minutes=1)
_ENDED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Review:
    """What to do about an account now, and when to look again.

    Attributes:
        look_at: when; None for at once.
        closes_at: when the invoice after this closes; None where there is none to come.
        usage_wanted_at: when metrics was asked for what that one needs.
        wanted: what metrics is asked for now.
        lines: of the invoice that is issued; none where there is none.
        usage_stated_at: of usage it says what was stored before.
    """

    look_at: datetime | None
    closes_at: datetime | None
    usage_wanted_at: datetime | None = None
    wanted: Sequence[Period] = ()
    lines: Sequence[Item] = ()
    usage_stated_at: datetime | None = None


def review(dossier: Dossier, *, now: datetime, grace: timedelta) -> Review:
    """Decide what an account asks for.

    Args:
        grace: how long after the end of a period its usage may still come in.
    """
    closes_at = dossier.closes_at
    if dossier.state == "ended":
        # Its last invoice is drafted. Code of the release before opens it again without having it looked at.
        return Review(now + _ENDED, closes_at, dossier.usage_wanted_at)
    if closes_at is None:
        return Review(now + _PENDING, None)
    if closes_at > now:
        earlier = next_close(dossier.account, after=now)  # of what was taken since: a trial may end before the month
        closes_at = closes_at if earlier is None else min(closes_at, earlier)
        return Review(closes_at, closes_at, dossier.usage_wanted_at)
    if wanted := dossier.wanted(closes_at):
        return _metered(dossier, closes_at, wanted, now=now, known_at=closes_at + grace)
    return _issue(dossier, closes_at, now=now)


def _metered(
    dossier: Dossier, closes_at: datetime, wanted: Sequence[Period], *, now: datetime, known_at: datetime
) -> Review:
    """Decide of an account whose usage must have been stated at a time or later."""
    if now < known_at:
        return Review(known_at, closes_at)
    if stated_at := dossier.stated_at(wanted, since=known_at):
        return _issue(dossier, closes_at, now=now, usage_stated_at=stated_at)
    asked_at = dossier.usage_wanted_at
    if asked_at is not None and now < asked_at + ASK_AGAIN:
        return Review(asked_at + ASK_AGAIN, closes_at, asked_at)
    return Review(now + ASK_AGAIN, closes_at, now, wanted)


def _issue(dossier: Dossier, closes_at: datetime, *, now: datetime, usage_stated_at: datetime | None = None) -> Review:
    following = next_close(dossier.account, after=closes_at)
    look_at = now + _PENDING if following is None else following if following > now else None
    return Review(look_at, following, lines=dossier.lines(closes_at), usage_stated_at=usage_stated_at)


class Invoicing:
    """Makes the invoices that are due.

    Args:
        grace: how long after the end of a period its usage may still come in.
        registry: has ``tenure_billing_accounts_stuck``: whose invoices cannot be made, for whatever reason.
    """

    def __init__(self, kernel: Kernel, *, grace: timedelta, registry: CollectorRegistry | None = None) -> None:
        self._kernel = kernel
        self._grace = grace
        self._stuck = Gauge(
            "tenure_billing_accounts_stuck", "Accounts whose invoice cannot be made.", registry=registry
        )

    async def run(self) -> None:
        """Make invoices for ever; an outage of the database is waited out, and what was due then is due afterwards."""
        clock = self._kernel.ports.clock
        await repeat("invoicing", self._work, lambda: clock.sleep(_POLL_SECONDS), clock=clock)

    async def _work(self) -> None:
        while await self.round():
            pass
        async with transaction(self._kernel.pool) as connection:
            self._stuck.set(await queries.invoicing.stuck(connection))

    async def round(self, limit: int = _LIMIT) -> int:
        """Look at the accounts that are due, up to a limit; return how many there were."""
        async with transaction(self._kernel.pool) as connection:
            found = await queries.invoicing.due(connection, now=self._kernel.ports.clock.now(), limit=limit)
        if found:
            await self._kernel.relay.send(await by_halves(sorted(found), self._commit, self._park))
        return len(found)

    async def _commit(self, tenant_ids: Sequence[str]) -> Sequence[Outgoing]:
        now = self._kernel.ports.clock.now()
        async with transaction(self._kernel.pool) as connection:
            await queries.subscriptions.lock(connection, tenant_ids)
            rows = await queries.invoicing.lock_due(connection, tenant_ids, now=now)
            found = sorted(await dossiers.read(connection, rows), key=lambda each: each.tenant_id)
            made = [(each, review(each, now=now, grace=self._grace)) for each in found]
            facts: list[Fact] = [
                usage_requested(each.tenant_id, to_do.wanted, now=now) for each, to_do in made if to_do.wanted
            ]
            drafts = [_draft(each, to_do) for each, to_do in made if to_do.lines]
            facts += await issue(connection, drafts, now=now)
            await queries.invoicing.reschedule(connection, [_row(each, to_do) for each, to_do in made])
            outgoing = [self._kernel.dispatch.tell(fact) for fact in facts]
            await outbox.insert(connection, outgoing, now=now)
        return outgoing

    async def _park(self, tenant_id: str, error: Exception) -> None:
        log.error(
            "an invoice cannot be made", action="account_stuck", tenant_id=tenant_id, error=repr(error), exc_info=error
        )
        now = self._kernel.ports.clock.now()
        async with transaction(self._kernel.pool) as connection:
            await queries.invoicing.park(connection, tenant_id, now=now, until=now + STUCK)


def _draft(dossier: Dossier, to_do: Review) -> Draft:
    assert dossier.closes_at is not None
    return draft(
        dossier, to_do.lines, kind=PERIODIC, closes_at=dossier.closes_at, usage_stated_at=to_do.usage_stated_at
    )


def _row(dossier: Dossier, to_do: Review) -> Mapping[str, Any]:
    return {
        "tenant_id": dossier.tenant_id,
        "closes_at": to_do.closes_at,
        "usage_wanted_at": to_do.usage_wanted_at,
        "look_at": to_do.look_at,
    }
