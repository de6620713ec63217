"""How a tenant is suspended: nobody signs in, nobody works in its environment, nothing is charged, everything is kept.

suspend-tenant ─┬─ block-sign-in
                ├─ throttle-environment
                └─ pause-billing
"""

from services.onboarding.definition import Context, Definition, step
from shared.contracts import billing, identity, provisioning, tenant
from shared.contracts.base import Message


def _suspend_tenant(context: Context) -> Message:
    return tenant.SuspendTenant(tenant_id=context.tenant_id, reason=context.request.get("reason"))


def _block_sign_in(context: Context) -> Message:
    return identity.BlockSignIn(tenant_id=context.tenant_id, reason=context.request.get("reason"))


def _throttle_environment(context: Context) -> Message:
    return provisioning.ThrottleEnvironment(tenant_id=context.tenant_id, reason=context.request.get("reason"))


def _pause_billing(context: Context) -> Message:
    return billing.PauseBilling(tenant_id=context.tenant_id, reason=context.request.get("reason"))


SUSPEND = Definition(
    kind="suspend",
    version=1,
    urgent=True,
    steps=(
        step("suspend-tenant", ask=_suspend_tenant, undo=tenant.LiftSuspension),
        step("block-sign-in", ask=_block_sign_in, undo=identity.UnblockSignIn, after=("suspend-tenant",)),
        step(
            "throttle-environment",
            ask=_throttle_environment,
            undo=provisioning.UnthrottleEnvironment,
            after=("suspend-tenant",),
        ),
        step("pause-billing", ask=_pause_billing, undo=billing.UnpauseBilling, after=("suspend-tenant",)),
    ),
)
