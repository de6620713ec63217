"""What onboarding knows of its customers: what each has ordered, kept up to date by how its workflows end.

It is no record of tenants, which the tenant service has: it is what requests are held against at the door.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.onboarding import queries
from services.onboarding.storage import Stored
from services.onboarding.workflow import Status
from shared.postgres import Connection

Request = Mapping[str, Any]

_CHANGES: Mapping[str, Callable[[Request], dict[str, Any]]] = {
    "change-tier": lambda request: {"tier": request["tier"]},
    "change-products": lambda request: {"products": request["products"]},
    "update-account": lambda request: {
        "customer_name": request["customerName"],
        "expiration": request["expiration"],
        "products": request["products"],
    },
    "suspend": lambda request: {"suspended_for": request["suspendedFor"]},
    "reactivate": lambda _: {"suspended_for": "none"},
}


async def settle(connection: Connection, ended: Sequence[Stored]) -> None:
    """Take into account how workflows have ended, in the transaction in which they do."""
    completed = [each for each in ended if each.workflow.status is Status.COMPLETED]
    if fruitless := [each.workflow.id for each in ended if each.workflow.status is not Status.COMPLETED]:
        await queries.free_names(connection, fruitless)
    if renaming := [each.workflow.id for each in completed if each.workflow.kind == "update-account"]:
        await queries.rename_accounts(connection, renaming)
    if changes := [_change(each) for each in completed if each.workflow.kind in _CHANGES]:
        await queries.change_accounts(connection, changes)
    if gone := [each.workflow.tenant_id for each in completed if each.workflow.kind == "offboard"]:
        await queries.forget_accounts(connection, gone)
        await queries.erase_requests(connection, gone)


def _change(stored: Stored) -> dict[str, Any]:
    return {"tenant_id": stored.workflow.tenant_id} | _CHANGES[stored.workflow.kind](stored.request)
