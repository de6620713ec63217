"""All that a workflow does is one trace, whatever made it go on: an answer, time, an operator, or nobody at all."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from uuid import UUID

import pytest
from opentelemetry.trace import use_span

from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.saga import Cancel
from services.onboarding.tests.catalogue import answers, refusals
from services.onboarding.tests.support import Desk, go_on, hear, open_desk, stored, told, waiting
from services.onboarding.timers import Timers
from shared.clock import ManualClock
from shared.messaging import outbox
from shared.messaging.event import Event, Outgoing
from shared.postgres import Pool, transaction
from shared.testing.memory_bus import MemoryBroker
from shared.testing.spans import Collected, collecting, id_of, linked, parent_of, trace_of
from shared.tracing import spans

REGISTER = "create tenant.register_tenant.v1"
MIDDLE = ("create-administrators", "open-account", "track-tenant", "provision-environment")


@pytest.fixture
def collected() -> Iterator[Collected]:
    with collecting() as collected:
        yield collected


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def desk(database_url: str, broker: MemoryBroker, clock: ManualClock) -> AsyncIterator[Desk]:
    async with open_desk(database_url, broker, clock=clock) as desk:
        yield desk


def processed(event: Event) -> tuple[Event, str]:
    """Return an answer as the consumer hands it on, which processes it in a span, and the traceparent of that."""
    span = spans.start("onboarding", "process", parent=event.traceparent)
    span.end()
    traceparent = spans.traceparent_of(span)
    assert traceparent is not None
    return replace(event, traceparent=traceparent), traceparent


async def said(desk: Desk, *events: Event) -> list[Outgoing]:
    """Let answers move workflows, as the consumer does, and send what follows."""
    async with transaction(desk.pool) as connection:
        outgoing = await desk.kernel.dispatch.handle(connection, events)
        await outbox.insert(connection, outgoing, now=desk.kernel.ports.clock.now())
    await desk.kernel.relay.send(outgoing)
    return outgoing


async def traceparent_of_step(pool: Pool, workflow_id: UUID, step: str = "register-tenant") -> str | None:
    return (await stored(pool, workflow_id)).workflow.steps[step].traceparent


async def test_a_workflow_begins_in_the_trace_of_its_request(desk: Desk, pool: Pool, collected: Collected) -> None:
    request = spans.start("onboarding", "request")
    with use_span(request):
        workflow_id = await desk.start()

    begun, asked = collected.one("begin onboard"), collected.one(REGISTER)
    assert (trace_of(begun), parent_of(begun)) == (
        request.get_span_context().trace_id,
        request.get_span_context().span_id,
    )
    assert begun.attributes is not None
    assert begun.attributes["messaging.message.conversation_id"] == str(workflow_id)
    assert parent_of(asked) == id_of(begun)
    assert asked.attributes is not None
    assert (asked.attributes["tenure.workflow_kind"], asked.attributes["tenure.attempt"]) == ("onboard", 1)
    made = {parent_of(span) for span in collected.spans if span.name.startswith("create ")}
    assert made == {id_of(begun)}, "what is told of it and the decision are part of it, too"
    found = await stored(pool, workflow_id)
    assert (found.traceparent or "")[36:52] == f"{id_of(begun):016x}"
    assert (await traceparent_of_step(pool, workflow_id) or "")[36:52] == f"{id_of(asked):016x}"


async def test_several_requests_that_are_accepted_together_keep_their_traces(desk: Desk, collected: Collected) -> None:
    async def request(name: str) -> int:
        span = spans.start("onboarding", f"request {name}")
        with use_span(span):
            await desk.start(name)
        return span.get_span_context().trace_id

    traces = await asyncio.gather(*(request(f"Customer {number}") for number in range(4)))

    assert [trace_of(span) for span in collected.named("begin onboard")] == traces
    assert sorted(trace_of(span) for span in collected.named(REGISTER)) == sorted(traces)


async def test_what_nobody_has_asked_for_begins_a_trace(desk: Desk, collected: Collected) -> None:
    await desk.start()

    assert parent_of(collected.one("begin onboard")) is None


async def test_a_workflow_goes_on_in_the_span_of_the_answer(desk: Desk, pool: Pool, collected: Collected) -> None:
    workflow_id = await desk.start()
    made = await traceparent_of_step(pool, workflow_id)
    answer, handled = processed(
        replace(told(workflow_id, "register-tenant", answers()["register-tenant"]), traceparent=made)
    )

    await said(desk, answer)

    asked = collected.one("create billing.open_account.v1")
    assert f"{parent_of(asked):016x}" == handled[36:52]
    assert linked(asked) == set()


async def test_a_step_after_several_is_linked_to_them_all(desk: Desk, pool: Pool, collected: Collected) -> None:
    workflow_id = await desk.start()
    await go_on(pool, workflow_id, until=MIDDLE, engine=desk.engine)
    before = [await traceparent_of_step(pool, workflow_id, step) for step in MIDDLE]

    await said(desk, *(told(workflow_id, step, answers()[step]) for step in MIDDLE))

    assert {f"{each:016x}" for each in linked(collected.one("create tenant.activate_tenant.v1"))} == {
        each[36:52] for each in before if each
    }


async def test_a_retry_is_in_the_same_trace_and_linked_to_the_attempt_before(
    desk: Desk, pool: Pool, clock: ManualClock, collected: Collected
) -> None:
    workflow_id = await desk.start()
    begun = collected.one("begin onboard")
    await clock.advance(ONBOARD.plan[0].timeout)

    await Timers(desk.kernel, desk.engine, desk.watch).fire()

    first, second = (collected.one(REGISTER, tenure_attempt=number) for number in (1, 2))
    assert (trace_of(second), parent_of(second)) == (trace_of(begun), id_of(begun))
    assert (linked(first), linked(second)) == (set(), {id_of(first)})
    assert (await traceparent_of_step(pool, workflow_id) or "")[36:52] == f"{id_of(second):016x}"
    assert parent_of(collected.named("create onboarding.step_retried.v1")[0]) == id_of(begun)


async def test_what_is_undone_is_linked_to_what_was_asked(desk: Desk, pool: Pool, collected: Collected) -> None:
    workflow_id = await desk.start()
    await go_on(pool, workflow_id, until=MIDDLE, engine=desk.engine)
    asked = await traceparent_of_step(pool, workflow_id, "open-account")

    await said(desk, told(workflow_id, "provision-environment", refusals()["provision-environment"]))

    undo = collected.one("create billing.void_account.v1")
    assert {f"{each:016x}" for each in linked(undo)} == {(asked or "")[36:52]}


async def test_an_operator_acts_in_the_workflows_trace_and_is_linked(
    desk: Desk, pool: Pool, collected: Collected
) -> None:
    workflow_id = await desk.start()
    begun, asked = collected.one("begin onboard"), collected.one(REGISTER)
    request = spans.start("onboarding", "an operator's request")
    with use_span(request):
        async with transaction(pool) as connection:
            acted = await desk.engine.act(connection, workflow_id, Cancel("ada", "a test"))
    assert acted is not None
    await desk.kernel.relay.send(acted.outgoing)

    undo = collected.one("create tenant.deregister_tenant.v1")
    assert (trace_of(undo), parent_of(undo)) == (trace_of(begun), id_of(begun))
    assert linked(undo) == {request.get_span_context().span_id, id_of(asked)}


async def test_an_answer_of_code_that_does_not_trace_stays_in_the_trace(
    desk: Desk, pool: Pool, collected: Collected
) -> None:
    workflow_id = await desk.start()
    begun = collected.one("begin onboard")
    answer, handled = processed(told(workflow_id, "register-tenant", answers()["register-tenant"]))

    await said(desk, answer)

    asked = collected.one("create billing.open_account.v1")
    assert (trace_of(asked), parent_of(asked)) == (trace_of(begun), id_of(begun))
    assert {f"{each:016x}" for each in linked(asked)} == {handled[36:52]}


async def test_a_workflow_from_before_there_were_traces_goes_on(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start()
    with collecting() as collected:
        await said(desk, told(workflow_id, "register-tenant", answers()["register-tenant"]))

    assert collected.one("create billing.open_account.v1")
    assert (await stored(pool, workflow_id)).traceparent is None


async def test_a_workflow_goes_on_where_tracing_was_switched_off(desk: Desk, pool: Pool) -> None:
    with collecting():
        workflow_id = await desk.start()
        before = await traceparent_of_step(pool, workflow_id)
    await hear(pool, told(workflow_id, "register-tenant", answers()["register-tenant"]))

    assert before is not None
    assert await traceparent_of_step(pool, workflow_id) == before
    assert await traceparent_of_step(pool, workflow_id, "open-account") is None
    assert list(await waiting(pool, workflow_id, "running")) == sorted(MIDDLE)


async def test_an_order_that_is_refused_has_begun_nothing(desk: Desk, collected: Collected) -> None:
    await desk.start("Acme")
    with pytest.raises(Exception, match="at work"):
        await desk.start("Acme")

    assert len(collected.named("begin onboard")) == 1
