"""How a tenant comes to be. Read it top to bottom: what is asked, of whom, after what, and how it is taken back.

register-tenant ─┬─ create-administrators ─┬─ activate-tenant
                 ├─ open-account ──────────┤
                 ├─ track-tenant ──────────┤
                 └─ provision-environment ─┘
"""

from services.onboarding.definition import Context, Definition, step
from shared.contracts import billing, identity, metrics, provisioning, tenant
from shared.contracts.base import Message


def _register(context: Context) -> Message:
    return tenant.RegisterTenant(tenant_id=context.tenant_id, **context.registration())


def _create_administrators(context: Context) -> Message:
    return identity.CreateAdministrators(
        tenant_id=context.tenant_id,
        customer_name=context.request["customerName"],
        emails=tuple(context.request["adminEmails"]),
        usage_plan=context.result("register-tenant").get("usage_plan"),
        isolation=context.result("register-tenant").get("isolation"),
    )


def _open_account(context: Context) -> Message:
    return billing.OpenAccount(
        tenant_id=context.tenant_id,
        customer_name=context.request["customerName"],
        plan=context.result("register-tenant")["plan"],
        currency=context.request.get("currency"),
        billing_address=context.request.get("billingAddress"),
        licences=context.licences("register-tenant"),
        time_zone=_time_zone(context),
    )


def _track(context: Context) -> Message:
    return metrics.TrackTenant(
        tenant_id=context.tenant_id,
        quotas=context.result("register-tenant")["quotas"],
        time_zone=_time_zone(context),
    )


def _time_zone(context: Context) -> str:
    return context.request.get("timeZone") or "UTC"


def _provision(context: Context) -> Message:
    registered = context.result("register-tenant")
    return provisioning.ProvisionEnvironment(
        tenant_id=context.tenant_id,
        isolation=registered["isolation"],
        region=context.request.get("region") or registered.get("region"),
        products=context.placed("register-tenant"),
        connections=registered.get("connections"),
        driver=registered.get("driver", "postgres"),
        parameters=registered.get("parameters", {}),
    )


def _activate(context: Context) -> Message:
    return tenant.ActivateTenant(tenant_id=context.tenant_id)


ONBOARD = Definition(
    kind="onboard",
    version=1,
    steps=(
        step("register-tenant", ask=_register, undo=tenant.DeregisterTenant),
        step(
            "create-administrators",
            ask=_create_administrators,
            undo=identity.RemoveAdministrators,
            after=("register-tenant",),
        ),
        step("open-account", ask=_open_account, undo=billing.VoidAccount, after=("register-tenant",)),
        step("track-tenant", ask=_track, undo=metrics.UntrackTenant, after=("register-tenant",)),
        step(
            "provision-environment",
            ask=_provision,
            undo=provisioning.DeprovisionEnvironment,
            after=("register-tenant",),
        ),
        step(
            "activate-tenant",
            ask=_activate,
            undo=tenant.DeactivateTenant,
            after=("create-administrators", "open-account", "track-tenant", "provision-environment"),
        ),
    ),
)
