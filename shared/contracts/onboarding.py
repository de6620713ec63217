"""All that onboarding tells everybody outside, on the exchange ``tenure.status``. Nothing is asked of it by message."""

from datetime import datetime
from typing import Literal

from shared.contracts.base import Fact

WorkflowState = Literal[
    "started", "running", "compensating", "needs_attention", "completed", "compensated", "abandoned"
]


class WorkflowStatusChanged(Fact):
    """A workflow has another status; ``started`` is the first that is told.

    Routing key on ``tenure.status``: ``status.<kind>.<status>.<tenantId>``.
    """

    workflow_id: str
    kind: str
    status: WorkflowState
    step: str | None = None
    error: str | None = None
    occurred_at: datetime


class StepFailed(Fact):
    """A step has failed for good. Routing key on ``tenure.status``: ``error.<kind>.<step>.<tenantId>``."""

    workflow_id: str
    kind: str
    status: WorkflowState
    step: str
    attempt: int
    error: str
    occurred_at: datetime


class StepRetried(Fact):
    """A step or its undo is tried again. Routing key on ``tenure.status``: ``retry.<kind>.<step>.<tenantId>``."""

    workflow_id: str
    kind: str
    status: WorkflowState
    step: str
    attempt: int
    error: str
    occurred_at: datetime
