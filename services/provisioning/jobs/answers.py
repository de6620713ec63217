"""What whoever asked for a job is told when it has ended."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from services.provisioning.jobs.course import Advanced
from services.provisioning.jobs.job import Failure, Job, Operation, Row, Settings
from shared.contracts import provisioning as contracts
from shared.contracts.base import Fact, Refusal

_REFUSED: Mapping[Operation, type[Refusal]] = {
    Operation.PROVISION: contracts.EnvironmentRefused,
    Operation.MOVE: contracts.EnvironmentMoveRefused,
    Operation.THROTTLE: contracts.EnvironmentThrottlingRefused,
    Operation.RELEASE: contracts.EnvironmentReleaseRefused,
    Operation.DEPLOY: contracts.DeploymentRefused,
    Operation.EXPORT: contracts.DataExportRefused,
}
_UNDONE: Mapping[Operation, type[Fact]] = {
    Operation.PROVISION: contracts.EnvironmentDeprovisioned,
    Operation.MOVE: contracts.EnvironmentMovedBack,
    Operation.THROTTLE: contracts.EnvironmentUnthrottled,
    Operation.RELEASE: contracts.EnvironmentRethrottled,
    Operation.DEPLOY: contracts.DeploymentsRestored,
    Operation.EXPORT: contracts.ExportDiscarded,
}


def answer_of(job: Job, environment: Settings | None, advanced: Advanced) -> Fact:
    """Return the answer to a job that has ended.

    Args:
        job: as it was before its last step.
        environment: as it was before that.
    """
    if job.is_going_back:
        return undone(job.operation, job.tenant_id) if job.failure is None else refused(job, job.failure)
    if job.operation is Operation.REMOVE:
        return _removed(job, environment, advanced.result)
    return _DONE[job.operation](job, advanced)


def undone(operation: Operation, tenant_id: str) -> Fact:
    """Say that nothing of an operation is left."""
    return _UNDONE[operation](tenant_id=tenant_id)


def refused(job: Job, failure: Failure) -> Refusal:
    """Say that something cannot be done."""
    return refusal(job.operation, job.tenant_id, failure)


def refusal(operation: Operation, tenant_id: str, failure: Failure, *, retryable: bool = False) -> Refusal:
    """Say that something cannot be done, or not now."""
    return _REFUSED[operation](tenant_id=tenant_id, code=failure.code, detail=failure.detail, retryable=retryable)


def provisioned(tenant_id: str, environment: Row) -> Fact:
    """Say that an environment can be used, given its ``environment_id``, ``isolation`` and ``region``."""
    return contracts.EnvironmentProvisioned(
        tenant_id=tenant_id,
        environment_id=str(environment["environment_id"]),
        isolation=environment["isolation"],
        region=environment["region"],
    )


def removed(tenant_id: str) -> Fact:
    """Say that there was no environment to remove."""
    return contracts.EnvironmentRemoved(tenant_id=tenant_id, deleted={"environments": 0, "deployments": 0})


def _provisioned(job: Job, advanced: Advanced) -> Fact:
    assert advanced.environment is not None
    return provisioned(job.tenant_id, dataclasses.asdict(advanced.environment))


def _moved(job: Job, advanced: Advanced) -> Fact:
    assert advanced.environment is not None
    return contracts.EnvironmentMoved(
        tenant_id=job.tenant_id,
        isolation=advanced.environment.isolation,
        frozen_milliseconds=advanced.result.get("frozenMilliseconds"),
    )


def _throttled(job: Job, _: Advanced) -> Fact:
    return contracts.EnvironmentThrottled(tenant_id=job.tenant_id)


def _released(job: Job, _: Advanced) -> Fact:
    return contracts.EnvironmentReleased(tenant_id=job.tenant_id)


def _deployed(job: Job, _: Advanced) -> Fact:
    return contracts.ProductsDeployed(tenant_id=job.tenant_id)


def _exported(job: Job, advanced: Advanced) -> Fact:
    return contracts.DataExported(tenant_id=job.tenant_id, **advanced.result)


def _removed(job: Job, environment: Settings | None, rows: Mapping[str, Any]) -> Fact:
    own = {"environments": int(environment is not None), "deployments": len(environment.products) if environment else 0}
    return contracts.EnvironmentRemoved(tenant_id=job.tenant_id, deleted=own | dict(rows))


_DONE: Mapping[Operation, Callable[[Job, Advanced], Fact]] = {
    Operation.PROVISION: _provisioned,
    Operation.MOVE: _moved,
    Operation.THROTTLE: _throttled,
    Operation.RELEASE: _released,
    Operation.DEPLOY: _deployed,
    Operation.EXPORT: _exported,
}
