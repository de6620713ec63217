import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta

import pytest
import structlog

from deploy.databases import DatabaseUrls
from shared.contracts.base import Message
from shared.contracts.billing import AccountOpened, OpenAccount, VoidAccount
from shared.contracts.tenant import TenantActivated
from shared.messaging.admission import ATTEMPT, ORIGIN
from shared.messaging.bus import Parcel
from shared.messaging.consumer import _LONGEST_WAIT, BATCH_EVENTS, backoff, wait_until_consuming
from shared.messaging.event import Event, decode, parse_batch
from shared.messaging.ladder import DETAIL, LOOKS_AT_UNKNOWN, REASON, USER
from shared.messaging.subscriptions import NewerCodeNeededError
from shared.messaging.topology import RETRY_DELAYS
from shared.postgres import Connection, open_pool
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBus
from shared.testing.one_service import SUBSCRIPTIONS, OneService
from shared.testing.three_services import asked, parcel_of, told
from shared.testing.wire import Wire

Trouble = Callable[[Connection, Sequence[Message]], Awaitable[None]]


def open_account(tenant_id: str) -> Event:
    return asked(OpenAccount(tenant_id=tenant_id, customer_name=f"Customer {tenant_id}", plan="pro"))


def activated(tenant_id: str) -> Event:
    return told(TenantActivated(tenant_id=tenant_id))


def trouble_with(*tenants: str, times: int = 1_000_000, error: Exception | None = None) -> Trouble:
    """Fail each batch that holds one of the tenants, so many times."""
    left = times

    async def trouble(_connection: Connection, messages: Sequence[Message]) -> None:
        nonlocal left
        if left and any(message.tenant_id in tenants for message in messages):
            left -= 1
            raise error or RuntimeError("the handler is broken")

    return trouble


async def test_an_ask_takes_effect_and_is_answered(service: OneService) -> None:
    ask = open_account("t1")
    async with service.consuming():
        await service.publish(ask)
        await service.until(service.is_quiet)

    [answer] = service.said()
    assert await service.effects() == [("opened", "t1")]
    assert answer.message == AccountOpened(tenant_id="t1", account_id="of t1")
    assert (answer.workflow_id, answer.step, answer.causation_id) == (ask.workflow_id, ask.step, ask.id)


async def test_what_has_arrived_is_handled_together(service: OneService) -> None:
    for number in range(5):
        await service.publish(open_account(f"a{number}"), open_account(f"b{number}"))

    async with service.consuming():
        await service.until(service.is_quiet)

    assert service.script.batches == [("opened", [f"{each}{number}" for number in range(5) for each in "ab"])]


async def test_more_than_fits_one_transaction_is_handled_in_several(service: OneService) -> None:
    asks = [open_account(f"t{number}") for number in range(BATCH_EVENTS + 1)]
    await service.publish(*asks)

    async with service.consuming():
        await service.until(service.is_quiet)

    assert [len(tenants) for _, tenants in service.script.batches] == [BATCH_EVENTS, 1]
    assert {answer.causation_id for answer in service.said()} == {ask.id for ask in asks}


async def test_a_message_that_is_delivered_again_takes_no_second_effect(service: OneService) -> None:
    ask, news = open_account("t1"), activated("t1")
    async with service.consuming():
        for event in (ask, news, ask, news):
            await service.publish(event)
        await service.until(service.is_quiet)
        await service.publish(ask, ask)
        await service.publish(news)
        await service.until(service.is_quiet)

    assert sorted(await service.effects()) == [("opened", "t1"), ("started", "t1")]
    assert len(service.said()) == 1


async def test_one_that_fails_does_not_hold_up_the_others(service: OneService) -> None:
    service.script.trouble = trouble_with("bad")
    await service.publish(open_account("t1"), open_account("bad"), open_account("t2"))
    await service.publish(activated("t3"))

    async with service.consuming():
        await eventually(lambda: len(service.said()) == 2)
        waiting = service.broker.messages("billing.retry.1s")

    assert {answer.message.tenant_id for answer in service.said()} == {"t1", "t2"}
    assert sorted(await service.effects()) == [("opened", "t1"), ("opened", "t2"), ("started", "t3")]
    assert service.script.batches[1:5] == [
        ("opened", ["t1"]),
        ("opened", ["bad"]),
        ("opened", ["t2"]),
        ("started", ["t3"]),
    ]
    assert [message.headers for message in waiting] == [{ATTEMPT: 1, ORIGIN: "tenure.onboarding"}]


async def test_one_that_always_fails_climbs_the_ladder_and_is_parked(service: OneService) -> None:
    service.script.trouble = trouble_with("bad")
    ask = open_account("bad")
    begun = service.clock.now()

    async with service.consuming():
        await service.publish(ask)
        await service.until(lambda: len(service.parked()) == 1)

    [parked] = service.parked()
    assert len(service.script.batches) == 1 + len(RETRY_DELAYS)
    assert (service.clock.now() - begun).total_seconds() >= sum(RETRY_DELAYS)
    assert parked.headers[REASON] == "failed"
    assert parked.headers[DETAIL] == "RuntimeError: the handler is broken"
    assert parked.headers[ORIGIN] == "tenure.onboarding"
    assert [decode(raw) for raw in parse_batch(parked.body)] == [ask]
    assert await service.effects() == []
    assert service.is_quiet()


async def test_what_is_logged_of_a_message_names_it_and_its_workflow(service: OneService) -> None:
    service.script.trouble = trouble_with("bad")
    ask = open_account("bad")
    await service.publish(open_account("t1"), ask)

    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        async with service.consuming():
            await service.until(lambda: len(service.parked()) == 1)

    named = {
        "message_id": str(ask.id),
        "type": "billing.open_account.v1",
        "tenant_id": "bad",
        "workflow_id": str(ask.workflow_id),
        "step": ask.step,
    }
    about = [line for line in lines if line["action"] in {"message_failed", "message_retried", "message_parked"}]
    assert {line["action"] for line in about} == {"message_failed", "message_retried", "message_parked"}
    assert [line for line in about if not named.items() <= line.items()] == []
    assert [line for line in lines if line["action"] == "batch_split" and "message_id" in line] == []


async def test_one_that_recovers_on_the_ladder_takes_effect_once(service: OneService) -> None:
    service.script.trouble = trouble_with("bad", times=2)

    async with service.consuming():
        await service.publish(open_account("bad"))
        await service.until(lambda: len(service.said()) == 1)

    assert await service.effects() == [("opened", "bad")]
    assert service.parked() == ()


async def test_what_only_newer_code_knows_waits_for_it_and_takes_effect_once(service: OneService) -> None:
    known = {message: subscription for message, subscription in SUBSCRIPTIONS.items() if message is not TenantActivated}
    older = OneService(service.pool, broker=service.broker, clock=service.clock, seed=2, subscriptions=known)
    replaced_at = service.clock.now() + timedelta(minutes=5)
    await service.publish(activated("t1"))
    await service.publish(open_account("t2"))
    async with older.consuming():
        await older.until(lambda: service.clock.now() > replaced_at)
    assert await service.effects() == [("opened", "t2")]

    async with service.consuming():
        await service.until(service.is_quiet)

    assert sorted(await service.effects()) == [("opened", "t2"), ("started", "t1")]
    assert service.parked() == ()


async def test_what_a_handler_leaves_to_newer_code_waits_for_it_and_takes_effect_once(service: OneService) -> None:
    service.script.trouble = trouble_with(
        "newer", times=2 * len(RETRY_DELAYS), error=NewerCodeNeededError("begun by a newer release")
    )

    async with service.consuming():
        await service.publish(open_account("newer"))
        await service.until(lambda: len(service.said()) == 1)

    assert await service.effects() == [("opened", "newer")]
    assert service.parked() == ()


async def test_what_no_newer_code_comes_for_is_parked_as_unknown(service: OneService) -> None:
    service.script.trouble = trouble_with("newer", error=NewerCodeNeededError("begun by a newer release"))

    async with service.consuming():
        await service.publish(open_account("newer"))
        await service.until(lambda: len(service.parked()) == 1)

    [parked] = service.parked()
    assert (parked.headers[REASON], parked.headers[DETAIL]) == ("unknown", "begun by a newer release")
    assert parked.headers[ATTEMPT] == LOOKS_AT_UNKNOWN


async def test_what_waits_on_the_ladder_and_what_comes_later_do_not_mix_up(service: OneService) -> None:
    service.script.trouble = trouble_with("bad", times=1)

    async with service.consuming():
        await service.publish(open_account("bad"))
        await service.until(lambda: service.broker.depth("billing.retry.1s") == 1)
        await service.publish(open_account("t2"))
        await service.until(lambda: len(service.said()) == 2)

    assert await service.effects() == [("opened", "t2"), ("opened", "bad")]


@pytest.mark.parametrize(
    ("parcel", "reason", "user"),
    [
        (
            Parcel("tenure.tenant", "tenant.tenant_activated.v1", b"\xff", "application/json", "1"),
            "undecodable",
            "tenant",
        ),
        (
            Parcel("tenure.tenant", "tenant.tenant_activated.v1", open_account("t1").encode(), "application/json", "1"),
            "forged",
            "tenant",
        ),
        (
            Parcel("tenure.billing.retry", "work", activated("t1").encode(), "application/json", "1"),
            "forged",
            "billing",
        ),
    ],
)
async def test_what_may_not_come_in_is_parked_with_its_reason(
    service: OneService, parcel: Parcel, reason: str, user: str
) -> None:
    honest = activated("t2")
    await MemoryBus(service.broker, user).publish([parcel])
    await service.publish(honest)

    async with service.consuming():
        await service.until(service.is_quiet)

    [parked] = service.parked()
    assert (parked.headers[REASON], parked.headers[USER], parked.body) == (reason, user, parcel.body)
    assert await service.effects() == [("started", "t2")]


async def test_what_waits_in_a_retry_queue_cannot_change_its_origin(service: OneService) -> None:
    laundered = parcel_of(activated("t1"), headers={ATTEMPT: 1, ORIGIN: "tenure.onboarding"})
    await MemoryBus(service.broker, "tenant").publish([laundered])

    async with service.consuming():
        await service.until(service.is_quiet)

    assert await service.effects() == [("started", "t1")]  # by the exchange it came through, the headers are nothing


async def test_contention_is_tried_again_at_once(service: OneService) -> None:
    service.script.trouble = contention(times=2)

    async with service.consuming():
        await service.publish(open_account("t1"), open_account("t2"))
        await eventually(service.is_quiet)

    assert [tenants for _, tenants in service.script.batches] == [["t1", "t2"]] * 3
    assert await service.effects() == [("opened", "t1"), ("opened", "t2")]


async def test_contention_without_end_is_a_failure_like_any_other(service: OneService) -> None:
    service.script.trouble = contention(times=1_000_000)

    async with service.consuming():
        await service.publish(open_account("t1"))
        await service.until(lambda: len(service.parked()) == 1)

    assert "SerializationError" in str(service.parked()[0].headers[DETAIL])


def contention(*, times: int) -> Trouble:
    left = times

    async def trouble(connection: Connection, _messages: Sequence[Message]) -> None:
        nonlocal left
        if left:
            left -= 1
            await connection.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    return trouble


async def test_those_who_wait_for_a_change_are_told_after_each_commit(service: OneService) -> None:
    seen: list[int] = []
    service.consumer.on_commit = lambda: seen.append(service.broker.depth("onboarding.work"))

    async with service.consuming():
        await service.publish(open_account("t1"))
        await service.until(service.is_quiet)

    assert seen == [0]  # before the answer leaves


async def test_a_broker_that_goes_away_is_waited_for(service: OneService) -> None:
    async with service.consuming():
        await service.publish(open_account("t1"))
        await service.until(service.is_quiet)
        service.broker.go_away()
        await service.until(lambda: not service.consumer.is_consuming)

        service.broker.come_back()
        await service.until(lambda: service.consumer.is_consuming)
        await service.publish(open_account("t2"))
        await service.until(service.is_quiet)

    assert await service.effects() == [("opened", "t1"), ("opened", "t2")]
    assert not service.consumer.is_consuming


async def test_what_was_handled_and_not_acknowledged_is_not_handled_again(service: OneService) -> None:
    async def cut(_connection: Connection, _messages: Sequence[Message]) -> None:
        if len(service.script.batches) == 1:
            service.broker.break_connections()

    service.script.trouble = cut
    async with service.consuming():
        await service.publish(open_account("t1"))
        await service.until(service.is_quiet)

    assert service.broker.breaks == 1
    assert await service.effects() == [("opened", "t1")]
    assert service.script.batches == [("opened", ["t1"])]


async def test_stopping_finishes_the_batch_at_hand_and_leaves_the_rest(service: OneService) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def linger(_connection: Connection, _messages: Sequence[Message]) -> None:
        begun.set()
        await go_on.wait()

    service.script.trouble = linger
    await service.publish(open_account("t1"))
    consuming = asyncio.create_task(service.consumer.run())
    await begun.wait()
    await service.publish(open_account("t2"))
    service.consumer.stop()
    go_on.set()
    await asyncio.wait_for(consuming, 5)

    assert await service.effects() == [("opened", "t1")]
    assert [message.returns for message in service.broker.messages("billing.work")] == [1]
    assert len(service.said()) == 1


async def test_readiness_depends_on_the_subscription(service: OneService) -> None:
    assert not service.consumer.is_consuming
    async with service.consuming():
        await asyncio.wait_for(wait_until_consuming(service.consumer), 5)
        assert service.consumer.is_consuming


def test_waiting_doubles_up_to_a_bound_and_never_in_step() -> None:
    for attempt in range(1, 40):
        longest = min(_LONGEST_WAIT, 0.2 * 2 ** (attempt - 1))
        waits = {backoff(attempt) for _ in range(20)}
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(waits) > 1


@pytest.mark.usefixtures("pool")
class TestDatabaseAway:
    @pytest.fixture
    async def wire(self, kernel_database: DatabaseUrls) -> AsyncIterator[Wire]:
        async with Wire(kernel_database.app) as wire:
            yield wire

    @pytest.fixture
    async def far_service(self, kernel_database: DatabaseUrls, wire: Wire) -> AsyncIterator[OneService]:
        far_pool = await open_pool(wire.through(kernel_database.app))
        service = OneService(far_pool)
        yield service
        await service.broker.close()
        await wire.mend()
        await asyncio.wait_for(far_pool.close(), 10)

    async def test_nothing_is_counted_as_an_attempt_while_the_database_is_away(
        self, far_service: OneService, wire: Wire
    ) -> None:
        async with far_service.consuming():
            await far_service.publish(open_account("t1"), open_account("t2"))
            await far_service.until(far_service.is_quiet)
            wire.break_off()
            await far_service.publish(open_account("t3"), open_account("t4"))
            outage_began = far_service.clock.now()
            await far_service.until(lambda: (far_service.clock.now() - outage_began).total_seconds() > 60)
            assert far_service.broker.total_depth(["billing.work"]) == 1
            assert (
                far_service.broker.total_depth() == 2
            )  # nothing climbed, nothing was parked: the answers and the asks

            await wire.mend()
            await far_service.until(far_service.is_quiet)

        assert [tenant for _, tenant in await far_service.effects()] == ["t1", "t2", "t3", "t4"]

    async def test_a_connection_that_breaks_within_the_transaction_is_tried_again(
        self, far_service: OneService, wire: Wire
    ) -> None:
        async def cut(_connection: Connection, _messages: Sequence[Message]) -> None:
            if len(far_service.script.batches) == 1:
                wire.cut()

        far_service.script.trouble = cut
        async with far_service.consuming():
            await far_service.publish(open_account("t1"))
            await far_service.until(far_service.is_quiet)

        assert await far_service.effects() == [("opened", "t1")]
        assert len(far_service.script.batches) == 2
        assert far_service.parked() == ()

    async def test_stopping_does_not_wait_for_the_database(self, far_service: OneService, wire: Wire) -> None:
        async with far_service.consuming():
            wire.break_off()
            await far_service.publish(open_account("t1"))
            await far_service.until(lambda: bool(far_service.broker.depth("billing.work")))

        assert far_service.broker.depth("billing.work") == 1


async def test_an_undo_that_overtakes_its_ask_wins(service: OneService) -> None:
    ask = open_account("t1")
    undo = asked(VoidAccount(tenant_id="t1"), workflow_id=ask.workflow_id)

    async with service.consuming():
        await service.publish(undo)
        await service.until(service.is_quiet)
        await service.publish(ask)
        await service.until(service.is_quiet)

    assert await service.effects() == [("voided", "t1")]
    assert [answer.causation_id for answer in service.said()] == [undo.id]
