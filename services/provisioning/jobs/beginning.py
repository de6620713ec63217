"""How an ask, or an undo, becomes a job."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from services.provisioning.drivers.registry import CARRYING, lane_of
from services.provisioning.jobs.job import Leg, Operation, Settings, State
from shared.contracts.base import Ask
from shared.ids import Ids
from shared.messaging.barrier import key_of
from shared.messaging.event import Event


def making(environment: Settings) -> Leg:
    """Return the leg that makes an environment; it remembers what that is to be."""
    return _leg(Operation.PROVISION, environment, environment.isolation, dataclasses.asdict(environment))


def changing(operation: Operation, environment: Settings, wanted: Mapping[str, Any]) -> Leg:
    """Return the leg that gives an environment other settings, or takes it away."""
    return _leg(operation, environment, CARRYING if "isolation" in wanted else environment.isolation, wanted)


def taking_back(operation: Operation, environment: Settings, found: Mapping[str, Any] | None) -> Leg:
    """Return the leg that takes back what no job is known of any more, or never was.

    Args:
        found: what there was before, as the release before has remembered it.
    """
    place = environment.isolation
    if found and found.get("isolation", place) != place:
        place = CARRYING
    leg = _leg(operation, environment, place, dataclasses.asdict(environment))
    return dataclasses.replace(leg, found=found)


def _leg(operation: Operation, environment: Settings, place: str, wanted: Mapping[str, Any]) -> Leg:
    return Leg(
        tenancy=environment.tenant_id,
        operation=operation,
        lane=lane_of(environment.driver, place),
        wanted=wanted,
    )


def going(event: Event, asked: Operation, legs: Sequence[Leg], ids: Ids) -> dict[str, Any]:
    """Return the row of a job that goes through environments in this order."""
    return _row(event, asked, ids) | dataclasses.asdict(legs[0]) | {"ahead": _kept(legs[1:]), "behind": []}


def going_back(event: Event, asked: Operation, legs: Sequence[Leg], ids: Ids) -> dict[str, Any]:
    """Return the row of a job that goes back through environments, from the last to the first."""
    back = {"ahead": [], "behind": _kept(legs[:-1]), "state": State.UNDOING}
    return _row(event, asked, ids) | dataclasses.asdict(legs[-1]) | back


def _kept(legs: Sequence[Leg]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(leg) for leg in legs]


def _row(event: Event, asked: Operation, ids: Ids) -> dict[str, Any]:
    assert isinstance(event.message, Ask)
    workflow_id, step = key_of(event)
    return {
        "job_id": ids.new(),
        "tenant_id": event.message.tenant_id,
        "workflow_id": workflow_id,
        "step": step,
        "ask_id": event.id,
        "asked": asked,
        "state": State.RUNNING,
        "traceparent": event.traceparent,
    }
