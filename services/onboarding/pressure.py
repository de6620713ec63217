"""How much may be under way at once: about what ends within a few seconds, so that what is accepted is done in time.

By Little's law, work waits for as long as it takes to end as many workflows as there are. Beyond that bound a request
is refused at once, which costs next to nothing; accepted, it would make all others wait longer, until their steps were
given up for want of an answer and everything were done for nothing.
"""

import asyncio
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from services.onboarding import queries
from shared.clock import Clock
from shared.postgres import CONTENTION, Pool, is_unavailable

log = structlog.get_logger(__name__)

WINDOW = timedelta(seconds=3)
"""How long accepted work may wait for what was accepted before it."""

LEAST = 500
"""What may be under way however little has ended lately: enough to keep everybody busy, and few enough to be done
before their steps are given up, even at six a second."""

RESERVED = 0.25
"""How much more there may be of what is urgent."""

_SOON = timedelta(seconds=45)
"""What has a timer that goes off within this is at work: all that wait for an answer, and none that lets weeks pass."""

_LOOK_SECONDS = 0.25
_REPORT_EVERY = timedelta(seconds=10)


class Pressure:
    """Knows whether there is room for one more workflow, on all replicas together.

    Args:
        most: the bound that is never passed, however fast workflows end.
        registry: where ``tenure_onboarding_under_way``, ``_room`` and ``_refused_total`` are kept.
    """

    def __init__(self, pool: Pool, clock: Clock, *, most: int, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._clock = clock
        self._most = most
        self._limit = min(LEAST, most)
        self._let_in = 0
        self._entering = 0
        self._under_way = 0
        self._has_entered = asyncio.Event()
        self._refused = 0
        self._reported_at = clock.now() - _REPORT_EVERY
        self._count(registry)

    def is_full(self, *, urgent: bool = False) -> bool:
        """Return whether one more is too many."""
        return self.taken >= self._limit * (1 + RESERVED * urgent)

    @property
    def taken(self) -> int:
        """How many are at work, about to be accepted, or about to be read."""
        return self._under_way + self._entering + self._let_in

    def let_in(self) -> bool:
        """Keep a place for a request that is about to be read, if there is room for it.

        Otherwise all that arrive while the first ones are read would be read, only to be refused.
        """
        if self.is_full():
            self.refuse()
            return False
        self._let_in += 1
        self._has_entered.set()
        return True

    @contextmanager
    def entering(self, *, urgent: bool = False) -> Iterator[bool]:
        """Count one more workflow, if there is room for it: until the end of the block it is about to be accepted.

        Args:
            urgent: whether it may use the reserve; what is urgent has not been let in, but is always read.
        """
        if not urgent:
            self._let_in = max(0, self._let_in - 1)
        if self.is_full(urgent=urgent):
            yield False
            return
        self._entering += 1
        self._has_entered.set()
        try:
            yield True
            self._under_way += 1
        finally:
            self._entering -= 1

    def refuse(self) -> None:
        """Note that somebody was refused."""
        self._refused += 1
        self._refusals.inc()

    async def run(self) -> None:
        """Look four times a second while anything is under way, for ever.

        During an outage of the database, what was seen last holds.
        """
        while True:
            await self._has_entered.wait()
            await self._clock.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    raise
                log.warning("room is not known", action="pressure_unknown", error=repr(error))
            self._report()

    async def look(self) -> None:
        """Find out how much is under way, and how much there may be."""
        now = self._clock.now()
        async with self._pool.acquire(timeout=5.0) as connection:
            under_way, ended = await queries.pressure(
                connection, due_by=now + _SOON, ended_since=now - WINDOW, most=self._most
            )
        self._under_way = under_way
        self._let_in = 0  # of those that are still being read nobody knows which will ever get so far
        self._limit = min(self._most, max(LEAST, ended))
        if not under_way + self._entering:
            self._has_entered.clear()

    def _report(self) -> None:
        if self._refused and abs(self._clock.now() - self._reported_at) >= _REPORT_EVERY:
            log.warning(
                "too much to do",
                action="overloaded",
                refused=self._refused,
                under_way=self.taken,
                limit=self._limit,
            )
            self._refused = 0
            self._reported_at = self._clock.now()

    def _count(self, registry: CollectorRegistry) -> None:
        named = functools.partial(Gauge, namespace="tenure", subsystem="onboarding", registry=registry)
        named("under_way", "Workflows that are at work, on all replicas.").set_function(lambda: self.taken)
        named("room", "How many there may be before orders are refused.").set_function(lambda: self._limit)
        self._refusals = Counter(
            "refused",
            "Orders that were refused because too much was under way.",
            namespace="tenure",
            subsystem="onboarding",
            registry=registry,
        )
