"""What is ordered, and which workflow on which tenant that becomes; or why it becomes none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from services.onboarding import queries
from services.onboarding.definition import Definition
from services.onboarding.lifecycles.change_products import CHANGE_PRODUCTS
from services.onboarding.lifecycles.change_tier import CHANGE_TIER
from services.onboarding.lifecycles.join import JOIN
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.lifecycles.update_account import UPDATE_ACCOUNT
from shared.http import FieldError, Problem
from shared.ids import Ids
from shared.postgres import Connection
from shared.text import name_key

Account = Mapping[str, Any] | asyncpg.Record
"""A customer, as the view ``account`` has it."""


@dataclass(frozen=True, eq=False)
class Order:
    """What somebody wants done.

    Attributes:
        definition: what does it.
        request: JSON; of a tenant that is there already it names ``tenantId`` or ``customerName``.
        insists: what the order takes for granted of a customer that is there already, by field of the view ``account``.
        tenant_field: what the body calls the tenant's id.
        within: the one tenant that is there as far as whoever orders can tell; None for all of them.
    """

    definition: Definition
    request: Mapping[str, Any]
    insists: Mapping[str, Any] = field(default_factory=dict)
    tenant_field: str = "tenantId"
    within: str | None = None

    @property
    def names_tenant(self) -> bool:
        """Whether it names its tenant by its id, not by the customer's name."""
        return "tenantId" in self.request

    @property
    def pointer(self) -> str:
        """Where in the body the tenant is named."""
        return f"/{self.tenant_field if self.names_tenant else 'customerName'}"

    def reaches(self, account: Account) -> bool:
        """Return whether whoever orders can tell that the customer is there."""
        return self.within is None or self.within == account["tenant_id"]


@dataclass(frozen=True)
class Placed:
    """An order with the workflow that it becomes.

    Attributes:
        request: as the workflow keeps it.
        claims: the key of the name that the workflow takes for its tenant, if it takes one.
        account: the customer that the order was held against; None for one that is not there yet.
    """

    order: Order
    definition: Definition
    workflow_id: UUID
    tenant_id: str
    request: Mapping[str, Any]
    claims: str | None = None
    account: Account | None = None


Refusals = dict[Order, Problem]

_STATE = ("name_key", "customer_name", "tier", "products", "expiration", "suspended_for", "overdue")
"""What of an account says whether an order can be carried out, and how."""


async def place(connection: Connection, orders: Sequence[Order], ids: Ids) -> tuple[list[Placed], Refusals]:
    """Find the tenant of each order and take the names that they want; of two orders for one name the first gets it."""
    new = [_new_tenant(order, ids) for order in orders if order.definition is ONBOARD]
    kept, outrun = await _claim(connection, new)
    existing = [each.order for each in outrun] + [order for order in orders if order.definition is not ONBOARD]
    if not existing:
        return kept, {}
    placed, refused = _place_existing(existing, await _customers(connection, existing), ids)
    claimed, taken = await _claim(connection, placed)
    holders = await queries.name_holders(connection, [each.claims for each in taken if each.claims])
    refused |= {each.order: _outrun(each, holders.get(each.claims or "")) for each in taken}
    return kept + claimed, refused


async def has_changed(connection: Connection, placed: Sequence[Placed]) -> bool:
    """Tell whether a customer is not any more as its order found it.

    Before a workflow is stored, another one can end and change the customer. Asked afterwards, this settles it: then no
    other workflow is at work on the tenant.
    """
    found = {each.tenant_id: each.account for each in placed if each.account is not None}
    if not found:
        return False
    rows = await queries.accounts(connection, tenant_ids=list(found), name_keys=[])
    now = {row["tenant_id"]: _state(row) for row in rows}
    return any(now.get(tenant_id) != _state(account) for tenant_id, account in found.items())


def _state(account: Account) -> tuple[Any, ...]:
    return tuple(account[name] for name in _STATE)


def _new_tenant(order: Order, ids: Ids) -> Placed:
    key = name_key(order.request["customerName"])
    return Placed(order, ONBOARD, ids.new(), str(ids.new()), order.request, claims=key)


async def _claim(connection: Connection, placed: Sequence[Placed]) -> tuple[list[Placed], list[Placed]]:
    """Take the names that are wanted; return those that have what they want, and those that were outrun."""
    claims = [
        {
            "name_key": each.claims,
            "tenant_id": each.tenant_id,
            "workflow_id": each.workflow_id,
            "expires": each.definition is ONBOARD and "expiration" in each.request,
        }
        for each in placed
        if each.claims is not None
    ]
    won = await queries.claim_names(connection, claims) if claims else set()
    kept = [each for each in placed if each.claims is None or each.workflow_id in won]
    return kept, [each for each in placed if each.claims is not None and each.workflow_id not in won]


class _Customers:
    """The customers that orders may be about, who holds their names, and which workflows are at work on them."""

    def __init__(
        self,
        accounts: Sequence[asyncpg.Record],
        holders: Mapping[str, asyncpg.Record],
        active: Mapping[str, UUID],
    ) -> None:
        self._by_tenant = {row["tenant_id"]: row for row in accounts}
        self._by_name = {row["name_key"]: row for row in accounts}
        self._holders = holders
        self._active = active

    def of(self, order: Order) -> Account:
        """Return the customer that an order is about.

        Raises:
            Problem: 404 where there is none, 409 where a workflow is at work on it: until its end nobody knows what the
                customer has.
        """
        if order.names_tenant:
            account = self._by_tenant.get(order.request["tenantId"])
        else:
            account = self._by_name.get(name_key(order.request["customerName"]))
        if account is None or not order.reaches(account):
            raise self._absence(order)
        if workflow_id := self._active.get(account["tenant_id"]):
            raise at_work(account["tenant_id"], workflow_id, order)
        return account

    def _absence(self, order: Order) -> Problem:
        if order.definition is not ONBOARD:
            return _unknown_tenant(order)
        holder = self._holders.get(name_key(order.request["customerName"]))
        return at_work(holder["tenant_id"], holder["workflow_id"], order) if holder else _name_taken(None)


async def _customers(connection: Connection, orders: Sequence[Order]) -> _Customers:
    tenant_ids = [order.request["tenantId"] for order in orders if order.names_tenant]
    names = [name_key(order.request["customerName"]) for order in orders if not order.names_tenant]
    accounts = await queries.accounts(connection, tenant_ids=tenant_ids, name_keys=names)
    active = await queries.active_workflows(connection, [row["tenant_id"] for row in accounts])
    return _Customers(accounts, await queries.name_holders(connection, names), active)


def _place_existing(orders: Sequence[Order], customers: _Customers, ids: Ids) -> tuple[list[Placed], Refusals]:
    placed: list[Placed] = []
    refused: Refusals = {}
    for order in orders:
        try:
            placed.append(_placed(order, customers.of(order), ids.new()))
        except Problem as problem:
            refused[order] = problem
    return placed, refused


def _placed(order: Order, account: Account, workflow_id: UUID) -> Placed:
    """Let an order become a workflow on a tenant that is there already.

    Raises:
        Problem: 409 where the tenant's state or what it has speaks against the order.
    """
    _must_agree(order, account)
    _CHECKS.get(order.definition.kind, _no_objection)(order, account)
    if order.definition is ONBOARD:
        request = {"customerName": account["customer_name"], "adminEmails": order.request["adminEmails"]}
        return Placed(order, JOIN, workflow_id, account["tenant_id"], request, account=account)
    key = name_key(order.request.get("customerName", account["customer_name"]))
    request = {"customerName": account["customer_name"], **order.request, "tenantId": account["tenant_id"]}
    claims = key if order.definition is UPDATE_ACCOUNT and key != account["name_key"] else None
    return Placed(order, order.definition, workflow_id, account["tenant_id"], request, claims, account)


def _no_objection(_: Order, __: Account) -> None:
    """Let everything pass."""


def _must_agree(order: Order, account: Account) -> None:
    for name, wanted in order.insists.items():
        if _sorted(wanted) != _sorted(account[name]):
            detail = f"The customer is tenant {account['tenant_id']} already, with another {name.removesuffix('s')}."
            raise Problem(409, code="tenant_differs", detail=detail, errors=[FieldError(f"/{name}", detail)])


def _sorted(value: Any) -> Any:
    return sorted(value, key=lambda product: str(product["name"])) if isinstance(value, list) else value


def _must_differ(order: Order, account: Account) -> None:
    _must_be_active(order, account)
    if order.request["tier"] == account["tier"] and not account["is_in_doubt"]:
        detail = f"The tenant has the tier {account['tier']} already."
        raise Problem(409, code="same_tier", detail=detail, errors=[FieldError("/tier", detail)])


def _must_be_active(order: Order, account: Account) -> None:
    """Refuse what is known to be in vain; where that is in doubt, the tenant service judges."""
    if account["suspended_for"] is not None and not account["is_in_doubt"]:
        raise _wrong_state(order, "The tenant is suspended.")


def _must_be_suspended(order: Order, account: Account) -> None:
    if account["suspended_for"] is None and not account["is_in_doubt"]:
        raise _wrong_state(order, "The tenant is not suspended.")


def _must_be_called_so(order: Order, account: Account) -> None:
    if name_key(order.request.get("customerName", account["customer_name"])) != account["name_key"]:
        detail = f"The tenant {account['tenant_id']} is another customer's."
        raise Problem(409, code="tenant_differs", detail=detail, errors=[FieldError("/customerName", detail)])


_CHECKS: Mapping[str, Callable[[Order, Account], None]] = {
    CHANGE_TIER.kind: _must_differ,
    CHANGE_PRODUCTS.kind: _must_be_active,
    SUSPEND.kind: _must_be_active,
    REACTIVATE.kind: _must_be_suspended,
    OFFBOARD.kind: _must_be_called_so,
}


def at_work(tenant_id: str, workflow_id: UUID, order: Order) -> Problem:
    """Return the problem of an order for a tenant that another workflow is at work on."""
    detail = f"The workflow {workflow_id} is at work on tenant {tenant_id}. Wait for its end, or cancel it."
    return Problem(409, code="workflow_active", detail=detail, errors=[FieldError(order.pointer, detail)])


def _outrun(placed: Placed, holder: asyncpg.Record | None) -> Problem:
    if holder is not None and holder["tenant_id"] == placed.tenant_id:
        return at_work(placed.tenant_id, holder["workflow_id"], placed.order)
    return _name_taken(holder)


def _wrong_state(order: Order, detail: str) -> Problem:
    return Problem(409, code="wrong_state", detail=detail, errors=[FieldError(order.pointer, detail)])


def _unknown_tenant(order: Order) -> Problem:
    named = order.request["tenantId"] if order.names_tenant else order.request["customerName"]
    detail = f"There is no tenant {named}."
    return Problem(404, code="unknown_tenant", detail=detail, errors=[FieldError(order.pointer, detail)])


def _name_taken(holder: asyncpg.Record | None) -> Problem:
    if holder is None:
        detail = "The customer's name was taken a moment ago."
    else:
        detail = f"The customer's name is taken by tenant {holder['tenant_id']} (workflow {holder['workflow_id']})."
    return Problem(409, code="customer_exists", detail=detail, errors=[FieldError("/customerName", detail)])
