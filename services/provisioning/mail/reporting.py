"""What others are told of tenants' mails, and whose sending is paused by it; in one transaction for many tenants."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from services.provisioning.drivers import parts_of
from services.provisioning.mail.judging import Limits, Reason, Score, judge
from services.provisioning.queries import mail as queries
from shared.audit import Actor
from shared.changes import Change, Changes
from shared.clock import Clock
from shared.contracts.provisioning import MailReported, MailSendingPaused
from shared.repeating import repeat

log = structlog.get_logger(__name__)

ACTOR = Actor("mail-limits")
"""Who decides that a tenant must not go on."""

_EVERY_SECONDS = 5.0
_LIMIT = 200


class Reporter:
    """Tells what has been counted since it was told last, and judges whom it concerns.

    That it is told by the hour and the tenant, and not by the mail, is what keeps a million mails from being as many
    messages to everybody who counts them.
    """

    def __init__(self, changes: Changes, limits: Limits, *, clock: Clock) -> None:
        self._changes = changes
        self._limits = limits
        self._clock = clock

    async def run(self) -> None:
        """Report every few seconds, for ever."""
        await repeat("mail", self.report_all, lambda: self._clock.sleep(_EVERY_SECONDS), clock=self._clock)

    async def report_all(self) -> None:
        """Tell all that is to be told."""
        while await self.report() == _LIMIT:
            pass

    async def report(self) -> int:
        """Tell what is to be told of some tenants, and return of how many."""
        now = self._clock.now()
        async with self._changes.transaction() as change:
            sending = await queries.lock_tenants_with_news(change.connection, limit=_LIMIT)
            news = await queries.take_news(change.connection, list(sending))
            change.tell(
                *(MailReported(**_whose(each["tenant_id"]), hour=each["hour"], counts=each["counts"]) for each in news)
            )
            paused = await self._pause(change, [each for each, is_paused in sending.items() if not is_paused], now)
        for tenant_id, reason in paused.items():
            log.warning("a tenant's mail is paused", action="mail_paused", tenant_id=tenant_id, reason=reason)
        return len(sending)

    async def _pause(self, change: Change, tenant_ids: Sequence[str], now: datetime) -> Mapping[str, Reason]:
        rows = await queries.scores(change.connection, tenant_ids, since=self._limits.since(now))
        scores = {row["tenant_id"]: Score.of(row) for row in rows}
        reasons = {each: reason for each, score in scores.items() if (reason := judge(score, self._limits))}
        grounds = {each: _grounds(scores[each]) for each in reasons}
        await queries.pause(change.connection, reasons, grounds, now=now)
        for tenant_id, reason in reasons.items():
            self._tell(change, tenant_id, reason, scores[tenant_id], now)
        return reasons

    def _tell(self, change: Change, tenancy: str, reason: Reason, score: Score, now: datetime) -> None:
        change.tell(
            MailSendingPaused(
                **_whose(tenancy),
                code=reason,
                limit_percent=self._limits.of(reason),
                hours=self._limits.hours,
                occurred_at=now,
                **_grounds(score),
            )
        )
        after = {"reason": reason, **_grounds(score)}
        change.decided(ACTOR, "mail.paused", f"mail:{tenancy}", tenant_id=parts_of(tenancy)[0], after=after)


def _whose(tenancy: str) -> dict[str, Any]:
    tenant_id, product = parts_of(tenancy)
    return {"tenant_id": tenant_id, "product": product}


def _grounds(score: Score) -> dict[str, int]:
    return {"sends": score.sends, "bounces": score.bounces, "complaints": score.complaints}
