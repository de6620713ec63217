"""How a tenant comes to another tier. Undone, it is on the old one with all that belongs to it.

change-tier ─┬─ change-plan
             ├─ change-quotas
             └─ move-environment
"""

from services.onboarding.definition import Context, Definition, step
from shared.contracts import billing, metrics, provisioning, tenant
from shared.contracts.base import Message


def _change_tier(context: Context) -> Message:
    return tenant.ChangeTier(tenant_id=context.tenant_id, tier=context.request["tier"])


def _change_plan(context: Context) -> Message:
    return billing.ChangePlan(tenant_id=context.tenant_id, plan=context.result("change-tier")["plan"])


def _change_quotas(context: Context) -> Message:
    return metrics.ChangeQuotas(tenant_id=context.tenant_id, quotas=context.result("change-tier")["quotas"])


def _move_environment(context: Context) -> Message:
    changed = context.result("change-tier")
    return provisioning.MoveEnvironment(
        tenant_id=context.tenant_id,
        isolation=changed["isolation"],
        connections=changed["connections"],
        driver=changed.get("driver", "postgres"),
        parameters=changed.get("parameters", {}),
    )


CHANGE_TIER = Definition(
    kind="change-tier",
    version=1,
    steps=(
        step("change-tier", ask=_change_tier, undo=tenant.RestoreTier),
        step("change-plan", ask=_change_plan, undo=billing.RestorePlan, after=("change-tier",)),
        step("change-quotas", ask=_change_quotas, undo=metrics.RestoreQuotas, after=("change-tier",)),
        step(
            "move-environment",
            ask=_move_environment,
            undo=provisioning.MoveEnvironmentBack,
            after=("change-tier",),
        ),
    ),
)
