"""Workflows and their history as the public contract shows them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Self

import asyncpg

from services.onboarding.storage import Stored
from services.onboarding.workflow import Due, Failure, PlannedStep, Progress, Step
from shared.http import Resource


class FailureView(Resource):
    """Why a workflow failed."""

    step: str
    code: str
    detail: str


class ProgressView(Resource):
    """How far a service is with a step that takes long, or with its undo."""

    stage: str
    detail: str | None
    at: datetime


class StepView(Resource):
    """One step of a workflow; progress is null where the service told nothing, or is not waited for."""

    name: str
    service: str
    status: Literal["pending", "running", "succeeded", "failed", "undoing", "undone", "skipped"]
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    progress: ProgressView | None


class WorkflowView(Resource):
    """A workflow."""

    id: str
    kind: str
    tenant_id: str
    customer_name: str
    status: Literal["running", "compensating", "needs_attention", "completed", "compensated", "abandoned"]
    steps: tuple[StepView, ...]
    failure: FailureView | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


class AccountView(WorkflowView):
    """The workflow that creates or updates an account, with the account's id."""

    account_id: str


class HistoryEntry(Resource):
    """Something that happened to a workflow."""

    seq: int
    workflow_id: str
    tenant_id: str
    at: datetime
    kind: str
    step: str | None
    attempt: int | None
    detail: dict[str, Any]

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make the view of a row."""
        return cls(
            seq=row["seq"],
            workflow_id=str(row["workflow_id"]),
            tenant_id=row["tenant_id"],
            at=row["at"],
            kind=row["kind"],
            step=row["step"],
            attempt=row["attempt"],
            detail=row["detail"],
        )


def presented(stored: Stored) -> Mapping[str, Any]:
    """Return a stored workflow as JSON."""
    return view(stored).model_dump(mode="json", by_alias=True)


def view(stored: Stored) -> WorkflowView:
    """Make the view of a stored workflow."""
    workflow = stored.workflow
    assert workflow.updated_at is not None
    return WorkflowView(
        id=str(workflow.id),
        kind=workflow.kind,
        tenant_id=workflow.tenant_id,
        customer_name=stored.request["customerName"],
        status=workflow.status.value,
        steps=_steps(workflow.plan, workflow.steps),
        failure=_failure(workflow.failure),
        created_at=stored.created_at or workflow.updated_at,
        updated_at=workflow.updated_at,
        finished_at=workflow.finished_at,
        links=_links(str(workflow.id), workflow.tenant_id),
    )


def _steps(plan: Sequence[PlannedStep], steps: Mapping[str, Step]) -> tuple[StepView, ...]:
    return tuple(_step(planned, steps[planned.name]) for planned in plan)


def _step(planned: PlannedStep, step: Step) -> StepView:
    return StepView(
        name=planned.name,
        service=planned.service,
        status=step.status.value,
        attempts=step.attempts,
        started_at=step.started_at,
        finished_at=step.finished_at,
        error=f"{step.error.code}: {step.error.detail}" if step.error else None,
        progress=_progress(step.progress) if step.progress and step.due is Due.TIMEOUT else None,
    )


def _progress(progress: Progress) -> ProgressView:
    return ProgressView(stage=progress.stage, detail=progress.detail, at=progress.at)


def _failure(failure: Failure | None) -> FailureView | None:
    return FailureView(step=failure.step, code=failure.code, detail=failure.detail) if failure else None


def _links(workflow_id: str, tenant_id: str) -> dict[str, str]:
    own = f"/v1/workflows/{workflow_id}"
    return {"self": own, "history": f"{own}/history", "events": f"{own}/events", "tenant": f"/v1/tenants/{tenant_id}"}
