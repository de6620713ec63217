"""From the broker to the effect: take what has arrived, handle it in one transaction, send the answers, acknowledge.

    received -> inbox -> handlers -> outbox -> commit -> publish -> acknowledge

A batch that fails is rolled back and tried again one message at a time; the one at fault climbs the retry ladder and
ends in parking, and never holds up the others. One of a type without a handler, or that its handler says needs newer
code, waits there for that. While the database is away nothing is counted as an attempt: consuming waits.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Self

import structlog

from shared.clock import Clock
from shared.failpoints import failpoint
from shared.ids import Ids
from shared.messaging import inbox, outbox
from shared.messaging.admission import Admission, Arrival, Rejected, Unknown
from shared.messaging.bus import Bus, BusUnavailableError, Consumption, Delivery
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Outgoing
from shared.messaging.ladder import Ladder
from shared.messaging.outbox import Relay
from shared.messaging.subscriptions import NewerCodeNeededError
from shared.messaging.topology import Manifest, work_queue_of
from shared.postgres import CONTENTION, Pool, is_unavailable, transaction
from shared.tracing.messages import Work, handling

log = structlog.get_logger(__name__)

PREFETCH = 50
"""AMQP messages unsettled at a time; each is a batch, so this bounds the memory of what waits in this process."""

BATCH_EVENTS = 500
"""The most events handled in one transaction."""

_CONTENTION_ATTEMPTS = 3
_LONGEST_WAIT = 15.0


class Consumer:
    """Reads the work queue of one service, for ever, one batch after the other.

    Args:
        service: whose queue.
        dispatch: what to do with each type of message.
        relay: sends what the handlers said.
    """

    def __init__(
        self,
        *,
        service: str,
        bus: Bus,
        pool: Pool,
        dispatch: Dispatch,
        relay: Relay,
        manifest: Manifest,
        logins: dict[str, str],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._service = service
        self._bus = bus
        self._pool = pool
        self._dispatch = dispatch
        self._relay = relay
        self._clock = clock
        self._ladder = Ladder(service=service, bus=bus, clock=clock, ids=ids)
        self._admission = Admission(service=service, manifest=manifest, logins=logins, heard=dispatch.heard)
        self._consumption: Consumption | None = None
        self._stopping = False
        self.on_commit: Callable[[], None] = _nothing
        """Called after each commit, before the messages leave; for those in this process who wait for a change."""

    @property
    def is_consuming(self) -> bool:
        """Whether the subscription stands; readiness depends on it."""
        return self._consumption is not None

    async def run(self) -> None:
        """Consume until `stop`, subscribing again whenever the broker was away."""
        attempt = 0
        while not self._stopping:
            try:
                async with self._bus.consume(work_queue_of(self._service), prefetch=PREFETCH) as consumption:
                    attempt = 0
                    self._consumption = consumption
                    await self._pump(consumption)
            except ConnectionError as error:
                attempt += 1
                log.warning("consumer waits for the broker", action="consumer_unavailable", error=str(error))
                await self._clock.sleep(backoff(attempt))
            finally:
                self._consumption = None

    def stop(self) -> None:
        """Finish the batch at hand, acknowledge it, and let `run` return."""
        self._stopping = True
        if self._consumption is not None:
            self._consumption.stop()

    async def _pump(self, consumption: Consumption) -> None:
        """Handle batch after batch; while one is handled, what the one before it said leaves and it is acknowledged."""
        async with Behind(on_failure=consumption.stop) as behind:
            while not self._stopping and (deliveries := await consumption.receive(PREFETCH)):
                await failpoint("received")
                outgoing = await self._settle(deliveries)
                await behind.run(self._leave(consumption, outgoing, up_to=deliveries[-1]))

    async def _leave(self, consumption: Consumption, outgoing: Sequence[Outgoing], *, up_to: Delivery) -> None:
        await self._relay.send(outgoing)
        await failpoint("before_ack")
        await consumption.acknowledge(up_to)
        await failpoint("acked")

    async def _settle(self, deliveries: Sequence[Delivery]) -> Sequence[Outgoing]:
        """Give every event its place: handled, on the retry ladder, or parked; return what has still to be sent."""
        arrivals: list[Arrival] = []
        for admitted in (each for delivery in deliveries for each in self._admission.admit(delivery)):
            if isinstance(admitted, Rejected):
                await self._ladder.park(admitted)
                continue
            if isinstance(admitted, Unknown):
                await self._ladder.wait_for_newer_code(admitted)
                continue
            arrivals.append(admitted)
            if len(arrivals) == BATCH_EVENTS:  # no more events than these are decoded at a time
                await self._relay.send(await self._take(arrivals))
                arrivals = []
        return await self._take(arrivals) if arrivals else []

    async def _take(self, arrivals: Sequence[Arrival]) -> Sequence[Outgoing]:
        with structlog.contextvars.bound_contextvars(**_ids(arrivals)), handling(self._service, arrivals) as work:
            return await self._take_bound(arrivals, work)

    async def _take_bound(self, arrivals: Sequence[Arrival], work: Work) -> Sequence[Outgoing]:
        try:
            return await self._transact_patiently(arrivals, work)
        except BusUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the ladder is where it ends
            failure = error
        work.fail(failure)
        if len(arrivals) > 1:
            log.warning("batch failed, one by one", action="batch_split", count=len(arrivals), error=repr(failure))
            for arrival in arrivals:
                await self._relay.send(await self._take([arrival]))
        elif isinstance(failure, NewerCodeNeededError):
            (arrival,) = arrivals
            await self._ladder.wait_for_newer_code(Unknown(arrival.raw, arrival.origin, arrival.attempt, str(failure)))
        else:
            log.error("message failed", action="message_failed", exc_info=failure)
            await self._ladder.climb(arrivals[0], failure)
        return []

    async def _transact_patiently(self, arrivals: Sequence[Arrival], work: Work) -> Sequence[Outgoing]:
        """Transact, waiting out outages without end and contention a few times."""
        outages = contentions = 0
        while True:
            try:
                return await self._transact(arrivals, work)
            except CONTENTION:
                contentions += 1
                if contentions == _CONTENTION_ATTEMPTS:
                    raise
            except Exception as error:
                if not is_unavailable(error):
                    raise
                outages += 1
                log.warning("consumer waits for the database", action="database_unavailable", error=repr(error))
                await self._clock.sleep(backoff(outages))
                if self._stopping:
                    raise BusUnavailableError("stopped while the database was away") from error

    async def _transact(self, arrivals: Sequence[Arrival], work: Work) -> Sequence[Outgoing]:
        now: datetime = self._clock.now()
        async with transaction(self._pool) as connection:
            fresh = await inbox.admit(connection, [arrival.event.id for arrival in arrivals])
            events = {arrival.event.id: arrival.event for arrival in arrivals if arrival.event.id in fresh}
            outgoing = await self._dispatch.handle(connection, work.given(list(events.values())))
            await failpoint("handled")
            await outbox.insert(connection, outgoing, now=now)
            await failpoint("before_commit")
        await failpoint("after_commit")
        self.on_commit()
        return outgoing


class Behind:
    """Runs one piece of work after the other, in the order given, while its owner goes on; at most one at a time.

    Args:
        on_failure: called when a piece of work has failed, for an owner that waits for something else meanwhile; it
            gets the failure when it gives the next piece, or leaves.
    """

    def __init__(self, *, on_failure: Callable[[], None]) -> None:
        self._on_failure = on_failure
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._task is None:
            return
        if kind is not None:
            if issubclass(kind, asyncio.CancelledError):
                self._task.cancel()
            await asyncio.wait([self._task])
            return
        await self._task

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin some work as soon as the one before it is done.

        Raises:
            Exception: what the one before it raised; the new one is not begun.
        """
        if self._task is not None:
            try:
                await self._task
            except BaseException:
                work.close()
                raise
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(self._look)

    def _look(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._on_failure()


def _ids(arrivals: Sequence[Arrival]) -> dict[str, str]:
    """Name the message that log lines are about; of a batch there is none, and what fails is tried again alone."""
    if len(arrivals) > 1:
        return {}
    event = arrivals[0].event
    ids = {"message_id": event.id, "type": event.type, "tenant_id": event.message.tenant_id}
    ids |= {"workflow_id": event.workflow_id, "step": event.step, "causation_id": event.causation_id}
    return {name: str(value) for name, value in ids.items() if value is not None}


def backoff(attempt: int) -> float:
    """Return the seconds to wait before another attempt: doubling from 0.2, capped, with jitter against stampedes."""
    longest = min(_LONGEST_WAIT, 0.2 * float(2 ** min(attempt - 1, 10)))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def _nothing() -> None:
    """Tell nobody."""


async def wait_until_consuming(consumer: Consumer) -> None:
    """Return when the subscription stands."""
    while not consumer.is_consuming:  # noqa: ASYNC110 - a start-up wait of a few polls
        await asyncio.sleep(0.01)
