"""All that onboarding tells everybody outside, on the exchange ``tenure.status``. Nothing is asked of it by message."""

from datetime import date, datetime
from typing import Literal

from shared.contracts.base import Decision, Fact, KeysUsed

WorkflowState = Literal[
    "started", "running", "compensating", "needs_attention", "completed", "compensated", "abandoned"
]


class WorkflowStatusChanged(Fact):
    """A workflow has another status; ``started`` is the first that is told.

    Routing key on ``tenure.status``: ``status.<kind>.<status>.<tenantId>``.

    Attributes:
        workflow_id: the workflow.
        kind: what it does, such as ``onboard``.
        status: what it has become; the first ``running`` is told as ``started``.
        step: the step that has failed, once one has.
        error: why, as ``<code>: <sentence>``.
        occurred_at: when, by onboarding's clock.
    """

    workflow_id: str
    kind: str
    status: WorkflowState
    step: str | None = None
    error: str | None = None
    occurred_at: datetime


class StepFailed(Fact):
    """A step has failed for good, and the workflow is undone.

    Routing key on ``tenure.status``: ``error.<kind>.<step>.<tenantId>``.

    Attributes:
        workflow_id: the workflow.
        kind: what it does, such as ``onboard``.
        status: what the workflow has become by that.
        step: the step that has failed.
        attempt: how often it was asked.
        error: why, as ``<code>: <sentence>``.
        occurred_at: when, by onboarding's clock.
    """

    workflow_id: str
    kind: str
    status: WorkflowState
    step: str
    attempt: int
    error: str
    occurred_at: datetime


class StepRetried(Fact):
    """A step or its undo is tried again.

    Routing key on ``tenure.status``: ``retry.<kind>.<step>.<tenantId>``.

    Attributes:
        workflow_id: the workflow.
        kind: what it does, such as ``onboard``.
        status: of the workflow; ``compensating`` says that it is an undo that is tried again.
        step: the step.
        attempt: the number of the attempt that comes.
        error: what was wrong with the one before.
        occurred_at: when, by onboarding's clock.
    """

    workflow_id: str
    kind: str
    status: WorkflowState
    step: str
    attempt: int
    error: str
    occurred_at: datetime


class TenantExpiring(Fact):
    """The day on which a tenant's contract ends is near.

    Routing key on ``tenure.status``: ``warning.expiration.<tenantId>``.

    Attributes:
        expiration: the day, in UTC; the tenant is suspended when it begins.
        offboarded_on: the day on which the tenant will be off-boarded, unless the contract is prolonged.
        occurred_at: when, by onboarding's clock.
    """

    expiration: date
    offboarded_on: date
    occurred_at: datetime


class MailCounted(Fact):
    """So much has happened to a tenant's mails that was not told before.

    Routing key on ``tenure.status``: ``mail.<event>.<tenantId>``.

    Attributes:
        event: what happened: ``send``, ``delivery``, ``permanent_bounce``, ``transient_bounce``, ``complaint``,
            ``suppression``, ``reject``, ``rendering_failure``, ``delivery_delay``, ``open``, ``click``,
            ``subscription``; there may be more.
        count: to how many recipients.
        hour: in which it happened: the hour's beginning, in UTC.
        occurred_at: when it was told, by provisioning's clock.
        product: from whose own account they are sent; None for the tenant's.
    """

    event: str
    count: int
    hour: datetime
    occurred_at: datetime
    product: str | None = None


class TenantMailPaused(Fact):
    """What came of a tenant's mails was over a limit: it can send none until an operator lets it again.

    Routing key on ``tenure.status``: ``warning.mail.<tenantId>``.

    Attributes:
        code: what was over it: ``bounce_rate`` or ``complaint_rate``.
        sends: to how many recipients mail was sent in the time that was looked at.
        bounces: how many of these bounced for good.
        complaints: how many complained.
        limit_percent: of sends, for what the code names.
        hours: how far back was looked.
        occurred_at: when, by provisioning's clock.
        product: from whose own account they are sent; None for the tenant's.
    """

    code: str
    sends: int
    bounces: int
    complaints: int
    limit_percent: float
    hours: int
    occurred_at: datetime
    product: str | None = None


class TenantMailResumed(Fact):
    """An operator lets a tenant send mail again.

    Routing key on ``tenure.status``: ``mail.resumed.<tenantId>``.

    Attributes:
        occurred_at: when, by provisioning's clock.
        product: from whose own account they are sent; None for the tenant's.
    """

    occurred_at: datetime
    product: str | None = None


class TenantQuotaCrossed(Fact):
    """So much of what a tenant may use of a meter in a month is used; told once for each limit and percent of it.

    Routing key on ``tenure.status``: ``warning.quota.<tenantId>``.

    Attributes:
        meter: of what.
        percent: of the limit: 80 or 100. At a hard limit 100 is told when the first usage is refused, too.
        used: a decimal number, in the unit of the meter.
        limit_value: in the same unit.
        month: as in ``2026-03``, of the tenant's time zone.
        enforcement: ``soft``, or ``hard``: usage beyond it is refused.
        occurred_at: when, by the clock of metrics.
    """

    meter: str
    percent: int
    used: str
    limit_value: int
    month: str
    enforcement: str
    occurred_at: datetime


class ApiKeysUsed(KeysUsed):
    """These API keys were used at the onboarding service."""


class DecisionRecorded(Decision):
    """Somebody has decided something at the onboarding service."""
