import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from shared.contracts.base import Message
from shared.contracts.billing import AccountOpened, AccountRefused, OpenAccount, VoidAccount
from shared.messaging import barrier
from shared.messaging.barrier import Entered, Key, key_of
from shared.messaging.event import Event, UndecodableError
from shared.postgres import Pool, transaction
from shared.testing.eventually import eventually
from shared.testing.three_services import asked, told

OPENED = AccountOpened(tenant_id="t1", account_id="a1")
REFUSED = AccountRefused(tenant_id="t1", code="unknown_plan", detail="There is no plan x.")
BUSY = AccountRefused(tenant_id="t1", code="busy", detail="Ask again.", retryable=True)


def ask(step: str = "billing") -> Event:
    return asked(OpenAccount(tenant_id="t1", customer_name="Ada", plan="pro"), step=step)


def again(event: Event) -> Event:
    """Return a second attempt of the same step: the same operation under another identity."""
    return asked(OpenAccount(tenant_id="t1", customer_name="Ada", plan="pro"), workflow_id=event.workflow_id)


def undo_of(event: Event) -> Event:
    return asked(VoidAccount(tenant_id="t1"), workflow_id=event.workflow_id)


async def enter(pool: Pool, *asks: Event, answers: Mapping[Key, Message] | None = None) -> Entered:
    async with transaction(pool) as connection:
        entered = await barrier.enter(connection, asks)
        if answers is not None:
            await barrier.remember(connection, answers)
        return entered


async def close(pool: Pool, *undos: Event) -> None:
    async with transaction(pool) as connection:
        await barrier.close(connection, undos)


async def states(pool: Pool) -> list[str]:
    return [row["state"] for row in await pool.fetch("SELECT state FROM operation ORDER BY state")]


def nothing(entered: Entered) -> bool:
    return not entered.fresh and not entered.answered


async def test_an_operation_is_entered_once(pool: Pool) -> None:
    first = ask()

    assert (await enter(pool, first)).fresh == [first]
    assert (await enter(pool, again(first))).fresh == []


async def test_what_comes_again_gets_the_first_answer(pool: Pool) -> None:
    first = ask()
    await enter(pool, first, answers={key_of(first): OPENED})

    entered = await enter(pool, again(first))

    assert entered == Entered(fresh=[], answered={key_of(first): OPENED})
    assert await states(pool) == ["done"]


async def test_a_refusal_that_is_final_is_remembered(pool: Pool) -> None:
    first = ask()
    await enter(pool, first, answers={key_of(first): REFUSED})

    assert (await enter(pool, again(first))).answered == {key_of(first): REFUSED}
    assert await states(pool) == ["refused"]


async def test_a_refusal_that_may_pass_is_not_remembered(pool: Pool) -> None:
    first = ask()
    await enter(pool, first, answers={key_of(first): BUSY})
    assert await states(pool) == []

    second = again(first)
    assert (await enter(pool, second, answers={key_of(second): OPENED})).fresh == [second]

    assert (await enter(pool, again(first))).answered == {key_of(first): OPENED}


async def test_answers_of_all_kinds_are_kept_apart_in_one_batch(pool: Pool) -> None:
    done, refused, busy = ask(), ask(), ask()
    answers = {key_of(done): OPENED, key_of(refused): REFUSED, key_of(busy): BUSY}
    await enter(pool, done, refused, busy, answers=answers)

    entered = await enter(pool, done, refused, busy)

    assert entered.fresh == [busy]
    assert entered.answered == {key_of(done): OPENED, key_of(refused): REFUSED}


async def test_after_its_undo_an_ask_is_not_even_answered(pool: Pool) -> None:
    first = ask()
    await enter(pool, first, answers={key_of(first): OPENED})
    await close(pool, undo_of(first))

    assert nothing(await enter(pool, again(first)))
    assert await states(pool) == ["undone"]


async def test_an_undo_that_comes_first_keeps_the_ask_out(pool: Pool) -> None:
    late = ask()
    await close(pool, undo_of(late))

    assert nothing(await enter(pool, late))
    assert nothing(await enter(pool, again(late)))


async def test_an_undo_after_a_refusal_that_may_pass_keeps_the_next_attempt_out(pool: Pool) -> None:
    first = ask()
    await enter(pool, first, answers={key_of(first): BUSY})
    await close(pool, undo_of(first))

    assert nothing(await enter(pool, again(first)))
    assert await states(pool) == ["undone"]


async def test_an_undo_may_come_any_number_of_times(pool: Pool) -> None:
    first = ask()
    await close(pool, undo_of(first), undo_of(first))
    await close(pool, undo_of(first))

    assert await states(pool) == ["undone"]


async def test_of_two_in_one_batch_the_first_is_let_through(pool: Pool) -> None:
    one, other = ask(), ask()

    entered = await enter(pool, one, other, again(one), again(other))

    assert sorted(entered.fresh, key=lambda event: event.id) == sorted([one, other], key=lambda event: event.id)
    assert entered.answered == {}


async def test_asks_are_let_through_in_the_order_in_which_they_came(pool: Pool) -> None:
    asks = [ask() for _ in range(50)]
    shuffled = asks[25:] + asks[:25]

    assert (await enter(pool, *shuffled)).fresh == shuffled


async def test_the_steps_of_a_workflow_are_operations_of_their_own(pool: Pool) -> None:
    billing = ask("billing")
    other = replace(again(billing), step="metering")

    assert (await enter(pool, billing)).fresh == [billing]
    assert (await enter(pool, other)).fresh == [other]


async def test_what_is_rolled_back_was_never_entered(pool: Pool) -> None:
    first = ask()
    with pytest.raises(RuntimeError):
        await enter_and_fail(pool, first)

    assert (await enter(pool, first)).fresh == [first]


async def enter_and_fail(pool: Pool, event: Event) -> None:
    async with transaction(pool) as connection:
        await barrier.enter(connection, [event])
        raise RuntimeError


async def test_two_replicas_at_once_have_one_effect_and_the_same_answer(pool: Pool) -> None:
    first = ask()
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def take_effect_slowly() -> Sequence[Event]:
        async with transaction(pool) as connection:
            fresh = (await barrier.enter(connection, [first])).fresh
            entered.set()
            await go_on.wait()
            await barrier.remember(connection, {key_of(first): OPENED})
            return fresh

    slow = asyncio.create_task(take_effect_slowly())
    await entered.wait()
    other = asyncio.create_task(enter(pool, again(first)))
    done, _ = await asyncio.wait([other], timeout=0.1)
    assert not done  # it waits for the outcome
    go_on.set()

    assert await slow == [first]
    assert await other == Entered(fresh=[], answered={key_of(first): OPENED})


async def test_batches_in_opposite_orders_never_deadlock(pool: Pool) -> None:
    asks = [ask() for _ in range(5_000)]  # long enough to meet in the middle

    one, other = await asyncio.gather(enter(pool, *asks), enter(pool, *reversed(asks)))

    assert {event.id for event in [*one.fresh, *other.fresh]} == {event.id for event in asks}
    assert len(one.fresh) + len(other.fresh) == len(asks)


def test_an_operation_is_named_by_its_workflow_and_step() -> None:
    event = ask()

    assert key_of(event) == (event.workflow_id, "billing")
    for nameless in (replace(event, step=None), replace(event, workflow_id=None)):
        with pytest.raises(UndecodableError, match="names no workflow step"):
            key_of(nameless)


def test_a_fact_that_was_told_names_no_operation() -> None:
    with pytest.raises(UndecodableError):
        key_of(told(OPENED))


# Before-images


async def change(pool: Pool, ask: Event, before: Mapping[str, object]) -> None:
    async with transaction(pool) as connection:
        await barrier.enter(connection, [ask])
        await barrier.remember(connection, {key_of(ask): OPENED}, {key_of(ask): before})


async def test_an_undo_is_given_what_its_ask_had_found(pool: Pool) -> None:
    changed, untouched = ask(), ask()
    await change(pool, changed, {"plan": "free"})
    await enter(pool, untouched, answers={key_of(untouched): OPENED})

    async with transaction(pool) as connection:
        befores = await barrier.close(connection, [undo_of(changed), undo_of(untouched), undo_of(ask())])

    assert befores == {key_of(changed): {"plan": "free"}}


async def test_what_was_found_is_given_out_once(pool: Pool) -> None:
    """An undo that is repeated late must not undo what another workflow has done since."""
    changed = ask()
    await change(pool, changed, {"plan": "free"})

    async with transaction(pool) as connection:
        first = await barrier.close(connection, [undo_of(changed)])
    async with transaction(pool) as connection:
        second = await barrier.close(connection, [undo_of(changed)])

    assert (len(first), second) == (1, {})


async def test_what_was_found_is_forgotten_when_no_undo_can_come_any_more(pool: Pool) -> None:
    earlier, later, stranger = ask(), ask(), ask()
    for each in (earlier, later):
        await change(pool, each, {"plan": "free"})
    async with transaction(pool) as connection:
        await barrier.enter(connection, [stranger])
        another = AccountOpened(tenant_id="t2", account_id="a2")
        await barrier.remember(connection, {key_of(stranger): another}, {key_of(stranger): {"plan": "pro"}})

    async with transaction(pool) as connection:
        await barrier.forget(connection, [later], own=False)
    async with transaction(pool) as connection:
        befores = await barrier.close(connection, [undo_of(each) for each in (earlier, later, stranger)])

    assert befores.keys() == {key_of(later), key_of(stranger)}


async def test_what_does_not_turn_back_forgets_its_own_too(pool: Pool) -> None:
    changed = ask()
    await change(pool, changed, {"plan": "free"})

    async with transaction(pool) as connection:
        await barrier.forget(connection, [changed], own=True)
        assert await barrier.close(connection, [undo_of(changed)]) == {}
    assert await pool.fetchval("SELECT count(*) FROM operation WHERE before IS NOT NULL OR subject IS NOT NULL") == 0


async def test_an_undo_that_was_rolled_back_gives_it_out_again(pool: Pool) -> None:
    changed = ask()
    await change(pool, changed, {"plan": "free"})

    async with pool.acquire() as connection:
        rolled_back = connection.transaction()
        await rolled_back.start()
        await barrier.close(connection, [undo_of(changed)])
        await rolled_back.rollback()

    async with transaction(pool) as connection:
        assert len(await barrier.close(connection, [undo_of(changed)])) == 1


async def test_an_undo_sees_what_the_ask_that_it_waited_for_has_found(pool: Pool) -> None:
    changed = ask()

    async def undo() -> Mapping[Key, object]:
        async with transaction(pool) as connection:
            return await barrier.close(connection, [undo_of(changed)])

    async with transaction(pool) as connection:
        await barrier.enter(connection, [changed])
        undoing = asyncio.create_task(undo())
        await eventually(lambda: _is_blocked(pool))
        await barrier.remember(connection, {key_of(changed): OPENED}, {key_of(changed): {"plan": "free"}})

    assert await undoing == {key_of(changed): {"plan": "free"}}


async def _is_blocked(pool: Pool) -> bool:
    waiting = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    return bool(await pool.fetchval(waiting))
