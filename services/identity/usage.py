"""How much tenants ask of applications, and where that ends: so many requests a second, and so many a day in UTC.

The second is each process's own: with several replicas, each lets pass as many. Its bucket holds one second's worth, so
in any ``t`` seconds no more than ``rate * (t + 1)`` pass.

The day is all replicas' together. Each counts in memory and adds that to the database once a second, which tells it
what all have counted, as the tenant's standing does. What the others have let pass since is not known: the day may be
overshot by what the other replicas let pass in about two seconds, never by one replica alone. A process that is killed
forgets what it counted in its last second, and one that does not learn whether a write has happened counts it again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import structlog

from services.identity.bounded import Bounded
from services.identity.queries import authorize as queries
from services.identity.standing import Plan, Tenant
from shared.clock import Clock
from shared.postgres import CONTENTION, Pool, is_unavailable, transaction

log = structlog.get_logger(__name__)

WRITE_SECONDS = 1.0
"""How often counts are written."""

_MICROSECONDS = 1_000_000
_BOUND_SECONDS = 5.0
_KEPT = timedelta(days=1)
_MOST = 20_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may pass, and what is left of the limit that is nearest.

    Attributes:
        limit: None where nothing is limited.
        remaining: how many more would pass at this moment.
        reset_seconds: until all of it is left again, rounded up.
        retry_seconds: until the next can pass, rounded up; 0 for one that passes.
        period: that the limit is for.
    """

    limit: int | None = None
    remaining: int = 0
    reset_seconds: int = 0
    retry_seconds: int = 0
    period: str = ""


UNLIMITED = Verdict()


class Bucket:
    """Lets so many requests a second pass; exact, because it counts in millionths of a request.

    Args:
        rate: requests a second; the bucket holds as many and is full at first.
        at: in microseconds.
    """

    __slots__ = ("_at", "_level", "rate")

    def __init__(self, rate: int, *, at: int) -> None:
        self.rate = rate
        self._level = rate * _MICROSECONDS
        self._at = at

    @property
    def remaining(self) -> int:
        """How many could be taken."""
        return self._level // _MICROSECONDS

    def refill(self, rate: int, *, at: int) -> None:
        """Let time pass, at a rate that may be another one; a clock that is set back fills nothing."""
        self.rate = rate
        self._level = min(self._level + max(at - self._at, 0) * rate, rate * _MICROSECONDS)
        self._at = at

    def take(self) -> None:
        """Take one of those that remain."""
        self._level -= _MICROSECONDS


class _Meter:
    """What a tenant has used: its bucket, and what was written of a day by all replicas."""

    __slots__ = ("bucket", "day", "written")

    def __init__(self) -> None:
        self.bucket: Bucket | None = None
        self.day: date | None = None
        self.written = 0


class Usage:
    """Counts the requests of tenants and holds them to their plans.

    Args:
        pool: of the service's own database.
    """

    def __init__(self, pool: Pool, *, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._meters: Bounded[str, _Meter] = Bounded(_MOST)
        self._unwritten: dict[tuple[str, date], int] = {}
        self._writing: Mapping[tuple[str, date], int] = {}

    def judge(self, tenant: Tenant) -> Verdict:
        """Tell whether a request of a tenant may pass, and count it if so."""
        plan = tenant.plan
        if plan is None or (plan.per_second is None and plan.per_day is None):
            return UNLIMITED
        now = self._clock.now()
        meter = self._meter(tenant, now.date())
        verdicts = []
        if plan.per_day is not None:
            verdicts.append(self._of_day(tenant.tenant_id, meter, plan.per_day, now))
        if plan.per_second is not None:
            verdicts.append(_of_second(meter, plan.per_second, now))
        nearest = min(verdicts, key=_distance)
        if not nearest.retry_seconds:
            self._count(tenant.tenant_id, plan, meter)
        return nearest

    async def run(self) -> None:
        """Write what was counted once a second, and forget days that are long over, for ever."""
        forgotten: date | None = None
        try:
            while True:
                await self._clock.sleep(WRITE_SECONDS)
                today = self._clock.now().date()
                if await self._write(before=None if forgotten == today else today - _KEPT):
                    forgotten = today
        finally:
            await self._write(before=None)

    def _meter(self, tenant: Tenant, today: date) -> _Meter:
        meter = self._meters.get(tenant.tenant_id)
        if meter is None:
            meter = _Meter()
            self._meters.put(tenant.tenant_id, meter)
        if meter.day != today:
            meter.day, meter.written = today, 0
        # What is being written at the moment may be in there already, and would count twice.
        if tenant.day == today and (tenant.tenant_id, today) not in self._writing:
            meter.written = max(meter.written, tenant.used)
        return meter

    def _of_day(self, tenant_id: str, meter: _Meter, limit: int, now: datetime) -> Verdict:
        key = (tenant_id, now.date())
        used = meter.written + self._writing.get(key, 0) + self._unwritten.get(key, 0)
        seconds = _until_tomorrow(now)
        return Verdict(limit, max(limit - used - 1, 0), seconds, 0 if used < limit else seconds, "a day")

    def _count(self, tenant_id: str, plan: Plan, meter: _Meter) -> None:
        if plan.per_second is not None:
            assert meter.bucket is not None
            meter.bucket.take()
        if plan.per_day is not None:
            assert meter.day is not None
            key = (tenant_id, meter.day)
            self._unwritten[key] = self._unwritten.get(key, 0) + 1

    async def _write(self, *, before: date | None) -> bool:
        """Write what was counted, and delete days; tell whether that has happened. What has not is written later."""
        self._writing, self._unwritten = self._unwritten, {}
        try:
            if self._writing or before is not None:
                async with transaction(self._pool, seconds=_BOUND_SECONDS) as connection:
                    totals = await queries.add_usage(connection, self._writing)
                    if before is not None:
                        await queries.forget_usage(connection, before=before)
                self._learn(totals)
            self._writing = {}
        except Exception as error:
            if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                raise
            log.warning("usage is written later", action="usage_unavailable", error=repr(error))
            return False
        finally:
            for key, count in self._writing.items():
                self._unwritten[key] = self._unwritten.get(key, 0) + count
            self._writing = {}
        return True

    def _learn(self, totals: Mapping[tuple[str, date], int]) -> None:
        for (tenant_id, day), total in totals.items():
            meter = self._meters.peek(tenant_id)
            if meter is not None and meter.day == day:
                meter.written = total


def _of_second(meter: _Meter, limit: int, now: datetime) -> Verdict:
    at = round(now.timestamp() * _MICROSECONDS)
    if meter.bucket is None:
        meter.bucket = Bucket(limit, at=at)
    meter.bucket.refill(limit, at=at)
    remaining = meter.bucket.remaining
    return Verdict(limit, max(remaining - 1, 0), 1, 0 if remaining else 1, "a second")


def _distance(verdict: Verdict) -> tuple[int, int]:
    """Sort what is nearest to its end first, and what keeps away for the longest before all others."""
    return verdict.remaining, -verdict.retry_seconds


def _until_tomorrow(now: datetime) -> int:
    midnight = datetime.combine(now.date() + timedelta(days=1), time.min, UTC)
    return math.ceil((midnight - now).total_seconds())
