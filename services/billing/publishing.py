"""How plans and their versions are published: by one editor at a time, who tells the audit trail.

A plan is never changed and never deleted, nor is a version: what is to be different is another version. The last one
that has started is in force for whoever takes the plan; so none starts before the one that was published before it.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg

from services.billing import queries
from services.billing.money import currency_of, plain, rounded
from shared.access import Principal
from shared.audit import changed
from shared.changes import Change, Changes
from shared.clock import Clock
from shared.contracts.base import INSTALLATION
from shared.http import FieldError, Problem
from shared.postgres import Connection

_PUNCTUALITY = timedelta(minutes=1)
"""How long a version may have started when it is published: whose clock names the start may be behind ours."""

Details = Mapping[str, Any]


class Edit:
    """A change of the catalog that is being made; nobody else makes one meanwhile.

    Attributes:
        connection: in its transaction.
        now: when it is made.
    """

    def __init__(self, change: Change, asker: Principal, now: datetime) -> None:
        self.connection: Connection = change.connection
        self.now = now
        self._change = change
        self._asker = asker

    def decided(self, action: str, plan: str, after: Details) -> None:
        """Have the audit trail told what was published."""
        _, told = changed({}, after)
        self._change.decided(self._asker, action, f"plan:{plan}", tenant_id=INSTALLATION, after=told)


class Publishing:
    """Lets the catalog be changed.

    Args:
        changes: make changes in the service's database.
        clock: when they are said to have happened.
    """

    def __init__(self, changes: Changes, clock: Clock) -> None:
        self._changes = changes
        self._clock = clock

    @asynccontextmanager
    async def by(self, asker: Principal) -> AsyncIterator[Edit]:
        """Change the catalog."""
        async with self._changes.transaction() as change:
            await queries.catalog.lock(change.connection)
            yield Edit(change, asker, self._clock.now())


async def create(edit: Edit, plan: Details, content: Details) -> bool:
    """Add a plan with its first version, and return whether it is new: asking again for the very same changes nothing.

    Args:
        plan: its ``name``, ``rank``, ``interval`` and ``currency``.
        content: of the version; see `publish`.

    Raises:
        Problem: 409, another plan has the name or the rank; or 422, of the moments.
    """
    name = plan["name"]
    found = await queries.catalog.plan(edit.connection, name)
    if found is not None:
        first, *_ = await queries.catalog.versions(edit.connection, [name])
        if dict(found) != dict(plan) or not _is_same(first, content, edit.now):
            raise _conflict("plan_exists", f"There is a plan {name} already, and it is another one.", "/name")
        return False
    if other := await queries.catalog.plan_ranked(edit.connection, plan["rank"]):
        raise _conflict("rank_taken", f"Plan {other} has rank {plan['rank']} already.", "/rank")
    dated = _dated(content, edit.now)
    await queries.catalog.add_plan(edit.connection, plan)
    await _add(edit, name, 1, dated)
    edit.decided("plan.created", name, {**_without_name(plan), **_told(1, dated)})
    return True


async def publish(edit: Edit, name: str, content: Details) -> tuple[asyncpg.Record, bool]:
    """Add a version of a plan, and return it and whether it is new: asking again for the last one changes nothing.

    Args:
        content: ``pays``, ``trial_days``, ``proration``, the ``prices`` by currency, the ``charges`` as they are
            written, and when it ``starts_at`` (None: now) and ``reaches_at`` those who have the plan (None: never).

    Raises:
        Problem: 404; 409, a later version starts after it; or 422, of the moments or of the currencies.
    """
    plan = await queries.catalog.plan(edit.connection, name)
    if plan is None:
        raise unknown_plan(name)
    if plan["currency"] not in content["prices"]:
        raise _wrong("/prices", f"`prices` must have one in {plan['currency']}, the plan's own currency.")
    last = (await queries.catalog.versions(edit.connection, [name]))[-1]
    if _is_same(last, content, edit.now):
        return last, False
    dated = _dated(content, edit.now)
    if last["starts_at"] is not None and dated["starts_at"] < last["starts_at"]:
        detail = f"Version {last['version']} of {name} starts at {last['starts_at'].isoformat()}; no later one before."
        raise _conflict("starts_too_early", detail, "/startsAt")
    number = last["version"] + 1
    await _add(edit, name, number, dated)
    edit.decided("plan.version_published", name, _told(number, dated))
    return (await queries.catalog.versions(edit.connection, [name]))[-1], True


def unknown_plan(name: str) -> Problem:
    """Return the problem that there is no such plan."""
    return Problem(404, code="unknown_plan", detail=f"There is no plan {name}.")


async def _add(edit: Edit, name: str, number: int, dated: Details) -> None:
    digits = {code: currency_of(code).digits for code in dated["prices"]}
    await queries.catalog.add_version(edit.connection, name, number, dated, digits=digits)


def _dated(content: Details, now: datetime) -> Details:
    """Return what is to be published with the moment when it starts."""
    starts_at, reaches_at = content["starts_at"] or now, content["reaches_at"]
    if starts_at < now - _PUNCTUALITY:
        raise _wrong("/startsAt", "`startsAt` must not be in the past.")
    if reaches_at is not None and reaches_at < starts_at:
        raise _wrong("/reachesExistingAt", "`reachesExistingAt` must not be before the version starts.")
    return {**content, "starts_at": starts_at}


def _is_same(found: asyncpg.Record, wanted: Details, now: datetime) -> bool:
    """Tell whether a version is what is wanted; where that is to start now, it may have started already."""
    starts_at = found["starts_at"]
    has_started = starts_at is None or starts_at <= now
    return _content(found) == (
        {**wanted, "starts_at": starts_at} if wanted["starts_at"] is None and has_started else wanted
    )


def _content(row: asyncpg.Record) -> Details:
    """Return what a version says, from a row of `queries.catalog.versions`."""
    return {
        "pays": row["pays"],
        "trial_days": row["trial_days"],
        "proration": row["proration"],
        "starts_at": row["starts_at"],
        "reaches_at": row["reaches_at"],
        "prices": dict(zip(row["currencies"], row["amounts"], strict=True)),
        "charges": [_written(each) for each in row["charges"]],
    }


def _written(charge: Details) -> Details:
    minimum = charge["minimum"]
    return {
        **charge,
        "included": plain(Decimal(charge["included"])),
        "minimum": None if minimum is None else plain(Decimal(minimum)),
    }


def _told(number: int, dated: Details) -> Details:
    """Return a version for the audit trail."""
    return {
        "version": number,
        "startsAt": dated["starts_at"],
        "reachesExistingAt": dated["reaches_at"],
        "paysIn": dated["pays"],
        "trialDays": dated["trial_days"],
        "proration": dated["proration"],
        "prices": _amounts(dated["prices"]),
        "charges": dated["charges"],
    }


def _amounts(prices: Mapping[str, Decimal]) -> Mapping[str, str]:
    return {code: f"{rounded(amount, currency_of(code).digits):f}" for code, amount in prices.items()}


def _without_name(plan: Details) -> Details:
    return {field: value for field, value in plan.items() if field != "name"}


def _conflict(code: str, detail: str, pointer: str) -> Problem:
    return Problem(409, code=code, detail=detail, errors=[FieldError(pointer, detail)])


def _wrong(pointer: str, detail: str) -> Problem:
    return Problem(422, code="validation_failed", detail=detail, errors=[FieldError(pointer, detail)])
