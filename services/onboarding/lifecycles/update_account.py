"""How an account comes to be as its owner wants it: the name, the contract's end, the products, the administrators.

update-tenant ─┬─ set-administrators ─┬─ remove-products (pivot)
               ├─ update-account ─────┤
               ├─ change-licences ────┤
               └─ deploy-products ────┘

What a product that the account has no more leaves in an environment of its own is removed last: until then all of it
can be taken back.
"""

from services.onboarding.definition import Context, Definition, pivot, step
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


def _change_licences(context: Context) -> Message:
    return billing.ChangeLicences(tenant_id=context.tenant_id, licences=context.licences("update-tenant"))


def _deploy_products(context: Context) -> Message:
    return provisioning.DeployProducts(tenant_id=context.tenant_id, products=context.placed("update-tenant"))


def _remove_products(context: Context) -> Message:
    kept = tuple(product.name for product in context.products())
    return provisioning.RemoveProducts(tenant_id=context.tenant_id, products=kept)


_TENANT = step("update-tenant", ask=_update_tenant, undo=tenant.RestoreTenant)
_ADMINISTRATORS = step(
    "set-administrators",
    ask=_set_administrators,
    undo=identity.RestoreAdministrators,
    after=("update-tenant",),
)
_ACCOUNT = step("update-account", ask=_update_account, undo=billing.RestoreAccount, after=("update-tenant",))
_DEPLOY = step(
    "deploy-products",
    ask=_deploy_products,
    undo=provisioning.RestoreDeployments,
    after=("update-tenant",),
)

UPDATE_ACCOUNT_1 = Definition(kind="update-account", version=1, steps=(_TENANT, _ADMINISTRATORS, _ACCOUNT, _DEPLOY))
"""As it was before products had licences and environments of their own."""

UPDATE_ACCOUNT = Definition(
    kind="update-account",
    version=2,
    steps=(
        _TENANT,
        _ADMINISTRATORS,
        _ACCOUNT,
        step("change-licences", ask=_change_licences, undo=billing.RestoreLicences, after=("update-tenant",)),
        _DEPLOY,
        pivot(
            "remove-products",
            does=provisioning.RemoveProducts,
            ask=_remove_products,
            after=("set-administrators", "update-account", "change-licences", "deploy-products"),
        ),
    ),
)
