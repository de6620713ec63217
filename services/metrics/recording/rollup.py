"""What events add up to: buckets of an hour, which come out the same in whatever order and portions events arrive."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

from services.metrics.meter import Aggregation
from services.metrics.recording.evaluation import Measure
from services.metrics.recording.event import Event

NO_DIMENSIONS = "{}"
"""Of the bucket that has all events of a meter, whatever it tells apart."""

_LATEST, _MAX = Aggregation.LATEST, Aggregation.MAX  # looked up once: this is done for each event
_quantity, _moment = attrgetter("quantity"), attrgetter("at", "key")
_EXACT = Context(prec=100, traps=[Inexact])
_QUARTER_SECONDS = 900
_HOURS_REMEMBERED = 4096


class Bucket(NamedTuple):
    """An hour of a tenant's usage of a meter, or the part of it that has the same dimensions.

    Attributes:
        hour: when it begins; hours are those of the tenant's time zone.
        dimensions: JSON, name to text; `NO_DIMENSIONS` for all.
    """

    tenant_id: str
    meter: str
    hour: datetime
    dimensions: str


class Total(NamedTuple):
    """What a bucket comes to.

    Attributes:
        at: of the latest value: when it happened.
        key: and what decides between two of one moment.
    """

    quantity: Decimal
    at: datetime | None = None
    key: bytes | None = None


class Rollup:
    """Adds events up.

    Attributes:
        totals: what each bucket comes to, apart from those that count different values.
        values: the hashes of the different values of each bucket that counts them.
    """

    def __init__(self) -> None:
        self.totals: dict[Bucket, Total] = {}
        self.values: dict[Bucket, set[bytes]] = {}

    def add(self, event: Event, hour: datetime, measures: list[Measure]) -> None:
        """Add an event to the hour in which it happened."""
        for meter, value, dimensions in measures:
            self._put(Bucket(event.tenant_id, meter.name, hour, NO_DIMENSIONS), meter.aggregation, value, event)
            if dimensions is not None:
                self._put(Bucket(event.tenant_id, meter.name, hour, dimensions), meter.aggregation, value, event)

    def _put(self, bucket: Bucket, aggregation: Aggregation, value: Decimal | bytes, event: Event) -> None:
        if isinstance(value, bytes):
            self.values.setdefault(bucket, set()).add(value)
            return
        total = Total(value, event.happened_at, event.key) if aggregation is _LATEST else Total(value)
        before = self.totals.get(bucket)
        self.totals[bucket] = total if before is None else merged(aggregation, before, total)


def merged(aggregation: Aggregation, one: Total, other: Total) -> Total:
    """Return what two portions of one bucket come to together; which of them is the first makes no difference."""
    if aggregation is _MAX:
        return max(one, other, key=_quantity)
    if aggregation is _LATEST:
        return max(one, other, key=_moment)
    return Total(_EXACT.add(one.quantity, other.quantity))


def hour_of(moment: datetime, time_zone: str) -> datetime:
    """Return when the hour of a time zone began in which something happened."""
    return _hour_of_quarter(int(moment.timestamp()) // _QUARTER_SECONDS, time_zone)


@lru_cache(maxsize=_HOURS_REMEMBERED)
def _hour_of_quarter(quarter: int, time_zone: str) -> datetime:
    """Offsets from UTC are whole quarters of an hour everywhere since 1972 (IANA's tz database), and change at such."""
    begun = datetime.fromtimestamp(quarter * _QUARTER_SECONDS, UTC)
    return begun - timedelta(minutes=begun.astimezone(ZoneInfo(time_zone)).minute)


def distinct(values: Mapping[Bucket, set[bytes]]) -> list[tuple[Bucket, bytes]]:
    """Return the values of all buckets one by one."""
    return [(bucket, value) for bucket, each in values.items() for value in each]
