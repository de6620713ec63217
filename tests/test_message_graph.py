"""The messages of all six services taken together: who says each, who hears it, and what answers and undoes it."""

import re
from collections.abc import Iterable
from importlib import import_module

import pytest

from deploy.manifest import PATH, manifest
from services.onboarding.definition import DefinedStep, Definition
from services.onboarding.lifecycles import DEFINITIONS
from shared.contracts import CATALOGUE, SERVICES, Ask, Fact, Message, Refusal, billing, onboarding
from shared.messaging.subscriptions import Kind, Subscription
from shared.messaging.topology import (
    STATUS_EXCHANGE,
    USAGE_EXCHANGE,
    Manifest,
    bindings,
    exchange_of,
    retry_exchange_of,
    work_queue_of,
)

SAID: dict[str, tuple[type[Message], ...]] = {
    service: import_module(f"services.{service}.handlers").PUBLISHES for service in SERVICES
}
HEARD: dict[str, dict[type[Message], Subscription]] = {
    service: import_module(f"services.{service}.handlers").SUBSCRIPTIONS for service in SERVICES
}

MESSAGES = tuple(CATALOGUE.values())
FACTS = tuple(message for message in MESSAGES if issubclass(message, Fact))
ASKS = tuple(message for message in MESSAGES if issubclass(message, Ask))
UNDOS = tuple(ask for ask in ASKS if ask.undoes is not None)
DOS = tuple(ask for ask in ASKS if ask.undoes is None)
UNDONE = {undo.undoes: undo for undo in UNDOS}

TAKEN_BACK_BY = {Kind.DO: Kind.UNDO, Kind.CHANGE: Kind.RESTORE, Kind.BEGIN: Kind.TURN_BACK}
"""How what is asked is heard, and how its undo is."""

ASKING = "onboarding"
"""The one service that asks others for something: it runs the workflows."""

FOR_OUTSIDERS = {
    onboarding.TenantExpiring,
    onboarding.MailCounted,
    onboarding.TenantMailPaused,
    onboarding.TenantMailResumed,
    onboarding.TenantQuotaCrossed,
}
"""What is told on the status exchange alone, where nobody of the system listens."""

UNHEARD = FOR_OUTSIDERS | {
    billing.SubscriptionStarted,
    billing.InvoiceIssued,
    billing.InvoiceSettled,
    billing.PaymentReceived,
    billing.CreditIssued,
    billing.SpendingLimitReached,
    billing.PaymentFailed,
}
"""What is told although no service needs it yet."""

STEPS = tuple(
    pytest.param(definition, step, id=f"{definition.name}-{definition.version}-{step.name}")
    for definition in DEFINITIONS.values()
    for step in definition.steps.values()
)


def named(message: type[Message]) -> str:
    return f"{message.owner}.{message.__name__}"


def sayers(message: type[Message]) -> set[str]:
    return {service for service, said in SAID.items() if message in said}


def hearers(message: type[Message]) -> set[str]:
    return {service for service, heard in HEARD.items() if message in heard}


def answers_of(ask: type[Ask]) -> list[type[Fact]]:
    return [fact for fact in FACTS if fact.answers is ask]


def keys(messages: Iterable[type[Message]]) -> set[str]:
    return {message.routing_key() for message in messages}


# Who says what


@pytest.mark.parametrize("fact", FACTS, ids=named)
def test_a_fact_is_said_by_its_owner_alone(fact: type[Fact]) -> None:
    assert sayers(fact) == {fact.owner}


@pytest.mark.parametrize("ask", ASKS, ids=named)
def test_an_ask_is_said_by_the_service_that_runs_the_workflows(ask: type[Ask]) -> None:
    assert sayers(ask) == {ASKING}


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_says_and_hears_is_in_the_catalogue_and_said_to_somebody_else(service: str) -> None:
    assert len(SAID[service]) == len(set(SAID[service]))
    assert keys(SAID[service]) | keys(HEARD[service]) <= CATALOGUE.keys()
    assert not set(SAID[service]) & HEARD[service].keys()


# Who hears what


@pytest.mark.parametrize("message", MESSAGES, ids=named)
def test_what_is_heard_is_said_and_what_is_said_is_heard(message: type[Message]) -> None:
    assert sayers(message)
    assert bool(hearers(message)) is (message not in UNHEARD)


@pytest.mark.parametrize("ask", ASKS, ids=named)
def test_an_ask_is_heard_by_its_owner_alone(ask: type[Ask]) -> None:
    assert hearers(ask) == {ask.owner}
    assert HEARD[ask.owner][ask].kind in (TAKEN_BACK_BY.keys() if ask.undoes is None else set(TAKEN_BACK_BY.values()))


@pytest.mark.parametrize("fact", FACTS, ids=named)
def test_a_fact_is_heard_not_obeyed(fact: type[Fact]) -> None:
    assert {HEARD[service][fact].kind for service in hearers(fact)} <= {Kind.HEAR, Kind.FOLLOW}


# What answers and undoes what


@pytest.mark.parametrize("ask", [ask for ask in DOS if ask in UNDONE], ids=named)
def test_what_is_done_has_one_undo_at_the_same_service_that_is_heard_as_it_is(ask: type[Ask]) -> None:
    (undo,) = [each for each in UNDOS if each.undoes is ask]

    assert undo.owner == ask.owner
    assert HEARD[undo.owner][undo].kind is TAKEN_BACK_BY[HEARD[ask.owner][ask].kind]


@pytest.mark.parametrize("ask", [ask for ask in DOS if ask not in UNDONE], ids=named)
def test_what_has_no_undo_is_asked_only_where_a_workflow_never_turns_back(ask: type[Ask]) -> None:
    asking = [
        (definition, step)
        for definition in DEFINITIONS.values()
        for step in definition.steps.values()
        if step.does is ask
    ]

    assert asking
    assert HEARD[ask.owner][ask].kind in {Kind.DO, Kind.BEGIN}
    assert all(step.undo is None for _, step in asking)


@pytest.mark.parametrize("undo", UNDOS, ids=named)
def test_an_undo_undoes_something_that_is_done_and_needs_no_more_than_the_tenant(undo: type[Ask]) -> None:
    assert undo.undoes in DOS
    assert set(undo.model_fields) == {"tenant_id"}


@pytest.mark.parametrize("ask", DOS, ids=named)
def test_what_is_asked_is_answered_by_one_fact_or_refused_by_another(ask: type[Ask]) -> None:
    refused = [answer for answer in answers_of(ask) if issubclass(answer, Refusal)]
    done = [answer for answer in answers_of(ask) if not issubclass(answer, Refusal)]

    assert len(done) == 1
    assert len(refused) <= 1
    assert {answer.owner for answer in answers_of(ask)} == {ask.owner}


@pytest.mark.parametrize("undo", UNDOS, ids=named)
def test_an_undo_is_answered_by_one_fact_and_never_refused(undo: type[Ask]) -> None:
    (answer,) = answers_of(undo)

    assert answer.owner == undo.owner
    assert not issubclass(answer, Refusal)


@pytest.mark.parametrize("ask", ASKS, ids=named)
def test_whoever_asks_hears_every_answer_with_its_envelope(ask: type[Ask]) -> None:
    for asking in sayers(ask):
        assert {HEARD[asking][answer].kind for answer in answers_of(ask)} == {Kind.FOLLOW}


# The workflows


@pytest.mark.parametrize(("definition", "step"), STEPS)
def test_a_step_and_its_undo_are_handled_by_the_service_that_it_names(
    definition: Definition, step: DefinedStep
) -> None:
    planned = next(each for each in definition.plan if each.name == step.name)

    if step.does is None:
        assert (planned.service, planned.ask, planned.undo) == (ASKING, None, None)
        return
    assert planned.ask == step.does.routing_key()
    assert step.does in HEARD[planned.service]
    if step.undo is not None:
        assert step.undo.undoes is step.does
        assert planned.undo == step.undo.routing_key()
        assert step.undo in HEARD[planned.service]


def test_every_ask_belongs_to_a_step_of_a_workflow() -> None:
    used = {ask for definition in DEFINITIONS.values() for step in definition.steps.values() for ask in _both(step)}

    assert used == set(ASKS)


def _both(step: DefinedStep) -> Iterable[type[Ask]]:
    return (ask for ask in (step.does, step.undo) if ask is not None)


# The manifest and the broker


def test_the_manifest_of_the_repository_is_what_the_tables_say() -> None:
    assert Manifest.load() == manifest()
    assert PATH.read_text(encoding="utf-8") == manifest().dump(), "run `python -m deploy.manifest`"
    assert manifest().services == SERVICES
    assert (manifest().unsaid(), manifest().unknown()) == (set(), set())


def test_every_message_that_is_said_and_heard_has_its_binding_and_nothing_else_has() -> None:
    wanted = {
        (exchange_of(sayer), work_queue_of(hearer), message.routing_key())
        for message in MESSAGES
        for sayer in sayers(message)
        for hearer in hearers(message)
    }
    private = {retry_exchange_of(service) for service in SERVICES} | {USAGE_EXCHANGE}
    made = [(each["source"], each["destination"], each["routing_key"]) for each in bindings(manifest())]

    assert {binding for binding in made if binding[0] not in private} == wanted
    assert len(made) == len(set(made))
    assert STATUS_EXCHANGE not in {source for source, _, _ in made}


@pytest.mark.parametrize("message", MESSAGES, ids=named)
def test_a_routing_key_is_the_owner_the_name_and_the_version(message: type[Message]) -> None:
    assert re.fullmatch(rf"{message.owner}(\.[a-z]+(_[a-z]+)*)\.v{message.version}", message.routing_key())
    assert message.owner in SERVICES
