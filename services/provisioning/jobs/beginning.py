"""How an ask, or an undo, becomes a job."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from services.provisioning.drivers.registry import CARRYING, lane_of
from services.provisioning.jobs.job import Operation, Settings, State
from shared.contracts.base import Ask
from shared.ids import Ids
from shared.messaging.barrier import key_of
from shared.messaging.event import Event


def provisioning(event: Event, environment: Settings, ids: Ids) -> dict[str, Any]:
    """Return the row of a job that makes an environment; it remembers what that is to be."""
    return _row(event, Operation.PROVISION, lane_of(environment.driver, environment.isolation), ids) | {
        "wanted": dataclasses.asdict(environment)
    }


def changing(
    event: Event, operation: Operation, environment: Settings, wanted: Mapping[str, Any], ids: Ids
) -> dict[str, Any]:
    """Return the row of a job that gives an environment other settings, or takes it away."""
    place = CARRYING if "isolation" in wanted else environment.isolation
    return _row(event, operation, lane_of(environment.driver, place), ids) | {"wanted": dict(wanted)}


def taking_back(
    event: Event, operation: Operation, environment: Settings, found: Mapping[str, Any] | None, ids: Ids
) -> dict[str, Any]:
    """Return the row of a job that takes back what no job is known of any more, or never was.

    Args:
        found: what there was before, as the release before has remembered it.
    """
    place = environment.isolation
    if found and found.get("isolation", place) != place:
        place = CARRYING
    return _row(event, operation, lane_of(environment.driver, place), ids) | {
        "wanted": dataclasses.asdict(environment),
        "found": found,
        "state": State.UNDOING,
    }


def _row(event: Event, operation: Operation, lane: str, ids: Ids) -> dict[str, Any]:
    assert isinstance(event.message, Ask)
    workflow_id, step = key_of(event)
    return {
        "job_id": ids.new(),
        "tenant_id": event.message.tenant_id,
        "workflow_id": workflow_id,
        "step": step,
        "ask_id": event.id,
        "operation": operation,
        "lane": lane,
        "wanted": {},
        "found": None,
        "state": State.RUNNING,
    }
