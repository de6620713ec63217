import asyncio
from collections.abc import AsyncIterator, Sequence

import orjson
import pytest
import structlog

from deploy.databases import DatabaseUrls
from shared.contracts.base import Fact
from shared.contracts.billing import AccountOpened, SubscriptionStarted
from shared.ids import SeededIds
from shared.messaging import outbox
from shared.messaging.event import BATCH, Outgoing
from shared.messaging.outbox import FRESH, LEASE, Relay
from shared.messaging.topology import STATUS_EXCHANGE, Manifest
from shared.postgres import Pool, is_unavailable, open_pool, transaction
from shared.testing.memory_bus import MemoryBroker, MemoryBus
from shared.testing.one_service import OneService
from shared.testing.three_services import ANSWER, MANIFEST
from shared.testing.wire import Wire

AFTER_FRESH = FRESH.total_seconds() + 0.1
AFTER_LEASE = LEASE.total_seconds() + 0.1


def opened(number: int = 1, *, account_id: str = "a") -> AccountOpened:
    return AccountOpened(tenant_id=f"t{number}", account_id=account_id)


async def commit(service: OneService, *facts: Fact) -> Sequence[Outgoing]:
    """Write facts into the outbox, as a handler's transaction does; nobody has sent them yet."""
    outgoing = [service.dispatch.tell(fact) for fact in facts]
    return await commit_rows(service, outgoing)


async def commit_rows(service: OneService, outgoing: Sequence[Outgoing]) -> Sequence[Outgoing]:
    async with transaction(service.pool) as connection:
        await outbox.insert(connection, outgoing, now=service.clock.now())
    return outgoing


@pytest.fixture
def replica(service: OneService) -> Relay:
    """The relay of a second process of the same service."""
    bus = MemoryBus(service.broker, "billing")
    ids = SeededIds(2, service.clock)
    return Relay(pool=service.pool, bus=bus, clock=service.clock, ids=ids, manifest=MANIFEST)


async def test_what_is_confirmed_is_deleted(service: OneService) -> None:
    outgoing = await commit(service, opened())
    assert await service.unsent() == 1

    await service.relay.send(outgoing)
    await service.relay.flush()

    assert [event.id for event in service.said()] == [outgoing[0].id]
    assert await service.unsent() == 0
    assert not service.relay._in_flight  # or it would grow for ever


async def test_saying_nothing_costs_nothing(service: OneService) -> None:
    await commit_rows(service, [])
    await service.relay.send([])
    await service.relay.flush()

    assert service.broker.total_depth() == 0


async def test_messages_of_a_type_travel_together(service: OneService) -> None:
    outgoing = await commit(service, *(opened(number) for number in range(450)))

    await service.relay.send(outgoing)

    parcels = service.broker.messages("onboarding.work")
    assert [len(orjson.loads(parcel.body)) for parcel in parcels] == [200, 200, 50]
    assert {(parcel.exchange, parcel.routing_key, parcel.content_type) for parcel in parcels} == {
        ("tenure.billing", ANSWER, BATCH)
    }
    assert [event.id for event in service.said()] == [each.id for each in outgoing]
    assert len({parcel.message_id for parcel in parcels}) == 3


async def test_a_parcel_has_a_bounded_size(service: OneService) -> None:
    outgoing = await commit(service, *(opened(number, account_id="x" * 100_000) for number in range(5)))

    await service.relay.send(outgoing)

    assert [len(orjson.loads(parcel.body)) for parcel in service.broker.messages("onboarding.work")] == [2, 2, 1]


async def test_the_outside_is_told_event_by_event(service: OneService) -> None:
    service.broker.declare_queue("sub.test")
    service.broker.bind(STATUS_EXCHANGE, "sub.test", "#")
    told = service.dispatch.tell(opened())
    rows = [Outgoing(service.ids.new(), STATUS_EXCHANGE, f"status.{number}", told.event) for number in range(2)]
    relay = Relay(
        pool=service.pool,
        bus=MemoryBus(service.broker, "onboarding"),
        clock=service.clock,
        ids=service.ids,
        manifest=MANIFEST,
    )

    await relay.send(await commit_rows(service, rows))

    heard = service.broker.messages("sub.test")
    assert [message.routing_key for message in heard] == ["status.0", "status.1"]
    assert heard[0].headers["ce-type"] == ANSWER
    assert orjson.loads(heard[0].body) == {"tenantId": "t1", "accountId": "a"}


async def test_what_nobody_listens_to_is_sent_and_forgotten(service: OneService) -> None:
    outgoing = await commit(service, SubscriptionStarted(tenant_id="t1", plan="pro"))

    await service.relay.send(outgoing)
    await service.relay.flush()

    assert await service.unsent() == 0


async def test_what_a_crash_left_is_swept(service: OneService) -> None:
    outgoing = await commit(service, opened(1), opened(2))
    assert await service.relay.sweep() == 0  # its writer may be sending it

    await service.clock.advance(AFTER_FRESH)

    assert await service.relay.sweep() == 2
    assert {event.id for event in service.said()} == {each.id for each in outgoing}
    assert await service.unsent() == 0


async def test_more_than_one_sweep_takes_is_swept_in_one_go(service: OneService) -> None:
    await commit(service, *(opened(number) for number in range(1001)))
    await service.clock.advance(AFTER_FRESH)

    assert await service.relay.sweep() == 1001
    assert await service.unsent() == 0


async def test_two_replicas_never_send_the_same_row(service: OneService, replica: Relay) -> None:
    await commit(service, *(opened(number) for number in range(700)))
    await service.clock.advance(AFTER_FRESH)

    swept = await asyncio.gather(service.relay.sweep(), replica.sweep())

    assert sum(swept) == 700
    assert len(service.said()) == 700


async def test_what_could_not_be_sent_is_due_again_at_the_next_sweep(service: OneService, replica: Relay) -> None:
    await commit(service, opened())
    await service.clock.advance(AFTER_FRESH)
    service.broker.go_away()
    assert await service.relay.sweep() == 1
    service.broker.come_back()

    assert await replica.sweep() == 1
    assert len(service.said()) == 1


async def test_a_claimed_row_is_left_alone_until_its_lease_ends(service: OneService, replica: Relay) -> None:
    await commit(service, opened())
    await service.clock.advance(AFTER_FRESH)
    async with transaction(service.pool) as connection:  # and whoever has claimed it dies
        assert len(await outbox.claim(connection, now=service.clock.now())) == 1

    await service.clock.advance(LEASE.total_seconds() - 0.1)
    assert await replica.sweep() == 0

    await service.clock.advance(0.2)
    assert await replica.sweep() == 1
    assert len(service.said()) == 1


async def test_claiming_does_not_wait_for_another_that_claims(service: OneService) -> None:
    await commit(service, opened(1))
    await service.clock.advance(AFTER_FRESH)
    now = service.clock.now()

    async with transaction(service.pool) as one:
        assert len(await outbox.claim(one, now=now)) == 1
        async with transaction(service.pool, seconds=2.0) as other:
            assert await outbox.claim(other, now=now) == []


async def test_what_this_process_is_sending_is_not_swept_meanwhile(service: OneService) -> None:
    outgoing = await commit(service, opened())
    service.broker.latency = lambda: 10.0
    sending = asyncio.create_task(service.relay.send(outgoing))
    await asyncio.sleep(0)
    await service.clock.advance(AFTER_FRESH)

    assert await service.relay.sweep() == 0

    await service.until(sending.done)
    await service.relay.flush()
    assert len(service.said()) == 1
    assert await service.unsent() == 0


async def test_an_unknown_outcome_is_sent_again_under_the_same_id(service: OneService) -> None:
    outgoing = await commit(service, opened())
    service.broker.lose_confirms(1)
    await service.relay.send(outgoing)
    await service.relay.flush()
    assert await service.unsent() == 1

    await service.clock.advance(AFTER_FRESH)
    await service.relay.sweep()

    assert [event.id for event in service.said()] == [outgoing[0].id] * 2
    assert await service.unsent() == 0


async def test_only_what_was_not_confirmed_is_sent_again(service: OneService) -> None:
    outgoing = await commit(service, *(opened(number) for number in range(250)))
    service.broker.lose_confirms(1)  # of two parcels
    await service.relay.send(outgoing)
    await service.relay.flush()

    assert await service.unsent() == 200


async def test_what_is_heard_and_reaches_no_queue_is_kept_and_reported(pool: Pool, service: OneService) -> None:
    unbound = MemoryBroker(Manifest(publishes=MANIFEST.publishes, subscribes={}), service.clock)
    misled = OneService(pool, broker=unbound, seed=3)
    outgoing = await commit(misled, opened())

    with structlog.testing.capture_logs() as lines:
        await misled.relay.send(outgoing)
    await misled.relay.flush()

    assert [(line["action"], line["routing_key"], line["log_level"]) for line in lines] == [
        ("unroutable", ANSWER, "error")
    ]
    assert await service.unsent() == 1
    await service.clock.advance(AFTER_FRESH)
    assert await service.relay.sweep() == 1  # where the queue is bound
    assert await service.unsent() == 0


async def test_forgetting_does_not_wait_for_the_disk_and_nothing_else_is_affected(service: OneService) -> None:
    outgoing = await commit(service, opened(1), opened(2))
    async with transaction(service.pool) as connection:
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
        await outbox.delete(connection, [each.id for each in outgoing])
        assert await connection.fetchval("SHOW synchronous_commit") == "off"
    async with service.pool.acquire() as connection:
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
    assert await service.unsent() == 0


async def test_the_relay_deletes_and_sweeps_by_itself(service: OneService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_SWEEP_SECONDS", 0.05)
    async with service.relaying():
        await service.relay.send(await commit(service, opened(1)))
        await commit(service, opened(2))

        async def is_empty() -> bool:
            return await service.unsent() == 0

        await service.until(is_empty)

    assert [event.message.tenant_id for event in service.said()] == ["t1", "t2"]


async def test_the_relay_outlives_a_broker_that_is_away(service: OneService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_SWEEP_SECONDS", 0.05)
    service.broker.go_away()
    async with service.relaying():
        await service.relay.send(await commit(service, opened()))
        begun = service.clock.now()
        await service.until(lambda: (service.clock.now() - begun).total_seconds() > AFTER_LEASE)
        service.broker.come_back()
        await service.until(lambda: bool(service.said()))


class TestDatabaseAway:
    @pytest.fixture
    async def wire(self, kernel_database: DatabaseUrls) -> AsyncIterator[Wire]:
        async with Wire(kernel_database.app) as wire:
            yield wire

    @pytest.fixture
    async def far_service(
        self, service: OneService, kernel_database: DatabaseUrls, wire: Wire
    ) -> AsyncIterator[OneService]:
        """The same service, whose database is behind a wire."""
        pool = await open_pool(wire.through(kernel_database.app))
        yield OneService(pool, broker=service.broker, seed=4)
        await wire.mend()
        await asyncio.wait_for(pool.close(), 10)

    async def test_what_could_not_be_deleted_is_deleted_later(self, far_service: OneService, wire: Wire) -> None:
        await far_service.relay.send(await commit(far_service, opened()))
        wire.break_off()
        with pytest.raises(Exception) as raised:  # noqa: PT011 - what asyncpg makes of it differs
            await far_service.relay.flush()
        assert is_unavailable(raised.value)

        await wire.mend()
        await far_service.relay.flush()

        assert await far_service.unsent() == 0

    async def test_the_relay_outlives_a_database_that_is_away(
        self, far_service: OneService, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox, "_SWEEP_SECONDS", 0.05)
        async with far_service.relaying():
            outgoing = await commit(far_service, opened())
            wire.break_off()
            await far_service.relay.send(outgoing)
            begun = far_service.clock.now()
            await far_service.until(lambda: (far_service.clock.now() - begun).total_seconds() > AFTER_LEASE)
            await wire.mend()

            async def is_empty() -> bool:
                return await far_service.unsent() == 0

            await far_service.until(is_empty)
        assert len(far_service.said()) == 1
