"""All HTTP of the provisioning service, a file for each thing that it is about."""

from fastapi import APIRouter

from services.provisioning.api import credentials, deployments, drivers, environments, exports, jobs, mail
from services.provisioning.drivers.registry import Drivers
from services.provisioning.drivers.webhook import Callbacks, Keys, callback_routes
from services.provisioning.mail import Limits
from shared.changes import Changes
from shared.clock import Clock
from shared.postgres import Pool

PATHS = (
    "/v1/environments",
    "/v1/deployments",
    "/v1/credentials",
    "/v1/exports",
    "/v1/drivers",
    "/v1/jobs",
    "/v1/driver-callbacks",
    "/v1/mail",
    "/v1/mail-resumptions",
)


def routes(
    pool: Pool,
    *,
    changes: Changes,
    drivers_: Drivers,
    callbacks: Callbacks,
    keys: Keys,
    limits: Limits,
    clock: Clock,
) -> APIRouter:
    """Return every route of the service.

    Args:
        callbacks: where the answers of those arrive whom the webhook driver has asked.
        keys: one of which these are signed with.
        limits: of what may come of a tenant's mails.
    """
    router = APIRouter(tags=["provisioning"])
    router.include_router(environments.routes(pool, drivers_))
    router.include_router(deployments.routes(pool))
    router.include_router(credentials.routes(pool, changes, drivers_))
    router.include_router(exports.routes(pool, changes, clock))
    router.include_router(drivers.routes(drivers_))
    router.include_router(jobs.routes(pool))
    router.include_router(mail.routes(pool, changes, limits, clock))
    router.include_router(callback_routes(callbacks, keys, clock=clock))
    return router
