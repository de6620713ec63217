"""How people join a tenant that is there already: a second onboarding of the same customer.

add-administrators
"""

from services.onboarding.definition import Context, Definition, step
from shared.contracts import identity
from shared.contracts.base import Message


def _add_administrators(context: Context) -> Message:
    return identity.AddAdministrators(
        tenant_id=context.tenant_id,
        customer_name=context.request["customerName"],
        emails=tuple(context.request["adminEmails"]),
    )


JOIN = Definition(
    kind="onboard",
    name="join",
    version=1,
    steps=(step("add-administrators", ask=_add_administrators, undo=identity.RemoveAddedAdministrators),),
)
