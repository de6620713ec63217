"""How a tenant comes to other products, or other versions of them.

change-products ─── deploy-products
"""

from services.onboarding.definition import Context, Definition, step
from shared.contracts import provisioning, tenant
from shared.contracts.base import Message


def _change_products(context: Context) -> Message:
    return tenant.ChangeProducts(tenant_id=context.tenant_id, products=context.products())


def _deploy_products(context: Context) -> Message:
    return provisioning.DeployProducts(tenant_id=context.tenant_id, products=context.products())


CHANGE_PRODUCTS = Definition(
    kind="change-products",
    version=1,
    steps=(
        step("change-products", ask=_change_products, undo=tenant.RestoreProducts),
        step(
            "deploy-products",
            ask=_deploy_products,
            undo=provisioning.RestoreDeployments,
            after=("change-products",),
        ),
    ),
)
