import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2
import pytest

from deploy.databases import DatabaseUrls
from deploy.local.ports import free_port
from deploy.local.throwaway import FreshDatabases
from shared.clock import Clock, ManualClock, SystemClock
from shared.contracts.base import Fact, Message
from shared.contracts.billing import OpenAccount
from shared.http import HttpServer
from shared.ids import Ids
from shared.messaging.bus import BusUnavailableError
from shared.messaging.event import Event, decode, parse_batch
from shared.messaging.subscriptions import Subscriptions, do
from shared.postgres import Connection, Pool
from shared.service import Kernel, NotReadyError, Ports, Service, open_kernel, run_all, stop_on_signals
from shared.settings import ServiceSettings, settings_of
from shared.testing import eventually, hurry
from shared.testing.memory_bus import MemoryBroker, MemoryBus
from shared.testing.one_service import SUBSCRIPTIONS, Script
from shared.testing.three_services import MANIFEST, asked, parcel_of
from shared.testing.wire import Wire

Background = Callable[[], Coroutine[Any, Any, None]]


class Office:
    """A broker in memory, and kernels of ``billing`` on it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.broker = MemoryBroker(MANIFEST, clock)
        self.script = Script()

    @asynccontextmanager
    async def kernel(self, database_url: str, table: Subscriptions = SUBSCRIPTIONS) -> AsyncIterator[Kernel]:
        ports = Ports(clock=self.clock, bus=lambda name: MemoryBus(self.broker, name), manifest=MANIFEST)
        async with open_kernel("billing", settings(database_url), ports, table, script=self.script) as kernel:
            yield kernel

    async def publish(self, *events: Event) -> None:
        await MemoryBus(self.broker, events[0].publisher).publish([parcel_of(*events)])

    def said(self) -> list[Event]:
        bodies = [message.body for message in self.broker.messages("onboarding.work")]
        return [decode(raw) for body in bodies for raw in parse_batch(body)]


class BillingSettings(ServiceSettings):
    model_config = settings_of("billing")


def settings(database_url: str, *, own_login: bool = True) -> BillingSettings:
    broker = "TENURE_BILLING_AMQP_URL" if own_login else "TENURE_AMQP_URL"
    return BillingSettings.from_environment(
        {
            "TENURE_BILLING_DATABASE_URL": database_url,
            "TENURE_ADMIN_KEY": "key",
            broker: "amqp://shared:secret@127.0.0.1/",
        }
    )


def open_account(tenant_id: str) -> Event:
    return asked(OpenAccount(tenant_id=tenant_id, customer_name="Ada", plan="pro"))


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with its path."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def service_of(kernel: Kernel, *background: Background, shutdown_seconds: float = 5.0) -> Service:
    return Service("billing", ("/v1/accounts",), no_app, kernel, background, shutdown_seconds)


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    office = Office(SystemClock())
    yield office
    await office.broker.close()


@pytest.fixture
async def kernel(office: Office, pool: Pool, kernel_database: DatabaseUrls) -> AsyncIterator[Kernel]:
    async with office.kernel(kernel_database.app) as kernel:
        yield kernel


async def until_consuming(kernel: Kernel) -> None:
    await eventually(lambda: kernel.consumer.is_consuming, describe="the service consumes")


async def test_a_service_works_until_it_is_told_to_stop(office: Office, kernel: Kernel, pool: Pool) -> None:
    stopping = asyncio.Event()
    running = asyncio.create_task(service_of(kernel).run(stopping))
    ask = open_account("t1")
    await office.publish(ask)
    await eventually(lambda: len(office.said()) == 1)

    stopping.set()
    await asyncio.wait_for(running, 5)

    assert [answer.causation_id for answer in office.said()] == [ask.id]
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 0
    assert office.broker.depth("billing.work") == 0


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # it is so much lost that the pool has it back
        return True


async def test_it_stops_although_a_lost_connection_takes_the_place_of_a_cancellation(
    kernel: Kernel, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.service._CANCEL_AGAIN_SECONDS", 0.1)
    begun: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
    losses = 0

    async def wait_in_a_transaction() -> None:
        nonlocal losses
        while True:
            try:
                async with kernel.pool.acquire() as connection, connection.transaction():
                    if not begun.done():
                        begun.set_result(connection)
                    await asyncio.Event().wait()
            except asyncpg.InterfaceError:
                losses += 1
                if losses > 1:
                    raise

    stopping = asyncio.Event()
    running = asyncio.create_task(service_of(kernel, wait_in_a_transaction).run(stopping))
    connection = await begun
    await pool.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
    await eventually(lambda: _is_lost(connection), describe="the connection is lost")
    stopping.set()

    await asyncio.wait_for(running, 5)

    assert losses == 1, "the cancellation was not lost, so this proves nothing"


async def test_what_was_begun_is_finished_before_it_stops(office: Office, kernel: Kernel, pool: Pool) -> None:
    begun, go_on, stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def linger(_connection: Connection, _messages: Sequence[Message]) -> None:
        begun.set()
        await go_on.wait()

    office.script.trouble = linger
    running = asyncio.create_task(service_of(kernel).run(stopping))
    await office.publish(open_account("t1"))
    await begun.wait()
    stopping.set()
    await asyncio.sleep(0.05)
    assert not running.done()
    go_on.set()
    await asyncio.wait_for(running, 5)

    assert len(office.said()) == 1
    assert office.broker.depth("billing.work") == 0


async def test_stopping_has_its_time_and_what_takes_longer_is_left_for_the_next(
    office: Office, kernel: Kernel, pool: Pool
) -> None:
    begun, stopping = asyncio.Event(), asyncio.Event()

    async def hang(_connection: Connection, _messages: Sequence[Message]) -> None:
        begun.set()
        await asyncio.Event().wait()

    office.script.trouble = hang
    running = asyncio.create_task(service_of(kernel, shutdown_seconds=0.1).run(stopping))
    await office.publish(open_account("t1"))
    await begun.wait()
    stopping.set()
    await asyncio.wait_for(running, 3)

    assert [message.returns for message in office.broker.messages("billing.work")] == [1]
    assert await pool.fetchval("SELECT count(*) FROM effect") == 0


async def test_a_part_that_fails_takes_the_service_down_with_its_reason(kernel: Kernel) -> None:
    async def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(service_of(kernel, fail).run(asyncio.Event()), 5)

    assert [str(error) for error in raised.value.exceptions] == ["a bug"]


async def test_a_part_that_ends_by_itself_takes_the_service_down(kernel: Kernel) -> None:
    async def end() -> None:
        pass

    with pytest.raises(RuntimeError, match="billing stopped by itself"):
        await asyncio.wait_for(service_of(kernel, end).run(asyncio.Event()), 5)


async def test_todays_inbox_has_its_partition_before_the_first_message(office: Office, kernel: Kernel) -> None:
    stopping = asyncio.Event()
    running = asyncio.create_task(service_of(kernel).run(stopping))
    await until_consuming(kernel)

    assert await kernel.pool.fetchval("SELECT to_regclass($1)::text", f"inbox_{office.clock.now():%Y%m%d}")

    stopping.set()
    await running


async def test_a_service_is_ready_when_all_its_parts_are(office: Office, fresh_database: FreshDatabases) -> None:
    async with office.kernel(await fresh_database("billing"), {}) as kernel:
        await kernel.checks["database"]()
        await kernel.checks["broker"]()
        with pytest.raises(NotReadyError, match="work queue"):
            await kernel.checks["consumer"]()

        stopping = asyncio.Event()
        running = asyncio.create_task(service_of(kernel).run(stopping))
        await until_consuming(kernel)
        await kernel.checks["consumer"]()

        office.broker.go_away()
        with pytest.raises(BusUnavailableError):
            await kernel.checks["broker"]()
        stopping.set()
        await running


async def test_a_service_whose_database_lacks_migrations_is_not_ready(kernel: Kernel) -> None:
    with pytest.raises(NotReadyError, match=r"migrations are missing: billing/0001"):
        await kernel.checks["database"]()


async def test_a_service_starts_before_its_database_and_waits(
    office: Office, pool: Pool, kernel_database: DatabaseUrls
) -> None:
    async with Wire(kernel_database.app) as wire:
        url = wire.through(kernel_database.app)
        wire.break_off()
        opened = asyncio.Event()

        async def open_and_close() -> None:
            async with office.kernel(url):
                opened.set()

        opening = asyncio.create_task(open_and_close())
        await asyncio.sleep(0.1)
        assert not opened.is_set()

        await wire.mend()
        await asyncio.wait_for(opening, 10)
        assert opened.is_set()


async def test_a_database_that_is_away_does_not_keep_a_service_from_stopping(
    pool: Pool, kernel_database: DatabaseUrls, office: Office
) -> None:
    async with Wire(kernel_database.app) as wire, office.kernel(wire.through(kernel_database.app)) as kernel:
        stopping = asyncio.Event()
        running = asyncio.create_task(service_of(kernel).run(stopping))
        await office.publish(open_account("t1"))
        await eventually(lambda: len(office.said()) == 1)
        wire.break_off()
        stopping.set()
        await asyncio.wait_for(running, 5)


async def test_handlers_are_offered_the_clock_and_the_ids(office: Office, kernel_database: DatabaseUrls) -> None:
    async def handler(
        _connection: Connection, _asks: Sequence[OpenAccount], *, clock: Clock, ids: Ids, script: Script
    ) -> Sequence[Fact]:
        return []

    async with office.kernel(kernel_database.app, {OpenAccount: do(handler)}):
        pass


async def test_a_handler_that_wants_what_nobody_has_keeps_the_service_from_starting(
    office: Office, kernel_database: DatabaseUrls
) -> None:
    async def handler(_connection: Connection, _asks: Sequence[OpenAccount], *, oracle: object) -> Sequence[Fact]:
        return []

    with pytest.raises(LookupError, match="handler needs oracle"):
        async with office.kernel(kernel_database.app, {OpenAccount: do(handler)}):
            pass


@pytest.mark.parametrize(("own_login", "signer"), [(True, "onboarding"), (False, "shared")])
async def test_publishers_sign_with_their_own_login_or_with_the_one_that_all_share(
    office: Office, pool: Pool, kernel_database: DatabaseUrls, *, own_login: bool, signer: str
) -> None:
    ports = Ports(bus=lambda name: MemoryBus(office.broker, name), manifest=MANIFEST)
    chosen = settings(kernel_database.app, own_login=own_login)
    bus = MemoryBus(office.broker, signer)
    await bus.publish([parcel_of(open_account("t1"))])
    async with open_kernel("billing", chosen, ports, SUBSCRIPTIONS, script=office.script) as kernel:
        stopping = asyncio.Event()
        running = asyncio.create_task(service_of(kernel).run(stopping))
        await eventually(lambda: len(office.said()) == 1)
        stopping.set()
        await running

    assert office.broker.depth("billing.parking") == 0


async def test_http_is_served_while_the_service_runs_and_no_longer(kernel: Kernel) -> None:
    stopping, port = asyncio.Event(), free_port()
    service = service_of(kernel)
    running = asyncio.create_task(run_all([service], service.api, host="127.0.0.1", port=port, stopping=stopping))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def answers() -> bool:
            try:
                return (await client.get("/v1/accounts")).text == "/v1/accounts"
            except httpx2.TransportError:
                return False

        await eventually(answers)
        await until_consuming(kernel)
        response = await client.get("/")
        assert "server" not in response.headers

        stopping.set()
        await asyncio.wait_for(running, 10)
        assert not await answers()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_asks_a_process_to_stop(number: signal.Signals) -> None:
    stopping = stop_on_signals()
    try:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stopping.wait(), 2)
    finally:
        for each in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(each)


def test_the_http_server_leaves_the_signals_to_the_process() -> None:
    server = HttpServer(no_app, host="127.0.0.1", port=0)
    before = signal.getsignal(signal.SIGTERM)

    with server.capture_signals():
        assert signal.getsignal(signal.SIGTERM) is before


async def test_a_database_that_is_away_at_the_start_delays_consuming_by_seconds_only(
    pool: Pool, kernel_database: DatabaseUrls
) -> None:
    clock = ManualClock()
    office = Office(clock)
    async with Wire(kernel_database.app) as wire, office.kernel(wire.through(kernel_database.app)) as kernel:
        wire.break_off()
        stopping = asyncio.Event()
        running = asyncio.create_task(service_of(kernel).run(stopping))
        begun = clock.now()
        await hurry(clock, lambda: (clock.now() - begun).total_seconds() > 5)
        assert not kernel.consumer.is_consuming

        await wire.mend()
        mended = clock.now()
        await hurry(clock, lambda: kernel.consumer.is_consuming)
        assert (clock.now() - mended).total_seconds() <= 60

        stopping.set()
        await hurry(clock, running.done)
        await running


async def test_a_service_that_dies_takes_its_process_with_it(kernel: Kernel) -> None:
    async def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(
            run_all([service_of(kernel, fail)], no_app, host="127.0.0.1", port=free_port(), stopping=asyncio.Event()),
            10,
        )

    assert raised.group_contains(RuntimeError, match="a bug")
