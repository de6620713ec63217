"""What is sent, whichever way it comes: one event, an array of them, or one a line."""

from collections.abc import Iterator, Sequence
from typing import Any

from services.metrics.recording.event import Event, Reception, parse
from services.metrics.recording.reading import read, read_line
from services.metrics.recording.recorder import Outcome, Recorder
from services.metrics.recording.refusal import RefusedError
from shared.http import FieldError, Problem

EVENT = "application/cloudevents+json"
"""One event (CloudEvents, JSON format)."""

BATCH = "application/cloudevents-batch+json"
"""An array of events (CloudEvents, JSON format)."""

NDJSON = "application/x-ndjson"
"""One event a line."""

MOST_EVENTS = 1_000
"""How many events may come together."""


def media_type_of(content_type: str) -> str:
    """Return a media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def documents_of(media_type: str, body: bytes) -> tuple[bool, list[Any]]:
    """Return whether one event was sent, and the documents that may be events; of an unreadable line, why it is none.

    Args:
        body: strict JSON, unless it comes by the line.

    Raises:
        Problem: 422, it is no array where it must be one; 413, it brings too many.
    """
    if media_type == NDJSON:
        lines = lines_of(body)
        _check_number(len(lines))
        return False, [_line(line) for line in lines]
    document = read(body) if body else None
    if media_type == EVENT or (media_type != BATCH and not isinstance(document, list)):
        return True, [document]
    if not isinstance(document, list):
        detail = "The body must be an array of events."
        raise Problem(422, code="validation_failed", detail=detail, errors=[FieldError("", detail)])
    _check_number(len(document))
    return False, document


def lines_of(body: bytes) -> list[bytes]:
    """Return the lines of NDJSON, without empty ones."""
    return [line for line in body.splitlines() if line.strip()]


def _line(line: bytes) -> Any:
    try:
        return read_line(line)
    except RefusedError as refusal:
        return refusal


def _check_number(count: int) -> None:
    if count > MOST_EVENTS:
        detail = f"A request may bring at most {MOST_EVENTS} events, not {count}."
        raise Problem(413, code="too_many_events", detail=detail)


def events_of(documents: Sequence[Any], reception: Reception) -> list[Event | RefusedError]:
    """Return the event that each document is, or why it is none."""
    return [_event(document, reception) for document in documents]


def _event(document: Any, reception: Reception) -> Event | RefusedError:
    if isinstance(document, RefusedError):
        return document
    try:
        return parse(document, reception)
    except RefusedError as refusal:
        return refusal


async def outcomes_of(recorder: Recorder, sent: Sequence[Event | RefusedError]) -> list[Outcome]:
    """Record what are events, and return what became of each, in their order.

    Raises:
        Problem: 503, too much is waiting already; nothing was taken.
        OSError: or another error of an outage. The events may have been recorded, and can be sent again.
    """
    recorded: Iterator[Outcome] = iter(await recorder.record([each for each in sent if isinstance(each, Event)]))
    return [next(recorded) if isinstance(each, Event) else each for each in sent]


def id_of(document: Any) -> str | None:
    """Return the id of what may be an event, or None where it has none."""
    id_ = document.get("id") if isinstance(document, dict) else None
    return id_ if isinstance(id_, str) else None
