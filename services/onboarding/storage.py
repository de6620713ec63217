"""Workflows as rows: how they are written down, and read again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from services.onboarding import queries
from services.onboarding.saga import Entry
from services.onboarding.workflow import Due, Failure, PlannedStep, Progress, Status, Step, StepStatus, Workflow
from shared.postgres import Connection


@dataclass(frozen=True)
class Stored:
    """A workflow with what the core does not look at.

    Attributes:
        definition: the name of the definition it started with, and its ``version``.
        request: what was accepted, JSON.
        created_at: when it was; None while that is only about to happen.
        traceparent: of its beginning, where that was traced.
    """

    workflow: Workflow
    definition: str
    version: int
    request: Mapping[str, Any]
    created_at: datetime | None = None
    traceparent: str | None = None


def workflow_row(workflow: Workflow) -> dict[str, Any]:
    """Return the columns that change while a workflow runs."""
    return {
        "id": workflow.id,
        "status": workflow.status,
        "failure": workflow.failure,
        "seq": workflow.seq,
        "updated_at": workflow.updated_at,
        "finished_at": workflow.finished_at,
        "deadline_at": workflow.deadline_at,
    }


def step_row(workflow_id: UUID, name: str, step: Step) -> dict[str, Any]:
    """Return the columns of a step."""
    return {"workflow_id": workflow_id, "name": name, **_columns(step)}


def history_rows(workflow: Workflow, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the columns of history entries."""
    return [{"workflow_id": workflow.id, "tenant_id": workflow.tenant_id, **_columns(entry)} for entry in entries]


def _columns(instance: Step | Entry | PlannedStep) -> dict[str, Any]:
    """Name what an instance holds; what is nested stays as it is, because copying it would cost more than the SQL."""
    return {name: getattr(instance, name) for name in instance.__slots__}


async def load(connection: Connection, rows: Sequence[asyncpg.Record]) -> dict[UUID, Stored]:
    """Make workflows of their rows and the rows of their steps, in the order of ``rows``."""
    steps: dict[UUID, dict[str, Step]] = {}
    if rows:
        for row in await queries.steps_of(connection, [row["id"] for row in rows]):
            steps.setdefault(row["workflow_id"], {})[row["name"]] = _step(row)
    return {
        row["id"]: Stored(
            _workflow(row, steps[row["id"]]),
            row["definition"] or row["kind"],
            row["version"],
            row["request"],
            row["created_at"],
            row["traceparent"],
        )
        for row in rows
    }


def _workflow(row: asyncpg.Record, steps: Mapping[str, Step]) -> Workflow:
    plan = _plan(row["plan"])
    return Workflow(
        id=row["id"],
        kind=row["kind"],
        tenant_id=row["tenant_id"],
        plan=plan,
        steps={planned.name: steps[planned.name] for planned in plan},
        status=Status(row["status"]),
        failure=Failure(**row["failure"]) if row["failure"] else None,
        seq=row["seq"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
        deadline_at=row["deadline_at"],
    )


def plan_rows(plan: Sequence[PlannedStep]) -> list[dict[str, Any]]:
    """Return a plan as it is stored: without what it does not use, so that code which does not know it can read it."""
    return [{name: value for name, value in _columns(step).items() if value is not False} for step in plan]


@lru_cache(maxsize=256)  # there is one text for each version of a definition
def _plan(text: str) -> tuple[PlannedStep, ...]:
    return tuple(PlannedStep(**step | {"after": tuple(step["after"])}) for step in orjson.loads(text))


def _step(row: asyncpg.Record) -> Step:
    return Step(
        status=StepStatus(row["status"]),
        attempts=row["attempts"],
        undo_attempts=row["undo_attempts"],
        may_have_effect=row["may_have_effect"],
        ask_id=row["ask_id"],
        due_at=row["due_at"],
        due=Due(row["due"]) if row["due"] else None,
        result=row["result"],
        error=Failure(**row["error"]) if row["error"] else None,
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        progress=_progress(row["progress"]) if row["progress"] else None,
        traceparent=row["traceparent"],
    )


def _progress(stored: Mapping[str, Any]) -> Progress:
    at = datetime.fromisoformat(stored["at"])
    return Progress(stage=stored["stage"], detail=stored["detail"], at=at, lines=stored["lines"])
