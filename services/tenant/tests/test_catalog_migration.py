"""What becomes of the catalog, and of tenants, when the schema of the release before is brought up to date."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest

from deploy.databases import DatabaseUrls
from deploy.local.throwaway import FreshDatabases
from shared.postgres import migrate, service_migrations

TIERS, PRODUCTS = "0005_catalog.sql", "0006_products.sql"
"""The migrations that changed the catalog."""


class Installation:
    """A database as the release before has left it."""

    def __init__(self, urls: DatabaseUrls, folder: Path) -> None:
        self._urls = urls
        self._folder = folder

    async def prepare(self, before: str) -> None:
        """Have all migrations before one."""
        (self._folder).mkdir(parents=True)
        for path in _own():
            if path.name < before:
                shutil.copy(path, self._folder)
        await self._migrate()

    async def upgrade(self, last: str = TIERS) -> None:
        """Have one more migration."""
        shutil.copy(next(path for path in _own() if path.name == last), self._folder)
        await self._migrate()

    async def sql(self, statement: str) -> Sequence[asyncpg.Record]:
        """Do something as the owner."""
        connection = await asyncpg.connect(self._urls.owner)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    async def _migrate(self) -> None:
        kernel, _ = service_migrations("tenant")
        await migrate(self._urls.owner, [kernel, self._folder])


def _own() -> list[Path]:
    _, own = service_migrations("tenant")
    return sorted(own.glob("*.sql"))


@pytest.fixture
async def installation(fresh_database: FreshDatabases, tmp_path: Path) -> Installation:
    made = Installation(await fresh_database.urls("kernel"), tmp_path / "tenant" / "migrations")
    await made.prepare(TIERS)
    return made


async def isolations(installation: Installation) -> list[str]:
    return [row["isolation"] for row in await installation.sql("SELECT isolation FROM tier ORDER BY rank")]


async def test_a_new_installation_isolates_its_tiers(installation: Installation) -> None:
    await installation.upgrade()

    assert await isolations(installation) == ["pool", "bridge", "silo"]


async def test_one_that_has_tenants_keeps_its_catalog_and_gives_them_what_their_tiers_mean(
    installation: Installation,
) -> None:
    await installation.sql("UPDATE tier SET quotas = '{}' WHERE name = 'premium'")
    await installation.sql(
        """
        INSERT INTO tenant (tenant_id, customer_name, name_key, tier, state, email, created_at, updated_at)
        SELECT tier, tier, tier, tier, state, email, now(), now()
        FROM (VALUES ('free', 'active', 'ada@example.com'), ('premium', 'archived', NULL)) AS old (tier, state, email)
        """
    )

    await installation.upgrade()

    assert await isolations(installation) == ["pool", "pool", "pool"]
    rows = await installation.sql(
        """
        SELECT tenant_id, version, tier_meaning ->> 'plan' AS plan, tier_meaning ->> 'isolation' AS isolation,
               tier_meaning ->> 'quotas' AS quotas, tier_meaning ->> 'driver' AS driver
        FROM tenant ORDER BY tenant_id
        """
    )
    assert [tuple(row) for row in rows] == [
        ("free", 1, "free", "pool", '{"seats": 3, "api_calls": 10000, "storage_gb": 1}', "postgres"),
        ("premium", 1, "premium", "pool", "{}", "postgres"),
    ]


REGISTERED = """
    INSERT INTO tenant (tenant_id, customer_name, name_key, tier, state, email, created_at, updated_at)
    VALUES ('t1', 'Acme', 'acme', 'free', 'active', 'ada@example.com', now(), now())
"""
TAKEN = "INSERT INTO tenant_product (tenant_id, product, version) VALUES ('t1', 'notes', '1.0')"
"""What the release before 0006 writes for a tenant that takes a product."""
CHANGED = f"{TAKEN} ON CONFLICT (tenant_id, product) DO UPDATE SET version = excluded.version"
MEANT = "SELECT version, meaning ->> 'plan' AS plan, meaning ->> 'driver' AS driver FROM tenant_product"


async def test_who_has_a_product_keeps_what_it_meant_before_products_could_mean_anything(
    installation: Installation,
) -> None:
    await installation.upgrade(TIERS)
    await installation.sql(REGISTERED)
    await installation.sql(TAKEN.replace("1.0", "2.0"))
    written = await installation.sql("SELECT xmin FROM tenant_product")

    await installation.upgrade(PRODUCTS)
    await installation.sql("UPDATE product SET plan = 'standard', driver = 'script'")

    assert [tuple(row) for row in await installation.sql(MEANT)] == [("2.0", None, "postgres")]
    assert await installation.sql("SELECT xmin FROM tenant_product") == written, "the table is not rewritten"
    await installation.sql(CHANGED)
    assert [tuple(row) for row in await installation.sql(MEANT)] == [("1.0", None, "postgres")]


async def test_code_of_the_release_before_gives_a_tenant_what_its_product_means_now(installation: Installation) -> None:
    await installation.upgrade(TIERS)
    await installation.upgrade(PRODUCTS)
    await installation.sql(REGISTERED)
    await installation.sql("UPDATE product SET plan = 'standard', driver = 'script'")

    await installation.sql(TAKEN)

    assert [tuple(row) for row in await installation.sql(MEANT)] == [("1.0", "standard", "script")]
