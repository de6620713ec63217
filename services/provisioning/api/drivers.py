"""The drivers that this installation has."""

from fastapi import APIRouter
from pydantic import Field

from services.provisioning.api.support import OPERATORS
from services.provisioning.drivers import Exporter, Lender
from services.provisioning.drivers.registry import Drivers
from shared.http import Page, Resource


class Driver(Resource):
    """What makes environments; tiers name it."""

    name: str
    isolations: list[str] = Field(description="What it can make.")
    issues_credentials: bool
    exports: bool = Field(description="Whether it can give everything that a tenant keeps.")


def routes(drivers: Drivers) -> APIRouter:
    """Return the route that lists drivers."""
    router = APIRouter()

    @router.get("/v1/drivers", dependencies=[OPERATORS])
    async def list_drivers() -> Page[Driver]:
        """List the drivers that tiers can name."""
        items = [
            Driver(
                name=driver.name,
                isolations=list(driver.isolations),
                issues_credentials=isinstance(driver, Lender),
                exports=isinstance(driver, Exporter),
            )
            for driver in drivers
        ]
        return Page(items=items, next_cursor=None)

    return router
