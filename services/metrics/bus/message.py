"""A message of an application: what may be events in it, and what is parked of it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from services.metrics.recording.body import BATCH, EVENT, NDJSON, documents_of, events_of, lines_of, media_type_of
from services.metrics.recording.event import Event, Reception
from services.metrics.recording.reading import written
from services.metrics.recording.recorder import CONFLICT, CONFLICT_DETAIL, Outcome
from services.metrics.recording.refusal import RefusedError
from shared.http import Problem
from shared.http.body import MAXIMUM_BODY, check_json
from shared.messaging.admission import Rejected
from shared.messaging.bus import Delivery
from shared.messaging.topology import USAGE_EXCHANGE

CODE: Final = "refusalcode"
"""What an event in parking says beside what it said: why it was refused, for machines. CloudEvents has extensions."""

DETAIL: Final = "refusaldetail"
"""And for people."""

_JSON = ("application/json", EVENT, BATCH)


class Message(NamedTuple):
    """A message that could be read.

    Attributes:
        documents: what may be events.
        sent: the event that each of them is, or why it is none.
    """

    delivery: Delivery
    documents: Sequence[Any]
    sent: Sequence[Event | RefusedError]


def read_message(delivery: Delivery, reception: Reception) -> Message | Rejected:
    """Return what an application has sent, or for parking what is nothing that `POST /v1/usage` would take."""
    media_type = media_type_of(delivery.content_type)
    try:
        _check(media_type, delivery.body)
        _, documents = documents_of(media_type, delivery.body)
    except Problem as problem:
        return _rejected(delivery, "undecodable", f"{problem.code}: {problem.detail}")
    return Message(delivery, documents, events_of(documents, reception))


def _check(media_type: str, body: bytes) -> None:
    """Refuse what the edge refuses of a request, before any route sees it."""
    if len(body) > MAXIMUM_BODY:
        raise Problem(413, code="body_too_large", detail=f"The body has more than {MAXIMUM_BODY} bytes.")
    if media_type in _JSON:
        check_json(body)
    elif media_type != NDJSON:
        detail = f"The content type must be {EVENT}, {BATCH} or {NDJSON}, not {media_type or 'left out'}."
        raise Problem(415, code="unsupported_media_type", detail=detail)


def failed(message: Message, error: Exception) -> Rejected:
    """Return for parking a message that could not be recorded, whatever was tried."""
    return _rejected(message.delivery, "failed", f"{type(error).__name__}: {error}")


def refused(message: Message, outcomes: Sequence[Outcome]) -> Iterator[Rejected]:
    """Yield for parking what was not taken of a message, so that it can be sent again as it is.

    Events say why, each by itself, as `CODE` and `DETAIL`. What is no JSON object has no place for that.
    """
    events: list[dict[str, Any]] = []
    others: list[bytes] = []
    reasons: list[RefusedError] = []
    for document, raw, outcome in zip(message.documents, _raw(message), outcomes, strict=True):
        if (reason := _reason(outcome)) is None:
            continue
        reasons.append(reason)
        if isinstance(document, dict):
            events.append(document | {CODE: reason.code, DETAIL: reason.detail})
        else:
            others.append(raw)
    if events:
        yield _rejected(message.delivery, "refused", _summary(message, reasons), written(events), BATCH)
    if others:
        yield _rejected(message.delivery, "undecodable", _summary(message, reasons), b"\n".join(others), NDJSON)


def _raw(message: Message) -> Sequence[bytes]:
    if media_type_of(message.delivery.content_type) == NDJSON:
        return lines_of(message.delivery.body)
    return [written(document) for document in message.documents]


def _reason(outcome: Outcome) -> RefusedError | None:
    if isinstance(outcome, RefusedError):
        return outcome
    return RefusedError(CONFLICT, CONFLICT_DETAIL) if outcome == CONFLICT else None


def _summary(message: Message, reasons: Sequence[RefusedError]) -> str:
    codes = ", ".join(f"{code} ({count})" for code, count in Counter(each.code for each in reasons).most_common())
    return f"{len(reasons)} of {len(message.sent)} not taken: {codes}. The first: {reasons[0].detail}"


def _rejected(
    delivery: Delivery, reason: str, detail: str, body: bytes | None = None, content_type: str | None = None
) -> Rejected:
    return Rejected(
        body=delivery.body if body is None else body,
        content_type=content_type or delivery.content_type,
        reason=reason,
        detail=detail,
        origin=USAGE_EXCHANGE,
        user_id=delivery.user_id or "",
    )
