"""The six services in one process behind one origin; each still with its own database, logins and connections."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.types import ASGIApp

import services.billing.app
import services.billing.settings
import services.identity.app
import services.identity.settings
import services.metrics.app
import services.metrics.settings
import services.onboarding.app
import services.onboarding.settings
import services.provisioning.app
import services.provisioning.settings
import services.tenant.app
import services.tenant.settings
from shared.http import one_origin
from shared.service import Builder, Ports, Service
from shared.settings import ServiceSettings

SERVICES: Mapping[str, tuple[Builder[Any], type[ServiceSettings]]] = {
    "onboarding": (services.onboarding.app.build, services.onboarding.settings.OnboardingSettings),
    "tenant": (services.tenant.app.build, services.tenant.settings.TenantSettings),
    "identity": (services.identity.app.build, services.identity.settings.IdentitySettings),
    "billing": (services.billing.app.build, services.billing.settings.BillingSettings),
    "metrics": (services.metrics.app.build, services.metrics.settings.MetricsSettings),
    "provisioning": (services.provisioning.app.build, services.provisioning.settings.ProvisioningSettings),
}
"""How each service is built, and what it wants to be told."""


@asynccontextmanager
async def built_services(
    environment: Mapping[str, Mapping[str, str]], ports: Ports | None = None
) -> AsyncIterator[Sequence[Service]]:
    """Build all six services in this process.

    Args:
        environment: what each is told, as in a process of its own.
        ports: clock, ids and bus for all of them; the real ones where None.
    """
    async with AsyncExitStack() as exits:
        yield [await exits.enter_async_context(_built(name, environment[name], ports or Ports())) for name in SERVICES]


def origin_of(built: Sequence[Service]) -> ASGIApp:
    """Put services behind one origin, each path at the service that owns it."""
    return one_origin({service.name: (service.paths, service.api) for service in built})


def _built(name: str, environment: Mapping[str, str], ports: Ports) -> AbstractAsyncContextManager[Service]:
    build, settings_class = SERVICES[name]
    return build(told(settings_class, environment), ports)


def told(settings_class: type[ServiceSettings], environment: Mapping[str, str]) -> ServiceSettings:
    """Make a service's settings of an environment that is not this process's own."""
    return settings_class.from_environment(environment)
