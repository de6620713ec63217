"""Exports as steps of jobs: what the service does itself, with the help of drivers that can read all of a tenant's."""

from collections.abc import Sequence
from uuid import UUID

from services.provisioning.drivers import Done, Driver, Environment, Exporter, NoEnvironmentError, Outcome, Refused
from services.provisioning.drivers.registry import Drivers
from services.provisioning.exports import Exports
from services.provisioning.jobs.job import Settings
from services.provisioning.jobs.settling import Held
from services.provisioning.queries import environments
from shared.postgres import Pool


class Exporting:
    """Makes the export of a job, and takes it back. An export has the identity of its job, so it is made once."""

    def __init__(self, pool: Pool, exports: Exports, drivers: Drivers) -> None:
        self._pool = pool
        self._exports = exports
        self._drivers = drivers

    async def export(self, _: Driver, held: Held) -> Outcome:
        """Keep everything of the tenant's, in all of its environments."""
        tenant_id = held.job.tenant_id
        found = await self._environments(tenant_id)
        parts = [(each.for_driver(), driver) for each in found if (driver := self._reader_of(each))]
        if len(parts) < len(found):
            return _unsupported(found, [environment for environment, _ in parts])
        try:
            export = await self._exports.make(held.job.job_id, tenant_id, parts)
        except NoEnvironmentError:
            detail = f"There is nothing of tenant {tenant_id} to export."
            return Refused(code="unknown_environment", detail=detail)
        return Done(result={"export_id": str(export.export_id), "rows": export.rows, "sha256": export.sha256})

    async def _environments(self, tenant_id: str) -> list[Settings]:
        """Return all environments of a tenant, its own first."""
        async with self._pool.acquire() as connection:
            found = [Settings.of(row) for row in await environments.of_tenants(connection, [tenant_id])]
        return sorted(found, key=lambda each: each.product or "")

    def _reader_of(self, environment: Settings) -> Exporter | None:
        driver = self._drivers.find(environment.driver)
        return driver if isinstance(driver, Exporter) else None

    async def discard(self, _: Driver, held: Held) -> Outcome:
        """Delete what was kept; an export of the release before has an identity of its own."""
        known = (held.job.found or {}).get("export_id")
        await self._exports.delete(UUID(known) if known else held.job.job_id)
        return Done()


def _unsupported(found: Sequence[Settings], readable: Sequence[Environment]) -> Refused:
    known = {each.environment_id for each in readable}
    drivers = sorted({each.driver for each in found if each.environment_id not in known})
    return Refused(code="unsupported_operation", detail=f"The driver {', '.join(drivers)} cannot export.")
