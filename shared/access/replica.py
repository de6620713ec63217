"""What every service knows of identity: public keys, revocations and API keys, told by facts and kept in its database.

Facts may arrive late, twice or in another order: what is newer, by epoch or revision, stays.
"""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from shared.contracts import identity
from shared.contracts.base import INSTALLATION, Fact
from shared.messaging.subscriptions import Subscriptions, hear
from shared.postgres import Connection


async def keep_signing_keys(connection: Connection, facts: Sequence[identity.SigningKeyPublished]) -> Sequence[Fact]:
    """Know these public keys from now on; a key never changes, only how long it is needed."""
    await connection.execute(
        """
        INSERT INTO access_signing_key (key_id, public_key, forget_at)
        SELECT key_id, (array_agg(public_key))[1], max(forget_at)
        FROM unnest($1::text[], $2::jsonb[], $3::timestamptz[]) AS told (key_id, public_key, forget_at)
        GROUP BY key_id ORDER BY key_id
        ON CONFLICT (key_id) DO UPDATE SET forget_at = greatest(access_signing_key.forget_at, excluded.forget_at)
        """,
        [fact.key_id for fact in facts],
        [fact.public_key for fact in facts],
        [fact.expires_at for fact in facts],
    )
    return []


async def keep_tenant_access(connection: Connection, facts: Sequence[identity.TenantAccessChanged]) -> Sequence[Fact]:
    """Know what became of access to these tenants; of those that were purged the API keys go too."""
    await connection.execute(
        """
        WITH told AS (
            SELECT DISTINCT ON (tenant_id) *
            FROM unnest($1::text[], $2::bigint[], $3::boolean[], $4::timestamptz[])
                AS told (tenant_id, epoch, is_blocked, forget_at)
            ORDER BY tenant_id, epoch DESC
        ), purged AS (
            UPDATE access_api_key SET secrets = '[]', forget_at = told.forget_at
            FROM told WHERE access_api_key.tenant_id = told.tenant_id AND told.forget_at IS NOT NULL
        )
        INSERT INTO access_tenant (tenant_id, epoch, is_blocked, forget_at)
        SELECT tenant_id, epoch, is_blocked, forget_at FROM told ORDER BY tenant_id
        ON CONFLICT (tenant_id) DO UPDATE
            SET epoch = excluded.epoch, is_blocked = excluded.is_blocked, forget_at = excluded.forget_at
            WHERE access_tenant.epoch < excluded.epoch
        """,
        [fact.tenant_id for fact in facts],
        [fact.epoch for fact in facts],
        [fact.is_blocked for fact in facts],
        [fact.forget_at for fact in facts],
    )
    return []


async def keep_revoked_sessions(connection: Connection, facts: Sequence[identity.SessionsRevoked]) -> Sequence[Fact]:
    """Know that these sessions are over."""
    await connection.execute(
        """
        INSERT INTO access_revoked_session (session_id, forget_at)
        SELECT session_id, max(forget_at) FROM unnest($1::text[], $2::timestamptz[]) AS told (session_id, forget_at)
        GROUP BY session_id ORDER BY session_id
        ON CONFLICT (session_id) DO NOTHING
        """,
        [session_id for fact in facts for session_id in fact.session_ids],
        [fact.forget_at for fact in facts for _ in fact.session_ids],
    )
    return []


async def keep_api_keys(connection: Connection, facts: Sequence[identity.ApiKeyChanged]) -> Sequence[Fact]:
    """Know what became of these API keys; one of a purged tenant stays forgotten."""
    await connection.execute(
        """
        INSERT INTO access_api_key (key_id, tenant_id, revision, role, scopes, secrets, forget_at)
        SELECT DISTINCT ON (key_id) key_id, told.tenant_id, revision, role, scopes,
               CASE WHEN access_tenant.forget_at IS NULL THEN secrets ELSE '[]' END,
               coalesce(access_tenant.forget_at, told.forget_at)
        FROM jsonb_to_recordset($1) AS told (
            key_id text, tenant_id text, revision bigint, role text, scopes text[], secrets jsonb,
            forget_at timestamptz)
        LEFT JOIN access_tenant USING (tenant_id)
        ORDER BY key_id, revision DESC
        ON CONFLICT (key_id) DO UPDATE
            SET revision = excluded.revision, role = excluded.role, scopes = excluded.scopes,
                secrets = excluded.secrets, forget_at = excluded.forget_at
            WHERE access_api_key.revision < excluded.revision
        """,
        [_api_key_row(fact) for fact in facts],
    )
    return []


def _api_key_row(fact: identity.ApiKeyChanged) -> dict[str, object]:
    return {
        "key_id": fact.key_id,
        "tenant_id": None if fact.tenant_id == INSTALLATION else fact.tenant_id,
        "revision": fact.revision,
        "role": fact.role,
        "scopes": fact.scopes,
        "secrets": [secret.model_dump(mode="json", by_alias=True) for secret in fact.secrets],
        "forget_at": fact.forget_at,
    }


async def forget(connection: Connection, *, now: datetime) -> None:
    """Delete what is needed no longer."""
    for table in ("access_signing_key", "access_tenant", "access_revoked_session", "access_api_key"):
        await connection.execute(f"DELETE FROM {table} WHERE forget_at <= $1", now)  # noqa: S608 - names of our own


async def signing_keys(connection: Connection) -> list[asyncpg.Record]:
    """Return every public key that is known."""
    return await connection.fetch("SELECT key_id, public_key, forget_at FROM access_signing_key")


async def standing(
    connection: Connection, *, session_id: str, tenant_id: str | None, key_id: str | None
) -> asyncpg.Record:
    """Return whether a session, or the API key that a token is for, is over, and epoch and block of the tenant."""
    row = await connection.fetchrow(
        """
        SELECT EXISTS (SELECT FROM access_revoked_session WHERE session_id = $1)
               OR $3::text IS NOT NULL
                  AND NOT EXISTS (SELECT FROM access_api_key WHERE key_id = $3 AND access_api_key.forget_at IS NULL)
               AS is_revoked,
               coalesce(epoch, 0) AS epoch, coalesce(is_blocked, false) AS is_blocked
        FROM (SELECT $2::text AS tenant_id) AS asked LEFT JOIN access_tenant USING (tenant_id)
        """,
        session_id,
        tenant_id,
        key_id,
    )
    assert row is not None
    return row


async def api_key(connection: Connection, key_id: str) -> asyncpg.Record | None:
    """Return an API key with whether its tenant is blocked, if there is one."""
    return await connection.fetchrow(
        """
        SELECT key_id, tenant_id, role, scopes, secrets, coalesce(is_blocked, false) AS is_blocked
        FROM access_api_key LEFT JOIN access_tenant USING (tenant_id)
        WHERE key_id = $1 AND access_api_key.forget_at IS NULL
        """,
        key_id,
    )


SUBSCRIPTIONS: Subscriptions = {
    identity.SigningKeyPublished: hear(keep_signing_keys),
    identity.TenantAccessChanged: hear(keep_tenant_access),
    identity.SessionsRevoked: hear(keep_revoked_sessions),
    identity.ApiKeyChanged: hear(keep_api_keys),
}
"""What every service but identity hears besides its own."""
