"""The course of a job: a pure function from a job and what its driver says to what becomes of it and its environment.

    step_of(job, environment) -> Step                       what the driver is asked next
    advance(job, environment, outcome) -> Advanced          what is stored and told of what it says

A job goes to what is wanted; a job that cannot be done, or was taken back, goes to what was found. What the driver has
made is stored with every step, so the way back removes exactly that. On the way back nothing is given up.

One that concerns several environments goes from one to the next, and back through those that it has changed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from services.provisioning.drivers import Done, Environment, Next, Outcome, Refused, Retry, Task
from services.provisioning.jobs.job import Failure, Job, Leg, Operation, Settings, State

MOST_ATTEMPTS = 10
"""Attempts at one stage after which a job is taken back: with the waits between them, about four minutes."""

PATIENCE = 8
"""Attempts at one stage after which those who wait hear no more of it, so that in the end they call a person."""

_LONGEST_WAIT = timedelta(seconds=60)
_GONE = "unknown_environment"


@dataclass(frozen=True, slots=True)
class Step:
    """What a driver is asked next.

    Attributes:
        method: of `services.provisioning.drivers.Driver`, or ``export`` and ``discard`` for exports.
    """

    method: str
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """What is to be stored and told of a step.

    Attributes:
        job: as it goes on or rests; None where nothing of it is kept.
        environment: as it is from now on; None where there is none any more.
        after: how long until the next step.
        result: what whoever asked is told, if it ended well.
        failure: what whoever asked is told, if it could not be done.
        has_ended: whether whoever asked is answered now.
        said: what others are told of the progress.
    """

    job: Job | None
    environment: Settings | None
    after: timedelta = timedelta(0)
    result: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    has_ended: bool = False
    said: str | None = None


_METHODS = {
    Operation.PROVISION: ("provision", "deprovision"),
    Operation.REMOVE: ("deprovision", "deprovision"),
    Operation.THROTTLE: ("throttle", "throttle"),
    Operation.RELEASE: ("throttle", "throttle"),
    Operation.DEPLOY: ("deploy", "deploy"),
    Operation.EXPORT: ("export", "discard"),
}


def method_of(job: Job) -> str:
    """Return what its driver is asked."""
    if job.operation is Operation.MOVE:
        return "move" if job.carries else "throttle"
    return _METHODS[job.operation][job.is_going_back]


def step_of(job: Job, environment: Settings | None) -> Step | Outcome:
    """Return what the driver is asked next; or what there is to say without asking, if there is no environment."""
    if environment is None and job.operation is Operation.PROVISION:
        environment = Settings.of(job.wanted)  # removed by a process of the release before: what is left of it goes too
    if environment is None:
        is_done = job.is_going_back or job.operation is Operation.REMOVE
        return Done() if is_done else Refused(code=_GONE, detail=_gone(job.tenant_id))
    wanted = replace(environment, **_settings(job, environment))
    if job.carries:
        is_there = wanted.isolation == environment.isolation
        target = wanted.for_driver() if is_there else _unmade(wanted)
        return Step("move", _task(job, environment.for_driver(), target))
    return Step(method_of(job), _task(job, wanted.for_driver()))


def _task(job: Job, environment: Environment, target: Environment | None = None) -> Task:
    return Task(environment=environment, target=target, stage=job.stage, notes=job.notes)


def _unmade(wanted: Settings) -> Environment:
    return replace(wanted.for_driver(), resources={})


def _gone(tenant_id: str) -> str:
    return f"There is no environment of tenant {tenant_id}."


_CHANGES = (Operation.MOVE, Operation.THROTTLE, Operation.RELEASE, Operation.DEPLOY)


def _settings(job: Job, environment: Settings) -> Mapping[str, Any]:
    """Return the settings that the job brings about: what is wanted, or what was found."""
    if job.operation not in _CHANGES:
        return {}
    if job.is_going_back:
        return job.found or {}
    if job.operation is Operation.THROTTLE and environment.throttled_at is not None and job.found is None:
        return {}  # throttled already: it keeps its reason
    return job.wanted


def advance(job: Job, environment: Settings | None, outcome: Outcome) -> Advanced:
    """Take into account what the driver said of a step."""
    match outcome:
        case Done() if job.is_going_back:
            return _go_back(job, _end(job, environment, outcome))
        case Done():
            return _go_further(job, _end(job, environment, outcome))
        case Next():
            return _go_on(job, environment, outcome)
        case Retry():
            return _try_again(job, environment, outcome)
        case Refused() if job.is_going_back or job.operation is Operation.REMOVE:
            return _try_again(job, environment, Retry(detail=outcome.detail))
        case Refused():
            return _fail(job, environment, Failure(outcome.code, outcome.detail))


def turn_back(job: Job, environment: Settings | None) -> Advanced:
    """Take into account that a job was taken back while a step of it was under way."""
    back = replace(job, state=State.UNDOING, stage="", attempts=0)
    return Advanced(job=back, environment=environment)


def _end(job: Job, environment: Settings | None, outcome: Done) -> Advanced:
    if job.operation is Operation.REMOVE:
        return Advanced(job=None, environment=None, result=_removed(environment, outcome.result), has_ended=True)
    if job.operation is Operation.PROVISION and job.is_going_back:
        return Advanced(job=None, environment=None, failure=job.failure, has_ended=True)
    if job.operation is Operation.EXPORT:
        kept = None if job.is_going_back else replace(job, state=State.DONE, found={})
        return Advanced(job=kept, environment=environment, result=outcome.result, failure=job.failure, has_ended=True)
    changed, found = _changed(job, environment, outcome.resources)
    kept = None
    if found and not job.is_going_back:
        kept = replace(job, state=State.DONE, found=found, stage="", notes={})
    return Advanced(job=kept, environment=changed, result=outcome.result, failure=job.failure, has_ended=True)


def _removed(environment: Settings | None, rows: Mapping[str, Any]) -> Mapping[str, Any]:
    deployments = len(environment.products) if environment else 0
    return {"environments": int(environment is not None), "deployments": deployments} | dict(rows)


def _go_further(job: Job, ended: Advanced) -> Advanced:
    """Go to the next environment, or rest where there is none."""
    legs = (*job.behind, replace(job.leg, found=ended.job.found if ended.job else None, result=ended.result))
    if job.ahead:
        return replace(ended, job=_at(job, job.ahead[0], ahead=job.ahead[1:], behind=legs), has_ended=False)
    if job.operation is Operation.REMOVE:
        return replace(ended, result=_sum([leg.result for leg in legs]))
    if ended.job is None and job.asked in _CHANGES and any(leg.is_to_be_taken_back for leg in legs):
        return replace(ended, job=replace(job, state=State.DONE, found={}, stage="", notes={}))
    return ended


def _go_back(job: Job, ended: Advanced) -> Advanced:
    """Go to one more environment that there is something to take back in, or rest where there is none.

    One that was to be made and was not reached is on record, and goes too.
    """
    left = [leg for leg in (*job.behind, *job.ahead) if leg.is_to_be_taken_back]
    if not left:
        return ended
    return replace(ended, job=_at(job, left[-1], ahead=(), behind=left[:-1]), has_ended=False)


def _at(job: Job, leg: Leg, *, ahead: Sequence[Leg], behind: Sequence[Leg]) -> Job:
    return replace(
        job,
        tenancy=leg.tenancy,
        operation=leg.operation,
        lane=leg.lane,
        wanted=leg.wanted,
        found=leg.found,
        ahead=tuple(ahead),
        behind=tuple(behind),
        stage="",
        notes={},
        attempts=0,
    )


def _sum(results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    total: Counter[str] = Counter()
    for result in results:
        total.update(result)
    return dict(total)


def _changed(
    job: Job, environment: Settings | None, resources: Mapping[str, Any]
) -> tuple[Settings | None, Mapping[str, Any] | None]:
    """Return the environment as the job makes it, and what of it was found to be otherwise."""
    if environment is None:
        return None, job.found
    settings = _settings(job, environment)
    found = {name: getattr(environment, name) for name in settings if getattr(environment, name) != settings[name]}
    changed = replace(environment, **settings, resources=resources, status="ready")
    return changed, job.found if job.found is not None else found


def _go_on(job: Job, environment: Settings | None, outcome: Next) -> Advanced:
    onward = replace(
        job,
        stage=outcome.stage,
        notes={**job.notes, **outcome.notes},
        attempts=0,
        said=outcome.said or job.said,
    )
    if outcome.has_switched:
        changed, found = _changed(job, environment, outcome.resources)
        if not job.is_going_back:
            onward = replace(onward, found=found)
        if changed is not None:
            changed = replace(changed, status="moving")
    else:
        changed = environment and _with_resources(job, environment, outcome)
    return Advanced(job=onward, environment=changed, after=outcome.after, said=outcome.said)


def _with_resources(job: Job, environment: Settings, outcome: Next) -> Settings:
    if job.carries:
        return environment
    is_leaving = job.operation is Operation.PROVISION and job.is_going_back
    return replace(environment, resources=outcome.resources, status="removing" if is_leaving else environment.status)


def _try_again(job: Job, environment: Settings | None, outcome: Retry) -> Advanced:
    is_bounded = not job.is_going_back and job.operation is not Operation.REMOVE
    if is_bounded and job.attempts >= MOST_ATTEMPTS:
        return _fail(job, environment, Failure("provisioning_failed", outcome.detail))
    wait = min(_LONGEST_WAIT, timedelta(seconds=2.0 ** min(job.attempts - 1, 10)))
    said = f"attempt {job.attempts} failed: {outcome.detail}"
    told = said if job.attempts <= PATIENCE else None
    return Advanced(job=replace(job, said=said), environment=environment, after=max(wait, outcome.after), said=told)


def _fail(job: Job, environment: Settings | None, failure: Failure) -> Advanced:
    back = replace(job, state=State.FAILING, stage="", attempts=0, failure=failure)
    changed = environment
    if environment is not None and job.operation is Operation.PROVISION:
        changed = replace(environment, status="removing")
    return Advanced(job=back, environment=changed, said=f"taken back: {failure.detail}")
