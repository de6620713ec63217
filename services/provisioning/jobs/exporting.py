"""Exports as steps of jobs: what the service does itself, with the help of a driver that can read all of a tenant's."""

from uuid import UUID

from services.provisioning.drivers import Done, Driver, Exporter, NoEnvironmentError, Outcome, Refused
from services.provisioning.exports import Exports
from services.provisioning.jobs.settling import Held


class Exporting:
    """Makes the export of a job, and takes it back. An export has the identity of its job, so it is made once."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports

    async def export(self, driver: Driver, held: Held) -> Outcome:
        """Keep everything of the tenant's."""
        if not isinstance(driver, Exporter) or held.environment is None:
            return Refused(code="unsupported_operation", detail=f"The driver {driver.name} cannot export.")
        try:
            export = await self._exports.make(held.job.job_id, held.environment.for_driver(), driver)
        except NoEnvironmentError:
            detail = f"There is nothing of tenant {held.job.tenant_id} to export."
            return Refused(code="unknown_environment", detail=detail)
        return Done(result={"export_id": str(export.export_id), "rows": export.rows, "sha256": export.sha256})

    async def discard(self, _: Driver, held: Held) -> Outcome:
        """Delete what was kept; an export of the release before has an identity of its own."""
        known = (held.job.found or {}).get("export_id")
        await self._exports.delete(UUID(known) if known else held.job.job_id)
        return Done()
