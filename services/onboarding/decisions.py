"""What the audit trail is told of orders and of what operators do: never whose address or number it is about."""

from collections.abc import Mapping
from typing import Any, Final

from services.onboarding.orders import Account, Placed
from services.onboarding.saga import Abandon, Action, Cancel, Retry, Skip
from services.onboarding.workflow import Workflow
from shared.audit import Decider, changed, decision, told
from shared.clock import Clock
from shared.contracts.onboarding import DecisionRecorded
from shared.ids import Ids

PERSONAL = frozenset({"adminEmails", "address", "phone", "billingAddress"})
"""Fields of requests of which the trail is only told that they were given."""

_ELSEWHERE = frozenset({"tenantId", "reason"})
"""Fields of requests that have a place of their own in a decision."""

_ACTIONS: Final[Mapping[type[Action], str]] = {
    Cancel: "workflow.cancelled",
    Retry: "workflow.retried",
    Skip: "workflow.skipped",
    Abandon: "workflow.abandoned",
}


def ordered(placed: Placed, decider: Decider, *, clock: Clock, ids: Ids) -> DecisionRecorded:
    """Return the decision that an accepted order is; of a tenant that is there already, what it is to change."""
    after = {name: value for name, value in placed.request.items() if name not in _ELSEWHERE}
    if placed.account is None:
        before, after = None, told(after, untold=PERSONAL)
    else:
        before, after = changed(_known(placed.account, after), after, untold=PERSONAL)
    return decision(
        DecisionRecorded,
        decider,
        tenant_id=placed.tenant_id,
        action=f"{placed.definition.kind}.ordered",
        subject=f"workflow:{placed.workflow_id}",
        before=before,
        after=after,
        reason=placed.request.get("reason"),
        clock=clock,
        ids=ids,
    )


def _known(account: Account, ordered: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a customer has of the fields of an order, as a request would say it."""
    expiration = account["expiration"]
    known = {
        "customerName": account["customer_name"],
        "tier": account["tier"],
        "products": account["products"],
        "expiration": expiration and expiration.isoformat(),
        "suspendedFor": account["suspended_for"],
    }
    return {name: value for name, value in known.items() if name in ordered}


def acted(
    before: Workflow, after: Workflow, action: Action, decider: Decider, *, clock: Clock, ids: Ids
) -> DecisionRecorded:
    """Return the decision that an operator's action is: what it did to the workflow, and to which step."""
    step = {"step": action.step} if isinstance(action, Skip) else {}
    was, became = changed({"status": before.status}, {"status": after.status})
    return decision(
        DecisionRecorded,
        decider,
        tenant_id=after.tenant_id,
        action=_ACTIONS[type(action)],
        subject=f"workflow:{after.id}",
        before=was,
        after={**became, **step},
        reason=action.reason,
        clock=clock,
        ids=ids,
    )
