"""Keeps the lake close behind the database for as long as the service runs."""

import functools
from datetime import date, datetime, timedelta
from typing import NoReturn

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from services.metrics.lake.exporter import CounterWentBackError, Exporter, FileFailedError
from services.metrics.lake.stores import Store, StoreUnavailableError
from services.metrics.lake.streams import STREAMS
from services.metrics.lake.terms import LakeTerms
from shared.clock import Clock
from shared.http import Problem
from shared.messaging.consumer import backoff
from shared.postgres import CONTENTION, is_unavailable
from shared.threads import Threads

log = structlog.get_logger(__name__)

_BETWEEN_CLEANING = timedelta(hours=1)
_PASSING = (StoreUnavailableError, CounterWentBackError, Problem, *CONTENTION)


class Lake:
    """Brings what is new into the lake, round by round; it belongs into the service's ``background``.

    Args:
        registry: where ``tenure_metrics_lake_*`` are kept.
    """

    def __init__(
        self,
        exporter: Exporter,
        store: Store,
        threads: Threads,
        clock: Clock,
        *,
        terms: LakeTerms,
        registry: CollectorRegistry,
    ) -> None:
        self._exporter = exporter
        self._store = store
        self._threads = threads
        self._clock = clock
        self._terms = terms
        self._complete_at = clock.now()
        self._cleaned_at: datetime | None = None
        self._count(registry)

    async def run(self) -> NoReturn:
        """Go round after round, for ever; an outage of the database or of the store is waited out."""
        attempt = 0
        while True:
            try:
                await self.round()
                attempt = 0
                await self._clock.sleep(self._terms.seconds)
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, _PASSING)):
                    raise
                attempt += 1
                self._failures.inc()
                log.warning("the lake waits", action="lake_unavailable", attempt=attempt, error=str(error))
                await self._clock.sleep(backoff(attempt))

    async def round(self) -> None:
        """Write what was left, then everything that has come since."""
        await self._write_all()
        is_behind, is_complete = True, False
        while is_behind:
            is_behind = any([await self._exporter.plan(stream) for stream in STREAMS])
            is_complete = await self._write_all()
        now = self._clock.now()
        if is_complete:
            self._complete_at = now
        if self._cleaned_at is None or now - self._cleaned_at >= _BETWEEN_CLEANING:
            await self._clean(now)
            self._cleaned_at = now

    async def _write_all(self) -> bool:
        """Write all files that can be written, and return whether none has failed."""
        failed = set[int]()
        self._waiting.set(await self._exporter.waiting())
        while True:
            try:
                written = await self._exporter.write_next(besides=failed)
            except FileFailedError as error:
                log.exception("a file of the lake cannot be written", action="lake_file_failed", path=str(error))
                self._failures.inc()
                failed.add(error.file.file_id)
                await self._exporter.put_back(error.file)
                continue
            if written is None:
                break
            self._files.labels(written.file.stream).inc()
            self._rows.labels(written.file.stream).inc(written.row_count)
        self._waiting.set(await self._exporter.waiting())
        return not failed

    async def _clean(self, now: datetime) -> None:
        """Remove the files of days that are over, and forget what was written long ago."""
        await self._exporter.forget()
        for stream in STREAMS:
            days = self._terms.days.get(stream)
            before = date.min if days is None else now.date() - timedelta(days=days)
            clean = functools.partial(self._store.remove_days, stream, before=before, now=now)
            if removed := await self._threads.run(clean):
                log.info("old files are removed", action="lake_cleaned", stream=stream, files=removed)

    def _count(self, registry: CollectorRegistry) -> None:
        counter = functools.partial(Counter, namespace="tenure", subsystem="metrics_lake", registry=registry)
        gauge = functools.partial(Gauge, namespace="tenure", subsystem="metrics_lake", registry=registry)
        self._rows = counter("rows", "Rows that were written to the lake.", ["stream"])
        self._files = counter("files", "Files that were written to the lake.", ["stream"])
        self._failures = counter("failures", "How often the lake had to wait, or a file failed.")
        self._waiting = gauge("waiting_files", "Files that are dealt out and not written yet.")
        gauge("behind_seconds", "How long ago the lake had everything last.").set_function(self._behind_seconds)

    def _behind_seconds(self) -> float:
        return (self._clock.now() - self._complete_at).total_seconds()
