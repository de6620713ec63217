"""What the trace of a workflow must hold, by its history, the contracts and the manifest; and what of that is missing.

Nothing here is concluded from spans: whatever the system has noted as done must have left the spans of its way.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.contracts import CATALOGUE, Ask, Fact
from shared.contracts.onboarding import StepFailed, StepRetried, WorkflowStatusChanged
from shared.messaging.topology import STATUS_EXCHANGE, Manifest, exchange_of

ANSWERED = {"succeeded", "refused", "undone"}
_ASKED = {"asked", "undo_asked"}
_STATUSES = {"started", "running", "compensating", "needs_attention", "completed", "compensated", "abandoned"}
_RETRIED = {"retry_scheduled", "undo_timed_out"}
_SAYER = "onboarding"
_MANIFEST = Manifest.load()


@dataclass(frozen=True)
class Span:
    """A span as the file has it."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str | None
    attributes: Mapping[str, Any]
    links: frozenset[str]

    @property
    def message_id(self) -> str | None:
        """The message that it is about."""
        return self.attributes.get("messaging.message.id")

    @property
    def destination(self) -> str:
        """Where the message that it is about goes."""
        return str(self.attributes.get("messaging.destination.name"))


@dataclass(frozen=True)
class Happened:
    """A line of a workflow's history.

    Attributes:
        message_id: the ask that it is about.
    """

    kind: str
    step: str | None
    message_id: str | None


@dataclass(frozen=True)
class Story:
    """What is known of a workflow.

    Attributes:
        asks: routing keys by step: of the ask, and of what takes it back.
    """

    workflow_id: str
    kind: str
    begun_by: str
    asks: Mapping[str, tuple[str, str | None]]
    history: Sequence[Happened]


def read(path: Path) -> list[Span]:
    """Return the spans in a file that `TENURE_TRACES_FILE` names; none where nothing was exported yet."""
    if not path.exists():
        return []
    return [_span(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _span(raw: Mapping[str, Any]) -> Span:
    return Span(
        name=raw["name"],
        service=raw["resource"]["attributes"]["service.name"],
        trace_id=raw["context"]["trace_id"],
        span_id=raw["context"]["span_id"],
        parent_id=raw["parent_id"],
        attributes=raw["attributes"],
        links=frozenset(link["context"]["span_id"] for link in raw["links"]),
    )


def of_workflow(spans: Sequence[Span], workflow_id: str) -> list[Span]:
    """Return the trace that a workflow has begun in."""
    begun = {
        each.trace_id
        for each in spans
        if each.name.startswith("begin ") and each.attributes["messaging.message.conversation_id"] == workflow_id
    }
    return [each for each in spans if each.trace_id in begun]


def missing(trace: Sequence[Span], story: Story) -> list[str]:
    """Say what a trace lacks of what must be in it, and what is in it and should not."""
    return [*_not_one_tree(trace, story), *_not_asked(trace, story), *_not_told(trace, story), *_not_heard(trace)]


def _not_one_tree(trace: Sequence[Span], story: Story) -> Iterator[str]:
    known = {None, *(each.span_id for each in trace)}
    roots = [each.name for each in trace if each.parent_id is None]
    if roots != [story.begun_by]:
        yield f"the roots are {roots}"
    if len([each for each in trace if each.name == f"begin {story.kind}"]) != 1:
        yield "the workflow does not begin"
    yield from (f"{each.name} has lost its parent" for each in trace if each.parent_id not in known)


def _not_asked(trace: Sequence[Span], story: Story) -> Iterator[str]:
    """Follow every ask of the history to whom it is asked, and its answer back."""
    last: dict[str | None, Span] = {}
    answered = {each.message_id for each in story.history if each.kind in ANSWERED}
    for each in story.history:
        if each.kind not in _ASKED:
            continue
        assert each.step is not None
        asked = _ask(story, each)
        made = _ways(trace, f"create {asked.routing_key()}", _SAYER, message_id=each.message_id)
        taken = [
            span
            for span in _ways(trace, f"process {asked.routing_key()}", asked.owner, message_id=each.message_id)
            if span.parent_id in _ids(made)
        ]
        if len(made) != 1 or len(taken) != 1:
            yield f"{each.kind} {each.step}: made {len(made)} times, processed {len(taken)} times"
            continue
        if each.step in last and last[each.step].span_id not in made[0].links:
            yield f"{each.kind} {each.step}: not linked to what was asked before"
        last[each.step] = made[0]
        if each.message_id in answered:
            yield from _not_answered(trace, asked, taken[0], each)


def _ask(story: Story, happened: Happened) -> type[Ask]:
    ask, undo = story.asks[str(happened.step)]
    asked = CATALOGUE[str(undo if happened.kind == "undo_asked" else ask)]
    assert issubclass(asked, Ask)
    return asked


def _not_answered(trace: Sequence[Span], asked: type[Ask], taken: Span, happened: Happened) -> Iterator[str]:
    answers = {key for key, each in CATALOGUE.items() if issubclass(each, Fact) and each.answers is asked}
    made = [
        each
        for key in answers
        for each in _ways(trace, f"create {key}", asked.owner)
        if each.parent_id == taken.span_id and each.destination.startswith(exchange_of(asked.owner))
    ]
    if len(made) != 1:
        yield f"{happened.kind} {happened.step}: answered {len(made)} times"


def _not_told(trace: Sequence[Span], story: Story) -> Iterator[str]:
    """Expect what everybody outside is told, and the same for the services."""
    told: dict[type[Fact], int] = {
        WorkflowStatusChanged: sum(each.kind in _STATUSES for each in story.history),
        StepFailed: sum(each.kind == "failed" for each in story.history),
        StepRetried: sum(each.kind in _RETRIED for each in story.history),
    }
    for fact, count in told.items():
        made = _ways(trace, f"create {fact.routing_key()}", _SAYER)
        outside = [each for each in made if each.destination.startswith(f"{STATUS_EXCHANGE}:")]
        if (len(outside), len(made) - len(outside)) != (count, count):
            yield f"{fact.routing_key()}: made {len(made)} times, for {count} lines of the history"


def _not_heard(trace: Sequence[Span]) -> Iterator[str]:
    """Expect of whatever was made that it was sent, and processed by every service that listens."""
    for made in trace:
        if not made.name.startswith("create "):
            continue
        key = made.name.removeprefix("create ")
        children = [each for each in trace if each.parent_id == made.span_id]
        if [each.name for each in children].count(f"send {key}") != 1:
            yield f"{made.name} is not sent once"
        hearers = sorted(_hearers(key)) if made.destination.startswith(exchange_of(made.service)) else []
        heard = sorted(each.service for each in children if each.name == f"process {key}")
        if heard != hearers:
            yield f"{made.name} is processed by {heard}, not {hearers}"


def _hearers(key: str) -> Iterable[str]:
    return (service for service, heard in _MANIFEST.subscribes.items() if key in heard)


def _ways(trace: Sequence[Span], name: str, service: str, *, message_id: str | None = None) -> list[Span]:
    return [
        each for each in trace if (each.name, each.service) == (name, service) and message_id in {None, each.message_id}
    ]


def _ids(spans: Iterable[Span]) -> set[str]:
    return {each.span_id for each in spans}
