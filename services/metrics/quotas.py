"""How tenants are held to their quotas: what events use is taken from those, and who comes near a limit is told of."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import asyncpg

from services.metrics.meter import Aggregation
from services.metrics.queries import quota_use as queries
from services.metrics.queries.quota_use import Crossing, Key, Use
from services.metrics.queries.usage import Hour
from services.metrics.recording.evaluation import Measure
from services.metrics.recording.event import Event
from services.metrics.recording.refusal import RefusedError
from services.metrics.recording.rollup import NO_DIMENSIONS, Bucket, Rollup, Total, hour_of, merged
from services.metrics.standing import Claim, Claims, Quota, Standing, decide, reached_by
from shared.contracts.base import Fact
from shared.contracts.metrics import QuotaCrossed
from shared.messaging import outbox
from shared.messaging.event import Outgoing
from shared.postgres import Connection

_HARD = "hard"
_MONTHS_REMEMBERED = 4096

Measured = tuple[Event, Sequence[Measure]]
"""An event, and what it adds to each meter."""

_Quotas = Mapping[tuple[str, str], Quota]
_Added = TypeVar("_Added")


class Arrival(NamedTuple):
    """When and where events came.

    Attributes:
        time_zones: of their tenants, which are locked for sharing.
    """

    now: datetime
    time_zones: Mapping[str, str]


class Quotas:
    """Holds tenants to their quotas.

    Args:
        tell: addresses a fact to whoever listens.
    """

    def __init__(self, tell: Callable[[Fact], Outgoing]) -> None:
        self._tell = tell

    async def take(
        self, connection: Connection, measured: Sequence[Measured], rollup: Rollup, arrival: Arrival
    ) -> Mapping[Key, RefusedError]:
        """Take what events use from the quotas of their tenants, and return those that a hard limit keeps out.

        Nothing of these is kept, and they may be sent again. What fits as a whole is taken by one atomic statement,
        whoever else takes at the same time. Where it does not, each of the tenant's events is decided in the order of
        its arrival, with the months locked by that statement.

        Args:
            measured: the events, which were let in, in the order in which they arrived.
            rollup: what they add up to.
        """
        quotas = await _quotas(connection, {event.tenant_id for event, _ in measured}) if measured else {}
        totals = _totals(rollup, quotas, arrival.time_zones)
        values = _values(rollup, quotas, arrival.time_zones)
        if not totals and not values:
            return {}
        await _prepare(connection, {*totals, *values}, quotas, arrival.time_zones)
        unseen = await _unseen(connection, values)
        totals |= {use: Total(Decimal(len(unseen[use]))) for use in values}
        standings, crowded = await _take(connection, totals, quotas, unseen)
        claims = (_claims(each, standings, arrival.time_zones) for each in measured if each[0].tenant_id in crowded)
        refused = decide(claims, standings)
        await _settle(connection, {use: each for use, each in standings.items() if use.tenant_id in crowded}, refused)
        await self._tell_crossings(connection, standings, arrival.now)
        return refused

    async def _tell_crossings(self, connection: Connection, standings: Mapping[Use, Standing], now: datetime) -> None:
        crossings = [
            Crossing(use, each.quota.limit, percent, each.used)
            for use, each in standings.items()
            for percent in each.news(use.month)
        ]
        hard = {use for use, each in standings.items() if each.quota.is_hard}
        facts = await _new(connection, crossings, hard, now=now)
        # Due at once, for the sweeper: whoever sends usage must not wait for the broker.
        await outbox.insert(connection, [self._tell(fact) for fact in facts], now=now - outbox.FRESH)


async def review(connection: Connection, hours: Collection[Hour], *, now: datetime) -> Sequence[QuotaCrossed]:
    """Return what is to be told of quotas after Tenure itself has added to hours, which no limit keeps it from.

    Args:
        hours: of tenants that are locked.
    """
    rows = await queries.standings(connection, hours) if hours else []
    standings = {Use(row["tenant_id"], row["meter"], row["month"]): row for row in rows}
    crossings = [
        Crossing(use, row["limit_value"], percent, row["used"])
        for use, row in standings.items()
        for percent in reached_by(row["used"], row["limit_value"])
    ]
    hard = {use for use, row in standings.items() if row["enforcement"] == _HARD}
    return await _new(connection, crossings, hard, now=now)


async def _quotas(connection: Connection, tenant_ids: Collection[str]) -> _Quotas:
    return {
        (row["tenant_id"], row["meter"]): Quota(
            limit=row["limit_value"],
            is_hard=row["enforcement"] == _HARD,
            aggregation=Aggregation(row["aggregation"]),
            allows_negative=row["allows_negative"],
            kept=row["kept"],
            told={(month, percent) for month, percent in row["told"]},
        )
        for row in await queries.quotas(connection, tenant_ids)
    }


def _totals(rollup: Rollup, quotas: _Quotas, time_zones: Mapping[str, str]) -> dict[Use, Total]:
    """Return what is added to each month of a quota."""
    totals: dict[Use, Total] = {}
    for use, total in _of_quotas(rollup.totals, quotas, time_zones):
        aggregation = quotas[use.tenant_id, use.meter].aggregation
        totals[use] = merged(aggregation, totals[use], total) if use in totals else total
    return totals


def _values(rollup: Rollup, quotas: _Quotas, time_zones: Mapping[str, str]) -> dict[Use, set[bytes]]:
    """Return the different values of each month of a quota."""
    values: dict[Use, set[bytes]] = {}
    for use, some in _of_quotas(rollup.values, quotas, time_zones):
        values.setdefault(use, set()).update(some)
    return values


def _of_quotas(
    buckets: Mapping[Bucket, _Added], quotas: _Quotas, time_zones: Mapping[str, str]
) -> Iterator[tuple[Use, _Added]]:
    for bucket, added in buckets.items():
        if (bucket.tenant_id, bucket.meter) in quotas and bucket.dimensions == NO_DIMENSIONS:
            yield Use(bucket.tenant_id, bucket.meter, _month_of(bucket.hour, time_zones[bucket.tenant_id])), added


@lru_cache(maxsize=_MONTHS_REMEMBERED)
def _month_of(hour: datetime, time_zone: str) -> date:
    return hour.astimezone(ZoneInfo(time_zone)).date().replace(day=1)


async def _prepare(
    connection: Connection, uses: Collection[Use], quotas: _Quotas, time_zones: Mapping[str, str]
) -> None:
    """Have it kept of each month what was used."""
    if missing := [use for use in uses if use.month not in quotas[use.tenant_id, use.meter].kept]:
        await queries.keep(connection, {use: time_zones[use.tenant_id] for use in missing})


async def _unseen(connection: Connection, values: Mapping[Use, set[bytes]]) -> dict[Use, set[bytes]]:
    """Add values to months, and return those that a month did not have."""
    unseen: dict[Use, set[bytes]] = {use: set() for use in values}
    if flat := [(use, value) for use, some in values.items() for value in some]:
        for use, value in await queries.add_values(connection, flat):
            unseen[use].add(value)
    return unseen


async def _take(
    connection: Connection, totals: Mapping[Use, Total], quotas: _Quotas, unseen: Mapping[Use, set[bytes]]
) -> tuple[dict[Use, Standing], set[str]]:
    """Return how each month stands, and which tenants have one that did not fit: theirs stand as they did before."""
    portions = {use: quotas[use.tenant_id, use.meter].portion(total) for use, total in totals.items()}
    rows = {Use(row["tenant_id"], row["meter"], row["month"]): row for row in await queries.take(connection, portions)}
    crowded = {use.tenant_id for use, row in rows.items() if not row["fits"]}
    standings: dict[Use, Standing] = {}
    for use, total in totals.items():
        standings[use] = Standing(quotas[use.tenant_id, use.meter], _total(rows[use]), unseen.get(use, ()))
        if use.tenant_id not in crowded:
            standings[use].add(total)
    return standings, crowded


def _claims(measured: Measured, standings: Mapping[Use, Standing], time_zones: Mapping[str, str]) -> Claims:
    event, measures = measured
    time_zone = time_zones[event.tenant_id]
    month = _month_of(hour_of(event.happened_at, time_zone), time_zone)
    claims = [Claim(Use(event.tenant_id, each.meter.name, month), _added(event, each)) for each in measures]
    return Claims((event.tenant_id, event.key), [claim for claim in claims if claim.use in standings])


def _added(event: Event, measure: Measure) -> Total | bytes:
    if isinstance(measure.value, bytes):
        return measure.value
    if measure.meter.aggregation is Aggregation.LATEST:
        return Total(measure.value, event.happened_at, event.key)
    return Total(measure.value)


def _total(row: asyncpg.Record) -> Total | None:
    return None if row["used"] is None else Total(row["used"], row["latest_at"], row["latest_key"])


async def _settle(
    connection: Connection, standings: Mapping[Use, Standing], refused: Mapping[Key, RefusedError]
) -> None:
    """Write down what was decided one by one."""
    if not standings:
        return
    await queries.put(connection, {use: each.total for use, each in standings.items()})
    if unused := [(use, value) for use, each in standings.items() for value in each.unseen]:
        await queries.forget_values(connection, unused)
    if refused:
        await queries.forget_events(connection, refused)


async def _new(
    connection: Connection, crossings: Sequence[Crossing], hard: Collection[Use], *, now: datetime
) -> list[QuotaCrossed]:
    """Return what was not told before, and write down that it is told."""
    new = await queries.cross(connection, crossings, now=now) if crossings else set()
    return [
        QuotaCrossed(
            tenant_id=each.use.tenant_id,
            meter=each.use.meter,
            percent=each.percent,
            used=f"{each.used:f}",
            limit_value=each.limit,
            month=f"{each.use.month:%Y-%m}",
            enforcement=_HARD if each.use in hard else "soft",
            occurred_at=now,
        )
        for each in crossings
        if (each.use, each.percent) in new
    ]
