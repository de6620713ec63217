"""Pooled tenants in one Postgres database, parted by row-level security.

All SQL on that database is here and in ``application/``.
"""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from services.provisioning.drivers.port import Login, NoEnvironmentError
from services.provisioning.drivers.scram import scram_verifier
from shared.clock import Clock
from shared.postgres import Pool, migrate

LIFETIME = timedelta(minutes=15)
"""How long a login is valid: the shortest that AWS gives a session of an assumed role."""

_MIGRATIONS = Path(__file__).resolve().parent.parent / "application"
_DEFAULT_PORT = 5432


async def install(url: str) -> list[str]:
    """Bring the application database up to the schema that the driver needs.

    Args:
        url: a login that owns the database and may make roles.

    Returns:
        The names of the migrations that were applied by this call.

    Raises:
        MigrationError: see `shared.postgres.migrate`.
    """
    return await migrate(url, [_MIGRATIONS])


class PostgresPool:
    """The `PoolDriver` for Postgres: a tenant is a row in ``tenancy.tenant``, and all its rows hang on that one.

    Args:
        pool: connections of the login that owns the application database.
        url: where tenants reach that database; only host, port and database are taken from it.
    """

    def __init__(self, pool: Pool, *, url: str, clock: Clock) -> None:
        self._pool = pool
        self._address = urlsplit(url)
        self._clock = clock

    async def provision(self, tenant_ids: Sequence[str]) -> None:
        """Make a partition for each tenant, in one statement."""
        await self._pool.execute(
            """
            INSERT INTO tenancy.tenant (tenant_id)
            SELECT DISTINCT tenant_id FROM unnest($1::text[]) AS wanted (tenant_id) ORDER BY tenant_id
            ON CONFLICT DO NOTHING
            """,
            tenant_ids,
        )

    async def deprovision(self, tenant_ids: Sequence[str]) -> None:
        """Close the door, put out who is inside, then clear the rooms; each is committed before the next.

        In one transaction it could wait for ever on rows that a session of the tenant's has locked.
        """
        await self._pool.execute("SELECT tenancy.close_tenants($1)", tenant_ids)
        await self.sweep_logins()
        await self._pool.execute(
            """
            WITH doomed AS (
                SELECT tenant_id FROM tenancy.tenant WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE
            )
            DELETE FROM tenancy.tenant USING doomed WHERE tenant.tenant_id = doomed.tenant_id
            """,
            tenant_ids,
        )

    async def issue_login(self, tenant_id: str) -> Login:
        """Make a new login of the tenant's, valid for `LIFETIME`.

        Raises:
            NoEnvironmentError: the tenant has no partition.
        """
        login = Login(
            driver="postgres",
            host=self._address.hostname or "localhost",
            port=self._address.port or _DEFAULT_PORT,
            database=self._address.path.removeprefix("/"),
            username=f"tenant_{secrets.token_hex(8)}",
            password=secrets.token_urlsafe(24),
            expires_at=self._clock.now() + LIFETIME,
        )
        created = await self._pool.fetchval(
            "SELECT tenancy.create_login($1, $2, $3, $4)",
            login.username,
            tenant_id,
            scram_verifier(login.password),
            login.expires_at,
        )
        if not created:
            raise NoEnvironmentError(tenant_id)
        return login

    async def sweep_logins(self) -> int:
        """Remove expired logins, ending what sessions they still have, and return how many there were."""
        swept: int = await self._pool.fetchval("SELECT tenancy.sweep_logins()")
        return swept
