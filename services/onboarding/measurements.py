"""What is measured of workflows: how many there are, how long they take, what they come to and what is tried again.

What has happened is counted when the broker has been told it: once, by whichever replica told it.
"""

import functools
from datetime import datetime
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.onboarding import queries
from services.onboarding.lifecycles import DEFINITIONS
from services.onboarding.workflow import Status
from shared.clock import Clock
from shared.ids import moment_of
from shared.messaging.bus import Parcel
from shared.messaging.topology import STATUS_EXCHANGE
from shared.postgres import Pool, transaction

_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86_400, 604_800, 2_592_000)
"""From an onboarding with nobody in front of it to an off-boarding after a month."""

_ACTIVE = [status for status in Status if not status.is_final]
_FINAL = [status for status in Status if status.is_final]
_KINDS = sorted({definition.kind for definition in DEFINITIONS.values()})
_POLL_SECONDS = 5.0


class WorkflowMeasurements:
    """What is known of the workflows of all tenants together.

    Args:
        registry: where it is kept.
    """

    def __init__(self, pool: Pool, *, clock: Clock, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._clock = clock
        counter, gauge = functools.partial(Counter, registry=registry), functools.partial(Gauge, registry=registry)
        self._seconds = Histogram(
            "tenure_workflow_seconds",
            "From the acceptance of a workflow to its end, by kind and outcome.",
            ["kind", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._statuses = counter(
            "tenure_workflow_statuses", "How often a workflow took a status; started is the first.", ["kind", "status"]
        )
        self._retries = counter(
            "tenure_workflow_step_retries", "How often a step, or its undo, was tried again.", ["kind", "step"]
        )
        self._failures = counter("tenure_workflow_step_failures", "How often a step failed for good.", ["kind", "step"])
        self._in_progress = gauge(
            "tenure_workflows_in_progress", "Workflows that have not ended, on all replicas.", ["kind", "status"]
        )
        self._quiet = gauge(
            "tenure_workflow_quiet_seconds",
            "For how long nothing has happened to the quietest workflow that does not just let time pass.",
            ["kind", "status"],
        )
        self._overdue = gauge("tenure_timers_overdue_seconds", "For how long the first timer should have gone off.")

    def told(self, parcel: Parcel) -> None:
        """Count what everybody outside has been told."""
        if parcel.exchange != STATUS_EXCHANGE:
            return
        topic, _, about = parcel.routing_key.partition(".")
        match topic, about.split("."):
            case "status", [kind, status, *_]:
                self._statuses.labels(kind, status).inc()
                if status in _FINAL:
                    self._seconds.labels(kind, status).observe(_lasted(parcel))
            case "retry", [kind, step, *_]:
                self._retries.labels(kind, step).inc()
            case "error", [kind, step, *_]:
                self._failures.labels(kind, step).inc()

    async def look(self) -> None:
        """Find out what is under way."""
        async with transaction(self._pool, seconds=_POLL_SECONDS) as connection:
            rows = await queries.in_progress(connection)
        now = self._clock.now()
        found = {(row["kind"], row["status"]): row for row in rows}
        for key in {(kind, str(status)) for kind in _KINDS for status in _ACTIVE} | found.keys():
            row = found.get(key)
            self._in_progress.labels(*key).set(row["count"] if row else 0)
            self._quiet.labels(*key).set(_since(row["quiet_since"], now) if row else 0)
        self._overdue.set(max((_since(row["next_due"], now) for row in rows), default=0))


def _since(moment: datetime | None, now: datetime) -> float:
    """Return the seconds that have passed; none where there is no moment, or it has not come."""
    return max(0.0, (now - moment).total_seconds()) if moment else 0.0


def _lasted(parcel: Parcel) -> float:
    """Return the seconds between the making of a workflow's id, at its acceptance, and the event."""
    ended = datetime.fromisoformat(str(parcel.headers["ce-time"]))
    return _since(moment_of(UUID(str(parcel.headers["ce-correlationid"]))), ended)
