"""How the provisioning service is put together; the only place that constructs."""

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, TypeAlias

from services.provisioning.api import PATHS, routes
from services.provisioning.drivers import Lender
from services.provisioning.drivers.aws import open_aws
from services.provisioning.drivers.postgres import PostgresDriver, install
from services.provisioning.drivers.registry import Drivers
from services.provisioning.drivers.script import ScriptDriver, ScriptTerms
from services.provisioning.drivers.webhook import (
    Keys,
    PostgresCallbacks,
    WebhookDriver,
    WebhookTerms,
    open_webhook,
)
from services.provisioning.exports import Exports, sweep_exports
from services.provisioning.handlers import SUBSCRIPTIONS
from services.provisioning.jobs.calls import Calls
from services.provisioning.jobs.exporting import Exporting
from services.provisioning.jobs.settling import Settling
from services.provisioning.jobs.worker import Worker
from services.provisioning.mail import Applying, Reader, Recorder, Reporter, open_queue
from services.provisioning.settings import ProvisioningSettings
from services.provisioning.sweeping import sweep_every_minute
from shared.changes import Changes
from shared.contracts.provisioning import DecisionRecorded
from shared.http import create_api
from shared.postgres import Pool
from shared.service import VERSION, Kernel, Ports, Service, open_kernel, patiently

_APPLICATION_POOL = 12

_Background: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def build(settings: ProvisioningSettings, ports: Ports) -> AsyncIterator[Service]:
    """Construct the service on its own database and broker login; close both at the end.

    Raises:
        UnusableScriptError: the script driver's program cannot be run.
    """
    async with AsyncExitStack() as opened:
        application = await opened.enter_async_context(await _open_application(settings, ports))
        drivers = Drivers([_postgres(settings, ports, application), *_script(settings)])
        kernel = await opened.enter_async_context(
            open_kernel("provisioning", settings, ports, SUBSCRIPTIONS, drivers=drivers, regions=settings.regions)
        )
        kernel.measurements.watch_pool("application", application)
        callbacks = PostgresCallbacks(kernel.pool)
        if settings.webhook_url is not None:
            drivers.add(await opened.enter_async_context(_webhook(settings, ports, callbacks)))
        if (terms := settings.aws_terms()) is not None:
            drivers.add(await opened.enter_async_context(open_aws(terms, clock=ports.clock)))
        changes = Changes(kernel, DecisionRecorded)
        mail = opened.enter_context(_mail(settings, kernel, drivers, changes))
        worker = _worker(kernel, drivers, settings)
        kernel.consumer.on_commit = worker.wake
        api = create_api(
            "provisioning",
            routers=[
                routes(
                    kernel.pool,
                    changes=changes,
                    drivers_=drivers,
                    callbacks=callbacks,
                    keys=_keys(settings),
                    limits=settings.mail_limits(),
                    clock=ports.clock,
                )
            ],
            admin_key=settings.admin_key,
            credentials=kernel.credentials,
            checks=kernel.checks,
            version=VERSION,
            registry=kernel.registry,
        )
        yield Service(
            "provisioning",
            PATHS,
            api,
            kernel,
            background=[worker.run, *mail, *_sweepers(kernel, drivers, callbacks)],
            shutdown_seconds=settings.shutdown_seconds,
        )


async def _open_application(settings: ProvisioningSettings, ports: Ports) -> Pool:
    url = settings.application_database_url.get_secret_value()

    async def open_application() -> Pool:
        await install(url, settings.application_migrations)
        return await ports.open_pool(url, size=_APPLICATION_POOL, name="tenure postgres driver")

    return await patiently(open_application, what="provisioning", clock=ports.clock)


def _postgres(settings: ProvisioningSettings, ports: Ports, application: Pool) -> PostgresDriver:
    url = settings.application_database_url.get_secret_value()
    return PostgresDriver(application, url=url, clock=ports.clock, migrations=settings.application_migrations)


def _script(settings: ProvisioningSettings) -> list[ScriptDriver]:
    if settings.script is None:
        return []
    terms = ScriptTerms(
        program=settings.script,
        timeout=timedelta(seconds=settings.script_timeout_seconds),
        passed=settings.script_pass,
        folder=settings.script_folder,
    )
    return [ScriptDriver(terms)]


@asynccontextmanager
async def _webhook(
    settings: ProvisioningSettings, ports: Ports, callbacks: PostgresCallbacks
) -> AsyncIterator[WebhookDriver]:
    assert settings.webhook_url is not None
    terms = WebhookTerms(
        url=settings.webhook_url,
        keys=_keys(settings),
        origin=settings.issuer,
        timeout=timedelta(seconds=settings.webhook_timeout_seconds),
        patience=timedelta(seconds=settings.webhook_patience_seconds),
        may_be_plain=settings.webhook_plain,
    )
    async with open_webhook(terms, callbacks=callbacks, clock=ports.clock, ids=ports.ids) as driver:
        yield driver


def _keys(settings: ProvisioningSettings) -> Keys:
    """Return what callbacks are signed with; without any nobody can have signed one."""
    secrets = settings.webhook_secrets
    return Keys(()) if secrets is None else Keys.of(secrets.get_secret_value())


@contextmanager
def _mail(
    settings: ProvisioningSettings, kernel: Kernel, drivers: Drivers, changes: Changes
) -> Iterator[list[_Background]]:
    """Return what hears of mails and acts on it; nothing where no queue is told of."""
    terms, clock = settings.aws_terms(), kernel.ports.clock
    if terms is None or settings.aws_mail_queue_url is None:
        yield []
        return
    recorder = Recorder(kernel.pool, clock=clock)
    with open_queue(terms, settings.aws_mail_queue_url) as queue:
        yield [
            Reader(queue, recorder, clock=clock).run,
            Reporter(changes, settings.mail_limits(), clock=clock).run,
            Applying(kernel.pool, drivers, clock=clock).run,
            functools.partial(sweep_every_minute, "mail", recorder.sweep, clock),
        ]


def _worker(kernel: Kernel, drivers: Drivers, settings: ProvisioningSettings) -> Worker:
    clock, ids = kernel.ports.clock, kernel.ports.ids
    exports = Exports(kernel.pool, clock=clock, lifetime=timedelta(days=settings.export_lifetime_days))
    exporting = Exporting(kernel.pool, exports, drivers)
    calls = Calls(drivers, {"export": exporting.export, "discard": exporting.discard})
    settling = Settling(kernel.pool, kernel.dispatch, clock=clock)
    return Worker(kernel.pool, drivers, calls, settling, kernel.relay.send, clock=clock, ids=ids)


def _sweepers(kernel: Kernel, drivers: Drivers, callbacks: PostgresCallbacks) -> list[_Background]:
    clock = kernel.ports.clock
    sweeps: dict[str, Callable[[], Coroutine[Any, Any, int]]] = {
        "exports": functools.partial(sweep_exports, kernel.pool, clock),
        "callbacks": lambda: callbacks.sweep(clock.now()),
    }
    sweeps |= {f"{driver.name}_credentials": driver.sweep for driver in drivers if isinstance(driver, Lender)}
    return [functools.partial(sweep_every_minute, what, sweep, clock) for what, sweep in sweeps.items()]
