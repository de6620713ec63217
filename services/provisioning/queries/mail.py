"""What becomes of tenants' mails: what was seen, how much of it, what is told, and who may send.

Whoever locks several rows of a table does so in the order of their tenants: environments before `mail_sending` before
`mail_count`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from services.provisioning.queries.environments import narrowed
from shared.postgres import Connection


class Owner(NamedTuple):
    """Whose an account is.

    Attributes:
        counted_from: what was sent before counts for no rate of the tenant's.
    """

    tenant_id: str
    counted_from: datetime | None


class Counted(NamedTuple):
    """How much of one kind happened in an hour, and what of it counts for rates."""

    tenant_id: str
    hour: datetime
    event: str
    many: int
    judged: int


class Wish(NamedTuple):
    """How a tenant's account is to be.

    Attributes:
        number: of the wish, among those of the tenant.
        attempts: to fulfil it, the one that begins included.
        environment: as `services.provisioning.jobs.job.Settings` reads it.
    """

    tenant_id: str
    number: int
    is_paused: bool
    attempts: int
    environment: Mapping[str, Any]


class Settled(NamedTuple):
    """What came of trying to fulfil a wish.

    Attributes:
        problem: why it was not fulfilled; None where it was.
        due_at: when it is tried again, where it was not.
    """

    tenant_id: str
    number: int
    problem: str | None
    due_at: datetime | None


async def keep_days(connection: Connection, *, first: date, last: date) -> None:
    """Remember of these days what was counted, and of none before; any replica may call it."""
    await connection.execute("SELECT keep_mail_days($1, $2)", first, last)


async def admit(connection: Connection, keys: Sequence[tuple[date, UUID]]) -> list[tuple[date, UUID]]:
    """Record messages as counted and return those that had not been before; each has the day and its own key."""
    rows = await connection.fetch(
        """
        INSERT INTO mail_seen (day, message_id)
        SELECT DISTINCT day, message_id FROM unnest($1::date[], $2::uuid[]) AS said (day, message_id)
        ORDER BY day, message_id  -- one order everywhere, so that batches never deadlock
        ON CONFLICT DO NOTHING
        RETURNING day, message_id
        """,
        [day for day, _ in keys],
        [key for _, key in keys],
    )
    return [(row["day"], row["message_id"]) for row in rows]


async def lock_owners(connection: Connection, account_ids: Collection[str]) -> dict[str, Owner]:
    """Return whose these accounts are, of those that are a tenant's; these stay, and are not paused, until the commit.

    `accountId` is what the AWS driver calls the account that it has made for an environment.
    """
    if not account_ids:
        return {}
    found = await connection.fetch(
        """
        SELECT tenant_id, resources ->> 'accountId' AS account_id FROM environment
        WHERE driver = 'aws' AND resources ->> 'accountId' = ANY ($1::text[])
        ORDER BY tenant_id FOR KEY SHARE
        """,
        list(account_ids),
    )
    tenant_ids = [row["tenant_id"] for row in found]
    await connection.execute(
        """
        INSERT INTO mail_sending (tenant_id) SELECT unnest($1::text[]) AS tenant_id ORDER BY tenant_id
        ON CONFLICT DO NOTHING
        """,
        tenant_ids,
    )
    known = await connection.fetch(
        "SELECT tenant_id, counted_from FROM mail_sending WHERE tenant_id = ANY ($1::text[]) "
        "ORDER BY tenant_id FOR SHARE",
        tenant_ids,
    )
    owners = {row["tenant_id"]: Owner(row["tenant_id"], row["counted_from"]) for row in known}
    return {row["account_id"]: owners[row["tenant_id"]] for row in found}


async def count(connection: Connection, counted: Sequence[Counted]) -> None:
    """Add to what is known of tenants that are locked; each tenant, hour and event is there once."""
    if not counted:
        return
    await connection.execute(
        """
        INSERT INTO mail_count (tenant_id, hour, event, count, judged)
        SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::bigint[], $5::bigint[])
            AS said (tenant_id, hour, event, count, judged)
        ORDER BY tenant_id, hour, event
        ON CONFLICT (tenant_id, hour, event) DO UPDATE
        SET count = mail_count.count + excluded.count, judged = mail_count.judged + excluded.judged
        """,
        *([each[at] for each in counted] for at in range(5)),
    )


async def count_oddities(connection: Connection, counts: Mapping[str, int], *, hour: datetime) -> None:
    """Add to what came in that was no event of any tenant's mails, by the reason."""
    if not counts:
        return
    await connection.execute(
        """
        INSERT INTO mail_oddity (hour, reason, count)
        SELECT $3, reason, count FROM unnest($1::text[], $2::bigint[]) AS said (reason, count) ORDER BY reason
        ON CONFLICT (hour, reason) DO UPDATE SET count = mail_oddity.count + excluded.count
        """,
        list(counts),
        list(counts.values()),
        hour,
    )


async def lock_tenants_with_news(connection: Connection, *, limit: int) -> dict[str, bool]:
    """Return some tenants of whom something was counted that was not told yet, and whether each is paused."""
    rows = await connection.fetch(
        """
        SELECT tenant_id, paused_at IS NOT NULL AS is_paused FROM mail_sending
        WHERE tenant_id IN (SELECT tenant_id FROM mail_count WHERE told < count)
        ORDER BY tenant_id LIMIT $1 FOR NO KEY UPDATE
        """,
        limit,
    )
    return {row["tenant_id"]: row["is_paused"] for row in rows}


async def take_news(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Mark all of tenants that are locked as told, and return what was not: ``counts`` by event, for each hour."""
    return await connection.fetch(
        """
        WITH news AS (
            SELECT tenant_id, hour, event, count - told AS fresh FROM mail_count
            WHERE tenant_id = ANY ($1::text[]) AND told < count
        ), told AS (
            UPDATE mail_count SET told = told + fresh FROM news
            WHERE (mail_count.tenant_id, mail_count.hour, mail_count.event) = (news.tenant_id, news.hour, news.event)
        )
        SELECT tenant_id, hour, jsonb_object_agg(event, fresh) AS counts FROM news
        GROUP BY tenant_id, hour ORDER BY tenant_id, hour
        """,
        tenant_ids,
    )


_SCORE = """
    coalesce(sum(judged) FILTER (WHERE event = 'send'), 0) AS sends,
    coalesce(sum(judged) FILTER (WHERE event = 'permanent_bounce'), 0) AS bounces,
    coalesce(sum(judged) FILTER (WHERE event = 'complaint'), 0) AS complaints
"""


async def scores(connection: Connection, tenant_ids: Sequence[str], *, since: datetime) -> list[asyncpg.Record]:
    """Return ``sends``, ``bounces`` and ``complaints`` of tenants, of hours from one on, as far as they count."""
    return await connection.fetch(
        f"""
        SELECT tenant_id, {_SCORE} FROM mail_count WHERE tenant_id = ANY ($1::text[]) AND hour >= $2 GROUP BY tenant_id
        """,  # noqa: S608 - columns of our own
        tenant_ids,
        since,
    )


async def pause(
    connection: Connection, reasons: Mapping[str, str], grounds: Mapping[str, Mapping[str, int]], *, now: datetime
) -> None:
    """Wish that tenants send nothing from now on; they are locked, and may send until now."""
    if not reasons:
        return
    await connection.execute(
        """
        UPDATE mail_sending
        SET paused_at = $4, reason = wished.reason, grounds = wished.grounds, wish = wish + 1, due_at = $4,
            attempts = 0, problem = NULL, applied_at = NULL
        FROM unnest($1::text[], $2::text[], $3::jsonb[]) AS wished (tenant_id, reason, grounds)
        WHERE mail_sending.tenant_id = wished.tenant_id
        """,
        list(reasons),
        list(reasons.values()),
        [grounds[tenant_id] for tenant_id in reasons],
        now,
    )


async def resume(connection: Connection, tenant_id: str, *, now: datetime) -> asyncpg.Record | None:
    """Wish that a paused tenant may send again, with rates that begin anew; return why it was paused, if it was."""
    paused = await connection.fetchrow(
        """
        SELECT paused_at, reason, grounds FROM mail_sending WHERE tenant_id = $1 AND paused_at IS NOT NULL
        FOR NO KEY UPDATE
        """,
        tenant_id,
    )
    if paused is not None:
        await connection.execute(
            """
            UPDATE mail_sending
            SET paused_at = NULL, reason = NULL, grounds = NULL, counted_from = $2, wish = wish + 1, due_at = $2,
                attempts = 0, problem = NULL, applied_at = NULL
            WHERE tenant_id = $1
            """,
            tenant_id,
            now,
        )
        await connection.execute("UPDATE mail_count SET judged = 0 WHERE tenant_id = $1 AND judged > 0", tenant_id)
    return paused


async def claim_wishes(connection: Connection, *, now: datetime, until: datetime, limit: int) -> list[Wish]:
    """Take some wishes that are due and that nobody else is trying to fulfil."""
    rows = await connection.fetch(
        """
        WITH due AS (
            SELECT tenant_id FROM mail_sending
            WHERE due_at <= $1 AND (claimed_until IS NULL OR claimed_until <= $1)
            ORDER BY due_at LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
        ), claimed AS (
            UPDATE mail_sending SET claimed_until = $2, attempts = attempts + 1 FROM due
            WHERE mail_sending.tenant_id = due.tenant_id
            RETURNING mail_sending.tenant_id, wish, paused_at IS NOT NULL AS is_paused, attempts
        )
        SELECT claimed.*, to_jsonb(environment) || jsonb_build_object('products', '{}'::jsonb) AS environment
        FROM claimed JOIN environment USING (tenant_id) ORDER BY tenant_id
        """,
        now,
        until,
        limit,
    )
    return [Wish(*row) for row in rows]


async def settle_wishes(connection: Connection, settled: Sequence[Settled], *, now: datetime) -> None:
    """Store what came of wishes that were claimed; where somebody has wished anew, that stays due."""
    await connection.execute(
        "SELECT FROM mail_sending WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR NO KEY UPDATE",
        [each.tenant_id for each in settled],
    )
    await connection.execute(
        """
        UPDATE mail_sending
        SET claimed_until = NULL,
            due_at = CASE WHEN is_newest THEN settled.due_at ELSE mail_sending.due_at END,
            problem = CASE WHEN is_newest THEN settled.problem END,
            applied_at = CASE WHEN is_newest AND settled.problem IS NULL THEN $5::timestamptz END
        FROM unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[])
            AS settled (tenant_id, number, problem, due_at)
        JOIN mail_sending AS known USING (tenant_id) CROSS JOIN LATERAL (SELECT known.wish = number) AS said (is_newest)
        WHERE mail_sending.tenant_id = settled.tenant_id
        """,
        [each.tenant_id for each in settled],
        [each.number for each in settled],
        [each.problem for each in settled],
        [each.due_at for each in settled],
        now,
    )


async def page(
    connection: Connection, *, after: str, limit: int, tenant_id: str | None, since: datetime
) -> list[asyncpg.Record]:
    """List tenants of whose mails something was heard, all or one, by their ids, those after the one ``after``.

    With each come the ``counts`` by event of the hours from ``since`` on, and its score as in `scores`.
    """
    of_tenant = "tenant_id IN (SELECT tenant_id FROM environment WHERE tenant_id = $4 OR owner_id = $4)"
    narrowing, tenant_ids = narrowed(of_tenant, tenant_id)
    return await connection.fetch(
        f"""
        SELECT mail_sending.*, counted.counts, counted.sends, counted.bounces, counted.complaints
        FROM mail_sending CROSS JOIN LATERAL (
            SELECT coalesce(jsonb_object_agg(event, total), '{{}}') AS counts, {_SCORE}
            FROM (
                SELECT event, sum(count) AS total, sum(judged) AS judged FROM mail_count
                WHERE mail_count.tenant_id = mail_sending.tenant_id AND hour >= $3 GROUP BY event
            ) AS by_event
        ) AS counted
        WHERE tenant_id > $1 AND {narrowing} ORDER BY tenant_id LIMIT $2
        """,  # noqa: S608 - a condition and columns of our own
        after,
        limit,
        since,
        *tenant_ids,
    )


async def oddities(connection: Connection, *, since: datetime) -> list[asyncpg.Record]:
    """Return how much came in from an hour on that was no event of any tenant's mails, by the reason."""
    return await connection.fetch(
        "SELECT reason, sum(count)::bigint AS count, max(hour) AS hour FROM mail_oddity WHERE hour >= $1 "
        "GROUP BY reason ORDER BY reason",
        since,
    )


async def delete_old(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete some of what was counted before an hour and has been told, and all of no tenant's; return how much."""
    deleted = await connection.fetch(
        """
        WITH oddities AS (
            DELETE FROM mail_oddity WHERE hour < $1
        ), doomed AS (
            SELECT tenant_id, hour, event FROM mail_count WHERE hour < $1 AND told = count
            ORDER BY hour LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM mail_count USING doomed
        WHERE (mail_count.tenant_id, mail_count.hour, mail_count.event) = (doomed.tenant_id, doomed.hour, doomed.event)
        RETURNING mail_count.event
        """,
        before,
        limit,
    )
    return len(deleted)
