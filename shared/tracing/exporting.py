"""Whether anything is traced, and for how long."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from shared.settings import TracingSettings
from shared.tracing import spans


class Exporting(Protocol):
    """The export of a process's spans."""

    def flush(self) -> None:
        """Export what has ended, and wait for it."""
        ...


@contextmanager
def exported(settings: TracingSettings, *, version: str) -> Iterator[Exporting | None]:
    """Trace what this process does until the end of the block, if the settings say where to; yield None if not.

    Args:
        version: of the services.
    """
    if not settings.is_on:
        yield None
        return
    # Who traces nothing has neither the memory nor the time for what comes with it.
    from shared.tracing.pipeline import Pipeline  # noqa: PLC0415

    pipeline = Pipeline(settings, version=version)
    spans.switch(pipeline.tracer_of)
    try:
        yield pipeline
    finally:
        spans.switch(None)
        pipeline.close()
