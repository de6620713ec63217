"""SQL about tenants: their records, what they have taken, and what is certified of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from operator import itemgetter
from typing import Any

import asyncpg

from services.tenant.certificates import Certificate
from services.tenant.lifecycle import State, Transition
from shared.contracts.tenant import RegisterTenant
from shared.postgres import Connection
from shared.text import name_key

Terms = Mapping[str, Any]
"""What workflows change of a tenant, or a part of it, as JSON by the names of the columns: view ``tenant_terms``."""

# What a reader sees of a tenant; a statement continues after its FROM.
_TENANT = """
    SELECT tenant.tenant_id, tenant.customer_name, tenant.tier, tenant.state, tenant.email, tenant.phone,
           tenant.address, tenant.expiration, tenant.tags, tenant.attributes, tenant.version, tenant.created_at,
           tenant.tier_meaning ->> 'isolation' AS isolation,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'version', tenant_product.version)
                                      ORDER BY product), '[]')
            FROM tenant_product WHERE tenant_product.tenant_id = tenant.tenant_id) AS products
    FROM tenant
"""

# One statement for a whole batch: read the asks, judge each against the catalog, then insert what may be inserted.
_REGISTER = """
    WITH ask AS (
        SELECT * FROM ROWS FROM (jsonb_to_recordset($1) AS (
            tenant_id text, customer_name text, name_key text, tier text, products jsonb, email text, phone text,
            address text, region text, expiration date, tags jsonb, attributes jsonb
        )) WITH ORDINALITY AS ask (
            tenant_id, customer_name, name_key, tier, products, email, phone,
            address, region, expiration, tags, attributes, position
        )
    ), judged AS MATERIALIZED (  -- or each use of the refusal would work it out again
        SELECT ask.*, meaning(offer) AS tier_meaning,
               (SELECT coalesce(jsonb_object_agg(given.name, meaning(given)), '{}')
                FROM jsonb_to_recordset(ask.products) AS wanted (name text)
                JOIN product AS given ON given.name = wanted.name) AS product_meanings,
               CASE WHEN offer.name IS NULL THEN 'unknown_tier'
                    WHEN EXISTS (
                        SELECT FROM jsonb_to_recordset(ask.products) AS wanted (name text, version text)
                        LEFT JOIN offered_version AS offered
                            ON offered.product = wanted.name AND offered.version = wanted.version
                        WHERE offered.product IS NULL
                    ) THEN 'unknown_product'
                    WHEN EXISTS (
                        SELECT FROM jsonb_to_recordset(ask.products) AS wanted (name text)
                        GROUP BY name HAVING count(*) > 1
                    ) THEN 'duplicate_product'
               END AS refusal
        FROM ask LEFT JOIN tier AS offer ON offer.name = ask.tier AND offer.retired_at IS NULL
    ), ranked AS (
        SELECT *, refusal IS NULL
                  AND row_number() OVER (PARTITION BY refusal IS NULL, tenant_id ORDER BY position) = 1 AS is_first
        FROM judged
    ), registered AS (
        INSERT INTO tenant (tenant_id, customer_name, name_key, tier, tier_meaning, email, phone, address, region,
                            expiration, tags, attributes, created_at, updated_at)
        SELECT tenant_id, customer_name, name_key, tier, tier_meaning, email, phone, address, region,
               expiration, tags, attributes, $2, $2
        FROM ranked WHERE is_first
        ORDER BY name_key, position  -- concurrent batches wait for each other's names in one order
        ON CONFLICT DO NOTHING       -- the first keeps the name; a transaction in progress is waited for
        RETURNING tenant_id, version
    ), taken AS (
        INSERT INTO tenant_product (tenant_id, product, version, meaning)
        SELECT tenant_id, wanted.name, wanted.version, ranked.product_meanings -> wanted.name
        FROM registered
        JOIN ranked USING (tenant_id)
        CROSS JOIN jsonb_to_recordset(ranked.products) AS wanted (name text, version text)
        WHERE ranked.is_first
    )
    SELECT CASE WHEN registered.tenant_id IS NULL THEN coalesce(ranked.refusal, 'name_taken') END AS refusal,
           registered.version, ranked.tier_meaning, ranked.product_meanings
    FROM ranked
    LEFT JOIN registered ON ranked.is_first AND registered.tenant_id = ranked.tenant_id
    ORDER BY position
"""

# Each wish judged against the tenant, the catalog and the other tenants.
_JUDGE = """
    WITH ask AS (
        SELECT * FROM ROWS FROM (jsonb_to_recordset($1) AS (tenant_id text, wanted jsonb))
            WITH ORDINALITY AS ask (tenant_id, wanted, position)
    ), judged AS MATERIALIZED (
        SELECT ask.tenant_id, ask.position, found.state, found.terms,
               found.version + 1 AS version,  -- which the granted one will have
               ask.wanted
               || CASE WHEN offer.name IS NULL THEN '{}'
                       ELSE jsonb_build_object('tier_meaning', meaning(offer))
                  END
               || CASE WHEN NOT ask.wanted ? 'products' THEN '{}'
                       ELSE jsonb_build_object('product_meanings', (  -- of what it has already, what it was given
                           SELECT coalesce(jsonb_object_agg(given.name, coalesce(kept.meaning, meaning(given))), '{}')
                           FROM jsonb_to_recordset(ask.wanted -> 'products') AS chosen (name text)
                           JOIN product AS given ON given.name = chosen.name
                           LEFT JOIN tenant_product AS kept
                               ON kept.tenant_id = ask.tenant_id AND kept.product = given.name
                       ))
                  END AS wanted,
               CASE WHEN found.tenant_id IS NULL THEN 'unknown_tenant'
                    WHEN found.state <> ALL ($2::text[]) THEN 'wrong_state'
                    WHEN ask.wanted ? 'tier' AND offer.name IS NULL THEN 'unknown_tier'
                    WHEN meaning(offer) = found.terms -> 'tier_meaning' THEN 'same_tier'
                    WHEN EXISTS (  -- what it has already it may keep, retired or not
                        SELECT FROM jsonb_to_recordset(ask.wanted -> 'products') AS chosen (name text, version text)
                        LEFT JOIN offered_version AS offered
                            ON offered.product = chosen.name AND offered.version = chosen.version
                        WHERE offered.product IS NULL
                          AND NOT found.terms -> 'products' @> jsonb_build_array(to_jsonb(chosen))
                    ) THEN 'unknown_product'
                    WHEN EXISTS (
                        SELECT FROM jsonb_to_recordset(ask.wanted -> 'products') AS chosen (name text)
                        GROUP BY name HAVING count(*) > 1
                    ) THEN 'duplicate_product'
                    WHEN EXISTS (
                        SELECT FROM tenant AS other
                        WHERE other.name_key = ask.wanted ->> 'name_key' AND other.state <> 'archived'
                          AND other.tenant_id <> ask.tenant_id
                    ) THEN 'name_taken'
               END AS refusal
        FROM ask
        LEFT JOIN tenant_terms AS found USING (tenant_id)
        LEFT JOIN tier AS offer ON offer.name = ask.wanted ->> 'tier' AND offer.retired_at IS NULL
    ), ranked AS (
        SELECT *, row_number() OVER (PARTITION BY refusal IS NULL, wanted ->> 'name_key' ORDER BY position) AS candidate
        FROM judged
    )
    SELECT CASE WHEN refusal IS NULL AND wanted ? 'name_key' AND candidate > 1 THEN 'name_taken'
                ELSE refusal
           END AS refusal,
           state, terms, version, wanted, wanted -> 'tier_meaning' AS tier_meaning
    FROM ranked
    ORDER BY position
"""


async def register(connection: Connection, asks: Sequence[RegisterTenant], *, now: datetime) -> list[asyncpg.Record]:
    """Record every tenant that can be recorded; of two asks for one name the first gets it.

    Returns:
        For each ask, in order: ``refusal`` (None, ``unknown_tier``, ``unknown_product``, ``duplicate_product`` or
        ``name_taken``), the ``tier_meaning`` and, by the names of the products, the ``product_meanings`` that the
        tenant keeps, and the ``version`` of the record.
    """
    return await connection.fetch(
        _REGISTER,
        [ask.model_dump(mode="json") | {"name_key": name_key(ask.customer_name)} for ask in asks],
        now,
    )


async def deregister(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Delete the tenants with what they have taken, in whatever state they are; an archive record stays."""
    await connection.execute(
        """
        WITH doomed AS (
            SELECT tenant_id FROM tenant WHERE tenant_id = ANY ($1::text[]) AND state <> 'archived'
            ORDER BY tenant_id FOR UPDATE
        )
        DELETE FROM tenant USING doomed WHERE tenant.tenant_id = doomed.tenant_id
        """,
        tenant_ids,
    )


async def move(
    connection: Connection, tenant_ids: Sequence[str], transition: Transition, *, now: datetime
) -> list[asyncpg.Record]:
    """Take the transition with every tenant that is in one of its source states.

    Returns:
        For each identity, in order: the ``state`` it was found in, None if there is no such tenant, and whether it
        ``moved``. Where an identity is repeated, the second finds what the first has made of it.
    """
    return await connection.fetch(
        """
        WITH ask AS (
            SELECT tenant_id, position, row_number() OVER (PARTITION BY tenant_id ORDER BY position) > 1 AS repeated
            FROM unnest($1::text[]) WITH ORDINALITY AS ask (tenant_id, position)
        ), found AS (
            SELECT tenant_id, state, state = ANY ($2::text[]) AS ready
            FROM tenant WHERE tenant_id = ANY ($1::text[])
            ORDER BY tenant_id FOR UPDATE  -- concurrent batches wait for each other's rows in one order
        ), moved AS (
            UPDATE tenant SET state = $3, version = version + 1, updated_at = $4
            FROM found WHERE tenant.tenant_id = found.tenant_id AND found.ready
        )
        SELECT CASE WHEN found.ready AND repeated THEN $3 ELSE found.state END AS state,
               coalesce(found.ready AND NOT repeated, false) AS moved
        FROM ask LEFT JOIN found USING (tenant_id)
        ORDER BY position
        """,
        tenant_ids,
        transition.sources,
        transition.target,
        now,
    )


async def lock_tenants(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Keep tenants from being changed by others until the transaction ends; what comes next sees them as they are."""
    await connection.execute(
        "SELECT FROM tenant WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR NO KEY UPDATE", tenant_ids
    )


async def terms(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, Terms]:
    """Find what workflows change of tenants, by their identities."""
    rows = await connection.fetch(
        "SELECT tenant_id, terms FROM tenant_terms WHERE tenant_id = ANY ($1::text[])", tenant_ids
    )
    return {row["tenant_id"]: row["terms"] for row in rows}


async def judge(
    connection: Connection, wanted: Mapping[str, Terms], *, states: Sequence[State]
) -> list[asyncpg.Record]:
    """Tell of each tenant whether it can have what is wanted; of two that want one name the first can.

    Args:
        wanted: the tenant's identity to those of its terms that are to change.
        states: those in which a tenant may be changed.

    Returns:
        For each, in order: ``refusal`` (None, ``unknown_tenant``, ``wrong_state``, ``unknown_tier``, ``same_tier``,
        ``unknown_product``, ``duplicate_product`` or ``name_taken``), ``state`` and ``terms`` as they are, and
        ``wanted`` with the ``tier_meaning`` of a tier and the ``product_meanings`` of products, which those that the
        tenant has already keep; ``version`` is the one that `write_terms` gives it.
    """
    asks = [{"tenant_id": tenant_id, "wanted": terms} for tenant_id, terms in wanted.items()]
    return await connection.fetch(_JUDGE, asks, states)


async def write_terms(connection: Connection, terms: Mapping[str, Terms], *, now: datetime) -> None:
    """Give tenants, which are locked, all of their terms anew.

    Raises:
        asyncpg.UniqueViolationError: another tenant has one of the names, maybe only since a moment ago.
    """
    rows = [{"tenant_id": tenant_id} | dict(each) for tenant_id, each in terms.items()]
    await connection.execute(
        """
        WITH target AS (
            SELECT * FROM jsonb_to_recordset($1) AS target (
                tenant_id text, state text, tier text, tier_meaning jsonb, customer_name text, name_key text,
                expiration date, products jsonb, product_meanings jsonb
            )
        ), given_up AS (
            DELETE FROM tenant_product USING target
            WHERE tenant_product.tenant_id = target.tenant_id
              AND NOT target.products @> jsonb_build_array(jsonb_build_object('name', tenant_product.product))
        ), taken AS (
            INSERT INTO tenant_product (tenant_id, product, version, meaning)
            SELECT target.tenant_id, chosen.name, chosen.version, target.product_meanings -> chosen.name
            FROM target CROSS JOIN jsonb_to_recordset(target.products) AS chosen (name text, version text)
            ON CONFLICT (tenant_id, product) DO UPDATE SET version = excluded.version
                WHERE tenant_product.version <> excluded.version
        )
        UPDATE tenant
        SET state = target.state, tier = target.tier, tier_meaning = target.tier_meaning,
            customer_name = target.customer_name, name_key = target.name_key, expiration = target.expiration,
            version = version + 1, updated_at = $2
        FROM target WHERE tenant.tenant_id = target.tenant_id
        """,
        sorted(rows, key=itemgetter("name_key")),  # concurrent batches wait for each other's names in one order
        now,
    )


async def records(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, asyncpg.Record]:
    """Find what a certificate says of tenants, by their identities; the last two columns are counts."""
    rows = await connection.fetch(
        """
        SELECT tenant_id, state, customer_name, tier, created_at,
               (SELECT count(*) FROM tenant_product WHERE tenant_product.tenant_id = tenant.tenant_id) AS products,
               num_nonnulls(email, phone, address, nullif(tags, '{}'), nullif(attributes, '{}')) AS personal_fields
        FROM tenant WHERE tenant_id = ANY ($1::text[])
        """,
        tenant_ids,
    )
    return {row["tenant_id"]: row for row in rows}


async def archive(connection: Connection, certificates: Sequence[Certificate], *, now: datetime) -> None:
    """Leave of tenants, which are locked and on their way out, the archive record and the certificate."""
    await connection.execute(
        """
        WITH issued AS (
            SELECT * FROM jsonb_to_recordset($1) AS issued (
                tenant_id text, workflow_id text, content jsonb, sha256 text
            )
        ), archived AS (
            UPDATE tenant
            SET state = 'archived', email = NULL, phone = NULL, address = NULL, tags = '{}', attributes = '{}',
                version = version + 1, updated_at = $2
            FROM issued WHERE tenant.tenant_id = issued.tenant_id
        ), given_up AS (
            DELETE FROM tenant_product USING issued WHERE tenant_product.tenant_id = issued.tenant_id
        )
        INSERT INTO certificate (tenant_id, workflow_id, content, sha256, issued_at)
        SELECT tenant_id, workflow_id, content, sha256, $2 FROM issued
        """,
        [asdict(each) for each in certificates],
        now,
    )


async def certificate(connection: Connection, tenant_id: str) -> asyncpg.Record | None:
    """Find the ``content`` and the ``sha256`` of a tenant's certificate, null without one; None without the tenant."""
    return await connection.fetchrow(
        "SELECT content, sha256 FROM tenant LEFT JOIN certificate USING (tenant_id) WHERE tenant_id = $1", tenant_id
    )


async def tenant(connection: Connection, tenant_id: str) -> asyncpg.Record | None:
    """Find one tenant by its identity."""
    return await connection.fetchrow(_TENANT + "WHERE tenant.tenant_id = $1", tenant_id)


async def tenant_named(
    connection: Connection, customer_name: str, *, within: str | None = None
) -> asyncpg.Record | None:
    """Find the tenant that holds a customer's name now, if it is the tenant ``within``; archived ones hold none."""
    return await connection.fetchrow(
        _TENANT
        + """
        WHERE tenant.name_key = $1 AND tenant.state <> 'archived' AND ($2::text IS NULL OR tenant.tenant_id = $2)
        """,
        name_key(customer_name),
        within,
    )


async def tenants(
    connection: Connection, *, after: str, limit: int, text: str | None, state: str | None, tier: str | None
) -> list[asyncpg.Record]:
    """List the tenants that come after an identity, in the order of creation; ``text`` is a part of their names."""
    return await connection.fetch(
        _TENANT
        + """
        WHERE tenant.tenant_id > $1
          AND ($3::text IS NULL OR strpos(tenant.name_key, $3) > 0)
          AND ($4::text IS NULL OR tenant.state = $4)
          AND ($5::text IS NULL OR tenant.tier = $5)
        ORDER BY tenant.tenant_id LIMIT $2
        """,
        after,
        limit,
        text and name_key(text),
        state,
        tier,
    )


async def lock_tenant(connection: Connection, tenant_id: str) -> asyncpg.Record | None:
    """Keep a tenant from being changed by others until the transaction ends; tell its ``state`` and ``version``."""
    return await connection.fetchrow(
        "SELECT state, version FROM tenant WHERE tenant_id = $1 FOR NO KEY UPDATE", tenant_id
    )


async def change_details(
    connection: Connection, tenant_id: str, changes: Mapping[str, object], *, now: datetime
) -> None:
    """Change any of email, phone, address, tags and attributes; those that are not named stay as they are."""
    await connection.execute(
        """
        UPDATE tenant
        SET (email, phone, address, tags, attributes) = (
                SELECT changed.email, changed.phone, changed.address, changed.tags, changed.attributes
                FROM jsonb_populate_record(tenant, $2) AS changed
            ),
            version = version + 1, updated_at = $3
        WHERE tenant_id = $1
        """,
        tenant_id,
        changes,
        now,
    )


async def tier_meanings(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return the ``version`` and the ``tier_meaning`` of tenants, those that there are."""
    return await connection.fetch(
        "SELECT tenant_id, version, tier_meaning FROM tenant WHERE tenant_id = ANY ($1::text[])", tenant_ids
    )
