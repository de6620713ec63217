"""The model: what a tenant must look like, by what has become of its customer's orders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

State = Literal["absent", "active", "suspended", "archived", "unknown"]

NO_PRODUCTS: tuple[tuple[str, str], ...] = ()
PRODUCTS = (NO_PRODUCTS, (("notes", "1.0"),), (("notes", "2.0"),))
"""What a tenant may have deployed, as name and version."""

TIERS = ("free", "standard", "premium")


@dataclass(frozen=True)
class Tenant:
    """One tenant as its customer expects it.

    Attributes:
        state: ``absent`` of one that has not come to be; ``unknown`` of one whose workflow was given up.
        admins: the addresses of its administrators.
        off_boarded_by: the workflow that did it.
        exported: whether its data must be there for a while after it has gone.
        may_lack_connections: whether its environment may still have the default number of connections, because it was
            ordered from a release in which tiers had none.
    """

    tenant_id: str
    name: str
    tier: str
    products: tuple[tuple[str, str], ...]
    admins: frozenset[str]
    expiration: str | None = None
    state: State = "absent"
    off_boarded_by: str = ""
    exported: bool = False
    may_lack_connections: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether it has everything that a tenant has."""
        return self.state in {"active", "suspended"}


@dataclass(frozen=True)
class Tier:
    """What a tier means, as the catalog says."""

    plan: str
    quotas: Mapping[str, int]
    connections: int


@dataclass(frozen=True)
class Picture:
    """What five services show of a tenant, over HTTP or in their databases.

    Attributes:
        record: state, name, tier, products and expiration; of an archived one state and name; None of an absent one.
        subscriptions: plan and status of each.
        environments: connections, whether it is throttled, and the products of each.
    """

    record: Sequence[Any] | None = None
    admins: Sequence[str] = ()
    blocked: bool = False
    subscriptions: Sequence[tuple[str, str]] = ()
    quotas: Mapping[str, int] | None = None
    environments: Sequence[Any] = ()


def expected(tenant: Tenant, tiers: Mapping[str, Tier]) -> Picture:
    """Return what must be seen of a tenant everywhere."""
    if tenant.state == "absent":
        return Picture()
    if tenant.state == "archived":
        return Picture(record=("archived", tenant.name))
    tier, suspended = tiers[tenant.tier], tenant.state == "suspended"
    return Picture(
        record=(tenant.state, tenant.name, tenant.tier, tenant.products, tenant.expiration),
        admins=tuple(sorted(tenant.admins)),
        blocked=suspended,
        subscriptions=((tier.plan, "paused" if suspended else "active"),),
        quotas=tier.quotas,
        environments=((tier.connections, suspended, tenant.products),),
    )


def without_connections(picture: Picture) -> Picture:
    """Return the picture of a tenant whose environment has the default number of connections."""
    return replace(picture, environments=tuple((None, *others) for _, *others in picture.environments))


def products_of(listed: Sequence[Mapping[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return products as the model has them."""
    return tuple(sorted((each["name"], each["version"]) for each in listed))
