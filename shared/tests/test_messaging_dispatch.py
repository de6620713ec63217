from collections.abc import Sequence

import orjson
import pytest

from shared.contracts.base import Fact, Message
from shared.contracts.billing import (
    AccountOpened,
    AccountPurged,
    AccountRefused,
    AccountVoided,
    OpenAccount,
    PurgeAccount,
    SubscriptionStarted,
    VoidAccount,
)
from shared.contracts.tenant import TenantActivated, TenantDeactivated
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Event, Outgoing, decode
from shared.messaging.subscriptions import (
    Answered,
    Changed,
    Restoration,
    Subscriptions,
    bind,
    change,
    do,
    follow,
    restore,
    undo,
)
from shared.postgres import Connection, transaction
from shared.testing.one_service import OneService
from shared.testing.three_services import asked, told


def open_account(tenant_id: str) -> Event:
    return asked(OpenAccount(tenant_id=tenant_id, customer_name="Ada", plan="pro"))


def again(event: Event) -> Event:
    return asked(event.message, workflow_id=event.workflow_id)  # type: ignore[arg-type] # it is an ask


def undo_of(event: Event) -> Event:
    return asked(VoidAccount(tenant_id=event.message.tenant_id), workflow_id=event.workflow_id)


async def handle(service: OneService, *events: Event, dispatch: Dispatch | None = None) -> list[Event]:
    """Handle a batch in one transaction and return what was said."""
    async with transaction(service.pool) as connection:
        outgoing = await (dispatch or service.dispatch).handle(connection, events)
    for each in outgoing:
        assert each.exchange == "tenure.billing"
    said = [decode(orjson.loads(each.event)) for each in outgoing]
    assert [(each.id, each.routing_key) for each in outgoing] == [(event.id, event.type) for event in said]
    return said


def dispatch_with(service: OneService, table: Subscriptions) -> Dispatch:
    return Dispatch(service="billing", subscriptions=bind(table), clock=service.clock, ids=service.ids)


async def test_an_answer_says_what_it_answers(service: OneService) -> None:
    ask = open_account("t1")

    [answer] = await handle(service, ask)

    assert answer.message == AccountOpened(tenant_id="t1", account_id="of t1")
    assert (answer.workflow_id, answer.step, answer.causation_id) == (ask.workflow_id, ask.step, ask.id)
    assert (answer.publisher, answer.time) == ("billing", service.clock.now())


async def test_a_batch_is_grouped_by_type_in_the_order_of_arrival(service: OneService) -> None:
    first, second = open_account("t1"), open_account("t2")

    said = await handle(
        service, first, told(TenantActivated(tenant_id="t3")), second, told(TenantActivated(tenant_id="t4"))
    )

    assert service.script.batches == [("opened", ["t1", "t2"]), ("started", ["t3", "t4"])]
    assert [(event.type.split(".")[1], event.message.tenant_id) for event in said] == [
        ("account_opened", "t1"),
        ("account_opened", "t2"),
        ("subscription_started", "t3"),
        ("subscription_started", "t4"),
    ]


async def test_no_events_are_nothing_to_do(service: OneService) -> None:
    assert await handle(service) == []
    assert service.script.batches == []


async def test_two_asks_for_one_operation_are_one_effect_and_two_answers(service: OneService) -> None:
    ask = open_account("t1")
    repeated = again(ask)

    said = await handle(service, ask, repeated)

    assert service.script.batches == [("opened", ["t1"])]
    assert [(event.causation_id, event.message) for event in said] == [
        (ask.id, AccountOpened(tenant_id="t1", account_id="of t1")),
        (repeated.id, AccountOpened(tenant_id="t1", account_id="of t1")),
    ]
    assert said[0].id != said[1].id


async def test_a_late_duplicate_gets_the_first_answer_and_no_handler_sees_it(service: OneService) -> None:
    ask = open_account("t1")
    await handle(service, ask)
    service.script.answers["t1"] = AccountOpened(tenant_id="t1", account_id="another")

    [answer] = await handle(service, again(ask))

    assert answer.message == AccountOpened(tenant_id="t1", account_id="of t1")
    assert len(service.script.batches) == 1


async def test_fresh_and_repeated_asks_are_answered_in_the_order_of_arrival(service: OneService) -> None:
    old = open_account("t1")
    await handle(service, old)
    batch = [open_account("t2"), again(old), open_account("t3")]

    said = await handle(service, *batch)

    assert [event.causation_id for event in said] == [event.id for event in batch]
    assert service.script.batches[1] == ("opened", ["t2", "t3"])


async def test_a_refusal_that_may_pass_is_asked_afresh(service: OneService) -> None:
    ask = open_account("t1")
    service.script.answers["t1"] = AccountRefused(tenant_id="t1", code="busy", detail="Later.", retryable=True)
    [refused] = await handle(service, ask)
    del service.script.answers["t1"]

    [opened] = await handle(service, again(ask))

    assert isinstance(refused.message, AccountRefused)
    assert isinstance(opened.message, AccountOpened)
    assert len(service.script.batches) == 2


async def test_a_refusal_that_is_final_stays(service: OneService) -> None:
    ask = open_account("t1")
    service.script.answers["t1"] = AccountRefused(tenant_id="t1", code="unknown_plan", detail="No such plan.")
    await handle(service, ask)
    del service.script.answers["t1"]

    [answer] = await handle(service, again(ask))

    assert isinstance(answer.message, AccountRefused)
    assert len(service.script.batches) == 1


async def test_an_undo_is_answered_and_closes_the_operation(service: OneService) -> None:
    ask = open_account("t1")
    undo = undo_of(ask)
    await handle(service, ask)

    [answer] = await handle(service, undo)

    assert answer.message == AccountVoided(tenant_id="t1")
    assert answer.causation_id == undo.id
    assert await handle(service, again(ask)) == []
    assert service.script.batches == [("opened", ["t1"]), ("voided", ["t1"])]


async def test_an_undo_that_overtakes_its_ask_in_the_same_batch_wins(service: OneService) -> None:
    ask = open_account("t1")
    undo = undo_of(ask)

    said = await handle(service, undo, ask)

    assert [event.causation_id for event in said] == [undo.id]
    assert service.script.batches == [("voided", ["t1"])]


async def test_an_ask_and_its_undo_in_one_batch_leave_nothing(service: OneService) -> None:
    ask = open_account("t1")
    undo = undo_of(ask)

    said = await handle(service, ask, undo)

    assert [event.causation_id for event in said] == [ask.id, undo.id]
    assert service.script.batches == [("opened", ["t1"]), ("voided", ["t1"])]
    assert await handle(service, again(ask)) == []


async def test_an_undo_that_is_repeated_is_answered_each_time(service: OneService) -> None:
    ask = open_account("t1")

    one, other = await handle(service, undo_of(ask)), await handle(service, undo_of(ask))

    assert [type(event.message) for event in [*one, *other]] == [AccountVoided, AccountVoided]


async def test_what_is_told_answers_nobody(service: OneService) -> None:
    [started] = await handle(service, told(TenantActivated(tenant_id="t1")))

    assert started.message == SubscriptionStarted(tenant_id="t1", plan="pro")
    assert (started.workflow_id, started.step, started.causation_id) == (None, None, None)


async def test_who_follows_several_types_gets_them_together_as_they_came_with_their_envelopes(
    service: OneService,
) -> None:
    seen: list[Event] = []

    async def look(_connection: Connection, events: Sequence[Event]) -> Sequence[Outgoing]:
        seen.extend(events)
        return [dispatch.tell(SubscriptionStarted(tenant_id=event.message.tenant_id, plan="pro")) for event in events]

    dispatch = dispatch_with(service, {TenantActivated: follow(look), TenantDeactivated: follow(look)})
    events = [
        told(TenantActivated(tenant_id="t1")),
        told(TenantDeactivated(tenant_id="t1")),
        told(TenantActivated(tenant_id="t2")),
    ]

    said = await handle(service, *events, dispatch=dispatch)

    assert seen == events
    assert [event.message.tenant_id for event in said] == ["t1", "t1", "t2"]


async def test_a_handler_that_forgets_an_answer_fails_its_batch(service: OneService) -> None:
    async def forget(_connection: Connection, asks: Sequence[Message]) -> Sequence[Fact]:
        return [AccountOpened(tenant_id=ask.tenant_id, account_id="a") for ask in asks[1:]]

    dispatch = dispatch_with(service, {OpenAccount: do(forget)})

    with pytest.raises(ValueError, match="zip"):
        await handle(service, open_account("t1"), open_account("t2"), dispatch=dispatch)
    assert await service.pool.fetchval("SELECT count(*) FROM operation") == 0


def test_it_names_what_it_has_handlers_for(service: OneService) -> None:
    assert set(service.dispatch.heard) == {
        "billing.open_account.v1",
        "billing.void_account.v1",
        "tenant.tenant_activated.v1",
        "tenant.tenant_deactivated.v1",
    }


# What changes what is there


async def test_an_undo_restores_what_its_ask_has_changed(service: OneService) -> None:
    """Two tenants in one batch: one was changed, of the other nothing was."""
    restored: list[Restoration] = []

    async def change_plans(_connection: Connection, asks: Sequence[OpenAccount]) -> Sequence[Changed]:
        return [
            Changed(
                AccountOpened(tenant_id=ask.tenant_id, account_id="a"),
                before={"plan": "free"} if ask.tenant_id == "t1" else None,
            )
            for ask in asks
        ]

    async def restore_plans(_connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Fact]:
        restored.extend(restorations)
        return [AccountVoided(tenant_id=each.tenant_id) for each in restorations]

    dispatch = dispatch_with(service, {OpenAccount: change(change_plans), VoidAccount: restore(restore_plans)})
    asks = [open_account("t1"), open_account("t2")]
    await handle(service, *asks, dispatch=dispatch)
    said = await handle(service, *map(undo_of, asks), dispatch=dispatch)
    again_said = await handle(service, undo_of(asks[0]), dispatch=dispatch)

    assert restored == [Restoration("t1", {"plan": "free"}), Restoration("t2", None), Restoration("t1", None)]
    assert [event.message.tenant_id for event in (*said, *again_said)] == ["t1", "t2", "t1"]


async def test_a_change_is_answered_as_before_when_it_is_asked_again(service: OneService) -> None:
    calls: list[int] = []

    async def change_plans(_connection: Connection, asks: Sequence[OpenAccount]) -> Sequence[Changed]:
        calls.append(len(asks))
        return [Changed(AccountOpened(tenant_id=ask.tenant_id, account_id="a"), before={}) for ask in asks]

    dispatch = dispatch_with(service, {OpenAccount: change(change_plans)})
    ask = open_account("t1")

    first = await handle(service, ask, dispatch=dispatch)
    second = await handle(service, again(ask), dispatch=dispatch)

    assert calls == [1]
    assert [event.message for event in first] == [event.message for event in second]


async def test_what_was_found_is_forgotten_as_soon_as_no_undo_can_ask_for_it(service: OneService) -> None:
    """The next workflow's ask tells that the earlier one has ended; a final ask, that its own does not turn back."""

    async def change_plans(_connection: Connection, asks: Sequence[OpenAccount]) -> Sequence[Changed]:
        return [Changed(AccountOpened(tenant_id=ask.tenant_id, account_id="a"), before={"x": 1}) for ask in asks]

    async def purge(_connection: Connection, asks: Sequence[PurgeAccount]) -> Sequence[Fact]:
        return [AccountPurged(tenant_id=ask.tenant_id, deleted={}) for ask in asks]

    dispatch = dispatch_with(service, {OpenAccount: change(change_plans), PurgeAccount: do(purge)})
    kept = "SELECT count(*) FROM operation WHERE before IS NOT NULL"

    await handle(service, open_account("t1"), open_account("t2"), dispatch=dispatch)
    await handle(service, open_account("t1"), dispatch=dispatch)
    assert await service.pool.fetchval(kept) == 2
    await handle(service, asked(PurgeAccount(tenant_id="t1"), step="purge"), dispatch=dispatch)
    assert await service.pool.fetchval(kept) == 1


# What has more to tell than an answer


def news(tenant_id: str, plan: str = "pro") -> Fact:
    return SubscriptionStarted(tenant_id=tenant_id, plan=plan)


async def test_what_a_handler_tells_besides_its_answers_is_told_once_and_answers_nobody(service: OneService) -> None:
    async def open_accounts(_connection: Connection, asks: Sequence[OpenAccount]) -> Sequence[Fact | Answered]:
        opened = [AccountOpened(tenant_id=ask.tenant_id, account_id="a") for ask in asks]
        return [Answered(opened[0], tells=[news("t1", "a"), news("t1", "b")]), opened[1]]

    dispatch = dispatch_with(service, {OpenAccount: do(open_accounts)})
    asks = [open_account("t1"), open_account("t2")]

    said = await handle(service, *asks, dispatch=dispatch)

    assert [(event.message, event.causation_id) for event in said] == [
        (AccountOpened(tenant_id="t1", account_id="a"), asks[0].id),
        (AccountOpened(tenant_id="t2", account_id="a"), asks[1].id),
        (news("t1", "a"), None),
        (news("t1", "b"), None),
    ]
    assert [(event.workflow_id, event.step) for event in said[2:]] == [(None, None)] * 2
    assert len({event.id for event in said}) == 4


async def test_an_ask_that_is_repeated_is_answered_again_and_nothing_is_told_again(service: OneService) -> None:
    async def open_accounts(_connection: Connection, asks: Sequence[OpenAccount]) -> Sequence[Answered]:
        return [
            Answered(AccountOpened(tenant_id=ask.tenant_id, account_id="a"), tells=[news(ask.tenant_id)])
            for ask in asks
        ]

    dispatch = dispatch_with(service, {OpenAccount: do(open_accounts)})
    ask = open_account("t1")

    first = await handle(service, ask, again(ask), dispatch=dispatch)
    second = await handle(service, again(ask), open_account("t2"), dispatch=dispatch)

    opened, other = (AccountOpened(tenant_id=tenant_id, account_id="a") for tenant_id in ("t1", "t2"))
    assert [event.message for event in first] == [opened, opened, news("t1")]
    assert [event.message for event in second] == [opened, other, news("t2")]


async def test_an_undo_tells_too(service: OneService) -> None:
    async def open_accounts(_connection: Connection, asks: Sequence[OpenAccount]) -> Sequence[Fact]:
        return [AccountOpened(tenant_id=ask.tenant_id, account_id="a") for ask in asks]

    async def void_accounts(_connection: Connection, asks: Sequence[VoidAccount]) -> Sequence[Answered]:
        return [Answered(AccountVoided(tenant_id=ask.tenant_id), tells=[news(ask.tenant_id)]) for ask in asks]

    dispatch = dispatch_with(service, {OpenAccount: do(open_accounts), VoidAccount: undo(void_accounts)})
    ask = open_account("t1")
    await handle(service, ask, dispatch=dispatch)

    said = await handle(service, undo_of(ask), dispatch=dispatch)

    assert [event.message for event in said] == [AccountVoided(tenant_id="t1"), news("t1")]


async def test_a_change_and_its_restoration_tell_too(service: OneService) -> None:
    restored: list[Restoration] = []

    async def change_plans(_connection: Connection, asks: Sequence[OpenAccount]) -> Sequence[Changed]:
        return [
            Changed(
                AccountOpened(tenant_id=ask.tenant_id, account_id="a"),
                before={"plan": "free"},
                tells=[news(ask.tenant_id, "pro")],
            )
            for ask in asks
        ]

    async def restore_plans(_connection: Connection, restorations: Sequence[Restoration]) -> Sequence[Answered]:
        restored.extend(restorations)
        return [
            Answered(AccountVoided(tenant_id=each.tenant_id), tells=[news(each.tenant_id, "free")])
            for each in restorations
        ]

    dispatch = dispatch_with(service, {OpenAccount: change(change_plans), VoidAccount: restore(restore_plans)})
    ask = open_account("t1")

    changed = await handle(service, ask, dispatch=dispatch)
    undone = await handle(service, undo_of(ask), dispatch=dispatch)

    assert [event.message for event in changed] == [
        AccountOpened(tenant_id="t1", account_id="a"),
        news("t1", "pro"),
    ]
    assert [event.message for event in undone] == [AccountVoided(tenant_id="t1"), news("t1", "free")]
    assert restored == [Restoration("t1", {"plan": "free"})]
