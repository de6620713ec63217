"""How what Amazon tells is recorded: each once, whose it is, and how much of it; in one transaction for a batch."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

import structlog

from services.provisioning.mail.notices import Notice, Occurrence, Oddity
from services.provisioning.queries import mail as queries
from shared.clock import Clock
from shared.postgres import Pool, transaction

log = structlog.get_logger(__name__)

MEMORY = timedelta(days=15)
"""How long it is known what was counted already: longer than a queue of Amazon's can keep a message."""

_AHEAD = timedelta(days=1)
_KEPT = timedelta(days=35)
_SWEPT = 5000
_SHOWN = 5


class Recorder:
    """Records what was received."""

    def __init__(self, pool: Pool, *, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._kept_on: date | None = None

    async def record(self, notices: Sequence[Notice]) -> None:
        """Count notices that were not counted before, for whom they concern."""
        now = self._clock.now()
        await self._keep_days(now.date())
        timely = {(each.day, each.key): each for each in (_timely(notice, now.date()) for notice in notices)}
        async with transaction(self._pool) as connection:
            fresh = [timely[key] for key in await queries.admit(connection, list(timely))]
            occurrences = [each.says for each in fresh if isinstance(each.says, Occurrence)]
            owners = await queries.lock_owners(connection, {each.account_id for each in occurrences})
            await queries.count(connection, _rows(occurrences, owners, now))
            oddities = _oddities(fresh, owners)
            await queries.count_oddities(connection, oddities, hour=_hour(now))
        _log(oddities, {each.account_id for each in occurrences} - owners.keys())

    async def sweep(self) -> int:
        """Forget what was counted long ago, as far as it has been told, and return how much that was."""
        before = _hour(self._clock.now()) - _KEPT
        async with transaction(self._pool) as connection:
            return await queries.delete_old(connection, before=before, limit=_SWEPT)

    async def _keep_days(self, today: date) -> None:
        if self._kept_on == today:
            return
        async with transaction(self._pool) as connection:
            await queries.keep_days(connection, first=today - MEMORY, last=today + _AHEAD)
        self._kept_on = today


def _timely(notice: Notice, today: date) -> Notice:
    """Take nothing of days of which it is not known what was counted."""
    if notice.day < today - MEMORY:
        return replace(notice, day=today, says=Oddity.TOO_OLD)
    return replace(notice, day=min(notice.day, today + _AHEAD))


def _rows(
    occurrences: Sequence[Occurrence], owners: Mapping[str, queries.Owner], now: datetime
) -> list[queries.Counted]:
    counts: Counter[tuple[str, datetime, str]] = Counter()
    judged: Counter[tuple[str, datetime, str]] = Counter()
    for each in occurrences:
        if (owner := owners.get(each.account_id)) is None:
            continue
        key = (owner.tenant_id, _hour(min(each.at, now)), each.event.value)
        counts[key] += each.count
        if owner.counted_from is None or each.sent_at >= owner.counted_from:
            judged[key] += each.count
    return [queries.Counted(*key, count, judged[key]) for key, count in counts.items()]


def _oddities(notices: Iterable[Notice], owners: Mapping[str, queries.Owner]) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in notices:
        if isinstance(each.says, Oddity):
            found[each.says.value] += 1
        elif each.says.account_id not in owners:
            found[Oddity.STRANGER.value] += 1
    return found


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _log(oddities: Mapping[str, int], strangers: set[str]) -> None:
    told = {reason: count for reason, count in oddities.items() if reason != Oddity.GREETING}
    if told:
        shown = sorted(strangers)[:_SHOWN]
        log.warning("mail events of nobody", action="mail_oddities", counts=told, accounts=shown)
