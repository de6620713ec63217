"""SQL about people, their memberships and invitations, as the handlers change them."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from services.identity.invitations import Invitation, Person
from services.identity.roster import InvitationRecord, Key, Member
from shared.postgres import Connection


class Block(NamedTuple):
    """Why nobody can sign in to a tenant, and since when."""

    reason: str | None
    blocked_at: datetime


async def upsert_users(connection: Connection, people: Collection[Person]) -> dict[str, UUID]:
    """Return the user of each distinct ``email_key``, made where there was none, locked until the commit."""
    rows = await connection.fetch(
        """
        INSERT INTO users (user_id, email, email_key, created_at, name)
        SELECT user_id, email, email_key, created_at, name
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[])
             AS asked (user_id, email, email_key, created_at, name)
        -- Everybody locks in this order, so nobody waits in a circle.
        ORDER BY email_key
        -- Changes nothing, but locks: the user cannot be deleted before it has the membership that is coming.
        ON CONFLICT (email_key) DO UPDATE SET email = users.email
        RETURNING email_key, user_id
        """,
        [person.user_id for person in people],
        [person.email for person in people],
        [person.email_key for person in people],
        [person.created_at for person in people],
        [person.name for person in people],
    )
    return {row["email_key"]: row["user_id"] for row in rows}


async def make_administrators(connection: Connection, invitations: Sequence[Invitation], *, now: datetime) -> None:
    """Give each invited user the administrator's role in its tenant; never a lesser role than it has."""
    await connection.execute(
        """
        INSERT INTO membership (tenant_id, user_id, role, created_at)
        SELECT tenant_id, user_id, 'TenantAdmin', $3
        FROM unnest($1::text[], $2::uuid[]) AS asked (tenant_id, user_id)
        ON CONFLICT (tenant_id, user_id) DO UPDATE SET role = excluded.role WHERE membership.role = 'TenantUser'
        """,
        [invitation.tenant_id for invitation in invitations],
        [invitation.user_id for invitation in invitations],
        now,
    )


async def invite_administrators(
    connection: Connection, invitations: Sequence[Invitation], *, now: datetime, expires_at: datetime
) -> None:
    """Leave each membership with an open invitation: a new or renewed one, unless it has one or has accepted one."""
    await connection.execute(
        """
        INSERT INTO invitation (invitation_id, tenant_id, user_id, role, token_hash, customer_name,
                                created_at, expires_at)
        SELECT invitation_id, tenant_id, user_id, 'TenantAdmin', token_hash, customer_name, $6, $7
        FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bytea[], $5::text[])
             AS asked (invitation_id, tenant_id, user_id, token_hash, customer_name)
        ON CONFLICT (tenant_id, user_id) DO UPDATE
            SET role = excluded.role, token_hash = excluded.token_hash, customer_name = excluded.customer_name,
                created_at = excluded.created_at, expires_at = excluded.expires_at, invited_by = NULL,
                delivery = 'pending', attempts = 0, next_attempt_at = 'epoch'
            WHERE invitation.accepted_at IS NULL AND invitation.expires_at <= excluded.created_at
        """,
        [invitation.invitation_id for invitation in invitations],
        [invitation.tenant_id for invitation in invitations],
        [invitation.user_id for invitation in invitations],
        [invitation.token_hash for invitation in invitations],
        [invitation.customer_name for invitation in invitations],
        now,
        expires_at,
    )


async def administrators(connection: Connection, tenant_ids: Sequence[str]) -> list[tuple[str, Person]]:
    """Return the administrators of these tenants, each with its tenant."""
    rows = await connection.fetch(
        """
        SELECT tenant_id, users.* FROM membership
        -- One by one, never the whole table: how few of a tenant's many members administer it is hard to foresee.
        CROSS JOIN LATERAL (
            SELECT user_id, email, email_key, created_at, name FROM users
            WHERE users.user_id = membership.user_id OFFSET 0
        ) AS users
        WHERE tenant_id = ANY ($1::text[]) AND role = 'TenantAdmin'
        """,
        tenant_ids,
    )
    return [
        (row["tenant_id"], Person(row["user_id"], row["email"], row["email_key"], row["created_at"], row["name"]))
        for row in rows
    ]


async def roster(connection: Connection, keys: Iterable[Key]) -> list[asyncpg.Record]:
    """Return each of these users, which are locked, with what it is in the tenant: nulls where it is no member."""
    return await connection.fetch(
        """
        SELECT tenant_id, user_id, email, email_key, users.created_at AS user_created_at, name, hash AS password,
               membership.role, membership.created_at,
               invitation_id, invitation.role AS invitation_role, encode(token_hash, 'hex') AS token_hash, delivery,
               invitation.created_at AS invited_at, expires_at, accepted_at, customer_name, invited_by, attempts,
               next_attempt_at
        FROM unnest($1::text[], $2::uuid[]) AS asked (tenant_id, user_id)
        JOIN users USING (user_id)
        LEFT JOIN password USING (user_id)
        LEFT JOIN membership USING (tenant_id, user_id)
        LEFT JOIN invitation USING (tenant_id, user_id)
        """,
        *_columns(keys),
    )


async def withdraw_invitations(connection: Connection, keys: Iterable[Key]) -> None:
    """Delete the invitation of each of these members."""
    await connection.execute(
        """
        DELETE FROM invitation USING unnest($1::text[], $2::uuid[]) AS gone (tenant_id, user_id)
        WHERE (invitation.tenant_id, invitation.user_id) = (gone.tenant_id, gone.user_id)
        """,
        *_columns(keys),
    )


async def end_memberships(connection: Connection, keys: Iterable[Key]) -> None:
    """Delete each of these memberships, whose invitations are gone already."""
    await connection.execute(
        """
        DELETE FROM membership USING unnest($1::text[], $2::uuid[]) AS gone (tenant_id, user_id)
        WHERE (membership.tenant_id, membership.user_id) = (gone.tenant_id, gone.user_id)
        """,
        *_columns(keys),
    )


async def put_memberships(connection: Connection, members: Mapping[Key, Member]) -> None:
    """Make each of these memberships, or give it the role."""
    await connection.execute(
        """
        INSERT INTO membership (tenant_id, user_id, role, created_at)
        SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::timestamptz[])
        ON CONFLICT (tenant_id, user_id) DO UPDATE SET role = excluded.role
        """,
        *_columns(members),
        [member.role for member in members.values()],
        [member.created_at for member in members.values()],
    )


async def put_invitations(connection: Connection, invitations: Mapping[Key, InvitationRecord]) -> None:
    """Let each of these members have exactly this invitation."""
    await connection.execute(
        """
        INSERT INTO invitation (invitation_id, tenant_id, user_id, role, token_hash, delivery,
                                created_at, expires_at, accepted_at, customer_name, invited_by, attempts,
                                next_attempt_at)
        SELECT invitation_id, tenant_id, user_id, role, decode(token_hash, 'hex'), delivery,
               created_at, expires_at, accepted_at, customer_name, invited_by, attempts, next_attempt_at
        FROM jsonb_to_recordset($1) AS held (
            invitation_id uuid, tenant_id text, user_id uuid, role text, token_hash text, delivery text,
            created_at timestamptz, expires_at timestamptz, accepted_at timestamptz, customer_name text,
            invited_by text, attempts integer, next_attempt_at timestamptz)
        ON CONFLICT (tenant_id, user_id) DO UPDATE
            SET invitation_id = excluded.invitation_id, role = excluded.role, token_hash = excluded.token_hash,
                delivery = excluded.delivery, created_at = excluded.created_at, expires_at = excluded.expires_at,
                accepted_at = excluded.accepted_at, customer_name = excluded.customer_name,
                invited_by = excluded.invited_by, attempts = excluded.attempts,
                next_attempt_at = excluded.next_attempt_at
        """,
        [
            {"tenant_id": tenant_id, "user_id": user_id, **asdict(invitation)}
            for (tenant_id, user_id), invitation in invitations.items()
        ],
    )


def _columns(keys: Iterable[Key]) -> tuple[list[str], list[UUID]]:
    pairs = list(keys)
    return [tenant_id for tenant_id, _ in pairs], [user_id for _, user_id in pairs]


async def lock_members(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Wait until nobody else changes the members of these tenants, in the order in which everybody locks users."""
    await connection.execute(
        """
        SELECT FROM users
        WHERE user_id IN (SELECT user_id FROM membership WHERE tenant_id = ANY ($1::text[]))
        ORDER BY email_key FOR UPDATE
        """,
        tenant_ids,
    )


async def delete_invitations(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Withdraw every invitation into these tenants and return how many each of them had."""
    rows = await connection.fetch(
        "DELETE FROM invitation WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id", tenant_ids
    )
    return Counter(row["tenant_id"] for row in rows)


async def delete_memberships(connection: Connection, tenant_ids: Sequence[str]) -> list[Key]:
    """End every membership of these tenants and return which those were."""
    rows = await connection.fetch(
        "DELETE FROM membership WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id, user_id", tenant_ids
    )
    return [(row["tenant_id"], row["user_id"]) for row in rows]


async def delete_users_without_membership(connection: Connection, user_ids: Iterable[UUID]) -> set[UUID]:
    """Delete those of these users who belong to no tenant any more and return them."""
    rows = await connection.fetch(
        """
        DELETE FROM users WHERE user_id = ANY ($1::uuid[])
        AND NOT EXISTS (SELECT FROM membership WHERE membership.user_id = users.user_id)
        RETURNING user_id
        """,
        list(user_ids),
    )
    return {row["user_id"] for row in rows}


async def block_tenants(connection: Connection, blocks: Mapping[str, Block]) -> set[str]:
    """Block these tenants, in the order in which everybody locks them; return those that were not blocked already."""
    rows = await connection.fetch(
        """
        INSERT INTO tenant_block (tenant_id, reason, blocked_at)
        SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS asked (tenant_id, reason, blocked_at)
        ORDER BY tenant_id
        ON CONFLICT (tenant_id) DO NOTHING
        RETURNING tenant_id
        """,
        list(blocks),
        [block.reason for block in blocks.values()],
        [block.blocked_at for block in blocks.values()],
    )
    return {row["tenant_id"] for row in rows}


async def unblock_tenants(connection: Connection, tenant_ids: Iterable[str]) -> dict[str, Block]:
    """End the blocks of these tenants and return them; in the order in which everybody locks them."""
    rows = await connection.fetch(
        """
        WITH locked AS (
            SELECT tenant_id FROM tenant_block WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE
        )
        DELETE FROM tenant_block USING locked WHERE tenant_block.tenant_id = locked.tenant_id
        RETURNING tenant_block.tenant_id, reason, blocked_at
        """,
        list(tenant_ids),
    )
    return {row["tenant_id"]: Block(row["reason"], row["blocked_at"]) for row in rows}
