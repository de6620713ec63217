"""Pools: tenants that share the tables of one schema, parted by row-level security.

A tenant is a row in ``tenancy.tenant``, and all its rows hang on that one. All SQL on the side of the tenants is here,
in the files beside this one, and in ``application/``.
"""

from services.provisioning.drivers.postgres.partitions import Kind, Partitions

SCHEMA = "app"
"""The schema of the tables that tenants share."""


class PostgresPool(Partitions):
    """The partitions of a pool."""

    kind = Kind(
        is_bridge=False,
        # What the statement itself has made is not seen by its last part, and is not closed.
        provision="""
            WITH made AS (
                INSERT INTO tenancy.tenant (tenant_id, connections)
                SELECT tenant_id, connections
                FROM unnest($1::text[], $2::text[], $3::integer[]) AS wanted (tenant_id, schema, connections)
                ORDER BY tenant_id
                ON CONFLICT (tenant_id) DO UPDATE SET connections = excluded.connections
                WHERE tenant.connections IS DISTINCT FROM excluded.connections
            )
            SELECT tenant_id FROM tenancy.tenant WHERE tenant_id = ANY ($1) AND closed_at IS NOT NULL
            """,
        configure="SELECT tenancy.configure_tenants($1, $2, $3)",
        close="SELECT tenancy.close_tenants($1)",
        remove="SELECT removed, deleted FROM tenancy.remove_tenants($1, $2)",
        issue="SELECT tenancy.create_login($1, $2, $3, $4)",
    )

    def schema_of(self, tenant_id: str) -> str:  # noqa: ARG002
        """Return the schema in which a tenant's rows are: the same for all."""
        return SCHEMA
