"""The way of messages as spans: whose consequence each is, in batches, in failure, and when nothing is traced."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from shared.contracts.base import Message
from shared.contracts.billing import AccountOpened, OpenAccount
from shared.contracts.tenant import TenantActivated
from shared.messaging import outbox
from shared.messaging.event import Event, Outgoing, decode, parse_batch, traceparent_in, with_traceparent
from shared.messaging.outbox import FRESH
from shared.postgres import Connection, transaction
from shared.testing import eventually
from shared.testing.one_service import OneService
from shared.testing.spans import Collected, collecting, id_of, linked, parent_of, trace_of
from shared.testing.three_services import ANSWER, ASK, asked, told
from shared.tracing import spans
from shared.tracing.messages import trace_making

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STARTED = "billing.subscription_started.v1"


@pytest.fixture
def collected() -> Iterator[Collected]:
    with collecting() as collected:
        yield collected


def open_account(tenant_id: str, traceparent: str | None = None) -> Event:
    event = asked(OpenAccount(tenant_id=tenant_id, customer_name=f"Customer {tenant_id}", plan="pro"))
    return replace(event, traceparent=traceparent)


def caused_by(number: int) -> str:
    """Return the traceparent of somebody's span, in a trace of its own."""
    return f"00-{number:032x}-{number:016x}-01"


async def handle(service: OneService, *events: Event) -> None:
    async with service.consuming():
        await service.publish(*events)
        await service.until(service.is_quiet)


def outgoing_of(service: OneService, tenant_id: str = "t1") -> Outgoing:
    return service.dispatch.tell(AccountOpened(tenant_id=tenant_id, account_id="a"))


# One message


async def test_a_message_and_its_answer_are_a_chain(service: OneService, collected: Collected) -> None:
    await handle(service, open_account("t1", caused_by(7)))

    processed, made, sent = (collected.one(f"{way} {of}") for way, of in [("process", ASK), *WAYS])
    assert (trace_of(processed), parent_of(processed)) == (7, 7)
    assert (parent_of(made), parent_of(sent)) == (id_of(processed), id_of(made))
    [answer] = service.said()
    assert answer.traceparent == f"00-{7:032x}-{id_of(made):016x}-{made.context.trace_flags:02x}"


WAYS = [("create", ANSWER), ("send", ANSWER)]


async def test_spans_say_whose_they_are_by_the_conventions(service: OneService, collected: Collected) -> None:
    ask = open_account("t1")
    await handle(service, ask)

    processed, made = collected.one(f"process {ASK}"), collected.one(f"create {ANSWER}")
    assert dict(processed.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": f"tenure.onboarding:{ASK}:billing.work",
        "messaging.rabbitmq.destination.routing_key": ASK,
        "messaging.message.id": str(ask.id),
        "messaging.message.conversation_id": str(ask.workflow_id),
        "tenure.tenant_id": "t1",
        "tenure.step": "billing",
        "tenure.attempt": 1,
    }
    assert made.attributes is not None
    assert made.attributes["messaging.destination.name"] == f"tenure.billing:{ANSWER}"
    assert made.attributes["messaging.message.conversation_id"] == str(ask.workflow_id)
    assert (processed.kind.name, made.kind.name) == ("CONSUMER", "PRODUCER")
    assert made.resource.attributes["service.name"] == "billing"


@pytest.mark.parametrize("traceparent", [None, "", "00-zz-1", 7, {"a": 1}, TRACEPARENT.upper(), TRACEPARENT + "0"])
def test_an_event_is_none_the_worse_for_a_strange_traceparent(traceparent: object) -> None:
    [raw] = parse_batch(b"[" + open_account("t1").encode() + b"]")

    assert decode(raw | {"traceparent": traceparent}).traceparent is None


def test_a_traceparent_is_the_last_attribute_and_is_found_there() -> None:
    event = open_account("t1", TRACEPARENT)
    plain = replace(event, traceparent=None).encode()

    assert event.encode() == with_traceparent(plain, TRACEPARENT)
    assert (traceparent_in(event.encode()), traceparent_in(plain)) == (TRACEPARENT, None)
    [raw] = parse_batch(b"[" + event.encode() + b"]")
    assert decode(raw) == event


def test_what_the_data_calls_a_traceparent_is_none() -> None:
    fact = TenantActivated(tenant_id="t1")
    data = b'{"data":{"tenantId":"t1","traceparent":"' + TRACEPARENT.encode() + b'"}}'

    assert traceparent_in(data) is None
    assert traceparent_in(told(fact).encode()) is None


# Batches


async def test_each_answer_of_a_batch_is_in_the_trace_of_its_ask(service: OneService, collected: Collected) -> None:
    asks = [open_account(f"t{number}", caused_by(number)) for number in range(1, 6)]
    await handle(service, *asks)

    for number in range(1, 6):
        processed = collected.one(f"process {ASK}", tenure_tenant_id=f"t{number}")
        made = collected.one(f"create {ANSWER}", tenure_tenant_id=f"t{number}")
        assert [trace_of(processed), trace_of(made)] == [number, number]
        assert parent_of(made) == id_of(processed)
        assert processed.attributes is not None
        assert processed.attributes["messaging.batch.message_count"] == 5


async def test_what_is_told_of_a_tenant_belongs_to_what_was_heard_of_it(
    service: OneService, collected: Collected
) -> None:
    await handle(
        service, *(replace(told(TenantActivated(tenant_id=f"t{n}")), traceparent=caused_by(n)) for n in (1, 2))
    )

    assert [trace_of(collected.one(f"create {STARTED}", tenure_tenant_id=f"t{n}")) for n in (1, 2)] == [1, 2]


async def test_what_nobody_in_a_batch_is_known_to_have_caused_is_linked_to_all(
    service: OneService, collected: Collected
) -> None:
    async def tell_of_another(connection: Connection, _messages: Sequence[Message]) -> None:
        await outbox.insert(connection, [outgoing := outgoing_of(service, "another")], now=service.clock.now())
        said.append(outgoing)

    said: list[Outgoing] = []
    service.script.trouble = tell_of_another
    await handle(service, open_account("t1", caused_by(1)), open_account("t2", caused_by(2)))
    await service.relay.send(said)

    made = collected.one(f"create {ANSWER}", tenure_tenant_id="another")
    assert parent_of(made) is None
    assert linked(made) == {id_of(span) for span in collected.named(f"process {ASK}")}


# Failure


async def test_what_is_rolled_back_was_never_made(service: OneService, collected: Collected) -> None:
    async with service.pool.acquire() as connection:
        lost = connection.transaction()
        await lost.start()
        await outbox.insert(connection, [outgoing_of(service)], now=service.clock.now())
        await lost.rollback()

    assert collected.spans == ()


async def test_one_that_fails_is_tried_again_in_a_span_that_is_linked(
    service: OneService, collected: Collected
) -> None:
    async def fail_once(_connection: Connection, _messages: Sequence[Message]) -> None:
        if len(service.script.batches) == 1:
            raise RuntimeError("a secret")

    service.script.trouble = fail_once
    await handle(service, open_account("t1", caused_by(1)))

    first, second = (collected.one(f"process {ASK}", tenure_attempt=number) for number in (1, 2))
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert first.attributes is not None
    assert first.attributes["error.type"] == "RuntimeError"
    assert (parent_of(first), parent_of(second), linked(second)) == (1, 1, {id_of(first)})
    assert "a secret" not in "".join(span.to_json() for span in collected.spans)
    assert parent_of(collected.one(f"create {ANSWER}")) == id_of(second)


async def test_of_a_batch_that_fails_each_event_is_tried_in_a_span_of_its_own(
    service: OneService, collected: Collected
) -> None:
    async def fail_together(_connection: Connection, messages: Sequence[Message]) -> None:
        if len(messages) > 1:
            raise RuntimeError("together")

    service.script.trouble = fail_together
    await handle(service, open_account("t1", caused_by(1)), open_account("t2", caused_by(2)))

    for number in (1, 2):
        tried = [span for span in collected.named(f"process {ASK}") if trace_of(span) == number]
        assert [span.status.status_code for span in tried] == [StatusCode.ERROR, StatusCode.UNSET]
        assert parent_of(collected.one(f"create {ANSWER}", tenure_tenant_id=f"t{number}")) == id_of(tried[1])


async def test_a_repeated_message_says_that_it_is_one(service: OneService, collected: Collected) -> None:
    ask = open_account("t1")
    async with service.consuming():
        for _ in range(2):
            await service.publish(ask)
            await service.until(service.is_quiet)

    assert [_is_repeated(span) for span in collected.named(f"process {ASK}")] == [False, True]


def _is_repeated(span: ReadableSpan) -> bool:
    return bool((span.attributes or {}).get("tenure.is_repeated", False))


async def test_what_the_sweeper_sends_is_in_its_trace_too(service: OneService, collected: Collected) -> None:
    outgoing = outgoing_of(service)
    async with transaction(service.pool) as connection:
        trace_making([outgoing], because=caused_by(1))
        await outbox.insert(connection, [outgoing], now=service.clock.now() - FRESH)

    assert await service.relay.sweep() == 1

    sent = collected.one(f"send {ANSWER}")
    assert trace_of(sent) == 1
    assert [answer.traceparent for answer in service.said()] == [traceparent_in(outgoing.event)]


async def test_a_broker_that_is_away_is_seen_at_what_was_not_sent(service: OneService, collected: Collected) -> None:
    outgoing = outgoing_of(service)
    trace_making([outgoing])
    service.broker.go_away()
    await service.relay.send([outgoing])

    sent = collected.one(f"send {ANSWER}")
    assert (sent.status.status_code, (sent.attributes or {})["error.type"]) == (StatusCode.ERROR, "unknown")


# Nothing is traced


async def test_where_nothing_is_traced_messages_are_as_they_were(service: OneService) -> None:
    await handle(service, open_account("t1", TRACEPARENT))

    [answer] = service.said()
    assert answer.traceparent is None
    assert b"traceparent" not in answer.encode()
    outgoing = outgoing_of(service)
    trace_making([outgoing], because=TRACEPARENT)
    assert (outgoing.span, traceparent_in(outgoing.event), spans.current()) == (None, None, None)


async def test_what_is_not_sampled_is_not_traced_on(service: OneService, collected: Collected) -> None:
    await handle(service, open_account("t1", TRACEPARENT[:-2] + "00"))

    [answer] = service.said()
    assert collected.spans == ()
    assert answer.traceparent is not None
    assert answer.traceparent.endswith("00")


async def test_older_code_hears_a_traced_message(service: OneService) -> None:
    """What does not know the attribute ignores it, as it ignores every attribute that it does not know."""
    event = open_account("t1", TRACEPARENT)
    [raw] = parse_batch(b"[" + event.encode() + b"]")

    assert decode(raw | {"somethingnewer": "x"}) == event


async def test_a_batch_holds_events_that_are_traced_and_others(service: OneService, collected: Collected) -> None:
    await handle(service, open_account("t1", caused_by(1)), open_account("t2"))
    await eventually(lambda: len(service.said()) == 2)

    begun = collected.one(f"process {ASK}", tenure_tenant_id="t2")
    assert (parent_of(begun), trace_of(begun) == 1) == (None, False)
