"""Short-lived credentials of one tenant."""

from datetime import datetime
from typing import Self

from fastapi import APIRouter, Response
from pydantic import Field

from services.provisioning.api.support import ADMINISTRATORS, no_environment
from services.provisioning.drivers import Lender, Login, MovingError, NoEnvironmentError, ThrottledError
from services.provisioning.drivers.registry import Drivers
from services.provisioning.jobs.job import Settings
from services.provisioning.queries import environments
from shared.changes import Changes
from shared.http import Asker, Problem, RequestBody, Resource, problems
from shared.postgres import Pool
from shared.text import Identifier


class CredentialsRequest(RequestBody):
    """Whose environment the credentials are for."""

    tenant_id: Identifier


class Credentials(Resource):
    """A login to the database of a tenant's environment that sees the rows of this tenant alone."""

    driver: str = Field(description="What kind of server it is for.")
    url: str = Field(description="All that follows, as one connection string.")
    host: str
    port: int
    database: str
    username: str
    password: str = Field(description="Shown this once; kept by nobody.")
    expires_at: datetime = Field(description="Nothing can be read or written with it from then on.")

    @classmethod
    def of(cls, login: Login) -> Self:
        """Make it from what a driver issued."""
        return cls(
            driver=login.driver,
            url=login.url,
            host=login.host,
            port=login.port,
            database=login.database,
            username=login.username,
            password=login.password,
            expires_at=login.expires_at,
        )


def routes(pool: Pool, changes: Changes, drivers: Drivers) -> APIRouter:
    """Return the route that issues credentials."""
    router = APIRouter()

    @router.post("/v1/credentials", status_code=201, dependencies=[ADMINISTRATORS], responses=problems(404, 409))
    async def issue_credentials(body: CredentialsRequest, asker: Asker, response: Response) -> Credentials:
        """Issue a new login to a tenant's environment, valid for fifteen minutes."""
        async with pool.acquire() as connection:
            row = await environments.get(connection, asker.narrowed(body.tenant_id) or "")
        if row is None:
            raise no_environment(body.tenant_id)
        login = await _issue(Settings.of(row), drivers)
        # The login is in another database. Where this fails nobody has its password, and it ends by itself.
        async with changes.transaction() as change:
            change.decided(
                asker,
                "credentials.issued",
                f"login:{login.username}",
                tenant_id=body.tenant_id,
                after={"driver": login.driver, "database": login.database, "expiresAt": login.expires_at},
            )
        response.headers["Cache-Control"] = "no-store"
        return Credentials.of(login)

    return router


async def _issue(environment: Settings, drivers: Drivers) -> Login:
    tenant_id = environment.tenant_id
    if environment.throttled_at is not None:
        raise _throttled(tenant_id, environment.throttle_reason)
    if environment.status in {"provisioning", "removing"}:
        detail = f"The environment of tenant {tenant_id} is {environment.status}."
        raise Problem(409, code="environment_not_ready", detail=detail, retryable=environment.status == "provisioning")
    driver = drivers.find(environment.driver)
    if not isinstance(driver, Lender):
        detail = f"The driver {environment.driver!r} issues no credentials."
        raise Problem(409, code="no_credentials", detail=detail)
    try:
        return await driver.issue(environment.for_driver())
    except NoEnvironmentError:
        raise no_environment(tenant_id) from None  # removed at this very moment
    except ThrottledError:
        raise _throttled(tenant_id, None) from None  # throttled at this very moment
    except MovingError:
        detail = f"The environment of tenant {tenant_id} is being moved. Ask again in a moment."
        raise Problem(409, code="environment_moving", detail=detail, retryable=True) from None


def _throttled(tenant_id: str, reason: str | None) -> Problem:
    detail = f"The environment of tenant {tenant_id} is throttled" + (f": {reason}" if reason else ".")
    return Problem(409, code="environment_throttled", detail=detail)
