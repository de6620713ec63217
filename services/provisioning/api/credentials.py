"""Short-lived credentials of one tenant."""

from datetime import datetime
from typing import Any, Self

from fastapi import APIRouter, Response
from pydantic import Field

from services.provisioning.api.support import ADMINISTRATORS, name_of, no_environment, unavailable
from services.provisioning.drivers import AwsCredentials as Sts
from services.provisioning.drivers import (
    DriverUnavailableError,
    Lender,
    Login,
    MovingError,
    NoEnvironmentError,
    ThrottledError,
    tenancy_of,
)
from services.provisioning.drivers.registry import Drivers
from services.provisioning.jobs.job import Settings
from services.provisioning.queries import environments
from shared.changes import Changes
from shared.http import Asker, Problem, RequestBody, Resource, problems
from shared.postgres import Pool
from shared.text import Identifier, Slug


class CredentialsRequest(RequestBody):
    """Which environment the credentials are for."""

    tenant_id: Identifier
    product: Slug | None = Field(
        default=None, description="For its own environment, where it has one; null for that of the tenant."
    )


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


class AwsCredentials(Resource):
    """A session on Amazon's infrastructure that reaches what this tenant keeps alone."""

    driver: str = Field(description="What kind of infrastructure it is for.")
    region: str
    access_key_id: str
    secret_access_key: str = Field(description="Shown this once; kept by nobody.")
    session_token: str = Field(description="Likewise.")
    expires_at: datetime = Field(description="Nothing can be read or written with it from then on.")

    @classmethod
    def of(cls, session: Sts) -> Self:
        """Make it from what a driver issued."""
        return cls(
            driver=session.driver,
            region=session.region,
            access_key_id=session.access_key_id,
            secret_access_key=session.secret_access_key,
            session_token=session.session_token,
            expires_at=session.expires_at,
        )


def routes(pool: Pool, changes: Changes, drivers: Drivers) -> APIRouter:
    """Return the route that issues credentials."""
    router = APIRouter()

    @router.post("/v1/credentials", status_code=201, dependencies=[ADMINISTRATORS], responses=problems(404, 409, 503))
    async def issue_credentials(
        body: CredentialsRequest, asker: Asker, response: Response
    ) -> Credentials | AwsCredentials:
        """Issue new credentials for one environment, valid for fifteen minutes: for what its driver works on."""
        async with pool.acquire() as connection:
            tenancy = tenancy_of(asker.narrowed(body.tenant_id) or "", body.product)
            row = await environments.get(connection, tenancy)
        if row is None:
            raise no_environment(body.tenant_id, body.product)
        issued = await _issue(Settings.of(row), drivers)
        # It is somewhere else already. Where this fails nobody has its password, and it ends by itself.
        async with changes.transaction() as change:
            change.decided(asker, "credentials.issued", _subject(issued), tenant_id=body.tenant_id, after=_told(issued))
        response.headers["Cache-Control"] = "no-store"
        return Credentials.of(issued) if isinstance(issued, Login) else AwsCredentials.of(issued)

    return router


def _subject(issued: Login | Sts) -> str:
    return f"login:{issued.username if isinstance(issued, Login) else issued.access_key_id}"


def _told(issued: Login | Sts) -> dict[str, Any]:
    place = {"database": issued.database} if isinstance(issued, Login) else {"region": issued.region}
    return {"driver": issued.driver, **place, "expiresAt": issued.expires_at}


async def _issue(environment: Settings, drivers: Drivers) -> Login | Sts:
    name = name_of(environment.owner, environment.product)
    if environment.throttled_at is not None:
        raise _throttled(name, environment.throttle_reason)
    if environment.status in {"provisioning", "removing"}:
        detail = f"The {name} is {environment.status}."
        raise Problem(409, code="environment_not_ready", detail=detail, retryable=environment.status == "provisioning")
    driver = drivers.find(environment.driver)
    if not isinstance(driver, Lender):
        detail = f"The driver {environment.driver!r} issues no credentials."
        raise Problem(409, code="no_credentials", detail=detail)
    try:
        return await driver.issue(environment.for_driver())
    except NoEnvironmentError:
        raise no_environment(environment.owner, environment.product) from None  # removed at this very moment
    except ThrottledError:
        raise _throttled(name, None) from None  # throttled at this very moment
    except MovingError:
        detail = f"The {name} is being moved. Ask again in a moment."
        raise Problem(409, code="environment_moving", detail=detail, retryable=True) from None
    except DriverUnavailableError as error:
        raise unavailable(environment.driver, str(error)) from None


def _throttled(name: str, reason: str | None) -> Problem:
    detail = f"The {name} is throttled" + (f": {reason}" if reason else ".")
    return Problem(409, code="environment_throttled", detail=detail)
