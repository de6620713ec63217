"""How the six services are put together for a simulation: by their own ``build``, on simulated ports."""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

import services.billing.app
import services.identity.app
import services.metrics.app
import services.onboarding.api
import services.onboarding.app
import services.provisioning.app
import services.tenant.app
from deploy.databases import APPLICATION
from deploy.local.system import SERVICES, told
from deploy.logins import ENCRYPTION_KEYS
from services.provisioning.drivers import NoEnvironmentError
from services.provisioning.drivers.postgres import PostgresDriver
from shared.http import create_api
from shared.settings import ServiceSettings
from tests.simulation.door import ADMIN_KEY
from tests.simulation.process import current

_SCHEME = "simulated://"
_PLAIN = (str, int, float, bytes, tuple, type(None))
_SILENT = (services.tenant.app, services.identity.app, services.billing.app, services.metrics.app)


def database_of(url: str) -> str:
    """Return which database a simulated URL names."""
    return url.removeprefix(_SCHEME)


def simulated_settings() -> Mapping[str, ServiceSettings]:
    """Return what each service is told."""
    common = {
        "TENURE_ADMIN_KEY": ADMIN_KEY,
        "TENURE_APPLICATION_DATABASE_URL": _SCHEME + APPLICATION,
        ENCRYPTION_KEYS: base64.urlsafe_b64encode(bytes(32)).decode(),
    }
    return {
        name: told(
            settings,
            {
                f"TENURE_{name.upper()}_DATABASE_URL": _SCHEME + name,
                f"TENURE_{name.upper()}_AMQP_URL": _SCHEME + name,
                **common,
            },
        )
        for name, (_, settings) in SERVICES.items()
    }


class Edge:
    """The HTTP application of onboarding, made once for all processes of all simulations.

    To make one takes as long as some onboardings take. So its routes are given stand-ins for what ``build`` gives them,
    each of which is, while a request is handled, what the process that handles it was built with.
    """

    def __init__(self) -> None:
        self._make_routes: Any = services.onboarding.api.routes
        self._make_api: Any = create_api
        self._router: Any = None
        self._api: Any = None

    def routes(self, *parts: Any, **named: Any) -> Any:
        """Return the routes, and note what the process that is being built gives them."""
        process = current()
        assert process is not None
        process.parts = dict(enumerate(parts)) | named
        if self._router is None:
            stand_ins = {key: _stand_in(key, part) for key, part in process.parts.items()}
            self._router = self._make_routes(
                *(stand_ins[place] for place in range(len(parts))), **{name: stand_ins[name] for name in named}
            )
        return self._router

    def create_api(self, *args: Any, **named: Any) -> Any:
        """Return the application."""
        if self._api is None:
            self._api = self._make_api(*args, **named)
        return self._api


class _StandIn:
    def __init__(self, key: Any) -> None:
        self._key = key

    def __getattr__(self, name: str) -> Any:
        process = current()
        assert process is not None
        return getattr(process.parts[self._key], name)


def _stand_in(key: Any, part: Any) -> Any:
    return part if isinstance(part, _PLAIN) else _StandIn(key)


@contextmanager
def adapted_services(edge: Edge) -> Iterator[None]:
    """Let services be built without what no simulation asks of them.

    Services that no client talks to have no HTTP application. The schema of the application database is there. An
    export opens a session of its own as a login that it makes, past any gate: here it finds no rows.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (*_SILENT, services.provisioning.app):
            patch.setattr(module, "routes", _nothing)
            patch.setattr(module, "create_api", _nothing)
        patch.setattr(services.onboarding.app, "routes", edge.routes)
        patch.setattr(services.onboarding.app, "create_api", edge.create_api)
        patch.setattr(services.provisioning.app, "install", _installed)
        patch.setattr(PostgresDriver, "export", _exported)
        yield


def _nothing(*_: Any, **__: Any) -> None:
    return None


async def _exported(driver: Any, environment: Any, write: Any) -> dict[str, int]:
    (found,) = await driver.inspect([environment])
    if not found.exists:
        raise NoEnvironmentError(environment.tenant_id)
    await write(b"nothing")
    return {}


async def _installed(*_: Any, **__: Any) -> list[str]:
    return []
