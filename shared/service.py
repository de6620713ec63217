"""The run loop that all six services share: open, serve, consume, and stop without dropping anything."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.types import ASGIApp

from shared.access import replica
from shared.access.authenticator import KnownCredentials
from shared.access.usage import UsageReport
from shared.clock import Clock, SystemClock
from shared.failpoints import arm_from_environment
from shared.http.refusal import IsClosed
from shared.http.server import HttpServer
from shared.ids import Ids, TimeOrderedIds
from shared.logs import configure_logs
from shared.measurements import Measurements
from shared.messaging import inbox
from shared.messaging.bus import Bus
from shared.messaging.consumer import Consumer, backoff
from shared.messaging.dispatch import Dispatch
from shared.messaging.measured import MeasuredBus
from shared.messaging.outbox import Relay
from shared.messaging.rabbitmq import RabbitBus, login_of
from shared.messaging.subscriptions import Subscriptions, bind
from shared.messaging.topology import Manifest
from shared.postgres import CONTENTION, Pool, is_unavailable, open_pool, pending_migrations, transaction
from shared.settings import ServiceSettings, TracingSettings
from shared.tracing.exporting import exported

log = structlog.get_logger(__name__)

VERSION = "0.1.0"
"""Of all services: they are released together."""

SECRETS_FOLDER = "TENURE_SECRETS_DIR"
"""Names the variable that names a folder with a file for each setting that is secret."""

MEMORY_MEGABYTES = 150
"""What no service ever needs more of, whatever it is offered; for limits, and what every load is measured by."""

Check = Callable[[], Awaitable[None]]
Settings = TypeVar("Settings", bound=ServiceSettings)
Result = TypeVar("Result")

_KEEP_PARTITIONS_SECONDS = timedelta(hours=1).total_seconds()
_RETRY_SECONDS = 1.0
_CANCEL_AGAIN_SECONDS = 2.0
_GARBAGE_THRESHOLDS = (20_000, 20, 20)


class NotReadyError(Exception):
    """A part that a service needs is not usable yet."""


@dataclass(frozen=True)
class Ports:
    """What a service gets from the world besides its database; tests hand in the twins.

    Attributes:
        bus: makes the bus of a service from its settings and name; RabbitMQ where None.
        manifest: who says what; the repository's own where None.
        open_pool: opens a service's pool of database connections, as `shared.postgres.open_pool` does.
    """

    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=TimeOrderedIds)
    bus: Callable[[str], Bus] | None = None
    manifest: Manifest = field(default_factory=Manifest.load)
    open_pool: Callable[..., Awaitable[Pool]] = open_pool


class Kernel:
    """The machinery of one service: database pool, bus, outbox relay, consumer, and what it knows of who may ask.

    Args:
        service: its name, as in `shared.contracts.SERVICES`.
        subscriptions: the service's table, unbound.
        dependencies: what its handlers name as keyword-only parameters.

    Attributes:
        registry: what the service's ``/metrics`` shows; whatever measures something keeps it here.
    """

    def __init__(
        self,
        *,
        service: str,
        settings: ServiceSettings,
        pool: Pool,
        bus: Bus,
        ports: Ports,
        subscriptions: Subscriptions,
        dependencies: Mapping[str, Any],
    ) -> None:
        self.pool = pool
        self.registry = CollectorRegistry()
        self.bus = MeasuredBus(bus, self.registry)
        self.measurements = Measurements(
            service=service, version=VERSION, pool=pool, bus=bus, clock=ports.clock, registry=self.registry
        )
        self.ports = ports
        self.dispatch = Dispatch(
            service=service,
            subscriptions=bind(subscriptions, **dependencies),
            clock=ports.clock,
            ids=ports.ids,
            registry=self.registry,
        )
        self.relay = Relay(pool=pool, bus=self.bus, clock=ports.clock, ids=ports.ids, manifest=ports.manifest)
        self.consumer = Consumer(
            service=service,
            bus=self.bus,
            pool=pool,
            dispatch=self.dispatch,
            relay=self.relay,
            manifest=ports.manifest,
            logins=_logins(settings, ports.manifest),
            clock=ports.clock,
            ids=ports.ids,
        )
        self.credentials = KnownCredentials(pool, clock=ports.clock, issuer=settings.issuer)
        self.key_uses = UsageReport(
            self.credentials.uses,
            service=service,
            pool=pool,
            dispatch=self.dispatch,
            relay=self.relay,
            clock=ports.clock,
        )
        self._service = service
        self._has_partitions = asyncio.Event()

    @property
    def checks(self) -> Mapping[str, Check]:
        """What must hold for the service to be ready; each raises if it does not."""
        return {"database": self._check_database, "broker": self.bus.check, "consumer": self._check_consumer}

    async def _check_database(self) -> None:
        async with self.pool.acquire(timeout=2.0) as connection:
            if missing := await pending_migrations(connection, self._service):
                raise NotReadyError(f"migrations are missing: {', '.join(missing)}")

    async def _check_consumer(self) -> None:
        if not self.consumer.is_consuming:
            raise NotReadyError("the work queue is not being consumed")

    async def consume(self) -> None:
        """Consume until the consumer is stopped, from when today's messages have a partition of the inbox."""
        await self._has_partitions.wait()
        await self.consumer.run()

    async def keep_partitions(self) -> None:
        """Keep the inbox's daily partitions in order and forget what is known of access in vain, for ever."""
        while True:
            try:
                async with transaction(self.pool) as connection:
                    await inbox.keep_partitions(connection, now=self.ports.clock.now())
                    await replica.forget(connection, now=self.ports.clock.now())
                self._has_partitions.set()
                await self.ports.clock.sleep(_KEEP_PARTITIONS_SECONDS)
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    raise
                log.warning("partitions wait", action="partitions_unavailable", error=repr(error))
                await self.ports.clock.sleep(_RETRY_SECONDS)


@dataclass(frozen=True)
class Service:
    """One service, put together and not yet running.

    Attributes:
        paths: the paths at the common origin that it owns.
        background: coroutines that run as long as the service does; one that ends by itself is a bug.
        is_closed: tells which requests are turned away unread because there is too much to do.
    """

    name: str
    paths: Sequence[str]
    api: ASGIApp
    kernel: Kernel
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    shutdown_seconds: float = 10.0
    is_closed: IsClosed | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume and relay until ``stopping`` is set, then finish what was begun.

        Raises:
            ExceptionGroup: a part of the service died of a bug; the process should end and be started again.
        """
        structlog.contextvars.bind_contextvars(service=self.name)
        consuming = asyncio.create_task(self.kernel.consume(), name=f"{self.name} consumer")
        kernel = self.kernel
        kept = (kernel.relay.run, kernel.keep_partitions, kernel.key_uses.run, kernel.measurements.run)
        parts = (*kept, *self.background)
        running = [asyncio.create_task(part(), name=f"{self.name} background") for part in parts]
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait([consuming, stop, *running], return_when=asyncio.FIRST_COMPLETED)
            self.kernel.consumer.stop()
            await asyncio.wait([consuming], timeout=self.shutdown_seconds)
        finally:
            await _end([stop, consuming, *running])
        if not stopping.is_set():
            raise RuntimeError(f"{self.name} stopped by itself")
        await self._flush()

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(self.shutdown_seconds):
                await self.kernel.key_uses.report()
                await self.kernel.relay.flush()
        except Exception as error:
            if not is_unavailable(error):
                raise
            log.warning("outbox left to the sweeper", action="flush_skipped", error=repr(error))


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel until all have ended.

    Once is not enough: a cancellation that meets a transaction whose connection has just been lost comes out of asyncpg
    as an error that says so, and whoever waits out such errors goes on.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    if failures := [result for result in results if isinstance(result, Exception)]:
        raise ExceptionGroup("parts of the service failed", failures)


@asynccontextmanager
async def open_kernel(
    service: str,
    settings: ServiceSettings,
    ports: Ports,
    subscriptions: Subscriptions,
    **dependencies: Any,
) -> AsyncIterator[Kernel]:
    """Open a service's pool and bus, waiting for the database as long as it takes; close them at the end.

    Args:
        dependencies: what the handlers need besides ``clock`` and ``ids``, which are always there.
    """
    pool = await patiently(lambda: _open_pool(service, settings, ports), what=service, clock=ports.clock)
    bus = ports.bus(service) if ports.bus else RabbitBus(settings.broker_url, name=f"tenure {service}")
    offered = {"clock": ports.clock, "ids": ports.ids} | dependencies
    try:
        yield Kernel(
            service=service,
            settings=settings,
            pool=pool,
            bus=bus,
            ports=ports,
            subscriptions=subscriptions,
            dependencies=offered,
        )
    finally:
        await bus.close()
        await _close_pool(pool)


async def _open_pool(service: str, settings: ServiceSettings, ports: Ports) -> Pool:
    url = settings.database_url.get_secret_value()
    return await ports.open_pool(url, size=settings.pool_size, name=f"tenure {service}")


async def patiently(action: Callable[[], Awaitable[Result]], *, what: str, clock: Clock) -> Result:
    """Do something at the start of a service that needs a database, waiting for that as long as it takes.

    Args:
        action: tried again from its beginning whenever the database is away.
        what: waits, as the log has it.
    """
    attempt = 0
    while True:
        try:
            return await action()
        except Exception as error:
            if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                raise
            attempt += 1
            log.warning("waiting for the database", action="database_unavailable", service=what, error=repr(error))
            await clock.sleep(backoff(attempt))


async def _close_pool(pool: Pool) -> None:
    try:
        async with asyncio.timeout(5.0):
            await pool.close()
    except TimeoutError:
        pool.terminate()


def _logins(settings: ServiceSettings, manifest: Manifest) -> dict[str, str]:
    """Map each publisher to the broker login that must have signed: its own, or the one that all share."""
    if settings.amqp_url is None:
        return dict.fromkeys(manifest.services, login_of(settings.broker_url))
    return {service: service for service in manifest.services}


Builder = Callable[[Settings, Ports], AbstractAsyncContextManager[Service]]


def main(build: Builder[Settings], settings_class: type[Settings]) -> None:
    """Run one service as this process, until it is told to stop; the body of every ``__main__``.

    Settings are environment variables, or files of the same names in the folder that ``TENURE_SECRETS_DIR`` names.
    """
    settings = settings_class(_secrets_dir=os.environ.get(SECRETS_FOLDER))
    configure_logs(form=settings.log_format, level=settings.log_level)
    arm_from_environment()
    with exported(TracingSettings(), version=VERSION), asyncio.Runner(loop_factory=_fast_loop) as runner:
        runner.run(_serve_one(build, settings))


async def _serve_one(build: Builder[Settings], settings: Settings) -> None:
    stopping = stop_on_signals()
    async with build(settings, Ports()) as service:
        ProcessCollector(registry=service.kernel.registry)
        _settle_garbage()
        log.info("started", action="started", service=service.name, host=settings.host, port=settings.port)
        await run_all([service], service.api, host=settings.host, port=settings.port, stopping=stopping)
    log.info("stopped", action="stopped", service=service.name)


def _settle_garbage() -> None:
    """Leave what was made at the start out of every later collection, and collect less often: a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


async def run_all(
    services: Sequence[Service], origin: ASGIApp, *, host: str, port: int, stopping: asyncio.Event
) -> None:
    """Serve HTTP and run services in this process until ``stopping`` is set or one of them dies.

    HTTP stops first, while the services still run: requests that were begun need them for their answers, and nothing
    new is accepted while the services finish.
    """
    server = HttpServer(origin, host=host, port=port, is_closed=_any_of([service.is_closed for service in services]))
    answered = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        for service in services:
            group.create_task(service.run(answered))
        await stopping.wait()
        server.should_exit = True
        await serving
        answered.set()


def _any_of(closings: Sequence[IsClosed | None]) -> IsClosed | None:
    """Return what turns away whatever one of the services turns away."""
    given = [is_closed for is_closed in closings if is_closed is not None]
    if len(given) <= 1:
        return given[0] if given else None
    return lambda method, path: any(is_closed(method, path) for is_closed in given)


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    return stopping


def _fast_loop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 - absent on platforms that it does not support

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
