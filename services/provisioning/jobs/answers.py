"""What whoever asked for a job is told when it has ended."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from services.provisioning.jobs.course import Advanced
from services.provisioning.jobs.job import Failure, Job, Operation, Row
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
_REMOVED: Mapping[Operation, type[contracts.EnvironmentRemoved | contracts.ProductsRemoved]] = {
    Operation.REMOVE: contracts.EnvironmentRemoved,
    Operation.REMOVE_PRODUCTS: contracts.ProductsRemoved,
}
_NOTHING = MappingProxyType({"environments": 0, "deployments": 0})


def answer_of(job: Job, advanced: Advanced) -> Fact:
    """Return the answer to a job that has ended.

    Args:
        job: as it was before its last step.
    """
    if job.is_going_back:
        return undone(job.asked, job.tenant_id) if job.failure is None else refused(job, job.failure)
    return _DONE[job.asked](job, advanced)


def undone(operation: Operation, tenant_id: str) -> Fact:
    """Say that nothing of an operation is left."""
    return _UNDONE[operation](tenant_id=tenant_id)


def refused(job: Job, failure: Failure) -> Refusal:
    """Say that something cannot be done."""
    return refusal(job.asked, job.tenant_id, failure)


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


def removed(operation: Operation, tenant_id: str, deleted: Mapping[str, int] = _NOTHING) -> Fact:
    """Say how much was removed: nothing, where there was no environment to remove."""
    return _REMOVED[operation](tenant_id=tenant_id, deleted=dict(deleted))


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


def _removed(job: Job, advanced: Advanced) -> Fact:
    return removed(job.asked, job.tenant_id, advanced.result)


_DONE: Mapping[Operation, Callable[[Job, Advanced], Fact]] = {
    Operation.PROVISION: _provisioned,
    Operation.MOVE: _moved,
    Operation.THROTTLE: _throttled,
    Operation.RELEASE: _released,
    Operation.DEPLOY: _deployed,
    Operation.EXPORT: _exported,
    Operation.REMOVE: _removed,
    Operation.REMOVE_PRODUCTS: _removed,
}
