"""The story of one workflow as a diagram: who asks whom, what is answered, and what everybody outside is told."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from deploy.manifest import manifest
from docs.generators.catalogue import answers_to
from docs.generators.markdown import mermaid
from docs.generators.simulation import Round
from services.onboarding.definition import Definition
from services.onboarding.saga import Notice, Send, TimerDue
from services.onboarding.workflow import PlannedStep
from shared.contracts import CATALOGUE, Message
from shared.messaging.topology import STATUS_EXCHANGE

_HERE = "onboarding"
_OUTSIDE = "outside"


def from_step(name: str, rounds: Sequence[Round]) -> Sequence[Round]:
    """Return the rounds from the one on in which a step is asked first."""
    first = next(place for place, each in enumerate(rounds) if any(send.step == name for send in each.sends))
    return rounds[first:]


def sequence(definition: Definition, rounds: Sequence[Round], *, request: str | None = None) -> str:
    """Draw rounds of a workflow.

    Args:
        request: the method and the path that start it; None where the story begins later.
    """
    services = dict.fromkeys([_HERE, *(step.service for step in definition.plan)])
    accepting = [f"client->>{_HERE}: {request}", f"{_HERE}-->>client: 202 Accepted, the workflow"]
    lines = [
        *(["actor client"] if request else []),
        *(f"participant {service}" for service in services),
        f"participant {_OUTSIDE} as {STATUS_EXCHANGE}",
        *(accepting if request else []),
    ]
    answers = [each.inputs for each in rounds[1:]]
    for each, answered in zip(rounds, [*answers, ()], strict=True):
        lines += [_told(definition, notice) for notice in each.notices]
        silent_steps = {event.step for event in answered if isinstance(event, TimerDue)}
        lines += _at_once(
            {
                send.step: list(_exchange(definition, send, answered=send.step not in silent_steps))
                for send in each.sends
            }
        )
        lines += [f"Note over {_HERE}: {name} passes" for name in each.waits]
    return mermaid("sequenceDiagram", *(f"    {line}" for line in lines))


def _told(definition: Definition, notice: Notice) -> str:
    subject = notice.status if notice.topic == "status" else notice.step
    return f"{_HERE}-){_OUTSIDE}: {notice.topic}.{definition.kind}.{subject}"


def _at_once(exchanges: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Draw what is sent together as parallel.

    Args:
        exchanges: the lines of each step.
    """
    if len(exchanges) == 1:
        yield from chain.from_iterable(exchanges.values())
        return
    for place, (step, exchange) in enumerate(exchanges.items()):
        yield f"{'and' if place else 'par'} {step}"
        yield from (f"    {line}" for line in exchange)
    if exchanges:
        yield "end"


def _exchange(definition: Definition, send: Send, *, answered: bool) -> Iterator[str]:
    ask, step = CATALOGUE[send.ask], _step(definition, send)
    if step.pivot:
        yield f"Note over {_HERE},{ask.owner}: point of no return"
    if not answered:
        yield f"{_HERE}-x{ask.owner}: {ask.__name__}"
        yield f"Note over {_HERE},{ask.owner}: no answer within {step.timeout:g} s"
        return
    answer = answers_to(ask)[0]
    yield f"{_HERE}->>{ask.owner}: {ask.__name__}"
    yield f"{ask.owner}-->>{_HERE}: {answer.__name__}"
    yield from (f"{ask.owner}-){service}: {answer.__name__}" for service in _others_who_hear(answer))


def _step(definition: Definition, send: Send) -> PlannedStep:
    return next(each for each in definition.plan if each.name == send.step)


def _others_who_hear(answer: type[Message]) -> list[str]:
    heard = manifest().subscribes
    return [service for service, keys in heard.items() if answer.routing_key() in keys and service != _HERE]
