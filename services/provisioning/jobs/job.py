"""What a job is: something that was asked for, and how far it has come.

What is asked of a tenant's environments is done in one after the other: each is a leg of the job. Most jobs have one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, TypeAlias
from uuid import UUID

import asyncpg

from services.provisioning.drivers import Environment, parts_of

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
    REMOVE_PRODUCTS = "remove-products"


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
class Leg:
    """What a job does in one environment.

    Attributes:
        tenancy: what the environment goes by; see `services.provisioning.drivers.tenancy_of`.
        lane: whose turn it is: the driver and what is asked of it.
        wanted: settings of the environment that are asked for, JSON.
        found: what they were, as soon as they are others; for the way back.
        result: what its driver has told whoever asked, JSON.
    """

    tenancy: str
    operation: Operation
    lane: str
    wanted: Mapping[str, Any] = field(default_factory=dict)
    found: Mapping[str, Any] | None = None
    result: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Self:
        """Make it from what a job has kept of it."""
        return cls(**{**kept, "operation": Operation(kept["operation"])})

    @property
    def is_to_be_taken_back(self) -> bool:
        """Whether there is something to take back: an environment that is on record, or settings that were others."""
        return self.operation is Operation.PROVISION or bool(self.found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing that was asked for.

    Attributes:
        ask_id: the message that is answered in the end.
        asked: what was asked for as a whole.
        tenancy: what the environment goes by that it is at.
        operation: what it does there.
        lane: whose turn it is: the driver and what is asked of it.
        wanted: settings of the environment that are asked for, JSON.
        found: what they were, as soon as they are others; for the way back.
        ahead: what it does in other environments after this, unless it turns back.
        behind: what it has done in others before.
        stage: the driver's next step.
        notes: what the driver's steps have noted.
        failure: why it is on the way back, unless somebody wanted it back.
        attempts: that this stage has been begun.
        said: what has been reached, for people.
        traceparent: of the handling of what is answered in the end, where that was traced.
    """

    job_id: UUID
    tenant_id: str
    workflow_id: UUID
    step: str
    ask_id: UUID
    asked: Operation
    tenancy: str
    operation: Operation
    lane: str
    wanted: Mapping[str, Any] = field(default_factory=dict)
    found: Mapping[str, Any] | None = None
    ahead: Sequence[Leg] = ()
    behind: Sequence[Leg] = ()
    state: State = State.RUNNING
    stage: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    attempts: int = 0
    said: str | None = None
    traceparent: str | None = None

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of the table."""
        return cls(
            job_id=row["job_id"],
            tenant_id=row["tenant_id"],
            workflow_id=row["workflow_id"],
            step=row["step"],
            ask_id=row["ask_id"],
            asked=Operation(row["asked"] or row["operation"]),
            tenancy=row["tenancy"] or row["tenant_id"],
            operation=Operation(row["operation"]),
            lane=row["lane"],
            wanted=row["wanted"],
            found=row["found"],
            ahead=tuple(map(Leg.of, row["ahead"])),
            behind=tuple(map(Leg.of, row["behind"])),
            state=State(row["state"]),
            stage=row["stage"],
            notes=row["notes"],
            failure=Failure(**row["failure"]) if row["failure"] else None,
            attempts=row["attempts"],
            said=row["said"],
            traceparent=row["traceparent"],
        )

    @property
    def key(self) -> tuple[UUID, str]:
        """The operation of the barrier that it belongs to."""
        return self.workflow_id, self.step

    @property
    def leg(self) -> Leg:
        """What it does in the environment that it is at."""
        return Leg(tenancy=self.tenancy, operation=self.operation, lane=self.lane, wanted=self.wanted, found=self.found)

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
        tenant_id: what it goes by; see `services.provisioning.drivers.tenancy_of`.
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

    @property
    def owner(self) -> str:
        """The id of the tenant whose it is."""
        return parts_of(self.tenant_id)[0]

    @property
    def product(self) -> str | None:
        """The product whose own environment it is; None for the tenant's own."""
        return parts_of(self.tenant_id)[1]

    def for_driver(self) -> Environment:
        """Say it in the words of drivers."""
        return Environment(
            environment_id=self.environment_id,
            tenant_id=self.tenant_id,
            product=self.product,
            isolation=self.isolation,
            region=self.region,
            connections=self.connections,
            is_throttled=self.throttled_at is not None,
            products=self.products,
            parameters=self.parameters,
            resources=self.resources,
        )
