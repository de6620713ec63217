"""What is kept for us at Amazon Cognito comes and goes with tenants and members, whatever crashes on the way.

Rows say what should be there; this makes it so. Each row is written before anything is made out there, and deleted
after that is gone, so nothing is left behind. A member's account goes an hour after the membership, so that an order
which is taken back finds it again; without a membership it opens no door meanwhile. With the tenant all goes at once.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import asyncpg
import structlog

from services.identity.providers.cognito import Cognito, MisconfiguredError
from services.identity.providers.port import ProviderUnavailableError
from services.identity.queries import caretaking as queries
from shared.clock import Clock
from shared.http import Problem
from shared.postgres import CONTENTION, Pool, is_unavailable, transaction

log = structlog.get_logger(__name__)

GRACE = timedelta(hours=1)
ARRIVAL = timedelta(seconds=30)
"""How long an order to Cognito may be on its way that we have given up waiting for; nothing is deleted before."""

LEASE = timedelta(minutes=2)
"""How long this process has for what it has taken; above what all calls of one round take at the most."""

Fate = Literal["keep", "wait", "delete"]

_AT_A_TIME = 8
_POLL_SECONDS = 1.0
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=5), timedelta(minutes=5)


class Caretaker:
    """Makes and deletes what is due; replicas share the work.

    Args:
        cognito: None where it is not configured; what is due there then waits, with an error in the log.
    """

    def __init__(self, pool: Pool, cognito: Cognito | None, *, clock: Clock) -> None:
        self._pool = pool
        self._cognito = cognito
        self._clock = clock

    async def run(self) -> None:
        """Look for ever; an outage is waited out. Before, say whether Cognito's shared pool is as it must be."""
        await self._check()
        while True:
            try:
                await self.look()
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    raise
                log.warning("providers wait for the database", action="caretaking_unavailable", error=repr(error))
            await self._clock.sleep(_POLL_SECONDS)

    async def _check(self) -> None:
        try:
            if self._cognito is not None:
                await self._cognito.check_shared()
        except (MisconfiguredError, ProviderUnavailableError, Problem) as error:
            log.warning("Cognito's shared pool", action="shared_pool_unfit", error=str(error))

    async def look(self) -> int:
        """Do what is due now, and return how much that was."""
        accounts, pools = await self._take_accounts(), await self._take_pools()
        await asyncio.gather(*map(self._delete_account, accounts), *map(self._see_to_pool, pools))
        return len(accounts) + len(pools)

    async def _take_accounts(self) -> Sequence[asyncpg.Record]:
        """Return the accounts that are this process's to delete now."""
        now = self._clock.now()
        async with transaction(self._pool) as connection:
            rows = await queries.lock_left_accounts(connection, now=now, linked_before=now - ARRIVAL, limit=_AT_A_TIME)
            if not rows:
                return []
            by_fate: dict[Fate, list[asyncpg.Record]] = {"keep": [], "wait": [], "delete": []}
            for row in rows:
                by_fate[_fate_of(row)].append(row)
            await queries.keep_accounts(connection, by_fate["keep"])
            await queries.put_off_accounts(connection, by_fate["wait"], until=now + GRACE)
            await queries.begin_deleting(connection, by_fate["delete"], until=now + LEASE)
        return by_fate["delete"]

    async def _delete_account(self, row: asyncpg.Record) -> None:
        try:
            if row["kind"] == "cognito":
                await self._forget(row)
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this account alone and is tried again
            again_at = self._again(row, error, what="account")
            async with transaction(self._pool) as connection:
                await queries.retry_account(connection, row["tenant_id"], row["user_id"], at=again_at)
            return
        async with transaction(self._pool) as connection:
            await queries.delete_accounts(connection, [row])
        log.info("account deleted", action="account_deleted", tenant_id=row["tenant_id"], kind=row["kind"])

    async def _forget(self, row: asyncpg.Record) -> None:
        ids = {"pool_id": row["pool_id"], "client_id": row["client_id"]}
        directory = self._configured().directory(row["tenant_id"], **ids)
        if directory is not None:
            await directory.forget(row["user_id"])

    async def _take_pools(self) -> Sequence[asyncpg.Record]:
        now = self._clock.now()
        async with transaction(self._pool) as connection:
            rows = await queries.lock_due_pools(connection, now=now, limit=_AT_A_TIME)
            if rows:
                await queries.begin_pools(connection, [row["tenant_id"] for row in rows], until=now + LEASE)
        return rows

    async def _see_to_pool(self, row: asyncpg.Record) -> None:
        try:
            await (self._open(row) if row["is_wanted"] else self._close(row))
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this pool alone and is tried again
            again_at = self._again(row, error, what="pool")
            async with transaction(self._pool) as connection:
                await queries.retry_pool(connection, row["tenant_id"], at=again_at)

    async def _open(self, row: asyncpg.Record) -> None:
        made = await self._configured().pools.open(row["tenant_id"], is_begun=row["is_begun"])
        ids = {"pool_id": made.pool_id, "client_id": made.client_id}
        async with transaction(self._pool) as connection:
            await queries.pool_made(connection, row["tenant_id"], **ids, now=self._clock.now())
        log.info("pool made", action="pool_made", tenant_id=row["tenant_id"], pool_id=made.pool_id)

    async def _close(self, row: asyncpg.Record) -> None:
        if row["pool_id"] is not None or row["is_begun"]:
            await self._configured().pools.close(row["tenant_id"], row["pool_id"])
        async with transaction(self._pool) as connection:
            await queries.pool_deleted(connection, row["tenant_id"], now=self._clock.now())
        log.info("pool deleted", action="pool_deleted", tenant_id=row["tenant_id"], pool_id=row["pool_id"])

    def _configured(self) -> Cognito:
        if self._cognito is None:
            raise ProviderUnavailableError("Amazon Cognito is not configured: set TENURE_IDENTITY_COGNITO_REGION.")
        return self._cognito

    def _again(self, row: asyncpg.Record, error: Exception, *, what: str) -> datetime:
        log.error(
            "provider waits",
            action="caretaking_failed",
            what=what,
            tenant_id=row["tenant_id"],
            attempt=row["attempts"] + 1,
            error=f"{type(error).__name__}: {error}",
        )
        doubled = _FIRST_WAIT * float(2 ** min(row["attempts"], 10))
        return self._clock.now() + min(doubled, _LONGEST_WAIT)


def _fate_of(row: asyncpg.Record) -> Fate:
    """Return what becomes of the account of somebody who was no member any more when it was noticed."""
    if row["is_deleting"]:
        return "delete"
    if row["is_member"]:
        return "keep"
    is_news = row["attempts"] == 0
    return "wait" if is_news and row["has_provider"] and row["kind"] == "cognito" else "delete"
