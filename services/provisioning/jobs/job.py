"""What a job is: something that was asked for, and how far it has come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, TypeAlias
from uuid import UUID

import asyncpg

from services.provisioning.drivers import Environment

Row: TypeAlias = Mapping[str, Any] | asyncpg.Record
"""Values by the names of columns."""


class State(StrEnum):
    """Where a job stands; the ways between them are in the schema."""

    RUNNING = "running"
    DONE = "done"
    FAILING = "failing"
    UNDOING = "undoing"


class Operation(StrEnum):
    """What can be asked for."""

    PROVISION = "provision"
    MOVE = "move"
    THROTTLE = "throttle"
    RELEASE = "release"
    DEPLOY = "deploy"
    EXPORT = "export"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job cannot be done.

    Attributes:
        code: stable, machine-readable.
        detail: a sentence for people.
    """

    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing that was asked for.

    Attributes:
        ask_id: the message that is answered in the end.
        lane: whose turn it is: the driver and what is asked of it.
        wanted: settings of the environment that are asked for, JSON.
        found: what they were, as soon as they are others; for the way back.
        stage: the driver's next step.
        notes: what the driver's steps have noted.
        failure: why it is on the way back, unless somebody wanted it back.
        attempts: that this stage has been begun.
        said: what has been reached, for people.
    """

    job_id: UUID
    tenant_id: str
    workflow_id: UUID
    step: str
    ask_id: UUID
    operation: Operation
    lane: str
    wanted: Mapping[str, Any] = field(default_factory=dict)
    found: Mapping[str, Any] | None = None
    state: State = State.RUNNING
    stage: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    attempts: int = 0
    said: str | None = None

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of the table."""
        return cls(
            job_id=row["job_id"],
            tenant_id=row["tenant_id"],
            workflow_id=row["workflow_id"],
            step=row["step"],
            ask_id=row["ask_id"],
            operation=Operation(row["operation"]),
            lane=row["lane"],
            wanted=row["wanted"],
            found=row["found"],
            state=State(row["state"]),
            stage=row["stage"],
            notes=row["notes"],
            failure=Failure(**row["failure"]) if row["failure"] else None,
            attempts=row["attempts"],
            said=row["said"],
        )

    @property
    def key(self) -> tuple[UUID, str]:
        """The operation of the barrier that it belongs to."""
        return self.workflow_id, self.step

    @property
    def is_going_back(self) -> bool:
        """Whether it takes back what it has done."""
        return self.state in {State.FAILING, State.UNDOING}

    @property
    def carries(self) -> bool:
        """Whether it carries data from one kind of environment to another."""
        return self.lane.endswith(f"/{Operation.MOVE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What our records say of an environment.

    Attributes:
        throttled_at: since when nobody may work in it, RFC 3339; None where it is open.
        resources: what its driver has made, in the driver's own words.
    """

    environment_id: UUID
    tenant_id: str
    driver: str
    isolation: str
    region: str
    status: str
    connections: int | None = None
    throttled_at: str | None = None
    throttle_reason: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    products: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Row) -> Self:
        """Make it from a row of `services.provisioning.queries.environments.find`, or a job's memory of one."""
        throttled_at = row["throttled_at"]
        return cls(
            environment_id=UUID(str(row["environment_id"])),
            tenant_id=row["tenant_id"],
            driver=row["driver"],
            isolation=row["isolation"],
            region=row["region"],
            status=row["status"],
            connections=row["connections"],
            throttled_at=throttled_at.isoformat() if isinstance(throttled_at, datetime) else throttled_at,
            throttle_reason=row["throttle_reason"],
            parameters=row["parameters"],
            resources=row["resources"],
            products=row["products"],
        )

    def for_driver(self) -> Environment:
        """Say it in the words of drivers."""
        return Environment(
            environment_id=self.environment_id,
            tenant_id=self.tenant_id,
            isolation=self.isolation,
            region=self.region,
            connections=self.connections,
            is_throttled=self.throttled_at is not None,
            products=self.products,
            parameters=self.parameters,
            resources=self.resources,
        )
