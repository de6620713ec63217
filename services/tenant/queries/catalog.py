"""SQL about tiers, products and their versions. The schema's triggers advance the catalog's revision."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg

from shared.postgres import Connection

# A product with the versions that can be taken; a statement continues after its FROM.
_PRODUCT = """
    SELECT product.name, product.description, product.plan, product.isolation, product.driver, product.region,
           product.parameters, product.edition, product.created_at, product.retired_at,
           (SELECT coalesce(array_agg(version ORDER BY number), '{}')
            FROM offered_version WHERE offered_version.product = product.name) AS versions
    FROM product
"""


async def lock(connection: Connection) -> None:
    """Keep the catalog from being changed by others until the transaction ends; everybody can read it."""
    await connection.execute("SELECT FROM catalog FOR NO KEY UPDATE")


async def published(connection: Connection) -> asyncpg.Record:
    """Return the catalog of what can be taken: ``revision``, ``tiers``, ``default_tier`` and ``products``."""
    row = await connection.fetchrow(
        """
        SELECT revision,
               (SELECT coalesce(array_agg(name ORDER BY rank), '{}') FROM tier WHERE retired_at IS NULL) AS tiers,
               (SELECT name FROM tier WHERE is_default) AS default_tier,
               (SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'versions', versions)), '[]')
                FROM (SELECT product, jsonb_agg(version ORDER BY number) AS versions
                      FROM offered_version GROUP BY product ORDER BY product) AS offered) AS products
        FROM catalog
        """
    )
    assert row is not None  # the migration wrote the one row there is
    return row


async def tiers(connection: Connection, *, after: int, limit: int) -> list[asyncpg.Record]:
    """List the tiers above the rank ``after``, from the smallest to the largest, retired ones included."""
    return await connection.fetch("SELECT * FROM tier WHERE rank > $1 ORDER BY rank LIMIT $2", after, limit)


async def tier(connection: Connection, name: str) -> asyncpg.Record | None:
    """Find one tier by its name, retired or not."""
    return await connection.fetchrow("SELECT * FROM tier WHERE name = $1", name)


async def tier_ranked(connection: Connection, rank: int) -> str | None:
    """Return the name of the tier that has a rank, retired or not."""
    name: str | None = await connection.fetchval("SELECT name FROM tier WHERE rank = $1", rank)
    return name


async def add_tier(connection: Connection, details: Mapping[str, Any], *, now: datetime) -> asyncpg.Record:
    """Add a tier whose name and rank nobody has; ``details`` are all of it, by the names of the columns."""
    row = await connection.fetchrow(
        """
        INSERT INTO tier (name, rank, plan, quotas, isolation, connections, requests_per_second, requests_per_day,
                          driver, region, parameters, is_default, created_at)
        SELECT name, rank, plan, quotas, isolation, connections, requests_per_second, requests_per_day,
               driver, region, parameters, is_default, $2
        FROM jsonb_populate_record(NULL::tier, $1)
        RETURNING *
        """,
        details,
        now,
    )
    assert row is not None
    return row


async def change_tier(connection: Connection, name: str, details: Mapping[str, Any]) -> asyncpg.Record:
    """Change a tier that there is; what ``details`` do not name stays as it is."""
    row = await connection.fetchrow(
        """
        UPDATE tier
        SET (rank, plan, quotas, isolation, connections, requests_per_second, requests_per_day,
             driver, region, parameters, is_default) = (
                SELECT changed.rank, changed.plan, changed.quotas, changed.isolation, changed.connections,
                       changed.requests_per_second, changed.requests_per_day,
                       changed.driver, changed.region, changed.parameters, changed.is_default
                FROM jsonb_populate_record(tier, $2) AS changed
            ),
            edition = edition + 1
        WHERE name = $1
        RETURNING *
        """,
        name,
        details,
    )
    assert row is not None
    return row


async def take_default(connection: Connection) -> str | None:
    """Let no tier be the default, and return the name of the one that was; another is to be it in this transaction."""
    name: str | None = await connection.fetchval(
        "UPDATE tier SET is_default = false, edition = edition + 1 WHERE is_default RETURNING name"
    )
    return name


async def retire_tier(connection: Connection, name: str, *, at: datetime | None) -> asyncpg.Record:
    """Let a tier that there is not be taken from a time on, or let it be taken again."""
    row = await connection.fetchrow(
        "UPDATE tier SET retired_at = $2, edition = edition + 1 WHERE name = $1 RETURNING *", name, at
    )
    assert row is not None
    return row


async def products(connection: Connection, *, after: str, limit: int) -> list[asyncpg.Record]:
    """List products by name, retired ones included, each with its ``versions`` that can be taken."""
    return await connection.fetch(_PRODUCT + "WHERE product.name > $1 ORDER BY product.name LIMIT $2", after, limit)


async def product(connection: Connection, name: str) -> asyncpg.Record | None:
    """Find one product by its name, retired or not, with its ``versions`` that can be taken."""
    return await connection.fetchrow(_PRODUCT + "WHERE product.name = $1", name)


async def add_product(connection: Connection, details: Mapping[str, Any], *, now: datetime) -> None:
    """Add a product whose name nobody has; ``details`` are all of it, by the names of the columns."""
    await connection.execute(
        """
        INSERT INTO product (name, description, plan, isolation, driver, region, parameters, created_at)
        SELECT name, description, plan, isolation, driver, region, parameters, $2
        FROM jsonb_populate_record(NULL::product, $1)
        """,
        details,
        now,
    )


async def change_product(connection: Connection, name: str, details: Mapping[str, Any]) -> None:
    """Change a product; what ``details`` do not name stays as it is."""
    await connection.execute(
        """
        UPDATE product
        SET (description, plan, isolation, driver, region, parameters) = (
                SELECT changed.description, changed.plan, changed.isolation, changed.driver, changed.region,
                       changed.parameters
                FROM jsonb_populate_record(product, $2) AS changed
            ),
            edition = edition + 1
        WHERE name = $1
        """,
        name,
        details,
    )


async def retire_product(connection: Connection, name: str, *, at: datetime | None) -> None:
    """Let a product not be taken from a time on, or let it be taken again."""
    await connection.execute("UPDATE product SET retired_at = $2, edition = edition + 1 WHERE name = $1", name, at)


async def product_versions(connection: Connection, product: str, *, after: int, limit: int) -> list[asyncpg.Record]:
    """List the versions of a product in the order of their publication, retired ones included."""
    return await connection.fetch(
        """
        SELECT number, version, created_at, retired_at FROM product_version
        WHERE product = $1 AND number > $2 ORDER BY number LIMIT $3
        """,
        product,
        after,
        limit,
    )


async def product_version(connection: Connection, product: str, version: str) -> asyncpg.Record | None:
    """Find one version of a product, retired or not."""
    return await connection.fetchrow(
        "SELECT * FROM product_version WHERE product = $1 AND version = $2", product, version
    )


async def add_version(connection: Connection, product: str, version: str, *, now: datetime) -> asyncpg.Record:
    """Add a version that a product does not have, which is a new edition of the product."""
    row = await connection.fetchrow(
        """
        WITH published AS (UPDATE product SET edition = edition + 1 WHERE name = $1)
        INSERT INTO product_version (product, version, created_at) VALUES ($1, $2, $3) RETURNING *
        """,
        product,
        version,
        now,
    )
    assert row is not None
    return row


async def retire_version(connection: Connection, product: str, version: str, *, at: datetime | None) -> asyncpg.Record:
    """Let a version that there is not be taken from a time on, or let it be taken again; likewise."""
    row = await connection.fetchrow(
        """
        WITH published AS (UPDATE product SET edition = edition + 1 WHERE name = $1)
        UPDATE product_version SET retired_at = $3 WHERE product = $1 AND version = $2 RETURNING *
        """,
        product,
        version,
        at,
    )
    assert row is not None
    return row
