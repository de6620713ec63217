"""How meters are defined and retired."""

from collections.abc import Mapping
from typing import Any

import asyncpg

from services.metrics import queries
from services.metrics.deciding import Act
from shared.contracts.base import INSTALLATION
from shared.http import FieldError, Problem
from shared.postgres import Connection

_TOLD = ("unit", "enforcement", "event_type", "aggregation", "value_path", "dimensions", "allows_negative")


async def define(act: Act, details: Mapping[str, Any]) -> tuple[asyncpg.Record, bool]:
    """Add a meter to the catalog, and return it and whether it is new: asking again changes nothing.

    Args:
        details: all of it, by the names of the columns.

    Raises:
        Problem: 409, there is another one of that name.
    """
    name = details["name"]
    row = await queries.meters.add(act.connection, details, now=act.now)
    if row is not None:
        after = {told: row[told] for told in _TOLD if row[told] is not None}
        act.decided("meter.defined", _subject(name), tenant_id=INSTALLATION, after=after)
        return row, True
    found = await known(act.connection, name)
    if found["retired_at"] is not None or any(found[field] != value for field, value in details.items()):
        detail = f"There is a meter {name} already, and it is another one. Meters do not change."
        raise Problem(409, code="meter_exists", detail=detail, errors=[FieldError("/name", detail)])
    return found, False


async def retire(act: Act, name: str) -> asyncpg.Record:
    """Let a meter take no events any more, for good; what it has metered stays.

    Raises:
        Problem: 404.
    """
    row = await queries.meters.retire(act.connection, name, at=act.now)
    if row is None:
        return await known(act.connection, name)
    act.decided("meter.retired", _subject(name), tenant_id=INSTALLATION, after={"retiredAt": act.now})
    return row


async def known(connection: Connection, name: str) -> asyncpg.Record:
    """Find a meter.

    Raises:
        Problem: 404, there is none of that name.
    """
    row = await queries.meters.meter(connection, name)
    if row is None:
        raise Problem(404, code="unknown_meter", detail=f"There is no meter {name}.")
    return row


def _subject(name: str) -> str:
    return f"meter:{name}"
