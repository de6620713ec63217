"""What is left of an hour when one of its events is void: what was added less the event, or what the others come to."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from decimal import Context, Decimal, Inexact
from typing import NamedTuple

import asyncpg

from services.metrics.meter import Aggregation, Meter, Place
from services.metrics.paths import sql_path
from services.metrics.queries import remains
from services.metrics.queries.remains import Part, Total, Void
from services.metrics.recording.evaluation import measure
from services.metrics.recording.event import Event, key_of
from services.metrics.recording.refusal import RefusedError
from services.metrics.recording.rollup import NO_DIMENSIONS
from shared.postgres import Connection

_EXACT = Context(prec=100, traps=[Inexact])
_ONE = Decimal(1)


class Taken(NamedTuple):
    """What a part of an hour has of an event.

    Attributes:
        value: a quantity, or the hash of a value for a meter that counts different ones.
    """

    part: Part
    aggregation: Aggregation
    value: Decimal | bytes
    event: Event


class _Counted(NamedTuple):
    """What a part has of an event, and what it comes to with it."""

    taken: Taken
    quantity: Decimal
    total: Total


def taken_of(event: Event, rows: Iterable[asyncpg.Record]) -> list[Taken]:
    """Return what the parts of its hour have of an event.

    Args:
        rows: the meters that took it, rows of the table of that name.
    """
    return [taken for row in rows for taken in _taken(event, row)]


def _taken(event: Event, row: asyncpg.Record) -> list[Taken]:
    meter = Meter.of(row)
    taken: list[Taken] = []
    with suppress(RefusedError):  # taken before there was this meter, by a clock that was behind
        for _, value, dimensions in measure(event, {event.type: [meter]}):
            taken.append(Taken(_part(meter, row, NO_DIMENSIONS), meter.aggregation, value, event))
            if dimensions is not None:
                taken.append(Taken(_part(meter, row, dimensions), meter.aggregation, value, event))
    return taken


def _part(meter: Meter, row: asyncpg.Record, dimensions: str) -> Part:
    places: Iterable[Place] = () if dimensions == NO_DIMENSIONS else meter.dimensions.values()
    return Part(
        meter=meter.name,
        dimensions=dimensions,
        path=None if meter.value is None else sql_path(meter.value.path),
        dimension_paths=tuple(sql_path(place.path) for place in places),
        since=row["created_at"],
        until=row["retired_at"],
    )


async def take_back(connection: Connection, void: Void, taken: Sequence[Taken]) -> None:
    """Write down what is left of the hour of an event that is void by now; the tenant is locked."""
    found = await remains.totals(connection, void, [each.part for each in taken]) if taken else []
    counted = [
        _Counted(each, total.quantity, total)
        for each, total in zip(taken, found, strict=True)
        if total.quantity is not None
    ]
    left = {
        **_subtracted(counted),
        **await _greatest(connection, void, counted),
        **await _latest(connection, void, counted),
        **await _different(connection, void, counted),
    }
    if left:
        await remains.write(connection, void, list(left), list(left.values()))


def _subtracted(counted: Iterable[_Counted]) -> dict[Part, Total]:
    return {
        taken.part: Total(_EXACT.subtract(quantity, taken.value))
        for taken, quantity, _ in counted
        if taken.aggregation in {Aggregation.COUNT, Aggregation.SUM} and isinstance(taken.value, Decimal)
    }


async def _greatest(connection: Connection, void: Void, counted: Iterable[_Counted]) -> dict[Part, Total]:
    parts = [
        taken.part
        for taken, quantity, _ in counted
        if taken.aggregation is Aggregation.MAX and taken.value == quantity  # otherwise it is not missed
    ]
    found = await remains.greatest(connection, void, parts) if parts else []
    return {part: Total(quantity) for part, quantity in zip(parts, found, strict=True)}


async def _latest(connection: Connection, void: Void, counted: Iterable[_Counted]) -> dict[Part, Total]:
    parts = [
        taken.part
        for taken, _, total in counted
        if taken.aggregation is Aggregation.LATEST
        and (total.latest_at, total.latest_key) == (taken.event.happened_at, taken.event.key)
    ]
    left = dict.fromkeys(parts, Total(None))
    if not parts:
        return left
    async for value in remains.latest(connection, void, parts):
        part = parts[value.part]
        key, before = key_of(value.source, value.event_id), left[part].latest_key
        if before is None or key > before:
            left[part] = Total(value.quantity, value.happened_at, key)
    return left


async def _different(connection: Connection, void: Void, counted: Iterable[_Counted]) -> dict[Part, Total]:
    asked = [each for each in counted if each.taken.aggregation is Aggregation.UNIQUE]
    parts = [each.taken.part for each in asked]
    still = await remains.still_has(connection, void, parts) if parts else []
    missed = [each for each, has in zip(asked, still, strict=True) if not has]
    if missed:
        values = [each.taken.value for each in missed if isinstance(each.taken.value, bytes)]
        await remains.forget_values(connection, void, [each.taken.part for each in missed], values)
    return {each.taken.part: Total(_EXACT.subtract(each.quantity, _ONE)) for each in missed}
