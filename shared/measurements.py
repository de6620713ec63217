"""What is measured of every service besides its requests and messages: its database pool, its outbox and its queues.

What has to be asked for is asked for now and then in the background; whoever reads ``/metrics`` gets what was found
last and waits for nobody. No label is a tenant, a workflow or anything else that a client chooses.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

import structlog
from prometheus_client import CollectorRegistry, Gauge, Histogram

from shared.clock import Clock
from shared.ids import moment_of
from shared.messaging.bus import Bus
from shared.messaging.topology import RETRY_DELAYS, read_by, retry_queue_of
from shared.postgres import MeasuredPool, Pool, transaction

log = structlog.get_logger(__name__)

POLL_SECONDS = 15.0
"""How old a figure may be that has to be asked for."""

FIRST_SECONDS = 2.0
"""After how long it is asked for first: by then a service has its connections."""

MOST_COUNTED = 100_000
"""How far rows of the outbox are counted; where there are more, how many more tells nobody anything."""

_PATIENCE_SECONDS = 10.0
_WAIT_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)

Poll = Callable[[], Awaitable[None]]


class Measurements:
    """What is known of one service.

    Args:
        service: its name, as in `shared.contracts.SERVICES`.
        version: of the code, for ``tenure_build_info``.
        registry: where everything is kept.
    """

    def __init__(
        self, *, service: str, version: str, pool: Pool, bus: Bus, clock: Clock, registry: CollectorRegistry
    ) -> None:
        self._pool = pool
        self._bus = bus
        self._clock = clock
        self._queues = [*read_by(service), *(retry_queue_of(service, delay) for delay in RETRY_DELAYS)]
        self._polls: dict[str, Poll] = {"outbox": self._look_into_outbox, "queues": self._look_at_queues}
        gauge = functools.partial(Gauge, registry=registry)
        gauge("tenure_build_info", "What runs; always 1.", ["version"]).labels(version).set(1)
        self._pending = gauge("tenure_outbox_messages", f"Messages not yet sent, counted up to {MOST_COUNTED}.")
        self._oldest = gauge("tenure_outbox_oldest_seconds", "How long the oldest message was not sent; 0 for none.")
        self._depth = gauge("tenure_queue_messages", "Messages of own queues that nobody has.", ["queue"])
        self._polled = gauge("tenure_polled_timestamp_seconds", "When figures were asked for last.", ["what"])
        self._pools = PoolMeasurements(registry)
        self.watch_pool("service", pool)

    def watch_pool(self, name: str, pool: Pool) -> None:
        """Measure one more pool of connections."""
        if isinstance(pool, MeasuredPool):
            self._pools.watch(name, pool)

    def poll(self, what: str, look: Poll) -> None:
        """Ask for something more, as often as for the rest.

        Args:
            what: the name under which ``tenure_polled_timestamp_seconds`` and the log have it.
        """
        self._polls[what] = look

    async def run(self) -> NoReturn:
        """Ask for everything again and again. What cannot be had stays as it was, and nothing else comes of it."""
        await self._clock.sleep(FIRST_SECONDS)
        while True:
            for what, look in self._polls.items():
                await self._ask(what, look)
            await self._clock.sleep(POLL_SECONDS)

    async def _ask(self, what: str, look: Poll) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await look()
        except Exception as error:  # noqa: BLE001 - whatever it is, no service ends for want of a figure
            log.warning("this is not measured", action="poll_failed", what=what, error=repr(error))
        else:
            self._polled.labels(what).set(self._clock.now().timestamp())

    async def _look_into_outbox(self) -> None:
        async with transaction(self._pool, seconds=_PATIENCE_SECONDS) as connection:
            (row,) = await connection.fetch(
                """
                SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT $1) AS first) AS pending,
                       (SELECT id FROM outbox ORDER BY id LIMIT 1) AS oldest
                """,
                MOST_COUNTED,
            )
        self._pending.set(row["pending"])
        age = (self._clock.now() - moment_of(row["oldest"])).total_seconds() if row["oldest"] else 0.0
        self._oldest.set(max(0.0, age))

    async def _look_at_queues(self) -> None:
        depths: Sequence[int] = await self._bus.depths(self._queues)
        for queue, depth in zip(self._queues, depths, strict=True):
            self._depth.labels(queue).set(depth)


class PoolMeasurements:
    """What is known of the pools of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = functools.partial(Gauge, labelnames=["pool"], registry=registry)
        self._size = gauge("tenure_pool_connections", "Connections that the pool has.")
        self._idle = gauge("tenure_pool_idle_connections", "Connections that nobody uses.")
        self._most = gauge("tenure_pool_max_connections", "How many connections the pool may have.")
        self._waiting = gauge("tenure_pool_waiting", "How many wait for a connection.")
        self._seconds = Histogram(
            "tenure_pool_wait_seconds",
            "How long it took to get a connection.",
            ["pool"],
            buckets=_WAIT_SECONDS,
            registry=registry,
        )

    def watch(self, name: str, pool: MeasuredPool) -> None:
        """Measure a pool from now on."""
        self._size.labels(name).set_function(pool.get_size)
        self._idle.labels(name).set_function(pool.get_idle_size)
        self._most.labels(name).set_function(pool.get_max_size)
        self._waiting.labels(name).set_function(lambda: pool.waiting)
        pool.on_wait = self._seconds.labels(name).observe
