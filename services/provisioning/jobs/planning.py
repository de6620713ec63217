"""What an ask means for each of a tenant's environments: pure functions from what there is to the legs of a job.

A leg that may fail comes before one that people notice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from services.provisioning.drivers import tenancy_of
from services.provisioning.drivers.registry import Drivers
from services.provisioning.jobs import beginning
from services.provisioning.jobs.beginning import changing, making
from services.provisioning.jobs.job import Failure, Leg, Operation, Settings
from shared.contracts.provisioning import MoveEnvironment, ProvisionEnvironment
from shared.contracts.tenant import PlacedProduct
from shared.ids import Ids

DROPPED = "The tenant has the product no more."
"""Why nobody may work in an environment any more whose product was dropped."""

OPEN: Mapping[str, Any] = {"throttled_at": None, "throttle_reason": None}
"""The settings of an environment in which people may work."""


_Wanted: TypeAlias = ProvisionEnvironment | PlacedProduct
"""What says where an environment is to be."""


@dataclass(frozen=True, slots=True)
class Estate:
    """All environments of a tenant.

    Attributes:
        own: the tenant's own.
        products: those that products have of their own, by product.
    """

    own: Settings
    products: Mapping[str, Settings] = field(default_factory=dict)

    @property
    def all(self) -> list[Settings]:
        """Return them all, the tenant's own last."""
        return [*self.products.values(), self.own]


def estates_of(environments: Iterable[Settings]) -> dict[str, Estate]:
    """Sort environments by their tenants; of a tenant without one of its own there is nothing to say."""
    own: dict[str, Settings] = {}
    products: dict[str, dict[str, Settings]] = {}
    for each in environments:
        if each.product is None:
            own[each.owner] = each
        else:
            products.setdefault(each.owner, {})[each.product] = each
    return {tenant_id: Estate(each, products.get(tenant_id, {})) for tenant_id, each in own.items()}


def unprovidable(ask: ProvisionEnvironment, drivers: Drivers, regions: Sequence[str]) -> Failure | None:
    """Return why a tenant's environments cannot be had here, if they cannot."""
    wanted: list[_Wanted] = [ask, *_apart(ask.products)]
    return _first(_unprovidable(each, drivers, regions) for each in wanted)


def undeployable(
    products: Sequence[PlacedProduct], estate: Estate, drivers: Drivers, regions: Sequence[str]
) -> Failure | None:
    """Return why the environments cannot be had that products lack, if they cannot."""
    new = [each for each in _apart(products) if each.name not in estate.products]
    return _first(_unprovidable(each, drivers, regions) for each in new)


def _first(failures: Iterable[Failure | None]) -> Failure | None:
    return next((each for each in failures if each is not None), None)


def _unprovidable(wanted: _Wanted, drivers: Drivers, regions: Sequence[str]) -> Failure | None:
    if wanted.region is not None and wanted.region not in regions:
        return Failure("unknown_region", f"There is no region {wanted.region!r}, only {', '.join(regions)}.")
    if (driver := drivers.find(wanted.driver)) is None:
        return Failure("unknown_driver", f"There is no driver {wanted.driver!r}, only {', '.join(drivers.names())}.")
    return _unsupported(wanted.isolation, driver.isolations)


def _unsupported(isolation: str | None, isolations: Sequence[str]) -> Failure | None:
    if isolation in isolations:
        return None
    detail = f"Isolation {isolation!r} cannot be provided, only {', '.join(isolations)}."
    return Failure("unsupported_isolation", detail)


def _apart(products: Iterable[PlacedProduct]) -> list[PlacedProduct]:
    """Return the products that run in environments of their own."""
    return [each for each in products if each.isolation is not None]


def _together(products: Iterable[PlacedProduct]) -> dict[str, str]:
    """Return the versions of the products that run in the tenant's own environment, by name."""
    return {each.name: each.version for each in products if each.isolation is None}


def provisioning(ask: ProvisionEnvironment, default_region: str, ids: Ids) -> Estate:
    """Return what a tenant's environments are to be."""
    own = Settings(
        environment_id=ids.new(),
        tenant_id=ask.tenant_id,
        driver=ask.driver,
        isolation=ask.isolation,
        region=ask.region or default_region,
        status="provisioning",
        connections=ask.connections,
        parameters=ask.parameters,
        products=_together(ask.products),
    )
    return Estate(own, {each.name: _apart_from(own, each, default_region, ids) for each in _apart(ask.products)})


def _apart_from(own: Settings, product: PlacedProduct, default_region: str, ids: Ids) -> Settings:
    assert product.isolation is not None
    return Settings(
        environment_id=ids.new(),
        tenant_id=tenancy_of(own.owner, product.name),
        driver=product.driver,
        isolation=product.isolation,
        region=product.region or default_region,
        status="provisioning",
        parameters=product.parameters,
        products={product.name: product.version},
    )


def made(estate: Estate) -> list[Leg]:
    """Return what makes a tenant's environments; its own comes last, because whoever asked is told of that one."""
    return [making(each) for each in estate.all]


def moving(ask: MoveEnvironment, own: Settings, drivers: Drivers) -> Sequence[Leg] | Failure:
    """Return what gives a tenant's own environment the isolation and the connections that are asked for."""
    if ask.driver != own.driver:
        detail = f"An environment of the driver {own.driver!r} cannot be moved to {ask.driver!r}."
        return Failure("unsupported_move", detail)
    driver = drivers.find(own.driver)
    if failure := _unsupported(ask.isolation, driver.isolations if driver else ()):
        return failure
    wanted: dict[str, Any] = {"connections": ask.connections, "parameters": ask.parameters}
    if ask.isolation != own.isolation:
        wanted["isolation"] = ask.isolation
    return [changing(Operation.MOVE, own, wanted)]


def everywhere(operation: Operation, estate: Estate, wanted: Mapping[str, Any]) -> list[Leg]:
    """Return what does the same in all of a tenant's environments."""
    return [changing(operation, each, wanted) for each in estate.all]


def deploying(
    products: Sequence[PlacedProduct], estate: Estate, default_region: str, *, now: datetime, ids: Ids
) -> list[Leg]:
    """Return what lets exactly these products run: making comes first, and closing what is dropped last."""
    wanted = {each.name: each for each in _apart(products)}
    new = [
        _apart_from(estate.own, each, default_region, ids)
        for name, each in wanted.items()
        if name not in estate.products
    ]
    kept = {name: each for name, each in estate.products.items() if name in wanted}
    dropped = [each for name, each in estate.products.items() if name not in wanted]
    return [
        *map(making, new),
        *(_deploy(each, {name: wanted[name].version}) for name, each in kept.items()),
        *(leg for each in (*new, *kept.values()) for leg in _opened_like(each, estate.own)),
        _deploy(estate.own, _together(products)),
        *(changing(Operation.THROTTLE, each, closed(now, DROPPED)) for each in dropped),
    ]


def _deploy(environment: Settings, products: Mapping[str, str]) -> Leg:
    return changing(Operation.DEPLOY, environment, {"products": products})


def _opened_like(environment: Settings, own: Settings) -> list[Leg]:
    """Return what lets people work in an environment exactly if they can in the tenant's own."""
    if (environment.throttled_at is None) == (own.throttled_at is None):
        return []
    if own.throttled_at is None:
        return [changing(Operation.RELEASE, environment, OPEN)]
    wanted = {"throttled_at": own.throttled_at, "throttle_reason": own.throttle_reason}
    return [changing(Operation.THROTTLE, environment, wanted)]


def closed(now: datetime, reason: str | None) -> Mapping[str, Any]:
    """Return the settings of an environment in which nobody may work."""
    return {"throttled_at": now.isoformat(), "throttle_reason": reason}


def taking_back(operation: Operation, estate: Estate, found: Mapping[str, Any] | None) -> list[Leg]:
    """Return what takes back a provisioning that has ended, or what the release before has changed.

    Args:
        found: what that has changed, as it was before.
    """
    if operation is Operation.PROVISION:
        return [beginning.taking_back(operation, each, None) for each in estate.all]
    return [beginning.taking_back(operation, estate.own, found)]
