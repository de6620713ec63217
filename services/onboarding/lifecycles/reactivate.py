"""How a suspended tenant is opened again. It pays again last: never for what does not run.

reactivate-tenant ─┬─ allow-sign-in ───────┬─ resume-billing
                   └─ release-environment ─┘
"""

from services.onboarding.definition import Context, Definition, step
from shared.contracts import billing, identity, provisioning, tenant
from shared.contracts.base import Message


def _reactivate_tenant(context: Context) -> Message:
    return tenant.ReactivateTenant(tenant_id=context.tenant_id)


def _allow_sign_in(context: Context) -> Message:
    return identity.AllowSignIn(tenant_id=context.tenant_id)


def _release_environment(context: Context) -> Message:
    return provisioning.ReleaseEnvironment(tenant_id=context.tenant_id)


def _resume_billing(context: Context) -> Message:
    return billing.ResumeBilling(tenant_id=context.tenant_id)


REACTIVATE = Definition(
    kind="reactivate",
    version=1,
    urgent=True,
    steps=(
        step("reactivate-tenant", ask=_reactivate_tenant, undo=tenant.WithdrawReactivation),
        step("allow-sign-in", ask=_allow_sign_in, undo=identity.DisallowSignIn, after=("reactivate-tenant",)),
        step(
            "release-environment",
            ask=_release_environment,
            undo=provisioning.RethrottleEnvironment,
            after=("reactivate-tenant",),
        ),
        step(
            "resume-billing",
            ask=_resume_billing,
            undo=billing.WithdrawResumption,
            after=("allow-sign-in", "release-environment"),
        ),
    ),
)
