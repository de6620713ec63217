"""The page of the onboarding saga: its steps, how it runs, how it is undone, and what states it passes through."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from deploy.manifest import manifest
from docs.generators.catalogue import answers_to
from docs.generators.markdown import GENERATED, link, mermaid, table
from docs.generators.simulation import (
    Edges,
    Reaction,
    Round,
    explore,
    obliging,
    play,
    refusing,
    silent,
    unreached,
)
from services.onboarding.onboard import ONBOARD
from services.onboarding.saga import (
    NEEDS_ATTENTION_AFTER,
    Notice,
    PlannedStep,
    Send,
    Status,
    StepStatus,
    TimerDue,
)
from shared.contracts import CATALOGUE, Message, Refusal
from shared.messaging.topology import STATUS_EXCHANGE

_HERE = "onboarding"
_OUTSIDE = "outside"
_EXPLORED_STEPS = 3
"""How many steps, counted from the first, it takes to see every transition: one before another, and two at once."""

_INTRODUCTION = f"""\
# How a tenant comes to be

{GENERATED}

The saga `{ONBOARD.kind}`, version {ONBOARD.version}, is defined in
[services/onboarding/onboard.py](../services/onboarding/onboard.py) and run by the pure function `advance` in
[saga.py](../services/onboarding/saga.py). A step begins as soon as all that it comes after have succeeded. When one has
failed for good, every step that may have had an effect is undone, the last ones first; an ask that was never answered
may have had one. The messages are described in [messages.md](messages.md).

Every diagram and table here was made by running `advance` on that definition.
"""

_ATTEMPTS = """\
A step that is not answered in time is asked again at once; one that is refused for the moment (`retryable`) is asked
again after the back-off, which doubles with each attempt.
"""

_WORKFLOW_STATES = f"""\
Each change is told on `{STATUS_EXCHANGE}`, the beginning as `started`. A workflow needs attention when the undo of a
step was tried {NEEDS_ATTENTION_AFTER} times without an answer; it goes on being tried. The arrows of both diagrams
carry the kinds of the entries in the history (`GET /v1/workflows/{{id}}/history`).
"""


def onboarding_page() -> str:
    """Return the page."""
    last = ONBOARD.plan[-1].name
    return "\n".join(
        [
            _INTRODUCTION,
            f"## The steps\n\n{_steps_table(ONBOARD.plan)}\n{_ATTEMPTS}",
            f"## When all goes well\n\n{_sequence(_play(obliging(ONBOARD.plan)), beginning=True)}",
            f"## When a step fails\n\nHere `{last}` is never answered, although all the others were.\n",
            _sequence(_from_step(last, _play(silent(ONBOARD.plan, last))), beginning=False),
            "What is undone, and in which order, follows from how far the workflow has come:\n",
            _undo_table(ONBOARD.plan),
            _states(),
        ]
    )


def _play(reaction: Reaction) -> list[Round]:
    return play(ONBOARD.kind, ONBOARD.plan, reaction)


def _steps_table(plan: Sequence[PlannedStep]) -> str:
    header = ["step", "service", "after", "ask", "answer", "refusal", "undo", "attempts", "time-out", "first back-off"]
    rows = [
        [
            f"`{step.name}`",
            step.service,
            "<br>".join(f"`{name}`" for name in step.after),
            _link(CATALOGUE[step.ask]),
            *_answers(step.ask),
            _link(CATALOGUE[step.undo]),
            str(step.attempts),
            f"{step.timeout:g} s",
            f"{step.backoff:g} s",
        ]
        for step in plan
    ]
    return table(header, rows)


def _answers(ask: str) -> tuple[str, str]:
    facts = answers_to(CATALOGUE[ask])
    refusals = [fact for fact in facts if issubclass(fact, Refusal)]
    done = [fact for fact in facts if not issubclass(fact, Refusal)]
    return ", ".join(map(_link, done)), ", ".join(map(_link, refusals))


def _link(message: type[Message]) -> str:
    return link(message, page="messages.md")


# The story of one workflow


def _from_step(name: str, rounds: Sequence[Round]) -> Sequence[Round]:
    """Return the rounds from the one on in which a step is asked first, without what was told before it."""
    first = next(place for place, each in enumerate(rounds) if any(send.step == name for send in each.sends))
    return rounds[first:]


def _sequence(rounds: Sequence[Round], *, beginning: bool) -> str:
    services = dict.fromkeys(step.service for step in ONBOARD.plan)
    accepting = ["client->>onboarding: POST /v1/onboardings", "onboarding-->>client: 202 Accepted, the workflow"]
    lines = [
        *(["actor client"] if beginning else []),
        *(f"participant {service}" for service in (_HERE, *services)),
        f"participant {_OUTSIDE} as {STATUS_EXCHANGE}",
        *(accepting if beginning else []),
    ]
    answers = [each.inputs for each in rounds[1:]]
    for each, answered in zip(rounds, [*answers, ()], strict=True):
        lines += chain.from_iterable(map(_told, each.notices))
        silent_steps = {event.step for event in answered if isinstance(event, TimerDue)}
        lines += _at_once(
            {send.step: list(_exchange(send, answered=send.step not in silent_steps)) for send in each.sends}
        )
    return mermaid("sequenceDiagram", *(f"    {line}" for line in lines))


def _told(notice: Notice) -> Iterator[str]:
    subject = notice.status if notice.topic == "status" else notice.step
    yield f"{_HERE}-){_OUTSIDE}: {notice.topic}.{ONBOARD.kind}.{subject}"


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


def _exchange(send: Send, *, answered: bool) -> Iterator[str]:
    ask = CATALOGUE[send.ask]
    if not answered:
        step = next(each for each in ONBOARD.plan if each.name == send.step)
        yield f"{_HERE}-x{ask.owner}: {ask.__name__}"
        yield f"Note over {_HERE},{ask.owner}: no answer within {step.timeout:g} s"
        return
    answer = answers_to(ask)[0]
    yield f"{_HERE}->>{ask.owner}: {ask.__name__}"
    yield f"{ask.owner}-->>{_HERE}: {answer.__name__}"
    yield from (f"{ask.owner}-){service}: {answer.__name__}" for service in _others_who_hear(answer))


def _others_who_hear(answer: type[Message]) -> list[str]:
    heard = manifest().subscribes
    return [service for service, keys in heard.items() if answer.routing_key() in keys and service != _HERE]


def _undo_table(plan: Sequence[PlannedStep]) -> str:
    rows = [
        [f"`{step.name}`", _undone(plan, refusing(plan, step.name)), _undone(plan, silent(plan, step.name))]
        for step in plan
    ]
    return table(["step that fails", "undone when it is refused", "undone when it is never answered"], rows)


def _undone(plan: Sequence[PlannedStep], reaction: Reaction) -> str:
    undos = {step.undo for step in plan}
    rounds = [[f"`{send.step}`" for send in each.sends if send.ask in undos] for each in _play(reaction)]
    return "<br>then ".join(" + ".join(names) for names in rounds if names) or "nothing"


# The states of all workflows


def _states() -> str:
    found = explore(ONBOARD.plan[:_EXPLORED_STEPS])
    return "\n".join(
        [
            "## States of a workflow\n",
            _WORKFLOW_STATES,
            _state_diagram(Status.RUNNING, _final(found.workflow), found.workflow),
            *_unreached(Status, found.workflow),
            "## States of a step\n",
            "An arrow from a status back to itself is another attempt.\n",
            _state_diagram(StepStatus.PENDING, found.step_ends, found.step),
            *_unreached(StepStatus, found.step),
        ]
    )


def _final(edges: Edges) -> set[str]:
    return {status for status in Status if status.is_final and any(status == after for _, after in edges)}


def _state_diagram(initial: str, final: Iterable[str], edges: Edges) -> str:
    lines = [f"[*] --> {initial}"]
    lines += [f"{before} --> {after} : {_causes(causes)}" for (before, after), causes in sorted(edges.items())]
    lines += [f"{status} --> [*]" for status in sorted(final)]
    return mermaid("stateDiagram-v2", *(f"    {line}" for line in lines))


def _causes(causes: Iterable[str]) -> str:
    return " or ".join(sorted(causes))


def _unreached(statuses: type[Status] | type[StepStatus], edges: Edges) -> Iterator[str]:
    names = unreached(statuses, edges)
    if names:
        yield f"No transition leads to {' or '.join(f'`{name}`' for name in names)} yet.\n"
