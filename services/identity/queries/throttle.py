"""SQL about attempts to guess something."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from shared.postgres import Connection


async def lock(connection: Connection, subjects: Sequence[str], *, now: datetime, memory: timedelta) -> datetime | None:
    """Keep others from attempting anything for these subjects until the commit; forget what is long ago.

    Returns:
        Until when nobody is let through for one of them; None if all are open.
    """
    moment: datetime | None = await connection.fetchval(
        """
        WITH locked AS (
            INSERT INTO throttle (subject, attempts, attempted_at, closed_until)
            SELECT subject, 0, $2, $2 FROM unnest($1::text[]) AS asked (subject) ORDER BY subject
            ON CONFLICT (subject) DO UPDATE
                SET attempts = CASE WHEN throttle.attempted_at < $2 - $3::interval THEN 0 ELSE throttle.attempts END
            RETURNING closed_until
        )
        SELECT max(closed_until) FROM locked WHERE closed_until > $2
        """,
        subjects,
        now,
        memory,
    )
    return moment


async def count(
    connection: Connection, subjects: Sequence[tuple[str, int]], *, now: datetime, first: timedelta, longest: timedelta
) -> None:
    """Count an attempt for each subject, given with how many are free, and close those that have had more."""
    await connection.execute(
        """
        UPDATE throttle SET
            attempts = attempts + 1,
            attempted_at = $3::timestamptz,
            closed_until = CASE WHEN attempts < free THEN closed_until
                                ELSE $3::timestamptz
                                     + least($4::interval * 2 ^ least(attempts - free, 20), $5::interval) END
        FROM unnest($1::text[], $2::integer[]) AS asked (subject, free)
        WHERE throttle.subject = asked.subject
        """,
        [subject for subject, _ in subjects],
        [free for _, free in subjects],
        now,
        first,
        longest,
    )


async def forget(connection: Connection, subjects: Sequence[str], *, uncounted: str) -> None:
    """Forget the attempts of these subjects, and one attempt of another."""
    await connection.execute(
        """
        WITH forgotten AS (DELETE FROM throttle WHERE subject = ANY ($1::text[]))
        UPDATE throttle SET attempts = attempts - 1 WHERE subject = $2 AND attempts > 0
        """,
        subjects,
        uncounted,
    )


async def sweep(connection: Connection, *, before: datetime) -> None:
    """Delete what was last attempted before a moment."""
    await connection.execute("DELETE FROM throttle WHERE attempted_at < $1", before)
