"""The data lake: what is known of tenants and their usage, as Parquet files that anybody's tools read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from services.metrics.lake.exporter import Exporter
from services.metrics.lake.lake import Lake
from services.metrics.lake.stores import store_of
from services.metrics.lake.terms import LakeTerms
from shared.clock import Clock
from shared.postgres import Pool
from shared.threads import Threads

__all__ = ["Exporter", "Lake", "LakeTerms", "open_lake", "store_of"]

_MOST_WAITING = 4


@asynccontextmanager
async def open_lake(
    terms: LakeTerms | None, pool: Pool, clock: Clock, registry: CollectorRegistry
) -> AsyncIterator[Lake | None]:
    """Return what keeps the lake, None where there is none to be kept.

    Args:
        registry: where ``tenure_metrics_lake_*`` are kept.
    """
    if terms is None:
        yield None
        return
    threads = Threads(1, most=_MOST_WAITING, name="lake")
    store = store_of(terms.place)
    try:
        yield Lake(Exporter(pool, store, threads, clock=clock), store, threads, clock, terms=terms, registry=registry)
    finally:
        threads.close()
        store.close()
