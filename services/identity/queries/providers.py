"""SQL about tenants' identity providers: what they are, whose addresses they vouch for, and who is who there."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from shared.postgres import Connection

_PROFILE = """
    SELECT provider.*, pool_id, provider_pool.client_id AS pool_client_id,
           ARRAY (SELECT domain FROM identity_provider_domain AS domain
                  WHERE domain.tenant_id = provider.tenant_id ORDER BY domain) AS domains
    FROM identity_provider AS provider LEFT JOIN provider_pool USING (tenant_id)
"""


async def one(connection: Connection, tenant_id: str) -> asyncpg.Record | None:
    """Return a tenant's own provider with its ``domains``, and the ids of its pool; None where it has none."""
    return await connection.fetchrow(f"{_PROFILE} WHERE tenant_id = $1", tenant_id)


async def page(connection: Connection, *, after: str, limit: int) -> list[asyncpg.Record]:
    """Return the next ``limit`` of them by tenant, those after ``after``."""
    return await connection.fetch(f"{_PROFILE} WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2", after, limit)


async def of_domain(connection: Connection, domain: str) -> str | None:
    """Return the tenant whose provider vouches for the addresses of a domain."""
    tenant_id: str | None = await connection.fetchval(
        "SELECT tenant_id FROM identity_provider_domain WHERE domain = $1", domain
    )
    return tenant_id


async def is_any(connection: Connection) -> bool:
    """Return whether any tenant has a provider of its own that somebody can be sent to."""
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM identity_provider WHERE kind = 'oidc')"))


async def put(connection: Connection, provider: Mapping[str, Any]) -> None:
    """Let this be a tenant's own provider, whose members are locked."""
    await connection.execute(
        """
        INSERT INTO identity_provider (tenant_id, kind, is_required, admits, issuer, client_id, client_secret, pool,
                                       changed_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (tenant_id) DO UPDATE
            SET kind = excluded.kind, is_required = excluded.is_required, admits = excluded.admits,
                issuer = excluded.issuer, client_id = excluded.client_id, client_secret = excluded.client_secret,
                pool = excluded.pool, changed_at = excluded.changed_at
        """,
        *(
            provider.get(name)
            for name in (
                "tenant_id",
                "kind",
                "is_required",
                "admits",
                "issuer",
                "client_id",
                "client_secret",
                "pool",
                "changed_at",
            )
        ),
    )


async def put_cognito(connection: Connection, pools: Mapping[str, str], *, now: datetime) -> None:
    """Let the people of new tenants be in Cognito, by the kind of pool; a provider that is there already stays."""
    await connection.execute(
        """
        INSERT INTO identity_provider (tenant_id, kind, is_required, admits, pool, changed_at)
        SELECT tenant_id, 'cognito', true, 'members', pool, $3
        FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, pool) ORDER BY tenant_id
        ON CONFLICT DO NOTHING
        """,
        list(pools),
        list(pools.values()),
        now,
    )
    await want_pools(connection, [tenant_id for tenant_id, pool in pools.items() if pool == "own"])


async def want_pools(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Have a pool made for each of these tenants that has none."""
    await connection.execute(
        """
        INSERT INTO provider_pool (tenant_id) SELECT unnest($1::text[]) AS tenant_id ORDER BY tenant_id
        ON CONFLICT DO NOTHING
        """,
        tenant_ids,
    )


async def delete(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Forget the providers of tenants; what they keep there for us is deleted by who looks after that."""
    await connection.execute(
        """
        WITH locked AS (
            SELECT tenant_id FROM identity_provider WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE
        )
        DELETE FROM identity_provider USING locked WHERE identity_provider.tenant_id = locked.tenant_id
        """,
        tenant_ids,
    )


async def lock_domains(connection: Connection) -> None:
    """Wait until nobody else says whose domains are whose, and let nobody until the commit."""
    await connection.execute("LOCK identity_provider_domain IN SHARE ROW EXCLUSIVE MODE")


async def taken_domain(connection: Connection, domains: Sequence[str], *, but: str) -> str | None:
    """Return a domain among these that is another tenant's."""
    domain: str | None = await connection.fetchval(
        """
        SELECT domain FROM identity_provider_domain WHERE domain = ANY ($1::text[]) AND tenant_id <> $2
        ORDER BY domain LIMIT 1
        """,
        domains,
        but,
    )
    return domain


async def set_domains(connection: Connection, tenant_id: str, domains: Sequence[str]) -> None:
    """Let a tenant's provider vouch for these domains and no others."""
    await connection.execute(
        "DELETE FROM identity_provider_domain WHERE tenant_id = $1 AND domain <> ALL ($2::text[])", tenant_id, domains
    )
    await connection.execute(
        """
        INSERT INTO identity_provider_domain (domain, tenant_id) SELECT unnest($2::text[]), $1 ON CONFLICT DO NOTHING
        """,
        tenant_id,
        domains,
    )


async def password_realm(connection: Connection, user_id: UUID, tenant_id: str | None) -> str | None:
    """Return the realm whose password a user types: that of where it wants to go, or of where it was last.

    None where it is a member of nothing that goes by passwords.
    """
    realm: str | None = await connection.fetchval(
        """
        SELECT CASE WHEN way = 'cognito' THEN tenant_id ELSE '' END
        FROM (
            SELECT user_id, tenant_id, created_at,
                   -- One look for each membership: a join would read all providers once there are many.
                   (SELECT CASE WHEN kind = 'oidc' AND NOT is_required THEN '' ELSE kind END
                    FROM identity_provider AS provider WHERE provider.tenant_id = membership.tenant_id) AS way
            FROM membership WHERE user_id = $1 AND ($2::text IS NULL OR tenant_id = $2)
        ) AS membership
        WHERE way IS DISTINCT FROM 'oidc'
        ORDER BY (SELECT max(session.refreshed_at) FROM session
                  WHERE session.user_id = membership.user_id AND session.tenant_id = membership.tenant_id)
                 DESC NULLS LAST, membership.created_at, tenant_id
        LIMIT 1
        """,
        user_id,
        tenant_id,
    )
    return realm


async def required_kind(connection: Connection, tenant_id: str) -> str | None:
    """Return the kind of provider that a tenant goes by alone; None where passwords of ours open it."""
    kind: str | None = await connection.fetchval(
        "SELECT kind FROM identity_provider WHERE tenant_id = $1 AND is_required", tenant_id
    )
    return kind


async def is_in_cognito(connection: Connection, tenant_id: str) -> bool:
    """Return whether a tenant's people are in Cognito."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM identity_provider WHERE tenant_id = $1 AND kind = 'cognito')", tenant_id
        )
    )


async def password_realm_of_session(connection: Connection, session_id: UUID) -> str:
    """Return the realm whose password the user of a session has: Cognito's, if it has got in by that, else ours."""
    realm: str | None = await connection.fetchval(
        """
        SELECT realm FROM session JOIN identity_provider AS provider ON provider.tenant_id = realm
        WHERE session_id = $1 AND kind = 'cognito'
        """,
        session_id,
    )
    return realm or ""


async def account(connection: Connection, tenant_id: str, user_id: UUID) -> asyncpg.Record | None:
    """Return who a user is at its tenant's provider, as far as is known."""
    return await connection.fetchrow(
        "SELECT * FROM provider_account WHERE tenant_id = $1 AND user_id = $2", tenant_id, user_id
    )


async def user_of(connection: Connection, tenant_id: str, subject: str) -> UUID | None:
    """Return the member whom a tenant's provider calls so."""
    user_id: UUID | None = await connection.fetchval(
        "SELECT member_id FROM provider_account WHERE tenant_id = $1 AND subject = $2", tenant_id, subject
    )
    return user_id


async def link(
    connection: Connection, tenant_id: str, user_id: UUID, *, kind: str, subject: str, now: datetime
) -> asyncpg.Record | None:
    """Write down who a member, whose user is locked, is at the provider, and return what stands then.

    Whoever is written down already stays what it is there, and is a member again if it was none. None where the subject
    is another user's.
    """
    await connection.execute(
        """
        INSERT INTO provider_account (tenant_id, user_id, member_id, kind, subject, linked_at)
        VALUES ($1, $2, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING
        """,
        tenant_id,
        user_id,
        kind,
        subject,
        now,
    )
    return await connection.fetchrow(
        """
        UPDATE provider_account SET member_id = $2, attempts = 0, linked_at = $3
        WHERE tenant_id = $1 AND user_id = $2 AND NOT is_deleting
        RETURNING kind, subject
        """,
        tenant_id,
        user_id,
        now,
    )


async def unlink(connection: Connection, tenant_id: str) -> None:
    """Forget who is who at a tenant's provider, where the accounts are not ours to keep."""
    await connection.execute("DELETE FROM provider_account WHERE tenant_id = $1 AND kind = 'oidc'", tenant_id)


async def has_anybody_entered(connection: Connection, tenant_id: str) -> bool:
    """Return whether a member of a tenant has accepted its invitation, or needed none."""
    return bool(
        await connection.fetchval(
            """
            SELECT EXISTS (SELECT FROM membership LEFT JOIN invitation USING (tenant_id, user_id)
                           WHERE tenant_id = $1 AND (invitation_id IS NULL OR accepted_at IS NOT NULL))
            """,
            tenant_id,
        )
    )


async def has_anybody_come(connection: Connection, tenant_id: str) -> bool:
    """Return whether a member of a tenant has signed in at the tenant's own provider."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM provider_account WHERE tenant_id = $1 AND kind = 'oidc')", tenant_id
        )
    )
