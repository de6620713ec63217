"""How usage is corrected: corrections are appended, and the hours that they are about worked out again at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg

from services.metrics import defining, queries
from services.metrics.deciding import Act
from services.metrics.meter import Aggregation
from services.metrics.partitions import RETENTION
from services.metrics.queries.remains import Void
from services.metrics.recording.event import EARLIEST, Event, key_of
from services.metrics.recording.reading import read
from services.metrics.recording.rollup import hour_of
from services.metrics.taking_back import take_back, taken_of
from shared.http import FieldError, Problem
from shared.postgres import Connection

ADJUSTABLE = {Aggregation.COUNT, Aggregation.SUM}
"""What can be adjusted by a quantity: meters whose hours add up."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every correction says.

    Attributes:
        idempotency_key: None where the client gave none.
        fingerprint: of the request.
    """

    tenant_id: str
    reason: str
    idempotency_key: str | None
    fingerprint: bytes


@dataclass(frozen=True, kw_only=True)
class Voiding(Request):
    """An event is not to count any more."""

    source: str
    event_id: str


@dataclass(frozen=True, kw_only=True)
class Adjustment(Request):
    """A quantity is to be added to the hour in which something happened."""

    meter: str
    happened_at: datetime
    quantity: Decimal


async def amend(act: Act, asked: Voiding | Adjustment) -> tuple[asyncpg.Record, bool]:
    """Correct a tenant's usage, and return the correction and whether it is new.

    Raises:
        Problem: 404, there is no such tenant, event or meter; 422, the meter cannot be adjusted, or the idempotency key
            was used for another correction.
    """
    connection, tenant_id = act.connection, asked.tenant_id
    # Whoever records this tenant's events waits, or is waited for.
    await queries.tenants.lock(connection, [tenant_id])
    time_zone = await queries.tenants.time_zone(connection, tenant_id)
    if time_zone is None:
        raise Problem(404, code="unknown_tenant", detail=f"Tenant {tenant_id} is not metered.")
    if known := await _known(connection, asked):
        return known, False
    if isinstance(asked, Voiding):
        return await _void(act, asked, time_zone), True
    return await _adjust(act, asked, time_zone), True


async def _known(connection: Connection, asked: Voiding | Adjustment) -> asyncpg.Record | None:
    """Return the correction that this request repeats."""
    key = asked.idempotency_key
    if key is not None and (row := await queries.amendments.of_key(connection, asked.tenant_id, key)):
        if row["fingerprint"] == asked.fingerprint:
            return row
        detail = "This Idempotency-Key was used for another request."
        error = FieldError("header/Idempotency-Key", detail)
        raise Problem(422, code="idempotency_key_reused", detail=detail, errors=[error])
    if isinstance(asked, Voiding):
        return await queries.amendments.of_event(connection, asked.tenant_id, asked.source, asked.event_id)
    return None


async def _adjust(act: Act, asked: Adjustment, time_zone: str) -> asyncpg.Record:
    meter = await defining.known(act.connection, asked.meter)
    _check(act, asked, Aggregation(meter["aggregation"]))
    hour = hour_of(asked.happened_at, time_zone)
    amendment = await _append(
        act, asked, {"meter": asked.meter, "happened_at": asked.happened_at, "quantity": asked.quantity}
    )
    await queries.amendments.add(act.connection, asked.tenant_id, asked.meter, hour, asked.quantity)
    await _forget_use(act.connection, asked, [asked.meter], hour, time_zone)
    after = {"meter": asked.meter, "time": asked.happened_at, "quantity": f"{asked.quantity:f}"}
    _decided(act, "usage.adjusted", amendment, after)
    return amendment


def _check(act: Act, asked: Adjustment, aggregation: Aggregation) -> None:
    if aggregation not in ADJUSTABLE:
        raise _wrong("/meter", f"The meter {asked.meter} is of the kind {aggregation}, whose hours do not add up.")
    if aggregation is Aggregation.COUNT and asked.quantity % 1 != 0:
        raise _wrong("/quantity", f"`quantity` must be a whole number, because {asked.meter} counts.")
    if asked.happened_at > act.now + EARLIEST:
        raise _wrong("/time", "`time` must not be in the future.")
    if asked.happened_at < act.now - RETENTION:
        raise _wrong("/time", f"`time` must be at most {RETENTION.days} days ago.")


def _wrong(pointer: str, detail: str) -> Problem:
    return Problem(422, code="validation_failed", detail=detail, errors=[FieldError(pointer, detail)])


async def _void(act: Act, asked: Voiding, time_zone: str) -> asyncpg.Record:
    event = await _event(act.connection, asked)
    of_event = {"source": asked.source, "event_id": asked.event_id, "happened_at": event["happened_at"]}
    amendment = await _append(act, asked, of_event)
    hour = hour_of(event["happened_at"], time_zone)
    void = Void(asked.tenant_id, event["type"], hour, time_zone, event["data"])
    meters = await queries.meters.taking(act.connection, event["type"], stored_at=event["stored_at"])
    await take_back(act.connection, void, taken_of(_as_it_was(asked, event), meters))
    await _forget_use(act.connection, asked, [meter["name"] for meter in meters], hour, time_zone)
    _decided(act, "usage.voided", amendment, {"type": event["type"], "time": event["happened_at"]})
    return amendment


async def _event(connection: Connection, asked: Voiding) -> asyncpg.Record:
    key = key_of(asked.source, asked.event_id)
    received_at = await queries.amendments.received_at(connection, asked.tenant_id, key)
    event = received_at and await queries.amendments.event(
        connection, asked.tenant_id, asked.source, asked.event_id, stored_at=received_at
    )
    if not event:
        detail = f"No event {asked.event_id} of the source {asked.source} is known of tenant {asked.tenant_id}."
        raise Problem(404, code="unknown_event", detail=detail, errors=[FieldError("/id", detail)])
    return event


def _as_it_was(asked: Voiding, row: asyncpg.Record) -> Event:
    json = row["data"].encode()
    return Event(
        tenant_id=asked.tenant_id,
        source=asked.source,
        id=asked.event_id,
        type=row["type"],
        happened_at=row["happened_at"],
        data=read(json),
        json=json,
        key=key_of(asked.source, asked.event_id),
        digest=b"",
    )


async def _forget_use(
    connection: Connection, asked: Request, meters: Sequence[str], hour: datetime, time_zone: str
) -> None:
    month = hour.astimezone(ZoneInfo(time_zone)).date().replace(day=1)
    await queries.amendments.forget_use(connection, asked.tenant_id, meters, month)


async def _append(act: Act, asked: Request, details: Mapping[str, Any]) -> asyncpg.Record:
    """Append a correction; an idempotency key is kept with what was asked for under it."""
    return await queries.amendments.insert(
        act.connection,
        {
            **details,
            "amendment_id": act.new_id(),
            "tenant_id": asked.tenant_id,
            "reason": asked.reason,
            "actor": act.asker.id,
            "amended_at": act.now,
            "idempotency_key": asked.idempotency_key,
            "fingerprint": None if asked.idempotency_key is None else asked.fingerprint,
        },
    )


def _decided(act: Act, action: str, amendment: asyncpg.Record, after: Mapping[str, Any]) -> None:
    subject = f"usage-amendment:{amendment['amendment_id']}"
    act.decided(action, subject, tenant_id=amendment["tenant_id"], after=after, reason=amendment["reason"])
