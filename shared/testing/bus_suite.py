"""What every bus promises; RabbitMQ and its twin in memory are held to the same."""

import asyncio
from collections.abc import Sequence
from typing import Protocol
from uuid import uuid4

import pytest

from shared.messaging.bus import Bus, BusUnavailableError, Consumption, Delivery, Outcome, Parcel
from shared.messaging.topology import (
    DELIVERY_LIMIT,
    RETRY_DELAYS,
    STATUS_EXCHANGE,
    exchange_of,
    retry_exchange_of,
)
from shared.testing.eventually import eventually
from shared.testing.three_services import ANSWER, ASK, NEWS

_PATIENCE = 5.0


class Site(Protocol):
    """A broker with the topology of `MANIFEST`, and the ways to look at it and to disturb it."""

    def bus(self, login: str) -> Bus:
        """Return a bus for a login; the same one each time."""
        ...

    async def ready(self, queue: str) -> int:
        """Count the messages of a queue that nobody has."""
        ...

    async def listen(self, exchange: str, pattern: str) -> str:
        """Bind a queue that the manifest does not know, and return its name."""
        ...

    def outsider(self) -> Bus:
        """Return the bus of somebody who is no service and may read everything."""
        ...

    async def pass_time(self, seconds: float) -> None:
        """Let so many seconds pass, where time does not pass by itself."""
        ...

    def cut(self) -> None:
        """Break all connections."""
        ...

    def go_away(self) -> None:
        """Break all connections and take no new ones."""
        ...

    async def come_back(self) -> None:
        """Take connections again."""
        ...

    async def publish_unheard(self, login: str, parcel: Parcel) -> Outcome:
        """Publish, and break the connection when the parcel has arrived and before its confirm does."""
        ...


class BusSuite:
    """Inherit, and provide the fixture ``site``."""

    async def test_a_confirmed_parcel_arrives_as_it_was_published(self, site: Site) -> None:
        """With the login that published it."""
        sent = parcel("onboarding", ASK, body=b'{"a": 1}', headers={"tenure-attempt": 2, "tenure-origin": "tenure.x"})
        assert await site.bus("onboarding").publish([sent]) == [Outcome.CONFIRMED]

        [arrived] = await read(site, "billing.work", 1)

        assert (arrived.exchange, arrived.routing_key) == (sent.exchange, sent.routing_key)
        assert (arrived.body, arrived.content_type) == (sent.body, sent.content_type)
        assert arrived.message_id == sent.message_id
        assert dict(arrived.headers) == dict(sent.headers)
        assert arrived.user_id == "onboarding"
        assert not arrived.redelivered

    async def test_what_is_published_waits_until_somebody_reads_it(self, site: Site) -> None:
        """And then for its acknowledgement."""
        await site.bus("onboarding").publish([parcel("onboarding", ASK)])
        assert await site.ready("billing.work") == 1

        await read(site, "billing.work", 1)

        assert await site.ready("billing.work") == 0

    async def test_nothing_to_publish_is_nothing(self, site: Site) -> None:
        """The outcome of no parcels is no outcomes."""
        assert list(await site.bus("onboarding").publish([])) == []

    async def test_each_parcel_has_its_own_outcome(self, site: Site) -> None:
        """A mandatory one that reaches no queue is reported, in its place; one that need not arrive is confirmed."""
        outcomes = await site.bus("onboarding").publish(
            [
                parcel("onboarding", ASK),
                parcel("onboarding", "nobody.hears_this.v1"),
                parcel("onboarding", "nobody.hears_this.v1", mandatory=False),
                parcel("onboarding", ASK),
            ]
        )

        assert list(outcomes) == [Outcome.CONFIRMED, Outcome.UNROUTABLE, Outcome.CONFIRMED, Outcome.CONFIRMED]
        assert await site.ready("billing.work") == 2  # noqa: PLR2004

    async def test_parcels_arrive_in_the_order_of_publishing(self, site: Site) -> None:
        """Within one publisher and one queue."""
        bodies = [str(number).encode() for number in range(60)]
        for start in (0, 30):
            await site.bus("onboarding").publish([parcel("onboarding", ASK, body) for body in bodies[start:][:30]])

        assert [each.body for each in await read(site, "billing.work", 60)] == bodies

    async def test_a_message_reaches_its_listener_and_nobody_else(self, site: Site) -> None:
        """Bindings are exact."""
        await site.bus("billing").publish([parcel("billing", ANSWER)])
        await site.bus("tenant").publish([parcel("tenant", NEWS)])

        assert await site.ready("onboarding.work") == 1
        assert await site.ready("billing.work") == 1
        assert await site.ready("tenant.work") == 0

    async def test_no_more_than_the_prefetch_is_unsettled(self, site: Site) -> None:
        """The rest stays in the queue, for other replicas."""
        await site.bus("onboarding").publish([parcel("onboarding", ASK) for _ in range(5)])
        async with site.bus("billing").consume("billing.work", prefetch=2) as consumption:
            first = await take(consumption, 2)
            assert await site.ready("billing.work") == 3  # noqa: PLR2004

            await consumption.acknowledge(first[0])
            await take(consumption, 1)
            await _until_ready(site, "billing.work", 2)

    async def test_no_more_is_received_than_was_asked_for(self, site: Site) -> None:
        """Even if more has arrived, which then comes next."""
        bodies = [str(number).encode() for number in range(5)]
        await site.bus("onboarding").publish([parcel("onboarding", ASK, body) for body in bodies])
        async with site.bus("billing").consume("billing.work", prefetch=10) as consumption:
            await _until_ready(site, "billing.work", 0)
            received = [await consumption.receive(2) for _ in range(2)]
            assert all(1 <= len(each) <= 2 for each in received)  # noqa: PLR2004
            got = [delivery.body for each in received for delivery in each]
            assert got == bodies[: len(got)]

    async def test_a_reader_is_woken_by_what_arrives_later(self, site: Site) -> None:
        """It need not ask again."""
        async with site.bus("billing").consume("billing.work", prefetch=10) as consumption:
            waiting = asyncio.create_task(take(consumption, 1))
            await asyncio.sleep(0)
            await site.bus("onboarding").publish([parcel("onboarding", ASK, b"late")])

            assert [each.body for each in await waiting] == [b"late"]

    async def test_two_readers_share_a_queue(self, site: Site) -> None:
        """Nothing is delivered to both."""
        bodies = {str(number).encode() for number in range(6)}
        bus = site.bus("billing")
        async with bus.consume("billing.work", prefetch=3) as one, bus.consume("billing.work", prefetch=3) as other:
            await site.bus("onboarding").publish([parcel("onboarding", ASK, body) for body in sorted(bodies)])
            taken = [*await take(one, 3), *await take(other, 3)]

        assert {each.body for each in taken} == bodies

    async def test_acknowledging_one_settles_all_before_it(self, site: Site) -> None:
        """The others come back, in their order and marked as delivered before."""
        await site.bus("onboarding").publish([parcel("onboarding", ASK, str(number).encode()) for number in range(5)])
        async with site.bus("billing").consume("billing.work", prefetch=10) as consumption:
            taken = await take(consumption, 5)
            await consumption.acknowledge(taken[2])
        await _until_ready(site, "billing.work", 2)

        again = await read(site, "billing.work", 2)

        assert [(each.body, each.redelivered) for each in again] == [(b"3", True), (b"4", True)]
        assert await site.ready("billing.work") == 0

    async def test_a_broken_connection_ends_the_subscription_and_returns_what_is_unsettled(self, site: Site) -> None:
        """Acknowledging afterwards is too late."""
        await site.bus("onboarding").publish([parcel("onboarding", ASK, str(number).encode()) for number in range(3)])
        async with site.bus("billing").consume("billing.work", prefetch=10) as consumption:
            taken = await take(consumption, 3)
            site.cut()
            with pytest.raises(BusUnavailableError):
                await asyncio.wait_for(consumption.receive(10), _PATIENCE)
            with pytest.raises(BusUnavailableError):
                await consumption.acknowledge(taken[-1])
        await _until_ready(site, "billing.work", 3)

        again = await read(site, "billing.work", 3)

        assert [(each.body, each.redelivered) for each in again] == [(b"0", True), (b"1", True), (b"2", True)]

    async def test_after_a_broken_connection_the_next_publish_succeeds(self, site: Site) -> None:
        """At the second attempt at the latest: the first may find out that the connection is gone."""
        bus = site.bus("onboarding")
        await bus.publish([parcel("onboarding", ASK)])
        site.cut()

        first, *_ = await bus.publish([parcel("onboarding", ASK)])
        second, *_ = await bus.publish([parcel("onboarding", ASK)])

        assert first in {Outcome.CONFIRMED, Outcome.UNKNOWN}
        assert second is Outcome.CONFIRMED

    async def test_a_service_sees_how_much_waits_in_its_queues(self, site: Site) -> None:
        """What a reader has and has not settled is not among it."""
        own = ["billing.work", "billing.parking", *(f"billing.retry.{delay}s" for delay in RETRY_DELAYS)]
        bus = site.bus("billing")
        async with bus.consume("billing.work", prefetch=1) as consumption:
            await site.bus("onboarding").publish(
                [parcel("onboarding", ASK, str(number).encode()) for number in range(3)]
            )
            await take(consumption, 1)
            await _until_ready(site, "billing.work", 2)

            assert list(await bus.depths(own)) == [2, 0, 0, 0, 0]

    async def test_how_much_waits_is_not_known_without_a_reader_or_a_broker(self, site: Site) -> None:
        """And the reader does not suffer for it."""
        bus = site.bus("billing")
        with pytest.raises(BusUnavailableError):
            await bus.depths(["billing.work"])
        async with bus.consume("billing.work", prefetch=1) as consumption:
            with pytest.raises(BusUnavailableError):
                await bus.depths(["billing.work", "no.such.queue"])
            assert list(await bus.depths(["billing.work"])) == [0]

            await site.bus("onboarding").publish([parcel("onboarding", ASK)])
            await take(consumption, 1)
            site.cut()
            with pytest.raises(BusUnavailableError):
                await bus.depths(["billing.work"])

    async def test_stopping_wakes_a_reader_with_nothing(self, site: Site) -> None:
        """So that a service can end."""
        async with site.bus("billing").consume("billing.work", prefetch=10) as consumption:
            waiting = asyncio.create_task(consumption.receive(10))
            await asyncio.sleep(0)
            consumption.stop()

            assert list(await asyncio.wait_for(waiting, _PATIENCE)) == []
            assert list(await asyncio.wait_for(consumption.receive(10), _PATIENCE)) == []

    async def test_what_a_stopped_reader_has_not_received_goes_back(self, site: Site) -> None:
        """It finishes only what it has begun."""
        await site.bus("onboarding").publish([parcel("onboarding", ASK, str(number).encode()) for number in range(3)])
        async with site.bus("billing").consume("billing.work", prefetch=10) as consumption:
            [begun] = await consumption.receive(1)
            await _until_ready(site, "billing.work", 0)
            consumption.stop()
            assert list(await asyncio.wait_for(consumption.receive(10), _PATIENCE)) == []
            await consumption.acknowledge(begun)
        await _until_ready(site, "billing.work", 2)

        assert [each.body for each in await read(site, "billing.work", 2)] == [b"1", b"2"]

    @pytest.mark.parametrize(
        ("exchange", "routing_key"),
        [
            (exchange_of("onboarding"), ASK),
            (retry_exchange_of("billing"), "work"),
            (retry_exchange_of("onboarding"), "work"),
            (STATUS_EXCHANGE, ASK),
            ("", "billing.work"),
            ("no.such.exchange", ASK),
        ],
    )
    async def test_a_service_cannot_publish_where_it_does_not_belong(
        self, site: Site, exchange: str, routing_key: str
    ) -> None:
        """Nothing arrives, and its own messages still do."""
        sent = Parcel(exchange, routing_key, b"forged", "text/plain", str(uuid4()), mandatory=False)
        assert await site.bus("tenant").publish([sent]) == [Outcome.UNKNOWN]

        assert await site.bus("tenant").publish([parcel("tenant", NEWS, b"honest")]) == [Outcome.CONFIRMED]
        assert [each.body for each in await read(site, "billing.work", 1)] == [b"honest"]
        assert await site.ready("onboarding.work") == 0

    @pytest.mark.parametrize(
        "queue",
        ["billing.work", "billing.parking", "billing.retry.1s", "tenant.retry.1s", "no.such.queue"],
    )
    async def test_a_service_cannot_read_what_is_not_its_own(self, site: Site, queue: str) -> None:
        """Not even its own messages while they wait for a retry."""
        with pytest.raises(BusUnavailableError):
            async with site.bus("tenant").consume(queue, prefetch=1):
                pass

    async def test_a_service_reads_its_own_parking(self, site: Site) -> None:
        """To give the operator a list of it."""
        await site.bus("billing").publish([_private("billing", "parking", b"hopeless")])

        [parked] = await read(site, "billing.parking", 1)

        assert (parked.body, parked.user_id, parked.exchange) == (b"hopeless", "billing", "tenure.billing.retry")

    async def test_what_waits_for_a_retry_returns_to_its_own_service_alone(self, site: Site) -> None:
        """With its headers and its signature, moved by the broker itself: it comes from no exchange."""
        await site.bus("billing").publish([_private("billing", "retry.1s", b"again", {"tenure-attempt": 1})])
        assert await site.ready("billing.work") == 0
        assert await site.ready("billing.retry.1s") == 1
        await site.pass_time(1.0)

        [returned] = await read(site, "billing.work", 1)

        assert (returned.body, returned.user_id) == (b"again", "billing")
        assert (returned.exchange, returned.routing_key) == ("", "billing.work")
        assert returned.headers["tenure-attempt"] == 1
        assert await site.ready("onboarding.work") == await site.ready("billing.retry.1s") == 0

    async def test_what_is_never_settled_is_parked_in_the_end(self, site: Site) -> None:
        """A message that kills its reader must not do so for ever."""
        await site.bus("onboarding").publish([parcel("onboarding", ASK, b"deadly")])
        for _ in range(DELIVERY_LIMIT + 1):
            async with site.bus("billing").consume("billing.work", prefetch=1) as consumption:
                await take(consumption, 1)
            await eventually(lambda: _is_back_or_parked(site), within=_PATIENCE)

        [parked] = await read(site, "billing.parking", 1)

        assert (parked.body, parked.user_id) == (b"deadly", "onboarding")
        assert (parked.exchange, parked.routing_key) == (retry_exchange_of("billing"), "parking")
        assert await site.ready("billing.work") == 0

    async def test_onboarding_tells_the_outside_what_it_asked_to_hear(self, site: Site) -> None:
        """Patterns follow AMQP: a star is one word, a hash is any number."""
        queue = await site.listen(STATUS_EXCHANGE, "status.*.#")
        outcomes = await site.bus("onboarding").publish(
            [
                Parcel(STATUS_EXCHANGE, key, key.encode(), "application/json", str(uuid4()), mandatory=False)
                for key in ("status.create", "error.create.t1", "status", "status.create.done.t1")
            ]
        )
        assert set(outcomes) == {Outcome.CONFIRMED}

        heard = await read(site, queue, 2, bus=site.outsider())

        assert [each.body for each in heard] == [b"status.create", b"status.create.done.t1"]
        assert {each.user_id for each in heard} == {"onboarding"}

    async def test_a_parcel_whose_confirm_is_lost_may_have_arrived(self, site: Site) -> None:
        """Hence its unknown outcome, and publishing again under the same id."""
        sent = parcel("onboarding", ASK, b"once or twice")

        assert await site.publish_unheard("onboarding", sent) is Outcome.UNKNOWN

        [arrived] = await read(site, "billing.work", 1)
        assert arrived.message_id == sent.message_id

    async def test_a_broker_that_is_away_is_said_to_be(self, site: Site) -> None:
        """By a readiness check, a publish without an exception, and a refused subscription."""
        bus = site.bus("onboarding")
        await bus.check()
        await bus.publish([parcel("onboarding", ASK, b"before")])
        site.go_away()

        assert set(await bus.publish([parcel("onboarding", ASK), parcel("onboarding", ASK)])) == {Outcome.UNKNOWN}
        with pytest.raises(BusUnavailableError):
            await bus.check()
        with pytest.raises(BusUnavailableError):
            async with bus.consume("onboarding.work", prefetch=1):
                pass

        await site.come_back()
        await bus.check()
        assert await bus.publish([parcel("onboarding", ASK, b"after")]) == [Outcome.CONFIRMED]
        assert [each.body for each in await read(site, "billing.work", 2)] == [b"before", b"after"]

    async def test_a_closed_bus_can_be_closed_again(self, site: Site) -> None:
        """Shutting down asks no questions."""
        bus = site.bus("onboarding")
        await bus.check()
        await bus.close()
        await bus.close()


def parcel(
    publisher: str,
    routing_key: str,
    body: bytes = b"body",
    headers: dict[str, str | int] | None = None,
    *,
    mandatory: bool = True,
) -> Parcel:
    """Make a parcel for a service's own exchange."""
    return Parcel(
        exchange=exchange_of(publisher),
        routing_key=routing_key,
        body=body,
        content_type="application/json",
        message_id=str(uuid4()),
        headers=headers or {},
        mandatory=mandatory,
    )


async def take(consumption: Consumption, count: int) -> Sequence[Delivery]:
    """Receive exactly so many, however they arrive."""
    taken: list[Delivery] = []
    while len(taken) < count:
        taken += await asyncio.wait_for(consumption.receive(count - len(taken)), _PATIENCE)
    return taken


async def read(site: Site, queue: str, count: int, *, bus: Bus | None = None) -> Sequence[Delivery]:
    """Take so many messages out of a queue for good, as the service that owns it."""
    reader = bus or site.bus(queue.partition(".")[0])
    async with reader.consume(queue, prefetch=count) as consumption:
        taken = await take(consumption, count)
        await consumption.acknowledge(taken[-1])
    return taken


def _private(service: str, key: str, body: bytes, headers: dict[str, str | int] | None = None) -> Parcel:
    return Parcel(retry_exchange_of(service), key, body, "application/json", str(uuid4()), headers or {})


async def _until_ready(site: Site, queue: str, count: int) -> None:
    async def holds() -> bool:
        return await site.ready(queue) == count

    await eventually(holds, within=_PATIENCE, describe=f"{count} messages ready in {queue}")


async def _is_back_or_parked(site: Site) -> bool:
    return await site.ready("billing.work") + await site.ready("billing.parking") == 1
