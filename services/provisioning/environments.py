"""The environments of a batch: locked, changed in memory one ask after the other, and settled all at once."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self

import asyncpg

from services.provisioning import queries
from services.provisioning.drivers import Partition, PoolDriver
from shared.postgres import Connection


class OfTenant(Protocol):
    """An ask or a restoration."""

    @property
    def tenant_id(self) -> str:
        """Whose it is."""
        ...


class Environments:
    """What the environments of some tenants are, and what they are to be.

    The locks last until the transaction ends, so that of two who change one tenant's environment the second finds what
    the first has made of it, here and at the driver.
    """

    def __init__(self, connection: Connection, found: Mapping[str, asyncpg.Record]) -> None:
        self._connection = connection
        self._found = {tenant_id: _settings(row) for tenant_id, row in found.items()}
        self._wanted = dict(self._found)

    @classmethod
    async def lock(cls, connection: Connection, batch: Iterable[OfTenant]) -> Self:
        """Lock the environments of a batch's tenants, of those who have one."""
        return cls(connection, await queries.lock_environments(connection, [each.tenant_id for each in batch]))

    def __contains__(self, tenant_id: str) -> bool:
        return tenant_id in self._wanted

    def is_throttled(self, tenant_id: str) -> bool:
        """Tell whether nobody may work in a tenant's environment, after all changes so far."""
        return self._wanted[tenant_id]["throttled_at"] is not None

    def change(self, tenant_id: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Change some settings, and return as JSON what they were; None if they were like that."""
        found = self._wanted[tenant_id]
        before = {name: found[name] for name in settings}
        if before == settings:
            return None
        self._wanted[tenant_id] = {**found, **settings}
        return before

    async def settle(self, driver: PoolDriver) -> None:
        """Write what has changed, and let the driver make it so.

        The driver is told of all of them, also of those that were like that: an attempt that was rolled back here may
        have left its effect there.
        """
        changed = [
            {"tenant_id": tenant_id, **settings}
            for tenant_id, settings in self._wanted.items()
            if settings != self._found[tenant_id]
        ]
        if changed:
            await queries.update_environments(self._connection, changed)
        if self._wanted:
            await driver.configure([_partition(*each) for each in self._wanted.items()])


def _settings(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "isolation": row["isolation"],
        "connections": row["connections"],
        "throttled_at": row["throttled_at"] and row["throttled_at"].isoformat(),
        "throttle_reason": row["throttle_reason"],
    }


def _partition(tenant_id: str, settings: Mapping[str, Any]) -> Partition:
    return Partition(tenant_id, connections=settings["connections"], is_throttled=settings["throttled_at"] is not None)
