"""How a tenant comes to other products, or other versions of them, each with its licence and its environment.

change-products ─┬─ change-licences ─┬─ remove-products (pivot)
                 └─ deploy-products ─┘

What a product that the tenant has no more leaves in an environment of its own is removed last: until then all of it can
be taken back.
"""

from services.onboarding.definition import Context, Definition, pivot, step
from shared.contracts import billing, provisioning, tenant
from shared.contracts.base import Message


def _change_products(context: Context) -> Message:
    return tenant.ChangeProducts(tenant_id=context.tenant_id, products=context.products())


def _change_licences(context: Context) -> Message:
    return billing.ChangeLicences(tenant_id=context.tenant_id, licences=context.licences("change-products"))


def _deploy_products(context: Context) -> Message:
    return provisioning.DeployProducts(tenant_id=context.tenant_id, products=context.placed("change-products"))


def _remove_products(context: Context) -> Message:
    kept = tuple(product.name for product in context.products())
    return provisioning.RemoveProducts(tenant_id=context.tenant_id, products=kept)


_CHANGE = step("change-products", ask=_change_products, undo=tenant.RestoreProducts)
_DEPLOY = step(
    "deploy-products",
    ask=_deploy_products,
    undo=provisioning.RestoreDeployments,
    after=("change-products",),
)

CHANGE_PRODUCTS_1 = Definition(kind="change-products", version=1, steps=(_CHANGE, _DEPLOY))
"""As it was before products had licences and environments of their own."""

CHANGE_PRODUCTS = Definition(
    kind="change-products",
    version=2,
    steps=(
        _CHANGE,
        step("change-licences", ask=_change_licences, undo=billing.RestoreLicences, after=("change-products",)),
        _DEPLOY,
        pivot(
            "remove-products",
            does=provisioning.RemoveProducts,
            ask=_remove_products,
            after=("change-licences", "deploy-products"),
        ),
    ),
)
