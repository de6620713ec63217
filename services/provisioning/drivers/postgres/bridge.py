"""Bridges: tenants that share a database, each with a schema of its own.

A tenant is a row in ``tenancy.bridge``, a schema with the tables that the pool has, and a role of the same name, to
which its logins belong. The role sees no other schema. In case it ever does, its rows are behind the same row-level
security as in the pool.
"""

from collections.abc import Sequence

from services.provisioning.drivers.postgres.names import Names
from services.provisioning.drivers.postgres.partitions import Kind, Partitions
from shared.clock import Clock
from shared.postgres import Pool


class PostgresBridges(Partitions):
    """The bridges of a database."""

    kind = Kind(
        is_bridge=True,
        provision="SELECT tenancy.make_bridges($1, $2, $3)",
        configure="SELECT tenancy.configure_bridges($1, $2, $3)",
        close="SELECT tenancy.close_bridges($1)",
        remove="SELECT removed, deleted FROM tenancy.remove_bridges($1, $2)",
        issue="SELECT tenancy.create_bridge_login($1, $2, $3, $4)",
    )

    def __init__(self, pool: Pool, *, url: str, clock: Clock) -> None:
        super().__init__(pool, url=url, clock=clock)
        self._names = Names(self._address.database)

    def schema_of(self, tenant_id: str) -> str:
        """Return the schema in which a tenant's rows are: its own."""
        return self._names.bridge(tenant_id)

    async def refresh(self, tenant_ids: Sequence[str]) -> None:
        """Bring the schemas of tenants up to date with that of the pool."""
        await self._pool.execute("SELECT tenancy.refresh_bridges($1)", tenant_ids)
