"""What only the real broker can show: its refusals, its silences, and a thin slice of the kernel on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPError, ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused

from deploy.local.ports import free_port
from deploy.local.rabbitmq import BrokerServer
from deploy.local.throwaway import Server
from deploy.topology import WATCHER, declare
from shared.contracts.base import Message
from shared.contracts.billing import OpenAccount
from shared.contracts.tenant import TenantActivated
from shared.messaging import rabbitmq
from shared.messaging.bus import BusUnavailableError, Outcome
from shared.messaging.event import Event, decode, parse_batch
from shared.messaging.ladder import DETAIL, REASON
from shared.messaging.rabbitmq import RabbitBus, login_of
from shared.messaging.topology import STATUS_EXCHANGE
from shared.postgres import Connection, Pool
from shared.testing import eventually
from shared.testing.bus_suite import parcel, read, take
from shared.testing.one_service import OneService
from shared.testing.sites import RabbitSite, rabbit_site
from shared.testing.three_services import ANSWER, ASK, MANIFEST, NEWS, asked, parcel_of, told

pytestmark = pytest.mark.broker


@pytest.fixture
async def site(broker_server: Server, logins: Mapping[str, str]) -> AsyncIterator[RabbitSite]:
    async with rabbit_site(broker_server.admin_url, logins) as site:
        yield site


@asynccontextmanager
async def channel_of(site: RabbitSite, login: str) -> AsyncIterator[AbstractChannel]:
    """Open a channel without any of our own code in between."""
    async with await aio_pika.connect(site.url(login)) as connection:
        yield await connection.channel()


def open_account(tenant_id: str) -> Event:
    return asked(OpenAccount(tenant_id=tenant_id, customer_name="Ada", plan="pro"))


class TestWall:
    async def test_nobody_signs_with_anothers_login(self, site: RabbitSite) -> None:
        async with channel_of(site, "tenant") as channel:
            exchange = await channel.get_exchange("tenure.tenant", ensure=False)
            with pytest.raises(ChannelPreconditionFailed):
                await exchange.publish(aio_pika.Message(b"forged", user_id="onboarding"), NEWS)

        assert await site.ready("billing.work") == 0

    async def test_a_cc_header_leads_nowhere_but_to_those_who_listen_to_the_forger(self, site: RabbitSite) -> None:
        sent = aio_pika.Message(b"forged", user_id="tenant", headers={"CC": [ASK, ANSWER, "onboarding.work"]})
        async with channel_of(site, "tenant") as channel:
            exchange = await channel.get_exchange("tenure.tenant", ensure=False)
            await exchange.publish(sent, NEWS)

        [arrived] = await read(site, "billing.work", 1)
        assert (arrived.exchange, arrived.user_id) == ("tenure.tenant", "tenant")
        assert await site.ready("onboarding.work") == await site.ready("billing.work") == 0

    @pytest.mark.parametrize(
        "deed",
        [
            lambda channel: channel.declare_queue("tenant.own"),
            lambda channel: channel.declare_exchange("tenure.own"),
            lambda channel: channel.queue_delete("tenant.work"),
            lambda channel: channel.queue_delete("billing.work"),
            lambda channel: channel.exchange_delete("tenure.tenant"),
            lambda channel: channel.exchange_delete("tenure.status"),
            lambda channel: purge(channel, "billing.work"),
            lambda channel: bind(channel, "tenant.work", "tenure.onboarding"),
            lambda channel: bind(channel, "tenant.work", "tenure.tenant"),
        ],
    )
    async def test_a_service_cannot_change_the_topology(
        self, site: RabbitSite, deed: Callable[[AbstractChannel], Awaitable[object]]
    ) -> None:
        async with channel_of(site, "tenant") as channel:
            with pytest.raises(ChannelAccessRefused):
                await deed(channel)

    async def test_a_watcher_hears_the_status_and_nothing_else(self, site: RabbitSite) -> None:
        async with channel_of(site, WATCHER) as channel:
            queue = await channel.declare_queue("sub.watcher", auto_delete=True)
            await queue.bind(STATUS_EXCHANGE, "#")
            with pytest.raises(ChannelAccessRefused):
                await queue.bind("tenure.onboarding", "#")
        async with channel_of(site, WATCHER) as channel:
            with pytest.raises(ChannelAccessRefused):
                await bind(channel, "sub.watcher", "tenure.billing.retry")


async def purge(channel: AbstractChannel, queue: str) -> None:
    found = await channel.get_queue(queue, ensure=False)
    await found.purge()


async def bind(channel: AbstractChannel, queue: str, exchange: str) -> None:
    found = await channel.get_queue(queue, ensure=False)
    await found.bind(exchange, "#")


class TestConnections:
    @pytest.fixture(autouse=True)
    def impatience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rabbitmq, "_PUBLISH_SECONDS", 0.3)
        monkeypatch.setattr(rabbitmq, "_CONNECT_SECONDS", 0.5)

    async def test_a_frozen_broker_holds_nobody_longer_than_the_bound(self, site: RabbitSite) -> None:
        bus = site.bus("onboarding")
        await bus.check()
        site.wire.freeze()
        begun = asyncio.get_running_loop().time()

        outcomes = await bus.publish([parcel("onboarding", ASK) for _ in range(3)])

        assert set(outcomes) == {Outcome.UNKNOWN}
        assert asyncio.get_running_loop().time() - begun < 3
        site.cut()
        assert await bus.publish([parcel("onboarding", ASK)]) == [Outcome.CONFIRMED]

    async def test_a_silent_subscription_is_noticed(self, site: RabbitSite, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rabbitmq, "_WATCH_SECONDS", 0.05)
        async with site.bus("billing").consume("billing.work", prefetch=1) as consumption:
            site.wire.freeze()
            with pytest.raises(BusUnavailableError, match="watchdog"):
                await asyncio.wait_for(consumption.receive(1), 5)
            site.cut()

    async def test_a_healthy_subscription_is_left_alone(
        self, site: RabbitSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rabbitmq, "_WATCH_SECONDS", 0.02)
        async with site.bus("billing").consume("billing.work", prefetch=1) as consumption:
            await asyncio.sleep(0.2)  # some looks of the watchdog
            await site.bus("onboarding").publish([parcel("onboarding", ASK)])
            assert len(await take(consumption, 1)) == 1

    async def test_a_queue_that_is_taken_away_ends_its_subscription(
        self, site: RabbitSite, broker_server: Server
    ) -> None:
        async with site.bus("billing").consume("billing.work", prefetch=1) as consumption:
            await site.delete_queue("billing.work")
            with pytest.raises(BusUnavailableError, match="cancelled by the broker"):
                await asyncio.wait_for(consumption.receive(1), 5)

        await declare(broker_server.admin_url, MANIFEST)
        await site.bus("onboarding").publish([parcel("onboarding", ASK)])
        assert len(await read(site, "billing.work", 1)) == 1

    async def test_declaring_what_is_there_changes_nothing(self, site: RabbitSite, broker_server: Server) -> None:
        await site.bus("onboarding").publish([parcel("onboarding", ASK)])

        await declare(broker_server.admin_url, MANIFEST)

        assert await site.ready("billing.work") == 1

    async def test_a_wrong_password_is_an_unavailable_broker(self, site: RabbitSite) -> None:
        bus = RabbitBus(site.url("billing").replace("billing-secret", "wrong"), name="test")

        with pytest.raises(BusUnavailableError):
            await bus.check()
        assert await bus.publish([parcel("billing", ANSWER)]) == [Outcome.UNKNOWN]

    async def test_where_nobody_listens_the_broker_is_unavailable(self) -> None:
        bus = RabbitBus(f"amqp://billing:secret@127.0.0.1:{free_port()}/", name="test")

        with pytest.raises(BusUnavailableError):
            await bus.check()
        with pytest.raises(BusUnavailableError):
            async with bus.consume("billing.work", prefetch=1):
                pass

    async def test_a_subscription_can_be_cancelled_while_it_waits(self, site: RabbitSite) -> None:
        async def wait() -> None:
            async with site.bus("billing").consume("billing.work", prefetch=1) as consumption:
                await consumption.receive(1)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.1)
        waiting.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 5)
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("watchdog")]

    async def test_messages_survive_the_broker(self, site: RabbitSite) -> None:
        queue_name = await site.listen("tenure.onboarding", ASK)
        await site.bus("onboarding").publish([parcel("onboarding", ASK)])

        async with channel_of(site, "outsider") as channel:
            queue = await channel.get_queue(queue_name, ensure=False)
            message = await queue.get()
            assert message is not None
            assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
            await message.ack()

    async def test_an_error_of_the_client_library_is_never_let_through(self, site: RabbitSite) -> None:
        bus = site.bus("billing")
        try:
            async with bus.consume("billing.work", prefetch=1) as consumption:
                site.go_away()
                await consumption.receive(1)
        except AMQPError as error:
            pytest.fail(f"let {error!r} through")
        except BusUnavailableError:
            pass


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("amqp://billing:pw@host/", "billing"),
        ("amqp://a%40b:pw@host:5672/vhost", "a@b"),
        ("amqp://host/", "guest"),
    ],
)
def test_the_login_is_read_off_the_url(url: str, login: str) -> None:
    assert login_of(url) == login


class TestKernel:
    """The kernel on both real servers."""

    @pytest.fixture
    async def service(self, pool: Pool, site: RabbitSite) -> OneService:
        return OneService(pool, bus=site.bus("billing"))

    async def test_an_ask_takes_effect_and_is_answered(self, service: OneService, site: RabbitSite) -> None:
        asks = [open_account("t1"), open_account("t2")]
        async with service.consuming():
            await site.bus("onboarding").publish([parcel_of(*asks), parcel_of(asks[0])])
            await until_caught_up(site, service)

        [answers] = await read(site, "onboarding.work", 1)
        events = [decode(raw) for raw in parse_batch(answers.body)]
        assert [event.causation_id for event in events] == [ask.id for ask in asks]
        assert answers.user_id == "billing"
        assert await service.effects() == [("opened", "t1"), ("opened", "t2"), ("started", "last")]

    async def test_a_forgery_is_parked_and_an_honest_message_is_not(
        self, service: OneService, site: RabbitSite
    ) -> None:
        forged = replace(parcel_of(open_account("t1")), exchange="tenure.tenant", routing_key=NEWS)
        async with service.consuming():
            await site.bus("tenant").publish([forged])
            await until_caught_up(site, service)

        [parked] = await read(site, "billing.parking", 1)
        assert (parked.headers[REASON], parked.user_id) == ("forged", "billing")
        assert parked.headers[DETAIL] == "source onboarding came through tenure.tenant"
        assert await service.effects() == [("started", "last")]

    async def test_one_that_fails_comes_back_from_the_ladder(self, service: OneService, site: RabbitSite) -> None:
        async def fail_once(_connection: Connection, _messages: Sequence[Message]) -> None:
            if len(service.script.batches) == 1:
                raise RuntimeError("the handler is broken")

        service.script.trouble = fail_once
        async with service.consuming():
            await site.bus("onboarding").publish([parcel_of(open_account("t1"))])
            await until_answered(site, 1)

        assert await service.effects() == [("opened", "t1")]
        assert len(service.script.batches) == 2

    async def test_a_connection_that_breaks_within_a_batch_leaves_one_effect(
        self, service: OneService, site: RabbitSite
    ) -> None:
        async def cut(_connection: Connection, _messages: Sequence[Message]) -> None:
            if len(service.script.batches) == 1:
                site.cut()

        service.script.trouble = cut
        async with service.consuming(), service.relaying():
            await site.bus("onboarding").publish([parcel_of(open_account("t1"), open_account("t2"))])
            await service.until(lambda: is_answered(site, 1))
            await until_caught_up(site, service)

        assert await service.effects() == [("opened", "t1"), ("opened", "t2"), ("started", "last")]

    async def test_a_broker_that_goes_away_and_comes_back_is_consumed_again(
        self, service: OneService, site: RabbitSite
    ) -> None:
        async with service.consuming():
            await service.until(lambda: service.consumer.is_consuming)
            site.go_away()
            await service.until(lambda: not service.consumer.is_consuming)
            await site.come_back()
            await service.until(lambda: service.consumer.is_consuming)
            await site.bus("onboarding").publish([parcel_of(open_account("t1"))])
            await until_answered(site, 1)

        assert await service.effects() == [("opened", "t1")]


class TestAlarm:
    """A broker that is short of memory takes nothing, and hopes that what it has is handled."""

    @pytest.fixture
    async def alarm(self, broker_server: Server) -> AsyncIterator["Alarm"]:
        if not isinstance(broker_server, BrokerServer):
            pytest.skip("only our own node can be made to believe that it has no memory left")
        alarm = Alarm(broker_server)
        yield alarm
        await alarm.end()

    async def test_whoever_publishes_is_told_at_once_and_keeps_his_connection(
        self, site: RabbitSite, alarm: "Alarm"
    ) -> None:
        bus = site.bus("onboarding")
        assert await bus.publish([parcel("onboarding", ASK)]) == [Outcome.CONFIRMED]
        connection = bus._publishing
        await alarm.begin()

        async with asyncio.timeout(5):  # a third of what it takes to give a publish up
            assert Outcome.HELD in await bus.publish([parcel("onboarding", ASK) for _ in range(3)])
            assert await bus.publish([parcel("onboarding", ASK)]) == [Outcome.HELD]

        await alarm.end()
        await eventually(lambda: takes(bus), describe="messages are taken again")
        assert bus._publishing is connection

    async def test_whoever_consumes_settles_what_he_has_handled(
        self, site: RabbitSite, pool: Pool, alarm: "Alarm"
    ) -> None:
        service = OneService(pool, bus=site.bus("billing"))
        await site.bus("onboarding").publish([parcel_of(open_account(f"t{number}")) for number in range(40)])
        await alarm.begin()
        async with service.consuming():
            await eventually(lambda: is_settled(alarm), within=8, describe="all messages are settled")
            assert len(await service.effects()) == 40
            assert await pool.fetchval("SELECT count(*) FROM outbox") > 0
            await alarm.end()
            async with service.relaying():
                await service.until(lambda: is_sent(pool))


class Alarm:
    """Lets a node believe that it has no memory left."""

    def __init__(self, server: BrokerServer) -> None:
        self.server = server

    async def begin(self) -> None:
        await self.server.control("set_vm_memory_high_watermark", "0")

    async def end(self) -> None:
        await self.server.control("set_vm_memory_high_watermark", "0.6")


async def takes(bus: RabbitBus) -> bool:
    return list(await bus.publish([parcel("onboarding", ASK)])) == [Outcome.CONFIRMED]


async def is_settled(alarm: Alarm) -> bool:
    answer = await alarm.server.control("list_queues", "name", "messages")
    return "billing.work\t0" in answer


async def is_sent(pool: Pool) -> bool:
    return bool(await pool.fetchval("SELECT NOT EXISTS (SELECT FROM outbox)"))


async def is_answered(site: RabbitSite, count: int) -> bool:
    return await site.ready("onboarding.work") >= count


async def until_answered(site: RabbitSite, count: int) -> None:
    await eventually(lambda: is_answered(site, count), describe="the answer has arrived")


async def until_caught_up(site: RabbitSite, service: OneService) -> None:
    """Return when the service has handled one message more than there were."""
    await site.bus("tenant").publish([parcel_of(told(TenantActivated(tenant_id="last")))])

    async def has_started() -> bool:
        return ("started", "last") in await service.effects()

    await service.until(has_started)


async def test_a_handshake_that_the_other_side_ends_says_that_the_broker_is_away() -> None:
    """What aiormq makes of a proxy that accepts and hangs up, on the event loop that services run on."""
    handshake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    handshake.set_exception(StopAsyncIteration())

    with pytest.raises(BusUnavailableError, match="StopAsyncIteration"):
        await rabbitmq._guarded(handshake)
