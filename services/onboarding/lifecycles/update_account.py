"""How an account comes to be as its owner wants it: the name, the contract's end, the products, the administrators.

update-tenant ─┬─ set-administrators
               ├─ update-account
               └─ deploy-products
"""

from services.onboarding.definition import Context, Definition, step
from shared.contracts import billing, identity, provisioning, tenant
from shared.contracts.base import Message


def _update_tenant(context: Context) -> Message:
    return tenant.UpdateTenant(
        tenant_id=context.tenant_id,
        customer_name=context.request["customerName"],
        expiration=context.request["expiration"],
        products=context.products(),
    )


def _set_administrators(context: Context) -> Message:
    return identity.SetAdministrators(
        tenant_id=context.tenant_id,
        customer_name=context.request["customerName"],
        emails=tuple(context.request["adminEmails"]),
    )


def _update_account(context: Context) -> Message:
    return billing.UpdateAccount(tenant_id=context.tenant_id, customer_name=context.request["customerName"])


def _deploy_products(context: Context) -> Message:
    return provisioning.DeployProducts(tenant_id=context.tenant_id, products=context.products())


UPDATE_ACCOUNT = Definition(
    kind="update-account",
    version=1,
    steps=(
        step("update-tenant", ask=_update_tenant, undo=tenant.RestoreTenant),
        step(
            "set-administrators",
            ask=_set_administrators,
            undo=identity.RestoreAdministrators,
            after=("update-tenant",),
        ),
        step("update-account", ask=_update_account, undo=billing.RestoreAccount, after=("update-tenant",)),
        step(
            "deploy-products",
            ask=_deploy_products,
            undo=provisioning.RestoreDeployments,
            after=("update-tenant",),
        ),
    ),
)
