"""What all changes of the catalog have in common."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from services.tenant.announcement import published_catalog
from services.tenant.queries import catalog as queries
from shared.access import Principal
from shared.audit import Details
from shared.changes import Change, Changes
from shared.clock import Clock
from shared.contracts.base import INSTALLATION
from shared.http import FieldError, Problem
from shared.postgres import Connection


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

    def decided(
        self, action: str, subject: str, *, before: Details | None = None, after: Details | None = None
    ) -> None:
        """Have the audit trail told what was changed."""
        self._change.decided(
            self._asker, action, subject, tenant_id=INSTALLATION, before=before or None, after=after or None
        )


class Editing:
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
        """Change the catalog; where that has changed anything, everybody is told the catalog as it is then."""
        async with self._changes.transaction() as change:
            await queries.lock(change.connection)
            yield Edit(change, asker, self._clock.now())
            if change.facts:
                change.tell(await published_catalog(change.connection))


def different(found: asyncpg.Record, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return those wanted values that are not what was found."""
    return {name: value for name, value in wanted.items() if found[name] != value}


def conflict(code: str, detail: str, pointer: str = "") -> Problem:
    """Return the problem that the catalog as it is does not allow a change.

    Args:
        pointer: of the field that is in its way, if it is one.
    """
    return Problem(409, code=code, detail=detail, errors=[FieldError(pointer, detail)] if pointer else [])
