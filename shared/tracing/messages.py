"""The way of a message as spans: ``create`` where it is said, ``send`` to the broker, ``process`` where it is heard.

What a message causes is part of its processing, so that one trace holds a workflow with all that the services say to
each other about it. A batch is of many traces: each of its events is processed by a span of its own, and what is said
belongs to the event that it answers, or else to the one of its workflow or tenant.

A message's making ends when it leaves, which is after the commit: what is rolled back was never made.

Source: OpenTelemetry, semantic conventions for messaging spans and for RabbitMQ (1.36, in development).
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import orjson
from opentelemetry import context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from shared.messaging.admission import Arrival
from shared.messaging.bus import Outcome
from shared.messaging.event import SOURCE_PREFIX, Event, Outgoing, traceparent_in, with_traceparent
from shared.messaging.topology import work_queue_of
from shared.tracing import spans
from shared.tracing.spans import Attributes

_SYSTEM = "rabbitmq"


def trace_making(
    outgoing: Iterable[Outgoing],
    *,
    because: str | None = None,
    links: Sequence[str] = (),
    attributes: Attributes | None = None,
) -> None:
    """Let messages be made by spans, whose traceparents they take along, unless that was done before.

    Args:
        because: the traceparent of what they are said because of; by what is being handled here where None.
        links: traceparents of what else has led to them.
        attributes: what there is to say besides what the messages tell themselves.
    """
    if not spans.is_on():
        return
    for each in outgoing:
        if each.span is not None or traceparent_in(each.event) is not None:
            continue
        event = orjson.loads(each.event)
        parent, others = (because, ()) if because else _cause_of(event)
        each.span = spans.start(
            _service_of(event),
            f"create {event['type']}",
            kind=SpanKind.PRODUCER,
            parent=parent,
            links=(*links, *others),
            attributes=_said("create", each, event) | dict(attributes or {}),
        )
        if traceparent := spans.traceparent_of(each.span):
            each.event = with_traceparent(each.event, traceparent)


def trace_leaving(outgoing: Iterable[Outgoing]) -> None:
    """End the making of messages: they are committed."""
    if not spans.is_on():
        return
    for each in outgoing:
        if each.span is not None:
            each.span.end()
            each.span = None


def trace_sending(rows: Sequence[Outgoing], outcome: Outcome, *, since: int) -> None:
    """Say what became of messages that were published together.

    Args:
        since: when that began, as `moment` tells.
    """
    if not since:
        return
    for each in rows:
        parent = traceparent_in(each.event)
        if parent is None:
            continue
        event = orjson.loads(each.event)
        span = spans.start(
            _service_of(event),
            f"send {event['type']}",
            kind=SpanKind.CLIENT,
            parent=parent,
            attributes=_said("send", each, event) | _batch(len(rows)),
            since=since,
        )
        if outcome is not Outcome.CONFIRMED:
            span.set_attribute("error.type", outcome.value)
            span.set_status(Status(StatusCode.ERROR))
        span.end()


def moment() -> int:
    """Return the time for a span that begins now and is not known yet; 0 where nothing is traced."""
    return time.time_ns() if spans.is_on() else 0


class Work:
    """What is being handled: nothing that is traced."""

    def given(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events that are handled, each with the traceparent of its handling; the others are repeated."""
        return events

    def fail(self, error: BaseException) -> None:
        """End the handling: it has failed, and nothing has come of it."""


_UNTRACED = Work()


class _TracedWork(Work):
    """The handling of a batch, a span for each of its events."""

    def __init__(self, service: str, arrivals: Sequence[Arrival]) -> None:
        self._spans = {each.event.id: _begun(service, each, len(arrivals)) for each in arrivals}
        self._causes: dict[str, list[str]] = {}
        for each in arrivals:
            if traceparent := spans.traceparent_of(self._spans[each.event.id]):
                for key in _keys(each.event):
                    self._causes.setdefault(key, []).append(traceparent)
        self.is_over = False

    @property
    def only(self) -> Span | None:
        """The span of the one event that is handled; None for several."""
        return next(iter(self._spans.values())) if len(self._spans) == 1 else None

    def given(self, events: Sequence[Event]) -> Sequence[Event]:
        fresh = {event.id for event in events}
        for event_id in self._spans.keys() - fresh:
            self._spans[event_id].set_attribute("tenure.is_repeated", True)
        return [replace(event, traceparent=spans.traceparent_of(self._spans[event.id])) for event in events]

    def fail(self, error: BaseException) -> None:
        for span in self._spans.values():
            spans.fail(span, error)
        self.end()

    def end(self) -> None:
        if not self.is_over:
            self.is_over = True
            for span in self._spans.values():
                span.end()

    def cause_of(self, event: Mapping[str, Any]) -> tuple[str | None, Sequence[str]]:
        """Return the parent of what is said, and links to what else has led to it."""
        for key in (event.get("causationid"), event.get("correlationid"), event["subject"]):
            if key in self._causes:
                *others, last = self._causes[key]
                return last, others
        every = [each for span in self._spans.values() if (each := spans.traceparent_of(span))]
        return (every[0], ()) if len(every) == 1 else (None, every)


_at_work: ContextVar[_TracedWork | None] = ContextVar("at_work", default=None)


@contextmanager
def handling(service: str, arrivals: Sequence[Arrival]) -> Iterator[Work]:
    """Handle events until the end of the block: what is said in it is said because of them."""
    if not spans.is_on():
        yield _UNTRACED
        return
    work = _TracedWork(service, arrivals)
    at_work = _at_work.set(work)
    token = context.attach(set_span_in_context(work.only)) if work.only else None
    try:
        yield work
    except BaseException as error:
        work.fail(error)
        raise
    finally:
        work.end()
        if token is not None:
            context.detach(token)
        _at_work.reset(at_work)


def _begun(service: str, arrival: Arrival, count: int) -> Span:
    event = arrival.event
    destination = f"{arrival.origin}:{event.type}:{work_queue_of(service)}"
    attributes = _about("process", event.type, destination) | {
        "messaging.message.id": str(event.id),
        "messaging.message.conversation_id": str(event.workflow_id) if event.workflow_id else None,
        "tenure.tenant_id": event.message.tenant_id,
        "tenure.step": event.step,
        "tenure.attempt": arrival.attempt + 1,
    }
    return spans.start(
        service,
        f"process {event.type}",
        kind=SpanKind.CONSUMER,
        parent=event.traceparent,
        links=[arrival.tried] if arrival.tried else [],
        attributes=attributes | _batch(count),
    )


def _said(operation: str, outgoing: Outgoing, event: Mapping[str, Any]) -> dict[str, str | int | bool | None]:
    return _about(operation, outgoing.routing_key, f"{outgoing.exchange}:{outgoing.routing_key}") | {
        "messaging.message.id": event["id"],
        "messaging.message.conversation_id": event.get("correlationid"),
        "tenure.tenant_id": event["subject"],
        "tenure.step": event.get("workflowstep"),
    }


def _about(operation: str, routing_key: str, destination: str) -> dict[str, str | int | bool | None]:
    return {
        "messaging.system": _SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
        "messaging.rabbitmq.destination.routing_key": routing_key,
    }


def _batch(count: int) -> dict[str, str | int | bool | None]:
    return {"messaging.batch.message_count": count} if count > 1 else {}


def _service_of(event: Mapping[str, Any]) -> str:
    return str(event["source"]).removeprefix(SOURCE_PREFIX)


def _keys(event: Event) -> Iterable[str]:
    """Return by what it is found out that something is said because of an event."""
    return [str(event.id), *([str(event.workflow_id)] if event.workflow_id else []), event.message.tenant_id]


def _cause_of(event: Mapping[str, Any]) -> tuple[str | None, Sequence[str]]:
    work = _at_work.get()
    return (spans.current(), ()) if work is None else work.cause_of(event)
