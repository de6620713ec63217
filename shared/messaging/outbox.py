"""Messages leave with the transaction that made them: rows first, then the broker, then no rows.

Whoever commits rows sends them at once from memory (`Relay.send`). What a crash, a timeout or an absent broker left
behind is sent by the sweeper. A message is therefore published at least once, always under the same id; inboxes drop
the rest.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import orjson
import structlog

from shared.clock import Clock
from shared.failpoints import FailpointError, failpoint
from shared.ids import Ids
from shared.messaging.bus import Bus, Outcome, Parcel
from shared.messaging.event import BATCH, Outgoing, join_batch
from shared.messaging.topology import STATUS_EXCHANGE, Manifest
from shared.postgres import CONTENTION, Connection, Pool, is_unavailable, transaction
from shared.tracing.messages import moment, trace_leaving, trace_making, trace_sending

log = structlog.get_logger(__name__)

FRESH = timedelta(seconds=5)
"""How long a new row is left to the process that wrote it."""

LEASE = timedelta(seconds=30)
"""How long a swept row is left to the process that claimed it; above the longest publish."""

_SWEEP_LIMIT = 500
_SWEEP_SECONDS = 1.0
_COALESCE_SECONDS = 0.05
_PARCEL_EVENTS = 200
_PARCEL_BYTES = 256 * 1024
_HEADER_PREFIX = "ce-"


async def insert(connection: Connection, outgoing: Sequence[Outgoing], *, now: datetime) -> None:
    """Write messages into the outbox, within the caller's transaction."""
    if not outgoing:
        return
    trace_making(outgoing)
    await connection.execute(
        """
        INSERT INTO outbox (id, exchange, routing_key, event, due_at)
        SELECT id, exchange, routing_key, event, $5
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) AS row (id, exchange, routing_key, event)
        """,
        [each.id for each in outgoing],
        [each.exchange for each in outgoing],
        [each.routing_key for each in outgoing],
        [each.event for each in outgoing],
        now + FRESH,
    )
    await failpoint("outbox_inserted")


async def claim(connection: Connection, *, now: datetime) -> list[Outgoing]:
    """Take over due rows under a lease; other replicas skip them until it ends."""
    rows = await connection.fetch(
        """
        UPDATE outbox SET due_at = $1
        WHERE id IN (SELECT id FROM outbox WHERE due_at <= $2 ORDER BY due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED)
        RETURNING id, exchange, routing_key, event
        """,
        now + LEASE,
        now,
        _SWEEP_LIMIT,
    )
    # In the order in which they were said, as far as their identities tell.
    in_order = sorted(rows, key=lambda row: row["id"].int)
    return [Outgoing(row["id"], row["exchange"], row["routing_key"], row["event"]) for row in in_order]


async def give_back(connection: Connection, ids: Sequence[UUID], *, now: datetime) -> None:
    """End the lease of rows that were claimed and could not be sent."""
    await connection.execute("UPDATE outbox SET due_at = $2 WHERE id = ANY($1::uuid[])", ids, now)


async def delete(connection: Connection, ids: Sequence[UUID]) -> None:
    """Delete confirmed rows. Not waiting for the disk is safe: a row that comes back is dropped as a duplicate."""
    await connection.execute(
        """
        WITH lazily AS (SELECT set_config('synchronous_commit', 'off', true))
        DELETE FROM outbox USING lazily WHERE id = ANY($1::uuid[])
        """,
        ids,
    )


class Relay:
    """Gets committed messages to the broker and forgets them when the broker has them.

    Args:
        manifest: knows which messages somebody listens to; only those must reach a queue.
    """

    def __init__(self, *, pool: Pool, bus: Bus, clock: Clock, ids: Ids, manifest: Manifest) -> None:
        self._pool = pool
        self._bus = bus
        self._clock = clock
        self._ids = ids
        self._manifest = manifest
        self._in_flight: set[UUID] = set()
        self._confirmed: list[UUID] = []
        self._work = asyncio.Event()

    async def send(self, outgoing: Sequence[Outgoing]) -> None:
        """Publish rows that were just committed; whatever is not confirmed now, the sweeper sends later."""
        if not outgoing:
            return
        trace_leaving(outgoing)
        with suppress(FailpointError):
            await failpoint("before_publish")
            await self._publish(outgoing)

    async def run(self) -> None:
        """Delete what was confirmed and sweep what is due, until cancelled. Outages of either side are waited out."""
        swept_at = self._clock.now()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_SECONDS):
                    await self._work.wait()
                    await self._clock.sleep(_COALESCE_SECONDS)
            try:
                await self.flush()
                # A clock may be set back, which must not stop the sweeper until it has caught up.
                if abs(self._clock.now() - swept_at) >= timedelta(seconds=_SWEEP_SECONDS):
                    swept_at = self._clock.now()
                    await self.sweep()
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    raise
                log.warning("outbox waits", action="outbox_unavailable", error=str(error) or type(error).__name__)
                await self._clock.sleep(_SWEEP_SECONDS)

    async def flush(self) -> None:
        """Delete the rows that the broker has confirmed."""
        self._work.clear()
        confirmed, self._confirmed = self._confirmed, []
        if not confirmed:
            return
        try:
            async with transaction(self._pool) as connection:
                await delete(connection, confirmed)
        except BaseException:
            self._confirmed += confirmed
            raise
        self._in_flight.difference_update(confirmed)
        await failpoint("outbox_deleted")

    async def sweep(self) -> int:
        """Send what is due and nobody is sending; return how many rows that were.

        What cannot be sent now is due again at the next sweep: an outage must not last as long as a lease.
        """
        total = 0
        while True:
            async with transaction(self._pool) as connection:
                rows = await claim(connection, now=self._clock.now())
            if left := [row for row in rows if row.id not in self._in_flight]:
                log.info("outbox swept", action="outbox_swept", count=len(left))
                unsent = await self._publish(left)
                await self.flush()
                if unsent:
                    await self._give_back(unsent)
                    return total + len(left)
            total += len(left)
            if len(rows) < _SWEEP_LIMIT:
                return total

    async def _give_back(self, ids: Sequence[UUID]) -> None:
        async with transaction(self._pool) as connection:
            await give_back(connection, ids, now=self._clock.now())

    async def _publish(self, outgoing: Sequence[Outgoing]) -> list[UUID]:
        """Publish rows and note which are confirmed; return those of which nobody knows whether they arrived."""
        packed = list(self._pack(outgoing))
        ids = [row.id for row in outgoing]
        self._in_flight.update(ids)
        confirmed: list[UUID] = []
        unknown: list[UUID] = []
        began = moment()
        try:
            outcomes = await self._bus.publish([parcel for parcel, _ in packed])
            await failpoint("confirmed")
            for (parcel, rows), outcome in zip(packed, outcomes, strict=True):
                trace_sending(rows, outcome, since=began)
                if outcome is Outcome.CONFIRMED:
                    confirmed += [row.id for row in rows]
                elif outcome is Outcome.UNROUTABLE:
                    log.error("nobody hears this", action="unroutable", routing_key=parcel.routing_key, count=len(rows))
                else:
                    unknown += [row.id for row in rows]
            return unknown
        finally:
            self._in_flight.difference_update(set(ids).difference(confirmed))
            self._confirmed += confirmed
            self._work.set()

    def _pack(self, outgoing: Sequence[Outgoing]) -> Iterable[tuple[Parcel, list[Outgoing]]]:
        batches: dict[tuple[str, str], list[Outgoing]] = {}
        for row in outgoing:
            if row.exchange == STATUS_EXCHANGE:
                yield _binary_parcel(row), [row]
            else:
                batches.setdefault((row.exchange, row.routing_key), []).append(row)
        for (exchange, routing_key), rows in batches.items():
            for chunk in _chunks(rows):
                yield self._batch_parcel(exchange, routing_key, chunk), chunk

    def _batch_parcel(self, exchange: str, routing_key: str, rows: Sequence[Outgoing]) -> Parcel:
        return Parcel(
            exchange=exchange,
            routing_key=routing_key,
            body=join_batch(row.event for row in rows),
            content_type=BATCH,
            message_id=str(self._ids.new()),
            mandatory=self._manifest.is_heard(routing_key),
        )


def _chunks(rows: Sequence[Outgoing]) -> Iterable[list[Outgoing]]:
    chunk: list[Outgoing] = []
    size = 0
    for row in rows:
        if chunk and (len(chunk) == _PARCEL_EVENTS or size + len(row.event) > _PARCEL_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += len(row.event)
    if chunk:
        yield chunk


def _binary_parcel(row: Outgoing) -> Parcel:
    """Put the attributes into ``ce-`` headers and the data into the body, as the RabbitMQ binding of Knative does."""
    event = orjson.loads(row.event)
    data = event.pop("data")
    content_type = event.pop("datacontenttype")
    return Parcel(
        exchange=row.exchange,
        routing_key=row.routing_key,
        body=orjson.dumps(data),
        content_type=content_type,
        message_id=event["id"],
        headers={_HEADER_PREFIX + name: str(value) for name, value in event.items()},
        mandatory=False,
    )
