"""The page of all lifecycles: what starts each, its steps, how it runs and how it is undone."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeAlias

from docs.generators.catalogue import answers_to, prose
from docs.generators.doors import Door, doors
from docs.generators.dunning import ordered_by_dunning
from docs.generators.expirations import end_of_contract, ordered_by_expiration
from docs.generators.markdown import GENERATED, link, table
from docs.generators.sequences import from_step, sequence
from docs.generators.simulation import Reaction, Round, obliging, play, refusing, silent
from docs.generators.states import states_and_operators
from services.onboarding.definition import DefinedStep, Definition, Request
from services.onboarding.lifecycles import CURRENT
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.saga import LONGEST_STANDSTILL, MOST_PROGRESS, NEEDS_ATTENTION_AFTER, Refused, TimerDue
from services.onboarding.workflow import PlannedStep, Status
from shared.contracts import CATALOGUE, Message, Refusal, provisioning

Plan: TypeAlias = Sequence[PlannedStep]

_HOUR_SECONDS = 3600
_FOLDER = "services/onboarding/lifecycles"
_EXPIRATION = "[expiration](#the-end-of-a-contract)"
_DUNNING = "[dunning](billing.md#dunning)"

_INTRODUCTION = f"""\
# The life of a tenant

{GENERATED}

Whatever happens to a tenant is a workflow: a saga that is defined in a file of
[{_FOLDER}](../{_FOLDER}) and run by the pure function `advance` in
[saga.py](../services/onboarding/saga.py). A workflow keeps the plan that it started with, whatever later versions of
its definition say, and of each tenant one is at work at a time. The messages are described in
[messages.md](messages.md).

Every table and diagram here was made by running that code.
"""

_RULES = f"""\
A step begins as soon as all that it comes after have succeeded. One that is not answered in time is asked again at
once; one that is refused for the moment (`retryable`) is asked again after the back-off, which doubles with each
attempt. When a step has failed for good, every step that may have had an effect is undone, the last ones first; an
ask that was never answered may have had one. An undo is asked until it succeeds.

A service that needs longer tells how far it is, with a step or with its undo
({link(provisioning.StepProgressed, page="messages.md")}): it is waited for as long again, and not asked again.
What is new about it is an entry `progressed` of the history, {MOST_PROGRESS} at the most, and what was told last is the
`progress` of the step. Where nothing new is told for {LONGEST_STANDSTILL / _HOUR_SECONDS:g} h, that counts as silence.
Attempts and the deadline do not change by it, and a person who is called is still called.

From the **point of no return** on, a workflow only goes forward: that step, as soon as it may have taken effect, and
all that come after it are asked until they succeed.

What is asked there, or in undoing, {NEEDS_ATTENTION_AFTER} times without an answer goes on being asked, ever more
rarely, and so does what is refused for good past the point of no return; but a person is called (`needs_attention`),
who has [four ways to help](#what-operators-can-do).

A workflow that has not ended by its **deadline** is undone (`deadline_exceeded`). One that cannot be undone any more,
or is being undone already, goes on and calls a person too. The time that it waits by definition does not count.
"""


def lifecycles_page() -> str:
    """Return the page."""
    started_by = doors()
    return "\n".join(
        [
            _INTRODUCTION,
            f"## All lifecycles\n\n{_overview(started_by)}\n{_RULES}",
            *(_lifecycle(each, started_by[each.kind][0]) for each in CURRENT),
            states_and_operators(),
            end_of_contract(),
        ]
    )


def _overview(started_by: Mapping[str, Sequence[Door]]) -> str:
    header = ["lifecycle", "kind", "started by", "version", "deadline", "steps", "point of no return"]
    rows = [
        [
            f"[{each.name}](#{each.name})",
            f"`{each.kind}`",
            "<br>".join(_starts(each, started_by[each.kind])),
            str(each.version),
            _deadline(each),
            str(len(each.plan)),
            ", ".join(f"`{step.name}`" for step in each.plan if step.pivot) or "none",
        ]
        for each in CURRENT
    ]
    return table(header, rows)


def _starts(definition: Definition, started_by: Sequence[Door]) -> Iterator[str]:
    condition = "" if definition.name == definition.kind else " for a customer that is a tenant already"
    yield from (f"{door}{condition}" for door in started_by)
    if definition.kind in ordered_by_expiration():
        yield _EXPIRATION
    if definition.kind in ordered_by_dunning():
        yield _DUNNING


def _deadline(definition: Definition) -> str:
    waits = any(each.seconds for each in definition.steps.values())
    return f"{definition.deadline / _HOUR_SECONDS:g} h" + (" and what it waits" if waits else "")


# One of them


def _lifecycle(definition: Definition, door: Door) -> str:
    sections = [
        f"## {definition.name}\n\n{_about(definition)}\n\n{_steps_table(definition)}",
        f"When all goes well:\n\n{_all_well(definition, door)}",
    ]
    if definition is ONBOARD:
        last = definition.plan[-1].name
        rounds = from_step(last, _play(definition, silent(definition.plan, last)))
        sections += [
            f"When `{last}` is never answered, although all the others were:\n\n{sequence(definition, rounds)}"
        ]
    return "\n".join([*sections, "What is undone when a step fails, and in which order:\n", *_undo_table(definition)])


def _about(definition: Definition) -> str:
    """Return what the file of a definition says about it, without the drawing."""
    module = definition.name.replace("-", "_")
    source = import_module(f"services.onboarding.lifecycles.{module}")
    paragraphs = prose(inspect.getdoc(source) or "").split("\n\n")
    said = " ".join(each for each in paragraphs if each.endswith("."))
    return f"{said} Defined in [{module}.py](../{_FOLDER}/{module}.py)."


def _all_well(definition: Definition, door: Door) -> str:
    rounds = _play(definition, obliging(definition.plan))
    return sequence(definition, rounds, request=f"{door.method} {door.path}")


def _play(definition: Definition, reaction: Reaction) -> list[Round]:
    return play(definition.kind, definition.plan, reaction)


# Its steps


def _steps_table(definition: Definition) -> str:
    header = ["step", "service", "after", "ask", "answer", "refusal", "undo", "attempts", "time-out", "first back-off"]
    past = _past_pivot(definition.plan)
    rows = [
        [
            "<br>".join([f"`{step.name}`", *_remarks(definition.steps[step.name], is_past=step.name in past)]),
            step.service,
            "<br>".join(f"`{name}`" for name in step.after),
            *_asking(step, definition.steps[step.name], is_endless=step.pivot or step.name in past),
        ]
        for step in definition.plan
    ]
    return table(header, rows)


def _past_pivot(plan: Plan) -> set[str]:
    """Return the steps that come after the pivot, however far."""
    past = {step.name for step in plan if step.pivot}
    for _ in plan:
        past |= {step.name for step in plan if past.intersection(step.after)}
    return past - {step.name for step in plan if step.pivot}


def _remarks(step: DefinedStep, *, is_past: bool) -> Iterator[str]:
    if step.pivot:
        yield "**point of no return**"
    if is_past:
        yield "past the point of no return"
    if needs := _read_by(step.only_if):
        yield f"only if the request's {needs} says so"


def _asking(step: PlannedStep, defined: DefinedStep, *, is_endless: bool) -> list[str]:
    """Return the cells from the ask on; a step that waits asks nothing."""
    if step.ask is None:
        waited = _read_by(defined.seconds) if defined.seconds else None
        return [f"none: it waits as long as the request's {waited} says", *[""] * 6]
    return [
        _link(CATALOGUE[step.ask]),
        *_answers(step.ask),
        _link(CATALOGUE[step.undo]) if step.undo else "",
        "until it succeeds" if is_endless else str(step.attempts),
        f"{step.timeout:g} s",
        f"{step.backoff:g} s",
    ]


def _answers(ask: str) -> tuple[str, str]:
    facts = answers_to(CATALOGUE[ask])
    refusals = [fact for fact in facts if issubclass(fact, Refusal)]
    done = [fact for fact in facts if not issubclass(fact, Refusal)]
    return ", ".join(map(_link, done)), ", ".join(map(_link, refusals))


def _link(message: type[Message]) -> str:
    return link(message, page="messages.md")


class _Request(dict[str, Any]):
    """A request in which everything is there; it remembers what was read."""

    def __missing__(self, name: str) -> int:
        self[name] = 1
        return 1


def _read_by(look: Callable[[Request], object]) -> str:
    """Return the fields of the request that something depends on; nothing where it depends on none."""
    request = _Request()
    look(request)
    return " and ".join(f"`{name}`" for name in request)


# How it is undone


def _undo_table(definition: Definition) -> Iterator[str]:
    plan = definition.plan
    rows = [
        [
            f"`{step.name}`",
            _undone(definition, step, refusing) if _can_be_refused(step) else "never refused",
            _undone(definition, step, silent),
        ]
        for step in plan
        if step.ask is not None
    ]
    yield table(["step that fails", "undone when it is refused", "undone when it is never answered"], rows)
    for step in plan:
        if step.ask is None:
            rounds = play(definition.kind, plan, obliging(plan), cancelled_at=step.name)
            yield f"Undone when an operator cancels during `{step.name}`: {_undos(plan, rounds)}.\n"


def _can_be_refused(step: PlannedStep) -> bool:
    return step.ask is not None and any(issubclass(each, Refusal) for each in answers_to(CATALOGUE[step.ask]))


def _undone(definition: Definition, step: PlannedStep, failing: Callable[[Plan, str], Reaction]) -> str:
    rounds = _play(definition, failing(definition.plan, step.name))
    if rounds[-1].status is not Status.NEEDS_ATTENTION:
        return _undos(definition.plan, rounds)
    inputs = [each for played in rounds for each in played.inputs if isinstance(each, Refused | TimerDue)]
    attempts = sum(each.step == step.name for each in inputs)
    called = "at once" if attempts == 1 else f"after {attempts} attempts"
    return f"nothing: it is asked until it succeeds, and a person is called {called}"


def _undos(plan: Plan, rounds: Sequence[Round]) -> str:
    undos = {step.undo for step in plan}
    names = [[f"`{send.step}`" for send in each.sends if send.ask in undos] for each in rounds]
    return "<br>then ".join(" + ".join(each) for each in names if each) or "nothing"
