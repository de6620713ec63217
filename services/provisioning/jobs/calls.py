"""How drivers are called: in batches where they take them, one by one where a batch fails, and never for too long."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import structlog

from services.provisioning.drivers import Driver, Outcome, Retry, Task
from services.provisioning.drivers.registry import Drivers
from services.provisioning.jobs.course import Step, method_of, step_of
from services.provisioning.jobs.settling import Held
from shared.failpoints import failpoint

log = structlog.get_logger(__name__)

Method: TypeAlias = Callable[[Sequence[Task]], Awaitable[Sequence[Outcome]]]
Special: TypeAlias = Callable[[Driver, Held], Awaitable[Outcome]]
"""What is done for a job beside what every driver can do."""


class Calls:
    """Asks drivers for the next step of jobs.

    Args:
        specials: by method, what the service does itself with the help of a driver.
    """

    def __init__(self, drivers: Drivers, specials: Mapping[str, Special]) -> None:
        self._drivers = drivers
        self._specials = specials

    def group(self, jobs: Sequence[Held]) -> list[list[Held]]:
        """Part jobs into those that can be one call."""
        lanes = self._drivers.lanes()
        calls: dict[tuple[str, str], list[list[Held]]] = {}
        for held in jobs:
            parts = calls.setdefault((held.job.lane, method_of(held.job)), [[]])
            size = lanes[held.job.lane].batch
            if len(parts[-1]) == size:
                parts.append([])
            parts[-1].append(held)
        return [part for parts in calls.values() for part in parts]

    async def make(self, jobs: Sequence[Held]) -> list[tuple[Held, Outcome]]:
        """Ask for the next step of jobs that are one call, and return what was said of each."""
        steps = [(held, _step_of(held)) for held in jobs]
        said = [(held, step) for held, step in steps if not isinstance(step, Step)]
        asked = [(held, step) for held, step in steps if isinstance(step, Step)]
        if asked:
            said += await self._ask(asked)
        await failpoint("job_stepped")
        return said

    async def _ask(self, asked: Sequence[tuple[Held, Step]]) -> list[tuple[Held, Outcome]]:
        held, step = asked[0]
        try:
            async with asyncio.timeout(self._drivers.lanes()[held.job.lane].step.total_seconds()):
                outcomes = await self._call(held.job.lane, step.method, asked)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job is tried again, up to a limit
            if len(asked) > 1:
                log.warning("drivers failed, one by one", action="call_split", lane=held.job.lane, error=repr(error))
                return [said for each in asked for said in await self._ask([each])]
            return [(held, _failed(held, error))]
        return [(each, outcome) for (each, _), outcome in zip(asked, outcomes, strict=True)]

    async def _call(self, lane: str, method: str, asked: Sequence[tuple[Held, Step]]) -> Sequence[Outcome]:
        driver = self._drivers.of(lane)
        if special := self._specials.get(method):
            return [await special(driver, held) for held, _ in asked]
        call: Method = getattr(driver, method)
        return await call([step.task for _, step in asked])


def _step_of(held: Held) -> Step | Outcome:
    """Return the next step; a job that cannot be read must not hold up those that were claimed with it."""
    try:
        return step_of(held.job, held.environment)
    except Exception as error:  # noqa: BLE001 - as for what drivers raise
        return _failed(held, error)


def _failed(held: Held, error: Exception) -> Retry:
    job = held.job
    log.warning(
        "step failed",
        action="step_failed",
        tenant_id=job.tenant_id,
        workflow_id=str(job.workflow_id),
        operation=job.operation,
        stage=job.stage,
        attempt=job.attempts,
        error=repr(error),
        exc_info=error,
    )
    # What an error says may be a secret; what kind of error it is is not.
    return Retry(detail=f"The driver of {job.lane} failed with {type(error).__name__}.")
